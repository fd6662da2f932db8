//! Clients for whom there is no room are told so inside of TLS too.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::served::Secured;
use crate::support::tls::{Asking, ClientStream};
use crate::support::within;

const ASKING: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00";

/// Whether a client may stay, and its connection.
type Outcome = (bool, ClientStream);

/// A client that would rather speak HTTP/2: where it is not let in, it is answered in the other version.
async fn ask(it: Arc<Secured>, address: SocketAddr, refused: &'static [u8]) -> Outcome {
    let asking = Asking { protocols: &["h2", "http/1.1"], ..Asking::default() };
    let mut stream = it.authority.connect(address, asking).await.expect("a handshake");
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        return (true, stream);
    }
    stream.write_all(ASKING).await.expect("written");
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.expect("no reset, and TLS has its end");
    assert!(answer.starts_with(refused), "{:?}", String::from_utf8_lossy(&answer));
    (false, stream)
}

async fn connect(it: Arc<Secured>, address: SocketAddr) -> Outcome {
    let mut stream = it.authority.connect(address, Asking::default()).await.expect("a handshake");
    stream.write_all(CONNECT).await.expect("written");
    let mut answer = [0; 4];
    within(stream.read_exact(&mut answer)).await.expect("no reset");
    assert!(answer[0] == 0x20 && matches!(answer[3], 0 | 0x97), "{answer:?}");
    (answer[3] == 0, stream)
}

async fn some_stay_and_the_rest_are_told<F>(clients: impl Iterator<Item = F>)
where
    F: Future<Output = Outcome> + Send + 'static,
{
    // As many at a time as can be done with their handshakes while a crowd gives each its shortest turn, on a machine that
    // is busy and with code that is not optimised.
    let doors = Arc::new(Semaphore::new(8));
    let clients = clients.map(|client| {
        let doors = Arc::clone(&doors);
        async move {
            let _door = doors.acquire_owned().await.expect("open");
            client.await
        }
    });
    let all = clients.collect::<JoinSet<_>>().join_all().await;
    let told = all.iter().filter(|(stays, _)| !stays).count();
    assert!(told > 50 && all.len() - told > 50, "{told} of {} were told", all.len());
}

#[tokio::test]
async fn each_of_many_at_once_is_served_or_told_that_there_is_no_room() {
    for one_port in [false, true] {
        let rest = if one_port { "[http]\ntls = \"optional\"\n" } else { "" };
        let start = || async { Arc::new(Secured::start_after("ulimit -n 160", rest).await) };
        let it = start().await;
        let address = it.server.https.expect("TLS is spoken");
        let clients = (0..220).map(|_| ask(Arc::clone(&it), address, b"HTTP/1.1 503 "));
        some_stay_and_the_rest_are_told(clients).await;
        let it = start().await;
        let address = it.server.mqtts.expect("TLS is spoken");
        some_stay_and_the_rest_are_told((0..220).map(|_| connect(Arc::clone(&it), address))).await;
    }
}

#[tokio::test]
async fn a_client_whose_address_has_too_many_is_told_in_a_version_that_it_reads() {
    let it = Arc::new(Secured::start("[limits]\nmax_connections_per_address = 1\n").await);
    let address = it.server.https.expect("TLS is spoken");
    let (stays, _first) = ask(Arc::clone(&it), address, b"").await;
    assert!(stays);
    for _ in 0..3 {
        assert!(!ask(Arc::clone(&it), address, b"HTTP/1.1 429 ").await.0);
    }
}

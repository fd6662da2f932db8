//! TLS that lanes write to: what is sent arrives whole and in order, whatever the socket takes at a time.

use std::sync::Arc;
use std::time::Duration;

use broker_core::{Broker, Class, Config, Deliver, Delivery, OutboxConfig, Sink};
use bytes::{Bytes, BytesMut};
use link::{HandshakeError, Handshakes, Link, LinkEvent, NetStream, Socket, handshake};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const PATIENCE: Duration = Duration::from_secs(30);

struct Nobody;

impl Deliver for Nobody {
    fn deliver(&self, _: &Delivery, _: &[u32], _: &mut Sink<'_>) {}
}

fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ServerConfig>, TlsConnector) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), TlsConnector::from(Arc::new(client)))
}

fn handshakes() -> Handshakes {
    Handshakes::new(8, Duration::from_secs(10), 1)
}

async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

/// A client, and the server's side of its connection.
async fn pair(version: &'static SupportedProtocolVersion) -> (TlsStream<TcpStream>, NetStream) {
    let (server, connector) = configs(version);
    let (client, accepted) = tcp().await;
    let shaking =
        tokio::spawn(async move { handshake(accepted, server, &handshakes()).await.unwrap().stream });
    let client = connector.connect(ServerName::try_from("localhost").unwrap(), client).await.unwrap();
    (client, shaking.await.unwrap())
}

fn numbered(count: usize, length: usize) -> impl Iterator<Item = Bytes> {
    (0..count).map(move |number| format!("{number:08}{}\n", "-".repeat(length)).into())
}

#[tokio::test]
async fn what_an_outbox_sends_arrives_whole_however_slowly_it_is_read() {
    for version in [&TLS12, &TLS13] {
        for (count, length) in [(20_000, 20), (3_000, 1_000), (40, 100_000), (3, 2_000_000)] {
            let (mut client, stream) = pair(version).await;
            let broker = Broker::new(Config::default());
            let mut config = OutboxConfig::default();
            config.max_messages = 1 << 20;
            config.max_bytes = 64 << 20;
            let bounds = config;
            let subscriber = broker.attach(Arc::new(Nobody), bounds);
            let outbox = subscriber.outbox();
            let link = Link::new(Socket::tcp(stream, Vec::new()), Arc::clone(&outbox));
            let sent: Vec<Bytes> = numbered(count, length).collect();
            for frame in &sent {
                assert!(outbox.send(frame.clone(), Class::Droppable));
            }
            outbox.send_last(Bytes::new());
            let served = tokio::spawn(async move {
                let mut link = link;
                let event = link.next(&mut BytesMut::new()).await;
                assert!(matches!(event, LinkEvent::Closed(_)), "{event:?}");
                link.finish(PATIENCE).await;
            });
            let expected = sent.concat();
            let mut read = Vec::new();
            let mut piece = vec![0; 50_000];
            while read.len() < expected.len() {
                let bytes = timeout(PATIENCE, client.read(&mut piece)).await.unwrap().unwrap();
                assert!(bytes > 0, "{} of {}", read.len(), expected.len());
                read.extend_from_slice(&piece[..bytes]);
                tokio::task::yield_now().await;
            }
            assert!(read == expected);
            // A goodbye, not a cut: rustls says an error without one.
            assert_eq!(timeout(PATIENCE, client.read(&mut piece)).await.unwrap().unwrap(), 0);
            drop(client);
            timeout(PATIENCE, served).await.unwrap().unwrap();
            assert_eq!(outbox.dropped(), 0);
        }
    }
}

#[tokio::test]
async fn a_reader_that_stops_loses_whole_frames_by_the_policy_and_no_part_of_one() {
    let (mut client, stream) = pair(&TLS13).await;
    let broker = Broker::new(Config::default());
    let mut bounds = OutboxConfig::default();
    bounds.max_messages = 50;
    bounds.max_bytes = 64 << 10;
    let mut config = bounds;
    config.policy = broker_core::OutboxPolicy::DropOldest;
    let bounds = config;
    let subscriber = broker.attach(Arc::new(Nobody), bounds);
    let outbox = subscriber.outbox();
    let mut link = Link::new(Socket::tcp(stream, Vec::new()), Arc::clone(&outbox));
    for frame in numbered(5_000, 1_000) {
        assert!(outbox.send(frame, Class::Droppable));
    }
    assert!(outbox.dropped() > 1_000, "{}", outbox.dropped());
    outbox.send_last(Bytes::from_static(b"the end\n"));
    tokio::spawn(async move {
        link.next(&mut BytesMut::new()).await;
        link.finish(PATIENCE).await;
    });
    let mut read = String::new();
    timeout(PATIENCE, client.read_to_string(&mut read)).await.unwrap().unwrap();
    let mut last = None;
    let lines: Vec<&str> = read.lines().collect();
    for line in &lines[..lines.len() - 1] {
        assert_eq!(line.len(), 1_008, "{line}");
        let number: u32 = line[..8].parse().unwrap();
        assert!(last < Some(number));
        last = Some(number);
    }
    assert_eq!(lines.last(), Some(&"the end"));
}

#[tokio::test]
async fn bytes_go_both_ways_and_each_side_says_goodbye() {
    for version in [&TLS12, &TLS13] {
        let (mut client, mut stream) = pair(version).await;
        let sent: Vec<u8> = numbered(300, 1_000).flatten().collect();
        let expected = sent.clone();
        let talking = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            let mut back = Vec::new();
            client.read_to_end(&mut back).await.unwrap();
            back
        });
        let mut first = [0; 3];
        assert_eq!(stream.peek(&mut first).await.unwrap(), 3);
        assert_eq!(first, expected[..3]);
        let mut read = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut read)).await.unwrap().unwrap();
        assert!(read == expected);
        assert_eq!(stream.peek(&mut first).await.unwrap(), 0);
        stream.write_all(&read).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(timeout(PATIENCE, talking).await.unwrap().unwrap() == expected);
    }
}

#[tokio::test]
async fn what_comes_in_the_smallest_pieces_is_read_all_the_same() {
    let (client, accepted) = tcp().await;
    let (near, far) = (client, accepted);
    let (server, connector) = configs(&TLS13);
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    // A byte at a time to the server, as it comes to the client.
    tokio::spawn(async move {
        let (mut from_client, mut to_client) = tokio::io::split(theirs);
        let (mut from_server, mut to_server) = near.into_split();
        to_server.as_ref().set_nodelay(true).unwrap();
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        let mut byte = [0; 1];
        while from_client.read_exact(&mut byte).await.is_ok() {
            to_server.write_all(&byte).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    let shaking = tokio::spawn(async move { handshake(far, server, &handshakes()).await.unwrap().stream });
    let mut client = connector.connect(ServerName::try_from("localhost").unwrap(), ours).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    let mut stream = timeout(PATIENCE, shaking).await.unwrap().unwrap();
    let mut read = [0; 5];
    // Between the bytes of a record that comes, something is written.
    let (mut told, mut asked) = ([0; 2], 0);
    while asked < 5 {
        stream.write_all(b"ok").await.unwrap();
        asked += timeout(PATIENCE, stream.read(&mut read[asked..])).await.unwrap().unwrap();
        client.read_exact(&mut told).await.unwrap();
    }
    assert_eq!(&read, b"hello");
}

#[tokio::test]
async fn who_is_none_of_tls_or_too_slow_or_too_many_gets_no_connection() {
    let (server, _) = configs(&TLS13);
    let all = Handshakes::new(1, Duration::from_millis(300), 1);
    let (mut client, accepted) = tcp().await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let outcome = handshake(accepted, Arc::clone(&server), &all).await;
    assert!(matches!(outcome, Err(HandshakeError::Failed(_))), "{outcome:?}");
    // An alert, as the protocol has it.
    let mut told = Vec::new();
    client.read_to_end(&mut told).await.unwrap();
    assert_eq!(told.first(), Some(&21), "{told:?}");

    let (_silent, accepted) = tcp().await;
    let slow = tokio::spawn({
        let (all, server) = (all.clone(), Arc::clone(&server));
        async move { handshake(accepted, server, &all).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (_other, accepted) = tcp().await;
    let outcome = handshake(accepted, server, &all).await;
    assert!(matches!(outcome, Err(HandshakeError::Busy)), "{outcome:?}");
    let outcome = timeout(PATIENCE, slow).await.unwrap().unwrap();
    assert!(matches!(outcome, Err(HandshakeError::Slow)), "{outcome:?}");
    let stats = all.stats();
    assert_eq!((stats.under_way, stats.done, stats.failed, stats.slow, stats.refused), (0, 0, 1, 1, 1));
}

#[tokio::test]
async fn a_record_that_was_tampered_with_ends_the_connection() {
    let (server, connector) = configs(&TLS13);
    let (client, accepted) = tcp().await;
    let shaking =
        tokio::spawn(async move { handshake(accepted, server, &handshakes()).await.unwrap().stream });
    let client = connector.connect(ServerName::try_from("localhost").unwrap(), client).await.unwrap();
    let mut stream = shaking.await.unwrap();
    let (mut socket, _) = client.into_inner();
    socket.write_all(&[23, 3, 3, 0, 32]).await.unwrap();
    socket.write_all(&[7; 32]).await.unwrap();
    let mut read = Vec::new();
    let error = timeout(PATIENCE, stream.read_to_end(&mut read)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
    assert!(read.is_empty() && stream.write_all(b"x").await.is_err());
}

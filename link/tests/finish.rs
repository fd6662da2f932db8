//! The end of a connection: what was left is written, and nobody waits for a peer that is gone.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use broker_core::{Broker, Class, Config, Deliver, Delivery, OutboxConfig, Sink};
use bytes::Bytes;
use link::{Link, Socket};
use tokio::net::{TcpListener, TcpStream};

struct Nobody;

impl Deliver for Nobody {
    fn deliver(&self, _: &Delivery, _: &[u32], _: &mut Sink<'_>) {}
}

/// The worker of a connection whose peer reset it while frames waited once looked at them for ever.
#[test]
fn a_peer_that_reset_the_connection_is_not_written_to_any_more() {
    let (done, finished) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let broker = Broker::new(Config::default());
            let mut bounds = OutboxConfig::default();
            bounds.max_bytes = 64 << 20;
            let subscriber = broker.attach(Arc::new(Nobody), bounds);
            let outbox = subscriber.outbox();
            let link = Link::new(Socket::tcp(stream, Vec::new()), Arc::clone(&outbox));
            // More than the kernel takes, in several frames: the later ones have not been begun.
            for _ in 0..16 {
                outbox.send(Bytes::from(vec![0; 1 << 20]), Class::Control);
            }
            assert!(outbox.queued().messages > 1, "the socket took everything");
            socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
            drop(peer);
            link.finish(Duration::from_millis(100)).await;
        });
        done.send(()).unwrap();
    });
    finished.recv_timeout(Duration::from_secs(30)).expect("the connection's task ends");
}

//! The options of a TCP connection, whoever accepted it.

use broker_core::{Broker, Config, Deliver, Delivery, OutboxConfig, Sink};
use link::{Link, Socket};
use socket2::SockRef;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

struct Silent;

impl Deliver for Silent {
    fn deliver(&self, _: &Delivery, _: &[u32], _: &mut Sink<'_>) {}
}

#[tokio::test]
async fn a_connection_has_its_options_whether_its_listener_was_prepared_or_not() {
    let broker = Broker::new(Config::default());
    for prepared in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if prepared {
            link::prepare_listener(&listener);
        }
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert_eq!(SockRef::from(&stream).tcp_notsent_lowat().unwrap() == 16 << 10, prepared);
        let same = SockRef::from(&stream).try_clone().unwrap();
        let outbox = broker.attach(Arc::new(Silent), OutboxConfig::default()).outbox();
        let link = Link::new(Socket::tcp(stream, Vec::new()), outbox);
        assert!(same.tcp_nodelay().unwrap());
        assert_eq!(same.tcp_notsent_lowat().unwrap(), 16 << 10);
        assert_eq!(same.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
        assert_eq!(same.send_buffer_size().unwrap(), 128 << 10, "the kernel doubles it");
        drop((link, client));
    }
}

//! An upstream that says what a test wants, and a broker that hears it.

use std::sync::Arc;
use std::time::Duration;

use broker_core::{
    After, Broker, Class, CloseCause, Connection, Deliver, Delivery, Details, Event, Filter, ForcedError,
    Message, OutboxConfig, Peer, Principal, Queued, Rights, Sink, Start, StartFrom, SubscribeOptions,
    Subscribed, Subscriber, Subscription,
};
use parking_lot::Mutex;
use sources::{Config, Sources, Written};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), future).await.expect("within 30 s")
}

/// A server whose answers a test writes; each connection has one.
pub(crate) struct Upstream {
    pub(crate) url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    /// `answer` gets the number of the request, from 0, and its head with the body.
    pub(crate) async fn start(answer: impl Fn(usize, &str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let head = request(&mut stream).await;
                let number = {
                    let mut seen = seen.lock();
                    seen.push(head.clone());
                    seen.len() - 1
                };
                let text = answer(number, &head);
                // What ends with this is a stream that stays open.
                let (text, stays) = text.strip_suffix("<open>").map_or((&*text, false), |text| (text, true));
                let _ = stream.write_all(text.as_bytes()).await;
                if stays {
                    tokio::spawn(async move {
                        let _ = stream.read(&mut [0; 1]).await;
                    });
                }
            }
        });
        Self { url, heads }
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().clone()
    }

    pub(crate) fn port(&self) -> &str {
        self.url.rsplit(':').next().expect("a port")
    }
}

async fn request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.and_then(|length| length.parse().ok()).unwrap_or(0) {
                return text;
            }
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return text,
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
        }
    }
}

/// An answer with a body.
pub(crate) fn ok(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n{body}", body.len())
}

pub(crate) fn status(line: &str) -> String {
    format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

pub(crate) fn stream(events: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{events}")
}

pub(crate) struct Life {
    pub(crate) broker: Broker,
    pub(crate) sources: Sources,
}

impl Life {
    /// With these sources, whose addresses are trusted.
    pub(crate) fn start(written: &[serde_json::Value]) -> Self {
        Self::start_with(written, 80)
    }

    /// The same; URLs of others may lead to this port of this machine.
    pub(crate) fn start_with(written: &[serde_json::Value], port: u16) -> Self {
        let broker = Broker::new(broker_core::Config::default());
        let mut config = Config::default();
        config.addresses.allow.push("127.0.0.0/8".parse().expect("a range"));
        config.addresses.allow.push("::1".parse().expect("a range"));
        config.addresses.allow_ports.push(port);
        for one in written {
            let written: Written = serde_json::from_value(one.clone()).expect("a source");
            config.sources.push(written.settings().expect("one that can be meant"));
        }
        Self { sources: Sources::start(&broker, config), broker }
    }

    /// Without any, where URLs may lead to public addresses alone, as nothing else is said.
    pub(crate) fn start_closed() -> Self {
        let broker = Broker::new(broker_core::Config::default());
        Self { sources: Sources::start(&broker, Config::default()), broker }
    }

    /// A client subscribes, and stays.
    pub(crate) fn subscribes(&self, filter: &str) -> Arc<Client> {
        let client = Arc::new(Client(self.broker.attach(Arc::new(Plain), OutboxConfig::default())));
        client.0.register_connection(&client);
        client.0.join();
        client.0.subscribe(&Filter::parse(filter).expect("a filter"), 0, Start::Live).expect("subscribed");
        client
    }

    pub(crate) fn hear(&self, filter: &str) -> Heard {
        let mut options = SubscribeOptions::default();
        options.from = StartFrom::Log(After::Earliest);
        let filter = Filter::parse(filter).expect("a filter");
        Heard(self.broker.subscribe_with(&[filter], options).expect("subscribed"))
    }
}

pub(crate) struct Heard(Subscription);

impl Heard {
    pub(crate) async fn next(&mut self) -> Arc<Message> {
        loop {
            match within(self.0.next()).await {
                Some(Event::Message(message)) => return message,
                Some(_) => {}
                None => panic!("the broker ended"),
            }
        }
    }

    pub(crate) async fn text(&mut self) -> String {
        String::from_utf8(self.next().await.payload().to_vec()).expect("text")
    }

    pub(crate) async fn nothing(&mut self, span: Duration) {
        let heard = timeout(span, self.0.next()).await;
        assert!(!matches!(heard, Ok(Some(Event::Message(_)))), "{heard:?}");
    }
}

struct Plain;

impl Deliver for Plain {
    fn deliver(&self, delivery: &Delivery, _: &[u32], sink: &mut Sink<'_>) {
        sink.send(delivery.message().payload(), Class::Droppable);
    }
}

pub(crate) struct Client(Subscriber);

impl Connection for Client {
    fn peer(&self) -> Option<Peer> {
        Some(Peer::new(Principal::user_with("ann", Rights::all()), "test", "none", 0))
    }
    fn details(&self) -> Details {
        Details::default()
    }
    fn queued(&self) -> Queued {
        Queued::default()
    }
    fn close(&self, _: &CloseCause) {}
    fn subscribe(&self, _: &Filter) -> Result<Subscribed, ForcedError> {
        Err(ForcedError::Gone)
    }
    fn unsubscribe(&self, _: &Filter) -> bool {
        false
    }
}

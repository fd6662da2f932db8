//! A front behind a real listener, and a raw client that shows every byte.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{AllowAll, Authenticator, Broker, Channel, Publish, Receipt};
use front_sse::{Config, Front};
use http_edge::{ServeConfig, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

pub struct Server {
    pub broker: Broker,
    pub front: Front,
    pub address: SocketAddr,
    _running: watch::Sender<bool>,
}

impl Server {
    pub async fn start() -> Server {
        Server::with(broker_core::Config::default(), Config::default(), Arc::new(AllowAll)).await
    }

    pub async fn with(
        core: broker_core::Config,
        config: Config,
        authenticator: Arc<dyn Authenticator>,
    ) -> Server {
        let broker = Broker::new(core);
        let front = Front::new(broker.clone(), authenticator, config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (running, stop) = watch::channel(false);
        let served = front.clone();
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let front = served.clone();
                let service = move |request| {
                    let front = front.clone();
                    async move { front.handle(request).await }
                };
                tokio::spawn(serve(stream, peer, service, ServeConfig::default(), stop.clone()));
            }
        });
        Server { broker, front, address, _running: running }
    }

    pub fn publish(&self, channel: &str, payload: &str) -> Receipt {
        let channel = Channel::parse(channel).unwrap();
        self.broker.publish(Publish::new(channel, payload.to_owned())).unwrap()
    }

    /// Opens a stream and reads its head.
    pub async fn open(&self, target: &str) -> Client {
        self.open_with(target, "").await
    }

    pub async fn open_with(&self, target: &str, headers: &str) -> Client {
        let mut client = self.connect().await;
        client.send(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
        client.head = client.until("\r\n\r\n").await;
        client
    }

    pub async fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.unwrap();
        Client { stream, received: Vec::new(), body: Vec::new(), head: String::new(), framing: Framing::Head }
    }

    /// One request on a connection of its own, answered until the server closes.
    pub async fn ask(&self, request: &str) -> String {
        let mut client = self.connect().await;
        client.send(request).await;
        client.rest().await
    }
}

pub struct Client {
    pub stream: TcpStream,
    /// Bytes as they came.
    received: Vec<u8>,
    /// Bytes of the body, out of their chunks.
    body: Vec<u8>,
    pub head: String,
    pub framing: Framing,
}

/// How far a response was read, and how its body is framed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    Head,
    UntilClose,
    Chunked,
    /// The last chunk has come.
    Ended,
}

const PATIENCE: Duration = Duration::from_secs(10);

impl Client {
    pub async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Takes everything up to and with `end`: of the head first, then of the body.
    pub async fn until(&mut self, end: &str) -> String {
        timeout(PATIENCE, async {
            loop {
                if let Some(at) = find(&self.body, end.as_bytes()) {
                    let rest = self.body.split_off(at + end.len());
                    let taken = std::mem::replace(&mut self.body, rest);
                    return String::from_utf8(taken).unwrap();
                }
                if self.framing == Framing::Head
                    && let Some(at) = find(&self.received, b"\r\n\r\n")
                {
                    let rest = self.received.split_off(at + 4);
                    let head = String::from_utf8(std::mem::replace(&mut self.received, rest)).unwrap();
                    let chunked = head.contains("transfer-encoding: chunked\r\n");
                    self.framing = if chunked { Framing::Chunked } else { Framing::UntilClose };
                    self.take_body();
                    assert_eq!(end, "\r\n\r\n", "the head comes first");
                    return head;
                }
                let mut piece = [0; 4096];
                let read = self.stream.read(&mut piece).await.unwrap();
                assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&self.body));
                self.received.extend_from_slice(&piece[..read]);
                self.take_body();
            }
        })
        .await
        .unwrap_or_else(|_| panic!("no {end:?} came"))
    }

    /// Moves what has come of the body out of its chunks.
    fn take_body(&mut self) {
        if self.framing == Framing::UntilClose {
            self.body.append(&mut self.received);
        }
        while self.framing == Framing::Chunked
            && let Some(at) = find(&self.received, b"\r\n")
        {
            let size = std::str::from_utf8(&self.received[..at]).unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            let end = at + 2 + size;
            if self.received.len() < end + 2 {
                return;
            }
            assert_eq!(&self.received[end..end + 2], b"\r\n", "a chunk is as long as it says");
            self.body.extend_from_slice(&self.received[at + 2..end]);
            self.received.drain(..end + 2);
            if size == 0 {
                self.framing = Framing::Ended;
            }
        }
    }

    /// The next event.
    pub async fn event(&mut self) -> String {
        let block = self.until("\n\n").await;
        let is_data = block.lines().any(|line| line.starts_with("data:"));
        assert!(is_data, "a blank line ends an event and nothing else: {block:?}");
        // The first one may have comments and the stream's position before it.
        let lines: Vec<_> = block.lines().filter(|line| !line.starts_with(':')).collect();
        let is_twice =
            lines.get(1).is_some_and(|line| line.starts_with("id: ")) && lines[0].starts_with("id: ");
        lines[usize::from(is_twice)..].join("\n") + "\n"
    }

    /// Everything that still comes until the server closes, of the head or of the body.
    pub async fn rest(&mut self) -> String {
        timeout(PATIENCE, self.stream.read_to_end(&mut self.received)).await.expect("closes").unwrap();
        self.take_body();
        let mut rest = std::mem::take(&mut self.body);
        rest.append(&mut self.received);
        String::from_utf8(rest).unwrap()
    }

    /// Whether nothing comes for a moment.
    pub async fn is_silent(&mut self) -> bool {
        let mut piece = [0; 1];
        self.received.is_empty()
            && self.body.is_empty()
            && timeout(Duration::from_millis(150), self.stream.read(&mut piece)).await.is_err()
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Waits until `done`, for at most ten seconds.
pub async fn eventually(mut done: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came about");
}

//! The API and event streams behind one real listener, and a raw client that shows every byte.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{AllowAll, Authenticator, Broker};
use http_edge::{ServeConfig, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

pub struct Server {
    pub broker: Broker,
    pub api: front_http::Front,
    pub sse: front_sse::Front,
    pub address: SocketAddr,
    _running: watch::Sender<bool>,
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    fn parse(text: &str) -> Answer {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect(text);
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The `code` of a problem.
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.body);
        self.json()["code"].as_str().unwrap().to_owned()
    }
}

impl Server {
    pub async fn start() -> Server {
        Server::with(broker_core::Config::default(), front_http::Config::default(), Arc::new(AllowAll)).await
    }

    pub async fn with(
        core: broker_core::Config,
        config: front_http::Config,
        authenticator: Arc<dyn Authenticator>,
    ) -> Server {
        let broker = Broker::new(core);
        let api = front_http::Front::new(broker.clone(), Arc::clone(&authenticator), config);
        let mut streams = front_sse::Config::default();
        streams.announce_position = false;
        let sse = front_sse::Front::new(broker.clone(), authenticator, streams);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (running, stop) = watch::channel(false);
        let fronts = (api.clone(), sse.clone());
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let (api, sse) = fronts.clone();
                let service = move |request: http::Request<hyper::body::Incoming>| {
                    let (api, sse) = (api.clone(), sse.clone());
                    async move {
                        if request.uri().path().starts_with("/sse") {
                            sse.handle(request).await
                        } else {
                            api.handle(request).await
                        }
                    }
                };
                let mut config = ServeConfig::default();
                config.holds = http_edge::Holds::by(|_| true);
                tokio::spawn(serve(stream, peer, service, config, stop.clone()));
            }
        });
        Server { broker, api, sse, address, _running: running }
    }

    /// One request on a connection of its own. `headers` are whole lines.
    pub async fn ask(&self, line: &str, headers: &str, body: &[u8]) -> Answer {
        self.ask_from("127.0.0.1", line, headers, body).await
    }

    /// As [`ask`](Self::ask), from this address.
    pub async fn ask_from(&self, address: &str, line: &str, headers: &str, body: &[u8]) -> Answer {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
        let mut stream = socket.connect(self.address).await.unwrap();
        let length = if body.is_empty() && line.starts_with("GET") {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let head = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that refuses a body may close before it took it all.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("an answer");
        Answer::parse(&String::from_utf8_lossy(&answer))
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.ask(&format!("GET {target}"), "", b"").await
    }

    pub async fn post(&self, target: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
        self.ask(&format!("POST {target}"), headers, body.as_ref()).await
    }

    /// Publishes JSON items.
    pub async fn items(&self, body: impl AsRef<[u8]>) -> Answer {
        self.post("/v1/publish", "Content-Type: application/json\r\n", body).await
    }

    pub async fn stream(&self, target: &str) -> Client {
        let mut client = Client {
            head: String::new(),
            stream: TcpStream::connect(self.address).await.unwrap(),
            received: Vec::new(),
        };
        // Without chunks, so that what comes is the stream.
        client.send(format!("GET {target} HTTP/1.0\r\nHost: x\r\n\r\n").as_bytes()).await;
        client.head = client.until("\r\n\r\n").await;
        client
    }

    pub async fn connect(&self) -> Client {
        Client {
            head: String::new(),
            stream: TcpStream::connect(self.address).await.unwrap(),
            received: Vec::new(),
        }
    }
}

pub struct Client {
    /// Of a stream's answer.
    pub head: String,
    pub stream: TcpStream,
    pub received: Vec<u8>,
}

impl Client {
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Takes everything up to and with `end`.
    pub async fn until(&mut self, end: &str) -> String {
        timeout(Duration::from_secs(10), async {
            let mut searched = 0;
            loop {
                let fresh = self.received.get(searched..).unwrap_or_default();
                let at = fresh.windows(end.len()).position(|window| window == end.as_bytes());
                if let Some(at) = at {
                    let rest = self.received.split_off(searched + at + end.len());
                    return String::from_utf8(std::mem::replace(&mut self.received, rest)).unwrap();
                }
                searched = self.received.len().saturating_sub(end.len());
                let mut piece = [0; 64 << 10];
                let read = self.stream.read(&mut piece).await.unwrap();
                assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&self.received));
                self.received.extend_from_slice(&piece[..read]);
            }
        })
        .await
        .unwrap_or_else(|_| panic!("no {end:?} came, only {:?}", String::from_utf8_lossy(&self.received)))
    }

    /// The next event, without comments.
    pub async fn event(&mut self) -> String {
        let block = self.until("\n\n").await;
        let lines: Vec<_> = block.lines().filter(|line| !line.starts_with(':')).collect();
        lines.join("\n") + "\n"
    }
}

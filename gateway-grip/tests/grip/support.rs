//! A front behind a real listener, and an origin that is scripted on bare sockets.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{AllowAll, Broker};
use gateway_grip::settings::{Written, WrittenGrip, read};
use gateway_grip::{Config, Front, Routes, Settings};
use http_edge::{ServeConfig, serve};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// How long anything may take that should happen.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}

/// Routes as they are written.
pub(crate) fn settings(routes: Value) -> Settings {
    settings_with(routes, serde_json::json!({}))
}

fn settings_with(routes: Value, grip: Value) -> Settings {
    let written: Vec<Written> = serde_json::from_value(routes).unwrap();
    let grip: WrittenGrip = serde_json::from_value(grip).unwrap();
    read(&written, &grip, std::path::Path::new("/"), |_| false).unwrap()
}

/// A front that listens.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) front: Front,
    pub(crate) routes: Routes,
    pub(crate) broker: Broker,
    _closing: watch::Sender<bool>,
}

impl Server {
    pub(crate) async fn start(routes: Value) -> Self {
        Self::start_with(routes, serde_json::json!({})).await
    }

    pub(crate) async fn start_with(routes: Value, grip: Value) -> Self {
        let mut config = Config::default();
        config.settings = settings_with(routes, grip);
        let routes = config.routes.clone();
        let broker = Broker::new(broker_core::Config::default());
        let front = Front::new(broker.clone(), Arc::new(AllowAll), config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (closing, closed) = watch::channel(false);
        let served = front.clone();
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let front = served.clone();
                let handle = move |request| {
                    let front = front.clone();
                    async move { Front::handle(&front, request).await }
                };
                tokio::spawn(serve(stream, peer, handle, ServeConfig::default(), closed.clone()));
            }
        });
        Self { address, front, routes, broker, _closing: closing }
    }

    pub(crate) async fn connect(&self) -> Stream {
        Stream(within(TcpStream::connect(self.address)).await.unwrap())
    }

    /// A connection to the control port.
    pub(crate) async fn control(&self) -> Stream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let accepted = front::Accepted::new(front::Socket::tcp(stream, Vec::new()), peer, None);
        tokio::spawn(front::Front::serve(&self.front, accepted));
        Stream(client)
    }

    /// What comes for one request, to the end of the connection.
    pub(crate) async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.send(request).await;
        stream.rest().await
    }

    /// The same for a GET.
    pub(crate) async fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")).await
    }
}

/// A socket in words.
pub(crate) struct Stream(pub(crate) TcpStream);

impl Stream {
    pub(crate) async fn send(&mut self, text: &str) {
        within(self.0.write_all(text.as_bytes())).await.unwrap();
    }

    /// What comes up to a text.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        let mut got = Vec::new();
        while !got.ends_with(end.as_bytes()) {
            got.push(within(self.0.read_u8()).await.unwrap());
        }
        String::from_utf8(got).unwrap()
    }

    pub(crate) async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    pub(crate) async fn rest(&mut self) -> String {
        let mut got = Vec::new();
        // A reset is an end too.
        let _ = within(self.0.read_to_end(&mut got)).await;
        String::from_utf8_lossy(&got).into_owned()
    }
}

/// Somewhere that accepts connections.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    accepted: mpsc::UnboundedReceiver<TcpStream>,
}

impl Origin {
    pub(crate) async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let (sender, accepted) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if sender.send(stream).is_err() {
                    return;
                }
            }
        });
        Self { address, accepted }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next connection.
    pub(crate) async fn accept(&mut self) -> Stream {
        Stream(within(self.accepted.recv()).await.unwrap())
    }

    /// Whether nobody else has come.
    pub(crate) fn is_alone(&mut self) -> bool {
        self.accepted.try_recv().is_err()
    }

    /// Takes one request and answers it; what its head was.
    pub(crate) async fn answer(&mut self, answer: &str) -> String {
        let mut stream = self.accept().await;
        let head = stream.head().await;
        stream.send(answer).await;
        head
    }
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

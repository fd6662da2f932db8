//! Servers that a test scripts, byte by byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use outgoing::{Client, Error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An answer of two bytes.
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Counts what comes, and ends with the test's runtime.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

impl Server {
    /// Answers the requests of each connection with one text after the other, and closes it after the last.
    pub(crate) async fn start(answers: &[&str]) -> Self {
        Self::start_with(answers, Duration::ZERO).await
    }

    /// The same, each answer after a while.
    pub(crate) async fn start_with(answers: &[&str], after: Duration) -> Self {
        let answers: Arc<[String]> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let count = || Arc::new(AtomicUsize::new(0));
        let server = Server { address, connections: count(), requests: count(), ended: count() };
        let (connections, requests) = (Arc::clone(&server.connections), Arc::clone(&server.requests));
        let ended = Arc::clone(&server.ended);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (requests, ended, answers) =
                    (Arc::clone(&requests), Arc::clone(&ended), Arc::clone(&answers));
                tokio::spawn(async move {
                    for answer in &*answers {
                        if !head(&mut stream).await {
                            break;
                        }
                        requests.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(after).await;
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                    ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Connections, requests.
    pub(crate) fn seen(&self) -> (usize, usize) {
        (self.connections.load(Ordering::SeqCst), self.requests.load(Ordering::SeqCst))
    }

    /// Connections that are over.
    pub(crate) fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }

    pub(crate) async fn fetch(&self, client: &Client) -> Result<Response<Bytes>, Error> {
        client.fetch(get(&self.url()), 1000, Duration::from_secs(5)).await
    }
}

async fn head(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    true
}

pub(crate) fn get(url: &str) -> Request<Bytes> {
    Request::get(url).body(Bytes::new()).unwrap()
}

/// Waits until `what` is so, for at most 5 s.
pub(crate) async fn until(what: impl Fn() -> bool) {
    for _ in 0..500 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come to that");
}

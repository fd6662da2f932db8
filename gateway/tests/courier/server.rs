//! A backend that a test scripts.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What came.
#[derive(Clone, Debug)]
pub(crate) struct Came {
    pub(crate) body: String,
}

/// Answers each request as `answer` says, which is given how many came before and the request: a whole answer, or an
/// empty text to end the connection.
pub(crate) async fn start(
    answer: impl Fn(usize, &Came) -> String + Send + Sync + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<Came>>>) {
    start_at(([127, 0, 0, 1], 0).into(), answer).await
}

/// The same where nobody listens now.
pub(crate) async fn start_at(
    address: SocketAddr,
    answer: impl Fn(usize, &Came) -> String + Send + Sync + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<Came>>>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let came = Arc::new(Mutex::new(Vec::new()));
    let (answer, all) = (Arc::new(answer), Arc::clone(&came));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answer, all) = (Arc::clone(&answer), Arc::clone(&all));
            tokio::spawn(async move { serve(stream, &*answer, &all).await });
        }
    });
    (address, came)
}

async fn serve(mut stream: TcpStream, answer: &impl Fn(usize, &Came) -> String, all: &Mutex<Vec<Came>>) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        let request = Came { body: String::from_utf8(body).unwrap() };
        let number = {
            let mut all = all.lock();
            all.push(request.clone());
            all.len() - 1
        };
        let answer = answer(number, &request);
        if answer.is_empty() || stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

pub(crate) fn status(status: u16) -> String {
    format!("HTTP/1.1 {status} Some\r\ncontent-length: 0\r\n\r\n")
}

pub(crate) fn with_body(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

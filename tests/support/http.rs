//! An HTTP client that sends what it is told: hyper for requests that are well-formed, a bare socket for the others.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The code of a problem.
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        self.json()["code"].as_str().expect("a code").to_owned()
    }
}

/// A connection that speaks HTTP/2 from its first byte (RFC 9113 §3.3), for requests without a body.
pub async fn http2(
    address: SocketAddr,
) -> hyper::client::conn::http2::SendRequest<http_body_util::Empty<Bytes>> {
    let stream = TcpStream::connect(address).await.expect("the server listens");
    let (client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("prior knowledge");
    tokio::spawn(connection);
    client
}

/// One request on a connection of its own.
pub async fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    within(async {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        let (mut client, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
        let connection = tokio::spawn(connection);
        let mut request =
            http::Request::builder().method(method).uri(target).header("host", address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("a legal request");
        let response = client.send_request(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        drop(client);
        connection.abort();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    })
    .await
}

pub async fn get(address: SocketAddr, target: &str) -> Answer {
    request(address, "GET", target, &[], "").await
}

pub async fn post(address: SocketAddr, target: &str, body: impl Into<Bytes>) -> Answer {
    request(address, "POST", target, &[], body).await
}

pub async fn post_json(address: SocketAddr, target: &str, body: impl Into<Bytes>) -> Answer {
    request(address, "POST", target, &[("content-type", "application/json")], body).await
}

/// Sends bytes and returns what comes back until the server closes. A reset counts as a close: the server may close
/// before all input was read.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    within(async {
        let mut stream = TcpStream::connect(address).await.expect("the server listens");
        let mut answer = Vec::new();
        if stream.write_all(bytes).await.is_ok() {
            let _ = stream.read_to_end(&mut answer).await;
        }
        answer
    })
    .await
}

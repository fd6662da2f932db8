//! A client of HTTP/2 that opens WebSockets by an extended CONNECT (RFC 8441).

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::within;

/// One connection.
pub struct Http2 {
    client: SendRequest<Full<Bytes>>,
    /// Scheme and authority.
    base: String,
}

/// A WebSocket that is one stream of it.
pub type Tunnel = WebSocketStream<TokioIo<Upgraded>>;

impl Http2 {
    /// Without TLS, from the first byte.
    pub async fn plain(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.expect("the server listens");
        Self::over(stream, &format!("http://{to}")).await
    }

    /// On a connection to `base`.
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, base: &str) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        // A stream that is not read is not to use up what all have.
        builder.initial_stream_window_size(10_000).initial_connection_window_size(1 << 20);
        let (client, connection) = within(builder.handshake(TokioIo::new(stream))).await.expect("HTTP/2");
        tokio::spawn(connection);
        let it = Http2 { client, base: base.to_owned() };
        // What the server can do is known before its first answer.
        assert_eq!(it.send("GET", "/healthz", "").await, (200, "ok\n".to_owned()));
        it
    }

    pub async fn ask(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        within(self.client.clone().send_request(request)).await.expect("an answer")
    }

    /// Status and text of an answer.
    pub async fn send(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{target}", self.base))
            .header("content-type", "application/json");
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("a request");
        text(self.ask(request).await).await
    }

    /// Asks for a WebSocket; the answer of a server that does not open it.
    pub async fn open(
        &self,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<(Tunnel, http::HeaderMap), (u16, String)> {
        let answer = self.ask(opening(&format!("{}{target}", self.base), "websocket", headers)).await;
        if answer.status() != 200 {
            return Err(text(answer).await);
        }
        let head = answer.headers().clone();
        let stream = within(hyper::upgrade::on(answer)).await.expect("taken over");
        Ok((WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Client, None).await, head))
    }
}

/// The extended CONNECT itself.
pub fn opening(url: &str, protocol: &'static str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .version(Version::HTTP_2)
        .uri(url)
        .extension(Protocol::from_static(protocol))
        .header("sec-websocket-version", "13");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).expect("a request")
}

async fn text(answer: Response<Incoming>) -> (u16, String) {
    let status = answer.status().as_u16();
    let body = within(answer.into_body().collect()).await.expect("a whole body").to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("UTF-8"))
}

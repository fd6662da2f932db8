//! The floor of HTTP publishing: hyper reads a body and answers what Fanwire would, and nothing is published.
//!
//! `bare-hyper 127.0.0.1:8090`; runs until it is ended.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let channel = request.uri().path().trim_start_matches("/v1/publish/").to_owned();
    let body = request.into_body().collect().await;
    let receivers = usize::from(body.is_err());
    let text = format!("{{\"channel\":\"{channel}\",\"id\":\"bare0-1\",\"receivers\":{receivers}}}");
    let response =
        Response::builder().header("content-type", "application/json").body(Full::new(text.into()));
    Ok(response.unwrap_or_default())
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address: SocketAddr = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| std::io::Error::other("usage: bare-hyper ADDRESS:PORT"))?;
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            // A client that goes away is no news here.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .await;
        });
    }
}

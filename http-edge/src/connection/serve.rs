//! One accepted connection: HTTP/1 whose stream can be taken back, or HTTP/2 by prior knowledge.

use std::net::SocketAddr;

use http::Request;
use hyper::body::Incoming;
use link::NetStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::config::ServeConfig;
use super::http1::serve_http1;
use super::http2::serve_http2;
use super::preface::speaks_http2;
use crate::request::{Peer, Response};

/// Serves one connection, plain or with TLS, until it ends, fails, or was taken over.
///
/// Every request carries a [`Peer`] extension, and a [`Takeover`](crate::Takeover) where the stream can be taken back.
/// When `shutdown` turns true (or its sender is gone) the connection ends after the responses that are under way;
/// ending long ones is up to the handler.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub fn serve<S, F>(
    stream: impl Into<NetStream>,
    peer: SocketAddr,
    service: S,
    config: ServeConfig,
    shutdown: watch::Receiver<bool>,
) -> impl Future<Output = ()> + Send
where
    S: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let service = move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        service(request)
    };
    serve_stream(stream.into(), service, config, shutdown)
}

/// As [`serve`], without the [`Peer`] extension: for a service that knows the address, and gives it to those that want
/// it. An extension costs each request three allocations.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub fn serve_unnamed<S, F>(
    stream: impl Into<NetStream>,
    service: S,
    config: ServeConfig,
    shutdown: watch::Receiver<bool>,
) -> impl Future<Output = ()> + Send
where
    S: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    serve_stream(stream.into(), service, config, shutdown)
}

async fn serve_stream<S, F>(
    stream: NetStream,
    service: S,
    config: ServeConfig,
    shutdown: watch::Receiver<bool>,
) where
    S: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    // Answers are single writes already; waiting for more only adds 40 ms to a pipelined one.
    let _ = stream.tcp().set_nodelay(true);
    match timeout(config.header_read_timeout, speaks_http2(&stream)).await {
        Ok(Ok((false, read))) => serve_http1(stream, read, service, config, shutdown).await,
        // Boxed, so that connections of HTTP/1 have no room for it.
        Ok(Ok((true, read))) => Box::pin(serve_http2(stream, read, service, config, shutdown)).await,
        Ok(Err(_)) | Err(_) => {}
    }
}

//! One connection after its handshakes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::Error;
use crate::payload::Payload;
use crate::target::Ready;

/// Most header fields of an answer: the answer of an origin may name 200 channels, each in a field of its own.
const MAX_HEADERS: usize = 512;

/// Most bytes of the fields of an answer over HTTP/2, each counted with 32 more. Over HTTP/1.1 hyper takes about 400 kB.
const MAX_HEADER_BYTES: u32 = 256 << 10;

/// What bytes go over.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Bytes both ways, over TCP or TLS: what [`Client::open`](crate::Client::open) gives, for protocols other than HTTP.
pub struct Stream(pub(crate) Box<dyn Io>);

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(context)
    }
}

/// What takes requests.
#[derive(Debug)]
pub(crate) enum Connection {
    /// One after the other.
    Http1(http1::SendRequest<Payload>),
    /// Many at a time.
    Http2(http2::SendRequest<Payload>),
}

/// Why a request has no answer.
pub(crate) enum Unanswered {
    /// Not a byte of it was sent.
    Untouched(Box<Ready>),
    Failed(Error),
}

impl Connection {
    /// Speaks HTTP over `io`.
    pub(crate) async fn open(io: Box<dyn Io>, version: Version) -> Result<Self, Error> {
        let io = TokioIo::new(io);
        let failed = |error| Error::of_hyper(&error);
        if version == Version::HTTP_2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.max_header_list_size(MAX_HEADER_BYTES);
            let (sender, driver) = builder.handshake(io).await.map_err(failed)?;
            tokio::spawn(driver);
            return Ok(Connection::Http2(sender));
        }
        let handshake = http1::Builder::new().max_headers(MAX_HEADERS).handshake(io);
        let (sender, driver) = handshake.await.map_err(failed)?;
        // Where a request asks for it and the answer is 101, the connection is the caller's.
        tokio::spawn(driver.with_upgrades());
        Ok(Connection::Http1(sender))
    }

    /// Sends a request, and waits for the head of its answer.
    pub(crate) async fn send(&mut self, ready: Ready) -> Result<Response<Incoming>, Unanswered> {
        let (sent, uri) = match self {
            Connection::Http1(sender) => {
                let (request, uri) = ready.for_http1();
                (sender.try_send_request(request).await, uri)
            }
            Connection::Http2(sender) => {
                let (request, uri) = ready.for_http2();
                (sender.try_send_request(request).await, uri)
            }
        };
        sent.map_err(|mut error| match error.take_message() {
            Some(request) => Unanswered::Untouched(Box::new(Ready::again(request, uri))),
            None => Unanswered::Failed(Error::of_hyper(error.error())),
        })
    }
}

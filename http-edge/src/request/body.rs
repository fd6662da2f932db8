//! Bodies of one type.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use broker_core::Outbox;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;

use super::error::BoxError;
use super::pipe::{Behind, PipeBody, PipeIo, ends};

/// What every handler answers with.
pub type Response = http::Response<Body>;

/// A body of a response or a request: nothing, bytes that are already there, what a connection of
/// [`serve`](crate::serve) receives, or a stream.
#[derive(Default)]
pub struct Body(Inner);

#[derive(Default)]
enum Inner {
    #[default]
    Empty,
    Full(Bytes),
    Pipe(PipeBody),
    Received(Incoming),
    Stream(Pin<Box<dyn HttpBody<Data = Bytes, Error = BoxError> + Send>>),
}

impl Body {
    /// A body of no bytes.
    pub fn empty() -> Self {
        Body(Inner::Empty)
    }

    /// A body whose bytes are known, so that its length is too.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Body::empty() } else { Body(Inner::Full(bytes)) }
    }

    /// Its bytes, if they are there.
    ///
    /// # Errors
    /// The body, if it is a stream.
    pub(crate) fn into_bytes(self) -> Result<Bytes, Self> {
        match self.0 {
            Inner::Empty => Ok(Bytes::new()),
            Inner::Full(bytes) => Ok(bytes),
            Inner::Pipe(_) | Inner::Received(_) | Inner::Stream(_) => Err(self),
        }
    }

    /// The bytes that wait behind it, for a kind of body that knows them.
    pub(crate) fn behind(&self) -> Option<Behind> {
        match &self.0 {
            Inner::Pipe(body) => Some(body.behind()),
            Inner::Empty | Inner::Full(_) | Inner::Received(_) | Inner::Stream(_) => None,
        }
    }

    /// The body of a request of whatever HTTP server. This crate's own and hyper's are taken as they are; any other is
    /// boxed.
    pub fn of_request<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut slot = Some(body);
        let any: &mut dyn Any = &mut slot;
        if let Some(own) = any.downcast_mut::<Option<Body>>() {
            return own.take().unwrap_or_default();
        }
        if let Some(received) = any.downcast_mut::<Option<Incoming>>() {
            return received.take().map_or_else(Body::empty, |body| Body(Inner::Received(body)));
        }
        slot.map_or_else(Body::empty, |body| Body::stream(Boxed { body }))
    }

    /// A body that is produced while it is sent.
    pub fn stream(body: impl HttpBody<Data = Bytes, Error = BoxError> + Send + 'static) -> Self {
        Body(Inner::Stream(Box::pin(body)))
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Inner::Empty => f.write_str("Body(empty)"),
            Inner::Full(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Inner::Pipe(_) | Inner::Received(_) | Inner::Stream(_) => f.write_str("Body(stream)"),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Inner::Empty => Poll::Ready(None),
            Inner::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Inner::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Inner::Pipe(body) => Pin::new(body).poll_frame(cx),
            Inner::Received(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Inner::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Full(_) => false,
            Inner::Pipe(body) => body.is_end_stream(),
            Inner::Received(body) => body.is_end_stream(),
            Inner::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Pipe(body) => body.size_hint(),
            Inner::Received(body) => body.size_hint(),
            Inner::Stream(body) => body.size_hint(),
        }
    }
}

pin_project! {
    /// A body whose errors are boxed.
    struct Boxed<B> {
        #[pin]
        body: B,
    }
}

impl<B> HttpBody for Boxed<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.project().body.poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A pipe that holds at most `capacity_bytes` not yet taken by the client.
pub fn pipe(capacity_bytes: usize) -> (PipeIo, Body) {
    piped(capacity_bytes, None)
}

/// The same, for a writer that takes from `outbox`. What waits there counts too among what an HTTP/2 connection may
/// hold for a client that takes nothing ([`ServeConfig::max_stalled_bytes`](crate::ServeConfig::max_stalled_bytes)).
pub fn pipe_from(outbox: Arc<Outbox>, capacity_bytes: usize) -> (PipeIo, Body) {
    piped(capacity_bytes, Some(outbox))
}

fn piped(capacity_bytes: usize, outbox: Option<Arc<Outbox>>) -> (PipeIo, Body) {
    let (io, body) = ends(capacity_bytes, outbox);
    (io, Body(Inner::Pipe(body)))
}

//! Response bodies of one type, and request bodies read within a bound.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::BoxError;

/// A response body: nothing, bytes that are already there, or a stream.
#[derive(Default)]
pub struct Body(Inner);

#[derive(Default)]
enum Inner {
    #[default]
    Empty,
    Full(Bytes),
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
            Inner::Stream(_) => f.write_str("Body(stream)"),
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
            Inner::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Full(_) => false,
            Inner::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Stream(body) => body.size_hint(),
        }
    }
}

/// Longest silence accepted inside a request body: 30 s. A client that sends a head and then nothing would
/// otherwise hold its connection for ever.
pub const DEFAULT_BODY_STALL: Duration = Duration::from_secs(30);

/// Why a request body was not read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The body is longer than the caller accepts; nothing past the limit was kept.
    #[error("the body is larger than {max} bytes")]
    TooLarge {
        /// The limit, in bytes.
        max: usize,
    },
    /// No byte came for this long.
    #[error("the body stalled for {} s", .0.as_secs())]
    Stalled(Duration),
    /// The connection failed inside the body.
    #[error("the body ended early")]
    Io(#[source] BoxError),
}

/// Reads a whole body of at most `max_bytes`.
///
/// A `Content-Length` over the limit is refused before anything is read; without one the bound holds while reading.
/// A body that arrives in one piece is returned without a copy.
///
/// # Errors
/// [`BodyError::TooLarge`], [`BodyError::Stalled`] after [`DEFAULT_BODY_STALL`] without a byte, [`BodyError::Io`].
///
/// # Cancel safety
/// Not cancel safe: what was read is lost with the future.
pub async fn read_body<B>(body: B, max_bytes: usize) -> Result<Bytes, BodyError>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let announced = body.size_hint();
    if announced.lower() > max_bytes as u64 {
        return Err(BodyError::TooLarge { max: max_bytes });
    }
    let mut body = pin!(body);
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let data = prompt_data(body.as_mut()).await?;
        let data = match data {
            None => break,
            Some(Err(error)) => return Err(BodyError::Io(error.into())),
            Some(Ok(data)) => data,
        };
        if data.len() > max_bytes - (first.len() + rest.len()).min(max_bytes) {
            return Err(BodyError::TooLarge { max: max_bytes });
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
            if body.is_end_stream() {
                break;
            }
            continue;
        }
        if rest.is_empty() {
            let expected = announced.exact().unwrap_or(0).min(max_bytes as u64) as usize;
            rest.reserve(expected.max(first.len() + data.len()));
            rest.extend_from_slice(&first);
            first = Bytes::new();
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// The next data frame, which must come within [`DEFAULT_BODY_STALL`].
async fn prompt_data<B>(body: Pin<&mut B>) -> Result<Option<Result<Bytes, B::Error>>, BodyError>
where
    B: HttpBody<Data = Bytes>,
{
    let mut next = pin!(next_data(body));
    // Most bodies are there already: the timer is made only for one that is not.
    let ready = poll_fn(|cx| match next.as_mut().poll(cx) {
        Poll::Ready(data) => Poll::Ready(Some(data)),
        Poll::Pending => Poll::Ready(None),
    })
    .await;
    match ready {
        Some(data) => Ok(data),
        None => tokio::time::timeout(DEFAULT_BODY_STALL, next)
            .await
            .map_err(|_| BodyError::Stalled(DEFAULT_BODY_STALL)),
    }
}

/// The next data frame; trailers are skipped.
async fn next_data<B>(mut body: Pin<&mut B>) -> Option<Result<Bytes, B::Error>>
where
    B: HttpBody<Data = Bytes>,
{
    loop {
        match poll_fn(|cx| body.as_mut().poll_frame(cx)).await? {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Some(Ok(data));
                }
            }
            Err(error) => return Some(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body in pieces whose length nobody announced.
    struct Pieces(Vec<&'static str>);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            if self.0.is_empty() {
                return Poll::Ready(None);
            }
            let piece = self.0.remove(0);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(piece.as_bytes())))))
        }
    }

    #[tokio::test]
    async fn pieces_are_joined_up_to_the_limit() {
        let cases = [
            (vec![], 0, Some("")),
            (vec!["ab"], 2, Some("ab")),
            (vec!["ab"], 1, None),
            (vec!["ab", "", "cd"], 4, Some("abcd")),
            (vec!["ab", "cd"], 3, None),
            (vec!["a", "b", "c"], 2, None),
            (vec!["", "a"], 1, Some("a")),
        ];
        for (pieces, max, expected) in cases {
            let read = read_body(Pieces(pieces.clone()), max).await.ok();
            assert_eq!(read.as_deref(), expected.map(str::as_bytes), "{pieces:?} within {max}");
        }
    }

    #[tokio::test]
    async fn an_announced_length_over_the_limit_is_refused_unread() {
        let error = read_body(Body::full("abc"), 2).await.unwrap_err();
        assert!(matches!(error, BodyError::TooLarge { max: 2 }));
    }

    #[tokio::test]
    async fn a_body_in_one_piece_is_not_copied() {
        let bytes = Bytes::from(vec![7; 64]);
        let read = read_body(Body::full(bytes.clone()), 64).await.unwrap();
        assert_eq!(read.as_ptr(), bytes.as_ptr());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_body_is_given_up() {
        struct Silent;
        impl HttpBody for Silent {
            type Data = Bytes;
            type Error = BoxError;
            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
                Poll::Pending
            }
        }
        assert!(matches!(read_body(Silent, 10).await, Err(BodyError::Stalled(_))));
    }
}

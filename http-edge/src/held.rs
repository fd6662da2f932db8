//! Response bodies of one HTTP/2 connection that the client's windows hold up.
//!
//! hyper asks a body for its next frame only when the client's windows have room for it. A body that gave a frame and was not
//! asked again is held up, with that frame and what lies before it in the connection's buffers, until the client reads or
//! resets the stream: ending the body frees nothing. So the bytes behind such bodies are bounded.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;

use crate::BoxError;

/// The largest frame that is given at once; what is larger waits here, where it is counted, and not in the connection.
const MAX_FRAME_BYTES: usize = 16 << 10;

/// Counts what waits behind the bodies of one connection that are held up.
#[derive(Debug)]
pub(crate) struct Held {
    /// What the connection itself holds of each.
    max_send_bytes: usize,
    count: Mutex<Count>,
}

#[derive(Debug, Default)]
struct Count {
    period: u64,
    bytes: usize,
    /// Of these, the ones behind bodies that gave a frame in this period.
    fresh: usize,
}

impl Held {
    pub(crate) fn new(max_send_bytes: usize) -> Self {
        Held { max_send_bytes, count: Mutex::default() }
    }

    /// Begins a new period and returns how many bytes were held up through all of the last one.
    pub(crate) fn next_period(&self) -> usize {
        let mut count = self.count.lock();
        let stalled = count.bytes.saturating_sub(count.fresh);
        count.period += 1;
        count.fresh = 0;
        stalled
    }
}

/// A body that is counted while it is held up.
pub(crate) struct HeldBody<B> {
    body: B,
    /// Of the body's last frame, what was not given yet.
    rest: Bytes,
    held: Arc<Held>,
    mark: Option<Mark>,
}

/// What a body counts for, and since when.
struct Mark {
    period: u64,
    bytes: usize,
}

impl<B> HeldBody<B> {
    pub(crate) fn new(body: B, held: Arc<Held>) -> Self {
        HeldBody { body, rest: Bytes::new(), held, mark: None }
    }

    fn mark(&mut self, is_held: bool) {
        if self.mark.is_none() && !is_held {
            return;
        }
        let mut count = self.held.count.lock();
        if let Some(mark) = self.mark.take() {
            count.bytes = count.bytes.saturating_sub(mark.bytes);
            if mark.period == count.period {
                count.fresh = count.fresh.saturating_sub(mark.bytes);
            }
        }
        if is_held {
            let bytes = self.held.max_send_bytes.saturating_add(self.rest.len());
            count.bytes = count.bytes.saturating_add(bytes);
            count.fresh = count.fresh.saturating_add(bytes);
            self.mark = Some(Mark { period: count.period, bytes });
        }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        let piece = self.rest.split_to(self.rest.len().min(MAX_FRAME_BYTES));
        self.mark(true);
        Frame::data(piece)
    }
}

impl<B: HttpBody<Data = Bytes, Error = BoxError> + Unpin> HttpBody for HeldBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.piece())));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let Poll::Ready(Some(Ok(frame))) = polled else {
            self.mark(false);
            return polled;
        };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(data) => {
                self.rest = data;
                self.piece()
            }
            Err(trailers) => trailers,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        // The upper bound first: it must not be below the lower one.
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}

impl<B> Drop for HeldBody<B> {
    fn drop(&mut self) {
        self.mark(false);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::Body;

    fn next(body: &mut HeldBody<Body>) -> usize {
        match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap().len(),
            Poll::Ready(None) => 0,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_body_counts_from_a_whole_period_without_a_question_until_the_next_one() {
        let held = Arc::new(Held::new(10));
        let body = || HeldBody::new(Body::full("x"), Arc::clone(&held));
        let (mut one, mut two, _unasked) = (body(), body(), body());
        assert_eq!(next(&mut one), 1);
        assert_eq!(held.next_period(), 0, "it may still go on");
        assert_eq!(next(&mut two), 1);
        assert_eq!(held.next_period(), 10);
        assert_eq!(held.next_period(), 20);
        assert_eq!(next(&mut two), 0, "its end");
        assert_eq!(held.next_period(), 10);
        drop(one);
        assert_eq!(held.next_period(), 0);
        drop(two);
        assert_eq!(held.next_period(), 0);
    }

    #[test]
    fn a_large_frame_is_given_in_pieces_and_its_rest_counts() {
        let held = Arc::new(Held::new(10));
        let mut body = HeldBody::new(Body::full(vec![7; MAX_FRAME_BYTES * 2 + 5]), Arc::clone(&held));
        assert_eq!(body.size_hint().exact(), Some(MAX_FRAME_BYTES as u64 * 2 + 5));
        assert_eq!(next(&mut body), MAX_FRAME_BYTES);
        assert_eq!(body.size_hint().exact(), Some(MAX_FRAME_BYTES as u64 + 5));
        assert!(!body.is_end_stream());
        held.next_period();
        assert_eq!(held.next_period(), 10 + MAX_FRAME_BYTES + 5);
        assert_eq!((next(&mut body), next(&mut body)), (MAX_FRAME_BYTES, 5));
        assert!(body.is_end_stream());
        assert_eq!(next(&mut body), 0);
    }
}

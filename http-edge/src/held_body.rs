//! A response body over HTTP/2, counted among what its connection holds as long as it is held up.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::BoxError;
use crate::held::{Held, MIN_COUNTED_BYTES};
use crate::pipe::Behind;

/// A stream's place among those of its connection; given back when dropped.
pub(crate) struct Place {
    held: Arc<Held>,
    key: usize,
    /// Room for the response, from before it is there.
    reserved: usize,
}

impl Place {
    pub(crate) fn new(held: Arc<Held>, key: usize) -> Self {
        Place { held, key, reserved: 0 }
    }

    /// See [`Held::admits`].
    pub(crate) fn admits(&mut self, bytes: usize) -> bool {
        let bytes = self.held.bounds.weight(bytes);
        if bytes <= MIN_COUNTED_BYTES {
            return true;
        }
        let admits = self.held.admits(bytes);
        if admits {
            self.reserved += bytes;
        }
        admits
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.held.give_back(self.reserved);
        self.held.end(self.key);
    }
}

/// What is ready is in the place, where it can be dropped by whoever needs the room; `body` is what comes behind it.
pub(crate) struct HeldBody<B> {
    body: B,
    /// How much is ready.
    ready: usize,
    place: Place,
}

impl<B: HttpBody> HeldBody<B> {
    /// `behind` is what fills the body.
    pub(crate) fn new(ready: Bytes, body: B, behind: Option<Behind>, mut place: Place) -> Self {
        if let Some(behind) = &behind {
            behind.watched_by(&place.held);
        }
        let known = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        let (length, reserved) = (ready.len(), std::mem::take(&mut place.reserved));
        place.held.ask(place.key, reserved, |stream| {
            stream.watch(behind);
            stream.put(ready);
            stream.wait(known);
        });
        let held = HeldBody { body, ready: length, place };
        held.settle(length.saturating_add(known));
        held
    }

    /// After a change without which nobody would look.
    fn settle(&self, waiting: usize) {
        let held = &self.place.held;
        if waiting > MIN_COUNTED_BYTES {
            held.fill();
        }
        held.relieve();
    }

    /// The next piece of what is ready, or of `more` where nothing was; none once the stream was reset.
    fn piece(&mut self, more: Option<Bytes>) -> Option<Bytes> {
        let bounds = self.place.held.bounds;
        let before = self.ready + more.as_ref().map_or(0, Bytes::len);
        let piece = self.place.held.ask(self.place.key, 0, |stream| {
            if stream.is_ended() {
                return None;
            }
            if let Some(more) = more {
                stream.put(more);
            }
            Some(stream.piece(&bounds))
        });
        let piece = piece.flatten()?;
        self.ready = before.saturating_sub(piece.len());
        self.settle(before);
        Some(piece)
    }

    /// It was asked, and gave nothing.
    fn is_idle(&self) {
        self.place.held.ask(self.place.key, 0, |_| {});
    }
}

impl<B: HttpBody<Data = Bytes, Error = BoxError> + Unpin> HttpBody for HeldBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut more = None;
        if self.ready == 0 {
            let polled = Pin::new(&mut self.body).poll_frame(cx);
            let Poll::Ready(Some(Ok(frame))) = polled else {
                self.is_idle();
                return polled;
            };
            match frame.into_data() {
                Ok(data) => more = Some(data),
                Err(trailers) => {
                    self.is_idle();
                    return Poll::Ready(Some(Ok(trailers)));
                }
            }
        }
        match self.piece(more) {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            // The task that asks is about to be dropped.
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ready == 0 && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, ready) = (self.body.size_hint(), self.ready as u64);
        // The upper bound first: it must not be below the lower one.
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(ready));
        }
        hint.set_lower(hint.lower().saturating_add(ready));
        hint
    }
}

//! Taking a connection back from hyper, so that a long stream costs a socket and not hyper's buffers.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::watch::{Claim, Then, Watch};

/// The right to the connection's socket, as a request extension.
///
/// It is there only where the stream can be had: a `GET` without a body over HTTP/1 on [`serve`](crate::serve).
/// Where it is missing a handler answers with a body, e.g. one end of a [`pipe`](crate::pipe).
#[derive(Clone)]
pub struct Takeover {
    watch: Arc<Watch>,
    request: u64,
}

impl Takeover {
    pub(crate) fn new(watch: Arc<Watch>, request: u64) -> Self {
        Takeover { watch, request }
    }

    /// Asks for the stream. As soon as every earlier response is written, hyper is dismissed, `head` is written
    /// and `then` gets the socket; requests pipelined after this one are discarded.
    ///
    /// Call it from the handler's own future, which then must never resolve (`std::future::pending().await`):
    /// the connection looks for a claim after each poll of the handler. `then` should spawn a task of its own, as
    /// small as can be. If the connection fails first, `then` is dropped.
    ///
    /// A claim from an earlier request, or a second one, is ignored.
    pub fn claim(&self, head: Bytes, then: impl FnOnce(link::Socket) + Send + 'static) {
        if self.watch.requests.load(Relaxed) != self.request {
            return;
        }
        let flushes = self.watch.flushes.load(Relaxed);
        let mut slot = self.watch.claim.lock();
        if slot.is_none() {
            *slot = Some(Claim { then: Then::TakeOver { head, then: Box::new(then) }, flushes });
            self.watch.claimed.store(true, Relaxed);
        }
    }
}

impl std::fmt::Debug for Takeover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Takeover").field("request", &self.request).finish()
    }
}

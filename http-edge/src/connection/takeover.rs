//! Taking a connection back from hyper, so that a long stream costs a socket and not hyper's buffers.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http::response::Parts;

use super::io::{Claim, Then, Watch};

/// The right to the connection's TcpStream, as a request extension.
///
/// It is there only where the stream can be had: a `GET` without a body over plain HTTP/1 on [`serve`](crate::serve).
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

/// A response head as the bytes of HTTP/1.1, with `Date` added, for [`Takeover::claim`]. `extra` bytes of the body
/// follow the head in the same write.
pub fn response_head(parts: &Parts, extra: &[u8]) -> Bytes {
    let mut head = BytesMut::with_capacity(512 + extra.len());
    let reason = parts.status.canonical_reason().unwrap_or_default();
    for piece in ["HTTP/1.1 ", parts.status.as_str(), " ", reason, "\r\n"] {
        head.extend_from_slice(piece.as_bytes());
    }
    for (name, value) in &parts.headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"date: ");
    put_date(&mut head);
    head.extend_from_slice(b"\r\n\r\n");
    head.extend_from_slice(extra);
    head.freeze()
}

/// Now, as a header field says it. The text is made once for each second and thread.
fn put_date(out: &mut BytesMut) {
    thread_local! {
        static LAST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(of, text)| {
        if *of != second || text.is_empty() {
            (*of, *text) = (second, httpdate::fmt_http_date(now));
        }
        out.extend_from_slice(text.as_bytes());
    });
}

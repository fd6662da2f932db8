//! The other end, as somebody reaches it.

use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use grip::filter::Call;
use http::{HeaderMap, HeaderValue, StatusCode};

/// What comes of a request.
pub type Asking = Pin<Box<dyn Future<Output = Result<Answer, Failed>> + Send>>;

/// Where one client's requests go. It knows the address and signs.
pub trait Origin: Send + Sync + 'static {
    /// Sends a POST to the address of the handshake, once, and reads the answer up to `max_bytes`.
    ///
    /// # Cancel safety
    /// A future that is dropped may have sent the request.
    fn ask(&self, headers: HeaderMap, body: Bytes, max_bytes: usize) -> Asking;

    /// Sends a POST to another address, relative to that of the handshake, for a filter.
    ///
    /// # Cancel safety
    /// As [`Origin::ask`].
    fn call(&self, url: &str, headers: HeaderMap, body: Bytes, max_bytes: usize) -> Asking;

    /// So many bytes of what the client said wait for their request or its answer, where `before` did when this was called
    /// last. For whoever counts.
    fn note_waiting(&self, bytes: usize, before: usize) {
        let _ = (bytes, before);
    }
}

/// The same fields, for as long as a client is there: what a request was read into goes with it, which is many times as
/// much, as long as one of its fields is kept.
pub fn owned(headers: &HeaderMap) -> HeaderMap {
    let mut all = BytesMut::with_capacity(headers.values().map(HeaderValue::len).sum());
    for value in headers.values() {
        all.extend_from_slice(value.as_bytes());
    }
    let mut all = all.freeze();
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        // Its bytes were those of a value before.
        if let Ok(mut own) = HeaderValue::from_maybe_shared(all.split_to(value.len())) {
            own.set_sensitive(value.is_sensitive());
            kept.append(name, own);
        }
    }
    kept
}

/// What waits for an origin, which is told of it; nothing once this is dropped.
pub(crate) struct Waiting {
    origin: Arc<dyn Origin>,
    bytes: usize,
}

impl Waiting {
    pub(crate) fn new(origin: Arc<dyn Origin>) -> Self {
        Self { origin, bytes: 0 }
    }

    pub(crate) fn note(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if before != bytes {
            self.origin.note_waiting(bytes, before);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.note(0);
    }
}

/// The headers of what a filter asks.
pub fn headers_of(call: &Call) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let pairs = [("sub-meta", &call.sub_meta), ("pub-meta", &call.pub_meta)];
    for (name, value) in pairs.into_iter().chain(call.last.iter().map(|last| ("grip-last", last))) {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.append(name, value);
        }
    }
    headers
}

/// An answer, whatever its status.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// All of the body.
    pub body: Bytes,
}

impl Answer {
    /// With all that there is to one.
    pub fn new(status: u16, headers: HeaderMap, body: Bytes) -> Self {
        Self { status, headers, body }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failed {
    /// What a client is told that waits for its handshake: 502, 503 or 504.
    pub status: StatusCode,
    /// Whether the origin cannot have read the request: nobody was connected to, or the body was not all sent.
    pub was_unread: bool,
    /// What happened, for a log.
    pub why: String,
}

impl Failed {
    /// With all that there is to one.
    pub fn new(status: StatusCode, was_unread: bool, why: impl Into<String>) -> Self {
        Self { status, was_unread, why: why.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_are_kept_are_the_same_and_keep_nothing_else() {
        let read = Bytes::from(vec![b'v'; 8_192]);
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("cookie", read.slice(..5)), ("x-empty", Bytes::new()), ("cookie", read.slice(5..8))]
        {
            headers.append(name, HeaderValue::from_maybe_shared(value).unwrap());
        }
        headers.get_mut("cookie").unwrap().set_sensitive(true);
        let kept = owned(&headers);
        assert_eq!(kept, headers);
        assert!(kept["cookie"].is_sensitive());
        drop(headers);
        assert!(read.is_unique(), "it is still shared");
    }
}

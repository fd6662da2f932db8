//! The head of an answer that hyper does not write.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http::response::Parts;
use hyper::ext::ReasonPhrase;

/// A response head as the bytes of HTTP/1.1, with `Date` added, for [`Takeover::claim`](crate::Takeover::claim).
/// `extra` bytes of the body follow the head in the same write.
pub fn response_head(parts: &Parts, extra: &[u8]) -> Bytes {
    let mut head = BytesMut::with_capacity(512 + extra.len());
    // As hyper does it.
    let own = parts.extensions.get::<ReasonPhrase>().map(ReasonPhrase::as_bytes);
    let reason = own.unwrap_or_else(|| parts.status.canonical_reason().unwrap_or_default().as_bytes());
    for piece in [b"HTTP/1.1 ", parts.status.as_str().as_bytes(), b" ", reason, b"\r\n"] {
        head.extend_from_slice(piece);
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

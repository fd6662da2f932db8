//! The names of header fields as a client wrote them: to HTTP they are the same in any case, to functions that index by
//! them they are not.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::Uri;

/// The most of a head that is kept, in bytes: hyper reads no longer one.
pub(super) const MAX_BYTES: usize = 64 << 10;

/// Which requests over HTTP/1 come with their [`RawHead`] as an extension. Default none, which costs a connection
/// nothing.
#[derive(Clone, Default)]
pub struct RawHeads(Option<Arc<Wanted>>);

/// Boxed, so that a connection's handle is one pointer.
type Wanted = Box<dyn Fn(&Uri) -> bool + Send + Sync>;

impl RawHeads {
    /// By the target of the request.
    pub fn by(wanted: impl Fn(&Uri) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(Box::new(wanted))))
    }

    /// Whether any request is asked for.
    pub(super) fn is_any(&self) -> bool {
        self.0.is_some()
    }

    /// Whether this one is.
    pub(super) fn ask(&self, uri: &Uri) -> bool {
        self.0.as_ref().is_some_and(|wanted| wanted(uri))
    }
}

impl fmt::Debug for RawHeads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawHeads").field(&self.is_any()).finish()
    }
}

/// A request's head as it came. Missing over HTTP/2, where names are in lower case, and for a request that was sent
/// before the answer to the one ahead of it.
#[derive(Clone)]
pub struct RawHead(Bytes);

impl RawHead {
    /// Of bytes that begin with a head; what is behind it is left out.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut length = 0;
        let mut begun = false;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            length += line.len();
            let is_empty = line.trim_ascii().is_empty();
            // Empty lines before the request line count for nothing.
            if is_empty && begun {
                break;
            }
            begun |= !is_empty;
        }
        Self(Bytes::copy_from_slice(bytes.get(..length).unwrap_or_default()))
    }

    /// The names of its fields, in their order and spelling.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let lines = self.0.split(|byte| *byte == b'\n').skip_while(|line| line.trim_ascii().is_empty());
        lines.skip(1).filter_map(|line| {
            let end = line.iter().position(|byte| *byte == b':')?;
            std::str::from_utf8(line.get(..end)?).ok()
        })
    }
}

impl fmt::Debug for RawHead {
    /// Its values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_spelling_and_the_head_ends_where_it_does() {
        for bytes in [
            "GET / HTTP/1.1\r\nHost: x\r\nHeaderAuth1: a:b\r\nX-y:\r\n\r\nZ: 1\r\n",
            "\r\n\r\nGET / HTTP/1.1\nHost: x\nHeaderAuth1:a\nX-y: \n\nZ: 1\n\n",
            "GET / HTTP/1.1\r\nHost: x\r\nHeaderAuth1: a\r\nX-y: 1",
        ] {
            let head = RawHead::of(bytes.as_bytes());
            assert_eq!(head.names().collect::<Vec<_>>(), ["Host", "HeaderAuth1", "X-y"], "{bytes:?}");
        }
        assert_eq!(RawHead::of(b"").names().count(), 0);
        assert_eq!(RawHead::of(b"\xff\r\n\xff: a\r\n\r\n").names().count(), 0);
    }
}

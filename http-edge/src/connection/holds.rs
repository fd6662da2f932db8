//! Which requests may wait long for their answer.

use std::fmt;
use std::sync::Arc;

use http::Uri;

/// Tells the requests that may be held (a poll, a stream) from those that are answered at once. The default knows
/// nothing of either.
///
/// | | may be held | answered at once | default |
/// | --- | --- | --- | --- |
/// | gets a [`Park`](crate::Park), which costs three allocations | yes | no | no |
/// | is answered although its client has ended its side before, as a shell's `nc -N` does | no | yes | no |
///
/// For requests that are answered at once it takes a second longer to find that a client is gone.
#[derive(Clone, Default)]
pub struct Holds(Option<Arc<MayBeHeld>>);

/// Boxed, so that a connection's handle is one pointer.
type MayBeHeld = Box<dyn Fn(&Uri) -> bool + Send + Sync>;

impl Holds {
    /// By the target of the request.
    pub fn by(may_be_held: impl Fn(&Uri) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(Box::new(may_be_held))))
    }

    /// Whether this one may be held; `None` if nobody says.
    pub(crate) fn ask(&self, uri: &Uri) -> Option<bool> {
        self.0.as_ref().map(|may_be_held| may_be_held(uri))
    }
}

impl fmt::Debug for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Holds").field(&self.0.is_some()).finish()
    }
}

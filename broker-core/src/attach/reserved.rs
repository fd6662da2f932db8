//! A place for a subscriber that is not there yet.

use std::fmt;
use std::sync::Arc;

use crate::key::SubscriberKey;
use crate::shared::Shared;

/// A subscriber's name before there is one, so that a [`Policy`](crate::Policy) can be told of a connection by the name
/// that it will have. Dropped, the name is nobody's.
pub struct Reserved {
    key: SubscriberKey,
    /// Until it is taken.
    shared: Option<Arc<Shared>>,
}

impl Reserved {
    pub(crate) fn new(key: SubscriberKey, shared: Arc<Shared>) -> Self {
        Self { key, shared: Some(shared) }
    }

    /// The name.
    pub fn key(&self) -> SubscriberKey {
        self.key
    }

    pub(crate) fn take(mut self) -> SubscriberKey {
        self.shared = None;
        self.key
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.lane(self.key).release(self.key);
        }
    }
}

impl fmt::Debug for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reserved").field(&self.key).finish()
    }
}

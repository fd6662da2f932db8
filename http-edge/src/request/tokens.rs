//! Where a token is looked for beside the headers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::{RwLock, RwLockReadGuard};

/// Places beside the headers where a token is accepted, for clients that cannot set headers: browsers' WebSocket
/// and EventSource. Both are off by default: a cookie is sent by any page, and addresses end in logs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct TokenPlaces {
    /// Name of the cookie that holds the token.
    pub cookie: Option<String>,
    /// Whether `?access_token=` is read.
    pub query: bool,
}

/// The [`TokenPlaces`] of a front, which can be changed while it uses them. Clones are handles to the same.
#[derive(Clone, Debug, Default)]
pub struct TokenSources(Arc<Sources>);

#[derive(Debug, Default)]
struct Sources {
    /// Whether there are any: where there are none, no request waits for a lock.
    any: AtomicBool,
    places: RwLock<TokenPlaces>,
}

impl TokenSources {
    /// Replaces the places, for the requests from now on.
    pub fn set(&self, places: TokenPlaces) {
        let mut current = self.0.places.write();
        self.0.any.store(places.cookie.is_some() || places.query, Relaxed);
        *current = places;
    }

    /// The places, if there are any.
    pub(crate) fn places(&self) -> Option<RwLockReadGuard<'_, TokenPlaces>> {
        self.0.any.load(Relaxed).then(|| self.0.places.read())
    }

    /// Whether a token is read from a cookie.
    pub fn reads_cookie(&self) -> bool {
        self.places().is_some_and(|places| places.cookie.is_some())
    }
}

impl From<TokenPlaces> for TokenSources {
    fn from(places: TokenPlaces) -> Self {
        let sources = TokenSources::default();
        sources.set(places);
        sources
    }
}

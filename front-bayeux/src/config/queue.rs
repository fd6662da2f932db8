//! Events that wait: what happens when there is no room for one, and which may be late.

use std::time::Duration;

use broker_core::Filter;

/// What becomes of a message for a session whose queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueFull {
    /// The session ends; its next connect is told so and advised to shake hands.
    Disconnect,
    /// The new message is dropped.
    DropNewest,
    /// The oldest ones make room.
    DropOldest,
    /// All that wait are dropped. On a socket, where each frame may already be on its way, as
    /// [`QueueFull::DropOldest`].
    Clear,
}

/// Channels whose messages need not wake a held connect.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lazy {
    /// The channels: a wildcard's laziness goes to all it matches.
    pub filter: Filter,
    /// Longest delay (`lazyTimeout`); `None` takes [`Config::max_lazy_timeout`](super::Config::max_lazy_timeout).
    pub timeout: Option<Duration>,
}

impl Lazy {
    /// These channels, within this time.
    pub fn new(filter: Filter, timeout: Option<Duration>) -> Self {
        Self { filter, timeout }
    }
}

//! The socket that a session's events and connect replies go to.

use std::sync::Arc;

use broker_core::Outbox;

/// See the module.
#[derive(Clone)]
pub(crate) struct Socket {
    pub(crate) outbox: Arc<Outbox>,
    /// The outbox is the one of the session's own subscriber, so that its lane can write it in bursts.
    pub(crate) own: bool,
    pub(crate) deflate: bool,
    /// Which connection this is.
    pub(crate) number: u64,
    /// Frames that its outbox has dropped and the session has counted.
    counted_drops: u32,
}

/// What a connection's end took with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It closed in order.
    Nothing,
    /// It died: what it had not written yet goes back to the session.
    Socket,
    /// The client did not read: the session is over.
    Session,
}

impl Socket {
    /// The socket of a connection that was just opened; no session shook hands on it yet.
    pub(crate) fn new(outbox: Arc<Outbox>, number: u64, deflate: bool) -> Self {
        Self { outbox, own: false, deflate, number, counted_drops: 0 }
    }

    /// Whether it takes anything. One that is dead may still be bound, until its task notices.
    pub(super) fn is_open(&self) -> bool {
        self.outbox.closed().is_none()
    }

    /// How many frames its outbox has thrown away since this was asked last.
    pub(super) fn count_drops(&mut self) -> u32 {
        let dropped = u32::try_from(self.outbox.dropped()).unwrap_or(u32::MAX);
        dropped - std::mem::replace(&mut self.counted_drops, dropped)
    }

    /// How many it has thrown away that nobody has counted yet.
    pub(super) fn uncounted_drops(&self) -> u64 {
        self.outbox.dropped() - u64::from(self.counted_drops)
    }
}

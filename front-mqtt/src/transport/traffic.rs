//! What goes over the sockets of all connections.

use std::sync::Arc;

use super::Hosted;
use crate::front::Counter;

/// Counted in several places, because connections on all cores count at once.
#[derive(Default)]
pub(crate) struct Traffic([Stripe; STRIPES]);

/// Enough that two of as many cores as one machine has rarely meet in one.
const STRIPES: usize = 16;

/// One of the places; none shares a cache line with another. Nothing here is touched by a delivery: its bytes are
/// counted by the outbox, which is locked for it anyway.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Stripe {
    /// Packets of any kind from clients.
    pub(crate) packets_received: Counter,
    /// Bytes from clients, with all that is around packets inside TLS.
    pub(crate) bytes_received: Counter,
    /// Packets to clients other than PUBLISH.
    pub(crate) answers: Counter,
}

impl Traffic {
    /// Where the connections of one session count.
    pub(crate) fn of(&self, session: &Arc<Hosted>) -> &Stripe {
        &self.0[Arc::as_ptr(session).addr() / 256 % STRIPES]
    }

    pub(crate) fn packets_received(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.packets_received.value()).sum()
    }

    pub(crate) fn bytes_received(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.bytes_received.value()).sum()
    }

    pub(crate) fn answers(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.answers.value()).sum()
    }
}

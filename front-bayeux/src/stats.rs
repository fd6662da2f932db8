//! What the front counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A snapshot of the front's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Sessions that live now.
    pub sessions: u64,
    /// WebSockets that are open now.
    pub websockets: u64,
    /// Connects held over HTTP now.
    pub held_polls: u64,
    /// Handshakes that succeeded.
    pub handshakes: u64,
    /// Handshakes that failed.
    pub handshakes_refused: u64,
    /// Messages published.
    pub published: u64,
    /// Messages refused for lack of rights, handshakes among them.
    pub refused_rights: u64,
    /// Messages refused because their sender's rate was used up.
    pub rate_limited: u64,
    /// Messages answered `successful:false`.
    pub failed: u64,
    /// Requests and frames that were no messages at all.
    pub malformed: u64,
    /// Sessions that expired.
    pub expired: u64,
    /// Sessions ended because their queue was full.
    pub overflowed: u64,
    /// Events dropped for want of room, where `queue_full` says so; those that a socket's outbox drops are the
    /// broker's.
    pub dropped: u64,
    /// Sessions ended because the log lost what a replay had still to bring.
    pub replays_lost: u64,
    /// WebSockets closed because no session came to them in time.
    pub handshake_timeouts: u64,
    /// Deliveries of channels that Bayeux cannot express.
    pub inexpressible: u64,
    /// Messages to `/service/...` that no handler took.
    pub unhandled_services: u64,
    /// Handlers of services that took too long.
    pub late_services: u64,
    /// How long the last look for expired sessions took, in microseconds.
    pub last_sweep_us: u64,
    /// The longest of these looks.
    pub longest_sweep_us: u64,
}

macro_rules! counters {
    ($($field:ident: $method:ident),* $(,)?) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $($field: AtomicU64,)* pub(crate) websockets: AtomicU64, pub(crate) held_polls: AtomicU64, dropped: AtomicU64, last_sweep_us: AtomicU64, longest_sweep_us: AtomicU64 }
        impl Counters {
            $(pub(crate) fn $method(&self) { self.$field.fetch_add(1, Relaxed); })*

            pub(crate) fn dropped(&self, events: u32) { self.dropped.fetch_add(events.into(), Relaxed); }

            /// Whether no connection waits for anything.
            pub(crate) fn is_quiet(&self) -> bool {
                self.websockets.load(Relaxed) == 0 && self.held_polls.load(Relaxed) == 0
            }

            pub(crate) fn swept(&self, took: std::time::Duration) {
                let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                self.last_sweep_us.store(took, Relaxed);
                self.longest_sweep_us.fetch_max(took, Relaxed);
            }

            pub(crate) fn snapshot(&self, sessions: usize) -> Stats {
                Stats {
                    sessions: sessions as u64,
                    websockets: self.websockets.load(Relaxed),
                    held_polls: self.held_polls.load(Relaxed),
                    dropped: self.dropped.load(Relaxed),
                    last_sweep_us: self.last_sweep_us.load(Relaxed),
                    longest_sweep_us: self.longest_sweep_us.load(Relaxed),
                    $($field: self.$field.load(Relaxed),)*
                }
            }
        }
    };
}

counters! {
    handshakes: shook_hands,
    handshakes_refused: refused_handshake,
    published: published,
    refused_rights: refused_right,
    rate_limited: limited,
    failed: failed,
    malformed: malformed,
    expired: expired,
    overflowed: overflowed,
    replays_lost: lost_replay,
    handshake_timeouts: no_handshake,
    inexpressible: inexpressible,
    unhandled_services: unhandled_service,
    late_services: late_service,
}

/// Counts something for as long as it is there.
pub(crate) struct Gauge<'a>(&'a AtomicU64);

impl<'a> Gauge<'a> {
    pub(crate) fn new(gauge: &'a AtomicU64) -> Self {
        gauge.fetch_add(1, Relaxed);
        Self(gauge)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

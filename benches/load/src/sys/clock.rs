//! The monotonic clock, as one number that all processes of this machine agree on.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`. Send stamps carry it, so a subscriber in another process can subtract.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A moment after which a phase of the run is given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(u64);

impl Deadline {
    pub(crate) fn after(span: Duration) -> Self {
        Self(now_ns().saturating_add(span.as_nanos() as u64))
    }

    pub(crate) fn passed(self) -> bool {
        now_ns() >= self.0
    }

    /// Time left, at least zero.
    pub(crate) fn left(self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(now_ns()))
    }
}

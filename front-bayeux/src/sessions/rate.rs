//! How often something may be done.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What was not used for this long may be used at once.
const BURST: Duration = Duration::from_secs(10);

/// A bound by rate. It holds when nothing of its past would count any more, in microseconds since the front's start
/// (GCRA).
#[derive(Debug, Default)]
pub(crate) struct RateLimit(AtomicU64);

impl RateLimit {
    /// Takes one of `per_second`; false if none is left.
    pub(crate) fn take(&self, since_start: Duration, per_second: u32) -> bool {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let (now, burst) = (micros(since_start), micros(BURST));
        let cost = (1_000_000 / u64::from(per_second.max(1))).max(1);
        let take = |free_at: u64| {
            let free_at = free_at.max(now).saturating_add(cost);
            (free_at - now <= burst).then_some(free_at)
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_seconds_worth_at_once_and_then_as_fast_as_it_fills() {
        let limit = RateLimit::default();
        let second = Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| limit.take(second, 5)).count(), 50);
        assert_eq!((0..100).filter(|_| limit.take(2 * second, 5)).count(), 5);
        assert_eq!((0..100).filter(|_| limit.take(100 * second, 5)).count(), 50);
    }
}

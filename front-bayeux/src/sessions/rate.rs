//! How often something may be done: a bucket that fills with time and is emptied by doing it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The time that a full bucket lasts for.
const DEPTH: Duration = Duration::from_secs(10);

/// When the bucket would be full again, in microseconds since the front's start (GCRA).
#[derive(Debug, Default)]
pub(crate) struct Bucket(AtomicU64);

impl Bucket {
    /// Takes one of `per_second`; false if none is left.
    pub(crate) fn take(&self, since_start: Duration, per_second: u32) -> bool {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let (now, depth) = (micros(since_start), micros(DEPTH));
        let cost = (1_000_000 / u64::from(per_second.max(1))).max(1);
        let take = |full_at: u64| {
            let full_at = full_at.max(now).saturating_add(cost);
            (full_at - now <= depth).then_some(full_at)
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_seconds_worth_at_once_and_then_as_fast_as_it_fills() {
        let bucket = Bucket::default();
        let second = Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| bucket.take(second, 5)).count(), 50);
        assert_eq!((0..100).filter(|_| bucket.take(2 * second, 5)).count(), 5);
        assert_eq!((0..100).filter(|_| bucket.take(100 * second, 5)).count(), 50);
    }
}

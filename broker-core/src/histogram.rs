//! How long things took, counted by bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Durations by upper bounds. Observing one is two additions without a lock; the bounds are the same for all, so that
/// histograms can be compared and added.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One more than there are bounds, for what is longer than the last.
    counts: [AtomicU64; Histogram::BOUNDS.len() + 1],
    sum_ns: AtomicU64,
}

/// What a [`Histogram`] held at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Durations {
    /// How many were at most [`Histogram::BOUNDS`] long and longer than the bound before; last, those beyond all
    /// bounds.
    pub counts: [u64; Histogram::BOUNDS.len() + 1],
    /// All of them together.
    pub sum: Duration,
}

const fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

impl Histogram {
    /// The upper bounds: from what a write to one socket takes to what a client waits for at most.
    pub const BOUNDS: [Duration; 18] = [
        micros(25),
        micros(50),
        micros(100),
        micros(250),
        micros(500),
        micros(1_000),
        micros(2_500),
        micros(5_000),
        micros(10_000),
        micros(25_000),
        micros(50_000),
        micros(100_000),
        micros(250_000),
        micros(500_000),
        micros(1_000_000),
        micros(2_500_000),
        micros(5_000_000),
        micros(10_000_000),
    ];

    /// Counts one.
    pub fn observe(&self, duration: Duration) {
        let at = Self::BOUNDS.partition_point(|bound| *bound < duration);
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Relaxed);
        }
        self.sum_ns.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// What was observed so far. Of what is observed meanwhile a part may be in it.
    pub fn durations(&self) -> Durations {
        let mut counts = [0; Self::BOUNDS.len() + 1];
        counts.iter_mut().zip(&self.counts).for_each(|(count, seen)| *count = seen.load(Relaxed));
        Durations { counts, sum: Duration::from_nanos(self.sum_ns.load(Relaxed)) }
    }
}

impl Durations {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// How long messages take from their publisher to the last write. Not every message is looked at: of those within ten
/// milliseconds one is, so that the others cost a comparison, and a broker with little to do sees nearly all.
#[derive(Debug, Default)]
pub(crate) struct Timing {
    /// When a message was looked at last, in its own time.
    last_ms: AtomicU64,
    times: Arc<Histogram>,
}

/// Time from one message that is looked at to the next, in milliseconds.
const EVERY_MS: u64 = 10;

/// A message that is looked at, on its way through the lanes that it hits: the last of them observes.
#[derive(Debug, Clone)]
pub(crate) struct Timed(Arc<Start>);

#[derive(Debug)]
struct Start {
    at: Instant,
    times: Arc<Histogram>,
}

impl Timing {
    /// Begins with a message of this time if it is to be looked at. Times that go back, because the time of day was
    /// set, are as good as those that go on.
    #[inline]
    pub(crate) fn begin(&self, time_ms: u64) -> Option<Timed> {
        let last = self.last_ms.load(Relaxed);
        if time_ms.abs_diff(last) < EVERY_MS { None } else { self.begin_now(last, time_ms) }
    }

    #[cold]
    fn begin_now(&self, last: u64, time_ms: u64) -> Option<Timed> {
        // One of those that come at the same moment.
        self.last_ms.compare_exchange(last, time_ms, Relaxed, Relaxed).ok()?;
        Some(Timed(Arc::new(Start { at: Instant::now(), times: Arc::clone(&self.times) })))
    }

    pub(crate) fn durations(&self) -> Durations {
        self.times.durations()
    }
}

impl Timed {
    /// This lane has written it to all of its subscribers.
    pub(crate) fn written(self) {
        if let Some(start) = Arc::into_inner(self.0) {
            start.times.observe(start.at.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_at_the_first_bound_that_it_does_not_pass() {
        let histogram = Histogram::default();
        for (took, at) in [(0, 0), (25, 0), (26, 1), (10_000_000, 17), (10_000_001, 18)] {
            let before = histogram.durations().counts;
            histogram.observe(micros(took));
            let after = histogram.durations().counts;
            let grown: Vec<_> = (0..after.len()).filter(|i| after[*i] != before[*i]).collect();
            assert_eq!(grown, [at], "{took}");
        }
        assert_eq!(histogram.durations().count(), 5);
        assert_eq!(histogram.durations().sum, micros(20_000_052));
        assert!(Histogram::BOUNDS.is_sorted());
    }

    #[test]
    fn one_message_in_ten_milliseconds_is_timed_whatever_the_clock_does() {
        let timing = Timing::default();
        let times = [1_000, 1_000, 1_009, 1_010, 1_019, 1_020, 500, 505, 511, 5_000_000];
        let timed: Vec<_> = times.map(|time| timing.begin(time).is_some()).into();
        let expected = [true, false, false, true, false, true, true, false, true, true];
        assert_eq!(timed, expected);
    }

    #[test]
    fn the_last_lane_observes_and_a_refused_message_is_none() {
        let timing = Timing::default();
        let first = timing.begin(100).expect("timed");
        let second = first.clone();
        first.written();
        assert_eq!(timing.durations().count(), 0);
        second.written();
        assert_eq!(timing.durations().count(), 1);
        drop(timing.begin(200).expect("timed"));
        assert_eq!(timing.durations().count(), 1);
    }
}

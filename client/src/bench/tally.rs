//! What was counted and measured.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Longest time that is told apart from longer ones, in microseconds: ten minutes.
const MAX_MICROS: u64 = 600_000_000;

/// Digits of a time in a payload.
const DIGITS: usize = 16;

/// Microseconds since the start, which payloads carry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn new() -> Self {
        Clock(Instant::now())
    }

    pub(super) fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// How long ago `then` was.
    pub(super) fn since(self, then: u64) -> u64 {
        self.now().saturating_sub(then)
    }

    /// A payload of `size` bytes, and no fewer than the time needs.
    pub(super) fn write(time: u64, size: usize) -> Vec<u8> {
        let mut payload = format!("{time:0DIGITS$x}").into_bytes();
        payload.resize(size.max(DIGITS), b'x');
        payload
    }

    pub(super) fn read(payload: &[u8]) -> Option<u64> {
        u64::from_str_radix(std::str::from_utf8(payload.get(..DIGITS)?).ok()?, 16).ok()
    }
}

/// Shared by all publishers and subscribers.
#[derive(Debug)]
pub(super) struct Tally {
    listening: AtomicU64,
    published: AtomicU64,
    refused: AtomicU64,
    delivered: AtomicU64,
    publishing: Mutex<Histogram<u64>>,
    delivering: Mutex<Histogram<u64>>,
}

impl Default for Tally {
    fn default() -> Self {
        let histogram = || {
            let new = Histogram::new_with_max(MAX_MICROS, 3);
            Mutex::new(new.expect("the bound is above 2, and 3 digits are among what can be"))
        };
        Tally {
            listening: AtomicU64::new(0),
            published: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            publishing: histogram(),
            delivering: histogram(),
        }
    }
}

impl Tally {
    pub(super) fn listens(&self) {
        self.listening.fetch_add(1, Relaxed);
    }

    pub(super) fn publishes(&self, micros: u64) {
        self.published.fetch_add(1, Relaxed);
        self.publishing.lock().saturating_record(micros);
    }

    pub(super) fn is_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn delivers(&self, micros: u64) {
        self.delivered.fetch_add(1, Relaxed);
        self.delivering.lock().saturating_record(micros);
    }

    pub(super) fn listening(&self) -> u64 {
        self.listening.load(Relaxed)
    }

    pub(super) fn published(&self) -> u64 {
        self.published.load(Relaxed)
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Relaxed)
    }

    pub(super) fn report(&self, subscribers: u64, took: Duration) -> Report {
        let (published, delivered) = (self.published(), self.delivered());
        Report {
            took,
            published,
            refused: self.refused.load(Relaxed),
            delivered,
            missing: published.saturating_mul(subscribers).saturating_sub(delivered),
            publishing: Times::of(&self.publishing.lock()),
            delivering: Times::of(&self.delivering.lock()),
        }
    }
}

/// In microseconds.
#[derive(Debug)]
struct Times {
    p50: u64,
    p99: u64,
    max: u64,
}

impl Times {
    fn of(histogram: &Histogram<u64>) -> Self {
        Times {
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            max: histogram.max(),
        }
    }
}

/// What is told at the end.
#[derive(Debug)]
pub(super) struct Report {
    took: Duration,
    published: u64,
    refused: u64,
    delivered: u64,
    pub(super) missing: u64,
    publishing: Times,
    delivering: Times,
}

impl Report {
    fn rate(&self, count: u64) -> f64 {
        count as f64 / self.took.as_secs_f64().max(0.001)
    }

    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "{:<10} {:>10} {:>10} {:>9} {:>9} {:>9}",
            "", "COUNT", "A SECOND", "P50 ms", "P99 ms", "MAX ms"
        )?;
        let ms = |micros: u64| micros as f64 / 1000.0;
        for (name, count, times) in
            [("published", self.published, &self.publishing), ("delivered", self.delivered, &self.delivering)]
        {
            let Times { p50, p99, max } = times;
            let (p50, p99, max) = (ms(*p50), ms(*p99), ms(*max));
            let rate = self.rate(count);
            writeln!(out, "{name:<10} {count:>10} {rate:>10.0} {p50:>9.2} {p99:>9.2} {max:>9.2}")?;
        }
        for (name, count) in [("missing", self.missing), ("refused", self.refused)] {
            if count > 0 {
                writeln!(out, "{name:<10} {count:>10}")?;
            }
        }
        Ok(())
    }

    pub(super) fn json(&self) -> serde_json::Value {
        let times = |count, Times { p50, p99, max }: &Times| {
            serde_json::json!({
                "count": count, "per_second": self.rate(count), "p50_us": p50, "p99_us": p99, "max_us": max,
            })
        };
        serde_json::json!({
            "seconds": self.took.as_secs_f64(),
            "published": times(self.published, &self.publishing),
            "delivered": times(self.delivered, &self.delivering),
            "missing": self.missing,
            "refused": self.refused,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_carries_its_time_whatever_its_size() {
        for size in [0, 16, 100] {
            let payload = Clock::write(1_234_567, size);
            assert_eq!((payload.len(), Clock::read(&payload)), (size.max(DIGITS), Some(1_234_567)));
        }
        assert_eq!(Clock::read(b"short"), None);
        assert_eq!(Clock::read(b"no time at all, is it"), None);
    }

    #[test]
    fn what_did_not_come_is_missing() {
        let tally = Tally::default();
        tally.publishes(1_500_000);
        tally.delivers(2_000);
        let report = tally.report(3, Duration::from_secs(2));
        assert_eq!(report.missing, 2);
        let mut out = Vec::new();
        report.print(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let numbers: Vec<&str> = text.lines().nth(1).unwrap_or_default().split_whitespace().collect();
        assert_eq!(numbers[..3], ["published", "1", "0"], "{text}");
        let p50: f64 = numbers[3].parse().unwrap();
        assert!((1499.0..1502.0).contains(&p50), "{text}");
        assert!(text.contains("missing             2\n"), "{text}");
        assert_eq!(report.json()["delivered"]["count"], 1);
    }
}

//! When to try again.

use std::time::{Duration, Instant};

/// The wait before the second try in a row, on average half of it.
const FIRST: Duration = Duration::from_millis(200);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// A stream that lasted this long was a working one.
const PROVEN: Duration = Duration::from_secs(5);

/// Waits that grow with every failure in a row, at random so that many clients of one server do not come back at once.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    failures: u32,
    asked: Option<Duration>,
}

impl Pace {
    /// The server named a time, at random itself.
    pub(crate) fn server_asks(&mut self, retry: Duration) {
        self.asked = Some(retry);
    }

    /// Something arrived.
    pub(crate) fn progress(&mut self) {
        self.failures = 0;
    }

    /// A stream that was opened at `opened` ended, or could not be opened; how long to wait, with `random` from 0 to 1.
    pub(crate) fn wait(&mut self, opened: Option<Instant>, now: Instant, random: f64) -> Duration {
        if opened.is_some_and(|opened| now.duration_since(opened) >= PROVEN) {
            self.failures = 0;
        }
        let grown = FIRST.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.asked.take().unwrap_or_else(|| grown.mul_f64(random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_start_again_after_progress() {
        let now = Instant::now();
        let mut pace = Pace::default();
        let waits: Vec<_> = (0..40).map(|_| pace.wait(None, now, 1.0)).collect();
        assert_eq!(waits[..3], [FIRST, FIRST * 2, FIRST * 4]);
        assert!(waits.is_sorted() && waits[39] == LONGEST);
        pace.progress();
        assert_eq!(pace.wait(None, now, 0.5), FIRST / 2);
        pace.wait(None, now, 1.0);
        assert_eq!(pace.wait(Some(now), now + PROVEN, 1.0), FIRST);
    }

    #[test]
    fn what_the_server_asks_holds_once() {
        let now = Instant::now();
        let mut pace = Pace::default();
        pace.server_asks(Duration::from_secs(7));
        assert_eq!(pace.wait(Some(now), now, 0.1), Duration::from_secs(7));
        assert_eq!(pace.wait(None, now, 1.0), FIRST * 2);
    }
}

//! Whether a function that fails is called at all for a while.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// When it opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Trip {
    /// Fewer calls than these within the window say nothing. Default 20.
    pub min_calls: u32,
    /// The share of failures among them at which it opens. Default a half.
    pub failure_ratio: f64,
    /// How long calls count. Default 10 s.
    pub window: Duration,
    /// How long it stays open at first. Default 5 s.
    pub open: Duration,
    /// Each probe that fails doubles that, up to this. Default 1 min.
    pub max_open: Duration,
}

impl Default for Trip {
    fn default() -> Self {
        Self {
            min_calls: 20,
            failure_ratio: 0.5,
            window: Duration::from_secs(10),
            open: Duration::from_secs(5),
            max_open: Duration::from_secs(60),
        }
    }
}

/// Parts of the window in which calls are counted together.
const SLOTS: u32 = 10;

/// After this a probe of which nobody tells is forgotten.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// Keeps calls from a function that fails. Time is an argument.
#[derive(Debug)]
pub struct Breaker {
    trip: Trip,
    state: State,
    /// When each part of the window began, its calls, and its failures.
    counted: VecDeque<(Instant, u32, u32)>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed,
    Open { until: Instant, lasts: Duration },
    Probing { since: Instant, lasts: Duration },
}

impl Breaker {
    /// A closed one.
    pub fn new(trip: Trip) -> Self {
        Self { trip, state: State::Closed, counted: VecDeque::new() }
    }

    /// 0 closed, 1 one call decides, 2 open: for metrics.
    pub fn state(&self) -> u64 {
        match self.state {
            State::Closed => 0,
            State::Probing { .. } => 1,
            State::Open { .. } => 2,
        }
    }

    /// Whether a call may be made now. Who may says how it ended with [`record`](Self::record), or
    /// [`forgo`](Self::forgo)s it.
    ///
    /// # Errors
    /// When to ask again.
    pub fn permit(&mut self, now: Instant) -> Result<(), Instant> {
        match self.state {
            State::Closed => Ok(()),
            State::Open { until, .. } if until > now => Err(until),
            State::Probing { since, .. } if since + PROBE_LIMIT > now => {
                Err(now + Duration::from_millis(200))
            }
            State::Open { lasts, .. } | State::Probing { lasts, .. } => {
                self.state = State::Probing { since: now, lasts };
                Ok(())
            }
        }
    }

    /// Who may call has not called.
    pub fn forgo(&mut self, now: Instant) {
        if let State::Probing { lasts, .. } = self.state {
            self.state = State::Open { until: now, lasts };
        }
    }

    /// Takes how a call ended. Returns whether that opened or closed it.
    pub fn record(&mut self, now: Instant, failed: bool) -> bool {
        match self.state {
            // A call that began before it opened.
            State::Open { .. } => false,
            State::Probing { lasts, .. } => {
                self.counted.clear();
                self.state = if failed {
                    let lasts = (lasts * 2).min(self.trip.max_open).max(self.trip.open);
                    State::Open { until: now + lasts, lasts }
                } else {
                    State::Closed
                };
                true
            }
            State::Closed => {
                let (calls, failures) = self.count(now, failed);
                let is_bad = failed
                    && calls >= self.trip.min_calls
                    && f64::from(failures) >= f64::from(calls) * self.trip.failure_ratio;
                if is_bad {
                    self.counted.clear();
                    self.state = State::Open { until: now + self.trip.open, lasts: self.trip.open };
                }
                is_bad
            }
        }
    }

    /// Adds a call; calls and failures of the window.
    fn count(&mut self, now: Instant, failed: bool) -> (u32, u32) {
        let window = self.trip.window;
        self.counted.retain(|(began, ..)| *began + window > now);
        match self.counted.back_mut().filter(|(began, ..)| *began + window / SLOTS > now) {
            Some((_, calls, failures)) => {
                *calls = calls.saturating_add(1);
                *failures = failures.saturating_add(u32::from(failed));
            }
            None => self.counted.push_back((now, 1, u32::from(failed))),
        }
        self.counted.iter().fold((0, 0), |(calls, failures), slot| {
            (calls.saturating_add(slot.1), failures.saturating_add(slot.2))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trip() -> Trip {
        Trip {
            min_calls: 4,
            open: Duration::from_millis(600),
            max_open: Duration::from_secs(2),
            ..Trip::default()
        }
    }

    #[test]
    fn enough_failures_open_it_and_one_probe_at_a_time_closes_it() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut breaker = Breaker::new(trip());
        for (call, failed) in [true, false, false].into_iter().enumerate() {
            assert!(!breaker.record(at(call as u64), failed));
        }
        assert!(breaker.record(at(3), true), "two of four");
        assert_eq!((breaker.state(), breaker.permit(at(602))), (2, Err(at(603))));
        let mut now = 603;
        for lasts in [1_200, 2_000, 2_000] {
            assert_eq!(breaker.permit(at(now)), Ok(()));
            assert!(breaker.permit(at(now)).is_err(), "one probe");
            assert!(breaker.record(at(now), true));
            assert_eq!(breaker.permit(at(now + lasts - 1)), Err(at(now + lasts)));
            now += lasts;
        }
        assert_eq!(breaker.permit(at(now)), Ok(()));
        assert_eq!(breaker.state(), 1);
        assert!(breaker.record(at(now), false));
        assert_eq!((breaker.state(), breaker.permit(at(now))), (0, Ok(())));
        assert!(!breaker.record(at(now), true), "what was counted before is forgotten");
    }

    #[test]
    fn calls_count_within_the_window() {
        let start = Instant::now();
        let mut breaker = Breaker::new(trip());
        for call in 0..100 {
            assert!(!breaker.record(start + Duration::from_secs(call * 4), true), "three within ten seconds");
        }
        assert!(breaker.counted.len() <= SLOTS as usize + 1);
    }

    #[test]
    fn a_probe_that_is_not_made_or_not_told_of_leaves_its_turn() {
        let start = Instant::now();
        let mut breaker = Breaker::new(trip());
        (0..4).for_each(|_| _ = breaker.record(start, true));
        let now = start + trip().open;
        assert_eq!(breaker.permit(now), Ok(()));
        breaker.forgo(now);
        assert_eq!(breaker.permit(now), Ok(()));
        assert!(breaker.permit(now + Duration::from_secs(59)).is_err());
        assert_eq!(breaker.permit(now + Duration::from_secs(60)), Ok(()));
    }
}

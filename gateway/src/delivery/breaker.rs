//! Whether somebody who fails is called at all for a while.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So many connections in a row that did not come about are enough.
const ENOUGH_UNREACHABLE: u32 = 5;

/// Parts of the window in which calls are counted together.
const SLOTS: u32 = 10;

/// After this a probe of which nobody tells is forgotten.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// The host answered, whatever it thought of the request.
    Answered,
    /// No answer in time, one that broke off, or 5xx.
    Failed,
    /// No connection came about.
    Unreachable,
}

/// Where a breaker stands, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BreakerState {
    /// Calls are made.
    Closed,
    /// None is made.
    Open,
    /// One is made, and decides.
    Probing,
}

impl BreakerState {
    /// As metrics show it: 0 calls are made, 1 one is made to try, 2 none is made.
    pub fn number(self) -> u64 {
        match self {
            BreakerState::Closed => 0,
            BreakerState::Probing => 1,
            BreakerState::Open => 2,
        }
    }
}

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

/// Keeps calls from a host or a function of which so many fail as its [`Trip`] says, or to which five connections in a
/// row did not come about. Then one call is let through; as long as that fails, it stays open for twice as long. Time is
/// an argument.
#[derive(Debug)]
pub struct Breaker {
    trip: Trip,
    state: State,
    /// When each part of the window began, its calls, and its failures.
    counted: VecDeque<(Instant, u32, u32)>,
    /// Connections in a row that did not come about.
    unreachable: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Open { until: Instant, lasts: Duration },
    Probing { since: Instant, lasts: Duration },
}

impl Breaker {
    /// A closed one.
    pub fn new(trip: Trip) -> Self {
        Self { trip, state: State::Closed, counted: VecDeque::new(), unreachable: 0 }
    }

    /// Where it stands.
    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::Probing { .. } => BreakerState::Probing,
        }
    }

    /// Whether a call may be made now. Who may says how it ended with [`Breaker::record`], or [forgoes](Breaker::forgo)
    /// it; a probe that nobody tells of for a minute is forgotten, and another one may go.
    ///
    /// # Errors
    /// When to ask again.
    pub fn permit(&mut self, now: Instant) -> Result<(), Instant> {
        match self.state {
            State::Closed => Ok(()),
            State::Open { until, .. } if until > now => Err(until),
            State::Probing { since, .. } if since + PROBE_LIMIT > now => {
                Err((since + PROBE_LIMIT).min(now + Duration::from_millis(200)))
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
    pub fn record(&mut self, now: Instant, call: Call) -> bool {
        let failed = call != Call::Answered;
        match self.state {
            // A call that began before it opened.
            State::Open { .. } => false,
            State::Probing { lasts, .. } => {
                if failed {
                    self.open(now, (lasts * 2).min(self.trip.max_open).max(self.trip.open));
                } else {
                    *self = Self::new(self.trip);
                }
                true
            }
            State::Closed => {
                self.unreachable = if call == Call::Unreachable { self.unreachable + 1 } else { 0 };
                let (calls, failures) = self.count(now, failed);
                let is_bad = failed
                    && calls >= self.trip.min_calls
                    && f64::from(failures) >= f64::from(calls) * self.trip.failure_ratio;
                let opens = is_bad || self.unreachable >= ENOUGH_UNREACHABLE;
                if opens {
                    self.open(now, self.trip.open);
                }
                opens
            }
        }
    }

    fn open(&mut self, now: Instant, lasts: Duration) {
        self.counted.clear();
        self.state = State::Open { until: now + lasts, lasts };
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

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn half_of_enough_calls_within_ten_seconds_open_it() {
        let start = Instant::now();
        let mut breaker = Breaker::new(Trip::default());
        for call in 0..19 {
            assert!(!breaker.record(
                start + seconds(call / 4),
                if call % 2 == 0 { Call::Failed } else { Call::Answered }
            ));
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert!(breaker.record(start + seconds(5), Call::Failed));
        assert_eq!(breaker.permit(start + seconds(6)), Err(start + seconds(10)));

        let mut slow = Breaker::new(Trip::default());
        for call in 0..100 {
            assert!(
                !slow.record(start + seconds(call), Call::Failed),
                "20 within ten seconds never come together"
            );
        }
    }

    #[test]
    fn five_connections_that_do_not_come_about_open_it_and_one_probe_at_a_time_closes_it() {
        let start = Instant::now();
        let mut breaker = Breaker::new(Trip::default());
        for _ in 0..4 {
            breaker.record(start, Call::Unreachable);
        }
        breaker.record(start, Call::Answered);
        for _ in 0..4 {
            assert!(!breaker.record(start, Call::Unreachable));
        }
        assert!(breaker.record(start, Call::Unreachable));
        let mut now = start;
        for open in [5, 10, 20, 40, 60, 60] {
            assert_eq!(breaker.permit(now + seconds(open - 1)), Err(now + seconds(open)));
            now += seconds(open);
            assert_eq!(breaker.permit(now), Ok(()));
            assert!(breaker.permit(now).is_err(), "one probe");
            assert_eq!(breaker.state(), BreakerState::Probing);
            assert!(breaker.record(now, Call::Unreachable));
        }
        now += seconds(60);
        assert_eq!(breaker.permit(now), Ok(()));
        assert!(breaker.record(now, Call::Answered));
        assert_eq!((breaker.state(), breaker.permit(now)), (BreakerState::Closed, Ok(())));
    }

    #[test]
    fn a_probe_that_is_not_made_leaves_its_turn_to_the_next() {
        let start = Instant::now();
        let mut breaker = Breaker::new(Trip::default());
        (0..5).for_each(|_| _ = breaker.record(start, Call::Unreachable));
        let now = start + seconds(5);
        assert_eq!(breaker.permit(now), Ok(()));
        breaker.forgo(now);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.permit(now), Ok(()));
    }

    #[test]
    fn a_probe_of_which_nobody_tells_does_not_close_the_way_for_ever() {
        let start = Instant::now();
        let mut breaker = Breaker::new(Trip::default());
        (0..5).for_each(|_| _ = breaker.record(start, Call::Unreachable));
        assert_eq!(breaker.permit(start + seconds(5)), Ok(()));
        assert!(breaker.permit(start + seconds(64)).is_err());
        assert_eq!(breaker.permit(start + seconds(65)), Ok(()));
    }

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
        for (millis, call) in [(0, Call::Failed), (1, Call::Answered), (2, Call::Answered)] {
            assert!(!breaker.record(at(millis), call));
        }
        assert!(breaker.record(at(3), Call::Failed), "two of four");
        assert_eq!((breaker.state(), breaker.permit(at(602))), (BreakerState::Open, Err(at(603))));
        let mut now = 603;
        for lasts in [1_200, 2_000, 2_000] {
            assert_eq!(breaker.permit(at(now)), Ok(()));
            assert!(breaker.permit(at(now)).is_err(), "one probe");
            assert!(breaker.record(at(now), Call::Failed));
            assert_eq!(breaker.permit(at(now + lasts - 1)), Err(at(now + lasts)));
            now += lasts;
        }
        assert_eq!(breaker.permit(at(now)), Ok(()));
        assert_eq!(breaker.state(), BreakerState::Probing);
        assert!(breaker.record(at(now), Call::Answered));
        assert_eq!((breaker.state(), breaker.permit(at(now))), (BreakerState::Closed, Ok(())));
        assert!(!breaker.record(at(now), Call::Failed), "what was counted before is forgotten");
    }

    #[test]
    fn calls_count_within_the_window() {
        let start = Instant::now();
        let mut breaker = Breaker::new(trip());
        for call in 0..100 {
            assert!(
                !breaker.record(start + Duration::from_secs(call * 4), Call::Failed),
                "three within ten seconds"
            );
        }
        assert!(breaker.counted.len() <= SLOTS as usize + 1);
    }
}

//! Whether a host that fails is asked at all for a while.

use std::time::{Duration, Instant};

/// How long calls count.
const WINDOW_SECS: usize = 10;
/// Fewer calls than these say nothing about their share of failures.
const ENOUGH_CALLS: u32 = 20;
/// So many connections in a row that did not come about are enough.
const ENOUGH_UNREACHABLE: u32 = 5;
/// How long it stays open at first; each probe that fails doubles it.
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);

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

/// Keeps calls from a host of which half fail (of 20 or more in ten seconds), or to which five connections in a row did
/// not come about: for 5 s, then one call is let through; as long as that fails, for twice as long, up to a minute.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    began: Instant,
    /// Calls and failures of each second of the last ten, and which second it is.
    seconds: [(u64, u32, u32); WINDOW_SECS],
    unreachable: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Open { until: Instant, after: Duration },
    Probing { since: Instant, after: Duration },
}

impl Breaker {
    /// A closed one.
    pub fn new(now: Instant) -> Self {
        Self { state: State::Closed, began: now, seconds: [(0, 0, 0); WINDOW_SECS], unreachable: 0 }
    }

    /// Where it stands.
    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::Probing { .. } => BreakerState::Probing,
        }
    }

    /// Whether a call may be made now. Who is let through says how it ended with [`Breaker::record`]; a probe that
    /// nobody tells of for a minute is forgotten, and another one may go.
    ///
    /// # Errors
    /// When to ask again.
    pub fn permit(&mut self, now: Instant) -> Result<(), Instant> {
        match self.state {
            State::Closed => Ok(()),
            State::Open { until, .. } if until > now => Err(until),
            State::Open { after, .. } => {
                self.state = State::Probing { since: now, after };
                Ok(())
            }
            State::Probing { since, after } if since + LONGEST <= now => {
                self.state = State::Probing { since: now, after };
                Ok(())
            }
            State::Probing { since, .. } => Err((since + LONGEST).min(now + Duration::from_secs(1))),
        }
    }

    /// Who was let through has made no call after all.
    pub fn forgo(&mut self, now: Instant) {
        if let State::Probing { after, .. } = self.state {
            self.state = State::Open { until: now, after };
        }
    }

    /// Takes how a call ended. Returns whether that opened or closed it.
    pub fn record(&mut self, now: Instant, call: Call) -> bool {
        match self.state {
            State::Probing { .. } if call == Call::Answered => {
                *self = Self { began: self.began, ..Self::new(now) };
                true
            }
            State::Probing { after, .. } => {
                self.open(now, (after * 2).min(LONGEST));
                true
            }
            // A call that began before it opened.
            State::Open { .. } => false,
            State::Closed => {
                self.unreachable = if call == Call::Unreachable { self.unreachable + 1 } else { 0 };
                let (calls, failures) = self.count(now, call != Call::Answered);
                let is_bad = calls >= ENOUGH_CALLS && failures * 2 >= calls;
                if is_bad || self.unreachable >= ENOUGH_UNREACHABLE {
                    self.open(now, SHORTEST);
                }
                is_bad || self.unreachable >= ENOUGH_UNREACHABLE
            }
        }
    }

    fn open(&mut self, now: Instant, after: Duration) {
        self.state = State::Open { until: now + after, after };
    }

    /// Adds a call; gives the calls and failures of the last ten seconds.
    fn count(&mut self, now: Instant, is_failure: bool) -> (u32, u32) {
        // From 1, so that a second that never was is none.
        let second = now.saturating_duration_since(self.began).as_secs() + WINDOW_SECS as u64;
        let place = (second % WINDOW_SECS as u64) as usize;
        if let Some(slot) = self.seconds.get_mut(place) {
            if slot.0 != second {
                *slot = (second, 0, 0);
            }
            slot.1 = slot.1.saturating_add(1);
            slot.2 = slot.2.saturating_add(u32::from(is_failure));
        }
        let recent = self.seconds.iter().filter(|slot| slot.0 + WINDOW_SECS as u64 > second);
        recent.fold((0, 0), |(calls, failures), slot| {
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
        let mut breaker = Breaker::new(start);
        for call in 0..19 {
            assert!(!breaker.record(
                start + seconds(call / 4),
                if call % 2 == 0 { Call::Failed } else { Call::Answered }
            ));
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert!(breaker.record(start + seconds(5), Call::Failed));
        assert_eq!(breaker.permit(start + seconds(6)), Err(start + seconds(10)));

        let mut slow = Breaker::new(start);
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
        let mut breaker = Breaker::new(start);
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
        let mut breaker = Breaker::new(start);
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
        let mut breaker = Breaker::new(start);
        (0..5).for_each(|_| _ = breaker.record(start, Call::Unreachable));
        assert_eq!(breaker.permit(start + seconds(5)), Ok(()));
        assert!(breaker.permit(start + seconds(64)).is_err());
        assert_eq!(breaker.permit(start + seconds(65)), Ok(()));
    }
}

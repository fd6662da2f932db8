//! The clock of one stream: keep-alive comments, and the end of its credentials.

use std::time::{Duration, Instant};

/// What a stream does when its time has come.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Output {
    /// Write a comment, unless something waits to be written anyway.
    KeepAlive,
    /// Say goodbye: the credentials are over.
    Expired,
}

/// One stream's deadlines. Kept small: there is one for every idle connection.
#[derive(Debug)]
pub(crate) struct Stream {
    keep_alive_at: Instant,
    expires_at: Option<Instant>,
}

impl Stream {
    /// A stream opened at `now`. `phase` (0 to 1) moves its keep-alives against those of other streams.
    pub(crate) fn new(now: Instant, keep_alive: Duration, phase: f64, expires_at: Option<Instant>) -> Self {
        Stream { keep_alive_at: now + period(keep_alive).mul_f64(0.5 + phase / 2.0), expires_at }
    }

    /// When to call [`Stream::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Instant {
        self.expires_at.map_or(self.keep_alive_at, |end| end.min(self.keep_alive_at))
    }

    /// The time of [`Stream::poll_timeout`] came.
    pub(crate) fn handle_timeout(&mut self, now: Instant, keep_alive: Duration) -> Option<Output> {
        if self.expires_at.is_some_and(|end| end <= now) {
            return Some(Output::Expired);
        }
        if self.keep_alive_at <= now {
            self.keep_alive_at = now + period(keep_alive);
            return Some(Output::KeepAlive);
        }
        None
    }
}

/// A year: a clock is not to be set further ahead, and no stream is older.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The time between two keep-alives; where none are wanted, one that no stream lives to see.
fn period(keep_alive: Duration) -> Duration {
    if keep_alive.is_zero() { NEVER } else { keep_alive.min(NEVER) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(15);

    #[test]
    fn keep_alives_come_once_a_period() {
        let start = Instant::now();
        let mut stream = Stream::new(start, PERIOD, 1.0, None);
        assert_eq!(stream.poll_timeout(), start + PERIOD);
        assert_eq!(stream.handle_timeout(start + PERIOD / 2, PERIOD), None);
        assert_eq!(stream.handle_timeout(start + PERIOD, PERIOD), Some(Output::KeepAlive));
        assert_eq!(stream.poll_timeout(), start + 2 * PERIOD);
        assert_eq!(Stream::new(start, PERIOD, 0.0, None).poll_timeout(), start + PERIOD / 2);
    }

    #[test]
    fn no_time_between_them_means_that_none_come() {
        let start = Instant::now();
        let mut stream = Stream::new(start, Duration::ZERO, 0.0, None);
        let day = start + Duration::from_secs(24 * 3600);
        assert!(stream.poll_timeout() > day);
        assert_eq!(stream.handle_timeout(day, Duration::ZERO), None);
        assert!(Stream::new(start, Duration::MAX, 1.0, None).poll_timeout() > day, "no overflow");
    }

    #[test]
    fn expiry_comes_first_if_it_is_due() {
        let start = Instant::now();
        let end = start + Duration::from_secs(1);
        let mut stream = Stream::new(start, PERIOD, 0.0, Some(end));
        assert_eq!(stream.poll_timeout(), end);
        assert_eq!(stream.handle_timeout(end, PERIOD), Some(Output::Expired));
    }
}

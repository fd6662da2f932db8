//! How fast the ends of connections are told: who vanishes with ten thousand others leaves room for those who are there.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::sleep_until;

/// From one to the next. Ten thousand are told in ten seconds, which costs a tenth of a core.
const STEP: Duration = Duration::from_millis(1);

/// The turns of one API.
pub(crate) struct Pace {
    next: Mutex<Option<Instant>>,
    /// Nobody is there any more whom it would spare.
    in_a_hurry: watch::Sender<bool>,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { next: Mutex::default(), in_a_hurry: watch::Sender::new(false) }
    }

    /// Waits for a turn.
    pub(crate) async fn turn(&self) {
        let now = Instant::now();
        let at = self.book(now);
        if at <= now {
            return;
        }
        let mut hurry = self.in_a_hurry.subscribe();
        tokio::select! {
            () = sleep_until(at.into()) => {}
            _ = hurry.wait_for(|is| *is) => {}
        }
    }

    /// The server stops: nobody waits from now on.
    pub(crate) fn hurry(&self) {
        self.in_a_hurry.send_replace(true);
    }

    fn book(&self, now: Instant) -> Instant {
        let mut next = self.next.lock();
        let at = next.map_or(now, |next| next.max(now));
        *next = Some(at + STEP);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_comes_at_once_and_many_one_after_the_other() {
        let (pace, now) = (Pace::new(), Instant::now());
        let booked = |now| pace.book(now) - now;
        assert_eq!([0, 1, 2].map(|_| booked(now)), [0, 1, 2].map(|step| step * STEP));
        // Time that nobody wanted is not saved up.
        let later = now + Duration::from_secs(60);
        assert_eq!([0, 1].map(|_| booked(later)), [Duration::ZERO, STEP]);
    }

    #[tokio::test]
    async fn who_stops_waits_for_nobody() {
        let pace = Pace::new();
        *pace.next.lock() = Some(Instant::now() + Duration::from_secs(3_600));
        let waits = pace.turn();
        tokio::pin!(waits);
        assert!(futures_util::poll!(&mut waits).is_pending());
        pace.hurry();
        waits.await;
        // Nor does who comes later.
        assert!(futures_util::poll!(std::pin::pin!(pace.turn())).is_ready());
    }
}

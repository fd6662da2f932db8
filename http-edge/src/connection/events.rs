//! What a connection hears beside its socket.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::seldom::Seldom;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Notice {
    Stop,
    /// Time for the watchdog to look.
    PeriodOver,
}

/// Ready once because the connection is to stop, and every `period`.
pub(crate) fn events(mut shutdown: watch::Receiver<bool>, period: Duration) -> impl Future<Output = Notice> {
    let mut stop = Some(Box::pin(async move { _ = shutdown.wait_for(|stop| *stop).await }));
    let period = period.max(MIN_PERIOD);
    let mut timer = interval_at(Instant::now() + period, period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Seldom::new(poll_fn(move |cx| {
        if stop.as_mut().is_some_and(|stop| stop.as_mut().poll(cx).is_ready()) {
            stop = None;
            return Poll::Ready(Notice::Stop);
        }
        timer.poll_tick(cx).map(|_| Notice::PeriodOver)
    }))
}

/// A timer without a period would never let go of its thread.
const MIN_PERIOD: Duration = Duration::from_millis(1);

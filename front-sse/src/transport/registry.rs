//! The streams that are open, so that they can be counted, bounded, and told goodbye.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use broker_core::{Outbox, OutboxEnd};
use parking_lot::Mutex;
use slab::Slab;
use tokio::time::{Instant, sleep, sleep_until};

use crate::codec::event;

/// Open streams by a number of their own.
#[derive(Default)]
pub(crate) struct Registry {
    outboxes: Mutex<Slab<Arc<Outbox>>>,
    closing: AtomicBool,
}

/// A stream's place among the open ones; dropping it leaves.
pub(crate) struct Open {
    registry: Arc<Registry>,
    key: usize,
}

/// The earliest that a client is asked to come back after a shutdown.
const MIN_RETRY: Duration = Duration::from_millis(500);

impl Registry {
    pub(crate) fn len(&self) -> usize {
        self.outboxes.lock().len()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// Enters a stream; `None` if `max` are open already.
    pub(crate) fn enter(self: &Arc<Self>, outbox: Arc<Outbox>, max: usize) -> Option<Open> {
        let mut outboxes = self.outboxes.lock();
        if outboxes.len() >= max {
            return None;
        }
        let key = outboxes.insert(outbox);
        Some(Open { registry: Arc::clone(self), key })
    }

    /// Says goodbye to all streams, evenly across `window`, and waits until they are gone. What was accepted for a
    /// connected reader is written before its goodbye. Whoever is left after the window and a grace of two seconds
    /// is cut off.
    pub(crate) async fn shut_down(&self, window: Duration) {
        const STEP: Duration = Duration::from_millis(20);
        const GRACE: Duration = Duration::from_secs(2);
        self.closing.store(true, Relaxed);
        let outboxes: Vec<_> = self.outboxes.lock().iter().map(|(_, outbox)| Arc::clone(outbox)).collect();
        let started = Instant::now();
        for (at, outbox) in outboxes.iter().enumerate() {
            let due = started + window.mul_f64(at as f64 / outboxes.len() as f64);
            // Many are due within one tick of the timer.
            if due > Instant::now() + STEP {
                sleep_until(due).await;
            }
            outbox.send_last(event::last("shutting down", retry_within(window)));
        }
        drop(outboxes);
        let deadline = started + window + GRACE;
        while self.len() > 0 && Instant::now() < deadline {
            sleep(STEP).await;
        }
        for (_, outbox) in self.outboxes.lock().iter() {
            outbox.close(OutboxEnd::Shutdown);
        }
    }
}

/// A time at random, so that clients do not come back all at once.
pub(crate) fn retry_within(window: Duration) -> Duration {
    let longest = window.max(MIN_RETRY * 2);
    MIN_RETRY + (longest - MIN_RETRY).mul_f64(fastrand::f64())
}

impl Drop for Open {
    fn drop(&mut self) {
        self.registry.outboxes.lock().try_remove(self.key);
    }
}

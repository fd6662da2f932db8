//! What a session's want of room leads to: events are dropped or the session ends, and its operator is told.

use std::time::Instant;

use bytes::Bytes;

use super::mailbox::Mailbox;
use crate::config::QueueFull;
use crate::protocol::{Delivered, End};

/// How often one session may be spoken of in the log.
const WARN_PERIOD_SECS: u32 = 60;

impl Mailbox {
    /// An event for this session alone, whatever it is subscribed to.
    pub(crate) fn deliver_direct(&self, now: Instant, object: Bytes) {
        let delivered = self.with(|state| state.session.handle_delivery(now, object, None, None));
        self.follow_up(now, delivered, None);
    }

    /// Does what a delivery calls for.
    pub(super) fn follow_up(&self, now: Instant, delivered: Delivered, expires_at: Option<Instant>) {
        let delivered = match delivered {
            Delivered::Full(object) => {
                let decision = self.when_full();
                let (delivered, dropped) = self.with(|state| {
                    let before = state.session.dropped();
                    let delivered = state.session.overflow(now, object, expires_at, decision);
                    (delivered, state.session.dropped() - before)
                });
                self.note_dropped(dropped);
                delivered
            }
            delivered => delivered,
        };
        match delivered {
            Delivered::Overflow => {
                self.shared.counters.overflowed();
                self.warn("its queue was full and its session is over");
                self.write(now);
                // The sweep takes its subscriptions away: the broker must not be called from here.
                self.clock.wake();
            }
            Delivered::Due => self.write(now),
            Delivered::Queued | Delivered::Ignored | Delivered::Full(_) => {}
        }
    }

    fn note_dropped(&self, dropped: u32) {
        if dropped > 0 {
            self.shared.counters.dropped(dropped);
            self.warn("events were dropped, as its queue was full");
        }
    }

    /// What shall be done about a full queue. The listener is asked without the session's mutex.
    fn when_full(&self) -> QueueFull {
        let configured = self.shared.config.queue_full;
        let Some(listener) = self.shared.listener() else { return configured };
        let (id, (waiting, _)) = self.with(|state| (state.id, state.session.waiting()));
        id.and_then(|id| listener.queue_full(&id, waiting)).unwrap_or(configured)
    }

    /// The log has lost what was still to be replayed: the session ends, and its client is told.
    pub(super) fn lose_replay(&self) {
        self.shared.counters.lost_replay();
        self.warn("the log has lost what was still to be replayed, and its session is over");
        self.finish(Instant::now(), End::ReplayLost, None);
        // The sweep takes its subscriptions away.
        self.clock.wake();
    }

    /// Says in the log that events were lost or the session was, once per session and minute.
    pub(crate) fn warn(&self, what: &'static str) {
        let now_secs = u32::try_from(self.shared.age().as_secs()).unwrap_or(u32::MAX);
        let mut state = self.state.lock();
        let due = state.warned_secs == 0 || now_secs.saturating_sub(state.warned_secs) >= WARN_PERIOD_SECS;
        if !due {
            return;
        }
        state.warned_secs = now_secs.max(1);
        let (waiting, dropped, session) = (state.session.waiting(), state.session.dropped(), state.id);
        drop(state);
        tracing::warn!(
            ?session,
            events = waiting.0,
            bytes = waiting.1,
            dropped,
            "a Bayeux client does not keep up: {what}"
        );
    }
}

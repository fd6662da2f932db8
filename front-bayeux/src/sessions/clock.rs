//! When the sweep must look at a session. It is read without the session's mutex: most of the time there is nothing to
//! do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::shared::Shared;
use crate::protocol::Session;

/// See the module.
#[derive(Default)]
pub(super) struct Clock {
    /// In milliseconds since the front's start.
    wake_at_ms: AtomicU64,
    /// The last connect whose reply was written. That happens wherever the socket is written, perhaps under the mutex.
    written: AtomicU64,
}

impl Clock {
    /// Whether the sweep has something to do.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        self.wake_at_ms.load(Ordering::Relaxed) <= now_ms
    }

    /// The next sweep looks.
    pub(super) fn wake(&self) {
        self.wake_at_ms.store(0, Ordering::Relaxed);
    }

    /// The reply to the connect `token` was written. Takes no lock; time counts from the next look at the session, at
    /// the latest the sweep's.
    pub(super) fn reply_written(&self, token: u64) {
        self.written.fetch_max(token, Ordering::SeqCst);
        self.wake_at_ms.store(0, Ordering::SeqCst);
    }

    /// Passes on to the session that its reply was written.
    pub(super) fn tell(&self, session: &mut Session) {
        if session.is_replying() {
            session.reply_written(Instant::now(), self.written.load(Ordering::SeqCst));
        }
    }

    /// Sets itself by the session.
    pub(super) fn set(&self, session: &mut Session, shared: &Shared) {
        loop {
            let timeout = session.poll_timeout();
            let wake_at = timeout.map_or(u64::MAX, |at| shared.millis(at));
            if !session.is_replying() {
                return self.wake_at_ms.store(wake_at, Ordering::Relaxed);
            }
            // In one order with `reply_written`: either its reply is seen here, or its zero comes after this.
            self.wake_at_ms.store(wake_at, Ordering::SeqCst);
            self.tell(session);
            if session.is_replying() {
                return;
            }
        }
    }
}

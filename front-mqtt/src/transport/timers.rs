//! What is due for sessions without a connection: delayed wills and the end of the session.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Hosted;
use crate::front::Inner;
use crate::protocol::TimerKey;

/// What to do for a session when its time comes.
#[derive(Clone)]
pub(crate) struct Due {
    pub(crate) hosted: Weak<Hosted>,
    pub(crate) what: What,
}

/// A delayed will comes first and sets the timer for the end itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum What {
    Will { ends: Option<Instant> },
    End,
}

/// One entry for each detached session that waits for something.
#[derive(Default)]
pub(crate) struct Timers {
    due: Mutex<(BTreeMap<TimerKey, Due>, u64)>,
    earlier: Notify,
}

impl Timers {
    pub(crate) fn set(&self, at: Instant, due: Due) -> TimerKey {
        let mut entries = self.due.lock();
        entries.1 += 1;
        let key = (at, entries.1);
        entries.0.insert(key, due);
        let is_first = entries.0.first_key_value().is_some_and(|(first, _)| *first == key);
        drop(entries);
        if is_first {
            self.earlier.notify_one();
        }
        key
    }

    pub(crate) fn cancel(&self, key: TimerKey) {
        self.due.lock().0.remove(&key);
    }

    /// Waits for the next that is due.
    pub(crate) async fn next(&self) -> Due {
        loop {
            let first = self.due.lock().0.first_key_value().map(|(key, _)| *key);
            match first {
                Some(key) if key.0 <= Instant::now() => {
                    if let Some(due) = self.due.lock().0.remove(&key) {
                        return due;
                    }
                }
                Some((at, _)) => {
                    _ = tokio::time::timeout_at(at.into(), self.earlier.notified()).await;
                }
                None => self.earlier.notified().await,
            }
        }
    }
}

/// Does what is due, for as long as the front lives.
pub(crate) async fn keep_time(front: Weak<Inner>) {
    // The front is let go of while nothing is due, or it would never end.
    while let Some(timers) = front.upgrade().map(|inner| inner.timers().clone()) {
        let due = tokio::time::timeout(Duration::from_secs(1), timers.next()).await;
        if let (Ok(due), Some(inner)) = (due, front.upgrade()) {
            inner.handle_due(&due);
        }
    }
}

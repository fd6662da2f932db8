//! Where connected sessions stand to which nothing comes.
//!
//! A session's position follows the log by what comes to it. Where nothing does it would stay behind as long as the client
//! is connected, and retention would pass it: after a crash the client would be told of a gap that was none, and all the log
//! be read for it. So such sessions are recorded now and then, a few of them each second.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::front::Inner;

/// What a front knows of it.
#[derive(Default)]
pub(crate) struct IdleLooks {
    /// Where the log stood when it was last looked at, and how often that was.
    head: AtomicU64,
    looks: AtomicU64,
    hasher: RandomState,
}

/// About so many sessions are looked at each second, so long as each still has its turn within these bounds, in seconds.
const SESSIONS_EACH: usize = 100;
const MIN_ROUND: usize = 10;
const MAX_ROUND: usize = 300;

/// In how many seconds each of so many sessions has its turn.
fn round(sessions: usize) -> u64 {
    (sessions / SESSIONS_EACH).clamp(MIN_ROUND, MAX_ROUND) as u64
}

/// Once a second: the sessions whose turn it is are as far as the log was a second ago, where nothing waits for them.
pub(super) async fn look(inner: Arc<Inner>) {
    let Some(head) = inner.broker.kept_head() else { return };
    let idle = &inner.idle_looks;
    let before = idle.head.swap(head.offset(), Ordering::Relaxed);
    let turn = idle.looks.fetch_add(1, Ordering::Relaxed);
    let round = round(inner.sessions.len());
    let mut due = inner.sessions.those(|key| idle.hasher.hash_one(key) % round == turn % round);
    due.retain(|hosted| hosted.session.is_behind(before));
    if due.is_empty() {
        return;
    }
    // What is in the log by then is on its way to the sessions, or has come to them.
    inner.broker.handed_over().await;
    for hosted in due {
        hosted.session.catch_up(before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_sessions_are_looked_at_often_and_many_take_turns() {
        assert_eq!([0, 999, 1_000, 10_000, 30_000, 1_000_000].map(round), [10, 10, 10, 100, 300, 300]);
    }
}

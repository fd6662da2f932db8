//! The one task that watches time for all sessions.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::Sessions;
use crate::protocol::End;

/// Sessions handled before other tasks get their turn.
pub(super) const BEFORE_YIELD: usize = 256;

/// From so many sessions on, looking through them is not for a thread that serves connections.
const MANY_SESSIONS: usize = 20_000;

/// Looks for sessions whose time has come, every `period`, until the front is gone.
pub(crate) async fn run(sessions: Weak<Sessions>, period: Duration) {
    let mut ticks = tokio::time::interval(period.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let Some(sessions) = sessions.upgrade().filter(|sessions| !sessions.is_stopped()) else { return };
        sweep(&sessions, Instant::now()).await;
    }
}

async fn sweep(sessions: &Arc<Sessions>, now: Instant) {
    let due = if sessions.registry.len() < MANY_SESSIONS {
        sessions.registry.due(now)
    } else {
        let searched = Arc::clone(sessions);
        tokio::task::spawn_blocking(move || searched.registry.due(now)).await.unwrap_or_default()
    };
    for (count, member) in due.into_iter().enumerate() {
        if count % BEFORE_YIELD == BEFORE_YIELD - 1 {
            tokio::task::yield_now().await;
        }
        let Some(swept) = member.mailbox.sweep(now) else { continue };
        if swept.forget {
            sessions.forget(&member, swept.end);
            if swept.end == End::Expired {
                sessions.counters().expired();
            }
        } else {
            // It is remembered for a while, but no longer subscribed.
            member.detach();
        }
    }
    sessions.counters().swept(now.elapsed());
}

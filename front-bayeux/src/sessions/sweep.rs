//! The one task that watches time for all sessions, and the end of all.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use broker_core::Outbox;

use crate::front::Shared;
use crate::protocol::End;

/// Sessions handled before other tasks get their turn.
const BEFORE_YIELD: usize = 256;

/// From so many sessions on, looking through them is not for a thread that serves connections.
const MANY_SESSIONS: usize = 20_000;

/// Looks for sessions whose time has come, every `period`, until the front is gone.
pub(crate) async fn run(front: Weak<Shared>, period: Duration) {
    let mut ticks = tokio::time::interval(period.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let Some(shared) = front.upgrade().filter(|shared| !shared.is_stopped()) else { return };
        sweep(&shared, Instant::now()).await;
    }
}

async fn sweep(shared: &Arc<Shared>, now: Instant) {
    let due = if shared.registry.len() < MANY_SESSIONS {
        shared.registry.due(now)
    } else {
        let searched = Arc::clone(shared);
        tokio::task::spawn_blocking(move || searched.registry.due(now)).await.unwrap_or_default()
    };
    for (count, member) in due.into_iter().enumerate() {
        if count % BEFORE_YIELD == BEFORE_YIELD - 1 {
            tokio::task::yield_now().await;
        }
        let Some(swept) = member.mailbox.sweep(now) else { continue };
        if swept.forget {
            shared.forget(&member, swept.end);
            if swept.end == End::Expired {
                shared.counters().expired();
            }
        } else {
            // It is remembered for a while, but no longer subscribed.
            member.detach();
        }
    }
    shared.counters().swept(now.elapsed());
}

/// Says goodbye to everybody and waits until they are gone, at most `window`.
pub(crate) async fn shutdown(shared: Arc<Shared>, window: Duration) {
    let deadline = tokio::time::Instant::now() + window;
    let now = Instant::now();
    for (count, member) in shared.registry.all().into_iter().enumerate() {
        if count % BEFORE_YIELD == BEFORE_YIELD - 1 {
            tokio::task::yield_now().await;
        }
        let end = End::Shutdown { return_after_ms: 1000 + (count % 1000) as u32 };
        member.mailbox.finish(now, end, None);
        shared.forget(&member, end);
    }
    // Sockets without a session too.
    let outboxes: Vec<Arc<Outbox>> = shared.sockets.iter().map(|outbox| Arc::clone(&outbox)).collect();
    for outbox in outboxes {
        outbox.notify();
    }
    while !shared.counters().is_quiet() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

//! Subscriptions that start in the past.
//!
//! A session's replays run one after another: they share its reader anyway, and a client that asks for thousands costs
//! one task.

use std::sync::Arc;

use broker_core::{After, Broker, Filter, Position, SubscribeError};

use super::member::Member;
use super::member::is_live;
use super::replays::Waiting;
use crate::protocol::duplicates::MAX_OTHERS;

/// Subscribes a session from a position on; false if it has this subscription already. `asked_at` is where
/// the logs stood when the request was read: what other subscriptions brought before is asked for again.
pub(crate) fn subscribe_after(
    broker: &Broker,
    member: &Arc<Member>,
    filter: &Filter,
    after: After,
    asked_at: Position,
) -> Result<bool, SubscribeError> {
    let tag = member.replay_tag(filter);
    if !member.note(filter, tag) {
        return Ok(false);
    }
    let subscribed = member.subscriber.subscribe_after(&[(filter.clone(), tag)], after);
    let replay = subscribed.inspect_err(|_| _ = member.unsubscribe(filter))?;
    let waiting = Waiting { replay, filter: filter.clone(), tag, after, asked_at };
    if member.replays.push(waiting) {
        tokio::spawn(run_all(broker.clone(), Arc::clone(member)));
    }
    Ok(true)
}

/// A replay that has gone live, for as long as others of its session run.
struct Done {
    tag: u32,
    after: After,
}

async fn run_all(broker: Broker, member: Arc<Member>) {
    let mut done: Vec<Done> = Vec::new();
    while let Some(waiting) = member.replays.next() {
        let (tag, after) = (waiting.tag, waiting.after);
        if run(&broker, &member, waiting, &done).await && done.len() < MAX_OTHERS {
            done.push(Done { tag, after });
        }
        tokio::task::yield_now().await;
    }
}

/// True if the subscription is live now.
async fn run(broker: &Broker, member: &Member, waiting: Waiting, done: &[Done]) -> bool {
    let Waiting { replay, filter, tag, after, asked_at } = waiting;
    let is_wanted = || member.holds(&filter, tag) && member.mailbox.end().is_none();
    if !is_wanted() {
        member.subscriber.abandon_replay(tag);
        return false;
    }
    let epoch = broker.position_of([&filter]).only().map(|id| id.epoch());
    let start = offset(after, epoch);
    member.mailbox.with(|state| state.begin_replay(tag, epoch, filter.clone(), start));
    let stand = broker.position();
    // What was on its way when the replay began is remembered as it comes.
    broker.handed_over().await;
    // Others bring what is after the point at which they began, or after the request, whichever was later; and of what
    // was replayed already, all is there up to the head.
    let others = member.subscriptions(|other, tag| {
        let replayed = done.iter().find(|done| done.tag == tag).map(|done| (other.clone(), Some(done.after)));
        replayed.or_else(|| is_live(tag).then(|| (other.clone(), None)))
    });
    member.mailbox.with(|state| {
        let Some(duplicates) = state.duplicates() else { return };
        let head = duplicates.head(&stand);
        for (other, replayed_after) in others {
            match (replayed_after, member.replays.live_since(&other)) {
                (Some(after), _) => duplicates.add_replayed(other, offset(after, epoch), head),
                (None, Some(since)) => {
                    let since = duplicates.since(&since).max(duplicates.head(&asked_at));
                    duplicates.add_live(other, since);
                }
                // It is being made, and says so itself.
                (None, None) => {}
            }
        }
        duplicates.delivered(head);
        duplicates.settle(head);
    });
    let stopped = async {
        loop {
            let woken = member.mailbox.woken().notified();
            tokio::pin!(woken);
            // Listening before looking: what comes in between is not missed.
            woken.as_mut().enable();
            if !is_wanted() {
                return;
            }
            woken.await;
        }
    };
    let is_live = tokio::select! {
        () = stopped => false,
        // Its client is told, and may shake hands and ask again; to go on would hide the hole.
        () = replay.run(|_| member.mailbox.lose_replay()) => true,
    };
    // What was on its way when the replay ended may still be a message that it brought.
    broker.handed_over().await;
    member.mailbox.with(|state| state.end_replay());
    if !is_live || !is_wanted() {
        member.subscriber.unsubscribe(&filter, tag);
        member.subscriber.abandon_replay(tag);
        return false;
    }
    true
}

/// Where a replay begins in the log of an epoch: with the oldest, where it has no position in there.
fn offset(after: After, epoch: Option<u64>) -> u64 {
    after.position().zip(epoch).and_then(|(position, epoch)| position.in_epoch(epoch)).unwrap_or(0)
}

//! Shared subscriptions whose messages an engine shares over several nodes: each group with members here takes of its work
//! what these have room for.
//!
//! ```text
//! Work ─▶ Group's queue ─▶ a member with room: a Ticket, until its client has it for good
//!   ▲         nobody is left, or has the message any more: it is another node's
//!   └── as many as there are members with room, more while they are quick
//! ```

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use broker_core::{Broker, Filter, MessageId, Qos, SubscribeError, Task, Terms, Work};
use parking_lot::Mutex;

use super::keeping;
use super::sessions::Hosted;
use crate::front::Inner;
use crate::protocol::{Credit, Group, Ticket, forced_name, target_of};

/// A group, by its name and filter.
pub(super) type Named = (Box<str>, Filter);

/// The groups of a front that take of their work.
#[derive(Default)]
pub(crate) struct Working(Mutex<HashSet<Named>>);

/// How many messages are asked for at once where members are quick.
const MAX_AHEAD: usize = 64;

/// They are when what was asked for is with them so soon.
const QUICK: Duration = Duration::from_millis(5);

/// How long a group without room is left alone, should nobody say that there is some.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How soon a group is looked at again whose last member is leaving, and work is opened again that could not be.
const PAUSE: Duration = Duration::from_millis(20);
const OPEN_PAUSE: Duration = Duration::from_secs(1);

/// Those of a session's subscriptions that are groups with work and nothing in memory: while its client is away the session
/// is in none of them.
pub(super) fn among<'n>(broker: &Broker, held: impl Iterator<Item = (&'n str, u32)>) -> Vec<(Named, u32)> {
    let targets = held.filter_map(|(name, tag)| Some((target_of(name)?, tag)));
    let named = targets.filter_map(|(target, tag)| Some(((target.group?, target.filter), tag)));
    named.filter(|((_, filter), _)| broker.shares(filter) && !broker.reach_of(filter).in_memory).collect()
}

/// How long the group of a session is to keep its place without it, and where it begins if nobody knows.
fn terms(hosted: &Hosted, behind: Option<MessageId>) -> Terms {
    let state = hosted.session.lock();
    let is_kept = state.kept().is_some();
    let outlives = match state.expiry_secs {
        _ if !is_kept => Duration::ZERO,
        u32::MAX => Duration::MAX,
        seconds => Duration::from_secs(u64::from(seconds)),
    };
    drop(state);
    Terms::new(outlives, behind.filter(|_| is_kept))
}

/// A session has joined a group: once this is answered, it has its part of what the group has to do.
pub(super) async fn begin(
    inner: &Arc<Inner>,
    hosted: &Hosted,
    named: &Named,
    behind: Option<MessageId>,
) -> Result<(), SubscribeError> {
    let Some(work) = inner.broker.work(&named.0, &named.1, terms(hosted, behind)) else { return Ok(()) };
    let work = work.await?;
    inner.working.start(inner, named, work);
    Ok(())
}

/// The same for a client that is back, to whom nobody can say that it has to wait: as soon as it goes.
pub(super) fn go_on(
    inner: &Arc<Inner>,
    hosted: &Arc<Hosted>,
    number: u32,
    named: Named,
    tag: u32,
    behind: MessageId,
) {
    let (front, hosted) = (Arc::downgrade(inner), Arc::downgrade(hosted));
    tokio::spawn(async move {
        let mut is_first = true;
        loop {
            if !std::mem::take(&mut is_first) {
                tokio::time::sleep(OPEN_PAUSE).await;
            }
            let (Some(inner), Some(hosted)) = (front.upgrade(), hosted.upgrade()) else { return };
            let is_held =
                hosted.session.lock_as(number).is_some_and(|state| state.subscriptions.by_tag(tag).is_some());
            if !is_held {
                return;
            }
            match begin(&inner, &hosted, &named, Some(behind)).await {
                Err(SubscribeError::Unavailable { .. }) => {}
                Err(error) => return keeping::give_up_on(&hosted, Err(error)),
                Ok(()) => return,
            }
        }
    });
}

impl Working {
    fn start(&self, inner: &Arc<Inner>, named: &Named, work: Arc<dyn Work>) {
        if self.0.lock().insert(named.clone()) {
            tokio::spawn(run(Arc::downgrade(inner), named.clone(), work));
        }
    }

    /// The members of a group. Without any its work is over here.
    fn members_of(&self, broker: &Broker, named: &Named) -> Option<Arc<broker_core::Group>> {
        // Under the lock, so that whoever joins meanwhile starts it anew.
        let mut working = self.0.lock();
        let members = broker.group(&named.0, &named.1);
        if members.is_none() {
            working.remove(named);
        }
        members
    }
}

async fn run(front: Weak<Inner>, named: Named, work: Arc<dyn Work>) {
    let mut ahead = 1;
    while let Some(inner) = front.upgrade()
        && let Some(members) = inner.working.members_of(&inner.broker, &named)
    {
        let group = Group::of(&members, &inner.shared);
        let keeps_qos0 = inner.shared.config.queue_qos0_offline;
        drop((inner, members));
        let credit = match group.credit() {
            Credit::Of(members) => members.max(ahead).min(MAX_AHEAD),
            _ => 0,
        };
        // Without room nothing is asked for, and what is on its way is taken all the same.
        let tasks = work.next(credit).await;
        tell_of_missed(&front, &named, &*work);
        let (count, given) = (tasks.len(), Instant::now());
        tasks.into_iter().for_each(|task| give(&group, &work, task, keeps_qos0));
        match group.credit() {
            Credit::Of(_) => {}
            Credit::Over => tokio::time::sleep(PAUSE).await,
            Credit::No if count > 0 => {
                // It is about to be taken, or there is no room for it.
                _ = tokio::time::timeout(QUICK, group.until_room()).await;
            }
            left => {
                if left == Credit::Away {
                    group.let_go_of_waiting();
                }
                _ = tokio::time::timeout(LOOK_EVERY, group.until_room()).await;
            }
        }
        if count > 0 {
            let is_quick = given.elapsed() < QUICK;
            ahead = if is_quick && count >= credit {
                (ahead * 2).min(MAX_AHEAD)
            } else if is_quick {
                ahead
            } else {
                1
            };
        }
    }
    tell_of_missed(&front, &named, &*work);
    // What is on its way still is for others.
    loop {
        let tasks = work.next(0).await;
        if tasks.is_empty() {
            return;
        }
        let offsets = tasks.iter().filter_map(|task| task.message.id());
        offsets.for_each(|id| work.give_back(id.offset()));
    }
}

/// What retention has taken before any member had it is told, as of a group that one server keeps.
fn tell_of_missed(front: &Weak<Inner>, (name, filter): &Named, work: &dyn Work) {
    let Some(gap) = work.missed() else { return };
    if let Some(inner) = front.upgrade() {
        inner.shared.gaps.fetch_add(1, Relaxed);
    }
    tracing::warn!(
        subscription = format!("$share/{name}/{}", forced_name(filter)),
        requested = %gap.requested,
        first = %gap.first,
        "messages of a shared MQTT subscription were dropped from the store before a client came",
    );
}

fn give(group: &Group, work: &Arc<dyn Work>, task: Task, keeps_qos0: bool) {
    let Task { message, is_late, .. } = task;
    let Some(id) = message.id() else { return };
    if is_late && message.qos() == Qos::AtMostOnce && !keeps_qos0 {
        return work.finish(id.offset());
    }
    group.push_read(message, Ticket::of_work(work.clone(), id.offset()));
}

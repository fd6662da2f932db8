//! Shared subscriptions: sessions in the core's groups, and what waits there.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use broker_core::{Broker, Filter, SubscribeError, steady_ms};

use super::sessions::Hosted;
use crate::protocol::{Group, Remains, Shared, target_of};

/// Makes a session a member. Its SUBACK waits meanwhile, and deliveries with it, so that none comes before the session
/// knows its group.
pub(crate) fn join(
    broker: &Broker,
    shared: &Arc<Shared>,
    hosted: &Hosted,
    (name, filter): (&str, &Filter),
    tag: u32,
) -> Result<(), SubscribeError> {
    hosted.subscriber.join_group(name, filter, tag, &hosted.session.room())?;
    if let Some(members) = broker.group(name, filter)
        && !hosted.session.enter_group(tag, Group::of(&members, shared))
    {
        // A session that is over has nobody to subscribe for.
        leave(broker, shared, hosted, (name, filter), tag);
    }
    Ok(())
}

/// Ends a session's membership; false if there was none.
pub(crate) fn leave(
    broker: &Broker,
    shared: &Arc<Shared>,
    hosted: &Hosted,
    (name, filter): (&str, &Filter),
    tag: u32,
) -> bool {
    let members = broker.group(name, filter);
    let has_left = hosted.subscriber.leave_group(name, filter, tag);
    if let Some(members) = members.filter(|_| has_left) {
        Group::of(&members, shared).note_left();
    }
    has_left
}

/// Ends all that an ended session was a member of, and gives its undelivered messages to other members; without any
/// they are lost with their session.
pub(crate) fn end(broker: &Broker, shared: &Arc<Shared>, hosted: &Hosted, remains: &mut Remains) {
    for (subscription, tag) in std::mem::take(&mut remains.shared) {
        if let Some((name, filter)) = named(&subscription) {
            leave(broker, shared, hosted, (&name, &filter), tag);
        }
    }
    let mut by_subscription: HashMap<Box<str>, Vec<_>> = HashMap::new();
    for (subscription, orphan) in std::mem::take(&mut remains.orphans) {
        by_subscription.entry(subscription).or_default().push(orphan);
    }
    for (subscription, orphans) in by_subscription {
        match named(&subscription).and_then(|(name, filter)| broker.group(&name, &filter)) {
            Some(members) => Group::of(&members, shared).take_back(orphans, &steady_ms),
            None => _ = shared.groups.dropped.fetch_add(orphans.len() as u64, Ordering::Relaxed),
        }
    }
}

/// The group and filter of `$share/GROUP/FILTER`.
fn named(subscription: &str) -> Option<(Box<str>, Filter)> {
    let target = target_of(subscription)?;
    Some((target.group?, target.filter))
}

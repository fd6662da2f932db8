//! Shared subscriptions: sessions in the core's groups, and what waits there.

use std::collections::HashMap;
use std::sync::Arc;

use broker_core::{Filter, MessageId, SubscribeError, steady_ms};
use parking_lot::MutexGuard;

use super::group_work::{self, Named};
use super::keeping;
use super::kept_groups;
use super::sessions::Hosted;
use crate::front::Inner;
use crate::protocol::{Group, Remains, State, target_of};

/// Makes a session a member. Its SUBACK waits meanwhile, and deliveries with it, so that none comes before the session
/// knows its group.
pub(crate) fn join(
    inner: &Arc<Inner>,
    hosted: &Hosted,
    (name, filter): (&str, &Filter),
    tag: u32,
) -> Result<(), SubscribeError> {
    let kept = inner.kept_groups.enter(inner, hosted, (name, filter), tag);
    hosted.subscriber.join_group(name, filter, tag, &hosted.session.room()).inspect_err(|_| {
        if kept.as_ref().is_some_and(|(_, is_new)| *is_new) {
            inner.kept_groups.leave(hosted.session.key(), (name, filter));
        }
    })?;
    if let Some(members) = inner.broker.group(name, filter) {
        let group = Group::of(&members, &inner.shared);
        if let Some((kept, _)) = &kept {
            group.keep(kept.ledger.clone());
        }
        if !hosted.session.enter_group(tag, group) {
            // A session that is over has nobody to subscribe for.
            leave(inner, hosted, (name, filter), tag);
        }
    }
    if let Some((kept, _)) = &kept {
        kept_groups::read_if_behind(inner, kept);
    }
    Ok(())
}

/// Ends a session's membership; false if there was none.
pub(crate) fn leave(inner: &Inner, hosted: &Hosted, named: (&str, &Filter), tag: u32) -> bool {
    let has_left = step_out(inner, hosted, named, tag);
    inner.kept_groups.leave(hosted.session.key(), named);
    has_left
}

/// Takes a session whose client is away out of the lists; it stays a member.
pub(super) fn step_out(inner: &Inner, hosted: &Hosted, (name, filter): (&str, &Filter), tag: u32) -> bool {
    let members = inner.broker.group(name, filter);
    let has_left = hosted.subscriber.leave_group(name, filter, tag);
    if let Some(members) = members.filter(|_| has_left) {
        Group::of(&members, &inner.shared).note_left();
    }
    has_left
}

/// The client is back in its groups.
pub(super) async fn come_back(
    inner: Arc<Inner>,
    hosted: Arc<Hosted>,
    number: u32,
    groups: Vec<(Named, u32)>,
    behind: MessageId,
) {
    let turn = hosted.session.lock_as(number).and_then(|state| state.kept().map(|kept| kept.turn.clone()));
    let Some(turn) = turn else { return };
    let _turn = turn.lock().await;
    for (named, tag) in groups {
        let is_held =
            hosted.session.lock_as(number).is_some_and(|state| state.subscriptions.by_tag(tag).is_some());
        if is_held {
            keeping::give_up_on(&hosted, join(&inner, &hosted, (&named.0, &named.1), tag));
            group_work::go_on(&inner, &hosted, number, named, tag, behind);
        }
    }
}

/// What comes to its groups is for others, or is read when somebody is back.
pub(super) async fn step_out_of_all<'h>(
    inner: &Inner,
    hosted: &'h Hosted,
    gone: impl Fn() -> Option<MutexGuard<'h, State>>,
) {
    let shared: Vec<(Box<str>, u32)> = {
        let Some(state) = gone() else { return };
        let shared = state.subscriptions.iter().filter(|held| held.shared);
        shared.map(|held| (held.filter.clone(), held.tag)).collect()
    };
    let named = || shared.iter().map(|(name, tag)| (&**name, *tag));
    let worked = group_work::among(&inner.broker, named());
    if !worked.is_empty() {
        for ((name, filter), tag) in &worked {
            step_out(inner, hosted, (name, filter), *tag);
        }
        // What waited for it alone is for others.
        hosted.subscriber.heard().await;
        if let Some(mut state) = gone() {
            worked.iter().for_each(|(_, tag)| state.leave_group(*tag));
        }
        return;
    }
    let groups = inner.kept_groups.among(named());
    if groups.is_empty() {
        return;
    }
    inner.kept_groups.catch_up(inner, &groups).await;
    if gone().is_none() {
        return;
    }
    for (kept, tag) in &groups {
        let (name, filter) = kept.named();
        step_out(inner, hosted, (&name, &filter), *tag);
    }
    // What was on its way to it is passed on.
    hosted.subscriber.heard().await;
    let epoch = {
        let Some(mut state) = gone() else { return };
        groups.iter().for_each(|(_, tag)| state.leave_group(*tag));
        state.kept().map_or(0, |kept| kept.cursor().epoch())
    };
    inner.kept_groups.note_away(hosted, &groups, epoch);
    _ = inner.kept_groups.settled().await;
}

/// Ends all that an ended session was a member of, and gives its undelivered messages to other members; without any
/// they are lost with their session.
pub(crate) fn end(inner: &Inner, hosted: &Hosted, remains: &mut Remains) {
    for (subscription, tag) in std::mem::take(&mut remains.shared) {
        if let Some((name, filter)) = named(&subscription) {
            leave(inner, hosted, (&name, &filter), tag);
        }
    }
    let mut by_subscription: HashMap<Box<str>, Vec<_>> = HashMap::new();
    for (subscription, orphan) in std::mem::take(&mut remains.orphans) {
        by_subscription.entry(subscription).or_default().push(orphan);
    }
    for (subscription, orphans) in by_subscription {
        match named(&subscription).and_then(|(name, filter)| inner.broker.group(&name, &filter)) {
            Some(members) => Group::of(&members, &inner.shared).take_back(orphans, &steady_ms),
            None => orphans.iter().for_each(|orphan| orphan.lose(&inner.shared.groups)),
        }
    }
}

/// The group and filter of `$share/GROUP/FILTER`.
fn named(subscription: &str) -> Option<(Box<str>, Filter)> {
    let target = target_of(subscription)?;
    Some((target.group?, target.filter))
}

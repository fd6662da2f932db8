//! The shared subscriptions of all sessions.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use broker_core::{Room, steady_ms};
use dashmap::DashMap;

use crate::protocol::{Group, Member, Remains, Session, Shared};

/// By `$share/GROUP/FILTER`.
#[derive(Default)]
pub(crate) struct Groups(DashMap<Box<str>, Arc<Group>>);

impl Groups {
    /// Makes the session a member, before the broker gives it messages. What publishers look at when they choose one;
    /// `None` if the session is over.
    pub(crate) fn join(
        &self,
        filter: &str,
        tag: u32,
        session: &Session,
        shared: &Arc<Shared>,
    ) -> Option<Arc<Room>> {
        let member = session.member();
        let group = {
            let group = self.0.entry(filter.into()).or_insert_with(|| Arc::new(Group::new(shared.clone())));
            group.join(&member);
            group.clone()
        };
        if !session.enter_group(tag, group) {
            self.leave(filter, &member);
            return None;
        }
        Some(member.room.clone())
    }

    pub(crate) fn leave(&self, filter: &str, member: &Arc<Member>) {
        self.0.remove_if(filter, |_, group| group.leave(member));
    }

    /// Gives the undelivered messages of an ended session to other members; without any they are lost with their session.
    pub(crate) fn redispatch(&self, remains: &mut Remains, shared: &Shared) {
        let mut by_filter: HashMap<Box<str>, Vec<_>> = HashMap::new();
        for (filter, orphan) in std::mem::take(&mut remains.orphans) {
            by_filter.entry(filter).or_default().push(orphan);
        }
        for (filter, orphans) in by_filter {
            match self.0.get(&filter).map(|group| group.clone()) {
                Some(group) => group.take_back(orphans, &steady_ms),
                None => _ = shared.groups.dropped.fetch_add(orphans.len() as u64, Ordering::Relaxed),
            }
        }
    }
}

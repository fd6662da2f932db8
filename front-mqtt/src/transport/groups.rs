//! Who is in which shared subscription, so that what one member leaves undelivered finds another.

use std::sync::{Arc, Weak};

use broker_core::unix_ms;
use dashmap::DashMap;

use super::Hosted;
use crate::protocol::Remains;

/// Members by `$share/GROUP/FILTER`.
#[derive(Default)]
pub(crate) struct Groups(DashMap<Box<str>, Vec<Weak<Hosted>>>);

impl Groups {
    pub(crate) fn join(&self, filter: &str, member: &Arc<Hosted>) {
        let mut members = self.0.entry(filter.into()).or_default();
        let member = Arc::downgrade(member);
        if !members.iter().any(|known| known.ptr_eq(&member)) {
            members.push(member);
        }
    }

    pub(crate) fn leave(&self, filter: &str, member: &Hosted) {
        let member: *const Hosted = member;
        self.0.remove_if_mut(filter, |_, members| {
            members.retain(|known| known.as_ptr() != member && known.strong_count() > 0);
            members.is_empty()
        });
    }

    /// Gives the undelivered messages of an ended session to other members, connected ones first; a message
    /// without another member is lost with its session.
    pub(crate) fn redispatch(&self, remains: &mut Remains) {
        for (filter, mut orphan) in std::mem::take(&mut remains.orphans) {
            let mut members: Vec<_> = self
                .0
                .get(&filter)
                .into_iter()
                .flat_map(|members| members.clone())
                .filter_map(|one| one.upgrade())
                .collect();
            members.sort_by_key(|member| !member.session.is_online());
            for member in members {
                match member.session.adopt(unix_ms(), &filter, orphan) {
                    Ok(()) => break,
                    Err(back) => orphan = back,
                }
            }
        }
    }
}

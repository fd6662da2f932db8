//! Who is subscribed to one channel or one pattern, grouped by lane.

use std::sync::Arc;

use smallvec::SmallVec;

use super::group::Group;
use crate::key::{Entry, SubscriberKey};

/// The subscriptions of one lane. A fan-out holds a snapshot; edits copy it only then.
pub(crate) type LaneList = Arc<Vec<Entry>>;

/// The lists that one message hits, per lane.
pub(crate) type Hits = SmallVec<[(u16, LaneList); 24]>;

/// All subscriptions of one channel or pattern.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    lanes: SmallVec<[(u16, LaneList); 1]>,
    /// Boxed: most lists have none, and a trie node holds several lists.
    groups: Option<Box<Groups>>,
}

type Groups = Vec<(Box<str>, Arc<Group>)>;

impl Lists {
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.groups.is_none()
    }

    /// Subscriptions here; a group counts once.
    pub(crate) fn len(&self) -> usize {
        self.lanes.iter().map(|(_, list)| list.len()).sum::<usize>()
            + self.groups.as_ref().map_or(0, |groups| groups.len())
    }

    /// Adds an entry. The subscriber knows that it is new: looking for it here would cost every subscribe a scan.
    pub(crate) fn insert(&mut self, key: SubscriberKey, tag: u32) {
        match self.lanes.iter_mut().find(|(lane, _)| *lane == key.lane) {
            Some((_, list)) => Arc::make_mut(list).push(key.entry(tag)),
            None => self.lanes.push((key.lane, Arc::new(vec![key.entry(tag)]))),
        }
    }

    /// False if it was not there.
    pub(crate) fn remove(&mut self, key: SubscriberKey, tag: u32) -> bool {
        let entry = key.entry(tag);
        let Some(lane) = self.lanes.iter().position(|(lane, _)| *lane == key.lane) else { return false };
        let (_, list) = &mut self.lanes[lane];
        let Some(at) = list.iter().position(|known| *known == entry) else { return false };
        if list.len() == 1 {
            self.lanes.swap_remove(lane);
            return true;
        }
        let list = Arc::make_mut(list);
        list.swap_remove(at);
        if list.capacity() > 16 && list.len() * 4 < list.capacity() {
            list.shrink_to(list.len() * 2);
        }
        true
    }

    /// The group of this name, made if it is new.
    pub(crate) fn group(&mut self, name: &str) -> &Arc<Group> {
        let groups = self.groups.get_or_insert_default();
        let at = match groups.iter().position(|(known, _)| &**known == name) {
            Some(at) => at,
            None => {
                groups.push((name.into(), Arc::default()));
                groups.len() - 1
            }
        };
        &groups[at].1
    }

    /// The group of this name, if it has members.
    pub(crate) fn known_group(&self, name: &str) -> Option<&Arc<Group>> {
        self.groups
            .iter()
            .flat_map(|groups| groups.iter())
            .find(|(known, _)| &**known == name)
            .map(|(_, group)| group)
    }

    /// False if it was not a member. A group without members goes.
    pub(crate) fn leave(&mut self, name: &str, key: SubscriberKey, tag: u32) -> bool {
        let Some(groups) = &mut self.groups else { return false };
        let Some(at) = groups.iter().position(|(known, _)| &**known == name) else { return false };
        let left = groups[at].1.leave(key, tag);
        if groups[at].1.is_empty() {
            groups.swap_remove(at);
        }
        self.groups.take_if(|groups| groups.is_empty());
        left
    }

    /// Adds everybody who is subscribed here, each member of a group too.
    pub(crate) fn collect_everybody(&self, hits: &mut Hits) {
        hits.extend(self.lanes.iter().map(|(lane, list)| (*lane, Arc::clone(list))));
        for (_, group) in self.groups.iter().flat_map(|groups| groups.iter()) {
            group.collect_everybody(hits);
        }
    }

    /// As [`collect`](Self::collect), without a member of each group.
    pub(crate) fn collect_ungrouped(&self, hits: &mut Hits) -> u64 {
        hits.extend(self.lanes.iter().map(|(lane, list)| (*lane, Arc::clone(list))));
        self.lanes.iter().map(|(_, list)| list.len() as u64).sum()
    }

    /// Adds what a message on here hits; the number of subscriptions.
    pub(crate) fn collect(&self, hits: &mut Hits) -> u64 {
        let mut count = 0;
        for (lane, list) in &self.lanes {
            count += list.len() as u64;
            hits.push((*lane, Arc::clone(list)));
        }
        for (_, group) in self.groups.iter().flat_map(|groups| groups.iter()) {
            if let Some((lane, list)) = group.choose() {
                count += 1;
                hits.push((lane, list));
            }
        }
        count
    }
}

//! Who is subscribed to one channel or one pattern, grouped by lane.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::RwLock;
use smallvec::SmallVec;

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

    /// False if it was not a member. A group without members goes.
    pub(crate) fn leave(&mut self, name: &str, key: SubscriberKey, tag: u32) -> bool {
        let Some(groups) = &mut self.groups else { return false };
        let Some(at) = groups.iter().position(|(known, _)| &**known == name) else { return false };
        let left = groups[at].1.leave(key, tag);
        if groups[at].1.members.read().is_empty() {
            groups.swap_remove(at);
        }
        self.groups.take_if(|groups| groups.is_empty());
        left
    }

    /// Adds everybody who is subscribed here, each member of a group too.
    pub(crate) fn collect_everybody(&self, hits: &mut Hits) {
        hits.extend(self.lanes.iter().map(|(lane, list)| (*lane, Arc::clone(list))));
        for (_, group) in self.groups.iter().flat_map(|groups| groups.iter()) {
            let members = group.members.read();
            hits.extend(members.iter().map(|member| (member.key.lane, Arc::clone(&member.list))));
        }
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

/// Whether a member of groups takes more, as it says itself: members that do not are passed over while others do. Open at
/// first. The member must bear a message all the same: one may be on its way, or no member has room.
#[derive(Debug)]
pub struct Room(AtomicBool);

impl Default for Room {
    fn default() -> Self {
        Self(AtomicBool::new(true))
    }
}

impl Room {
    /// There is room.
    pub fn open(&self) {
        self.change(true);
    }

    /// There is none.
    pub fn shut(&self) {
        self.change(false);
    }

    // In one order with what members tell each other besides, so that none of them overlooks the other's last word.
    fn change(&self, open: bool) {
        if self.is_open() != open {
            self.0.store(open, Ordering::SeqCst);
        }
    }

    /// Whether there is room.
    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Members of a group that are asked whether they have room, for one message.
const MAX_ASKED: usize = 64;

/// Subscribers that share the messages of one filter: each message goes to one of them (MQTT 5.0 §4.8.2).
#[derive(Debug, Default)]
pub(crate) struct Group {
    next: AtomicUsize,
    members: RwLock<Vec<Member>>,
}

#[derive(Debug)]
struct Member {
    key: SubscriberKey,
    tag: u32,
    online: bool,
    room: Arc<Room>,
    /// The list of this one entry, ready to be put on a job.
    list: LaneList,
}

impl Group {
    /// False if it was a member already.
    pub(crate) fn join(&self, key: SubscriberKey, tag: u32, room: &Arc<Room>) -> bool {
        let mut members = self.members.write();
        if members.iter().any(|member| member.key == key && member.tag == tag) {
            return false;
        }
        let (room, list) = (Arc::clone(room), Arc::new(vec![key.entry(tag)]));
        members.push(Member { key, tag, online: true, room, list });
        true
    }

    fn leave(&self, key: SubscriberKey, tag: u32) -> bool {
        let mut members = self.members.write();
        let before = members.len();
        members.retain(|member| member.key != key || member.tag != tag);
        members.len() < before
    }

    /// Marks a member as connected or not; offline members are passed over while an online one exists.
    pub(crate) fn set_online(&self, key: SubscriberKey, online: bool) {
        for member in self.members.write().iter_mut().filter(|member| member.key == key) {
            member.online = online;
        }
    }

    /// Round robin over the online members that have room; over the online ones if none has, over all if none is online.
    fn choose(&self) -> Option<(u16, LaneList)> {
        let members = self.members.read();
        let start = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(members.len())?;
        let (before, after) = members.split_at(start);
        let in_turn = || after.iter().chain(before);
        let member = in_turn()
            .take(MAX_ASKED)
            .find(|member| member.online && member.room.is_open())
            .or_else(|| in_turn().find(|member| member.online))
            .or_else(|| in_turn().next())?;
        Some((member.key.lane, Arc::clone(&member.list)))
    }

    /// Whether another member than `key` is online.
    pub(crate) fn has_other_online(&self, key: SubscriberKey) -> bool {
        self.members.read().iter().any(|member| member.online && member.key != key)
    }
}

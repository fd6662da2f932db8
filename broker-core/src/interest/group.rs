//! Subscribers that share the messages of one filter: who they are, which of them gets a message, and who is told that
//! one waits.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use super::lists::{Hits, LaneList};
use crate::key::SubscriberKey;
use crate::outbox::Outbox;

/// What a member shows to the groups that it is in, the same for all of them: whether it takes more, and where it is
/// reached.
///
/// Members without room are passed over while others have some. A member must bear a message all the same: one may be
/// on its way, or none has room. Open at first.
#[derive(Debug)]
pub struct Room {
    is_open: AtomicBool,
    is_wanted: AtomicBool,
    outbox: Mutex<Option<Arc<Outbox>>>,
}

impl Default for Room {
    fn default() -> Self {
        Self { is_open: AtomicBool::new(true), is_wanted: AtomicBool::new(false), outbox: Mutex::default() }
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
            self.is_open.store(open, Ordering::SeqCst);
        }
    }

    /// Whether there is room.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::SeqCst)
    }

    /// The member has a connection, whose task is woken through this outbox when something waits for the member. It is
    /// to look whether something waits already.
    pub fn connect(&self, outbox: &Arc<Outbox>) {
        *self.outbox.lock() = Some(Arc::clone(outbox));
        self.want();
    }

    /// It has none any more, and takes nothing.
    pub fn disconnect(&self) {
        self.shut();
        *self.outbox.lock() = None;
    }

    /// Something may wait in one of its groups.
    pub fn want(&self) {
        self.is_wanted.store(true, Ordering::SeqCst);
    }

    /// Whether something may wait in one of its groups.
    pub fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::SeqCst)
    }

    /// As [`is_wanted`](Self::is_wanted), and from here on not before it is said again.
    pub fn take_wanted(&self) -> bool {
        self.is_wanted.swap(false, Ordering::SeqCst)
    }

    /// Wakes the member's connection; false if there is none.
    fn wake(&self) -> bool {
        let outbox = self.outbox.lock();
        outbox.as_ref().inspect(|outbox| outbox.notify()).is_some()
    }
}

/// Members of a group that are asked whether they have room, for one message.
const MAX_ASKED: usize = 64;

/// Subscribers that share the messages of one filter: each message goes to one of them (MQTT 5.0 §4.8.2). It lives
/// while it has members, and is found by its name and filter with [`Broker::group`](crate::Broker::group).
///
/// What no member has room for is its front's: that keeps it where all members find it, [`Group::attached`].
#[derive(Default)]
pub struct Group {
    next: AtomicUsize,
    next_woken: AtomicUsize,
    members: RwLock<Vec<Member>>,
    /// What fronts keep here, each its own.
    attached: Mutex<Vec<Attached>>,
}

type Attached = Arc<dyn Any + Send + Sync>;

/// One member of a group, as it was when it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupMember {
    /// Who it is.
    pub key: SubscriberKey,
    /// Its number for the subscription.
    pub tag: u32,
    /// Whether its client is connected.
    pub is_online: bool,
    /// Whether it takes more.
    pub has_room: bool,
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
        // Something may wait in the group that it joins.
        room.want();
        let (room, list) = (Arc::clone(room), Arc::new(vec![key.entry(tag)]));
        members.push(Member { key, tag, online: true, room, list });
        true
    }

    pub(super) fn leave(&self, key: SubscriberKey, tag: u32) -> bool {
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

    /// Round robin over the online members that have room; over the online ones if none has, over all if none is
    /// online.
    pub(crate) fn choose(&self) -> Option<(u16, LaneList)> {
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

    /// Adds every member.
    pub(super) fn collect_everybody(&self, hits: &mut Hits) {
        let members = self.members.read();
        hits.extend(members.iter().map(|member| (member.key.lane, Arc::clone(&member.list))));
    }

    /// Whether it has no members any more. It never has any again: who joins by its name makes another one.
    pub fn is_empty(&self) -> bool {
        self.members.read().is_empty()
    }

    /// Who is in it, in the order of joining.
    pub fn members(&self) -> Vec<GroupMember> {
        let shown = |member: &Member| GroupMember {
            key: member.key,
            tag: member.tag,
            is_online: member.online,
            has_room: member.room.is_open(),
        };
        self.members.read().iter().map(shown).collect()
    }

    /// What a front keeps with the group, by its type: made by `make` for the first who asks, and kept as long as the
    /// group. `make` must not ask the group for anything.
    pub fn attached<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> Arc<T>) -> Arc<T> {
        let mut attached = self.attached.lock();
        if let Some(known) = attached.iter().find_map(|known| Arc::clone(known).downcast().ok()) {
            return known;
        }
        let new = make();
        attached.push(Arc::clone(&new) as Attached);
        new
    }

    /// Tells every member that something may wait, and wakes one that has room.
    pub fn call(&self) {
        for member in &*self.members.read() {
            member.room.want();
        }
        self.wake_one();
    }

    /// Has a member with room look whether something waits, each in turn.
    pub fn wake_one(&self) {
        let mut from = self.next_woken.load(Ordering::Relaxed);
        let count = self.members.read().len();
        // One that has gone meanwhile is passed over; more have not gone than there were.
        for _ in 0..count {
            let Some((at, room)) = self.with_room(from) else { return };
            from = at + 1;
            if room.wake() {
                return self.next_woken.store(from, Ordering::Relaxed);
            }
        }
    }

    /// The first member with room from a place on, and its place. It is woken once the members are not locked any more:
    /// publishers look at them.
    fn with_room(&self, from: usize) -> Option<(usize, Arc<Room>)> {
        let members = self.members.read();
        let start = from.checked_rem(members.len())?;
        let mut in_turn = (start..members.len()).chain(0..start);
        in_turn.find_map(|at| {
            let member = members.get(at).filter(|member| member.room.is_open())?;
            Some((at, Arc::clone(&member.room)))
        })
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("members", &self.members.read()).finish_non_exhaustive()
    }
}

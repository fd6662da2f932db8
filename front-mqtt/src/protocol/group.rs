//! A shared subscription as its members see it: each of its messages waits for the first of them that has room.
//!
//! ```text
//! lane ─▶ a member with room ─▶ its client
//!          │ no room                ▲
//!          ▼                        │ as soon as one has room
//!         Group: one queue for all members
//! ```
//!
//! Who the members are, and which of them a message goes to, the core knows ([`broker_core::Group`]); here is what
//! waits. Members know each other only by this: no session is locked while another one is.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use broker_core::{Message, Outbox, Qos, Room};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::delivering::{BACKLOG_TURN, Backlog, one_id};
use super::ledger::{Arrival, Ledger};
use super::outbound::Outgoing;
use super::queue::{Bounds, Clock, Queue};
use super::session::{Shared, State};
use super::ticket::Ticket;
use super::wire::Wire;
use crate::config::Config;

/// What waits for the members of one `$share/GROUP/FILTER`; it is attached to their group in the core.
///
/// While something waits, no member has room, or one that has was woken and will take it: who puts the first message
/// into an empty queue wakes one, and who stops taking while something is left wakes the next.
pub(crate) struct Group {
    shared: Arc<Shared>,
    members: Weak<broker_core::Group>,
    waiting: Mutex<Waiting>,
    /// As many as wait, to be looked at without a lock, and one more while the log is read for them.
    len: AtomicUsize,
    /// Where it stands in the log of an engine, if its messages are kept.
    ledger: OnceLock<Arc<Ledger>>,
    /// There may be room: nothing waits any more, or a member takes something again.
    room: Notify,
}

/// What the members of a group would take of its work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Credit {
    /// One message each, of so many members.
    Of(usize),
    /// Nothing before [`Group::until_room`].
    No,
    /// All clients are away.
    Away,
    /// Nobody is left.
    Over,
}

#[derive(Default)]
struct Waiting {
    queue: Queue,
    /// What has come while the log is read, which is older.
    later: Queue,
    is_reading: bool,
    /// Nobody is left to take anything.
    closed: bool,
    /// When it was last logged that the queue is full, in milliseconds since 1970.
    logged_ms: u64,
}

/// What all groups of a front hold and have lost.
#[derive(Default)]
pub(crate) struct GroupCounters {
    pub(crate) messages: AtomicUsize,
    pub(crate) bytes: AtomicUsize,
    pub(crate) dropped: AtomicU64,
}

impl Outgoing {
    /// Nobody is left to take a message of a group: it is read again when somebody comes, or lost.
    pub(crate) fn lose(&self, counters: &GroupCounters) {
        match &self.ticket {
            Some(ticket) => ticket.let_go(),
            None => _ = counters.dropped.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// How often a full queue is logged.
const LOG_EVERY_MS: u64 = 60_000;

impl Group {
    /// That of these members, made with the first look at it.
    pub(crate) fn of(members: &Arc<broker_core::Group>, shared: &Arc<Shared>) -> Arc<Self> {
        members.attached(|| {
            Arc::new(Self {
                shared: shared.clone(),
                members: Arc::downgrade(members),
                waiting: Mutex::default(),
                len: AtomicUsize::new(0),
                ledger: OnceLock::new(),
                room: Notify::new(),
            })
        })
    }

    /// A member has left. If nobody is left, what waits is lost, as with the last session that would have got it; else
    /// somebody is to look at it whom the one that left may have been woken for.
    pub(crate) fn note_left(&self) {
        if self.members.upgrade().is_none_or(|members| members.is_empty()) {
            if let Some(ledger) = self.ledger.get() {
                ledger.close();
            }
            let waited = self.change(|waiting| {
                waiting.closed = true;
                [std::mem::take(&mut waiting.queue), std::mem::take(&mut waiting.later)]
            });
            for message in waited.into_iter().flat_map(Queue::into_messages) {
                self.lose(&message);
            }
        } else if !self.is_empty() {
            self.wake_one();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::Relaxed) == 0
    }

    /// A message for which the member that was chosen has no room.
    pub(crate) fn push(&self, message: Outgoing, clock: Clock<'_>) {
        self.change_and_wake(|waiting| self.add(waiting, message, clock, At::Back));
    }

    /// A message that was on its way to a member when its subscription ended, or its session.
    pub(super) fn push_stray(&self, message: &Arc<Message>, clock: Clock<'_>) {
        let outgoing = Outgoing {
            message: message.clone(),
            qos: message.qos(),
            retain: false,
            ids: Box::default(),
            shared: None,
            from_store: false,
            ticket: None,
        };
        if let Some(outgoing) = self.take_in(outgoing) {
            self.push(outgoing, clock);
        }
    }

    /// Whose messages an engine keeps, from here on.
    pub(crate) fn keep(&self, ledger: Arc<Ledger>) {
        _ = self.ledger.set(ledger);
    }

    /// A message that its lane has brought; `None` if it comes by another way.
    pub(super) fn take_in(&self, mut message: Outgoing) -> Option<Outgoing> {
        if let Some(ledger) = self.ledger.get() {
            match ledger.arrive(&message.message) {
                Arrival::Known => return None,
                Arrival::New(ticket) => message.ticket = Some(ticket),
                Arrival::Elsewhere => {}
            }
        }
        Some(message)
    }

    fn lose(&self, message: &Outgoing) {
        message.lose(&self.shared.groups);
    }

    /// What comes from here on waits behind what is read. False if nobody is left.
    pub(crate) fn begin_reading(&self) -> bool {
        self.change(|waiting| {
            waiting.is_reading = !waiting.closed;
            waiting.is_reading
        })
    }

    /// Whether there is room for what was read; `None`: nobody is left.
    pub(crate) fn has_room_for_read(&self) -> Option<bool> {
        let waiting = self.waiting.lock();
        (!waiting.closed).then(|| waiting.queue.len() < MAX_READ_AHEAD)
    }

    /// What its members would take now.
    pub(crate) fn credit(&self) -> Credit {
        let has_waiting = {
            let waiting = self.waiting.lock();
            if waiting.closed {
                return Credit::Over;
            }
            !waiting.queue.is_empty()
        };
        let Some(members) = self.members.upgrade().map(|members| members.members()) else {
            return Credit::Over;
        };
        let online = || members.iter().filter(|member| member.is_online);
        match online().filter(|member| member.has_room).count() {
            _ if online().next().is_none() => Credit::Away,
            0 => Credit::No,
            _ if has_waiting => Credit::No,
            count => Credit::Of(count),
        }
    }

    /// Resolves when there may be room.
    pub(crate) async fn until_room(&self) {
        self.room.notified().await;
    }

    /// What waits and may be others' is let go of.
    pub(crate) fn let_go_of_waiting(&self) {
        let waited = self.change(|waiting| {
            let waited = std::mem::take(&mut waiting.queue).into_messages().collect::<Vec<_>>();
            let (others, own): (Vec<_>, Vec<_>) =
                waited.into_iter().partition(|message| message.ticket.is_some());
            own.into_iter().for_each(|message| waiting.queue.push_back(message));
            others
        });
        waited.iter().for_each(|message| self.lose(message));
    }

    /// A message that was read.
    pub(crate) fn push_read(&self, message: Arc<Message>, ticket: Arc<Ticket>) {
        let qos = message.qos();
        let outgoing = Outgoing {
            message,
            qos,
            retain: false,
            ids: Box::default(),
            shared: None,
            from_store: false,
            ticket: Some(ticket),
        };
        self.change_and_wake(|waiting| match waiting.closed {
            true => self.lose(&outgoing),
            false => waiting.queue.push_back(outgoing),
        });
    }

    /// What has come meanwhile follows.
    pub(crate) fn end_reading(&self) {
        self.change_and_wake(|waiting| {
            waiting.is_reading = false;
            for message in std::mem::take(&mut waiting.later).into_messages() {
                waiting.queue.push_back(message);
            }
        });
    }

    /// Messages that a member leaves behind, oldest first: they are older than all that wait.
    pub(crate) fn take_back(&self, messages: Vec<Outgoing>, clock: Clock<'_>) {
        self.change_and_wake(|waiting| {
            for message in messages.into_iter().rev() {
                self.add(waiting, message, clock, At::Front);
            }
        });
    }

    fn add(&self, waiting: &mut Waiting, message: Outgoing, clock: Clock<'_>, end: At) {
        let config = &self.shared.config;
        let bounds =
            Bounds { messages: config.max_group_queued_messages, bytes: config.max_group_queued_bytes };
        let weight = message.weight();
        let queue =
            if waiting.is_reading && end == At::Back { &mut waiting.later } else { &mut waiting.queue };
        let in_all = || self.shared.groups.bytes.load(Ordering::Relaxed);
        if !waiting.closed
            && queue.has_place(weight, bounds, clock)
            && in_all() + weight <= config.max_groups_queued_bytes
        {
            match end {
                At::Back => queue.push_back(message),
                At::Front => queue.push_front(message),
            }
            return;
        }
        match &message.ticket {
            // It is read again when there is room.
            Some(ticket) if !waiting.closed => return ticket.refuse(),
            _ => self.lose(&message),
        }
        if !waiting.closed {
            self.note_full(waiting, clock);
        }
    }

    /// Changes what waits; if that was nothing before, a member with room is woken for it.
    fn change_and_wake(&self, change: impl FnOnce(&mut Waiting)) {
        let is_first = self.change(|waiting| {
            let was_empty = waiting.queue.is_empty();
            change(waiting);
            was_empty && !waiting.queue.is_empty()
        });
        if is_first && let Some(members) = self.members.upgrade() {
            members.call();
        }
    }

    fn note_full(&self, waiting: &mut Waiting, clock: Clock<'_>) {
        let now_ms = clock();
        if now_ms.saturating_sub(waiting.logged_ms) >= LOG_EVERY_MS {
            waiting.logged_ms = now_ms;
            tracing::warn!(
                messages = waiting.queue.len(),
                bytes = waiting.queue.counted_bytes(),
                "no member of a shared subscription has room, and its queue is full: the newest messages are dropped",
            );
        }
    }

    /// The oldest that waits.
    fn pop(&self, clock: Clock<'_>) -> Option<Outgoing> {
        if self.is_empty() { None } else { self.change(|waiting| waiting.queue.pop(clock())) }
    }

    /// Has a member with room look here.
    fn wake_one(&self) {
        if let Some(members) = self.members.upgrade() {
            members.wake_one();
        }
    }

    /// Changes what waits, and the sums with it.
    fn change<T>(&self, change: impl FnOnce(&mut Waiting) -> T) -> T {
        let sums = &self.shared.groups;
        let mut waiting = self.waiting.lock();
        let (messages, bytes) = waiting.sums();
        let result = change(&mut waiting);
        let (messages_now, bytes_now) = waiting.sums();
        // Wrapping, so that one addition does for both directions.
        sums.messages.fetch_add(messages_now.wrapping_sub(messages), Ordering::Relaxed);
        sums.bytes.fetch_add(bytes_now.wrapping_sub(bytes), Ordering::Relaxed);
        self.len.store(messages_now + usize::from(waiting.is_reading), Ordering::Relaxed);
        if messages > 0 && messages_now == 0 {
            self.room.notify_one();
        }
        result
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.change(|waiting| *waiting = Waiting::default());
    }
}

/// Where a message is put.
#[derive(Clone, Copy, Eq, PartialEq)]
enum At {
    Front,
    Back,
}

/// The log is read no further while so many of its messages wait.
const MAX_READ_AHEAD: usize = 256;

impl Waiting {
    fn sums(&self) -> (usize, usize) {
        let queues = [&self.queue, &self.later];
        let bytes = queues.iter().map(|queue| queue.counted_bytes()).sum();
        (queues.iter().map(|queue| queue.len()).sum(), bytes)
    }
}

/// A session's part in its groups.
#[derive(Default)]
pub(crate) struct Membership {
    /// What it shows to all of them; the same for as long as there is the session.
    room: Arc<Room>,
    /// Sorted by the tags of its subscriptions.
    groups: Vec<(u32, Arc<Group>)>,
    /// The groups it has left: messages may still be on their way to it.
    left: VecDeque<(u32, Arc<Group>)>,
    /// Where the next look for something that waits begins.
    next: usize,
    /// The outbox was too full to take more: the connection's task looks again.
    pub(super) is_crowded: bool,
}

impl Membership {
    pub(super) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    pub(super) fn group(&self, tag: u32) -> Option<&Arc<Group>> {
        let at = self.groups.binary_search_by_key(&tag, |(known, _)| *known).ok()?;
        self.groups.get(at).map(|(_, group)| group)
    }

    pub(super) fn enter(&mut self, tag: u32, group: Arc<Group>) {
        match self.groups.binary_search_by_key(&tag, |(known, _)| *known) {
            Err(at) => self.groups.insert(at, (tag, group)),
            // Its client was away, and everybody's was.
            Ok(at) => match self.groups.get_mut(at) {
                Some((_, known)) if !Arc::ptr_eq(known, &group) => *known = group,
                _ => return,
            },
        }
        // What its room was told of it before it was here was told too early.
        self.room.want();
    }

    fn leave(&mut self, tag: u32) {
        let Ok(at) = self.groups.binary_search_by_key(&tag, |(known, _)| *known) else { return };
        self.left.push_back(self.groups.remove(at));
        if self.left.len() > MAX_LEFT {
            self.left.pop_front();
        }
    }

    /// The group of a subscription that is over.
    pub(super) fn left(&self, tag: u32) -> Option<&Arc<Group>> {
        self.left.iter().find(|(known, _)| *known == tag).map(|(_, group)| group)
    }

    /// Where others reach the session's connection.
    pub(super) fn connect(&mut self, outbox: &Arc<Outbox>) {
        self.room.connect(outbox);
    }

    /// There is no connection any more, so the session takes nothing: what waits is for others.
    pub(super) fn disconnect(&mut self) {
        self.is_crowded = false;
        self.room.disconnect();
        self.pass_on();
    }

    /// The session is over. What is on its way to it still comes, and goes back.
    pub(super) fn end(&mut self) {
        self.disconnect();
        self.left.extend(std::mem::take(&mut self.groups));
    }

    /// Wakes somebody else for what waits.
    fn pass_on(&self) {
        if self.room.is_wanted() {
            for (_, group) in self.groups.iter().filter(|(_, group)| !group.is_empty()) {
                group.wake_one();
            }
        }
    }

    /// There is room: the oldest message that waits in one of the groups, each in turn, and the subscription's tag.
    fn take(&mut self, clock: Clock<'_>) -> Option<(u32, Outgoing)> {
        if !self.room.take_wanted() {
            return None;
        }
        let from = self.next.checked_rem(self.groups.len())?;
        for at in (from..self.groups.len()).chain(0..from) {
            if let Some((tag, group)) = self.groups.get(at)
                && let Some(message) = group.pop(clock)
            {
                self.next = at + 1;
                // There may be more.
                self.room.want();
                return Some((*tag, message));
            }
        }
        None
    }
}

/// How many groups that were left are remembered; what is on its way to them takes a moment only.
const MAX_LEFT: usize = 16;

/// Whether a session takes messages of its groups.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Takes {
    Yes,
    /// Not before its client has acknowledged something, or is back.
    No,
    /// Not before its client has read something.
    NotYet,
}

impl State {
    /// A message of a shared subscription, for this member. It starts at once or waits for the first one that has room.
    pub(super) fn deliver_shared(
        &mut self,
        config: &Config,
        outgoing: Outgoing,
        clock: Clock<'_>,
        wire: &mut impl Wire,
    ) {
        let membership = self.membership.as_ref().zip(outgoing.shared);
        let group = membership.and_then(|(membership, tag)| membership.group(tag));
        let (group, outgoing) = match group {
            None => (None, outgoing),
            Some(group) => match group.take_in(outgoing) {
                Some(outgoing) => (Some(group), outgoing),
                None => return,
            },
        };
        let Some(group) = group.filter(|group| !group.is_empty() || self.takes_shared(config) != Takes::Yes)
        else {
            return self.emit(config, outgoing, clock, wire);
        };
        if outgoing.qos == Qos::AtMostOnce && self.online.is_none() && !config.queue_qos0_offline {
            return;
        }
        group.push(outgoing, clock);
    }

    /// Something has changed: tells the groups whether there is room, and takes what waits in them as far as there is,
    /// one turn's worth at most.
    pub(super) fn balance(&mut self, config: &Config, clock: Clock<'_>, wire: &mut impl Wire) -> Backlog {
        let Some(mut membership) = self.membership.take() else { return Backlog::Empty };
        let left = self.balance_with(&mut membership, config, clock, wire);
        self.membership = Some(membership);
        left
    }

    fn balance_with(
        &mut self,
        membership: &mut Membership,
        config: &Config,
        clock: Clock<'_>,
        wire: &mut impl Wire,
    ) -> Backlog {
        let Some(outbox) = self.online.as_ref().map(|online| online.outbox.clone()) else {
            return Backlog::Empty;
        };
        for _ in 0..BACKLOG_TURN {
            match self.takes_shared(config) {
                Takes::Yes => {
                    membership.is_crowded = false;
                    if !membership.room.is_open() {
                        membership.room.open();
                        membership.groups.iter().for_each(|(_, group)| group.room.notify_one());
                    }
                }
                takes => {
                    let was_open = membership.room.is_open();
                    membership.room.shut();
                    if was_open {
                        membership.pass_on();
                    }
                    if takes == Takes::NotYet && !membership.is_crowded {
                        membership.is_crowded = true;
                        outbox.notify();
                    }
                    return if takes == Takes::NotYet { Backlog::NoRoom } else { Backlog::Empty };
                }
            }
            let Some((tag, message)) = membership.take(clock) else { return Backlog::Empty };
            self.take_over(config, tag, message, clock, wire);
        }
        outbox.notify();
        Backlog::More
    }

    /// The connection's task has a turn, perhaps because something waits for this member.
    pub(super) fn handle_wanted(
        &mut self,
        config: &Config,
        clock: Clock<'_>,
        wire: &mut impl Wire,
    ) -> Backlog {
        let left = self.balance(config, clock, wire);
        if let Some(membership) = &self.membership
            && !membership.room.is_open()
        {
            // Whoever woke it thought that it had room.
            membership.pass_on();
        }
        left
    }

    /// A message that waited for any member goes to this one.
    fn take_over(
        &mut self,
        config: &Config,
        tag: u32,
        waited: Outgoing,
        clock: Clock<'_>,
        wire: &mut impl Wire,
    ) {
        let Outgoing { message, ticket, .. } = waited;
        // The lane has judged for the member that was chosen first. Which one takes the message is found out here.
        let may_see = self.principal.as_ref().is_none_or(|principal| principal.may_see(message.channel()));
        let Some(subscription) = self.subscriptions.by_tag(tag).filter(|_| may_see) else {
            self.dropped += 1;
            return;
        };
        let outgoing = Outgoing {
            qos: message.qos().min(subscription.qos),
            retain: subscription.retain_as_published && message.retain(),
            ids: one_id(subscription.id),
            shared: Some(tag),
            from_store: false,
            ticket,
            message,
        };
        self.emit(config, outgoing, clock, wire);
    }

    /// With one in flight for each place and nothing waiting behind them, a member that is slow keeps nothing from the
    /// others.
    fn takes_shared(&self, config: &Config) -> Takes {
        let Some(online) = self.online.as_ref().filter(|_| !self.is_overrun) else { return Takes::No };
        let is_free = self.outbound.as_ref().is_none_or(|outbound| {
            outbound.is_queue_empty()
                && outbound.has_room_for(0, online.max_inflight, config.max_inflight_bytes)
        });
        if !is_free || self.is_parked() {
            Takes::No
        } else if self.backlog.is_some() || !self.has_room(config) {
            Takes::NotYet
        } else {
            Takes::Yes
        }
    }

    /// The subscription `tag` is over.
    pub(crate) fn leave_group(&mut self, tag: u32) {
        if let Some(membership) = &mut self.membership {
            membership.leave(tag);
        }
    }
}

//! A subscriber: where the core delivers; one per session or stream.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::replay::Replay;
use crate::channel::Channel;
use crate::clock::steady_ms;
use crate::config::OutboxConfig;
use crate::error::SubscribeError;
use crate::filter::Filter;
use crate::interest::{ChannelEntry, Place};
use crate::interest::{Lists, Room};
use crate::key::{Start, Subscribed, SubscriberKey};
use crate::lane::Connection;
use crate::lane::Kind;
use crate::lane::{Command, Feed, Then};
use crate::lifecycle::{Account, Interest, Joining, LeaveReason, Left, Lifecycle, Stage};
use crate::message::{MessageId, Position};
use crate::outbox::Outbox;
use crate::rights::Principal;
use crate::shared::Shared;
use crate::store::history::After;

/// A subscriber in the core. Its owner is the session; dropping it ends all its subscriptions and frees its slot.
///
/// A tag is the front's number for one subscription; it comes back with each delivery. Changing what a subscription
/// means (its QoS, say) is the front's business behind the same tag, and leaves no gap.
pub struct Subscriber {
    key: SubscriberKey,
    outbox: Mutex<Arc<Outbox>>,
    shared: Arc<Shared>,
    held: Mutex<Held>,
    stage: Stage,
}

/// What a subscriber is subscribed to, and by whose rights.
#[derive(Default)]
struct Held {
    subscriptions: SmallVec<[(Filter, u32); 1]>,
    groups: Vec<(Box<str>, Filter, u32)>,
    /// `None` until somebody is known: then nothing is kept from it.
    rights: Option<Principal>,
}

impl Held {
    /// Who must be asked for each message of a subscription, if anybody.
    fn asked_for(&self, filter: &Filter, tag: u32) -> Option<&Principal> {
        self.rights.as_ref().filter(|principal| principal.is_asked_for(filter, tag))
    }
}

impl Subscriber {
    pub(crate) fn new(
        key: SubscriberKey,
        outbox: Arc<Outbox>,
        shared: Arc<Shared>,
        rights: Option<Principal>,
    ) -> Self {
        let held = Held { rights, ..Held::default() };
        Self { key, outbox: Mutex::new(outbox), shared, held: Mutex::new(held), stage: Stage::default() }
    }

    /// Its name in the core.
    pub fn key(&self) -> SubscriberKey {
        self.key
    }

    /// What waits to be written for it.
    pub fn outbox(&self) -> Arc<Outbox> {
        Arc::clone(&self.outbox.lock())
    }

    /// Gives the session's next connection an outbox of its own; the old one stays with the old connection, for its
    /// goodbye. Until the lane has heard of it, a session sees to it with [`Sink::redirect`](crate::Sink::redirect).
    pub fn renew_outbox(&self, config: OutboxConfig) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox::new(config));
        self.adopt_outbox(&outbox);
        outbox
    }

    /// As [`renew_outbox`](Self::renew_outbox), for a connection that brings an outbox: it was attached as somebody
    /// new, and turned out to belong to this session.
    pub fn adopt_outbox(&self, outbox: &Arc<Outbox>) {
        *self.outbox.lock() = Arc::clone(outbox);
        self.shared.lane(self.key).send(Command::Renew { key: self.key, outbox: Arc::clone(outbox) });
    }

    /// Says whose rights count from here on: of what its filters match, this client is shown what it may see. What was
    /// published before is judged by the rights of then, if the lane has not come to it; [`heard`](Self::heard) waits
    /// until it has.
    ///
    /// Said before the first subscription, or whenever somebody else comes, or comes with other rights. A session that
    /// changes hands says it before [`adopt_outbox`](Self::adopt_outbox), and asks
    /// [`Sink::redirect_as`](crate::Sink::redirect_as) at each delivery: then the new client never gets by the rights
    /// of the old one.
    pub fn set_rights(&self, principal: &Principal) {
        let mut held = self.held.lock();
        let is_first = held.rights.replace(principal.clone()).is_none();
        let subscriptions = held.subscriptions.iter().map(|(filter, tag)| (filter, *tag));
        let groups = held.groups.iter().map(|(_, filter, tag)| (filter, *tag));
        let is_asked = subscriptions.chain(groups).any(|(filter, tag)| principal.is_asked_for(filter, tag));
        if is_asked || !is_first {
            self.ask(is_asked.then_some(principal));
        }
    }

    /// Has the lane ask this principal before each delivery from here on. Called with the lists locked, so that the
    /// last rights are the last that the lane hears of.
    fn ask(&self, principal: Option<&Principal>) {
        self.shared.lane(self.key).send(Command::Rights { key: self.key, principal: principal.cloned() });
    }

    /// Waits until its lane has done what it was told before: what comes then was published, and is judged, after it.
    pub async fn heard(&self) {
        let (done, told) = oneshot::channel();
        self.shared.lane(self.key).send(Command::Barrier(done));
        // Nobody is left who would deliver anything.
        _ = told.await;
    }

    /// Makes the client visible to [`Broker::connections`](crate::Broker::connections) and its like, in the place of
    /// the one that was registered before. It is gone from there once the front has dropped it, or with this
    /// subscriber.
    pub fn register_connection<C: Connection>(&self, connection: &Arc<C>) {
        let connection: Weak<C> = Arc::downgrade(connection);
        self.shared.lane(self.key).connections.enter(self.key, connection);
    }

    /// The client is here, and its registered connection says who it is: whoever listens to clients' lives is told, of
    /// the subscriptions that it has already, too. Called by the front once the client is let in, under none of its
    /// locks.
    pub fn join(&self) {
        if !self.shared.listeners.any() {
            return;
        }
        let Some(connection) = self.shared.lane(self.key).connections.find(self.key) else { return };
        let joining = self.stage.join();
        if joining == Joining::TakesOver {
            let protocol = connection.peer().map_or("", |peer| peer.protocol);
            let account = Account { was_here: true, protocol, ..Account::default() };
            let how = Left::for_now(LeaveReason::TakenOver);
            self.tell(|listener| listener.left(self.key, how, &account));
        }
        self.tell(|listener| listener.joined(self.key, &connection));
        if joining == Joining::New {
            for filter in self.subscriptions() {
                self.tell(|listener| {
                    listener.subscribed(self.key, Interest { filter: &filter, group: None })
                });
            }
            let groups = self.held.lock().groups.clone();
            for (group, filter, _) in &groups {
                let interest = Interest { filter, group: Some(group) };
                self.tell(|listener| listener.subscribed(self.key, interest));
            }
        }
    }

    /// The client has left, and how: whoever listens is told once. A front that says nothing before it drops this
    /// leaves it at [`LeaveReason::Lost`].
    pub fn leave(&self, how: Left, account: &Account<'_>) {
        if let Some(was_here) = self.stage.leave(how) {
            let account = Account { was_here, ..*account };
            self.tell(|listener| listener.left(self.key, how, &account));
        }
    }

    /// A request of the client's may change many subscriptions: whoever listens can tell them as one. Ended by
    /// [`end_request`](Self::end_request), before it is answered; one that is never ended, because the client has left,
    /// ends with that.
    pub fn begin_request(&self) {
        if self.stage.is_told() {
            self.tell(|listener| listener.request_began(self.key));
        }
    }

    /// What was begun by [`begin_request`](Self::begin_request) is done.
    pub fn end_request(&self) {
        if self.stage.is_told() {
            self.tell(|listener| listener.request_ended(self.key));
        }
    }

    fn tell(&self, what: impl Fn(&dyn Lifecycle)) {
        self.shared.listeners.tell(what);
    }

    fn tell_subscribed(&self, filter: &Filter, group: Option<&str>) {
        if self.stage.is_told() {
            self.tell(|listener| listener.subscribed(self.key, Interest { filter, group }));
        }
    }

    fn tell_unsubscribed(&self, filter: &Filter, group: Option<&str>) {
        if self.stage.is_told() {
            self.tell(|listener| listener.unsubscribed(self.key, Interest { filter, group }));
        }
    }

    /// Subscriptions it holds, groups aside.
    pub fn subscriptions(&self) -> Vec<Filter> {
        self.held.lock().subscriptions.iter().map(|(filter, _)| filter.clone()).collect()
    }

    /// Subscribes to `filter`. The same filter and tag twice is one subscription; with [`Start::Retained`] the retained
    /// messages are sent again (MQTT 3.1.1 §3.8.4).
    ///
    /// # Errors
    /// The filter has too many levels; a literal filter on a new channel when there are too many, or a new one when all
    /// filters weigh as much as they may; the broker is closed.
    pub fn subscribe(&self, filter: &Filter, tag: u32, start: Start) -> Result<Subscribed, SubscribeError> {
        self.enter(filter, tag, start, false).map(|(subscribed, _)| subscribed)
    }

    /// Subscribes as [`Subscriber::subscribe`] does, and tells the position in the logs at which the subscription began:
    /// of what is recorded it brings all that comes after it, and nothing up to it. Of a subscription that was there
    /// already, it says nothing.
    ///
    /// Dearer than [`Subscriber::subscribe`]: while a filter with wildcards is entered, nothing is recorded.
    ///
    /// # Errors
    /// As [`Subscriber::subscribe`].
    pub fn subscribe_at_head(
        &self,
        filter: &Filter,
        tag: u32,
        start: Start,
    ) -> Result<(Subscribed, Position), SubscribeError> {
        let (subscribed, head) = self.enter(filter, tag, start, true)?;
        let head = head.unwrap_or_else(|| self.shared.head_of(std::iter::once(filter)));
        Ok((subscribed, head))
    }

    /// Subscribes; with `at_head` it also finds the position at which the subscription began.
    fn enter(
        &self,
        filter: &Filter,
        tag: u32,
        start: Start,
        at_head: bool,
    ) -> Result<(Subscribed, Option<Position>), SubscribeError> {
        if self.shared.closed.load(Ordering::Relaxed) {
            return Err(SubscribeError::Closed);
        }
        self.shared.check_levels(filter)?;
        let mut held = self.held.lock();
        let new = !held.subscriptions.iter().any(|(known, known_tag)| *known_tag == tag && known == filter);
        if new {
            self.shared.admit_filter(filter)?;
            if let Some(principal) = held.asked_for(filter, tag) {
                self.ask(Some(principal));
            }
        }
        let lane = self.shared.lane(self.key);
        let mut head = None;
        match filter.as_literal() {
            Some(channel) => {
                // Publishers of this channel wait for its guard, so nothing falls between the list and the feed.
                let mut place = self.shared.occupy(channel)?;
                if at_head {
                    head = Some(self.shared.head_of(std::iter::once(filter)));
                }
                if new {
                    place.lists.insert(self.key, tag);
                }
                if start != Start::Live
                    && let Some(message) = self.shared.retained.find(channel, steady_ms())
                {
                    let messages = vec![(message, SmallVec::from_elem(tag, 1))];
                    let feed =
                        Feed { key: self.key, kind: Kind::Retained, messages, then: Then::More, done: None };
                    lane.push(Command::Feed(Box::new(feed)));
                }
                drop(place);
            }
            None => {
                let mut enter = || {
                    // A message is matched for good under its log's lock: none is between its offset and its match.
                    let logs = at_head.then(|| self.shared.lock_logs());
                    head = logs.as_ref().map(|(_, _, head)| *head);
                    if new {
                        self.edit_wildcards(filter, |lists| lists.insert(self.key, tag));
                    }
                };
                match start {
                    Start::Live => enter(),
                    Start::Retained | Start::RetainedBeside => {
                        let waits = start == Start::Retained;
                        self.shared.subscribe_retained(self.key, &self.outbox(), (filter, tag), waits, enter);
                    }
                }
            }
        }
        lane.wake();
        if new {
            held.subscriptions.push((filter.clone(), tag));
            self.shared.count_subscription(filter);
            drop(held);
            self.tell_subscribed(filter, None);
            self.shared.listeners.tell_touched(filter);
        }
        Ok((Subscribed { new }, head))
    }

    /// Ends a subscription; false if there was none. What is on its way may still arrive.
    pub fn unsubscribe(&self, filter: &Filter, tag: u32) -> bool {
        let mut held = self.held.lock();
        let Some(at) =
            held.subscriptions.iter().position(|(known, known_tag)| *known_tag == tag && known == filter)
        else {
            return false;
        };
        held.subscriptions.swap_remove(at);
        self.leave_lists(filter, tag);
        self.shared.end_retained(self.key, tag);
        drop(held);
        self.tell_unsubscribed(filter, None);
        self.shared.listeners.tell_touched(filter);
        true
    }

    /// Ends all subscriptions with this filter, whatever their tags; false if there was none.
    pub fn unsubscribe_all(&self, filter: &Filter) -> bool {
        let mut held = self.held.lock();
        let before = held.subscriptions.len();
        held.subscriptions.retain(|(known, tag)| {
            let goes = known == filter;
            if goes {
                self.leave_lists(filter, *tag);
                self.shared.end_retained(self.key, *tag);
            }
            !goes
        });
        let ended = before - held.subscriptions.len();
        drop(held);
        for _ in 0..ended {
            self.tell_unsubscribed(filter, None);
        }
        if ended > 0 {
            self.shared.listeners.tell_touched(filter);
        }
        ended > 0
    }

    /// Joins the group of this name on `filter`: each message goes to one member (MQTT 5.0 §4.8.2), one with `room` as
    /// long as there is any.
    ///
    /// # Errors
    /// As [`Subscriber::subscribe`].
    pub fn join_group(
        &self,
        group: &str,
        filter: &Filter,
        tag: u32,
        room: &Arc<Room>,
    ) -> Result<Subscribed, SubscribeError> {
        if self.shared.closed.load(Ordering::Relaxed) {
            return Err(SubscribeError::Closed);
        }
        self.shared.check_levels(filter)?;
        let mut held = self.held.lock();
        if !held.groups.iter().any(|known| *known.0 == *group && known.1 == *filter && known.2 == tag) {
            self.shared.admit_filter(filter)?;
            if let Some(principal) = held.asked_for(filter, tag) {
                self.ask(Some(principal));
            }
        }
        let new = match filter.as_literal() {
            Some(channel) => self.shared.occupy(channel)?.lists.group(group).join(self.key, tag, room),
            None => self.edit_wildcards(filter, |lists| lists.group(group).join(self.key, tag, room)),
        };
        if new {
            held.groups.push((group.into(), filter.clone(), tag));
            self.shared.count_subscription(filter);
            if let Some(engine) = &self.shared.engine {
                engine.group_interest(group, filter, true);
            }
            drop(held);
            self.tell_subscribed(filter, Some(group));
            self.shared.listeners.tell_touched(filter);
        }
        Ok(Subscribed { new })
    }

    /// Leaves a group; false if it was not a member.
    pub fn leave_group(&self, group: &str, filter: &Filter, tag: u32) -> bool {
        let mut held = self.held.lock();
        let Some(at) =
            held.groups.iter().position(|known| *known.0 == *group && known.1 == *filter && known.2 == tag)
        else {
            return false;
        };
        held.groups.swap_remove(at);
        self.leave_group_lists(group, filter, tag);
        drop(held);
        self.tell_unsubscribed(filter, Some(group));
        self.shared.listeners.tell_touched(filter);
        true
    }

    /// Says whether anybody is connected: offline members of groups are passed over while an online one exists.
    pub fn set_online(&self, online: bool) {
        let held = self.held.lock();
        for (name, filter, _) in &held.groups {
            let mark = |lists: &mut Lists| lists.group(name).set_online(self.key, online);
            match filter.as_literal() {
                Some(channel) => _ = self.shared.registry.edit(channel, 0, mark),
                None => self.shared.wildcards.edit(filter, mark),
            }
        }
    }

    /// Subscribes to all `filters` from a position in the log on. Nothing is delivered of what is recorded until the
    /// returned [`Replay`] runs.
    ///
    /// # Errors
    /// As [`Subscriber::subscribe`].
    pub fn subscribe_after(&self, filters: &[(Filter, u32)], after: After) -> Result<Replay, SubscribeError> {
        self.subscribe_from(filters, after, None)
    }

    /// As [`subscribe_after`](Self::subscribe_after), in the log alone that `after` lies in: what the filters reach
    /// elsewhere is live all the time.
    ///
    /// # Errors
    /// As [`Subscriber::subscribe`].
    pub fn catch_up(&self, filters: &[(Filter, u32)], after: MessageId) -> Result<Replay, SubscribeError> {
        self.subscribe_from(filters, After::Id(after), Some(after.epoch()))
    }

    fn subscribe_from(
        &self,
        filters: &[(Filter, u32)],
        after: After,
        only: Option<u64>,
    ) -> Result<Replay, SubscribeError> {
        let is_in = |epoch: u64| only.is_none_or(|only| only == epoch);
        for (filter, _) in filters {
            self.shared.check_levels(filter)?;
        }
        let lane = self.shared.lane(self.key);
        for (filter, tag) in filters {
            for log in self.shared.logs_of(std::iter::once(filter)).iter().filter(|log| is_in(log.epoch())) {
                lane.push(Command::CatchUp { key: self.key, tag: *tag, epoch: log.epoch() });
            }
        }
        let mut new = Vec::new();
        for (filter, tag) in filters {
            match self.subscribe(filter, *tag, Start::Live) {
                Ok(subscribed) if subscribed.new => new.push((filter, *tag)),
                Ok(_) => {}
                Err(error) => {
                    for (filter, tag) in new {
                        self.unsubscribe(filter, tag);
                    }
                    // Nothing will catch up, and what was subscribed before goes on.
                    let tags = filters.iter().map(|(_, tag)| *tag).collect();
                    let then = Then::GoLive(tags, None);
                    let feed =
                        Feed { key: self.key, kind: Kind::Replayed, messages: Vec::new(), then, done: None };
                    lane.send(Command::Feed(Box::new(feed)));
                    return Err(error);
                }
            }
        }
        Ok(Replay::new(Arc::clone(&self.shared), self.key, self.outbox(), filters, after, only))
    }

    /// Forgets that a subscription was catching up: for one whose [`Replay`] was dropped, once it has been
    /// unsubscribed.
    pub fn abandon_replay(&self, tag: u32) {
        let then = Then::GoLive(SmallVec::from_elem(tag, 1), None);
        let feed = Feed { key: self.key, kind: Kind::Replayed, messages: Vec::new(), then, done: None };
        self.shared.lane(self.key).send(Command::Feed(Box::new(feed)));
    }

    fn edit_wildcards<T>(&self, filter: &Filter, edit: impl FnOnce(&mut Lists) -> T) -> T {
        self.shared.wildcards.edit(filter, edit)
    }

    fn leave_lists(&self, filter: &Filter, tag: u32) {
        let left = match filter.as_literal() {
            Some(channel) => {
                let evicted_through = self.shared.evicted_through(channel);
                let remove = |lists: &mut Lists| lists.remove(self.key, tag);
                self.shared.registry.edit(channel, evicted_through, remove).unwrap_or(false)
            }
            None => self.edit_wildcards(filter, |lists| lists.remove(self.key, tag)),
        };
        if left {
            self.shared.count_out_subscription(filter);
        }
    }

    fn leave_group_lists(&self, group: &str, filter: &Filter, tag: u32) {
        let leave = |lists: &mut Lists| lists.leave(group, self.key, tag);
        let left = match filter.as_literal() {
            Some(channel) => {
                let evicted_through = self.shared.evicted_through(channel);
                self.shared.registry.edit(channel, evicted_through, leave).unwrap_or(false)
            }
            None => self.edit_wildcards(filter, leave),
        };
        if left {
            self.shared.count_out_subscription(filter);
            if let Some(engine) = &self.shared.engine {
                engine.group_interest(group, filter, false);
            }
        }
    }
}

impl Shared {
    /// The channel's entry, made if it is new; its guard is held.
    fn occupy(
        &self,
        channel: &Channel,
    ) -> Result<dashmap::mapref::one::RefMut<'_, Arc<str>, ChannelEntry>, SubscribeError> {
        match self.registry.place(channel) {
            Place::Occupied(place) => Ok(place.into_ref()),
            Place::Vacant(place) => {
                self.registry.admit().map_err(|max| SubscribeError::TooManyChannels { max })?;
                Ok(place.insert(ChannelEntry::default()))
            }
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.leave(Left::for_good(LeaveReason::Lost), &Account::default());
        self.shared.lane(self.key).connections.leave(self.key);
        self.shared.end_all_retained(self.key);
        let Held { subscriptions, groups, .. } = std::mem::take(&mut *self.held.lock());
        for (filter, tag) in subscriptions {
            self.leave_lists(&filter, tag);
            self.shared.listeners.tell_touched(&filter);
        }
        for (group, filter, tag) in groups {
            self.leave_group_lists(&group, &filter, tag);
            self.shared.listeners.tell_touched(&filter);
        }
        self.shared.lane(self.key).send(Command::Detach(self.key));
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("key", &self.key).finish_non_exhaustive()
    }
}

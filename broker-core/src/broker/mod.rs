//! The broker: the cheap handle that fronts and the embedding service hold.

mod adopt;
mod listeners;
mod notes;
mod positions;
mod presence;
mod publish;
mod stats;
mod submit;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use smallvec::SmallVec;
use tokio::runtime::Handle as Runtime;
use tokio::sync::oneshot;

use crate::answer::Answer;
use crate::attach::{Reserved, StartFrom, SubscribeOptions, Subscriber, Subscription};
use crate::channel::Channel;
use crate::clock::steady_ms;
use crate::config::{Config, OutboxConfig};
use crate::engine::Engine;
use crate::error::{PublishError, PublishOnceError, Refused, SubscribeError};
use crate::filter::Filter;
use crate::interest::Group;
use crate::interest::Hits;
use crate::interest::Registry;
use crate::interest::Wildcards;
use crate::key::{Start, SubscriberKey};
use crate::lane::{Command, Direct, Lane, Worker};
use crate::lane::{Connection, SendError};
use crate::lane::{Deliver, Delivery, Encoding, Kind};
use crate::lifecycle::Listeners;
use crate::message::{KeyedReceipt, Message, Publish, Qos, Receipt};
use crate::outbox::{Outbox, Queued};
use crate::rights::Principal;
use crate::service::Services;
use crate::shared::{Feeds, Janitor, Shared};
use crate::store::history::{Asking, History, HistoryQuery, Next};
use crate::store::idempotency::{Idempotency, IdempotencyKey};
use crate::store::log::Log;
use crate::store::retained::{Limits, Retained, SWEEP_MESSAGES, Scan, Walk};

use self::submit::Entrance;

pub use self::notes::Notes;
pub use self::presence::{Presence, Present};

/// One channel space. Clones are handles to the same broker.
///
/// # How it ends
/// By [`Broker::close`], whatever clones are left, or when the last clone is dropped: the lanes deliver what was taken
/// and end, and all outboxes close, so that every [`Subscription`] ends once it is read to its end. Subscribers,
/// replays and subscriptions do not keep a broker. Who waits is let go: [`Broker::publish_wait`] with `Closed`,
/// [`Broker::drained`], [`Broker::send_to`] with `Gone`, [`Replay::run`](crate::Replay::run).
///
/// The same happens when its runtime is shut down, or one of its lanes dies by a bug of this crate: what is not
/// delivered by then is lost, and nothing is accepted any more ([`Broker::is_closed`]). A panic in a front's
/// [`Deliver`] is not such a case: it ends its own subscriber with [`OutboxEnd::Broken`](crate::OutboxEnd::Broken) and
/// is counted.
#[derive(Clone)]
pub struct Broker(Arc<Owner>);

/// A handle that does not keep the broker: [`Broker::downgrade`].
#[derive(Clone)]
pub struct WeakBroker(Weak<Owner>);

struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// How often old messages are looked for.
const JANITOR_PERIOD: Duration = Duration::from_secs(1);

/// A page of channel names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelPage {
    /// Names in order.
    pub channels: Vec<ChannelInfo>,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// One channel in use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelInfo {
    /// Its name.
    pub channel: Channel,
    /// Subscriptions on exactly this channel; those with wildcards are not counted.
    pub subscriptions: usize,
}

impl ChannelInfo {
    /// Of a channel with so many subscriptions.
    pub fn new(channel: Channel, subscriptions: usize) -> Self {
        Self { channel, subscriptions }
    }
}

impl Broker {
    /// Starts a broker: its lanes are tasks on the current tokio runtime, of any flavour.
    ///
    /// # Panics
    /// Outside a tokio runtime, or on one whose time driver is not enabled.
    pub fn new(config: Config) -> Self {
        Self::build(config, None)
    }

    /// As [`Broker::new`], with somebody who keeps messages: see [`Engine`]. It may hold what it is given to release
    /// messages by; that does not keep the broker.
    ///
    /// # Panics
    /// As [`Broker::new`].
    pub fn with_engine(config: Config, engine: Arc<dyn Engine>) -> Self {
        Self::build(config, Some(engine))
    }

    fn build(config: Config, engine: Option<Arc<dyn Engine>>) -> Self {
        let runtime = Runtime::current();
        let lanes = config.lanes.unwrap_or_else(|| runtime.metrics().num_workers()).clamp(1, 1_024);
        let encodings = Arc::new(AtomicUsize::new(0));
        let lanes: Vec<_> = (0..lanes).map(|index| Arc::new(Lane::new(index as u16))).collect();
        let shared = Arc::new(Shared {
            registry: Registry::new(config.max_channels),
            wildcards: Wildcards::default(),
            log: Log::new(&config, |namespace| engine.as_ref().is_some_and(|engine| engine.keeps(namespace))),
            kept: engine
                .as_ref()
                .map(|engine| Log::of_engine(&config, |namespace| engine.keeps(namespace), engine.head())),
            retained: Retained::new(config.max_retained_messages, config.max_retained_bytes),
            idempotency: Idempotency::new(config.idempotency),
            relay: engine.clone().filter(|engine| engine.relays()),
            engine,
            feeds: Feeds::default(),
            lanes,
            runtime: runtime.clone(),
            next_lane: AtomicUsize::new(0),
            encodings,
            janitor: Janitor::default(),
            listeners: Listeners::default(),
            services: Services::default(),
            policy: OnceLock::new(),
            closed: AtomicBool::new(false),
            subscriptions: AtomicUsize::new(0),
            subscription_bytes: AtomicUsize::new(0),
            counters: CachePadded::default(),
            timing: CachePadded::default(),
            config,
        });
        // Made here, so that a runtime without a clock is told of now and not by a dead task.
        let ticks = tokio::time::interval(JANITOR_PERIOD);
        for lane in &shared.lanes {
            let (lane, encodings) = (Arc::clone(lane), Arc::clone(&shared.encodings));
            runtime.spawn(Worker::new(lane, Arc::downgrade(&shared) as Weak<_>, encodings).run());
        }
        runtime.spawn(clean_up(Arc::clone(&shared), ticks));
        if let Some(engine) = &shared.engine {
            engine.start(Arc::new(Entrance(Arc::downgrade(&shared))));
        }
        Self(Arc::new(Owner(shared)))
    }

    /// How it was built.
    pub fn config(&self) -> &Config {
        &self.shared().config
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }

    /// A handle for who would keep the broker without need, and be kept by it.
    pub fn downgrade(&self) -> WeakBroker {
        WeakBroker(Arc::downgrade(&self.0))
    }

    /// Publishes a message: when this returns, it has its place in the log and the lanes have their jobs. Never blocks
    /// on a subscriber. Where an engine keeps the channel, use [`Broker::submit`].
    ///
    /// # Errors
    /// See [`PublishError`]; nothing was stored or delivered.
    pub fn publish(&self, publish: Publish) -> Result<Receipt, PublishError> {
        self.try_publish(publish).map_err(|refused| refused.error)
    }

    /// As [`Broker::publish`]; gives back what was not taken because the broker is busy, so that a caller who would try
    /// again needs no copy.
    ///
    /// # Errors
    /// See [`Refused`] and [`PublishError`]; nothing was stored or delivered.
    pub fn try_publish(&self, publish: Publish) -> Result<Receipt, Refused> {
        let shared = self.shared();
        if shared.engine_of(publish.channel()).is_some() {
            return Err(PublishError::Durable.into());
        }
        shared.publish(publish).inspect_err(|refused| shared.count_refused(&refused.error))
    }

    /// As [`Broker::publish`], once for each key: whoever asks for the same again within
    /// [`IdempotencyConfig::window`](crate::IdempotencyConfig::window) is answered with the first receipt. Of two at
    /// the same instant one waits until the other is published. A publish that was refused is not remembered.
    ///
    /// ```
    /// use broker_core::{Broker, Channel, IdempotencyKey, Publish};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = Broker::new(broker_core::Config::default());
    /// let order = Publish::new(Channel::parse("orders")?, "{\"number\":17}").json();
    /// let mut key = IdempotencyKey::new("order-17");
    /// key.user = "shop";
    /// let first = broker.publish_once(order.clone(), &key)?;
    /// let again = broker.publish_once(order, &key)?;
    /// assert!(!first.duplicate && again.duplicate);
    /// assert_eq!(first.receipt, again.receipt);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// See [`PublishOnceError`]; nothing was stored or delivered.
    pub fn publish_once(
        &self,
        publish: Publish,
        key: &IdempotencyKey<'_>,
    ) -> Result<KeyedReceipt, PublishOnceError> {
        let idempotency = &self.shared().idempotency;
        let claim = idempotency.claim(key, &publish);
        idempotency.once(Instant::now(), claim, || self.publish(publish))
    }

    /// Subscribes the embedding service to `filter`: live messages, default bounds.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub fn subscribe(&self, filter: Filter) -> Result<Subscription, SubscribeError> {
        self.subscribe_with(&[filter], SubscribeOptions::default())
    }

    /// Subscribes the embedding service to several filters; a message that several match arrives once.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub fn subscribe_with(
        &self,
        filters: &[Filter],
        options: SubscribeOptions,
    ) -> Result<Subscription, SubscribeError> {
        let subscriber = self.attach(Subscription::deliver(), options.outbox);
        let tagged: Vec<(Filter, u32)> = filters.iter().cloned().zip(0..).collect();
        let start = match options.from {
            StartFrom::Now => Start::Live,
            StartFrom::Retained => Start::Retained,
            StartFrom::Log(after) => {
                let replay = subscriber.subscribe_after(&tagged, after)?;
                return Ok(Subscription::new(subscriber, Some(replay)));
            }
        };
        for (filter, tag) in &tagged {
            subscriber.subscribe(filter, *tag, start)?;
        }
        Ok(Subscription::new(subscriber, None))
    }

    /// Attaches a front's session or stream. It belongs to one lane from now on.
    pub fn attach(&self, deliver: Arc<dyn Deliver>, config: OutboxConfig) -> Subscriber {
        self.attach_with(deliver, config, None)
    }

    /// As [`Broker::attach`], for a client that is known: what its rights do not grant of what its filters match is
    /// kept from it message by message. For one that is known later, see
    /// [`Subscriber::set_rights`](crate::Subscriber::set_rights).
    pub fn attach_as(
        &self,
        deliver: Arc<dyn Deliver>,
        config: OutboxConfig,
        principal: &Principal,
    ) -> Subscriber {
        self.attach_with(deliver, config, Some(principal.clone()))
    }

    /// A name for a client that is attached later, with [`Broker::attach_reserved`].
    pub fn reserve(&self) -> Reserved {
        Reserved::new(self.allocate(), Arc::clone(self.shared()))
    }

    /// As [`Broker::attach_as`], under a name that was reserved on this broker.
    pub fn attach_reserved(
        &self,
        reserved: Reserved,
        deliver: Arc<dyn Deliver>,
        config: OutboxConfig,
        principal: &Principal,
    ) -> Subscriber {
        self.attach_at(reserved.take(), deliver, config, Some(principal.clone()))
    }

    fn allocate(&self) -> SubscriberKey {
        let shared = self.shared();
        let turn = shared.next_lane.fetch_add(1, Ordering::Relaxed) % shared.lanes.len();
        shared.lanes[turn].allocate()
    }

    fn attach_with(
        &self,
        deliver: Arc<dyn Deliver>,
        config: OutboxConfig,
        rights: Option<Principal>,
    ) -> Subscriber {
        self.attach_at(self.allocate(), deliver, config, rights)
    }

    fn attach_at(
        &self,
        key: SubscriberKey,
        deliver: Arc<dyn Deliver>,
        config: OutboxConfig,
        rights: Option<Principal>,
    ) -> Subscriber {
        let shared = self.shared();
        let outbox = Arc::new(Outbox::new(config));
        let attach = Command::Attach { key, deliver, outbox: Arc::clone(&outbox) };
        shared.lane(key).send(attach);
        Subscriber::new(key, outbox, Arc::clone(shared), rights)
    }

    /// A slot for one way of encoding messages; asked for once when a front is built.
    pub fn register_encoding(&self) -> Encoding {
        Encoding(self.shared().encodings.fetch_add(1, Ordering::Relaxed))
    }

    /// What is in memory for a filter. With wildcards this may go through all of the log, on the caller's thread:
    /// [`Broker::read_history`] lets others run meanwhile.
    pub fn history(&self, filter: &Filter, query: HistoryQuery) -> History {
        let in_memory = |mut asking: Asking<'_>| {
            while let Some(next) = asking.next() {
                if let Next::Kept(_) = next {
                    asking.miss();
                }
            }
            asking.answer()
        };
        History::of(self.ask(filter, query).into_iter().map(in_memory).collect(), query)
    }

    /// The question to each log that the filter reaches.
    fn ask(&self, filter: &Filter, query: HistoryQuery) -> SmallVec<[Asking<'_>; 2]> {
        let shared = self.shared();
        let logs = shared.logs_of(std::iter::once(filter)).into_iter();
        logs.map(|log| {
            let is_kept = shared.kept.as_ref().is_some_and(|kept| kept.epoch() == log.epoch());
            Asking::new(log, is_kept, &shared.registry, filter, query)
        })
        .collect()
    }

    /// A channel's retained message.
    pub fn retained(&self, channel: &Channel) -> Option<Arc<Message>> {
        self.shared().retained.find(channel, steady_ms())
    }

    /// All retained messages that match, in the order of their channels' segments.
    pub fn retained_matching(&self, filter: &Filter) -> Vec<Arc<Message>> {
        self.shared().retained.matching(filter, steady_ms())
    }

    /// Up to `limit` retained messages that match, in the order of [`Broker::retained_matching`], of channels after
    /// `after`, whether or not that one keeps a message still. Fewer mean that there are no more. Lets other tasks run
    /// between every few hundred names.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn retained_page(
        &self,
        filter: &Filter,
        after: Option<&Channel>,
        limit: usize,
    ) -> Vec<Arc<Message>> {
        let mut walk = Walk::new(filter, after, limit);
        while self.shared().retained.walk(&mut walk, steady_ms()) {
            tokio::task::yield_now().await;
        }
        walk.into_messages()
    }

    /// How many retained messages match, each counted for every filter, and the bytes of their payloads. Stops soon
    /// after either is beyond its bound: then it is less than there are.
    pub async fn retained_usage(
        &self,
        filters: &[Filter],
        max_messages: usize,
        max_bytes: usize,
    ) -> (usize, usize) {
        let retained = &self.shared().retained;
        let (mut messages, mut bytes) = (0, 0);
        let mut scan = Scan::default();
        for (filter, tag) in filters.iter().zip(0..) {
            match filter.as_literal() {
                Some(channel) => {
                    let found = retained.find(channel, steady_ms());
                    messages += usize::from(found.is_some());
                    bytes += found.map_or(0, |message| message.payload().len());
                }
                None => scan.want(filter, tag, None, retained),
            }
        }
        while !scan.is_over() && messages <= max_messages && bytes <= max_bytes {
            let page = scan.page(retained, Limits::default(), steady_ms());
            messages += page.messages.len();
            bytes += page.messages.iter().map(|(message, _)| message.payload().len()).sum::<usize>();
            tokio::task::yield_now().await;
        }
        (messages, bytes)
    }

    /// Whether a filter has no more levels than are allowed here, for fronts that only look something up by it.
    ///
    /// # Errors
    /// [`SubscribeError::TooManyLevels`], which is counted.
    pub fn check_levels(&self, filter: &Filter) -> Result<(), SubscribeError> {
        self.shared().check_levels(filter)
    }

    /// Channels in use whose name starts with `prefix`, in order, after `after`. Goes over all channels: for operators,
    /// not for a hot path.
    pub fn channels(&self, prefix: &str, after: Option<&str>, limit: usize) -> ChannelPage {
        let mut found = self.shared().registry.page(prefix, after, limit.saturating_add(1));
        let more = found.len() > limit;
        found.truncate(limit);
        let info = |(channel, subscriptions)| ChannelInfo { channel, subscriptions };
        ChannelPage { channels: found.into_iter().map(info).collect(), more }
    }

    /// One channel, if it is in use.
    pub fn channel(&self, channel: &Channel) -> Option<ChannelInfo> {
        let (subscriptions, _) = self.shared().registry.look(channel)?;
        Some(ChannelInfo { channel: channel.clone(), subscriptions })
    }

    /// Sends one message to one attached client, whatever it is subscribed to, behind what its lane has for it already
    /// (what a replay still owes it aside). It is not recorded and has no id. Once this says `Ok` no policy drops it:
    /// it is written unless the client goes. Answers as soon as the client's lane has seen it and never waits for the
    /// client.
    ///
    /// # Errors
    /// See [`SendError`]. `retain` is ignored. Still possible between [`Broker::wind_down`] and [`Broker::close`].
    ///
    /// # Cancel safety
    /// Cancelled, the message may or may not be sent.
    pub async fn send_to(&self, key: SubscriberKey, publish: Publish) -> Result<Queued, SendError> {
        let (connection, message) = self.direct(key, publish)?;
        let shared = self.shared();
        let encodings = shared.encodings.load(Ordering::Relaxed);
        let delivery = Arc::new(Delivery::new(message, Kind::Direct, None, encodings));
        let (done, sent) = oneshot::channel();
        shared.lane(key).send(Command::Direct(Box::new(Direct { key, delivery, done })));
        sent.await.unwrap_or(Err(SendError::Gone))?;
        Ok(connection.queued())
    }

    /// As [`Broker::send_to`], and answers once the client has acknowledged the message: true, or false if it will not
    /// any more. It is sent at least once (MQTT's QoS 1); where a client with a session leaves first, it is sent again
    /// when that is back, whether or not anybody waits for the answer still.
    ///
    /// # Errors
    /// See [`SendError`]: also [`SendError::Inexpressible`] where the client's protocol has no acknowledgements.
    pub fn send_acknowledged(
        &self,
        key: SubscriberKey,
        publish: Publish,
    ) -> Result<Answer<'static, bool>, SendError> {
        let (connection, message) = self.direct(key, publish.qos(Qos::AtLeastOnce))?;
        connection.send_acknowledged(&message)
    }

    /// A message for one client, and that client.
    fn direct(
        &self,
        key: SubscriberKey,
        publish: Publish,
    ) -> Result<(Arc<dyn Connection>, Arc<Message>), SendError> {
        let config = self.config();
        let (bytes, max) = (publish.payload.len(), config.max_message_bytes);
        if bytes > max {
            return Err(SendError::TooLarge { bytes, max });
        }
        let connection = self.connection(key).ok_or(SendError::Gone)?;
        connection.peer().ok_or(SendError::Gone)?;
        if config.channel_characters.refused_in(publish.channel().as_str()).is_some() {
            return Err(SendError::Inexpressible);
        }
        Ok((connection, Arc::new(publish.retain(false).into_message_now(self.epoch()))))
    }

    /// One attached client by its key.
    pub fn connection(&self, key: SubscriberKey) -> Option<Arc<dyn Connection>> {
        self.shared().lane_of(key)?.connections.find(key)
    }

    /// Up to `limit` attached clients after `after`, in an order that does not change while they stay; fewer than
    /// `limit` means that there are no more. To go over all of them, begin with `None` and go on after the last one of
    /// each page. Sessions whose client is away are among them; their [`Connection::peer`] says so.
    pub fn connections(
        &self,
        after: Option<SubscriberKey>,
        limit: usize,
    ) -> Vec<(SubscriberKey, Arc<dyn Connection>)> {
        let mut found = Vec::new();
        let first = after.map_or(0, |key| usize::from(key.lane));
        for (lane, shared) in (0..).zip(&self.shared().lanes).skip(first) {
            // Another one in the same place may be behind it: of another node, in a listing of several.
            let from = after.filter(|key| key.lane == lane);
            shared.connections.page(lane, from, limit, &mut found);
        }
        found
    }

    /// Everybody who is subscribed to a channel, by its name, a wildcard or in a group; each once, in the order of
    /// [`Broker::connections`]. In-process subscribers and sessions whose client is away are among them.
    pub fn subscribers_of(&self, channel: &Channel) -> Vec<SubscriberKey> {
        let shared = self.shared();
        let mut hits = Hits::new();
        if shared.wildcards.filters() > 0 {
            shared.wildcards.visit(channel, &mut |lists| lists.collect_everybody(&mut hits));
        }
        shared.registry.visit(channel, |lists| lists.collect_everybody(&mut hits));
        let mut keys: Vec<SubscriberKey> = hits
            .iter()
            .flat_map(|(lane, list)| list.iter().map(|entry| SubscriberKey::of(*lane, *entry)))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// The group of this name on `filter`, as long as it has members.
    pub fn group(&self, name: &str, filter: &Filter) -> Option<Arc<Group>> {
        self.shared().group(name, filter)
    }

    /// Waits until the lanes have handed over everything that was published or submitted before the call, or are gone.
    /// What a subscriber catches up with, or waits for behind its retained messages, is not waited for.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn drained(&self) {
        self.engine_is_done().await;
        self.handed_over().await;
    }

    /// As [`drained`](Self::drained), for what has its receipt: what an engine was given and has not released is not waited
    /// for.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn handed_over(&self) {
        for lane in &self.shared().lanes {
            let (done, drained) = oneshot::channel();
            if lane.send(Command::Barrier(done)) {
                _ = drained.await;
            }
        }
    }

    /// Refuses publishes and subscriptions from now on. What was taken is still delivered, and subscribers stay, so
    /// that fronts can take leave of their clients. [`Broker::close`] is to follow.
    pub fn wind_down(&self) {
        self.shared().refuse();
    }

    /// Ends the broker, whatever handles to it are left; see [`Broker`]. Returns at once: [`Broker::drained`] waits
    /// until what was taken is handed over. What is left of a replay, or of retained messages for a slow reader, is not
    /// delivered.
    ///
    /// A service with fronts first tells their clients: [`Broker::wind_down`], `drained`, the fronts' `shutdown`, then
    /// this.
    pub fn close(&self) {
        self.shared().close();
    }

    /// Whether it takes nothing more: [`Broker::wind_down`] or [`Broker::close`] was called, its runtime is gone, or a
    /// lane has died.
    pub fn is_closed(&self) -> bool {
        let shared = self.shared();
        shared.closed.load(Ordering::Relaxed) || shared.lanes.iter().any(|lane| lane.is_gone())
    }
}

impl WeakBroker {
    /// The broker, if anybody else has a handle to it.
    pub fn upgrade(&self) -> Option<Broker> {
        self.0.upgrade().map(Broker)
    }
}

impl fmt::Debug for WeakBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakBroker")
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("lanes", &self.shared().lanes.len()).finish_non_exhaustive()
    }
}

/// The janitor: frees what left the log and forgets what is too old.
async fn clean_up(shared: Arc<Shared>, mut ticks: tokio::time::Interval) {
    while !shared.closed.load(Ordering::Relaxed) {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.janitor.wake.notified() => {}
        }
        while let Some(evicted) = shared.janitor.evicted.pop() {
            shared.forget(&evicted);
            tokio::task::yield_now().await;
        }
        for log in shared.logs() {
            let evicted = log.evict_old(Instant::now());
            shared.forget(&evicted);
        }
        while shared.retained.sweep(steady_ms()).len() == SWEEP_MESSAGES {
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lane_that_dies_closes_the_broker_at_once() {
        let broker = Broker::new(Config { lanes: Some(2), ..Config::default() });
        let filter = Filter::parse("a").unwrap();
        let mut streams = [broker.subscribe(filter.clone()).unwrap(), broker.subscribe(filter).unwrap()];
        let shared = broker.shared();
        // Dropped as a task that panicked drops it.
        let lane = Arc::clone(&shared.lanes[0]);
        drop(Worker::new(lane, Arc::downgrade(shared) as Weak<_>, Arc::clone(&shared.encodings)));
        assert!(broker.is_closed());
        let publish = || Publish::new(Channel::parse("a").unwrap(), "x");
        assert_eq!(broker.publish(publish()), Err(PublishError::Closed));
        assert!(broker.attach(Subscription::deliver(), OutboxConfig::default()).outbox().closed().is_some());
        tokio::time::timeout(Duration::from_secs(10), broker.drained()).await.unwrap();
        let other = &mut streams[1];
        assert!(tokio::time::timeout(Duration::from_secs(10), other.next()).await.unwrap().is_none());
    }
}

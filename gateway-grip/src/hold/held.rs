//! One client that is held, as the broker and operators see it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use broker_core::{
    Account, After, Class, CloseCause, Connection, Details, Encryption, Filter, ForcedError, GRANTED_TAG,
    LeaveReason, Left, Outbox, OutboxConfig, OutboxPolicy, Peer, Position, Principal, Queued, Replay, Rights,
    Start, Subscribed, Subscriber, steady_ms, unix_ms,
};
use bytes::Bytes;
use grip::filter::{Dropped, MAX_ANSWER_BYTES, Step, TIMEOUT};
use grip::instruct::{Hold, Instruction, KeepAlive, NextLink};
use http::{HeaderMap, Version};
use http_edge::Chunk;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use websocket_over_http::{Origin, headers_of};

use super::channels::{Channels, Passing};
use super::form::Form;
use super::holds::Inner;
use super::inbox::{Inbox, Reached};
use crate::backend::Backend;

/// What may wait to be written to one client.
const OUTBOX: OutboxConfig = OutboxConfig::new(10_000, 1 << 20, OutboxPolicy::Disconnect);

/// The subscription of an operator, beside those of the origin.
const OF_AN_OPERATOR: u32 = GRANTED_TAG | 0xffff;

/// Who all of them are: what a client gets is decided by its origin.
static NOBODY: LazyLock<Principal> = LazyLock::new(|| Principal::anonymous(Rights::none()));

/// What it is called in listings and logs.
const PROTOCOL: &str = "grip";

/// Where a client comes from, and how its requests go on.
pub(crate) struct From {
    pub(crate) backend: Backend,
    pub(crate) remote: Option<IpAddr>,
    pub(crate) encryption: Option<Encryption>,
    pub(crate) user_agent: Option<Box<str>>,
    pub(crate) version: Version,
}

/// Where a stream goes on when its channels are quiet, and who hears that it is over.
#[derive(Debug)]
pub(crate) struct Linking {
    /// What each request has of the client's.
    pub(crate) headers: HeaderMap,
    /// Hosts that links may name.
    pub(crate) hosts: Vec<String>,
    pub(crate) way: Mutex<Way>,
    pub(crate) gone: Option<String>,
    /// It is to be asked at once.
    is_wanted: AtomicBool,
    /// What is published is not sent, as something before it is missing that the link is asked for.
    pub(crate) has_gap: AtomicBool,
}

/// How far a stream has come on its way from link to link.
#[derive(Debug)]
pub(crate) struct Way {
    /// The path that was asked last.
    pub(crate) path: String,
    /// The link that its answer has.
    pub(crate) next: Option<NextLink>,
    /// What the client is subscribed to as it says.
    pub(crate) filters: Vec<Filter>,
    /// How the stream is kept alive from now on, if its last answer says.
    pub(crate) keep_alive: Option<Box<KeepAlive>>,
}

impl Way {
    pub(crate) fn go_on(&mut self, path: String, next: Option<NextLink>) {
        (self.path, self.next) = (path, next);
    }
}

impl Linking {
    pub(crate) fn new(
        headers: HeaderMap,
        hosts: Vec<String>,
        (path, next): (String, Option<NextLink>),
        gone: Option<String>,
    ) -> Self {
        let way = Mutex::new(Way { path, next, filters: Vec::new(), keep_alive: None });
        let (is_wanted, has_gap) = Default::default();
        Self { headers, hosts, way, gone, is_wanted, has_gap }
    }

    /// How long its channels may be quiet.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.way.lock().next.as_ref().map(|next| next.timeout)
    }
}

/// A client that is held. Dropping it lets it go.
pub(crate) struct Held {
    pub(crate) holds: Arc<Inner>,
    pub(crate) subscriber: Subscriber,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) channels: Mutex<Channels>,
    pub(crate) from: From,
    pub(crate) linking: Option<Box<Linking>>,
    mode: Hold,
    since_ms: u64,
    is_over: AtomicBool,
    sent: AtomicU64,
}

impl Held {
    /// With no subscription yet. `form` is how a stream writes what comes.
    pub(crate) fn new(
        holds: &Arc<Inner>,
        from: From,
        told: &Instruction,
        form: Option<Form>,
        linking: Option<Box<Linking>>,
    ) -> Arc<Self> {
        let channels = Channels::of(told);
        // The answer of a link may say how.
        let is_timed = told.keep_alive.is_some() || told.next.is_some();
        let inbox = Arc::new(Inbox::new(
            holds.slots(),
            form,
            is_timed,
            channels.has_filters(),
            linking.as_ref().map(|_| Reached::new(holds.broker.epoch())),
        ));
        let subscriber = holds.broker.attach(Arc::clone(&inbox) as _, OUTBOX);
        subscriber.set_rights(&NOBODY);
        let mode = if form.is_some() { Hold::Stream } else { Hold::Response };
        holds.gauge(mode).fetch_add(1, Relaxed);
        let held = Arc::new(Self {
            holds: Arc::clone(holds),
            outbox: subscriber.outbox(),
            subscriber,
            inbox,
            channels: Mutex::new(channels),
            from,
            linking,
            mode,
            since_ms: unix_ms(),
            is_over: AtomicBool::new(false),
            sent: AtomicU64::new(0),
        });
        holds.members.insert(held.subscriber.key(), Arc::downgrade(&held));
        held
    }

    /// Subscribes it, to each behind a position of its own.
    ///
    /// # Errors
    /// What the broker says.
    pub(crate) async fn subscribe(
        &self,
        filters: &[Filter],
        positions: &[Position],
    ) -> Result<Vec<Replay>, String> {
        // Most begin at the same place.
        let mut groups: Vec<(Position, Vec<(Filter, u32)>)> = Vec::new();
        for (at, (filter, position)) in filters.iter().zip(positions).enumerate() {
            let one = (filter.clone(), Channels::tag(at));
            match groups.iter_mut().find(|(known, _)| known == position) {
                Some((_, group)) => group.push(one),
                None => groups.push((*position, vec![one])),
            }
        }
        let begin = |(position, group): (Position, Vec<_>)| {
            self.subscriber.subscribe_after(&group, After::Position(position))
        };
        let replays: Result<Vec<_>, _> = groups.into_iter().map(begin).collect();
        let replays = replays.map_err(|error| error.to_string())?;
        for filter in filters {
            self.holds.broker.settled(filter).await.map_err(|error| error.to_string())?;
        }
        Ok(replays)
    }

    /// It is here: operators see it, and whoever listens is told.
    pub(crate) fn join(self: &Arc<Self>) {
        self.subscriber.register_connection(self);
        self.subscriber.join();
    }

    /// Has its next link asked at once, if it has one.
    pub(crate) fn want_link(&self) {
        if let Some(linking) = &self.linking {
            linking.is_wanted.store(true, Relaxed);
            self.outbox.notify();
        }
    }

    /// Something is missing before what comes next: nothing more is sent until its next link has been asked. `false` if it
    /// has none.
    pub(crate) fn fill_gap(&self) -> bool {
        let Some(linking) = self.linking.as_ref().filter(|linking| linking.patience().is_some()) else {
            return false;
        };
        self.inbox.backlog().take_all(true);
        if !linking.has_gap.swap(true, Relaxed) {
            self.holds.gaps.link.fetch_add(1, Relaxed);
        }
        self.want_link();
        true
    }

    /// Whether what is published is left to what comes of its link.
    pub(crate) fn has_gap(&self) -> bool {
        self.linking.as_ref().is_some_and(|linking| linking.has_gap.load(Relaxed))
    }

    /// Whether its link is to be asked; asked once.
    pub(crate) fn is_link_wanted(&self) -> bool {
        self.linking.as_ref().is_some_and(|linking| linking.is_wanted.swap(false, Relaxed))
    }

    /// Nothing more of its channels is delivered, and what was is with its task.
    pub(crate) async fn pause(&self, filters: &[Filter]) {
        for (at, filter) in filters.iter().enumerate() {
            self.subscriber.unsubscribe(filter, Channels::tag(at));
        }
        self.subscriber.heard().await;
    }

    /// Whether it is on its way out.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Relaxed) || self.outbox.closed().is_some()
    }

    /// Ends it as if nothing were to come any more: a stream ends, a response is the origin's own.
    pub(crate) fn end(&self, why: LeaveReason) {
        self.is_over.store(true, Relaxed);
        self.leave(why);
        match self.mode {
            Hold::Stream => self.outbox.send_last(Chunk::end()),
            Hold::Response => self.outbox.notify(),
        }
    }

    /// Sends a chunk, whatever waits.
    pub(crate) fn send(&self, chunk: Bytes) {
        if !chunk.is_empty() && self.outbox.send(chunk, Class::Control) {
            self.inbox.touch();
            self.sent.fetch_add(1, Relaxed);
        }
    }

    /// It has left: whoever listens is told. The first reason counts.
    pub(crate) fn leave(&self, why: LeaveReason) {
        let passed = self.outbox.passed();
        let mut account = Account::default();
        account.was_here = true;
        account.protocol = PROTOCOL;
        account.principal = Some(&NOBODY);
        account.remote = self.from.remote;
        account.lasted = Some(Duration::from_millis(unix_ms().saturating_sub(self.since_ms)));
        account.sent_messages = Some(self.sent.load(Relaxed) + passed.shared);
        account.received_messages = Some(0);
        account.sent_bytes = Some(passed.bytes);
        account.received_bytes = Some(0);
        account.dropped = self.outbox.dropped();
        self.subscriber.leave(Left::for_good(why), &account);
    }

    /// A content on its way through the filters of its channel.
    pub(crate) async fn filtered(&self, mut passing: Passing) -> Result<Bytes, Dropped> {
        loop {
            let step = self.channels.lock().step(&mut passing);
            let call = match step {
                Step::Send(content) => return Ok(content),
                Step::Drop(dropped) => return Err(dropped),
                Step::Ask(call) => call,
            };
            let asking = self.from.backend.call(&call.url, headers_of(&call), call.body, MAX_ANSWER_BYTES);
            match tokio::time::timeout(TIMEOUT, asking).await {
                Ok(Ok(answer)) => {
                    let action = answer.headers.get("action").and_then(|action| action.to_str().ok());
                    passing.run.answered(answer.status, action, answer.body)?;
                }
                // Its status says that it was not answered.
                Ok(Err(_)) | Err(_) => passing.run.answered(504, None, Bytes::new())?,
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.leave(LeaveReason::Lost);
        if let Some(linking) = &mut self.linking
            && let Some(gone) = linking.gone.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(self.from.backend.tell(gone, std::mem::take(&mut linking.headers)));
        }
        self.holds.members.remove(&self.subscriber.key());
        self.holds.gauge(self.mode).fetch_sub(1, Relaxed);
    }
}

impl Connection for Held {
    fn peer(&self) -> Option<Peer> {
        let transport = if self.from.version < Version::HTTP_2 { "http/1.1" } else { "http/2" };
        (!self.is_over()).then(|| Peer::new(NOBODY.clone(), PROTOCOL, transport, self.since_ms))
    }

    fn details(&self) -> Details {
        let mut given = Details::default();
        let idle = steady_ms().saturating_sub(self.inbox.last_sent_ms());
        given.last_active_ms = unix_ms().saturating_sub(idle);
        given.remote = self.from.remote;
        given.encryption = self.from.encryption;
        given.user_agent = self.from.user_agent.as_deref().map(str::to_owned);
        given.subscriptions = self.subscriber.subscriptions().iter().map(Filter::to_string).collect();
        given.dropped = self.outbox.dropped();
        given
    }

    fn queued(&self) -> Queued {
        self.outbox.queued()
    }

    fn close(&self, why: &CloseCause) {
        self.end(why.into());
    }

    fn subscribe(&self, filter: &Filter) -> Result<Subscribed, ForcedError> {
        let held = self.subscriber.subscriptions();
        let max = grip::instruct::MAX_CHANNELS;
        if held.len() >= max && !held.contains(filter) {
            return Err(ForcedError::TooMany { max });
        }
        Ok(self.subscriber.subscribe(filter, OF_AN_OPERATOR, Start::Live)?)
    }

    fn unsubscribe(&self, filter: &Filter) -> bool {
        self.subscriber.unsubscribe_all(filter)
    }
}

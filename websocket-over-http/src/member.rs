//! One client, as the broker and operators see it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use broker_core::{
    Account, Class, CloseCause, Connection, Details, Filter, ForcedError, GRANTED_TAG, LeaveReason, Left,
    Outbox, OutboxConfig, OutboxPolicy, Peer, Principal, Queued, Rights, Start, Subscribed, Subscriber,
    steady_ms, unix_ms,
};
use bytes::Bytes;
use parking_lot::Mutex;
use websocket::{CloseCode, encode};

use crate::frames::Frames;

/// What may wait to be written to one client.
pub(crate) const OUTBOX: OutboxConfig = OutboxConfig::new(10_000, 1 << 20, OutboxPolicy::Disconnect);

/// Channels that one client may be subscribed to.
pub(crate) const MAX_CHANNELS: usize = 1_000;

/// Who all of them are: what a client gets is decided by its origin.
static NOBODY: LazyLock<Principal> = LazyLock::new(|| Principal::anonymous(Rights::none()));

/// What it is called in listings and logs.
pub(crate) const PROTOCOL: &str = "grip";

/// How a connection is closed from here.
#[derive(Clone, Debug)]
pub(crate) struct Close {
    pub(crate) code: Option<u16>,
    pub(crate) reason: String,
    pub(crate) why: LeaveReason,
}

impl Close {
    pub(crate) fn new(code: Option<u16>, reason: &str, why: LeaveReason) -> Self {
        Self { code, reason: reason.to_owned(), why }
    }
}

/// Where a client comes from.
#[derive(Clone, Debug, Default)]
pub(crate) struct From {
    pub(crate) remote: Option<IpAddr>,
    pub(crate) user_agent: Option<String>,
}

pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) subscriber: Subscriber,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) frames: Arc<Frames>,
    from: From,
    since_ms: u64,
    is_open: AtomicBool,
    closing: Mutex<Option<Close>>,
    last_heard_ms: AtomicU64,
    received: AtomicU64,
    received_bytes: AtomicU64,
    sent: AtomicU64,
}

impl Member {
    pub(crate) fn new(subscriber: Subscriber, frames: Arc<Frames>, from: From) -> Self {
        subscriber.set_rights(&NOBODY);
        Self {
            id: http_edge::connection_id(subscriber.key()),
            outbox: subscriber.outbox(),
            subscriber,
            frames,
            from,
            since_ms: unix_ms(),
            is_open: AtomicBool::new(false),
            closing: Mutex::default(),
            last_heard_ms: AtomicU64::new(steady_ms()),
            received: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        }
    }

    /// Its origin has let it in, and its 101 is on its way.
    pub(crate) fn open(self: &Arc<Self>) {
        self.is_open.store(true, Relaxed);
        self.subscriber.register_connection(self);
        self.subscriber.join();
    }

    /// A whole message came.
    pub(crate) fn note_received(&self, bytes: usize) {
        self.last_heard_ms.store(steady_ms(), Relaxed);
        self.received.fetch_add(1, Relaxed);
        self.received_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Whether it is on its way out.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.lock().is_some() || self.outbox.closed().is_some()
    }

    pub(crate) fn closing(&self) -> Option<Close> {
        self.closing.lock().clone()
    }

    /// Closes it behind what waits for it already. The first who says it is heard.
    pub(crate) fn close_with(&self, close: Close) {
        let mut closing = self.closing.lock();
        if closing.is_some() {
            return;
        }
        // A code that may not be sent makes a close without one.
        let code = close.code.unwrap_or(1005);
        let frame = encode::close(CloseCode::from(code), &close.reason);
        *closing = Some(close);
        drop(closing);
        self.outbox.send_last(frame);
    }

    /// Sends a frame, whatever waits.
    pub(crate) fn send(&self, frame: Bytes) {
        if !frame.is_empty() && self.outbox.send(frame, Class::Control) {
            self.frames.touch();
            self.sent.fetch_add(1, Relaxed);
        }
    }

    /// It has left: whoever listens is told.
    pub(crate) fn leave(&self, why: LeaveReason) {
        for filter in self.subscriber.subscriptions() {
            self.subscriber.unsubscribe_all(&filter);
        }
        if !self.is_open.load(Relaxed) {
            return;
        }
        let passed = self.outbox.passed();
        let mut account = Account::default();
        account.was_here = true;
        account.protocol = PROTOCOL;
        account.principal = Some(&NOBODY);
        account.remote = self.from.remote;
        account.lasted = Some(Duration::from_millis(unix_ms().saturating_sub(self.since_ms)));
        account.sent_messages = Some(self.sent.load(Relaxed) + passed.shared);
        account.received_messages = Some(self.received.load(Relaxed));
        account.sent_bytes = Some(passed.bytes);
        account.received_bytes = Some(self.received_bytes.load(Relaxed));
        account.dropped = self.outbox.dropped();
        let why = self.closing().map_or(why, |close| close.why);
        self.subscriber.leave(Left::for_good(why), &account);
    }

    /// Subscribes it; whether it has room.
    pub(crate) fn subscribe(&self, filter: &Filter, tag: u32) -> Result<Subscribed, ForcedError> {
        let held = self.subscriber.subscriptions();
        if held.len() >= MAX_CHANNELS && !held.contains(filter) {
            return Err(ForcedError::TooMany { max: MAX_CHANNELS });
        }
        Ok(self.subscriber.subscribe(filter, tag, Start::Live)?)
    }
}

impl Connection for Member {
    fn peer(&self) -> Option<Peer> {
        let is_here = self.is_open.load(Relaxed) && !self.is_closing();
        is_here.then(|| Peer::new(NOBODY.clone(), PROTOCOL, "websocket", self.since_ms))
    }

    fn details(&self) -> Details {
        let mut given = Details::default();
        let last = self.last_heard_ms.load(Relaxed).max(self.frames.last_sent_ms());
        given.last_active_ms = unix_ms().saturating_sub(steady_ms().saturating_sub(last));
        given.remote = self.from.remote;
        given.user_agent = self.from.user_agent.clone();
        given.subscriptions = self.subscriber.subscriptions().iter().map(Filter::to_string).collect();
        given.dropped = self.outbox.dropped();
        given
    }

    fn queued(&self) -> Queued {
        self.outbox.queued()
    }

    fn close(&self, why: &CloseCause) {
        let code = if why.asks_to_reconnect() { 4401 } else { 1000 };
        self.close_with(Close::new(Some(code), why.text(), why.into()));
    }

    fn subscribe(&self, filter: &Filter) -> Result<Subscribed, ForcedError> {
        Member::subscribe(self, filter, GRANTED_TAG)
    }

    fn unsubscribe(&self, filter: &Filter) -> bool {
        self.subscriber.unsubscribe_all(filter)
    }
}

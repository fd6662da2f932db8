//! One client, as the broker and `@connections` see it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use broker_core::{
    Account, Class, CloseCause, Connection, Deliver, Delivery, Details, Encoding, Encryption, Filter,
    ForcedError, GRANTED_TAG, LeaveReason, Left, Message, Outbox, OutboxConfig, OutboxPolicy, Peer,
    Principal, Queued, Sink, Start, Subscribed, Subscriber, steady_ms, unix_ms,
};
use bytes::Bytes;
use parking_lot::Mutex;
use websocket::{CloseCode, encode};

use crate::api::ApiState;
use crate::event::{Authorized, Facts};

/// What may wait to be written to one client.
pub(crate) const OUTBOX: OutboxConfig = OutboxConfig::new(1_000, 1 << 20, OutboxPolicy::Disconnect);

/// What may wait for a client whose connection is not open yet, in bytes.
const MAX_EARLY_BYTES: usize = 64 << 10;

/// Filters that one client may be subscribed to.
pub(crate) const MAX_FILTERS: usize = 1_000;

/// Shorter payloads are not worth compressing.
const MIN_DEFLATED_BYTES: usize = 256;

/// When something passed last, either way.
#[derive(Debug)]
pub(crate) struct Activity(AtomicU64);

impl Activity {
    fn now() -> Self {
        Self(AtomicU64::new(steady_ms()))
    }

    pub(crate) fn touch(&self) {
        self.0.store(steady_ms(), Relaxed);
    }

    /// How long nothing has passed.
    pub(crate) fn idle(&self) -> Duration {
        Duration::from_millis(steady_ms().saturating_sub(self.0.load(Relaxed)))
    }
}

/// Turns what is published into frames for one client.
pub(crate) struct Frames {
    pub(crate) encoding: Encoding,
    pub(crate) deflate: bool,
    pub(crate) activity: Arc<Activity>,
}

impl Frames {
    fn frame<'d>(&self, delivery: &'d Delivery) -> &'d Bytes {
        self.activity.touch();
        delivery.encoded(self.encoding, |message: &Message| frame(message.payload(), self.deflate))
    }
}

impl Deliver for Frames {
    fn deliver(&self, delivery: &Delivery, _: &[u32], sink: &mut Sink<'_>) {
        sink.send(self.frame(delivery), Class::Droppable);
    }

    fn shared_frame<'d>(&self, delivery: &'d Delivery, _: &[u32], _: &Arc<Outbox>) -> Option<&'d Bytes> {
        Some(self.frame(delivery))
    }
}

/// Text if it is any, else binary.
pub(crate) fn frame(payload: &[u8], deflate: bool) -> Bytes {
    let opcode = if std::str::from_utf8(payload).is_ok() { encode::TEXT } else { encode::BINARY };
    framed(opcode, payload, deflate)
}

/// A binary frame, whatever is in it.
pub(crate) fn binary_frame(payload: &[u8], deflate: bool) -> Bytes {
    framed(encode::BINARY, payload, deflate)
}

fn framed(opcode: websocket::OpCode, payload: &[u8], deflate: bool) -> Bytes {
    match deflate && payload.len() >= MIN_DEFLATED_BYTES {
        true => encode::deflated_as(opcode, payload),
        false => encode::frame(opcode, payload),
    }
}

/// How a connection is closed from here.
#[derive(Clone, Debug)]
pub(crate) struct Close {
    pub(crate) code: u16,
    pub(crate) reason: String,
    why: LeaveReason,
}

impl Close {
    pub(crate) fn new(code: u16, reason: &str, why: LeaveReason) -> Self {
        Self { code, reason: reason.to_owned(), why }
    }

    /// As API Gateway says it of connections that have been here long enough.
    pub(crate) fn going_away(why: LeaveReason) -> Self {
        Self::new(1001, "Going away", why)
    }
}

/// Who a client is.
pub(crate) struct Known {
    pub(crate) principal: Principal,
    pub(crate) authorized: Option<Authorized>,
}

pub(crate) struct Member {
    pub(crate) facts: Facts,
    pub(crate) state: Arc<ApiState>,
    pub(crate) subscriber: Subscriber,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) deflate: bool,
    pub(crate) remote: Option<IpAddr>,
    encryption: Option<Encryption>,
    known: OnceLock<Known>,
    is_open: AtomicBool,
    closing: Mutex<Option<Close>>,
    received: AtomicU64,
    received_bytes: AtomicU64,
    sent: AtomicU64,
}

/// Why a client gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// It is gone, or going.
    Gone,
    /// As much waits for it as may.
    Full,
}

impl Member {
    pub(crate) fn new(
        facts: Facts,
        state: Arc<ApiState>,
        subscriber: Subscriber,
        (activity, deflate): (Arc<Activity>, bool),
        (remote, encryption): (Option<IpAddr>, Option<Encryption>),
    ) -> Self {
        Self {
            facts,
            state,
            outbox: subscriber.outbox(),
            subscriber,
            activity,
            deflate,
            remote,
            encryption,
            known: OnceLock::new(),
            is_open: AtomicBool::new(false),
            closing: Mutex::default(),
            received: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        }
    }

    pub(crate) fn activity() -> Arc<Activity> {
        Arc::new(Activity::now())
    }

    /// It is let in as this one.
    pub(crate) fn identify(&self, known: Known) {
        self.subscriber.set_rights(&known.principal);
        _ = self.known.set(known);
    }

    pub(crate) fn authorized(&self) -> Option<&Authorized> {
        self.known.get()?.authorized.as_ref()
    }

    pub(crate) fn expires_at_ms(&self) -> Option<u64> {
        self.known.get()?.principal.expires_at_ms()
    }

    /// The 101 is written.
    pub(crate) fn open(self: &Arc<Self>) {
        self.is_open.store(true, Relaxed);
        self.activity.touch();
        self.subscriber.register_connection(self);
        self.subscriber.join();
    }

    /// A whole message came.
    pub(crate) fn note_received(&self, bytes: usize) {
        self.activity.touch();
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
    pub(crate) fn close_with(&self, close: Close) -> bool {
        let mut closing = self.closing.lock();
        if closing.is_some() {
            return false;
        }
        let frame = encode::close(CloseCode::from(close.code), &close.reason);
        *closing = Some(close);
        drop(closing);
        self.outbox.send_last(frame);
        true
    }

    /// Sends a frame if there is room for it.
    pub(crate) fn post(&self, payload: &[u8]) -> Result<(), Unsent> {
        if self.is_closing() {
            return Err(Unsent::Gone);
        }
        let frame = frame(payload, self.deflate);
        let Queued { messages, bytes, .. } = self.outbox.queued();
        let bytes = bytes + frame.len();
        let fits = match self.is_open.load(Relaxed) {
            true => messages == 0 || (messages < OUTBOX.max_messages && bytes <= OUTBOX.max_bytes),
            // An empty outbox takes one of any size.
            false => messages < OUTBOX.max_messages && (messages == 0 || bytes <= MAX_EARLY_BYTES),
        };
        if !fits {
            return Err(Unsent::Full);
        }
        if self.send(frame) { Ok(()) } else { Err(Unsent::Gone) }
    }

    /// Sends a frame, whatever waits.
    pub(crate) fn send(&self, frame: Bytes) -> bool {
        let taken = self.outbox.send(frame, Class::Control);
        if taken {
            self.activity.touch();
            self.sent.fetch_add(1, Relaxed);
        }
        taken
    }

    /// It has left: whoever listens is told.
    pub(crate) fn leave(&self, why: LeaveReason) {
        let passed = self.outbox.passed();
        let mut account = Account::default();
        account.was_here = true;
        account.protocol = PROTOCOL;
        account.principal = self.known.get().map(|known| &known.principal);
        account.remote = self.remote;
        account.lasted = Some(Duration::from_millis(unix_ms().saturating_sub(self.facts.connected_at_ms)));
        account.sent_messages = Some(self.sent.load(Relaxed) + passed.shared);
        account.received_messages = Some(self.received.load(Relaxed));
        account.sent_bytes = Some(passed.bytes);
        account.received_bytes = Some(self.received_bytes.load(Relaxed));
        account.dropped = self.outbox.dropped();
        let why = self.closing().map_or(why, |close| close.why);
        self.subscriber.leave(Left::for_good(why), &account);
    }

    /// When something passed last, in milliseconds since 1970.
    pub(crate) fn last_active_ms(&self) -> u64 {
        let idle = u64::try_from(self.activity.idle().as_millis()).unwrap_or(u64::MAX);
        unix_ms().saturating_sub(idle)
    }

    /// Subscribes it to what its function, or an operator, wants it to get.
    pub(crate) fn grant(&self, filter: &Filter) -> Result<Subscribed, ForcedError> {
        let held = self.subscriber.subscriptions();
        if held.contains(filter) {
            return Ok(Subscribed::THERE);
        }
        if held.len() >= MAX_FILTERS {
            return Err(ForcedError::TooMany { max: MAX_FILTERS });
        }
        Ok(self.subscriber.subscribe(filter, GRANTED_TAG, Start::Live)?)
    }
}

/// What it is called in listings and logs.
pub(crate) const PROTOCOL: &str = "aws";

impl Connection for Member {
    fn peer(&self) -> Option<Peer> {
        let known = self.known.get()?;
        let is_here = self.is_open.load(Relaxed) && !self.is_closing();
        let since = self.facts.connected_at_ms;
        is_here.then(|| Peer::new(known.principal.clone(), PROTOCOL, "websocket", since))
    }

    fn details(&self) -> Details {
        let mut given = Details::default();
        given.last_active_ms = self.last_active_ms();
        given.remote = self.remote;
        given.encryption = self.encryption;
        given.user_agent = self.facts.user_agent.clone();
        given.subscriptions = self.subscriber.subscriptions().iter().map(Filter::to_string).collect();
        given.dropped = self.outbox.dropped();
        given
    }

    fn queued(&self) -> Queued {
        self.outbox.queued()
    }

    fn close(&self, why: &CloseCause) {
        if matches!(why, CloseCause::RightsChanged)
            && let Some(authorized) = self.authorized()
        {
            // It is judged anew when it comes back.
            for (_, cache) in self.state.authorizers.values() {
                cache.forget(&authorized.principal_id);
            }
        }
        let code = if why.asks_to_reconnect() { 4401 } else { 1000 };
        self.close_with(Close::new(code, why.text(), why.into()));
    }

    fn subscribe(&self, filter: &Filter) -> Result<Subscribed, ForcedError> {
        self.grant(filter)
    }

    fn unsubscribe(&self, filter: &Filter) -> bool {
        self.subscriber.unsubscribe_all(filter)
    }
}

//! What may outlive a connection: subscriptions, queue, exchanges in flight.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use broker_core::{
    Broker, ChannelCharacters, Class, Delivery, Encoding, Kind, Message, Outbox, Principal, Qos, Queued,
    Room, SendError, SubscriberKey, steady_ms, unix_ms,
};
use bytes::Bytes;
use front::RefusedLine;
use parking_lot::{Mutex, MutexGuard};

use super::absent::Counted;
use super::alias::OutgoingAliases;
use super::connecting::Caller;
use super::delivering::{Repeat, encode_plain};
use super::end::PendingWill;
use super::group::{Group, GroupCounters, Membership};
use super::kept::{Kept, News};
use super::outbound::{Outbound, Stage};
use super::queue::{Clock, Queue};
use super::scope::client_id_of;
use super::subscriptions::Subscriptions;
use super::taken::Taken;
use super::wire::{Nowhere, Wire};
use crate::codec::{self, AckKind, Dialect, Framing, Reason, Version};
use crate::config::Config;

/// The slots for a QoS 0 PUBLISH that all plain subscribers share: version 3 and 5, raw and in a WebSocket
/// frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encodings {
    v3: Encoding,
    v3_websocket: Encoding,
    v5: Encoding,
    v5_websocket: Encoding,
}

impl Encodings {
    pub(crate) fn register(broker: &Broker) -> Self {
        Self {
            v3: broker.register_encoding(),
            v3_websocket: broker.register_encoding(),
            v5: broker.register_encoding(),
            v5_websocket: broker.register_encoding(),
        }
    }

    pub(super) fn of(&self, dialect: Dialect) -> Encoding {
        match (dialect.version, dialect.framing) {
            (Version::V31 | Version::V311, Framing::Raw) => self.v3,
            (Version::V31 | Version::V311, Framing::WebSocket) => self.v3_websocket,
            (Version::V5, Framing::Raw) => self.v5,
            (Version::V5, Framing::WebSocket) => self.v5_websocket,
        }
    }
}

/// A message that reaches a session.
pub(crate) struct Incoming<'a> {
    pub(crate) message: &'a Arc<Message>,
    pub(crate) kind: Kind,
    pub(crate) publisher: Option<SubscriberKey>,
    /// Where the shared encodings are, if it comes from a lane.
    pub(crate) lane: Option<&'a Delivery>,
    pub(crate) clock: Clock<'a>,
}

/// One client's session.
pub(crate) struct Session {
    /// What it is found by, the client identifier in it.
    key: OnceLock<Arc<str>>,
    shared: Arc<Shared>,
    /// Publishes from the client.
    received: AtomicU64,
    last_heard: AtomicU32,
    state: Mutex<State>,
}

/// What all sessions of a front share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    /// `None` where no lane delivers: in tests of the protocol alone.
    pub(crate) encodings: Option<Encodings>,
    /// Which characters the texts may hold that are sent.
    pub(crate) characters: ChannelCharacters,
    /// Publishes and subscriptions refused for lack of rights.
    pub(crate) refused: AtomicU64,
    /// Publishes beyond their sender's rate.
    pub(crate) limited: AtomicU64,
    /// Connections that ended because too much waited for their clients.
    pub(crate) overrun: AtomicU64,
    pub(crate) groups: GroupCounters,
    /// Times that retention had passed where a session's client was.
    pub(crate) gaps: AtomicU64,
    /// Of the log of an engine, if there is one.
    pub(crate) kept_epoch: Option<u64>,
    pub(crate) news: Arc<News>,
    began: Instant,
    began_ms: u64,
}

/// An instant as sessions keep it, because there are many: tenths of a second since the front began, which
/// is enough for thirteen years.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Tenths(pub(crate) u32);

impl Shared {
    pub(crate) fn new(config: Config, encodings: Option<Encodings>) -> Self {
        Self {
            config,
            encodings,
            characters: ChannelCharacters::default(),
            refused: AtomicU64::new(0),
            limited: AtomicU64::new(0),
            overrun: AtomicU64::new(0),
            groups: GroupCounters::default(),
            gaps: AtomicU64::new(0),
            kept_epoch: None,
            news: Arc::default(),
            began: Instant::now(),
            began_ms: unix_ms(),
        }
    }

    pub(crate) fn tenths(&self, at: Instant) -> Tenths {
        let tenths = at.saturating_duration_since(self.began).as_millis() / 100;
        Tenths(u32::try_from(tenths).unwrap_or(u32::MAX))
    }

    /// When the front began, in milliseconds since 1970.
    pub(crate) fn began_ms(&self) -> u64 {
        self.began_ms
    }

    /// In milliseconds since 1970.
    pub(crate) fn unix_ms(&self, at: Tenths) -> u64 {
        self.began_ms + u64::from(at.0) * 100
    }
}

/// What the mutex guards.
pub(crate) struct State {
    pub(crate) online: Option<Online>,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) outbound: Option<Box<Outbound>>,
    /// Identifiers of QoS 2 publishes that were taken and not yet released.
    pub(crate) taken: Option<Box<Taken>>,
    /// What few sessions have.
    pub(super) extra: Option<Box<Extra>>,
    /// QoS 0 messages that wait for room in the outbox, retained ones first.
    pub(crate) backlog: Option<Box<Queue>>,
    /// Its part in shared subscriptions.
    pub(super) membership: Option<Box<Membership>>,
    pub(crate) will: Option<Box<PendingWill>>,
    /// Seconds the session outlives its connection; `u32::MAX` is for ever.
    pub(crate) expiry_secs: u32,
    /// Numbers the connections: one that was taken over finds another number here and leaves things alone.
    pub(crate) connection: u32,
    pub(crate) ended: bool,
    /// More waits than may for a connected client: the connection is to end, and the session queues as an absent one.
    pub(crate) is_overrun: bool,
    /// Somebody wants to take the session over and waits until all that has come from the client is handled.
    pub(crate) is_awaited: bool,
    pub(crate) key: Option<SubscriberKey>,
    /// Whose rights count; the last connection's while there is none.
    pub(crate) principal: Option<Principal>,
    /// What is known while no client is connected.
    pub(crate) away: Option<Box<Away>>,
    pub(crate) sent: u64,
    pub(crate) dropped: u64,
}

/// A session whose client is away.
#[derive(Default)]
pub(crate) struct Away {
    /// Names its entry in the front's timers.
    pub(crate) timer: Option<TimerKey>,
    /// Its part in what its user or address has left waiting.
    pub(crate) counted: Option<Counted>,
}

/// When something is due, and a number to tell entries of the same instant apart.
pub(crate) type TimerKey = (Instant, u64);

/// What the session knows of its present connection.
pub(crate) struct Online {
    /// Where its frames go.
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) dialect: Dialect,
    pub(crate) max_inflight: u16,
    /// Largest packet the client takes, in bytes.
    pub(crate) max_packet_bytes: u32,
    pub(crate) aliases: Option<Box<OutgoingAliases>>,
    pub(crate) caller: Box<Caller>,
}

/// What makes a session look twice at what is delivered to it.
#[derive(Default)]
pub(super) struct Extra {
    /// Deliveries that wait for a SUBACK to be sent before them.
    parked: Option<ParkedDeliveries>,
    /// An engine keeps its messages.
    pub(super) kept: Option<Kept>,
}

/// In the order they came.
#[derive(Default)]
struct ParkedDeliveries {
    deliveries: Vec<Parked>,
    /// Those from the retained store, and the others.
    retained: usize,
    live: usize,
}

struct Parked {
    message: Arc<Message>,
    kind: Kind,
    publisher: Option<SubscriberKey>,
    tags: Box<[u32]>,
}

impl Session {
    /// Counts a publish or subscription that the rights did not allow.
    pub(super) fn count_refused(&self, principal: &Principal, what: &str) {
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
        self.log_refused("NotAuthorized", principal, what);
    }

    /// Counts a publish that the rate did not allow.
    pub(super) fn count_limited(&self, principal: &Principal, what: &str) {
        self.shared.limited.fetch_add(1, Ordering::Relaxed);
        self.log_refused("MessageRateTooHigh", principal, what);
    }

    fn log_refused(&self, reason: &str, principal: &Principal, what: &str) {
        let (connection, remote) = {
            let state = self.lock();
            (state.key, state.online.as_ref().and_then(|online| online.caller.remote))
        };
        let mut line = RefusedLine::default();
        line.protocol = "mqtt";
        line.reason = reason;
        line.remote = remote;
        line.user = principal.user();
        line.client_id = Some(self.client_id());
        line.connection = connection;
        line.what = Some(what);
        line.log();
    }

    /// A session nobody has yet: CONNECT will name it.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let state = State {
            online: None,
            subscriptions: Subscriptions::default(),
            outbound: None,
            taken: None,
            extra: None,
            backlog: None,
            membership: None,
            will: None,
            expiry_secs: 0,
            connection: 0,
            ended: false,
            is_overrun: false,
            is_awaited: false,
            key: None,
            principal: None,
            away: None,
            sent: 0,
            dropped: 0,
        };
        Self {
            key: OnceLock::new(),
            shared,
            received: AtomicU64::new(0),
            last_heard: AtomicU32::new(0),
            state: Mutex::new(state),
        }
    }

    /// Empty until CONNECT named it.
    pub(crate) fn client_id(&self) -> &str {
        client_id_of(self.key())
    }

    /// What the session is found by; empty until CONNECT named it.
    pub(crate) fn key(&self) -> &str {
        self.key.get().map_or("", |key| key)
    }

    pub(crate) fn name(&self, key: Arc<str>) {
        _ = self.key.set(key);
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Whether a client is connected now.
    pub(crate) fn is_online(&self) -> bool {
        self.lock().online.is_some()
    }

    /// Asks the connection to handle what has come from its client already: that may be its goodbye, or its
    /// last publishes. The connection's number; `None` if there is none.
    pub(crate) fn await_connection(&self) -> Option<u32> {
        let mut state = self.lock();
        state.is_awaited = true;
        state.online.as_ref()?.outbox.notify();
        Some(state.connection)
    }

    /// Whether the connection has still not done what [`Session::await_connection`] asked for.
    pub(crate) fn is_awaiting(&self, connection: u32) -> bool {
        self.lock_as(connection).is_some_and(|state| state.is_awaited)
    }

    /// Nothing that has come from the client is left to handle.
    pub(crate) fn note_drained(&self, connection: u32) {
        if let Some(mut state) = self.lock_as(connection) {
            state.is_awaited = false;
        }
    }

    /// The client has sent something.
    pub(crate) fn note_heard(&self, now: Instant) {
        self.last_heard.store(self.shared.tenths(now).0, Ordering::Relaxed);
    }

    /// When the client last sent something, in milliseconds since 1970.
    pub(crate) fn last_heard_ms(&self) -> u64 {
        self.shared.unix_ms(Tenths(self.last_heard.load(Ordering::Relaxed)))
    }

    /// The client has published.
    pub(crate) fn note_received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    /// Publishes from the client, over all its connections.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The connection ends because too much waits for its client. What waits, if it is to be logged: that is done once
    /// a minute at most.
    pub(crate) fn note_overrun(&self, connection: u32, now: Instant) -> Option<Queued> {
        self.shared.overrun.fetch_add(1, Ordering::Relaxed);
        let now = self.shared.tenths(now);
        self.lock_as(connection)?.outbound.as_mut()?.note_overrun(now)
    }

    /// Why the server ended this connection from outside of it, if it did.
    pub(crate) fn kicked(&self, connection: u32) -> Option<Reason> {
        self.lock_as(connection)?.online.as_ref()?.caller.kicked
    }

    /// As [`Session::lock`], for a connection: `None` once another one has the session, so that what the
    /// older one still had in its buffers changes nothing.
    pub(crate) fn lock_as(&self, connection: u32) -> Option<MutexGuard<'_, State>> {
        let state = self.lock();
        (state.connection == connection && state.online.is_some()).then_some(state)
    }

    /// A message that matched the subscriptions `tags`.
    pub(crate) fn handle_delivery(&self, incoming: &Incoming<'_>, tags: &[u32], wire: &mut impl Wire) {
        let mut state = self.lock();
        let dropped = state.dropped;
        if let Some(online) = &state.online
            && !wire.redirect_as(&online.outbox, state.principal.as_ref(), tags)
        {
            return;
        }
        if state.extra.is_some() {
            if state.is_parked() {
                return state.park(self.config(), incoming, tags);
            }
            state.deliver_admitted(&self.shared, incoming, tags, wire);
            state.note_change();
        } else {
            state.deliver(&self.shared, incoming, tags, wire);
        }
        // A client that is there may also have been spared what is longer than it takes.
        if state.dropped != dropped && (state.online.is_none() || state.is_overrun) {
            wire.note_lost(state.dropped - dropped);
        }
    }

    /// A message for this client alone, whatever it is subscribed to: at QoS 0, with its topic in full, because
    /// the lane may still find no room for it. Where to send it, and the frame.
    ///
    /// # Errors
    /// Nobody is connected, or the client cannot take it.
    pub(crate) fn direct_frame(
        &self,
        message: &Message,
        now_ms: u64,
    ) -> Result<(Arc<Outbox>, Bytes), SendError> {
        let mut state = self.lock();
        let Some(online) = &state.online else { return Err(SendError::Gone) };
        let frame = encode_plain(online.dialect, message, self.shared.characters, now_ms);
        if !state.takes(&frame) {
            return Err(SendError::Inexpressible);
        }
        let outbox = online.outbox.clone();
        state.sent += 1;
        Ok((outbox, frame))
    }

    /// PUBACK, PUBREC or PUBCOMP from the client; the reply to PUBREC is returned.
    ///
    /// # Errors
    /// The packet does not belong to the exchange with that identifier.
    pub(crate) fn handle_ack(
        &self,
        connection: u32,
        now_ms: u64,
        kind: AckKind,
        ack: codec::Ack,
        wire: &mut impl Wire,
    ) -> Result<Option<(AckKind, Reason)>, codec::DecodeError> {
        let Some(mut state) = self.lock_as(connection) else { return Ok(None) };
        let state = &mut *state;
        if state.extra.is_some() {
            state.note_change();
        }
        let reply = match &mut state.outbound {
            Some(outbound) => match outbound.find(ack.packet_id).map(|inflight| &inflight.stage) {
                Some(Stage::Publish(outgoing)) => {
                    let expected =
                        if outgoing.qos == Qos::ExactlyOnce { AckKind::PubRec } else { AckKind::PubAck };
                    if kind != expected {
                        return Err(codec::DecodeError::protocol("acknowledgement of another QoS"));
                    }
                    if kind == AckKind::PubRec && !ack.reason.is_error() {
                        outbound.release(ack.packet_id);
                        match state.extra.as_mut().and_then(|extra| extra.kept.as_mut()) {
                            Some(kept) => {
                                kept.hold(ack.packet_id, Repeat::First);
                                None
                            }
                            None => Some((AckKind::PubRel, Reason::Success)),
                        }
                    } else {
                        outbound.acknowledge(ack.packet_id, !ack.reason.is_error());
                        None
                    }
                }
                Some(Stage::Release) => match kind {
                    AckKind::PubComp => {
                        outbound.finish(ack.packet_id);
                        None
                    }
                    AckKind::PubRec
                        if state
                            .extra
                            .as_ref()
                            .and_then(|extra| extra.kept.as_ref())
                            .is_some_and(|kept| kept.is_held(ack.packet_id)) =>
                    {
                        None
                    }
                    AckKind::PubRec => Some((AckKind::PubRel, Reason::Success)),
                    _ => return Err(codec::DecodeError::protocol("acknowledgement of another QoS")),
                },
                None => unknown_exchange(kind, ack.reason),
            },
            None => unknown_exchange(kind, ack.reason),
        };
        state.pump(self.config(), now_ms, wire);
        state.balance(self.config(), &|| now_ms, wire);
        Ok(reply)
    }

    /// From here on deliveries wait, so that the SUBACK for a subscription goes before its messages.
    pub(crate) fn park(&self, connection: u32) {
        if let Some(mut state) = self.lock_as(connection) {
            state.extra.get_or_insert_default().parked.get_or_insert_default();
        }
    }

    /// Sends the SUBACK and then what waited for it.
    pub(crate) fn unpark(&self, connection: u32, now_ms: u64, suback: &Bytes, wire: &mut impl Wire) {
        let Some(mut state) = self.lock_as(connection) else { return };
        wire.send(suback, Class::Control);
        for parked in state.take_parked() {
            let Parked { message, kind, publisher, tags } = parked;
            let incoming = Incoming { message: &message, kind, publisher, lane: None, clock: &|| now_ms };
            state.deliver_admitted(&self.shared, &incoming, &tags, wire);
        }
        state.balance(self.config(), &|| now_ms, wire);
    }

    /// What it shows to its groups; made for the first of them.
    pub(crate) fn room(&self) -> Arc<Room> {
        let mut state = self.lock();
        let State { membership, online, .. } = &mut *state;
        let membership = membership.get_or_insert_with(|| {
            let mut membership = Membership::default();
            if let Some(online) = online {
                membership.connect(&online.outbox);
            }
            Box::new(membership)
        });
        membership.room().clone()
    }

    /// From here on messages of the subscription `tag` go through this group. False if the session is over.
    pub(crate) fn enter_group(&self, tag: u32, group: Arc<Group>) -> bool {
        let mut state = self.lock();
        if state.ended {
            return false;
        }
        state.membership.get_or_insert_default().enter(tag, group);
        true
    }
}

/// An acknowledgement for an identifier nobody waits for: late, repeated or wrong; only PUBREC has
/// an answer, unless it ends the exchange itself.
fn unknown_exchange(kind: AckKind, said: Reason) -> Option<(AckKind, Reason)> {
    (kind == AckKind::PubRec && !said.is_error())
        .then_some((AckKind::PubRel, Reason::PacketIdentifierNotFound))
}

/// Beyond this many messages that wait in the session, its next page of retained ones stays in the store.
const MAX_RETAINED_AHEAD: usize = 256;

impl State {
    /// Begins a connection's life in this session: CONNACK first, then what the last connection left
    /// unfinished, then what waited (MQTT 5.0 §4.4).
    pub(crate) fn handle_connected(
        &mut self,
        config: &Config,
        now_ms: u64,
        online: Online,
        connack: &Bytes,
        wire: &mut impl Wire,
    ) {
        self.online = Some(online);
        (self.is_overrun, self.is_awaited) = (false, false);
        self.connection += 1;
        self.take_parked();
        self.backlog = None;
        if let Some(outbound) = &mut self.outbound {
            outbound.restart();
        }
        wire.send(connack, Class::Control);
        self.pump(config, now_ms, wire);
        if let (Some(membership), Some(online)) = (&mut self.membership, &self.online) {
            membership.connect(&online.outbox);
        }
        self.balance(config, &|| now_ms, wire);
    }

    /// The connection ended while a SUBSCRIBE was under way: what waited for its SUBACK goes the way of all
    /// messages for a detached session.
    pub(crate) fn unpark_offline(&mut self, shared: &Shared) {
        for Parked { message, kind, publisher, tags } in self.take_parked() {
            let incoming = Incoming { message: &message, kind, publisher, lane: None, clock: &steady_ms };
            self.deliver_admitted(shared, &incoming, &tags, &mut Nowhere);
        }
    }

    /// Whether another page of retained messages may come: what waits in the session is soon sent, and the SUBACK that
    /// they follow is out.
    pub(crate) fn has_room_for_retained(&self) -> bool {
        let queued = self.outbound.as_ref().map_or(0, |outbound| outbound.queued().messages);
        let backlog = self.backlog.as_ref().map_or(0, |backlog| backlog.len());
        !self.is_parked() && queued.max(backlog) < MAX_RETAINED_AHEAD
    }

    pub(super) fn is_parked(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.parked.is_some())
    }

    fn take_parked(&mut self) -> Vec<Parked> {
        let Some(extra) = &mut self.extra else { return Vec::new() };
        let parked = extra.parked.take();
        if extra.kept.is_none() {
            self.extra = None;
        }
        parked.map_or_else(Vec::new, |parked| parked.deliveries)
    }

    /// Delivers what a session is to have whose messages an engine keeps, and all to others.
    fn deliver_admitted(
        &mut self,
        shared: &Shared,
        incoming: &Incoming<'_>,
        tags: &[u32],
        wire: &mut impl Wire,
    ) {
        let tags = self.admit(incoming, tags, shared.config.queue_qos0_offline);
        if !tags.is_empty() {
            self.deliver(shared, incoming, &tags, wire);
        }
    }

    fn park(&mut self, config: &Config, incoming: &Incoming<'_>, tags: &[u32]) {
        let Some(parked) = self.extra.as_mut().and_then(|extra| extra.parked.as_mut()) else { return };
        // The bound is that of where they will wait next: what is retained is in the store anyway.
        let (count, max) = match incoming.kind {
            Kind::Retained => (&mut parked.retained, config.max_waiting_retained),
            Kind::Live | Kind::Replayed | Kind::Direct => (&mut parked.live, config.max_live_queued_messages),
        };
        if *count >= max {
            if incoming.kind != Kind::Retained && self.kept().is_some() {
                // It can be read again, on the next connection.
                self.is_overrun = true;
                if let Some(online) = &self.online {
                    online.outbox.notify();
                }
            } else {
                self.dropped += 1;
            }
            return;
        }
        *count += 1;
        parked.deliveries.push(Parked {
            message: incoming.message.clone(),
            kind: incoming.kind,
            publisher: incoming.publisher,
            tags: tags.into(),
        });
    }
}

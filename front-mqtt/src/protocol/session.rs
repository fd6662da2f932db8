//! What may outlive a connection: subscriptions, queue, exchanges in flight.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use broker_core::{
    Action, Broker, Class, Delivery, Encoding, Kind, Message, Outbox, Principal, Qos, SubscriberKey,
};
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use super::alias::{AliasUse, OutgoingAliases};
use super::convert::message_properties;
use super::end::PendingWill;
use super::outbound::{Outbound, Outgoing, Stage};
use super::subscriptions::Subscriptions;
use super::wire::{Nowhere, Wire};
use crate::codec::{
    self, AckKind, Dialect, EncodedPublish, Framing, PublishHeader, Reason, Sharing, Version,
};
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

    fn of(&self, dialect: Dialect) -> Encoding {
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
    /// Milliseconds since 1970; only looked at if the message expires.
    pub(crate) now_ms: u64,
}

/// One client's session.
pub(crate) struct Session {
    client_id: OnceLock<Arc<str>>,
    shared: Arc<Shared>,
    state: Mutex<State>,
}

/// What all sessions of a front share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    /// `None` where no lane delivers: in tests of the protocol alone.
    pub(crate) encodings: Option<Encodings>,
}

/// What the mutex guards.
pub(crate) struct State {
    pub(crate) online: Option<Online>,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) outbound: Option<Box<Outbound>>,
    /// Identifiers of QoS 2 publishes that were taken and not yet released, sorted.
    pub(crate) received: Vec<u16>,
    /// Deliveries that wait for a SUBACK to be sent before them.
    parked: Option<Vec<Parked>>,
    pub(crate) will: Option<Box<PendingWill>>,
    /// Seconds the session outlives its connection; `u32::MAX` is for ever.
    pub(crate) expiry_secs: u32,
    /// Numbers the connections: one that was taken over finds another number here and leaves things alone.
    pub(crate) connection: u64,
    pub(crate) ended: bool,
    pub(crate) key: Option<SubscriberKey>,
    /// Whose rights count; the last connection's while there is none.
    pub(crate) principal: Option<Principal>,
    /// Names the entry in the front's timers while the session is detached.
    pub(crate) timer: Option<Box<TimerKey>>,
    pub(crate) sent: u64,
    pub(crate) dropped: u64,
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
}

struct Parked {
    message: Arc<Message>,
    kind: Kind,
    publisher: Option<SubscriberKey>,
    tags: Box<[u32]>,
}

impl Session {
    /// A session nobody has yet: CONNECT will name it.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let state = State {
            online: None,
            subscriptions: Subscriptions::default(),
            outbound: None,
            received: Vec::new(),
            parked: None,
            will: None,
            expiry_secs: 0,
            connection: 0,
            ended: false,
            key: None,
            principal: None,
            timer: None,
            sent: 0,
            dropped: 0,
        };
        Self { client_id: OnceLock::new(), shared, state: Mutex::new(state) }
    }

    /// Empty until CONNECT named it.
    pub(crate) fn client_id(&self) -> &str {
        self.client_id.get().map_or("", |id| id)
    }

    pub(crate) fn name(&self, client_id: Arc<str>) {
        _ = self.client_id.set(client_id);
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Whether a client is connected now.
    pub(crate) fn is_online(&self) -> bool {
        self.lock().online.is_some()
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// A message that matched the subscriptions `tags`.
    pub(crate) fn handle_delivery(&self, incoming: &Incoming<'_>, tags: &[u32], wire: &mut impl Wire) {
        let mut state = self.lock();
        if state.parked.is_some() {
            return state.park(self.config(), incoming, tags);
        }
        if let Some(online) = &state.online {
            wire.redirect(&online.outbox);
        }
        state.deliver(&self.shared, incoming, tags, wire);
    }

    /// PUBACK, PUBREC or PUBCOMP from the client; the reply to PUBREC is returned.
    ///
    /// # Errors
    /// The packet does not belong to the exchange with that identifier.
    pub(crate) fn handle_ack(
        &self,
        now_ms: u64,
        kind: AckKind,
        ack: codec::Ack,
        wire: &mut impl Wire,
    ) -> Result<Option<(AckKind, Reason)>, codec::DecodeError> {
        let mut state = self.lock();
        let state = &mut *state;
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
                        Some((AckKind::PubRel, Reason::Success))
                    } else {
                        outbound.finish(ack.packet_id);
                        None
                    }
                }
                Some(Stage::Release) => match kind {
                    AckKind::PubComp => {
                        outbound.finish(ack.packet_id);
                        None
                    }
                    AckKind::PubRec => Some((AckKind::PubRel, Reason::Success)),
                    _ => return Err(codec::DecodeError::protocol("acknowledgement of another QoS")),
                },
                None => unknown_exchange(kind),
            },
            None => unknown_exchange(kind),
        };
        state.pump(self.config(), now_ms, wire);
        Ok(reply)
    }

    /// From here on deliveries wait, so that the SUBACK for a subscription goes before its messages.
    pub(crate) fn park(&self) {
        self.lock().parked.get_or_insert_default();
    }

    /// Sends the SUBACK and then what waited for it.
    pub(crate) fn unpark(&self, now_ms: u64, suback: &Bytes, wire: &mut impl Wire) {
        let mut state = self.lock();
        wire.send(suback, Class::Control);
        for parked in state.parked.take().into_iter().flatten() {
            let Parked { message, kind, publisher, tags } = parked;
            let incoming = Incoming { message: &message, kind, publisher, lane: None, now_ms };
            state.deliver(&self.shared, &incoming, &tags, wire);
        }
    }

    /// Takes over a message that another member of the shared subscription `filter` can no longer deliver.
    /// Gives it back if this session does not hold that subscription.
    pub(crate) fn adopt(&self, now_ms: u64, filter: &str, orphan: Outgoing) -> Result<(), Outgoing> {
        let mut state = self.lock();
        let subscription = state.subscriptions.tag_of(filter).and_then(|tag| state.subscriptions.by_tag(tag));
        let Some(subscription) = subscription.filter(|_| !state.ended) else { return Err(orphan) };
        let outgoing = Outgoing {
            qos: orphan.message.qos().min(subscription.qos),
            ids: one_id(subscription.id),
            shared: Some(subscription.tag),
            ..orphan
        };
        match state.online.as_ref().map(|online| online.outbox.clone()) {
            Some(outbox) => state.emit(self.config(), outgoing, now_ms, &mut &outbox),
            None => state.emit(self.config(), outgoing, now_ms, &mut Nowhere),
        }
        Ok(())
    }
}

/// An acknowledgement for an identifier nobody waits for: late, repeated or wrong; only PUBREC has an answer.
fn unknown_exchange(kind: AckKind) -> Option<(AckKind, Reason)> {
    (kind == AckKind::PubRec).then_some((AckKind::PubRel, Reason::PacketIdentifierNotFound))
}

fn one_id(id: u32) -> Box<[u32]> {
    if id == 0 { Box::default() } else { Box::new([id]) }
}

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
        self.connection += 1;
        self.parked = None;
        if let Some(outbound) = &mut self.outbound {
            outbound.restart();
        }
        wire.send(connack, Class::Control);
        self.pump(config, now_ms, wire);
    }

    /// The connection ended while a SUBSCRIBE was under way: what waited for its SUBACK goes the way of all
    /// messages for a detached session.
    pub(crate) fn unpark_offline(&mut self, shared: &Shared) {
        for Parked { message, kind, publisher, tags } in self.parked.take().into_iter().flatten() {
            let incoming = Incoming { message: &message, kind, publisher, lane: None, now_ms: 0 };
            self.deliver(shared, &incoming, &tags, &mut Nowhere);
        }
    }

    fn park(&mut self, config: &Config, incoming: &Incoming<'_>, tags: &[u32]) {
        let Some(parked) = &mut self.parked else { return };
        if parked.len() >= config.max_queued_messages {
            self.dropped += 1;
            return;
        }
        parked.push(Parked {
            message: incoming.message.clone(),
            kind: incoming.kind,
            publisher: incoming.publisher,
            tags: tags.into(),
        });
    }

    /// One copy for all plain subscriptions that match, one for each shared one (MQTT 5.0 §3.3.4, §4.8.2).
    fn deliver(&mut self, shared: &Shared, incoming: &Incoming<'_>, tags: &[u32], wire: &mut impl Wire) {
        let message = incoming.message;
        let config = &shared.config;
        let mut plain: Option<(Qos, bool)> = None;
        let mut ids: Box<[u32]> = Box::default();
        let mut by_group: Vec<Outgoing> = Vec::new();
        for &tag in tags {
            // Unsubscribed while the message was on its way.
            let Some(subscription) = self.subscriptions.by_tag(tag) else { continue };
            if subscription.no_local && incoming.publisher.is_some() && incoming.publisher == self.key {
                continue;
            }
            if subscription.wildcard
                && let Some(principal) = &self.principal
                && !principal.allows(Action::Subscribe, message.channel())
            {
                continue;
            }
            let retain = match incoming.kind {
                Kind::Retained => true,
                Kind::Live | Kind::Replayed => subscription.retain_as_published && message.retain(),
            };
            if subscription.shared {
                by_group.push(Outgoing {
                    message: message.clone(),
                    qos: message.qos().min(subscription.qos),
                    retain,
                    ids: one_id(subscription.id),
                    shared: Some(tag),
                });
                continue;
            }
            if subscription.id != 0 && !ids.contains(&subscription.id) {
                ids = ids.iter().copied().chain([subscription.id]).collect();
            }
            let (qos, kept) = plain.unwrap_or((Qos::AtMostOnce, false));
            plain = Some((qos.max(subscription.qos), kept | retain));
        }
        if let Some((granted, retain)) = plain {
            let qos = message.qos().min(granted);
            let plain = qos == Qos::AtMostOnce && !retain && ids.is_empty();
            if !plain || !self.send_shared(shared.encodings.as_ref(), incoming, wire) {
                let outgoing = Outgoing { message: message.clone(), qos, retain, ids, shared: None };
                self.emit(config, outgoing, incoming.now_ms, wire);
            }
        }
        for outgoing in by_group {
            self.emit(config, outgoing, incoming.now_ms, wire);
        }
    }

    /// Sends the PUBLISH that all plain QoS 0 subscribers share. False if this connection needs its own.
    fn send_shared(
        &mut self,
        encodings: Option<&Encodings>,
        incoming: &Incoming<'_>,
        wire: &mut impl Wire,
    ) -> bool {
        let (Some(delivery), Some(encodings)) = (incoming.lane, encodings) else { return false };
        let Some(online) = self.online.as_ref().filter(|online| online.aliases.is_none()) else {
            return false;
        };
        let dialect = online.dialect;
        let frame = delivery
            .encoded(encodings.of(dialect), |message| encode_plain(dialect, message, incoming.now_ms));
        if frame.is_empty() || packet_bytes(dialect.framing, frame) > online.max_packet_bytes as usize {
            self.dropped += 1;
        } else {
            self.sent += 1;
            wire.send(frame, Class::Droppable);
        }
        true
    }

    fn emit(&mut self, config: &Config, outgoing: Outgoing, now_ms: u64, wire: &mut impl Wire) {
        if outgoing.qos == Qos::AtMostOnce && (self.online.is_some() || !config.queue_qos0_offline) {
            return self.send_once(&outgoing, now_ms, wire);
        }
        let outbound = self.outbound.get_or_insert_default();
        let starts = self.online.as_ref().is_some_and(|online| {
            outbound.queued() == 0
                && outbound.has_room_for(outgoing.weight(), online.max_inflight, config.max_inflight_bytes)
        });
        if starts {
            self.start(outgoing, now_ms, wire);
        } else if !outbound.enqueue(outgoing, config.max_queued_messages, config.max_queued_bytes) {
            self.dropped += 1;
        }
    }

    /// QoS 0: to the client or nowhere.
    fn send_once(&mut self, outgoing: &Outgoing, now_ms: u64, wire: &mut impl Wire) {
        let Some(online) = &mut self.online else { return };
        let Some((encoded, introduces)) =
            encode(online, outgoing, 0, Repeat::First, Sharing::OneBuffer, now_ms)
        else {
            self.dropped += 1;
            return;
        };
        self.sent += 1;
        // A frame that introduces an alias must arrive, or every later one would be misread.
        wire.send(&encoded.head, if introduces { Class::Control } else { Class::Droppable });
    }

    /// QoS 1 and 2: sent now and kept until the client answers. Too large a packet is as if delivered
    /// (MQTT 5.0 §3.1.2.11.4) and takes neither an identifier nor a place.
    fn start(&mut self, outgoing: Outgoing, now_ms: u64, wire: &mut impl Wire) {
        let Some(online) = &mut self.online else { return };
        let outbound = self.outbound.get_or_insert_default();
        let packet_id = outbound.next_id();
        match encode(online, &outgoing, packet_id, Repeat::First, Sharing::Allowed, now_ms) {
            Some((encoded, _)) => {
                send(encoded, wire);
                self.sent += 1;
                outbound.start(packet_id, outgoing);
            }
            None => self.dropped += 1,
        }
    }

    /// Repeats what the last connection left, then starts what waits, as far as there are places.
    pub(crate) fn pump(&mut self, config: &Config, now_ms: u64, wire: &mut impl Wire) {
        loop {
            let Some(online) = &mut self.online else { return };
            let Some(outbound) = &mut self.outbound else { return };
            let max_inflight = online.max_inflight;
            if let Some(repeat) = outbound.next_repeat(max_inflight) {
                match &repeat.stage {
                    Stage::Release => {
                        let frame = codec::ack(
                            online.dialect,
                            AckKind::PubRel,
                            repeat.packet_id,
                            Reason::Success,
                            None,
                        );
                        wire.send(&frame, Class::Control);
                    }
                    Stage::Publish(outgoing) => {
                        let again = encode(
                            online,
                            outgoing,
                            repeat.packet_id,
                            Repeat::Again,
                            Sharing::Allowed,
                            now_ms,
                        );
                        match again {
                            Some((encoded, _)) => send(encoded, wire),
                            None => {
                                outbound.finish(repeat.packet_id);
                                self.dropped += 1;
                            }
                        }
                    }
                }
                continue;
            }
            if !outbound.has_room(max_inflight, config.max_inflight_bytes) {
                return;
            }
            let Some(next) = outbound.dequeue(now_ms) else { return };
            if next.qos == Qos::AtMostOnce {
                self.send_once(&next, now_ms, wire);
            } else {
                self.start(next, now_ms, wire);
            }
        }
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Repeat {
    First,
    Again,
}

/// One PUBLISH for one connection, and whether it introduces a topic alias. `None` if the client does not
/// take packets of that size.
fn encode(
    online: &mut Online,
    outgoing: &Outgoing,
    packet_id: u16,
    repeat: Repeat,
    sharing: Sharing,
    now_ms: u64,
) -> Option<(EncodedPublish, bool)> {
    let message = &outgoing.message;
    let topic = message.channel();
    let alias = online.aliases.as_ref().map_or(AliasUse::None, |aliases| aliases.look_up(topic));
    let (name, topic_alias) = match alias {
        AliasUse::None => (topic.as_str(), 0),
        AliasUse::Introduce(alias) => (topic.as_str(), alias),
        AliasUse::Known(alias) => ("", alias),
    };
    let properties =
        if online.dialect.version.is_v5() { message_properties(message, now_ms) } else { Vec::new() };
    let header = PublishHeader {
        qos: outgoing.qos,
        dup: repeat == Repeat::Again,
        retain: outgoing.retain,
        packet_id,
        topic: name,
        topic_alias,
        subscription_ids: if online.dialect.version.is_v5() { &outgoing.ids } else { &[] },
    };
    let encoded = codec::publish(online.dialect, &header, &properties, message.payload(), sharing)
        .filter(|encoded| encoded.packet_bytes <= online.max_packet_bytes as usize)?;
    let introduces = matches!(alias, AliasUse::Introduce(_));
    if let (AliasUse::Introduce(alias), Some(aliases)) = (alias, &mut online.aliases) {
        aliases.commit(topic, alias);
    }
    Some((encoded, introduces))
}

fn send(encoded: EncodedPublish, wire: &mut impl Wire) {
    match encoded.tail {
        Some(tail) => wire.send_parts(&[encoded.head, tail]),
        None => wire.send(&encoded.head, Class::Control),
    }
}

/// The QoS 0 PUBLISH with nothing of any subscriber in it; empty if MQTT cannot say it.
fn encode_plain(dialect: Dialect, message: &Message, now_ms: u64) -> Bytes {
    let properties = if dialect.version.is_v5() { message_properties(message, now_ms) } else { Vec::new() };
    let header = PublishHeader::plain(message.channel().as_str());
    codec::publish(dialect, &header, &properties, message.payload(), Sharing::OneBuffer)
        .map_or_else(Bytes::new, |encoded| encoded.head)
}

/// Size of the MQTT packet in a frame.
fn packet_bytes(framing: Framing, frame: &Bytes) -> usize {
    let around = match (framing, frame.len()) {
        (Framing::Raw, _) => 0,
        (Framing::WebSocket, ..=127) => 2,
        (Framing::WebSocket, ..=65_539) => 4,
        (Framing::WebSocket, _) => 10,
    };
    frame.len() - around
}

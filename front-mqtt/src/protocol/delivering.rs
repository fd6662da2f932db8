//! Messages toward the client: which copies a match amounts to, what is sent now, what waits.

use std::sync::Arc;

use broker_core::{ChannelCharacters, Class, Delivery, Kind, Message, Outbox, Qos};
use bytes::Bytes;

use super::alias::AliasUse;
use super::convert::message_properties;
use super::group::Group;
use super::outbound::{Outgoing, Stage};
use super::queue::{Clock, Queue, time_for};
use super::session::{Incoming, Online, Session, Shared, State};
use super::subscriptions::Subscription;
use super::wire::Wire;
use crate::codec::{
    self, AckKind, Dialect, EncodedPublish, Framing, PublishHeader, Reason, Sharing, topic_is_valid,
};
use crate::config::Config;

/// What a message amounts to for one session.
#[derive(Default)]
struct Copies {
    /// One for all plain subscriptions that match (MQTT 5.0 §3.3.4): the highest QoS granted, and whether
    /// RETAIN is set.
    plain: Option<(Qos, bool)>,
    ids: Box<[u32]>,
    /// One for each shared subscription (MQTT 5.0 §4.8.2).
    by_group: Vec<Outgoing>,
    /// The groups of shared subscriptions that are over: another member gets it.
    strays: Vec<Arc<Group>>,
}

/// What one subscription has to do with a message.
enum Matched<'s> {
    /// Nothing: it is over since, or the message is its own client's.
    Nothing,
    /// It was a shared one and is over: another member of its group gets the message.
    Stray(&'s Arc<Group>),
    /// It gets a copy, with RETAIN or without.
    Subscription(&'s Subscription, bool),
}

/// One copy for several subscriptions: of the highest QoS, and with RETAIN if one of them has it.
fn highest(plain: Option<(Qos, bool)>, granted: Qos, retain: bool) -> (Qos, bool) {
    let (qos, kept) = plain.unwrap_or((Qos::AtMostOnce, false));
    (qos.max(granted), kept | retain)
}

impl Session {
    /// The frame a lane may send to `outbox` by itself: a QoS 0 PUBLISH that all plain subscribers share.
    /// Asking changes nothing, because the lane may find that it cannot use the answer.
    pub(crate) fn shared_frame<'d>(
        &self,
        delivery: &'d Delivery,
        incoming: &Incoming<'_>,
        tags: &[u32],
        outbox: &Arc<Outbox>,
    ) -> Option<&'d Bytes> {
        let state = self.lock();
        let goes_there = state.online.as_ref().is_some_and(|online| Arc::ptr_eq(&online.outbox, outbox));
        if state.extra.is_some() || state.backlog.is_some() || !goes_there {
            return None;
        }
        let (granted, retain) = state.plain_copy(incoming, tags)?;
        if retain || granted.min(incoming.message.qos()) != Qos::AtMostOnce {
            return None;
        }
        let frame = state.common_frame(self.shared(), delivery, incoming.clock)?;
        state.takes(frame).then_some(frame)
    }

    /// The connection's task has a turn: retained messages that waited for room are sent as far as there is.
    pub(crate) fn handle_backlog(&self, connection: u32, now_ms: u64, wire: &mut impl Wire) -> Backlog {
        let Some(mut state) = self.lock_as(connection) else { return Backlog::Empty };
        if state.is_overrun {
            return Backlog::Overrun;
        }
        let left = state.send_backlog(self.config(), now_ms, wire);
        left.and(state.handle_wanted(self.config(), &|| now_ms, wire))
    }
}

/// What is left of a backlog after a turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Backlog {
    /// Nothing.
    Empty,
    /// Something, and room for it.
    More,
    /// Something, once the client has read what it was sent.
    NoRoom,
    /// More waits at QoS 1 and 2 than may for a connected client: [`Connection::handle_overrun`] is to be called.
    ///
    /// [`Connection::handle_overrun`]: super::Connection::handle_overrun
    Overrun,
}

impl Backlog {
    /// What is left of two.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::More, _) | (_, Self::More) => Self::More,
            (Self::NoRoom, _) | (_, Self::NoRoom) => Self::NoRoom,
            (first, _) => first,
        }
    }
}

/// Messages of a backlog sent before the host's other tasks get a turn.
pub(super) const BACKLOG_TURN: usize = 64;

impl State {
    pub(super) fn deliver(
        &mut self,
        shared: &Shared,
        incoming: &Incoming<'_>,
        tags: &[u32],
        wire: &mut impl Wire,
    ) {
        if let Some(plain) = self.plain_copy(incoming, tags) {
            self.deliver_plain(shared, incoming, plain, Box::default(), wire);
        } else {
            let Copies { plain, ids, by_group, strays } = self.copies(incoming, tags);
            if let Some(plain) = plain {
                self.deliver_plain(shared, incoming, plain, ids, wire);
            }
            for outgoing in by_group {
                self.deliver_shared(&shared.config, outgoing, incoming.clock, wire);
            }
            for group in strays {
                group.push_stray(incoming.message, incoming.clock);
            }
        }
        self.balance(&shared.config, incoming.clock, wire);
    }

    /// The copy of all plain subscriptions.
    fn deliver_plain(
        &mut self,
        shared: &Shared,
        incoming: &Incoming<'_>,
        (granted, retain): (Qos, bool),
        ids: Box<[u32]>,
        wire: &mut impl Wire,
    ) {
        let message = incoming.message;
        let qos = message.qos().min(granted);
        let common = incoming
            .lane
            .filter(|_| qos == Qos::AtMostOnce && !retain && ids.is_empty() && self.backlog.is_none())
            .and_then(|delivery| self.common_frame(shared, delivery, incoming.clock));
        match common {
            Some(frame) if self.takes(frame) => {
                self.sent += 1;
                wire.send(frame, Class::Droppable);
            }
            Some(_) => self.dropped += 1,
            None => {
                let outgoing = Outgoing {
                    message: message.clone(),
                    qos,
                    retain,
                    ids,
                    shared: None,
                    from_store: incoming.kind == Kind::Retained,
                    ticket: None,
                };
                self.emit(&shared.config, outgoing, incoming.clock, wire);
            }
        }
    }

    /// What a subscription has to do with a message.
    #[inline]
    fn matched(&self, incoming: &Incoming<'_>, tag: u32) -> Matched<'_> {
        let Some(subscription) = self.subscriptions.by_tag(tag) else {
            let left = self.membership.as_ref().and_then(|membership| membership.left(tag));
            return left.map_or(Matched::Nothing, Matched::Stray);
        };
        if subscription.no_local && incoming.publisher.is_some() && incoming.publisher == self.key {
            return Matched::Nothing;
        }
        let retain = match incoming.kind {
            Kind::Retained => true,
            Kind::Live | Kind::Replayed | Kind::Direct => {
                subscription.retain_as_published && incoming.message.retain()
            }
        };
        Matched::Subscription(subscription, retain)
    }

    /// What all matching subscriptions amount to where that is one plain copy, which says nothing of them: the highest QoS
    /// granted, and RETAIN. Almost every delivery is one, and is looked at here without room for anything else.
    #[inline]
    fn plain_copy(&self, incoming: &Incoming<'_>, tags: &[u32]) -> Option<(Qos, bool)> {
        let mut plain = None;
        for &tag in tags {
            match self.matched(incoming, tag) {
                Matched::Nothing => {}
                Matched::Subscription(one, retain) if !one.shared && one.id == 0 => {
                    plain = Some(highest(plain, one.qos, retain));
                }
                Matched::Subscription(..) | Matched::Stray(_) => return None,
            }
        }
        plain
    }

    fn copies(&self, incoming: &Incoming<'_>, tags: &[u32]) -> Copies {
        let message = incoming.message;
        let mut copies = Copies::default();
        for &tag in tags {
            let (subscription, retain) = match self.matched(incoming, tag) {
                Matched::Nothing => continue,
                Matched::Stray(group) => {
                    copies.strays.push(Arc::clone(group));
                    continue;
                }
                Matched::Subscription(subscription, retain) => (subscription, retain),
            };
            if subscription.shared {
                copies.by_group.push(Outgoing {
                    message: message.clone(),
                    qos: message.qos().min(subscription.qos),
                    retain,
                    ids: one_id(subscription.id),
                    shared: Some(tag),
                    from_store: false,
                    ticket: None,
                });
                continue;
            }
            if subscription.id != 0 && !copies.ids.contains(&subscription.id) {
                copies.ids = copies.ids.iter().copied().chain([subscription.id]).collect();
            }
            copies.plain = Some(highest(copies.plain, subscription.qos, retain));
        }
        copies
    }

    /// The PUBLISH that all plain QoS 0 subscribers share; `None` if this connection needs its own.
    fn common_frame<'d>(
        &self,
        shared: &Shared,
        delivery: &'d Delivery,
        clock: Clock<'_>,
    ) -> Option<&'d Bytes> {
        let online = self.online.as_ref().filter(|online| online.aliases.is_none())?;
        let dialect = online.dialect;
        let slot = shared.encodings.as_ref()?.of(dialect);
        let characters = shared.characters;
        Some(
            delivery.encoded(slot, |message| {
                encode_plain(dialect, message, characters, time_for(message, clock))
            }),
        )
    }

    /// Whether the client takes a packet of that size. An empty frame is one that MQTT cannot say.
    pub(super) fn takes(&self, frame: &Bytes) -> bool {
        self.online.as_ref().is_some_and(|online| {
            !frame.is_empty()
                && packet_bytes(online.dialect.framing, frame) <= online.max_packet_bytes as usize
        })
    }

    pub(super) fn emit(
        &mut self,
        config: &Config,
        outgoing: Outgoing,
        clock: Clock<'_>,
        wire: &mut impl Wire,
    ) {
        if outgoing.qos == Qos::AtMostOnce && self.online.is_some() {
            return self.send_in_turn(config, outgoing, clock, wire);
        }
        if outgoing.qos == Qos::AtMostOnce && !config.queue_qos0_offline {
            return;
        }
        let outbound = self.outbound.get_or_insert_default();
        let starts = self.online.as_ref().is_some_and(|online| {
            outbound.is_queue_empty()
                && outbound.has_room_for(outgoing.weight(), online.max_inflight, config.max_inflight_bytes)
        });
        if starts {
            let now_ms = time_for(&outgoing.message, clock);
            self.start(outgoing, now_ms, wire);
        } else {
            self.enqueue(config, outgoing, clock);
        }
    }

    /// A message waits in the session. If its client is connected and there is no place for it, the client is so slow
    /// that it is better off being told: its connection is to end, and from here on the session is an absent client's.
    fn enqueue(&mut self, config: &Config, outgoing: Outgoing, clock: Clock<'_>) {
        let outbound = self.outbound.get_or_insert_default();
        if outgoing.from_store {
            let is_taken = outbound.enqueue_retained(outgoing, config, clock);
            self.dropped += u64::from(!is_taken);
            return;
        }
        let outgoing = match &self.online {
            Some(online) if !self.is_overrun => match outbound.enqueue(outgoing, config, clock) {
                Ok(()) => return,
                Err(outgoing) => {
                    self.is_overrun = true;
                    online.outbox.notify();
                    outgoing
                }
            },
            _ => outgoing,
        };
        if self.extra.is_some() && self.is_missed(&outgoing) {
            return;
        }
        let outbound = self.outbound.get_or_insert_default();
        self.dropped += outbound.enqueue_absent(outgoing, config, clock);
    }

    /// QoS 0 goes at once, unless it is one of many retained messages that the outbox has no room for: then it
    /// waits, and what comes after it too, or an old retained message would come behind its successor.
    fn send_in_turn(&mut self, config: &Config, outgoing: Outgoing, clock: Clock<'_>, wire: &mut impl Wire) {
        let waits = match &self.backlog {
            Some(_) => true,
            None => outgoing.from_store && !self.has_room(config),
        };
        if !waits {
            let now_ms = time_for(&outgoing.message, clock);
            return self.send_once(&outgoing, now_ms, wire);
        }
        let backlog = self.backlog.get_or_insert_default();
        let is_full = |backlog: &Queue| backlog.len() >= config.max_waiting_retained;
        if is_full(backlog) {
            backlog.expire(clock);
        }
        if is_full(backlog) {
            self.dropped += 1;
            return;
        }
        backlog.push_back(outgoing);
        if backlog.len() == 1
            && let Some(online) = &self.online
        {
            online.outbox.notify();
        }
    }

    /// Whether at most half of the outbox is in use.
    pub(super) fn has_room(&self, config: &Config) -> bool {
        self.online.as_ref().is_some_and(|online| {
            let (queued, bounds) = (online.outbox.queued(), &config.outbox);
            queued.messages < bounds.max_messages / 2 && queued.bytes < bounds.max_bytes / 2
        })
    }

    /// Sends of the backlog what the outbox has room for, a turn's worth at most.
    fn send_backlog(&mut self, config: &Config, now_ms: u64, wire: &mut impl Wire) -> Backlog {
        for _ in 0..BACKLOG_TURN {
            if !self.has_room(config) {
                return if self.backlog.is_some() { Backlog::NoRoom } else { Backlog::Empty };
            }
            let next = self.backlog.as_mut().and_then(|backlog| backlog.pop(now_ms));
            let Some(next) = next else {
                self.backlog = None;
                return Backlog::Empty;
            };
            self.send_once(&next, now_ms, wire);
        }
        Backlog::More
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
        if let Some(kept) = self.extra.as_mut().and_then(|extra| extra.kept.as_mut()) {
            if let Some(packet_id) = kept.restored_id(&outgoing) {
                match encode(online, &outgoing, packet_id, Repeat::Again, Sharing::Allowed, now_ms) {
                    Some((encoded, _)) => {
                        send(encoded, wire);
                        outbound.resume(packet_id, outgoing);
                    }
                    None => self.dropped += 1,
                }
                return;
            }
            if outgoing.qos == Qos::ExactlyOnce && kept.offset_in(&outgoing).is_some() {
                let packet_id = outbound.next_id();
                kept.hold(packet_id, Repeat::First);
                outbound.start(packet_id, outgoing);
                return;
            }
        }
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
                if let Some(kept) = self.extra.as_mut().and_then(|extra| extra.kept.as_mut())
                    && kept.holds(&repeat.stage)
                {
                    // What the last connection left may not be recorded yet.
                    kept.hold(repeat.packet_id, Repeat::Again);
                    continue;
                }
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
pub(super) enum Repeat {
    First,
    Again,
}

/// One PUBLISH for one connection, and whether it introduces a topic alias. `None` if the client does not
/// take packets of that size.
pub(super) fn encode(
    online: &mut Online,
    outgoing: &Outgoing,
    packet_id: u16,
    repeat: Repeat,
    sharing: Sharing,
    now_ms: u64,
) -> Option<(EncodedPublish, bool)> {
    let message = &outgoing.message;
    let topic = message.channel();
    if !topic_is_valid(topic.as_str()) {
        return None;
    }
    let alias = online.aliases.as_ref().map_or(AliasUse::None, |aliases| aliases.look_up(topic));
    let (name, topic_alias) = match alias {
        AliasUse::None => (topic.as_str(), 0),
        AliasUse::Introduce(alias) => (topic.as_str(), alias),
        AliasUse::Known(alias) => ("", alias),
    };
    let properties = if online.dialect.version.is_v5() {
        message_properties(message, online.caller.characters, now_ms)
    } else {
        Vec::new()
    };
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

pub(super) fn send(encoded: EncodedPublish, wire: &mut impl Wire) {
    match encoded.tail {
        Some(tail) => wire.send_parts(&[encoded.head, tail]),
        None => wire.send(&encoded.head, Class::Control),
    }
}

/// The QoS 0 PUBLISH with nothing of any subscriber in it; empty if MQTT cannot say it: other protocols may
/// publish to channels with `+` or `#` in their names.
pub(super) fn encode_plain(
    dialect: Dialect,
    message: &Message,
    characters: ChannelCharacters,
    now_ms: u64,
) -> Bytes {
    if !topic_is_valid(message.channel().as_str()) {
        return Bytes::new();
    }
    let properties =
        if dialect.version.is_v5() { message_properties(message, characters, now_ms) } else { Vec::new() };
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

pub(super) fn one_id(id: u32) -> Box<[u32]> {
    if id == 0 { Box::default() } else { Box::new([id]) }
}

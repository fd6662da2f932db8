//! One client's life as the fuzzer wills it: packets, deliveries, time, lost and taken-over connections. A watcher
//! checks every packet the server sends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use broker_core::{
    Broker, Channel, Class, ContentType, Filter, Kind, Message, Outbox, Principal, Properties, Publish,
    PublishError, Qos, Receipt, Rights, Room, Subscriber, SubscriberKey, unix_ms,
};
use bytes::Bytes;

use super::Choices;
use super::watcher::{Terms, Watcher};
use crate::codec::{self, Framing, Packet, Version};
use crate::config::{Config, QueuePolicy};
use crate::protocol::{
    Backlog, Caller, Connection, End, Group, Negotiated, Online, Output, Session, Shared, Verdict, Wire,
    negotiate,
};

const TOPICS: [&str; 4] = ["a", "a/b", "é/c", "$x/y"];
const FILTERS: [&str; 7] = ["a", "a/b", "#", "a/+", "$share/g/a", "$x/#", "a/#/b"];

/// One of these, now and then below thousands of levels.
fn filter(choices: &mut Choices<'_>) -> String {
    let pick = choices.byte();
    let levels = usize::from(pick.saturating_sub(0xF0)) * 250;
    "a/".repeat(levels) + FILTERS[usize::from(pick) % FILTERS.len()]
}

/// What is made once: messages can only be made by a broker.
struct World {
    messages: Vec<Arc<Message>>,
    key: SubscriberKey,
    /// Nobody reads from either; one is full.
    empty: Arc<Outbox>,
    full: Arc<Outbox>,
    /// When the messages were made.
    start_ms: u64,
    /// Stands for every session in the core's groups.
    member: Subscriber,
    runs: AtomicUsize,
    broker: Broker,
    _runtime: tokio::runtime::Runtime,
}

impl World {
    /// Whose groups are all of one filter, told apart by their names.
    fn filter() -> Filter {
        Filter::parse("shared").expect("a filter")
    }

    /// A group that nobody else is in, for a session that shows `room`.
    fn group(&self, room: &Arc<Room>, shared: &Arc<Shared>) -> Membership {
        let name = self.runs.fetch_add(1, Ordering::Relaxed).to_string();
        self.member.join_group(&name, &Self::filter(), 0, room).expect("room for one more");
        let members = self.broker.group(&name, &Self::filter()).expect("it was just made");
        Membership { world: world(), name, group: Group::of(&members, shared) }
    }
}

/// A session's place in its group.
struct Membership {
    world: &'static World,
    name: String,
    group: Arc<Group>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.world.member.leave_group(&self.name, &World::filter(), 0);
        self.group.note_left();
    }
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let _inside = runtime.enter();
        let broker = Broker::new(broker_core::Config::default());
        let shared = Arc::new(Shared::new(Config::default(), None));
        let attach = || broker.attach(Arc::new(Session::new(shared.clone())), Default::default());
        let (one, other) = (attach(), attach());
        for _ in 0..600 {
            other.outbox().send(Bytes::from_static(b"x"), Class::Control);
        }
        World {
            messages: messages(&broker),
            key: one.key(),
            empty: one.outbox(),
            full: other.outbox(),
            start_ms: unix_ms(),
            member: one,
            runs: AtomicUsize::new(0),
            broker: broker.clone(),
            _runtime: runtime,
        }
    })
}

fn messages(broker: &Broker) -> Vec<Arc<Message>> {
    let mut messages = Vec::new();
    for topic in TOPICS {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            for (bytes, ttl, rich) in [(1, None, false), (3000, None, true), (9, Some(20), true)] {
                let channel = Channel::parse(topic).expect("a channel");
                let mut publish = Publish::new(channel.clone(), vec![b'x'; bytes]).qos(qos).retain(true);
                if let Some(secs) = ttl {
                    publish = publish.ttl(Duration::from_secs(secs));
                }
                if rich {
                    let mut given = Properties::default();
                    given.user = vec![("k".into(), "v".into()), ("k".into(), "w".into())];
                    given.reply_to = Some("r".into());
                    given.correlation = Some(Bytes::from_static(b"c"));
                    given.payload_is_utf8 = Some(true);
                    given.ext = None;
                    publish = publish.content_type(ContentType::new("text/plain")).properties(given);
                }
                broker.publish(publish).expect("room for it");
                messages.push(broker.retained(&channel).expect("just published"));
            }
        }
    }
    messages
}

/// Keeps what is sent until the watcher has seen it.
#[derive(Default)]
struct Record(Vec<Vec<u8>>);

impl Wire for Record {
    fn send(&mut self, frame: &Bytes, _: Class) {
        self.0.push(frame.to_vec());
    }

    fn send_parts(&mut self, parts: &[Bytes]) {
        self.0.push(parts.concat());
    }
}

/// The whole of a run.
struct Run {
    shared: Arc<Shared>,
    session: Arc<Session>,
    /// The session is the only member of all its shared subscriptions.
    group: Option<Membership>,
    connection: Option<Connection>,
    /// One that was taken over and does not know it yet.
    old: Option<(Connection, Arc<Session>)>,
    version: Version,
    watcher: Watcher,
    wire: Record,
    now: Instant,
    now_ms: u64,
    tags: u32,
}

/// Byte 0: configuration. Then one operation after the other.
pub fn session(data: &[u8]) {
    let mut choices = Choices(data);
    let world = world();
    let mut run = Run::new(world, choices.byte());
    run.connect(world, &mut choices);
    for _ in 0..400 {
        if choices.is_empty() {
            break;
        }
        run.step(world, &mut choices);
    }
}

impl Run {
    fn new(world: &World, bits: u8) -> Self {
        let config = Config {
            max_inflight: 4,
            max_inflight_bytes: 8_192,
            max_live_queued_messages: 9,
            max_live_queued_bytes: 20_000,
            max_queued_messages: 6,
            max_queued_bytes: 16_384,
            max_group_queued_messages: 4,
            max_group_queued_bytes: 12_000,
            max_waiting_retained: 5,
            max_subscriptions: 5,
            receive_maximum: 3,
            max_unreleased_publishes: 4,
            topic_alias_maximum: 3,
            max_outgoing_topic_aliases: 3,
            max_packet_bytes: 5_000,
            queue_qos0_offline: bits & 1 != 0,
            queue_policy: if bits & 8 != 0 { QueuePolicy::DropOldest } else { QueuePolicy::DropNewest },
            maximum_qos: if bits & 2 != 0 { Qos::AtLeastOnce } else { Qos::ExactlyOnce },
            max_keep_alive_secs: (bits & 4 != 0).then_some(10),
            ..Config::default()
        };
        let shared = Arc::new(Shared::new(config, None));
        let terms =
            Terms { version: Version::V5, receive_maximum: 1, max_packet_bytes: u32::MAX, alias_maximum: 0 };
        Self {
            session: Arc::new(Session::new(shared.clone())),
            group: None,
            shared,
            connection: None,
            old: None,
            version: Version::V5,
            watcher: Watcher::new(terms),
            wire: Record::default(),
            now: Instant::now(),
            now_ms: world.start_ms,
            tags: 0,
        }
    }

    /// A CONNECT of the fuzzer's making; the front's part between session and connection is done here.
    fn connect(&mut self, world: &World, choices: &mut Choices<'_>) {
        let packet = connect_packet(choices);
        let frame = codec::split(&packet, None, 10_000).expect("a header").expect("all of it");
        let Packet::Connect(connect) =
            codec::parse(&frame, &packet[frame.header..], Version::V5).expect("a good CONNECT")
        else {
            unreachable!("it was made as one")
        };
        let Ok(mut terms) = negotiate(&connect, Framing::Raw, &self.shared.config, || "auto".into()) else {
            return;
        };
        let outbox = if choices.bit() { &world.full } else { &world.empty };
        if let Some(old) = self.connection.take() {
            self.old = Some((old, self.session.clone()));
        }
        let mut present = self.enter_session(&terms);
        if connect.clean_start && present {
            self.session.lock().handle_ended();
            self.renew();
            present = false;
        }
        self.version = connect.version;
        self.watcher.reconnect(watched(&connect), present);
        self.begin(world, &mut terms, outbox, present);
    }

    fn renew(&mut self) {
        self.group = None;
        self.session = Arc::new(Session::new(self.shared.clone()));
        self.tags = 0;
    }

    /// Ends the connection that has the session; false if there is no session to resume.
    fn enter_session(&mut self, _: &Negotiated) -> bool {
        let mut state = self.session.lock();
        let was_online = state.online.is_some();
        if was_online {
            state.handle_disconnected(&self.shared, End::Closed(codec::Reason::SessionTakenOver));
        }
        let (ended, first) = (state.ended, state.connection == 0);
        drop(state);
        if ended {
            self.renew();
        }
        !ended && !first
    }

    fn begin(&mut self, world: &World, terms: &mut Negotiated, outbox: &Arc<Outbox>, present: bool) {
        let config = &self.shared.config;
        let connack = terms.connack(config, present, None, None, None);
        let online: Online = terms.online(config, outbox.clone(), &Caller::default());
        let number = {
            let mut state = self.session.lock();
            state.expiry_secs = terms.session_expiry_secs;
            state.key = Some(world.key);
            state.will = terms.will.take();
            state.handle_connected(config, self.now_ms, online, &connack, &mut self.wire);
            state.connection
        };
        let principal = Principal::anonymous(Rights::all());
        let session = self.session.clone();
        self.connection = Some(Connection::new(self.now, session, number, principal, terms, None));
        self.look();
    }

    fn step(&mut self, world: &World, choices: &mut Choices<'_>) {
        match choices.below(16) {
            0 => {
                let most = choices.below(64);
                self.packets(choices.bytes(most));
            }
            1 | 2 => self.acknowledge(choices),
            3 | 4 => self.publish(choices),
            5 => self.subscribe(choices),
            6 => self.unsubscribe(choices),
            7..=9 => self.deliver(world, choices),
            10 => self.wait(choices),
            11 => self.lose(),
            12 => self.connect(world, choices),
            13 => {
                let (now_ms, wire) = (self.now_ms, &mut self.wire);
                let left = self.connection.as_mut().map(|connection| connection.handle_backlog(now_ms, wire));
                self.look();
                if left == Some(Backlog::Overrun)
                    && let Some(connection) = &mut self.connection
                {
                    connection.handle_overrun(self.now);
                    self.perform();
                }
            }
            14 => {
                if let Some(online) = &mut self.session.lock().online {
                    online.outbox = world.empty.clone();
                }
            }
            _ => self.goodbye(choices),
        }
        self.check_bounds();
    }

    /// Bytes from the client, good or bad.
    fn packets(&mut self, mut bytes: &[u8]) {
        let max = self.shared.config.max_packet_bytes;
        while let Ok(Some(frame)) = codec::split(bytes, Some(self.version), max)
            && self.connection.is_some()
        {
            let Some((packet, rest)) = bytes.split_at_checked(frame.total()) else { return };
            bytes = rest;
            let body = &packet[frame.header..];
            match codec::parse(&frame, body, self.version) {
                Ok(packet) => {
                    match &packet {
                        Packet::PubAck(ack) => self.watcher.acknowledge(0x40, ack.packet_id, false),
                        Packet::PubRec(ack) => {
                            self.watcher.acknowledge(0x50, ack.packet_id, ack.reason.is_error());
                        }
                        Packet::PubComp(ack) => self.watcher.acknowledge(0x70, ack.packet_id, false),
                        _ => {}
                    }
                    let (now_ms, wire) = (self.now_ms, &mut self.wire);
                    if let Some(connection) = &mut self.connection {
                        connection.handle_packet(now_ms, packet, None, wire);
                    }
                }
                Err(error) => {
                    if let Some(connection) = &mut self.connection {
                        connection.handle_error(&error);
                    }
                }
            }
            self.perform();
        }
    }

    fn packet(&mut self, first: u8, body: &[u8]) {
        let mut packet = vec![first];
        codec::put_varint(&mut packet, body.len());
        packet.extend_from_slice(body);
        self.packets(&packet);
    }

    fn acknowledge(&mut self, choices: &mut Choices<'_>) {
        let id = u16::from(choices.byte() % 12);
        // Most often an acknowledgement is one that is waited for.
        let waiting: Vec<u16> = {
            let mut ids: Vec<_> = self.watcher.exchanges.keys().copied().collect();
            ids.sort_unstable();
            ids
        };
        let id = waiting.get(usize::from(id)).copied().unwrap_or(id);
        let stage = self.watcher.exchanges.get(&id).map(|exchange| exchange.0);
        let kind = choices.byte();
        let first = match (stage, kind & 7) {
            (_, 7) => [0x40, 0x50, 0x62, 0x70][usize::from(kind >> 3) % 4],
            (Some(super::watcher::Stage::One), _) => 0x40,
            (Some(super::watcher::Stage::Two), _) => 0x50,
            (Some(super::watcher::Stage::Received), _) => 0x70,
            (None, _) => 0x62,
        };
        let [high, low] = id.to_be_bytes();
        if self.version.is_v5() && kind & 0x40 != 0 && first != 0x62 && first != 0x70 {
            self.packet(first, &[high, low, 0x97]);
        } else {
            self.packet(first, &[high, low]);
        }
    }

    fn publish(&mut self, choices: &mut Choices<'_>) {
        let bits = choices.byte();
        let qos = bits & 3;
        let topic = TOPICS[choices.below(TOPICS.len())];
        let (id, alias) = (u16::from(choices.byte() % 6), choices.byte() % 5);
        let named = bits & 4 == 0;
        let mut body = Vec::new();
        codec::put_string(&mut body, if named { topic } else { "" });
        if qos > 0 {
            body.extend_from_slice(&id.to_be_bytes());
        }
        if self.version.is_v5() {
            match alias {
                0 => body.push(0),
                alias => body.extend_from_slice(&[3, 35, 0, alias]),
            }
        }
        body.push(b'x');
        self.packet(0x30 | bits & 0x08 | qos << 1 | bits >> 7, &body);
    }

    fn subscribe(&mut self, choices: &mut Choices<'_>) {
        let (filter, options, id) = (filter(choices), choices.byte(), choices.byte());
        let mut body = vec![0, 1 + (id & 3)];
        if self.version.is_v5() {
            match id >> 4 {
                0 => body.push(0),
                id => body.extend_from_slice(&[2, 11, id]),
            }
        }
        codec::put_string(&mut body, &filter);
        body.push(if self.version.is_v5() { options & 0x3F } else { options & 3 });
        self.packet(0x82, &body);
    }

    fn unsubscribe(&mut self, choices: &mut Choices<'_>) {
        let mut body = vec![0, 9];
        if self.version.is_v5() {
            body.push(0);
        }
        codec::put_string(&mut body, &filter(choices));
        self.packet(0xA2, &body);
    }

    fn deliver(&mut self, world: &World, choices: &mut Choices<'_>) {
        let message = &world.messages[choices.below(world.messages.len())];
        let bits = choices.byte();
        let kind = if bits & 1 == 0 { Kind::Live } else { Kind::Retained };
        let publisher = (bits & 2 != 0).then_some(world.key);
        let newest = self.tags;
        let tags: Vec<u32> =
            (0..3).filter(|bit| bits & (4 << bit) != 0).map(|back| newest.saturating_sub(back)).collect();
        let now_ms = self.now_ms;
        let incoming = crate::protocol::Incoming { message, kind, publisher, lane: None, clock: &|| now_ms };
        for _ in 0..=bits >> 6 {
            self.session.handle_delivery(&incoming, &tags, &mut self.wire);
        }
        self.look();
    }

    fn wait(&mut self, choices: &mut Choices<'_>) {
        let ms = u64::from(choices.byte()) * 100;
        self.now += Duration::from_millis(ms);
        self.now_ms += ms;
        let now = self.now;
        if let Some(connection) = &mut self.connection {
            connection.handle_timeout(now);
            self.perform();
        } else if choices.bit() {
            _ = self.session.take_due_will();
        } else if self.session.handle_expired().is_some() {
            self.watcher.exchanges.clear();
        }
    }

    fn lose(&mut self) {
        if let Some((old, session)) = self.old.take() {
            let detached = session.handle_disconnected(old.number(), End::Lost);
            assert!(detached.is_none(), "it was taken over: its end is nobody's");
            return;
        }
        if let Some(connection) = self.connection.take() {
            self.ended(connection.number(), End::Lost);
        }
    }

    fn ended(&mut self, number: u32, end: End) {
        _ = self.session.handle_disconnected(number, end);
    }

    fn goodbye(&mut self, choices: &mut Choices<'_>) {
        let bits = choices.byte();
        if !self.version.is_v5() {
            return self.packet(0xE0, &[]);
        }
        let reason = if bits & 1 == 0 { 0 } else { 4 };
        match bits >> 1 & 3 {
            0 => self.packet(0xE0, &[]),
            1 => self.packet(0xE0, &[reason]),
            _ => self.packet(0xE0, &[reason, 5, 17, 0, 0, 0, bits >> 3]),
        }
    }

    /// Does what the connection wants, as the transport would.
    fn perform(&mut self) {
        self.look();
        while let Some(output) = self.connection.as_mut().and_then(Connection::poll_output) {
            match output {
                Output::Reply(reply) => self.watcher.see(&reply),
                Output::Publish(publishing) => {
                    let bytes = publishing.packet_id % 5;
                    let result = match bytes {
                        4 => Err(PublishError::RetainedFull { max: 1 }),
                        receivers => Ok(Receipt::new(None, self.now_ms, u64::from(receivers))),
                    };
                    if let Some(connection) = &mut self.connection {
                        connection.handle_published(publishing.packet_id, publishing.qos, &result);
                    }
                }
                Output::Free(packet_id) => {
                    if let Some(connection) = &mut self.connection {
                        connection.handle_freed(packet_id);
                    }
                }
                Output::Subscribe(subscribing) => {
                    self.tags =
                        subscribing.accepted.iter().map(|accepted| accepted.tag).fold(self.tags, u32::max);
                    for accepted in subscribing.accepted.iter().filter(|one| one.target.group.is_some()) {
                        let (session, shared) = (&self.session, &self.shared);
                        let place = self.group.get_or_insert_with(|| world().group(&session.room(), shared));
                        session.enter_group(accepted.tag, place.group.clone());
                    }
                    let (now_ms, wire) = (self.now_ms, &mut self.wire);
                    if let Some(connection) = &mut self.connection {
                        connection.handle_subscribed(now_ms, subscribing, wire);
                    }
                    self.look();
                }
                Output::Unsubscribe(unsubscribing) => self.watcher.see(&unsubscribing.reply),
                Output::Authenticate(_) => {
                    if let Some(connection) = &mut self.connection {
                        connection.handle_authenticated(Verdict::Failed);
                    }
                }
                Output::Close(last, end) => {
                    self.watcher.see_last(&last);
                    let number = self.connection.take().map_or(0, |connection| connection.number());
                    self.ended(number, end);
                }
            }
        }
        self.look();
    }

    /// The watcher sees what was sent.
    fn look(&mut self) {
        for frame in std::mem::take(&mut self.wire.0) {
            self.watcher.see(&frame);
        }
    }

    fn check_bounds(&self) {
        let state = self.session.lock();
        let config = &self.shared.config;
        let groups = &self.shared.groups;
        assert!(groups.messages.load(Ordering::Relaxed) <= config.max_group_queued_messages);
        assert!(groups.bytes.load(Ordering::Relaxed) <= config.max_group_queued_bytes);
        assert!(state.subscriptions.iter().count() <= config.max_subscriptions);
        assert!(state.taken.as_ref().is_none_or(|taken| taken.len() <= 65_535));
        assert!(state.backlog.as_ref().is_none_or(|backlog| backlog.len() <= config.max_waiting_retained));
        if let Some(outbound) = &state.outbound {
            let queue = outbound.queued().messages;
            assert!(queue <= config.max_live_queued_messages + config.max_waiting_retained, "{queue} wait");
        }
    }
}

fn connect_packet(choices: &mut Choices<'_>) -> Vec<u8> {
    let bits = choices.byte();
    let version = [Version::V5, Version::V311, Version::V5, Version::V31][usize::from(bits & 3)];
    let v5 = version.is_v5();
    let mut body = Vec::new();
    codec::put_string(&mut body, if version == Version::V31 { "MQIsdp" } else { "MQTT" });
    let has_will = bits & 8 != 0;
    body.push(match version {
        Version::V31 => 3,
        Version::V311 => 4,
        Version::V5 => 5,
    });
    body.push(if bits & 4 != 0 { 2 } else { 0 } | if has_will { 0x2C } else { 0 });
    body.extend_from_slice(&[0, bits >> 4]);
    if v5 {
        let (receive, aliases, size, expiry) =
            (choices.byte() % 6, choices.byte() % 4, choices.byte(), choices.byte());
        let mut properties = vec![34, 0, aliases, 17, 0, 0, 0, expiry];
        if receive > 0 {
            properties.extend_from_slice(&[33, 0, receive]);
        }
        if size > 100 {
            properties.extend_from_slice(&[39, 0, 0, size / 100, size]);
        }
        if expiry & 1 != 0 {
            properties.extend_from_slice(&[23, 0]);
        }
        codec::put_varint(&mut body, properties.len());
        body.extend_from_slice(&properties);
    }
    codec::put_string(&mut body, "c");
    if has_will {
        if v5 {
            body.extend_from_slice(&[5, 24, 0, 0, 0, 7]);
        }
        codec::put_string(&mut body, "w");
        codec::put_string(&mut body, "gone");
    }
    let mut packet = vec![0x10];
    codec::put_varint(&mut packet, body.len());
    packet.extend_from_slice(&body);
    packet
}

fn watched(connect: &codec::Connect<'_>) -> Terms {
    Terms {
        version: connect.version,
        receive_maximum: connect.receive_maximum,
        max_packet_bytes: connect.maximum_packet_size.unwrap_or(u32::MAX),
        alias_maximum: connect.topic_alias_maximum,
    }
}

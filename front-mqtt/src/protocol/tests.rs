//! Scripts: packets, deliveries and instants go in, frames and wishes come out. No socket, no waiting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::{
    Broker, Channel, Class, Kind, Message, Outbox, Principal, Publish, Qos, Receipt, Rights, SubscriberKey,
};
use bytes::Bytes;

use super::outbound::Outgoing;
use super::queue::Queue;
use super::*;
use crate::codec::{self, Framing, Packet, Version};
use crate::config::{Config, QueuePolicy};

/// Keeps what is sent.
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

impl Record {
    /// What was sent since the last look: first byte and, for QoS 1 and 2 and acknowledgements, identifier.
    fn taken(&mut self) -> Vec<(u8, u16)> {
        let id = |frame: &[u8]| {
            let body = &frame[2 + frame[1..].iter().position(|byte| byte & 0x80 == 0).unwrap()..];
            let at = match frame[0] >> 4 {
                3 if frame[0] & 6 == 0 => return 0,
                3 => 2 + usize::from(u16::from_be_bytes([body[0], body[1]])),
                _ => 0,
            };
            u16::from_be_bytes([body[at], body[at + 1]])
        };
        std::mem::take(&mut self.0).iter().map(|frame| (frame[0], id(frame))).collect()
    }
}

/// Makes messages, which only a broker can, and outboxes.
struct World {
    broker: Broker,
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    key: SubscriberKey,
}

impl World {
    fn new(config: Config) -> Self {
        let broker = Broker::new(broker_core::Config::default());
        let shared = Arc::new(Shared::new(config, None));
        let subscriber = broker.attach(Arc::new(Session::new(shared.clone())), Default::default());
        Self { broker, shared, outbox: subscriber.outbox(), key: subscriber.key() }
    }

    fn message(&self, publish: Publish) -> Arc<Message> {
        let channel = publish.channel().clone();
        self.broker.publish(publish.retain(true)).unwrap();
        self.broker.retained(&channel).unwrap()
    }

    fn plain(&self, topic: &str, qos: Qos, payload: &[u8]) -> Arc<Message> {
        let channel = Channel::parse(topic).unwrap();
        self.message(Publish::new(channel, payload.to_vec()).qos(qos))
    }
}

/// One session with its present connection and what it sent.
struct Client {
    session: Arc<Session>,
    connection: Connection,
    wire: Record,
}

fn parse(bytes: &[u8]) -> Packet<'_> {
    let version = if bytes[0] == 0x10 { None } else { Some(Version::V311) };
    let frame = codec::split(bytes, version, 1 << 20).unwrap().unwrap();
    codec::parse(&frame, &bytes[frame.header..frame.total()], Version::V311).unwrap()
}

/// CONNECT of version 3.1.1 without a clean session, with a keep alive of 10 s.
const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x0a\x00\x01c";

impl Client {
    fn new(world: &World, now: Instant) -> Self {
        let session = Arc::new(Session::new(world.shared.clone()));
        Self::on(world, session, now, |_| {})
    }

    /// The session's next connection; `change` makes it differ from the usual one.
    fn on(world: &World, session: Arc<Session>, now: Instant, change: impl FnOnce(&mut Online)) -> Self {
        let Packet::Connect(connect) = parse(CONNECT) else { panic!("not a CONNECT") };
        let terms = negotiate(&connect, Framing::Raw, &world.shared.config, || "x".into()).unwrap();
        let principal = Principal::anonymous(Rights::all());
        let mut wire = Record::default();
        let number = {
            let mut state = session.lock();
            state.expiry_secs = terms.session_expiry_secs;
            state.key = Some(world.key);
            let mut online = terms.online(&world.shared.config, world.outbox.clone(), &Caller::default());
            change(&mut online);
            let connack = terms.connack(&world.shared.config, false, None, None, None);
            state.handle_connected(&world.shared.config, 0, online, &connack, &mut wire);
            state.connection
        };
        let connection = Connection::new(now, session.clone(), number, principal, &terms, None);
        Self { session, connection, wire }
    }

    fn packet(&mut self, bytes: &[u8]) -> Vec<Output> {
        self.connection.handle_packet(0, parse(bytes), None, &mut self.wire);
        std::iter::from_fn(|| self.connection.poll_output()).collect()
    }

    fn ack(&mut self, first: u8, id: u16) -> Vec<Output> {
        let id = id.to_be_bytes();
        self.packet(&[first, 2, id[0], id[1]])
    }

    fn subscribe(&mut self, filter: &str, qos: u8) -> u32 {
        let name = filter.as_bytes();
        let packet = [&[0x82, name.len() as u8 + 5, 0, 1, 0, name.len() as u8], name, &[qos]].concat();
        let Some(Output::Subscribe(subscribing)) = self.packet(&packet).pop() else { panic!("no subscribe") };
        let tag = subscribing.accepted[0].tag;
        self.connection.handle_subscribed(0, subscribing, &mut self.wire);
        tag
    }

    fn deliver(&mut self, message: &Arc<Message>, tags: &[u32]) {
        let incoming = Incoming { message, kind: Kind::Live, publisher: None, lane: None, clock: &|| 0 };
        self.session.handle_delivery(&incoming, tags, &mut self.wire);
    }
}

#[tokio::test]
async fn keep_alive_ends_after_one_and_a_half_times_its_length() {
    let world = World::new(Config::default());
    let start = Instant::now();
    let mut client = Client::new(&world, start);
    let at = |secs| start + Duration::from_secs(secs);
    assert_eq!(client.connection.poll_timeout(), Some(at(15)));
    client.connection.handle_sign_of_life(at(9));
    client.connection.handle_timeout(at(15));
    assert!(client.connection.poll_output().is_none());
    assert_eq!(client.connection.poll_timeout(), Some(at(24)));
    client.connection.handle_timeout(at(24));
    let Some(Output::Close(last, end)) = client.connection.poll_output() else { panic!("still open") };
    assert!(last.is_empty(), "version 3 has no word for it");
    assert_eq!(end, End::Closed(codec::Reason::KeepAliveTimeout));
    client.connection.handle_timeout(at(99));
    assert!(client.connection.poll_output().is_none(), "an end comes once");
}

#[tokio::test]
async fn deliveries_before_the_suback_wait_for_it() {
    let world = World::new(Config::default());
    let mut client = Client::new(&world, Instant::now());
    client.wire.taken();
    let Some(Output::Subscribe(subscribing)) = client.packet(b"\x82\x06\x00\x07\x00\x01t\x01").pop() else {
        panic!("no subscribe")
    };
    client.deliver(&world.plain("t", Qos::AtLeastOnce, b"1"), &[subscribing.accepted[0].tag]);
    assert_eq!(client.wire.taken(), []);
    client.connection.handle_subscribed(0, subscribing, &mut client.wire);
    assert_eq!(client.wire.taken(), [(0x90, 7), (0x32, 1)]);
}

#[tokio::test]
async fn a_delivery_under_way_to_an_ended_subscription_goes_nowhere() {
    let world = World::new(Config::default());
    let mut client = Client::new(&world, Instant::now());
    let tag = client.subscribe("t", 1);
    client.wire.taken();
    let outputs = client.packet(b"\xa2\x05\x00\x02\x00\x01t");
    assert!(matches!(&outputs[..], [Output::Unsubscribe(gone)] if gone.gone[0].1 == tag));
    client.deliver(&world.plain("t", Qos::AtLeastOnce, b"1"), &[tag]);
    assert_eq!(client.wire.taken(), []);
}

#[tokio::test]
async fn a_smaller_receive_maximum_holds_for_repeats_too() {
    let world = World::new(Config::default());
    let mut client = Client::new(&world, Instant::now());
    let tag = client.subscribe("t", 1);
    for _ in 0..5 {
        client.deliver(&world.plain("t", Qos::AtLeastOnce, b"x"), &[tag]);
    }
    let mut client = Client::on(&world, client.session, Instant::now(), |online| online.max_inflight = 2);
    assert_eq!(client.wire.taken(), [(0x20, 0), (0x3A, 1), (0x3A, 2)]);
    client.deliver(&world.plain("t", Qos::AtLeastOnce, b"new"), &[tag]);
    assert_eq!(client.wire.taken(), [], "a new one waits behind the repeats");
    for (acked, next) in [(1, (0x3A, 3)), (2, (0x3A, 4)), (3, (0x3A, 5)), (4, (0x32, 6))] {
        client.ack(0x40, acked);
        assert_eq!(client.wire.taken(), [next]);
    }
}

#[tokio::test]
async fn packet_identifiers_wrap_past_0_and_past_those_in_use() {
    let world = World::new(Config { max_inflight: 3, ..Config::default() });
    let mut client = Client::new(&world, Instant::now());
    let tag = client.subscribe("t", 1);
    client.wire.taken();
    let message = world.plain("t", Qos::AtLeastOnce, b"x");
    client.deliver(&message, &[tag]);
    client.deliver(&message, &[tag]);
    assert_eq!(client.wire.taken(), [(0x32, 1), (0x32, 2)]);
    client.ack(0x40, 1);
    // 2 stays in use while all others are gone through.
    for id in (3..=u16::MAX).chain([1, 3, 4]) {
        client.deliver(&message, &[tag]);
        assert_eq!(client.wire.taken(), [(0x32, id)]);
        client.ack(0x40, id);
    }
}

#[tokio::test]
async fn an_acknowledgement_of_another_qos_is_a_protocol_error() {
    let world = World::new(Config::default());
    for (qos, wrong) in [(Qos::AtLeastOnce, 0x50), (Qos::AtLeastOnce, 0x70), (Qos::ExactlyOnce, 0x40)] {
        let mut client = Client::new(&world, Instant::now());
        let tag = client.subscribe("t", 2);
        client.deliver(&world.plain("t", qos, b"x"), &[tag]);
        let outputs = client.ack(wrong, 1);
        assert!(
            matches!(outputs[..], [Output::Close(_, End::Closed(codec::Reason::ProtocolError))]),
            "{wrong:x}"
        );
    }
}

#[tokio::test]
async fn late_and_unknown_acknowledgements_are_passed_over() {
    let world = World::new(Config::default());
    let mut client = Client::new(&world, Instant::now());
    for first in [0x40, 0x70] {
        assert!(client.ack(first, 9).is_empty());
    }
    assert!(matches!(&client.ack(0x50, 9)[..], [Output::Reply(pubrel)] if pubrel[0] == 0x62));
    assert!(matches!(&client.ack(0x62, 9)[..], [Output::Reply(pubcomp)] if pubcomp[0] == 0x70));
}

#[tokio::test]
async fn expired_messages_leave_the_queue_without_a_place() {
    let world = World::new(Config { max_inflight: 1, ..Config::default() });
    let mut client = Client::new(&world, Instant::now());
    let tag = client.subscribe("t", 1);
    client.wire.taken();
    let publish = |payload: &str| Publish::new(Channel::parse("t").unwrap(), payload.to_owned());
    client.deliver(&world.message(publish("now").qos(Qos::AtLeastOnce)), &[tag]);
    let short = world.message(publish("short").ttl(Duration::from_secs(60)));
    client.deliver(&short, &[tag]);
    client.deliver(&world.message(publish("long")), &[tag]);
    assert_eq!(client.wire.taken(), [(0x32, 1)]);
    let after = short.expires_at_ms().unwrap();
    client.connection.handle_packet(after, parse(&[0x40, 2, 0, 1]), None, &mut client.wire);
    assert!(client.wire.0[0].ends_with(b"long"));
    assert_eq!(client.wire.taken(), [(0x32, 2)]);
}

#[tokio::test]
async fn bytes_in_flight_are_bounded_but_one_message_always_goes() {
    let world = World::new(Config { max_inflight_bytes: 10_000, ..Config::default() });
    let mut client = Client::new(&world, Instant::now());
    let tag = client.subscribe("t", 1);
    client.wire.taken();
    let big = world.plain("t", Qos::AtLeastOnce, &[7; 20_000]);
    client.deliver(&big, &[tag]);
    client.deliver(&big, &[tag]);
    assert_eq!(client.wire.taken(), [(0x32, 1)]);
    client.ack(0x40, 1);
    assert_eq!(client.wire.taken(), [(0x32, 2)]);
}

#[tokio::test]
async fn a_publish_is_asked_of_the_broker_and_acknowledged_after_it() {
    let world = World::new(Config::default());
    let mut client = Client::new(&world, Instant::now());
    client.wire.taken();
    let Some(Output::Publish(publishing)) = client.packet(b"\x34\x06\x00\x01t\x00\x05x").pop() else {
        panic!("no publish")
    };
    assert_eq!((publishing.packet_id, publishing.qos), (5, Qos::ExactlyOnce));
    let is_taken =
        |client: &Client| client.session.lock().taken.as_ref().is_some_and(|taken| taken.contains(5));
    assert!(is_taken(&client), "a repeat must not overtake it");
    let receipt = Receipt::new(None, 0, 1);
    client.connection.handle_published(5, Qos::ExactlyOnce, &Ok(receipt));
    assert!(
        matches!(client.connection.poll_output(), Some(Output::Reply(pubrec)) if pubrec[..] == [0x50, 2, 0, 5])
    );
    assert!(is_taken(&client));
    let repeated = client.packet(b"\x3c\x06\x00\x01t\x00\x05x");
    assert!(matches!(&repeated[..], [Output::Reply(pubrec)] if pubrec[..] == [0x50, 2, 0, 5]));
}

#[tokio::test]
async fn nothing_is_handled_after_a_goodbye() {
    let world = World::new(Config::default());
    let mut client = Client::new(&world, Instant::now());
    assert!(matches!(client.packet(b"\xe0\x00")[..], [Output::Close(_, End::Goodbye)]));
    assert!(client.packet(b"\xc0\x00").is_empty());
}

#[tokio::test]
async fn a_connection_that_was_taken_over_ends_nothing() {
    let world = World::new(Config::default());
    let client = Client::new(&world, Instant::now());
    let first = client.session.lock().connection;
    let client = Client::on(&world, client.session, Instant::now(), |_| {});
    assert!(client.session.handle_disconnected(first, End::Lost).is_none());
    assert!(client.session.is_online());
    assert!(matches!(client.session.handle_disconnected(first + 1, End::Lost), Some(Detached::Stays { .. })));
    assert!(!client.session.is_online());
}

#[tokio::test]
async fn a_qos_2_exchange_goes_on_after_its_message_has_expired() {
    let world = World::new(Config::default());
    let mut client = Client::new(&world, Instant::now());
    let tag = client.subscribe("t", 2);
    client.wire.taken();
    let publish =
        Publish::new(Channel::parse("t").unwrap(), "x").qos(Qos::ExactlyOnce).ttl(Duration::from_secs(60));
    let message = world.message(publish);
    client.deliver(&message, &[tag]);
    assert_eq!(client.wire.taken(), [(0x34, 1)]);
    // On the next connection its time is over, and it is repeated all the same: it had been sent.
    let mut client = Client::on(&world, client.session, Instant::now(), |_| {});
    let after = message.expires_at_ms().unwrap() + 1;
    assert_eq!(client.wire.taken(), [(0x20, 0), (0x3C, 1)]);
    client.connection.handle_packet(after, parse(&[0x50, 2, 0, 1]), None, &mut client.wire);
    assert!(
        matches!(client.connection.poll_output(), Some(Output::Reply(pubrel)) if pubrel[..] == [0x62, 2, 0, 1])
    );
    client.connection.handle_packet(after, parse(&[0x70, 2, 0, 1]), None, &mut client.wire);
    assert!(client.connection.poll_output().is_none());
    assert_eq!(client.session.lock().outbound.as_ref().map(|outbound| outbound.inflight()), Some(0));
}

fn expiring(world: &World, payload: u16) -> Arc<Message> {
    let channel = Channel::parse("t").unwrap();
    let payload = payload.to_be_bytes().to_vec();
    world.message(Publish::new(channel, payload).qos(Qos::AtLeastOnce).ttl(Duration::from_secs(60)))
}

impl Client {
    fn deliver_at(&mut self, now_ms: u64, message: &Arc<Message>, tag: u32) {
        let incoming = Incoming { message, kind: Kind::Live, publisher: None, lane: None, clock: &|| now_ms };
        self.session.handle_delivery(&incoming, &[tag], &mut self.wire);
    }

    fn queued(&self) -> usize {
        self.session.lock().outbound.as_ref().map_or(0, |outbound| outbound.queued().messages)
    }

    fn leave(self) -> Arc<Session> {
        _ = self.session.handle_disconnected(self.connection.number(), End::Lost);
        self.session
    }
}

#[tokio::test]
async fn what_has_expired_gives_its_place_to_what_is_fresh() {
    for queue_policy in [QueuePolicy::DropNewest, QueuePolicy::DropOldest] {
        let world = World::new(Config { queue_policy, ..Config::default() });
        let mut client = Client::new(&world, Instant::now());
        let tag = client.subscribe("t", 1);
        client = Client { session: client.leave(), ..Client::new(&world, Instant::now()) };
        let mut after = 0;
        for n in 0..1_000 {
            let message = expiring(&world, n);
            after = message.expires_at_ms().unwrap();
            client.deliver_at(0, &message, tag);
        }
        let lasting: Vec<_> =
            (0..500u16).map(|n| world.plain("t", Qos::AtLeastOnce, &n.to_be_bytes())).collect();
        for message in &lasting {
            client.deliver_at(after, message, tag);
        }
        let dropped = client.session.lock().dropped;
        assert_eq!((client.queued(), dropped), (500, 0), "{queue_policy:?}");
        let client = Client::on(&world, client.session, Instant::now(), |_| {});
        let sent = &client.wire.0[1..];
        assert_eq!(sent.len(), 500);
        for (frame, message) in sent.iter().zip(&lasting) {
            assert!(frame.ends_with(message.payload()));
        }
    }
}

#[tokio::test]
async fn a_connected_client_for_whom_too_much_waits_is_told_and_keeps_its_session() {
    let world = World::new(Config {
        max_inflight: 1,
        max_live_queued_messages: 5,
        max_queued_messages: 2,
        ..Config::default()
    });
    let start = Instant::now();
    let mut client = Client::new(&world, start);
    let tag = client.subscribe("t", 1);
    let message = world.plain("t", Qos::AtLeastOnce, b"x");
    let logged = |client: &mut Client, secs| {
        let left = client.connection.handle_backlog(0, &mut client.wire);
        assert_eq!(left, Backlog::Overrun);
        client.connection.handle_overrun(start + Duration::from_secs(secs)).map(|queued| queued.messages)
    };
    for _ in 0..6 {
        client.deliver(&message, &[tag]);
    }
    assert_eq!(client.connection.handle_backlog(0, &mut client.wire), Backlog::Empty);
    assert_eq!(client.session.lock().dropped, 0);
    client.deliver(&message, &[tag]);
    assert_eq!(logged(&mut client, 0), Some(5));
    assert!(matches!(
        client.connection.poll_output(),
        Some(Output::Close(_, End::Closed(codec::Reason::QuotaExceeded)))
    ));
    // Until it is back the session takes nothing more, and keeps what it has.
    client.deliver(&message, &[tag]);
    let session = client.leave();
    assert_eq!(session.lock().dropped, 2);
    let mut client = Client::on(&world, session, start, |_| {});
    assert_eq!(client.queued(), 5);
    for id in 1..=6 {
        client.ack(0x40, id);
    }
    assert_eq!(client.wire.taken().len(), 7, "CONNACK, the repeat, and five that waited");

    // Soon again, and a minute later.
    for (secs, is_logged) in [(59, false), (60, true)] {
        for _ in 0..7 {
            client.deliver(&message, &[tag]);
        }
        assert_eq!(logged(&mut client, secs).is_some(), is_logged);
        client = Client::on(&world, client.leave(), start, |_| {});
        while client.queued() > 0 {
            let id = client.wire.taken().last().unwrap().1;
            client.ack(0x40, id);
        }
        let id = client.wire.taken().last().unwrap().1;
        client.ack(0x40, id);
    }
    assert_eq!(world.shared.overrun.load(std::sync::atomic::Ordering::Relaxed), 3);
}

/// Whatever leaves from the middle, order and counts stay right, and gaps do not pile up.
#[tokio::test]
async fn a_queue_agrees_with_a_simple_list() {
    let world = World::new(Config::default());
    let make = |ttl: Option<u64>| {
        let publish = Publish::new(Channel::parse("t").unwrap(), "x").qos(Qos::AtLeastOnce);
        world.message(match ttl {
            Some(secs) => publish.ttl(Duration::from_secs(secs)),
            None => publish,
        })
    };
    let kinds: Vec<_> = [None, Some(10), Some(20), Some(40), Some(80)].into_iter().map(make).collect();
    let start = kinds[1].expires_at_ms().unwrap() - 10_000;
    let (mut queue, mut list) = (Queue::default(), std::collections::VecDeque::new());
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..20_000u32 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let now = start + u64::from(round % 1_000) * 100;
        let kind = kinds[(random >> 8) as usize % kinds.len()].clone();
        let outgoing = Outgoing {
            message: kind,
            qos: Qos::AtLeastOnce,
            retain: false,
            ids: Box::new([round]),
            shared: None,
            from_store: random & 0x80 != 0,
            ticket: None,
        };
        match random % 8 {
            0..=2 => {
                queue.push_back(outgoing.clone());
                list.push_back(outgoing);
            }
            3 => {
                queue.push_front(outgoing.clone());
                list.push_front(outgoing);
            }
            4 => {
                while list.front().is_some_and(|first| first.message.is_expired(now)) {
                    list.pop_front();
                }
                let (got, expected) = (queue.pop(now), list.pop_front());
                assert_eq!(got.map(|got| got.ids), expected.map(|expected| expected.ids));
            }
            5 => {
                queue.expire(&|| now);
                list.retain(|waiting| !waiting.message.is_expired(now));
            }
            6 => {
                let oldest = list.iter().position(|waiting| !waiting.from_store);
                assert_eq!(queue.drop_oldest().is_some(), oldest.is_some());
                oldest.map(|oldest| list.remove(oldest));
            }
            _ if round % 50 == 0 => {
                let goes = kinds[round as usize / 50 % kinds.len()].offset();
                queue.retain(|message| message.offset() != goes);
                list.retain(|waiting| waiting.message.offset() != goes);
            }
            _ => {}
        }
        let counted: Vec<_> = list.iter().filter(|waiting| !waiting.from_store).collect();
        assert_eq!((queue.len(), queue.is_empty()), (list.len(), list.is_empty()));
        assert_eq!(queue.counted(), counted.len());
        assert_eq!(queue.counted_bytes(), counted.iter().map(|waiting| waiting.weight()).sum::<usize>());
        assert_eq!(queue.front().map(|first| &first.ids), list.front().map(|first| &first.ids));
        assert!(queue.places() <= 2 * list.len() + 16);
    }
    let left: Vec<_> = queue.into_messages().map(|waiting| waiting.ids).collect();
    assert_eq!(left, list.into_iter().map(|waiting| waiting.ids).collect::<Vec<_>>());
}

//! QoS 2 in sessions that an engine keeps: once, whenever the server or the connection goes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{
    Answer, Channel, Claim, Claimed, Engine, Filter, HistoryQuery, Ingest, LogPage, MessageId, Op, Order,
    Publish, Qos, Read, Reject, Rejected, Unavailable,
};
use conformance::{Chaos, Ground, MEMORY, PacedGround};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::client::*;
use crate::kept::{comes_in_as, keep, life, settle};
use crate::support::Server;

/// Lives whose engine does nothing while its gate is shut.
pub(crate) struct Gated {
    inner: PacedGround,
    gate: Gate,
}

type Gate = Arc<(watch::Sender<bool>, Mutex<Vec<Op>>)>;

impl Gated {
    pub(crate) fn new() -> Self {
        Self { inner: PacedGround::default(), gate: Arc::new((watch::Sender::new(true), Mutex::default())) }
    }

    pub(crate) fn shut(&self) {
        self.gate.0.send_replace(false);
    }

    pub(crate) fn open_again(&self) {
        self.gate.0.send_replace(true);
    }

    /// How many operations wait.
    pub(crate) fn waiting(&self) -> usize {
        self.gate.1.lock().len()
    }
}

impl Ground for Gated {
    fn open(&self) -> Arc<dyn Engine> {
        Arc::new(Waiting { inner: self.inner.open(), gate: self.gate.clone() })
    }

    fn end(&self, _: Arc<dyn Engine>) {}
}

struct Waiting {
    inner: Arc<dyn Engine>,
    gate: Gate,
}

/// Lets all pass that wait, and what comes later.
fn open(gate: &Gate, engine: &Arc<dyn Engine>) {
    let mut waiting = gate.1.lock();
    for op in waiting.drain(..) {
        engine.submit(op).unwrap();
    }
    gate.0.send_replace(true);
}

impl Engine for Waiting {
    fn keeps(&self, namespace: &str) -> bool {
        self.inner.keeps(namespace)
    }

    fn head(&self) -> MessageId {
        self.inner.head()
    }

    fn start(&self, ingest: Arc<dyn Ingest>) {
        self.inner.start(ingest);
        let (gate, inner) = (self.gate.clone(), self.inner.clone());
        tokio::spawn(async move {
            let mut opened = gate.0.subscribe();
            while opened.changed().await.is_ok() {
                if *opened.borrow_and_update() {
                    open(&gate, &inner);
                }
            }
        });
    }

    fn submit(&self, op: Op) -> Result<(), Rejected> {
        let mut waiting = self.gate.1.lock();
        if *self.gate.0.borrow() {
            return self.inner.submit(op);
        }
        waiting.push(op);
        Ok(())
    }

    fn claim(&self, session: &str, claim: Claim) -> Answer<'static, Result<Claimed, Unavailable>> {
        let (gate, inner, session) = (self.gate.clone(), self.inner.clone(), session.to_owned());
        Answer::later(async move {
            _ = gate.0.subscribe().wait_for(|is_open| *is_open).await;
            open(&gate, &inner);
            inner.claim(&session, claim).await
        })
    }

    fn read(&self, read: Read) -> Answer<'static, Result<LogPage, Unavailable>> {
        self.inner.read(read)
    }
}

pub(crate) async fn history(server: &Server, topic: &str) -> Vec<String> {
    let mut query = HistoryQuery::default();
    query.order = Order::Oldest;
    query.limit = 1_000;
    let history = server.broker.read_history(&Filter::parse(topic).unwrap(), query).await.unwrap();
    history.messages.iter().map(|message| String::from_utf8_lossy(message.payload()).into_owned()).collect()
}

async fn publish_exactly(server: &Server, topic: &str, payload: &str) {
    let message = Publish::new(Channel::parse(topic).unwrap(), payload.to_owned()).qos(Qos::ExactlyOnce);
    server.broker.publish_wait(message).await.unwrap();
}

#[tokio::test]
async fn a_publish_that_was_answered_is_not_published_again() {
    for (level, restarts) in [(4, false), (4, true), (5, true)] {
        let ground = PacedGround::default();
        let mut server = life(&ground).await;
        let (mut client, _) = Client::connected_with(server.address, &keep(level)).await;
        for id in [7, 8] {
            client.send(&publish(level, 4, "t", id, b"first")).await;
            let pubrec = client.read().await;
            assert_eq!((pubrec.first, &pubrec.body[..2]), (0x50, &[0, id as u8][..]));
        }
        client.send(&ack(0x62, 8)).await;
        client.expect(&ack(0x70, 8)).await;
        drop(client);
        if restarts {
            server = life(&ground).await;
        }
        let (mut client, present) = Client::connected_with(server.address, &keep(level)).await;
        assert!(present);
        client.send(&publish(level, 12, "t", 7, b"first")).await;
        client.expect(&ack(0x50, 7)).await;
        assert_eq!(history(&server, "t").await, ["first", "first"]);
        client.send(&ack(0x62, 7)).await;
        client.expect(&ack(0x70, 7)).await;
        drop(client);
        if restarts {
            server = life(&ground).await;
        }
        // Both identifiers are free: what comes under them is another message.
        let (mut client, _) = Client::connected_with(server.address, &keep(level)).await;
        for id in [7, 8] {
            client.send(&publish(level, 4, "t", id, b"second")).await;
            assert_eq!(client.read().await.first, 0x50);
        }
        assert_eq!(history(&server, "t").await, ["first", "first", "second", "second"]);
    }
}

#[tokio::test]
async fn a_repeat_waits_for_the_first_that_is_on_its_way() {
    let ground = Gated::new();
    let server = life(&ground).await;
    let (mut client, _) = Client::connected_with(server.address, &keep(4)).await;
    settle(&mut client).await;
    ground.shut();
    client.send(&publish(4, 4, "t", 7, b"x")).await;
    client.expect_quiet().await;
    drop(client);
    let mut client = Client::open(server.address).await;
    client.send(&[keep(4), publish(4, 12, "t", 7, b"x")].concat()).await;
    client.expect_quiet().await;
    ground.gate.0.send_replace(true);
    assert_eq!(client.read().await.body, [1, 0]);
    client.expect(&ack(0x50, 7)).await;
    assert_eq!(history(&server, "t").await, ["x"]);
    // So does its release.
    ground.shut();
    client.send(&ack(0x62, 7)).await;
    client.expect_quiet().await;
    ground.gate.0.send_replace(true);
    client.expect(&ack(0x70, 7)).await;
}

#[tokio::test]
async fn neither_publish_nor_pubrel_leaves_before_it_is_recorded() {
    let ground = Gated::new();
    let server = life(&ground).await;
    let (mut client, _) = Client::connected_with(server.address, &keep(4)).await;
    client.subscribe(4, &[("t", 2), (&format!("{MEMORY}/t"), 2)]).await;
    settle(&mut client).await;
    // The message is there, and its record is not.
    let message = Publish::new(Channel::parse("t").unwrap(), "x").qos(Qos::ExactlyOnce);
    let accepted = server.broker.submit(message);
    ground.shut();
    _ = tokio::time::timeout(SOON, accepted).await.unwrap();
    client.expect_quiet().await;
    // What is in memory has nothing to wait for.
    let in_memory = Publish::new(Channel::parse(&format!("{MEMORY}/t")).unwrap(), "m").qos(Qos::ExactlyOnce);
    server.broker.publish(in_memory).unwrap();
    assert_eq!(client.read_publish().await.3, b"m");
    ground.gate.0.send_replace(true);
    let (flags, _, id, payload) = client.read_publish().await;
    assert_eq!((flags, &*payload), (4, &b"x"[..]));
    settle(&mut client).await;
    ground.shut();
    client.send(&ack(0x50, id)).await;
    client.expect_quiet().await;
    // Asked for again it still waits.
    client.send(&ack(0x50, id)).await;
    client.expect_quiet().await;
    ground.gate.0.send_replace(true);
    client.expect(&ack(0x62, id)).await;
    client.send(&ack(0x50, id)).await;
    client.expect(&ack(0x62, id)).await;
    client.send(&ack(0x70, id)).await;
    settle(&mut client).await;
}

#[tokio::test]
async fn after_a_crash_pubrel_comes_again_and_never_the_publish() {
    for level in [4, 5] {
        let ground = PacedGround::default();
        let server = life(&ground).await;
        let (mut client, _) = Client::connected_with(server.address, &keep(level)).await;
        client.subscribe(level, &[("t", 2)]).await;
        for payload in ["a", "b"] {
            publish_exactly(&server, "t", payload).await;
        }
        let (first, second) = (client.read().await, client.read().await);
        assert_eq!((first.first, second.first), (0x34, 0x34));
        let id_of = |raw: &Raw| u16::from_be_bytes([raw.body[3], raw.body[4]]);
        let (a, b) = (id_of(&first), id_of(&second));
        client.send(&ack(0x50, a)).await;
        client.expect(&ack(0x62, a)).await;
        // The server is gone between PUBREL and PUBCOMP of one, and before PUBREC of the other; no time goes by in which
        // anything could be recorded that nobody waits for.
        let server = life(&ground).await;
        let (mut client, present) = Client::connected_with(server.address, &keep(level)).await;
        assert!(present);
        let mut came = [client.read().await, client.read().await];
        came.sort_by_key(|raw| raw.first);
        assert_eq!((came[0].first, id_of(&came[0])), (0x3C, b), "under its identifier, as a repeat");
        assert_eq!((came[1].first, &*came[1].body), (0x62, &a.to_be_bytes()[..]));
        client.send(&[ack(0x70, a), ack(0x50, b)].concat()).await;
        client.expect(&ack(0x62, b)).await;
        client.send(&ack(0x70, b)).await;
        settle(&mut client).await;
        publish_exactly(&server, "t", "c").await;
        let third = client.read().await;
        assert_eq!(third.first, 0x34);
        assert!(![a, b].contains(&id_of(&third)));
        client.send(&ack(0x50, id_of(&third))).await;
        client.expect(&ack(0x62, id_of(&third))).await;
        // PUBCOMP of the first two is recorded by now, that of the third is not even sent.
        let server = life(&ground).await;
        let (mut client, _) = Client::connected_with(server.address, &keep(level)).await;
        client.expect(&ack(0x62, id_of(&third))).await;
        client.expect_quiet().await;
    }
}

/// Its client may hold on to the identifier: it is not used again before it has let go.
#[tokio::test]
async fn an_exchange_whose_message_is_gone_ends_with_pubrel() {
    let ground = PacedGround::default();
    let server = life(&ground).await;
    let (mut client, _) = Client::connected_with(server.address, &keep(4)).await;
    client.subscribe(4, &[("t", 2)]).await;
    let message = Publish::new(Channel::parse("t").unwrap(), "x").qos(Qos::ExactlyOnce);
    server.broker.publish_wait(message.ttl(Duration::from_millis(300))).await.unwrap();
    let (_, _, id, _) = client.read_publish().await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let server = life(&ground).await;
    let (mut client, _) = Client::connected_with(server.address, &keep(4)).await;
    client.expect(&ack(0x62, id)).await;
    client.send(&ack(0x70, id)).await;
    settle(&mut client).await;
}

/// A publisher as the standard has it: what is not answered is said again.
struct Publisher {
    client: Client,
    id: u16,
}

impl Publisher {
    async fn publish(&mut self, server: &Server, payload: &str) {
        self.id = self.id % 5 + 1;
        let (mut dup, mut is_released) = (0, false);
        for _ in 0..500 {
            let packet = match is_released {
                false => publish(4, 4 | dup, "t", self.id, payload.as_bytes()),
                true => ack(0x62, self.id),
            };
            let expected = if is_released { 0x70 } else { 0x50 };
            _ = tokio::io::AsyncWriteExt::write_all(&mut self.client.stream, &packet).await;
            match self.client.try_read(SOON).await {
                Some(raw) if raw.first == expected && is_released => return,
                Some(raw) if raw.first == expected => is_released = true,
                Some(raw) => panic!("{raw:x?}"),
                None => (self.client, dup) = (comes_in_as(server, "p", None).await, 8),
            }
        }
        panic!("it is never taken");
    }
}

/// A subscriber as the standard has it: what it has under an identifier it does not take again.
struct Subscriber {
    client: Client,
    held: BTreeSet<u16>,
    taken: Vec<String>,
}

impl Subscriber {
    /// Until it has so many.
    async fn take(&mut self, server: &Server, count: usize) {
        for _ in 0..50_000 {
            if self.taken.len() >= count && self.held.is_empty() {
                return;
            }
            let Some(raw) = self.client.try_read(Duration::from_millis(500)).await else {
                self.client = comes_in_as(server, "s", None).await;
                continue;
            };
            let id_at = |at: usize| u16::from_be_bytes([raw.body[at], raw.body[at + 1]]);
            let reply = match raw.first >> 4 {
                3 => {
                    let id = id_at(3);
                    if self.held.insert(id) {
                        self.taken.push(String::from_utf8(raw.body[5..].to_vec()).unwrap());
                    }
                    ack(0x50, id)
                }
                _ => {
                    assert_eq!(raw.first, 0x62, "{raw:x?}");
                    self.held.remove(&id_at(0));
                    ack(0x70, id_at(0))
                }
            };
            _ = tokio::io::AsyncWriteExt::write_all(&mut self.client.stream, &reply).await;
        }
        panic!("{} of {count} have come", self.taken.len());
    }
}

/// Over an engine that delays, refuses and loses answers, and lives that end anywhere: none is lost and none comes twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_come_once_over_an_engine_that_does_its_worst() {
    for seed in [11, 12, 13] {
        let ground = Chaos::new(seed);
        let mut server = life(&ground).await;
        let mut publisher = Publisher { client: comes_in_as(&server, "p", None).await, id: 0 };
        let client = comes_in_as(&server, "s", Some(2)).await;
        let mut subscriber = Subscriber { client, held: BTreeSet::new(), taken: Vec::new() };
        let mut sent = 0;
        for round in 0..6_usize {
            for _ in 0..20 {
                publisher.publish(&server, &sent.to_string()).await;
                sent += 1;
            }
            if round % 2 == 0 {
                // In the middle of exchanges.
                subscriber.take(&server, sent - 10).await;
                server = life(&ground).await;
                publisher.client = comes_in_as(&server, "p", None).await;
                subscriber.client = comes_in_as(&server, "s", None).await;
            }
            subscriber.take(&server, sent).await;
        }
        let expected: Vec<_> = (0..sent).map(|n| n.to_string()).collect();
        assert_eq!(subscriber.taken, expected, "seed {seed}");
    }
}

/// What refuses keeps nothing: the publish is said again later, and taken then.
#[tokio::test]
async fn a_publish_that_is_refused_is_not_taken() {
    let ground = Refusing { inner: PacedGround::default(), refuses: Arc::default() };
    let server = life(&ground).await;
    let (mut v5, _) = Client::connected_with(server.address, &connect(5, "c5", false, 0, &EXPIRY)).await;
    let (mut v3, _) = Client::connected_with(server.address, &connect(4, "c3", false, 0, &[])).await;
    settle(&mut v5).await;
    ground.refuses.store(true, std::sync::atomic::Ordering::SeqCst);
    v5.send(&publish(5, 2, "t", 1, b"x")).await;
    let puback = v5.read().await;
    assert_eq!((puback.first, &puback.body[..3]), (0x40, &[0, 1, 0x83][..]));
    v5.send(&publish(5, 4, "t", 2, b"x")).await;
    let pubrec = v5.read().await;
    assert_eq!((pubrec.first, &pubrec.body[..3]), (0x50, &[0, 2, 0x83][..]));
    assert_eq!(v5.subscribe(5, &[("t", 1)]).await, [0x83]);
    v5.send(&publish(5, 0, "t", 0, b"x")).await;
    settle(&mut v5).await;
    // Version 3 cannot say it: no acknowledgement, and the end.
    assert_eq!(v3.subscribe(4, &[("t", 1)]).await, [0x80]);
    v3.send(&publish(4, 4, "t", 2, b"x")).await;
    v3.expect_closed().await;
    let mut refused = Client::open(server.address).await;
    refused.send(&connect(4, "c3", false, 0, &[])).await;
    refused.expect(&[0x20, 2, 0, 3]).await;
    let mut refused = Client::open(server.address).await;
    refused.send(&connect(5, "new", false, 0, &EXPIRY)).await;
    assert_eq!(refused.read().await.body[..2], [0, 0x88]);
    // Who needs nothing of it is let in, and what is in memory goes on.
    let mut other = Client::connected(server.address, 4, "other").await;
    other.send(&publish(4, 2, &format!("{MEMORY}/t"), 1, b"x")).await;
    other.expect(&ack(0x40, 1)).await;
    other.send(&publish(4, 2, "t", 2, b"x")).await;
    other.expect_closed().await;
    ground.refuses.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(history(&server, "t").await, [""; 0]);
    v5.send(&publish(5, 4, "t", 2, b"x")).await;
    assert_eq!(v5.read().await.body[..2], [0, 2]);
    let (mut v3, _) = Client::connected_with(server.address, &connect(4, "c3", false, 0, &[])).await;
    v3.send(&publish(4, 12, "t", 2, b"y")).await;
    v3.expect(&ack(0x50, 2)).await;
    assert_eq!(history(&server, "t").await, ["x", "y"]);
}

/// Session expiry of 100 s.
const EXPIRY: [u8; 5] = [0x11, 0, 0, 0, 100];

/// Lives whose engine refuses when it is told to.
struct Refusing {
    inner: PacedGround,
    refuses: Arc<std::sync::atomic::AtomicBool>,
}

impl Ground for Refusing {
    fn open(&self) -> Arc<dyn Engine> {
        Arc::new(Refuses { inner: self.inner.open(), refuses: self.refuses.clone() })
    }

    fn end(&self, _: Arc<dyn Engine>) {}
}

struct Refuses {
    inner: Arc<dyn Engine>,
    refuses: Arc<std::sync::atomic::AtomicBool>,
}

impl Refuses {
    const WHY: Unavailable = Unavailable::new(Duration::from_secs(1));

    fn refuses(&self) -> bool {
        self.refuses.load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl Engine for Refuses {
    fn keeps(&self, namespace: &str) -> bool {
        self.inner.keeps(namespace)
    }

    fn head(&self) -> MessageId {
        self.inner.head()
    }

    fn start(&self, ingest: Arc<dyn Ingest>) {
        self.inner.start(ingest);
    }

    fn submit(&self, op: Op) -> Result<(), Rejected> {
        if self.refuses() && !matches!(op, Op::Barrier(_)) {
            return Err(Rejected::new(Reject::Unavailable(Self::WHY), op));
        }
        self.inner.submit(op)
    }

    fn claim(&self, session: &str, claim: Claim) -> Answer<'static, Result<Claimed, Unavailable>> {
        self.inner.claim(session, claim)
    }

    fn read(&self, read: Read) -> Answer<'static, Result<LogPage, Unavailable>> {
        self.inner.read(read)
    }
}

//! The cases. Each begins with a fresh ground.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use broker_core::{
    After, Answer, Broker, Channel, Claim, Claimed, Config, Ends, Engine, Event, Fence, Filter, HistoryQuery,
    IdempotencyKey, LogConfig, MessageId, NamespaceConfig, Order, Position, Publish, PublishError,
    PublishOnceError, Receipt, RecordError, SessionRecord, StartFrom, SubscribeOptions, Subscription, Taken,
    unix_ms,
};

use crate::{Ground, MEMORY};

type On = Arc<dyn Ground>;

/// A broker on the engine of one life.
struct Life {
    ground: On,
    broker: Broker,
    engine: Arc<dyn Engine>,
}

impl Life {
    fn on(ground: &On) -> Self {
        let engine = ground.open();
        let mut config = Config::default();
        config.namespaces = vec![NamespaceConfig::new(MEMORY, LogConfig::default())];
        let broker = Broker::with_engine(config, Arc::clone(&engine));
        Self { ground: Arc::clone(ground), broker, engine }
    }

    async fn end(self) {
        soon(self.broker.drained()).await;
        self.broker.close();
        self.ground.end(self.engine);
    }

    /// As a process that is killed: nothing is waited for.
    fn crash(self) {
        self.broker.close();
        self.ground.crash(self.engine);
    }

    /// Publishes until it is acknowledged. Where the outcome is unknown it is a key that makes it once.
    async fn publish(&self, publish: Publish, key: &str) -> Receipt {
        publish_once(&self.broker, publish, key).await
    }

    async fn history(&self, text: &str, after: Option<MessageId>, limit: usize, order: Order) -> Vec<String> {
        let mut query = HistoryQuery::default();
        (query.after, query.limit, query.order) = (after.map(Position::from), limit, order);
        let history = soon(self.broker.read_history(&filter(text), query)).await.expect("it can be read");
        history.messages.iter().map(|message| text_of(message.payload())).collect()
    }
}

async fn publish_once(broker: &Broker, publish: Publish, key: &str) -> Receipt {
    for _ in 0..10_000 {
        match soon(broker.submit_once(publish.clone(), &IdempotencyKey::new(key))).await {
            Ok(keyed) => return keyed.receipt,
            Err(PublishOnceError::Publish(
                PublishError::Busy { .. } | PublishError::Unavailable { .. } | PublishError::Unknown,
            )) => tokio::time::sleep(Duration::from_micros(100)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it is never taken");
}

fn text_of(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).into_owned()
}

fn publish(channel: &str, payload: impl ToString) -> Publish {
    Publish::new(Channel::parse(channel).expect("a name"), payload.to_string())
}

fn filter(text: &str) -> Filter {
    Filter::parse(text).expect("a filter")
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it does not come")
}

fn follow(broker: &Broker, text: &str, from: StartFrom) -> Subscription {
    follow_all(broker, &[text], from)
}

fn follow_all(broker: &Broker, texts: &[&str], from: StartFrom) -> Subscription {
    let mut options = SubscribeOptions::default();
    options.from = from;
    let filters: Vec<_> = texts.iter().map(|text| filter(text)).collect();
    broker.subscribe_with(&filters, options).expect("there is room")
}

/// The next messages; a gap is none that may come here.
async fn next(stream: &mut Subscription, count: usize) -> Vec<String> {
    let mut payloads = Vec::new();
    while payloads.len() < count {
        match soon(stream.next()).await {
            Some(Event::Message(message)) => payloads.push(text_of(message.payload())),
            other => panic!("{other:?} after {payloads:?}"),
        }
    }
    payloads
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// Several publishers, each on a channel of its own: each reader gets the order of its publisher, and offsets rise over
/// all channels.
pub async fn order_is_kept_and_nothing_comes_twice(ground: On) {
    const EACH: usize = 100;
    let life = Life::on(&ground);
    let mut all = follow(&life.broker, "#", StartFrom::Now);
    let mut readers: Vec<_> =
        (0..3).map(|n| follow(&life.broker, &format!("c/{n}"), StartFrom::Now)).collect();
    let publishers = (0..3).map(|publisher| {
        let broker = life.broker.clone();
        tokio::spawn(async move {
            for n in 0..EACH {
                publish_once(&broker, publish(&format!("c/{publisher}"), n), &n.to_string()).await;
            }
        })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await.expect("no panic");
    }
    for reader in &mut readers {
        assert_eq!(next(reader, EACH).await, numbers(0..EACH));
    }
    let mut newest = 0;
    for _ in 0..3 * EACH {
        let message = soon(all.message()).await.expect("it goes on");
        assert!(message.offset() > newest, "{} after {newest}", message.offset());
        newest = message.offset();
    }
    life.end().await;
}

/// Whoever was subscribed has the message on its way once its publisher is told.
pub async fn what_is_acknowledged_was_delivered(ground: On) {
    let life = Life::on(&ground);
    let mut stream = follow(&life.broker, "a", StartFrom::Now);
    let receipt = life.publish(publish("a", "x"), "k").await;
    assert_eq!(receipt.receivers, 1);
    life.broker.handed_over().await;
    let message = soon(stream.message()).await.expect("it goes on");
    assert_eq!((message.id(), text_of(message.payload())), (receipt.id, "x".to_owned()));
    life.end().await;
}

/// Publishes without waiting for an answer, and has one only if somebody asks for it.
async fn publish_some_way(broker: &Broker, publish: Publish, asks: bool) -> Option<Waiting> {
    for _ in 0..10_000 {
        let refused = if asks {
            match broker.submit(publish.clone()).if_now() {
                Err(later) => return Some(later),
                Ok(answer) => answer.map(drop),
            }
        } else {
            broker.post(publish.clone())
        };
        match refused.map_err(|refused| refused.error) {
            Ok(()) => return None,
            Err(PublishError::Busy { .. } | PublishError::Unavailable { .. }) => {
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it is never taken");
}

type Waiting = Answer<'static, Result<Receipt, broker_core::Refused>>;

/// What several publishers do on a channel of their own and on one that they share: of each four messages somebody waits
/// for one.
fn publish_mixed(broker: &Broker, each: usize) -> Vec<tokio::task::JoinHandle<()>> {
    let publisher = |publisher: usize| {
        let broker = broker.clone();
        tokio::spawn(async move {
            let mut answers = Vec::new();
            for n in 0..each {
                let own = publish(&format!("c/{publisher}"), n);
                let shared = publish("shared", format!("{publisher} {n}"));
                for publish in [own, shared] {
                    answers
                        .extend(publish_some_way(&broker, publish, (n + publisher).is_multiple_of(4)).await);
                }
                if n.is_multiple_of(16) {
                    tokio::time::sleep(Duration::from_micros(500)).await;
                }
            }
            for answer in answers {
                let answer = soon(answer).await.map_err(|refused| refused.error);
                assert!(matches!(answer, Ok(_) | Err(PublishError::Unknown)), "{answer:?}");
            }
        })
    };
    (0..3).map(publisher).collect()
}

/// Whether or not somebody waits for the one before it: for readers of the channel, of all channels, and of the past.
pub async fn what_nobody_waits_for_keeps_the_order_of_its_channel(ground: On) {
    const EACH: usize = 120;
    let life = Life::on(&ground);
    let mut all = follow(&life.broker, "#", StartFrom::Now);
    let mut shared = follow(&life.broker, "shared", StartFrom::Now);
    let publishers = publish_mixed(&life.broker, EACH);
    let mut live: HashMap<String, Vec<String>> = HashMap::new();
    let mut newest = 0;
    for _ in 0..6 * EACH {
        let message = soon(all.message()).await.expect("it goes on");
        assert!(message.offset() > newest, "{} after {newest}", message.offset());
        newest = message.offset();
        live.entry(message.channel().as_str().to_owned()).or_default().push(text_of(message.payload()));
    }
    for publisher in publishers {
        publisher.await.expect("no panic");
    }
    for publisher in 0..3 {
        let channel = format!("c/{publisher}");
        assert_eq!(live[&channel], numbers(0..EACH));
        assert_eq!(life.history(&channel, None, 1_000, Order::Oldest).await, numbers(0..EACH));
        let of = |text: &String| Some(text.strip_prefix(&format!("{publisher} "))?.to_owned());
        let own: Vec<_> = live["shared"].iter().filter_map(of).collect();
        assert_eq!(own, numbers(0..EACH));
    }
    assert_eq!(next(&mut shared, 3 * EACH).await, live["shared"]);
    life.end().await;
    // A life that ends in peace forgets nothing, and has the same order.
    let life = Life::on(&ground);
    assert_eq!(life.history("shared", None, 1_000, Order::Oldest).await, live["shared"]);
    life.end().await;
}

/// Who has got a message and goes on after it gets each one that follows, whatever was on its way to be kept.
pub async fn a_position_loses_nothing(ground: On) {
    const EACH: usize = 60;
    let life = Life::on(&ground);
    // Of the engine alone: a position there says nothing of the memory.
    let texts = ["c/*", "shared"];
    let mut all = follow_all(&life.broker, &texts, StartFrom::Now);
    let publishers = publish_mixed(&life.broker, EACH);
    let (mut got, mut resumed) = (Vec::new(), Vec::new());
    while got.len() < 6 * EACH {
        let message = soon(all.message()).await.expect("it goes on");
        let id = message.id().expect("an id");
        got.push(id);
        if got.len().is_multiple_of(24) {
            resumed.push((got.len(), follow_all(&life.broker, &texts, StartFrom::Log(After::Id(id)))));
        }
    }
    for publisher in publishers {
        publisher.await.expect("no panic");
    }
    for (at, stream) in &mut resumed {
        for expected in &got[*at..] {
            match soon(stream.next()).await {
                Some(Event::Message(message)) => assert_eq!(message.id(), Some(*expected), "after {at}"),
                other => panic!("{other:?} after {at}"),
            }
        }
    }
    life.end().await;
}

/// All that was acknowledged is there. An id that was forgotten is a position: nobody has it again, and whoever goes on
/// after it misses nothing.
pub async fn a_crash_forgets_only_what_nobody_waited_for(ground: On) {
    let life = Life::on(&ground);
    let texts = ["chat", "ledger"];
    let mut all = follow_all(&life.broker, &texts, StartFrom::Now);
    let (mut seen, mut acknowledged) = (Vec::new(), Vec::new());
    for n in 0..10 {
        acknowledged.push(life.publish(publish("ledger", n), &n.to_string()).await.id.expect("an id"));
        for _ in 0..3 {
            assert!(publish_some_way(&life.broker, publish("chat", n), false).await.is_none());
        }
    }
    for _ in 0..40 {
        let message = soon(all.message()).await.expect("it goes on");
        seen.push((message.id().expect("an id"), message.channel().as_str() == "ledger"));
    }
    life.crash();
    let life = Life::on(&ground);
    assert_eq!(life.history("ledger", None, 100, Order::Oldest).await, numbers(0..10));
    let chat = life.history("chat", None, 100, Order::Oldest).await;
    assert!(chat.is_sorted() && chat.len() <= 30, "{chat:?}");
    let new = life.publish(publish("chat", "new"), "new").await.id.expect("an id");
    for (at, (id, _)) in seen.iter().enumerate() {
        assert!(new.epoch() == id.epoch() && new.offset() > id.offset(), "{new} and {id}");
        let ledger = seen[at + 1..].iter().filter(|(_, is_ledger)| *is_ledger).count();
        let mut stream = follow_all(&life.broker, &texts, StartFrom::Log(After::Id(*id)));
        let mut payloads = Vec::new();
        while payloads.last().is_none_or(|(_, text)| text != "new") {
            match soon(stream.next()).await {
                Some(Event::Message(message)) => {
                    payloads.push((message.channel().as_str().to_owned(), text_of(message.payload())));
                }
                other => panic!("{other:?} after {payloads:?}"),
            }
        }
        let got: Vec<_> =
            payloads.iter().filter(|(channel, _)| channel == "ledger").map(|(_, n)| n).collect();
        assert_eq!(got, numbers(10 - ledger..10).iter().collect::<Vec<_>>(), "after {id}");
    }
    life.end().await;
}

/// Pages, in both orders, of a channel among others, in the same life and in the next.
pub async fn the_past_is_read_from_both_ends(ground: On) {
    const ALL: usize = 40;
    let mut ids = Vec::new();
    let life = Life::on(&ground);
    for n in 0..ALL {
        ids.push(life.publish(publish("a/b", n), &n.to_string()).await.id.expect("an id"));
        life.publish(publish("a/c", "other"), &n.to_string()).await;
    }
    let look = async |life: &Life| {
        assert_eq!(life.history("a/b", None, 1_000, Order::Oldest).await, numbers(0..ALL));
        assert_eq!(life.history("a/b", Some(ids[9]), 5, Order::Oldest).await, numbers(10..15));
        let newest: Vec<_> = numbers(ALL - 3..ALL).into_iter().rev().collect();
        assert_eq!(life.history("a/b", None, 3, Order::Newest).await, newest);
        assert_eq!(life.history("a/b", Some(ids[ALL - 3]), 5, Order::Newest).await, newest[..2]);
        assert_eq!(life.history("a/*", None, 1_000, Order::Oldest).await.len(), 2 * ALL);
        assert_eq!(life.history("a/b", Some(ids[ALL - 1]), 5, Order::Oldest).await, [""; 0]);
        assert_eq!(life.history("nobody", None, 5, Order::Oldest).await, [""; 0]);
    };
    look(&life).await;
    life.end().await;
    let life = Life::on(&ground);
    look(&life).await;
    life.end().await;
}

/// Readers that begin in the past get everything once, in order, while more comes.
pub async fn a_replay_goes_on_into_the_present(ground: On) {
    const OLD: usize = 60;
    const ALL: usize = 160;
    let life = Life::on(&ground);
    let mut ids = Vec::new();
    for n in 0..OLD {
        ids.push(life.publish(publish("a", n), &n.to_string()).await.id.expect("an id"));
    }
    life.end().await;
    let life = Life::on(&ground);
    let publisher = tokio::spawn({
        let broker = life.broker.clone();
        async move {
            for n in OLD..ALL {
                publish_once(&broker, publish("a", n), &n.to_string()).await;
            }
        }
    });
    let mut readers = Vec::new();
    for (text, after, first) in [
        ("a", After::Earliest, 0),
        ("#", After::Earliest, 0),
        ("a", After::Id(ids[30]), 31),
        ("a/#", After::Id(ids[59]), 60),
    ] {
        readers.push((follow(&life.broker, text, StartFrom::Log(after)), first));
        tokio::task::yield_now().await;
    }
    for (reader, first) in &mut readers {
        assert_eq!(next(reader, ALL - *first).await, numbers(*first..ALL));
    }
    publisher.await.expect("no panic");
    life.end().await;
}

/// The epoch stays, offsets go on, and none is used twice.
pub async fn lives_follow_each_other(ground: On) {
    let mut ids = Vec::new();
    for life_number in 0..4 {
        let life = Life::on(&ground);
        for n in 0..5 {
            let key = format!("{life_number} {n}");
            ids.push(life.publish(publish("a", &key), &key).await.id.expect("an id"));
        }
        assert_eq!(life.history("a", None, 1_000, Order::Oldest).await.len(), ids.len());
        life.end().await;
    }
    assert!(
        ids.is_sorted_by(|one, other| one.epoch() == other.epoch() && one.offset() < other.offset()),
        "{ids:?}"
    );
}

/// The newest of each channel, and none that was cleared, by an empty message or by hand.
pub async fn retained_messages_outlive_a_life(ground: On) {
    let life = Life::on(&ground);
    for (at, (channel, payload)) in
        [("r/a", "old"), ("r/a", "new"), ("r/b", "x"), ("r/b", ""), ("r/c", "x")].into_iter().enumerate()
    {
        life.publish(publish(channel, payload).retain(true), &at.to_string()).await;
    }
    let cleared = Channel::parse("r/c").expect("a name");
    while soon(life.broker.clear_retained(&cleared)).await.is_err() {
        tokio::task::yield_now().await;
    }
    life.end().await;
    let life = Life::on(&ground);
    assert_eq!(life.broker.stats().retained_messages, 1);
    for text in ["r/a", "r/*"] {
        assert_eq!(next(&mut follow(&life.broker, text, StartFrom::Retained), 1).await, ["new"], "{text}");
    }
    life.end().await;
}

/// However often and from how many at once it is asked for.
pub async fn a_key_is_used_once(ground: On) {
    let life = Life::on(&ground);
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let broker = life.broker.clone();
            tokio::spawn(async move { publish_once(&broker, publish("a", "x"), "k").await })
        })
        .collect();
    let mut receipts = HashSet::new();
    for one in asking {
        receipts.insert(one.await.expect("no panic").id.expect("an id"));
    }
    assert_eq!(receipts.len(), 1);
    assert_eq!(life.history("a", None, 10, Order::Oldest).await, ["x"]);
    let other = loop {
        let key = IdempotencyKey::new("k");
        match soon(life.broker.submit_once(publish("a", "y"), &key)).await {
            Err(PublishOnceError::Publish(_)) => tokio::task::yield_now().await,
            other => break other,
        }
    };
    assert_eq!(other, Err(PublishOnceError::Conflict));
    // The channel and the user are parts of it.
    life.publish(publish("b", "x"), "k").await;
    assert_eq!(life.history("b", None, 10, Order::Oldest).await, ["x"]);
    life.end().await;
}

/// It is answered with the first id.
pub async fn a_key_outlives_a_life(ground: On) {
    let life = Life::on(&ground);
    let first = life.publish(publish("a", "x"), "k").await;
    life.end().await;
    let life = Life::on(&ground);
    let again = life.publish(publish("a", "x"), "k").await;
    assert_eq!(again.id, first.id);
    assert_eq!(life.history("a", None, 10, Order::Oldest).await, ["x"]);
    life.end().await;
}

/// It is answered now, in a log of its own.
pub async fn what_is_in_memory_is_none_of_its_business(ground: On) {
    let life = Life::on(&ground);
    let channel = format!("{MEMORY}/a");
    let receipt = life.broker.publish(publish(&channel, "x")).expect("it is taken");
    assert_eq!(receipt.id.map(MessageId::epoch), Some(life.broker.epoch()));
    let kept = life.publish(publish("a", "y"), "k").await;
    assert_ne!(kept.id.map(MessageId::epoch), receipt.id.map(MessageId::epoch));
    assert_eq!(life.broker.publish(publish("a", "x")), Err(PublishError::Durable));
    let mut both = next(&mut follow(&life.broker, "#", StartFrom::Log(After::Earliest)), 2).await;
    both.sort();
    assert_eq!(both, ["x", "y"]);
    life.end().await;
    let life = Life::on(&ground);
    assert_eq!(life.history(&channel, None, 10, Order::Oldest).await, [""; 0]);
    life.end().await;
}

/// Nothing is left on its way.
pub async fn a_barrier_waits_for_all_before_it(ground: On) {
    let life = Life::on(&ground);
    let answers: Vec<_> = (0..50).map(|n| life.broker.submit(publish("a", n))).collect();
    let head = || life.broker.position_of([&filter("a")]);
    soon(life.broker.drained()).await;
    let (before, mut accepted) = (head(), 0);
    for answer in answers {
        accepted += usize::from(soon(answer).await.is_ok());
    }
    if !ground.is_unreliable() {
        assert_eq!((head(), accepted), (before, 50));
    }
    life.end().await;
}

/// Neither from the past nor as a retained message.
pub async fn expired_messages_do_not_come_back(ground: On) {
    let life = Life::on(&ground);
    let short = Duration::from_millis(1);
    life.publish(publish("r/a", "over").retain(true).ttl(short), "1").await;
    life.publish(publish("r/a/b", "stays").retain(true).ttl(Duration::from_secs(600)), "2").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    life.end().await;
    let life = Life::on(&ground);
    assert_eq!(life.history("r/#", None, 10, Order::Oldest).await, ["stays"]);
    assert_eq!(next(&mut follow(&life.broker, "r/#", StartFrom::Retained), 1).await, ["stays"]);
    let kept = life.broker.retained(&Channel::parse("r/a/b").expect("a name")).expect("it stays");
    assert!(kept.remaining(broker_core::steady_ms()).is_some_and(|left| left <= Duration::from_secs(600)));
    assert!(life.broker.retained(&Channel::parse("r/a").expect("a name")).is_none());
    life.end().await;
}

impl Life {
    /// Claims until it is answered.
    async fn claim(&self, session: &str, claim: Claim) -> Claimed {
        for _ in 0..1_000 {
            match soon(self.broker.claim_session(session, claim)).await {
                Ok(claimed) => return claimed,
                Err(_) => tokio::time::sleep(Duration::from_micros(100)).await,
            }
        }
        panic!("it is never answered");
    }

    /// Records until it is known what came of it: the same again does no harm.
    async fn record(
        &self,
        session: &str,
        fence: Fence,
        record: Option<&SessionRecord>,
    ) -> Result<(), RecordError> {
        let mut is_repeated = false;
        for _ in 0..1_000 {
            match soon(self.broker.record_session(session, fence, record.cloned())).await {
                Err(RecordError::Unavailable(_)) => tokio::time::sleep(Duration::from_micros(100)).await,
                Err(RecordError::Unknown) => is_repeated = true,
                // Its end was written before, and only not answered.
                Err(RecordError::Fenced) if is_repeated && record.is_none() => return Ok(()),
                known => return known,
            }
        }
        panic!("it is never taken");
    }
}

fn record(state: &'static str) -> SessionRecord {
    SessionRecord::new(state, Some(MessageId::new(7, 9)))
}

/// Whoever had it before records nothing any more, and neither does whoever ended it.
pub async fn a_session_belongs_to_its_last_claim(ground: On) {
    let life = Life::on(&ground);
    let first = life.claim("ann", Claim::Resume).await;
    assert_eq!(first.record, None);
    assert_eq!(life.record("ann", first.fence, Some(&record("one"))).await, Ok(()));
    let other = life.claim("bob", Claim::Resume).await;
    assert_eq!(other.record, None);
    let second = life.claim("ann", Claim::Resume).await;
    assert_eq!((second.fence > first.fence, second.record), (true, Some(record("one"))));
    assert_eq!(life.record("ann", first.fence, Some(&record("late"))).await, Err(RecordError::Fenced));
    assert_eq!(life.record("ann", first.fence, None).await, Err(RecordError::Fenced));
    assert_eq!(life.record("ann", second.fence, Some(&record("two"))).await, Ok(()));
    let clean = life.claim("ann", Claim::Clean).await;
    assert_eq!((clean.fence > second.fence, clean.record), (true, None));
    assert_eq!(life.claim("ann", Claim::Resume).await.record, None);
    let last = life.claim("ann", Claim::Resume).await;
    assert_eq!(life.record("ann", last.fence, Some(&record("three"))).await, Ok(()));
    assert_eq!(life.claim("ann", Claim::End).await, Claimed::default());
    assert_eq!(life.record("ann", last.fence, Some(&record("late"))).await, Err(RecordError::Fenced));
    let after = life.claim("ann", Claim::Resume).await;
    assert_eq!((after.fence > last.fence, after.record), (true, None));
    assert_eq!(life.record("ann", after.fence, Some(&record("four"))).await, Ok(()));
    assert_eq!(life.record("ann", after.fence, None).await, Ok(()));
    assert_eq!(life.claim("ann", Claim::Resume).await.record, None);
    life.end().await;
}

/// With its position; what was ended does not come back, and fences go on.
pub async fn a_session_outlives_a_life(ground: On) {
    let life = Life::on(&ground);
    let mut fences = Vec::new();
    for name in ["ann", "bob", "cid"] {
        let claimed = life.claim(name, Claim::Clean).await;
        fences.push(claimed.fence);
        assert_eq!(life.record(name, claimed.fence, Some(&record("old"))).await, Ok(()));
        assert_eq!(life.record(name, claimed.fence, Some(&record("new"))).await, Ok(()));
        if name == "cid" {
            assert_eq!(life.record(name, claimed.fence, None).await, Ok(()));
        }
    }
    life.claim("bob", Claim::End).await;
    life.end().await;
    let life = Life::on(&ground);
    for (name, expected) in [("ann", Some(record("new"))), ("bob", None), ("cid", None)] {
        let claimed = life.claim(name, Claim::Resume).await;
        assert!(fences.iter().all(|earlier| claimed.fence > *earlier), "{claimed:?}");
        assert_eq!(claimed.record, expected, "{name}");
    }
    assert_eq!(
        life.record("ann", fences[0], Some(&record("late"))).await,
        Err(RecordError::Fenced),
        "of the life before"
    );
    life.end().await;
}

/// By the clock, and those whose clients were there when the life ended, from the next one on.
pub async fn a_session_ends_in_its_time(ground: On) {
    let life = Life::on(&ground);
    let (soon_over, long) = (Duration::from_millis(1), Duration::from_secs(600));
    let all = [
        ("never", Ends::Never, true),
        ("over", Ends::At(unix_ms() + 1), false),
        ("later", Ends::At(unix_ms() + 600_000), true),
        ("was here", Ends::After(soon_over), false),
        ("was here, for long", Ends::After(long), true),
    ];
    for (name, ends, _) in all {
        let claimed = life.claim(name, Claim::Resume).await;
        assert_eq!(life.record(name, claimed.fence, Some(&record(name).ending(ends))).await, Ok(()));
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    for (name, here) in [("over", false), ("was here", true)] {
        assert_eq!(life.claim(name, Claim::Resume).await.record.is_some(), here, "{name}");
    }
    life.end().await;
    let life = Life::on(&ground);
    tokio::time::sleep(Duration::from_millis(20)).await;
    // Where ends are looked for at times, it is now and then.
    for (name, _, stays) in all {
        let mut claimed = life.claim(name, Claim::Resume).await;
        for _ in 0..100 {
            if claimed.record.is_some() == stays {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            claimed = life.claim(name, Claim::Resume).await;
        }
        assert_eq!(claimed.record.is_some(), stays, "{name}");
    }
    life.end().await;
}

/// Of many records that are on their way the last one counts, and a claim waits for them.
pub async fn a_session_is_recorded_in_the_order_of_its_owner(ground: On) {
    const ALL: u64 = 100;
    let life = Life::on(&ground);
    let claimed = life.claim("ann", Claim::Resume).await;
    let answers: Vec<_> = (1..=ALL)
        .map(|n| {
            let record = SessionRecord::new(n.to_string(), Some(MessageId::new(7, n)));
            (n, life.broker.record_session("ann", claimed.fence, Some(record)))
        })
        .collect();
    let again = life.claim("ann", Claim::Resume).await;
    let mut last = 0;
    for (n, answer) in answers {
        match soon(answer).await {
            Ok(()) => last = n,
            Err(RecordError::Unavailable(_) | RecordError::Unknown) if ground.is_unreliable() => {}
            other => panic!("{other:?} of {n}"),
        }
    }
    let found = again.record.and_then(|record| record.position).map_or(0, MessageId::offset);
    assert!(found >= last && (found == ALL || ground.is_unreliable()), "{found}, not {last}");
    life.end().await;
}

impl Life {
    /// Publishes under a session's number as its client does: what is not answered is asked about by another claim.
    async fn take(&self, session: &str, number: u16) -> Claimed {
        for _ in 0..1_000 {
            let claimed = self.claim(session, Claim::Resume).await;
            if claimed.taken.contains(&number) {
                return claimed;
            }
            // One that is recorded nowhere has no numbers either.
            _ = self.record(session, claimed.fence, Some(&record("here"))).await;
            let taken = Taken { session: session.into(), fence: claimed.fence, number };
            if soon(self.broker.submit_taken(publish("a", number), taken)).await.is_ok() {
                return claimed;
            }
        }
        panic!("it is never taken");
    }

    /// Frees a number until it is known that it is free.
    async fn free(&self, session: &str, fence: Fence, number: u16) -> Result<(), RecordError> {
        for _ in 0..1_000 {
            let taken = Taken { session: session.into(), fence, number };
            match soon(self.broker.free_taken(taken)).await {
                Err(RecordError::Unavailable(_) | RecordError::Unknown) => {
                    tokio::time::sleep(Duration::from_micros(100)).await;
                }
                known => return known,
            }
        }
        panic!("it is never answered");
    }
}

/// With its message: over claims and lives, and with the session's end it is gone.
pub async fn a_number_is_known_to_the_next_claim_until_it_is_freed(ground: On) {
    const ALL: std::ops::RangeInclusive<u16> = 1..=20;
    let life = Life::on(&ground);
    for number in ALL {
        life.take("ann", number).await;
    }
    life.take("bob", 1).await;
    life.end().await;
    let life = Life::on(&ground);
    let mut claimed = life.claim("ann", Claim::Resume).await;
    claimed.taken.sort_unstable();
    assert_eq!(claimed.taken, ALL.collect::<Vec<_>>());
    for number in ALL.filter(|number| *number != 7) {
        assert_eq!(life.free("ann", claimed.fence, number).await, Ok(()));
        assert_eq!(life.free("ann", claimed.fence, number).await, Ok(()), "it is free already");
    }
    life.end().await;
    let life = Life::on(&ground);
    assert_eq!(life.claim("ann", Claim::Resume).await.taken, [7]);
    let once = life.history("a", None, 1_000, Order::Oldest).await;
    assert_eq!(once.len(), 21, "each is published once: {once:?}");
    assert_eq!(life.claim("ann", Claim::Clean).await.taken, [0; 0]);
    assert_eq!(life.claim("ann", Claim::Resume).await.taken, [0; 0]);
    let bob = life.claim("bob", Claim::Resume).await;
    assert_eq!(bob.taken, [1]);
    assert_eq!(life.record("bob", bob.fence, None).await, Ok(()));
    life.end().await;
    let life = Life::on(&ground);
    for name in ["ann", "bob"] {
        assert_eq!(life.claim(name, Claim::Resume).await.taken, [0; 0], "{name}");
    }
    life.end().await;
}

/// Its client says the same again elsewhere.
pub async fn whoever_lost_its_session_publishes_nothing_under_a_number(ground: On) {
    let life = Life::on(&ground);
    let old = life.take("ann", 1).await;
    let new = life.claim("ann", Claim::Resume).await;
    assert!(new.fence > old.fence);
    for number in 2..40 {
        let taken = Taken { session: "ann".into(), fence: old.fence, number };
        let result = soon(life.broker.submit_taken(publish("a", "late"), taken)).await;
        let error = result.expect_err("it has no session").error;
        assert!(error == PublishError::Fenced || ground.is_unreliable(), "{error:?}");
    }
    assert_eq!(life.free("ann", old.fence, 1).await, Err(RecordError::Fenced));
    assert_eq!(life.history("a", None, 10, Order::Oldest).await, ["1"]);
    assert_eq!(life.claim("ann", Claim::Resume).await.taken, [1]);
    // Where nobody keeps messages a number means nothing.
    let taken = Taken { session: "ann".into(), fence: old.fence, number: 9 };
    assert!(soon(life.broker.submit_taken(publish(&format!("{MEMORY}/a"), "x"), taken)).await.is_ok());
    life.end().await;
}

/// Named in the next life until it is seen to, however long its session is over.
pub async fn a_will_outlives_a_life_and_its_session(ground: On) {
    let life = Life::on(&ground);
    assert_eq!(life.broker.wills(), []);
    let (long, over) = (Ends::After(Duration::from_secs(600)), Ends::At(unix_ms() + 1));
    for (name, ends, will) in [
        ("here", long, Some(Ends::After(Duration::from_secs(60)))),
        ("away", over, Some(over)),
        ("none", over, None),
    ] {
        let claimed = life.claim(name, Claim::Resume).await;
        let record = record("will").ending(ends).with_will(will);
        assert_eq!(life.record(name, claimed.fence, Some(&record)).await, Ok(()), "{name}");
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    life.end().await;
    let began_ms = unix_ms();
    let life = Life::on(&ground);
    // Where ends are looked for at times, it is by then.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let mut wills = life.broker.wills();
    wills.sort();
    assert_eq!(wills.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["away", "here"]);
    assert!(wills[0].1 <= began_ms && wills[1].1 >= began_ms + 59_000, "{wills:?} {began_ms}");
    assert_eq!(life.claim("none", Claim::Resume).await.record, None);
    let away = life.claim("away", Claim::Resume).await;
    assert_eq!(away.record.map(|record| record.state), Some("will".into()));
    assert_eq!(life.record("away", away.fence, None).await, Ok(()));
    let here = life.claim("here", Claim::Resume).await;
    assert_eq!(life.record("here", here.fence, Some(&record("seen to").ending(long))).await, Ok(()));
    life.end().await;
    let life = Life::on(&ground);
    assert_eq!(life.broker.wills(), []);
    assert_eq!(life.claim("away", Claim::Resume).await.record, None);
    assert!(life.claim("here", Claim::Resume).await.record.is_some());
    life.end().await;
}

/// The last word on each name, in the room where it was said.
pub async fn notes_outlive_a_crash(ground: On) {
    let life = Life::on(&ground);
    let (one, other) = (life.broker.notes("one"), life.broker.notes("other"));
    assert_eq!(one.load(), Ok(Vec::new()));
    for number in 0..1_000 {
        one.put(&number.to_string(), "old");
    }
    settled(&one).await;
    for number in 0..1_000 {
        match number % 10 {
            0 => one.put(&number.to_string(), number.to_string()),
            _ => one.remove(&number.to_string()),
        }
    }
    other.put("0", vec![0, 255]);
    other.put("gone", "1");
    other.remove("gone");
    settled(&one).await;
    settled(&other).await;
    life.crash();

    let life = Life::on(&ground);
    let found = life.broker.notes("one").load().expect("it can be read");
    let mut found: Vec<_> = found.into_iter().map(|(name, text)| (name, text_of(&text))).collect();
    found.sort_unstable_by_key(|(name, _)| name.parse::<u32>().ok());
    let expected = (0..100).map(|n| (n * 10).to_string()).map(|n| (n.clone().into(), n));
    assert_eq!(found, expected.collect::<Vec<_>>());
    let other = life.broker.notes("other").load().expect("it can be read");
    assert!(matches!(&other[..], [(name, text)] if &**name == "0" && text[..] == [0, 255]), "{other:?}");
    assert_eq!(life.broker.notes("on").load(), Ok(Vec::new()), "another room's name begins so");
    life.end().await;
}

async fn settled(notes: &broker_core::Notes) {
    for _ in 0..10_000 {
        if soon(notes.settled()).await.is_ok() {
            return;
        }
    }
    panic!("nothing is ever safe");
}

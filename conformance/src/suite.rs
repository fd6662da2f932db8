//! The cases. Each begins with a fresh ground.

mod sessions;
mod work;

pub use sessions::*;
pub use work::*;

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

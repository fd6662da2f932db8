//! One order per channel, for every subscriber and for history, with publishers on several threads.

mod support;

use std::sync::Arc;

use broker_core::{
    Broker, Config, Deliver, Delivery, HistoryQuery, OutboxConfig, OutboxPolicy, Publish, Sink, Start,
    SubscribeOptions,
};
use support::*;

const PUBLISHERS: usize = 4;
const MESSAGES: usize = 500;

fn roomy() -> SubscribeOptions {
    let outbox = OutboxConfig::new(100_000, 64 << 20, OutboxPolicy::Disconnect);
    let mut options = SubscribeOptions::default();
    options.outbox = outbox;
    options
}

fn spawn_publishers(broker: &Broker, names: &'static [&'static str]) -> Vec<std::thread::JoinHandle<()>> {
    let threads = (0..PUBLISHERS).map(|publisher| {
        let broker = broker.clone();
        std::thread::spawn(move || {
            for number in 0..MESSAGES {
                let name = names[number % names.len()];
                publish(&broker, name, numbered(publisher, number));
            }
        })
    });
    threads.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_has_one_order_for_all_subscribers_and_for_history() {
    let broker = Broker::new(Config::default());
    let filters = ["a/b", "a/*", "#", "a/b"];
    let mut subscriptions: Vec<_> =
        filters.iter().map(|text| broker.subscribe_with(&[filter(text)], roomy()).unwrap()).collect();
    let threads = spawn_publishers(&broker, &["a/b"]);
    let mut seen = Vec::new();
    for subscription in &mut subscriptions {
        let mut offsets = Vec::new();
        for _ in 0..PUBLISHERS * MESSAGES {
            offsets.push(next(subscription).await.offset());
        }
        seen.push(offsets);
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let mut query = HistoryQuery::default();
    query.limit = 10_000;
    let history = broker.history(&filter("a/b"), query);
    let recorded: Vec<u64> = history.messages.iter().map(|message| message.offset()).collect();
    assert!(recorded.is_sorted() && recorded.len() == PUBLISHERS * MESSAGES);
    for offsets in seen {
        assert_eq!(offsets, recorded);
    }
    for pair in history.messages.windows(2) {
        assert_eq!(pair[1].prev(), pair[0].offset());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_publishers_messages_keep_their_order_over_several_channels() {
    let broker = Broker::new(Config::default());
    let filters = ["a", "b/*", "c"].map(filter);
    let mut subscription = broker.subscribe_with(&filters, roomy()).unwrap();
    let threads = spawn_publishers(&broker, &["a", "b/x", "c"]);
    let mut expected = [0; PUBLISHERS];
    for _ in 0..PUBLISHERS * MESSAGES {
        let (publisher, number) = parse_numbered(&*next(&mut subscription).await);
        assert_eq!(number, expected[publisher], "publisher {publisher}");
        expected[publisher] += 1;
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unrecorded_channel_has_one_order_too() {
    let log = broker_core::LogConfig::OFF;
    let mut config = Config::default();
    config.log = log;
    let broker = Broker::new(config);
    let mut one = broker.subscribe_with(&[filter("a")], roomy()).unwrap();
    let mut other = broker.subscribe_with(&[filter("*")], roomy()).unwrap();
    let threads = spawn_publishers(&broker, &["a"]);
    for _ in 0..PUBLISHERS * MESSAGES {
        let (left, right) = (next(&mut one).await, next(&mut other).await);
        assert_eq!(left.payload(), right.payload());
        assert_eq!(left.id(), None);
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(broker.publish(Publish::new(channel("a"), "x")).unwrap().id, None);
    drop((one, other));
    tokio::task::yield_now().await;
    assert_eq!(broker.stats().channels, 0, "an unrecorded channel without subscribers is no entry");
}

/// A front that notes the offsets it is given.
#[derive(Default)]
struct Offsets(parking_lot::Mutex<Vec<u64>>);

impl Deliver for Offsets {
    fn deliver(&self, delivery: &Delivery, _: &[u32], _: &mut Sink<'_>) {
        self.0.lock().push(delivery.message().offset());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_brings_all_after_the_head_that_it_tells_and_nothing_up_to_it() {
    for start in [Start::Live, Start::Retained] {
        let broker = Broker::new(Config::default());
        let threads = spawn_publishers(&broker, &["a/b"]);
        let mut begun = Vec::new();
        while threads.iter().any(|thread| !thread.is_finished()) && begun.len() < 1_000 {
            let filter = filter(["a/*", "a/b", "**"][begun.len() % 3]);
            let offsets = Arc::new(Offsets::default());
            let deliver: Arc<dyn Deliver> = Arc::clone(&offsets) as _;
            let subscriber = broker.attach(deliver, OutboxConfig::default());
            let (subscribed, head) = subscriber.subscribe_at_head(&filter, 0, start).unwrap();
            assert!(subscribed.new);
            begun.push((subscriber, offsets, head.only().unwrap().offset()));
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        broker.drained().await;
        for (_subscriber, offsets, head) in begun {
            let offsets = offsets.0.lock();
            assert!(
                offsets.iter().copied().eq(head + 1..=(PUBLISHERS * MESSAGES) as u64),
                "{head}: {offsets:?}"
            );
        }
    }
}

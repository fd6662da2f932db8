//! *Subscribe from id* loses and repeats nothing while publishers run, and says when it cannot.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker_core::{
    After, Broker, Config, Event, HistoryQuery, LogConfig, MessageId, NamespaceConfig, Order, OutboxConfig,
    OutboxPolicy, Publish, StartFrom, SubscribeOptions, Subscription,
};
use support::*;

fn resume(broker: &Broker, filters: &[&str], after: After, outbox: OutboxConfig) -> Subscription {
    let filters: Vec<_> = filters.iter().map(|text| filter(text)).collect();
    let mut options = SubscribeOptions::default();
    options.from = StartFrom::Log(after);
    options.outbox = outbox;
    broker.subscribe_with(&filters, options).unwrap()
}

fn strict(max_messages: usize) -> OutboxConfig {
    // A loss would close the stream, and the test with it.
    OutboxConfig::new(max_messages, 1 << 20, OutboxPolicy::Disconnect)
}

fn at(broker: &Broker, offset: u64) -> After {
    After::Id(MessageId::new(broker.epoch(), offset))
}

/// Publishers that never stop until told, each thread on all `names` in turn.
fn keep_publishing(
    broker: &Broker,
    names: &'static [&'static str],
) -> (Arc<AtomicBool>, Vec<std::thread::JoinHandle<u64>>) {
    let stop = Arc::new(AtomicBool::new(false));
    let threads = (0..2).map(|publisher| {
        let (broker, stop) = (broker.clone(), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut last = 0;
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                last = publish(&broker, names[number % names.len()], numbered(publisher, number));
                if number % 50 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            last
        })
    });
    let threads = threads.collect();
    (stop, threads)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_falls_between_replay_and_live() {
    let filters: [&[&str]; 6] =
        [&["a/b"], &["a/*"], &["#"], &["a/b", "a/c"], &["a/b", "a/*"], &["own/x", "a/b"]];
    for filters in filters {
        let namespace = NamespaceConfig::new("own", LogConfig::default());
        let mut config = Config::default();
        config.namespaces = vec![namespace];
        let broker = Broker::new(config);
        let (stop, threads) = keep_publishing(&broker, &["a/b", "a/c", "b", "own/x"]);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut streams = Vec::new();
        for _ in 0..8 {
            let head = broker.head().offset();
            for after in [0, head / 2, head.saturating_sub(3), head] {
                streams.push((after, resume(&broker, filters, at(&broker, after), strict(400))));
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        let readers = streams.into_iter().map(|(after, mut stream)| {
            tokio::spawn(async move {
                let messages = until(&mut stream, "end").await;
                (after, messages.iter().map(|message| message.offset()).collect::<Vec<_>>())
            })
        });
        let readers: Vec<_> = readers.collect();
        tokio::time::sleep(Duration::from_millis(60)).await;
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| _ = thread.join().unwrap());
        publish(&broker, "a/b", "end");
        let mut query = HistoryQuery::default();
        query.limit = usize::MAX;
        let all = broker.history(&filter("#"), query).messages;
        for reader in readers {
            let (after, offsets) = reader.await.unwrap();
            let wanted = all.iter().filter(|message| {
                message.offset() > after && filters.iter().any(|text| filter(text).matches(message.channel()))
            });
            let wanted: Vec<u64> = wanted.map(|message| message.offset()).collect();
            let differs = offsets.iter().zip(&wanted).position(|(got, wanted)| got != wanted);
            assert_eq!((differs, offsets.len()), (None, wanted.len()), "{filters:?} after {after}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_waits_for_a_slow_reader_instead_of_overflowing() {
    let broker = Broker::new(Config::default());
    for number in 0..5_000 {
        publish(&broker, "a", numbered(0, number));
    }
    for name in ["a", "#"] {
        let mut stream = resume(&broker, &[name], After::Earliest, strict(64));
        for number in 0..5_000 {
            if number % 500 == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            assert_eq!(parse_numbered(&*next(&mut stream).await).1, number);
        }
        publish(&broker, "a", "0:5000");
        assert_eq!(next(&mut stream).await.payload(), "0:5000");
        publish(&broker, "a", "0:4999");
        next(&mut stream).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_heavier_than_the_outbox_are_replayed_one_by_one() {
    let broker = Broker::new(Config::default());
    let outbox = OutboxConfig::new(100, 10_000, OutboxPolicy::Disconnect);
    for size in [20_000, 10, 30_000, 9_000, 9_000] {
        publish(&broker, "a", vec![b'x'; size]);
    }
    let mut stream = resume(&broker, &["a"], After::Earliest, outbox);
    for size in [20_000, 10, 30_000, 9_000, 9_000] {
        assert_eq!(next(&mut stream).await.payload().len(), size);
    }
}

async fn first_event(stream: &mut Subscription) -> Event {
    tokio::time::timeout(Duration::from_secs(10), stream.next()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_is_gone_is_a_gap() {
    let mut log = LogConfig::default();
    log.max_bytes = 16 << 10;
    let mut config = Config::default();
    config.log = log;
    let broker = Broker::new(config);
    publish(&broker, "quiet", "1");
    for number in 0..1_000 {
        publish(&broker, "busy", numbered(0, number));
    }
    let head = broker.head().offset();
    for (name, after, gap) in [
        ("busy", 1, true),
        ("busy", head - 1, false),
        ("*", 1, true),
        ("*", head - 5, false),
        ("quiet", 0, true),
    ] {
        let mut stream = resume(&broker, &[name], at(&broker, after), strict(1_000));
        tokio::time::sleep(Duration::from_millis(5)).await;
        publish(&broker, name.replace('*', "busy").as_str(), "live");
        let event = first_event(&mut stream).await;
        assert_eq!(matches!(event, Event::Gap(_)), gap, "{name} after {after}: {event:?}");
        if let Event::Gap(gap) = event {
            assert_eq!(gap.requested.offset(), after);
            until(&mut stream, "live").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_channel_with_a_subscriber_has_no_gap() {
    let mut log = LogConfig::default();
    log.max_bytes = 16 << 10;
    let mut config = Config::default();
    config.log = log;
    let broker = Broker::new(config);
    let _keeps_the_entry = broker.subscribe(filter("quiet")).unwrap();
    let offset = publish(&broker, "quiet", "1");
    for number in 0..1_000 {
        publish(&broker, "busy", numbered(0, number));
    }
    let mut stream = resume(&broker, &["quiet"], at(&broker, offset), strict(100));
    tokio::time::sleep(Duration::from_millis(5)).await;
    publish(&broker, "quiet", "2");
    assert_eq!(next(&mut stream).await.payload(), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_of_another_life_or_from_the_future_is_a_gap_and_all_that_is_kept_follows() {
    let broker = Broker::new(Config::default());
    publish(&broker, "a", "1");
    let foreign = MessageId::new(broker.epoch() - 1, 1);
    let future = MessageId::new(broker.epoch(), 99);
    for id in [foreign, future] {
        let mut stream = resume(&broker, &["a"], After::Id(id), strict(100));
        // The gap comes without a message to wait for: the reader must be told at once.
        match first_event(&mut stream).await {
            Event::Gap(gap) => assert_eq!((gap.requested, gap.next.unwrap().offset()), (id, 1)),
            other => panic!("{other:?}"),
        }
        assert_eq!(next(&mut stream).await.payload(), "1");
        let mut query = HistoryQuery::default();
        query.after = Some(id.into());
        let history = broker.history(&filter("a"), query);
        assert!(history.gap && history.messages.len() == 1);
    }
}

#[tokio::test]
async fn expired_messages_are_neither_replayed_nor_in_history() {
    let broker = Broker::new(Config::default());
    broker.publish(Publish::new(channel("a"), "gone").ttl(Duration::ZERO)).unwrap();
    publish(&broker, "a", "here");
    let mut stream = resume(&broker, &["a"], After::Earliest, strict(100));
    assert_eq!(next(&mut stream).await.payload(), "here");
    let history = broker.history(&filter("a"), HistoryQuery::default());
    assert_eq!(history.messages.len(), 1);
    assert!(!history.gap);
}

#[tokio::test]
async fn history_pages_in_both_orders() {
    let broker = Broker::new(Config::default());
    let offsets: Vec<u64> =
        (0..10).map(|n| publish(&broker, if n % 2 == 0 { "a" } else { "b" }, "x")).collect();
    let id = |offset| MessageId::new(broker.epoch(), offset);
    let ask = |text: &str, after: u64, limit, order| -> Vec<u64> {
        let mut query = HistoryQuery::default();
        query.after = Some(id(after).into());
        query.limit = limit;
        query.order = order;
        broker.history(&filter(text), query).messages.iter().map(|message| message.offset()).collect()
    };
    assert_eq!(ask("a", 0, 3, Order::Oldest), [offsets[0], offsets[2], offsets[4]]);
    assert_eq!(ask("a", offsets[4], 3, Order::Oldest), [offsets[6], offsets[8]]);
    assert_eq!(ask("a", 0, 2, Order::Newest), [offsets[8], offsets[6]]);
    assert_eq!(ask("*", offsets[6], 10, Order::Oldest), offsets[7..]);
    assert_eq!(ask("*", 0, 3, Order::Newest), [offsets[9], offsets[8], offsets[7]]);
    assert_eq!(ask("nobody", 0, 3, Order::Newest), []);
}

#[tokio::test]
async fn a_namespace_has_its_own_ring_or_none() {
    let off = NamespaceConfig::new("off", LogConfig::OFF);
    let mut small = LogConfig::default();
    small.max_bytes = 4 << 10;
    let own = NamespaceConfig::new("own", small);
    let mut config = Config::default();
    config.namespaces = vec![off, own];
    let broker = Broker::new(config);
    assert_eq!(publish(&broker, "off/a", "x"), 0);
    let first = publish(&broker, "other", "x");
    for _ in 0..1_000 {
        publish(&broker, "own/a", "x");
    }
    assert!(broker.stats().log_bytes <= 5 << 10);
    let after = MessageId::new(broker.epoch(), first);
    let mut query = HistoryQuery::default();
    query.after = Some(after.into());
    assert!(!broker.history(&filter("other"), query).gap, "another namespace's losses are not ours");
    assert!(broker.history(&filter("own/a"), query).gap);
}

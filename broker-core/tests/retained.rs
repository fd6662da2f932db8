//! *Subscribe with retained* loses and repeats nothing while publishers run.

mod support;

use std::time::Duration;

use broker_core::{
    Broker, Config, LogConfig, OutboxConfig, OutboxPolicy, Publish, PublishError, StartFrom,
    SubscribeOptions, Subscription,
};
use support::*;

fn with_retained(broker: &Broker, text: &str) -> Subscription {
    let outbox = OutboxConfig::new(100_000, 64 << 20, OutboxPolicy::Disconnect);
    let mut options = SubscribeOptions::default();
    options.from = StartFrom::Retained;
    options.outbox = outbox;
    broker.subscribe_with(&[filter(text)], options).unwrap()
}

fn retain(broker: &Broker, name: &str, payload: impl Into<bytes::Bytes>) -> u64 {
    broker.publish(Publish::new(channel(name), payload).retain(true)).unwrap().id.map_or(0, |id| id.offset())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_retained_message_and_every_later_one_arrive_once_and_in_order() {
    for log in [LogConfig::default(), LogConfig::OFF] {
        let mut config = Config::default();
        config.log = log;
        let broker = Broker::new(config);
        retain(&broker, "a/b", "0");
        let publisher = {
            let broker = broker.clone();
            std::thread::spawn(move || {
                for number in 1..3_000 {
                    // Every third only is retained.
                    let publish = Publish::new(channel("a/b"), number.to_string()).retain(number % 3 == 0);
                    broker.publish(publish).unwrap();
                    if number % 20 == 0 {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
                retain(&broker, "a/b", "end");
            })
        };
        let mut readers = Vec::new();
        for round in 0..60 {
            let mut stream = with_retained(&broker, ["a/b", "a/*", "#"][round % 3]);
            readers.push(tokio::spawn(async move { until(&mut stream, "end").await }));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        publisher.join().unwrap();
        for reader in readers {
            let messages = reader.await.unwrap();
            let number = |index: usize| {
                messages
                    .get(index)
                    .and_then(|message| std::str::from_utf8(message.payload()).ok()?.parse::<u32>().ok())
            };
            // After the retained one, nothing is missing: the first live message is the one published next after the
            // subscription, which is at most two past a retained one. If the retained one was replaced while the
            // subscription was made, its newer message is among the live ones instead, and they have no gap at all.
            if messages.len() == 1 {
                // The publisher was done before this reader came.
                continue;
            }
            let first_is_retained = number(0).unwrap() % 3 == 0;
            for index in 1..messages.len() - 1 {
                let (before, now) = (number(index - 1).unwrap(), number(index).unwrap());
                let step = now - before;
                let gap_allowed = index == 1 && first_is_retained && step <= 3;
                assert!(step == 1 || gap_allowed, "{before} then {now} at {index}");
            }
            assert!(messages.iter().take(3).any(|message| message.retain()));
        }
    }
}

#[tokio::test]
async fn an_empty_payload_forgets_and_is_itself_delivered() {
    let broker = Broker::new(Config::default());
    let mut live = broker.subscribe(filter("a")).unwrap();
    retain(&broker, "a", "x");
    assert_eq!(broker.retained(&channel("a")).unwrap().payload(), "x");
    retain(&broker, "a", "");
    assert!(broker.retained(&channel("a")).is_none());
    assert_eq!(next(&mut live).await.payload(), "x");
    assert!(next(&mut live).await.payload().is_empty());
}

#[tokio::test]
async fn a_retained_message_expires() {
    let broker = Broker::new(Config::default());
    let publish = Publish::new(channel("a"), "x").retain(true).ttl(Duration::from_millis(500));
    broker.publish(publish).unwrap();
    assert!(broker.retained(&channel("a")).is_some());
    tokio::time::sleep(Duration::from_millis(550)).await;
    assert!(broker.retained(&channel("a")).is_none());
    let mut late = with_retained(&broker, "#");
    publish_live(&broker);
    assert_eq!(next(&mut late).await.payload(), "live");
}

fn publish_live(broker: &Broker) {
    publish(broker, "a", "live");
}

#[tokio::test]
async fn the_store_has_bounds() {
    let mut config = Config::default();
    config.max_retained_messages = 1;
    let broker = Broker::new(config);
    retain(&broker, "a", "x");
    retain(&broker, "a", "y");
    let refused = broker.publish(Publish::new(channel("b"), "x").retain(true));
    assert_eq!(refused, Err(PublishError::RetainedFull { max: 1 }));
    retain(&broker, "a", "");
    retain(&broker, "b", "x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_retained_messages_than_an_outbox_holds_all_arrive() {
    let broker = Broker::new(Config::default());
    for number in 0..5_000 {
        retain(&broker, &format!("r/{number}"), "old");
    }
    let outbox = OutboxConfig::new(100, 1 << 20, OutboxPolicy::Disconnect);
    let mut options = SubscribeOptions::default();
    options.from = StartFrom::Retained;
    options.outbox = outbox;
    let mut stream = broker.subscribe_with(&[filter("r/*")], options).unwrap();
    // While the pages come, some are replaced: their newer message comes once, live, and the old one not after it.
    let publisher = tokio::spawn({
        let broker = broker.clone();
        async move {
            for number in (4_000..4_500).step_by(20) {
                retain(&broker, &format!("r/{number}"), "new");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let mut seen = std::collections::HashMap::new();
    while seen.len() < 5_000 || seen.values().filter(|payload| *payload == "new").count() < 25 {
        let message = next(&mut stream).await;
        let replaced = seen.insert(message.channel().to_string(), message.payload().clone());
        assert!(replaced.is_none_or(|old| old == "old" && message.payload() == "new"), "{message:?}");
    }
    publisher.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_wildcards_at_once_bring_all_their_retained_messages_and_go_live() {
    let broker = Broker::new(Config::default());
    for number in 0..3_000 {
        for kind in ["a", "b", "c"] {
            retain(&broker, &format!("{kind}/{number}"), "old");
        }
    }
    let outbox = OutboxConfig::new(100, 1 << 20, OutboxPolicy::Disconnect);
    let mut options = SubscribeOptions::default();
    options.from = StartFrom::Retained;
    options.outbox = outbox;
    let filters = ["a/*", "b/*", "c/#"].map(filter);
    let mut stream = broker.subscribe_with(&filters, options).unwrap();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..9_000 {
        assert!(seen.insert(next(&mut stream).await.channel().to_string()));
    }
    for name in ["a/live", "b/live", "c/live"] {
        publish(&broker, name, "new");
        assert_eq!(next(&mut stream).await.channel().as_str(), name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_goes_ends_what_it_was_being_sent() {
    let broker = Broker::new(Config::default());
    for number in 0..5_000 {
        retain(&broker, &format!("r/{number}"), "x");
    }
    let outbox = OutboxConfig::new(100, 1 << 20, OutboxPolicy::Disconnect);
    let mut options = SubscribeOptions::default();
    options.from = StartFrom::Retained;
    options.outbox = outbox;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let idle = tasks();
    let mut streams: Vec<_> =
        (0..50).map(|_| broker.subscribe_with(&[filter("r/*")], options).unwrap()).collect();
    for stream in &mut streams {
        next(stream).await;
    }
    assert!(tasks() >= idle + 50);
    drop(streams);
    for _ in 0..500 {
        if tasks() == idle {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} tasks are left of {idle}", tasks());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_ends_while_its_retained_messages_come_leaves_the_others_live() {
    let broker = Broker::new(Config::default());
    for number in 0..2_000 {
        retain(&broker, &format!("r/{number}"), "x");
        retain(&broker, &format!("s/{number}"), "x");
    }
    let outbox = OutboxConfig::new(100, 1 << 20, OutboxPolicy::Disconnect);
    let mut options = SubscribeOptions::default();
    options.from = StartFrom::Retained;
    options.outbox = outbox;
    let mut stream = broker.subscribe_with(&[filter("r/*"), filter("s/*")], options).unwrap();
    next(&mut stream).await;
    assert!(stream.subscriber().unsubscribe(&filter("r/*"), 0));
    publish(&broker, "s/live", "live");
    let came = until(&mut stream, "live").await;
    assert!(came.len() > 2_000 && came.len() < 3_500, "{}", came.len());
}

#[tokio::test]
async fn what_another_broker_keeps_is_taken_if_it_is_newer_and_nobody_is_sent_it() {
    let broker = Broker::new(Config::default());
    let mut live = broker.subscribe(filter("a")).unwrap();
    let kept =
        || broker.retained(&channel("a")).map(|message| (message.time_ms(), message.payload().clone()));
    let adopt =
        |text: &'static str, time_ms| broker.adopt_retained(Publish::new(channel("a"), text), time_ms);
    assert!(adopt("first", 17) && !adopt("same time", 17) && !adopt("older", 16) && !adopt("", 99));
    assert_eq!(kept(), Some((17, "first".into())));
    assert!(adopt("newer", 18));
    assert_eq!(kept(), Some((18, "newer".into())));
    retain(&broker, "a", "published");
    assert_eq!(live.message().await.unwrap().payload(), "published");
    let mut later = with_retained(&broker, "a");
    assert_eq!(later.message().await.unwrap().payload(), "published");
    let mut config = Config::default();
    config.max_retained_messages = 0;
    let full = Broker::new(config);
    assert!(!full.adopt_retained(Publish::new(channel("a"), "x"), 17));
}

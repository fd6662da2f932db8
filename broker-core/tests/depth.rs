//! Names and filters have a bound on their levels, and no depth can hurt where it is raised.

mod support;

use std::sync::Arc;
use std::time::Duration;

use broker_core::{
    Action, After, Broker, Config, Deliver, Delivery, Filter, HistoryQuery, OutboxConfig, OutboxPolicy,
    Principal, Publish, PublishError, Rights, Rule, Sink, Start, StartFrom, SubscribeError, SubscribeOptions,
    Subscriber,
};
use support::*;

struct Silent;

impl Deliver for Silent {
    fn deliver(&self, _: &Delivery, _: &[u32], _: &mut Sink<'_>) {}
}

fn attach(broker: &Broker) -> Subscriber {
    broker.attach(Arc::new(Silent), OutboxConfig::default())
}

fn levels(segment: &str, count: usize) -> String {
    vec![segment; count].join("/")
}

#[tokio::test]
async fn names_and_filters_beyond_the_bound_are_refused_and_counted() {
    let broker = Broker::new(Config::default());
    let subscriber = attach(&broker);
    for text in [levels("a", 128), levels("*", 128), format!("{}/#", levels("*", 127))] {
        subscriber.subscribe(&filter(&text), 0, Start::Live).unwrap();
        subscriber.join_group("g", &filter(&text), 1, &Arc::default()).unwrap();
        _ = subscriber.subscribe_after(&[(filter(&text), 2)], After::Earliest).unwrap();
        broker.check_levels(&filter(&text)).unwrap();
    }
    assert_eq!(broker.publish(Publish::new(channel(&levels("a", 128)), "x")).unwrap().receivers, 9);
    let refused = SubscribeError::TooManyLevels { levels: 129, max: 128 };
    for text in [levels("a", 129), levels("*", 129), format!("{}/#", levels("a", 128))] {
        for start in [Start::Live, Start::Retained] {
            assert_eq!(subscriber.subscribe(&filter(&text), 5, start), Err(refused.clone()));
        }
        assert_eq!(subscriber.join_group("g", &filter(&text), 5, &Arc::default()), Err(refused.clone()));
        let filters = [(filter("b"), 5), (filter(&text), 6)];
        assert_eq!(subscriber.subscribe_after(&filters, After::Earliest).err(), Some(refused.clone()));
        assert_eq!(broker.subscribe(filter(&text)).err(), Some(refused.clone()));
    }
    let deep = Publish::new(channel(&levels("a", 129)), "x").retain(true);
    assert_eq!(broker.publish(deep), Err(PublishError::TooManyLevels { levels: 129, max: 128 }));
    let stats = broker.stats();
    assert_eq!((stats.refused_levels, stats.refused), (16, 1));
    assert_eq!((stats.retained_messages, stats.subscriptions), (0, 9));
}

/// All of it on a stack that a recursion over the levels would not fit on.
#[test]
fn no_depth_needs_stack() {
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut config = Config::default();
            config.max_channel_levels = 65_536;
            config.lanes = Some(1);
            let broker = Broker::new(config);
            deep_filters(&broker);
            deep_retained(&broker).await;
            deep_rights();
        });
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(work).unwrap().join().unwrap();
}

fn deep_filters(broker: &Broker) {
    let subscriber = attach(broker);
    for text in
        [levels("*", 7_000), format!("{}/#", levels("*", 32_000)), levels("a/*", 16_000), levels("", 65_536)]
    {
        subscriber.subscribe(&filter(&text), 0, Start::Retained).unwrap();
        subscriber.join_group("g", &filter(&text), 1, &Arc::default()).unwrap();
        subscriber.set_online(false);
    }
    assert_eq!(broker.publish(Publish::new(channel(&levels("a", 7_000)), "x")).unwrap().receivers, 2);
    assert_eq!(broker.publish(Publish::new(channel(&levels("a", 32_500)), "x")).unwrap().receivers, 2);
    assert_eq!(broker.history(&filter(&levels("*", 7_000)), HistoryQuery::default()).messages.len(), 1);
    assert!(subscriber.unsubscribe(&filter(&levels("*", 7_000)), 0));
    drop(subscriber);
    assert_eq!((broker.stats().wildcard_filters, broker.stats().subscriptions), (0, 0));
}

async fn deep_retained(broker: &Broker) {
    let deep = [9_000, 15_000, 32_000].map(|count| levels("a", count));
    for name in &deep {
        let publish = Publish::new(channel(name), "x").retain(true);
        broker.publish(publish.clone()).unwrap();
        let ending = Publish::new(channel(&format!("{name}/b")), "x").retain(true);
        broker.publish(ending.ttl(Duration::from_millis(1))).unwrap();
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(broker.retained_matching(&filter("#")).len(), 3);
    assert_eq!(broker.retained_matching(&filter(&levels("*", 15_000))).len(), 1);
    let outbox = OutboxConfig::new(100, 1 << 20, OutboxPolicy::Disconnect);
    let mut options = SubscribeOptions::default();
    options.from = StartFrom::Retained;
    options.outbox = outbox;
    let filters = [filter("a/#"), filter(&format!("{}/#", levels("*", 8_000)))];
    let mut stream = broker.subscribe_with(&filters, options).unwrap();
    for _ in 0..6 {
        next(&mut stream).await;
    }
    // The janitor comes by once a second.
    while broker.stats().retained_messages > 3 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for name in &deep {
        assert!(broker.clear_retained(&channel(name)).await.unwrap());
    }
    assert_eq!(broker.stats().retained_bytes, 0);
}

fn deep_rights() {
    let everything = levels("*", 32_000);
    let rights = Rights::none()
        .allow(Rule::all(filter(&everything)))
        .allow(Rule::all(filter(&format!("{}/**", levels("a", 15_000)))))
        .deny(Rule::all(filter(&format!("{}/x/#", levels("a", 15_000)))));
    let principal = Principal::new(Some("deep"), Arc::new(rights));
    let allows = |text: &str| principal.allows_filter(Action::Subscribe, &filter(text));
    assert!(allows(&everything) && allows(&levels("a", 32_000)) && !allows(&levels("*", 31_999)));
    let all = filter(&format!("{}/#", levels("a", 15_000)));
    assert!(!allows(&all.to_string()) && allows(&all.below().unwrap().to_string()));
    assert!(!principal.allows_all_of(Action::Subscribe, &all.below().unwrap()));
    let below = format!("{}/x/y", levels("a", 15_000));
    assert!(!principal.allows(Action::Publish, &channel(&below)) && !allows(&below));
    assert!(Filter::parse(&levels("*", 33_000)).is_err(), "longer than a name may be");
}

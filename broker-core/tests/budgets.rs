//! What budgets say is what the process holds: within twice of its private memory, and given back.
//!
//! It is the memory of the whole process that is measured, so everything is one test.

mod support;

use std::sync::Arc;
use std::time::Duration;

use broker_core::{
    Broker, Config, Deliver, Delivery, LogConfig, OutboxConfig, Publish, Sink, Start, SubscribeError,
    Subscriber,
};
use support::*;

struct Silent;

impl Deliver for Silent {
    fn deliver(&self, _: &Delivery, _: &[u32], _: &mut Sink<'_>) {}
}

fn broker(config: Config) -> Broker {
    let mut given = config;
    given.log = LogConfig::OFF;
    given.max_channel_levels = 65_536;
    given.lanes = Some(1);
    Broker::new(given)
}

/// Private memory in bytes.
fn private() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let mut pages = pages.split(' ').map(|count| count.parse::<usize>().unwrap_or(0));
    let (resident, shared) = (pages.nth(1).unwrap(), pages.next().unwrap());
    (resident - shared) * 4096
}

fn levels(segment: &str, count: usize) -> String {
    vec![segment; count].join("/")
}

/// Runs `fill` and compares what `said` grew by with what the process did.
#[track_caller]
fn compare(what: &str, said: impl Fn() -> usize, fill: impl FnOnce()) {
    let before = (said(), private());
    fill();
    let (said, held) = (said() - before.0, private() - before.1);
    println!("{what}: says {said}, holds {held}");
    assert!(said * 2 >= held && held * 2 >= said, "{what}: says {said}, holds {held}");
}

fn retain(broker: &Broker, name: &str, ttl: Option<Duration>) {
    let publish = Publish::new(channel(name), bytes::Bytes::from(vec![b'x'; 20])).retain(true);
    broker.publish(ttl.map_or(publish.clone(), |ttl| publish.ttl(ttl))).unwrap();
}

fn subscribers(broker: &Broker, count: usize) -> Vec<Subscriber> {
    let attach = |_| broker.attach(Arc::new(Silent), OutboxConfig::default());
    (0..count).map(attach).collect()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn budgets_are_within_twice_of_the_memory_that_is_held_and_clearing_gives_it_back() {
    // Nothing is dropped before the end: what one part gives back, the next would be given.
    let kept = broker(Config::default());
    let retained = || kept.stats().retained_bytes;
    compare("short retained names", retained, || {
        (0..25_000).for_each(|n| retain(&kept, &format!("sensor/{n}/temperature"), None));
    });
    compare("retained names of 6,001 levels", retained, || {
        (0..1_000).for_each(|n| retain(&kept, &format!("{}/{n}", levels("a", 6_000)), None));
    });
    compare("retained messages that end", retained, || {
        let ttl = Some(Duration::from_secs(3_600));
        (0..25_000).for_each(|n| retain(&kept, &format!("state/{n}"), ttl));
    });

    let filters = || kept.stats().filter_bytes;
    let many = subscribers(&kept, 1_000);
    let subscribe = |number: usize, text: &str| {
        many[number % many.len()].subscribe(&filter(text), number as u32, Start::Live).unwrap();
    };
    compare("short filters", filters, || (0..30_000).for_each(|n| subscribe(n, &format!("device/{n}/*"))));
    compare("filters of 1,000 levels", filters, || {
        (0..3_000).for_each(|n| subscribe(100_000 + n, &format!("{}/{n}", levels("*", 1_000))));
    });
    compare("filters that branch at each of 100 levels", filters, || {
        for n in 0..10_000_usize {
            let level = |at: usize| if n >> (at % 14) & 1 == 0 { "*" } else { "b" };
            subscribe(200_000 + n, &format!("{n}/{}", (0..100).map(level).collect::<Vec<_>>().join("/")));
        }
    });
    compare("literal filters", filters, || {
        (0..30_000).for_each(|n| subscribe(300_000 + n, &format!("room/{n}")))
    });
    compare("filters that many share", filters, || {
        (0..30_000).for_each(|n| subscribe(400_000 + n, &format!("all/rooms/of/this/house/{}/*", n / 100)));
    });

    // Filled and emptied again and again it holds no more than the first time.
    let turned = broker(Config::default());
    let mut after = Vec::new();
    for _ in 0..4 {
        let names: Vec<String> = (0..6_000).map(|n| format!("{n}/{}", levels("a", 100))).collect();
        names.iter().for_each(|name| retain(&turned, name, None));
        let subscribers = subscribers(&turned, 100);
        for (number, name) in names.iter().enumerate() {
            let filter = filter(&format!("{name}/*"));
            subscribers[number % 100].subscribe(&filter, number as u32, Start::Live).unwrap();
        }
        drop(subscribers);
        for name in &names {
            assert!(turned.clear_retained(&channel(name)).await.unwrap());
        }
        let stats = turned.stats();
        assert_eq!((stats.retained_bytes, stats.retained_messages, stats.wildcard_filters), (0, 0, 0));
        assert!(stats.filter_bytes < 100_000, "{}", stats.filter_bytes);
        after.push(private());
    }
    assert!(after[3] < after[0] + after[0] / 20, "{after:?}");
}

#[tokio::test]
async fn filters_have_a_budget_that_is_given_back() {
    let mut config = Config::default();
    config.max_filter_bytes = 200_000;
    let broker = Broker::new(config);
    let [first, other] = [(); 2].map(|()| broker.attach(Arc::new(Silent), OutboxConfig::default()));
    let full = Err(SubscribeError::FiltersFull { max: 200_000 });
    let mut held = 0;
    while first.subscribe(&filter(&format!("a/{held}/*")), held, Start::Live).is_ok() {
        held += 1;
        assert!(held < 2_000, "no bound");
    }
    assert!(held > 300, "{held}");
    // Tables grow in steps.
    assert!(broker.stats().filter_bytes <= 250_000);
    let long = "b".repeat(1_000);
    assert_eq!(other.subscribe(&filter(&long), 0, Start::Live), full);
    assert_eq!(other.join_group("g", &filter(&format!("{long}/*")), 0, &Arc::default()), full);
    assert_eq!(broker.stats().refused_filters, 3);
    // What is there may be asked for again.
    first.subscribe(&filter("a/0/*"), 0, Start::Retained).unwrap();
    for number in 0..held {
        assert!(first.unsubscribe(&filter(&format!("a/{number}/*")), number));
    }
    assert_eq!(broker.stats().wildcard_filters, 0);
    other.subscribe(&filter("b"), 0, Start::Live).unwrap();
}

//! What waits: how much a silent reader may hold, what leaves its room to others, and what a reader is told of its
//! losses.

mod support;

use std::sync::{Arc, Weak};
use std::time::Duration;

use broker_core::{
    After, Broker, Class, Config, Deliver, Delivery, Event, HistoryQuery, LogConfig, Message, Outbox,
    OutboxConfig, OutboxEnd, OutboxPolicy, Publish, Sink, Start, StartFrom, SubscribeOptions, Subscriber,
};
use support::*;

struct Plain(Class);

impl Deliver for Plain {
    fn deliver(&self, delivery: &Delivery, _: &[u32], sink: &mut Sink<'_>) {
        sink.send(delivery.message().payload(), self.0);
    }
}

fn bounded(max_messages: usize, policy: OutboxPolicy) -> OutboxConfig {
    OutboxConfig::new(max_messages, 64 << 20, policy)
}

/// Waits until nothing is added to any of these outboxes any more.
async fn settled(outboxes: &[Arc<Outbox>]) {
    let count = || outboxes.iter().map(|outbox| outbox.queued().messages).collect::<Vec<_>>();
    for _ in 0..400 {
        let before = count();
        tokio::time::sleep(Duration::from_millis(50)).await;
        if before == count() && before.iter().all(|messages| *messages > 0) {
            return;
        }
    }
    panic!("{:?}", count());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_readers_hold_a_position_and_little_else() {
    const STREAMS: usize = 50;
    let mut log = LogConfig::default();
    log.max_bytes = 4 << 20;
    let mut config = Config::default();
    config.log = log;
    let broker = Broker::new(config);
    for number in 0..10_000 {
        publish(&broker, "a/b", numbered(0, number));
    }
    let mut streams: Vec<Subscriber> = Vec::new();
    for stream in 0..STREAMS {
        let filters = [("a/b", 0), ("a/*", 1), ("#", 2)];
        let (text, tag) = filters[stream % filters.len()];
        let subscriber =
            broker.attach(Arc::new(Plain(Class::Droppable)), bounded(10_000, OutboxPolicy::Disconnect));
        let replay = subscriber.subscribe_after(&[(filter(text), tag)], After::Earliest).unwrap();
        tokio::spawn(replay.run(|_| {}));
        streams.push(subscriber);
    }
    let outboxes: Vec<_> = streams.iter().map(Subscriber::outbox).collect();
    settled(&outboxes).await;
    // A page and a half.
    assert!(outboxes.iter().all(|outbox| outbox.queued().messages <= 192));
    let mut query = HistoryQuery::default();
    query.limit = usize::MAX;
    let kept = broker.history(&filter("#"), query).messages;
    let held: usize = kept.iter().map(|message| Arc::strong_count(message) - 2).sum();
    assert_eq!(held, 0, "the log's reference and ours");
    let kept: Vec<Weak<Message>> = kept.into_iter().map(|message| Arc::downgrade(&message)).collect();
    // What the log forgets is free, whoever still waits to read it.
    for number in 0..40_000 {
        publish(&broker, "a/b", numbered(1, number));
    }
    let freed = async {
        while kept.iter().any(|message| message.strong_count() > 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), freed).await.expect("nobody pins what the log forgot");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_that_opens_while_a_replay_waits_is_told() {
    let mut log = LogConfig::default();
    log.max_bytes = 1 << 20;
    let mut config = Config::default();
    config.log = log;
    let broker = Broker::new(config);
    for number in 0..2_000 {
        publish(&broker, "a", numbered(0, number));
    }
    let outbox = bounded(100, OutboxPolicy::Disconnect);
    let mut options = SubscribeOptions::default();
    options.from = StartFrom::Log(After::Earliest);
    options.outbox = outbox;
    let mut stream = broker.subscribe_with(&[filter("a")], options).unwrap();
    for number in 0..10 {
        assert_eq!(parse_numbered(&*next(&mut stream).await), (0, number));
    }
    for number in 0..20_000 {
        publish(&broker, "a", numbered(1, number));
    }
    publish(&broker, "a", "end");
    let (mut gaps, mut holes, mut before) = (Vec::new(), Vec::new(), 0);
    loop {
        match tokio::time::timeout(Duration::from_secs(10), stream.next()).await.unwrap().unwrap() {
            Event::Gap(gap) => {
                gaps.push(gap.requested.offset());
            }
            Event::Message(message) => {
                if before > 0 && message.prev() != before {
                    holes.push(before);
                }
                before = message.offset();
                if message.payload() == "end" {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((&gaps, gaps.len()), (&holes, 1), "one hole, and it is told");
}

#[tokio::test]
async fn messages_whose_time_is_over_leave_their_room_to_others() {
    // Long enough to publish a thousand messages on a machine that is busy with something else.
    const LIFE: Duration = Duration::from_secs(2);
    for (policy, classes) in [
        (OutboxPolicy::DropOldest, &[Class::Droppable, Class::Control][..]),
        (OutboxPolicy::DropNewest, &[Class::Droppable]),
        (OutboxPolicy::Disconnect, &[Class::Droppable]),
        (OutboxPolicy::Conflate, &[Class::Droppable]),
    ] {
        for class in classes.iter().copied() {
            let broker = Broker::new(Config::default());
            let subscriber = broker.attach(Arc::new(Plain(class)), bounded(1_000, policy));
            subscriber.subscribe(&filter("#"), 0, Start::Live).unwrap();
            let mut options = SubscribeOptions::default();
            options.outbox = bounded(1_000, policy);
            let mut stream = broker.subscribe_with(&[filter("#")], options).unwrap();
            // By batches that an outbox takes in one go.
            let publish_all = |kind: &'static str, count: usize, ttl: Option<Duration>| {
                let broker = broker.clone();
                async move {
                    for number in 0..count {
                        let message = Publish::new(channel(&format!("{kind}/{number}")), kind);
                        broker.publish(ttl.iter().fold(message, |message, ttl| message.ttl(*ttl))).unwrap();
                        if number % 100 == 99 {
                            broker.drained().await;
                        }
                    }
                }
            };
            publish_all("over", 1_000, Some(LIFE)).await;
            let queued = subscriber.outbox().queued().messages;
            assert_eq!(queued, 1_000, "{policy:?} {class:?}");
            tokio::time::sleep(LIFE).await;
            publish_all("fresh", 500, None).await;
            let outbox = subscriber.outbox();
            assert_eq!((outbox.closed(), outbox.dropped()), (None, 0), "{policy:?} {class:?}");
            let taken = outbox.take(usize::MAX);
            assert!(taken.len() == 500 && taken.iter().all(|frame| frame == "fresh"), "{policy:?} {class:?}");
            for _ in 0..500 {
                assert_eq!(next(&mut stream).await.payload(), "fresh");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_behind_retained_messages_leaves_its_room_when_its_time_is_over() {
    let broker = Broker::new(Config::default());
    for number in 0..2_000 {
        broker.publish(Publish::new(channel(&format!("a/{number}")), "kept").retain(true)).unwrap();
    }
    let mut given = SubscribeOptions::default();
    given.from = StartFrom::Retained;
    given.outbox = bounded(200, OutboxPolicy::Disconnect);
    let options = given;
    let mut stream = broker.subscribe_with(&[filter("a/*")], options).unwrap();
    settled(&[stream.subscriber().outbox()]).await;
    for _ in 0..900 {
        broker.publish(Publish::new(channel("a/x"), "over").ttl(Duration::from_millis(1))).unwrap();
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    for _ in 0..150 {
        publish(&broker, "a/x", "fresh");
    }
    // All retained ones first: nothing had to make room for what is over.
    for number in 0..2_150 {
        let expected = if number < 2_000 { "kept" } else { "fresh" };
        assert_eq!(next(&mut stream).await.payload(), expected, "{number}");
    }
}

#[tokio::test]
async fn a_burst_of_tens_of_thousands_loses_nothing_in_process() {
    let broker = Broker::new(Config::default());
    let mut stream = broker.subscribe(filter("a")).unwrap();
    for number in 0..50_000 {
        publish(&broker, "a", numbered(0, number));
    }
    for number in 0..50_000 {
        assert_eq!(parse_numbered(&*next(&mut stream).await).1, number);
    }
    assert_eq!((stream.dropped(), stream.closed()), (0, None));
}

#[tokio::test]
async fn a_reader_in_process_is_told_exactly_what_it_lost() {
    let broker = Broker::new(Config::default());
    let options = |policy| {
        let mut given = SubscribeOptions::default();
        given.outbox = OutboxConfig::new(100_000, 200_000, policy);
        given
    };
    let mut stream = broker.subscribe_with(&[filter("a")], options(OutboxPolicy::DropOldest)).unwrap();
    let mut strict = broker.subscribe_with(&[filter("a")], options(OutboxPolicy::Disconnect)).unwrap();
    for number in 0..2_000 {
        publish(&broker, "a", numbered(0, number));
    }
    publish(&broker, "a", "end");
    broker.drained().await;
    let (mut lagged, mut messages) = (0, 0);
    loop {
        match tokio::time::timeout(Duration::from_secs(10), stream.next()).await.unwrap().unwrap() {
            Event::Lagged(count) => lagged += count,
            Event::Message(message) if message.payload() == "end" => break,
            Event::Message(_) => messages += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((lagged + messages, stream.dropped()), (2_000, lagged));
    assert!((500..1_100).contains(&messages), "a budget of what is really held, not of payloads: {messages}");
    let ended = async { while strict.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
    assert_eq!(strict.closed(), Some(OutboxEnd::Overflow));
}

//! A panic in a front's code ends its subscriber, never the lane.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker_core::{
    After, Broker, Class, Config, Deliver, Delivery, OutboxConfig, OutboxEnd, Publish, Sink, Start,
};
use support::*;

/// A front that panics while it is told to.
struct Bad(Arc<AtomicBool>);

impl Deliver for Bad {
    fn deliver(&self, delivery: &Delivery, _: &[u32], sink: &mut Sink<'_>) {
        assert!(!self.0.load(Ordering::Relaxed), "as told");
        sink.send(delivery.message().payload(), Class::Control);
    }
}

/// A front that panics when it is let go of.
struct BadEnd;

impl Deliver for BadEnd {
    fn deliver(&self, _: &Delivery, _: &[u32], _: &mut Sink<'_>) {}
}

impl Drop for BadEnd {
    fn drop(&mut self) {
        panic!("as told");
    }
}

fn one_lane() -> Broker {
    let mut config = Config::default();
    config.lanes = Some(1);
    Broker::new(config)
}

fn told(to: bool) -> (Arc<AtomicBool>, Arc<Bad>) {
    let flag = Arc::new(AtomicBool::new(to));
    (Arc::clone(&flag), Arc::new(Bad(flag)))
}

#[tokio::test]
async fn a_panic_while_delivering_ends_that_subscriber_alone() {
    // By one list, by overlapping ones, and in a burst.
    for filters in [&["a"][..], &["a", "*"]] {
        for burst in [1, 20] {
            let broker = one_lane();
            let mut before = broker.subscribe(filter("a")).unwrap();
            let bad = broker.attach(told(true).1, OutboxConfig::default());
            for (text, tag) in filters.iter().zip(0..) {
                bad.subscribe(&filter(text), tag, Start::Live).unwrap();
            }
            let mut after = broker.subscribe(filter("a")).unwrap();
            for number in 0..burst {
                publish(&broker, "a", numbered(0, number));
            }
            broker.drained().await;
            for stream in [&mut before, &mut after] {
                for number in 0..burst {
                    assert_eq!(parse_numbered(&*next(stream).await).1, number);
                }
            }
            assert_eq!(bad.outbox().closed(), Some(OutboxEnd::Broken));
            assert_eq!(broker.stats().panicked, 1, "it is not called again");
            assert!(!broker.is_closed());
        }
    }
}

#[tokio::test]
async fn a_panic_in_a_replay_or_a_direct_message_ends_that_subscriber_alone() {
    let broker = one_lane();
    publish(&broker, "a", "x");
    let bad = broker.attach(told(true).1, OutboxConfig::default());
    let replay = bad.subscribe_after(&[(filter("a"), 0)], After::Earliest).unwrap();
    tokio::time::timeout(Duration::from_secs(10), replay.run(|_| {})).await.expect("it ends");
    assert_eq!(bad.outbox().closed(), Some(OutboxEnd::Broken));

    broker.publish(Publish::new(channel("kept"), "x").retain(true)).unwrap();
    let bad = broker.attach(told(true).1, OutboxConfig::default());
    bad.subscribe(&filter("kept"), 0, Start::Retained).unwrap();
    broker.drained().await;
    assert_eq!(bad.outbox().closed(), Some(OutboxEnd::Broken));
    assert_eq!(broker.stats().panicked, 2);

    let mut other = broker.subscribe(filter("a")).unwrap();
    publish(&broker, "a", "y");
    assert_eq!(next(&mut other).await.payload(), "y");
}

#[tokio::test]
async fn a_panic_when_a_front_lets_go_reaches_nobody() {
    let broker = one_lane();
    drop(broker.attach(Arc::new(BadEnd), OutboxConfig::default()));
    broker.drained().await;
    let mut other = broker.subscribe(filter("a")).unwrap();
    publish(&broker, "a", "y");
    assert_eq!(next(&mut other).await.payload(), "y");
}

#[tokio::test]
async fn a_session_that_panicked_has_another_try_with_its_next_connection() {
    let broker = one_lane();
    let (flag, deliver) = told(true);
    let session = broker.attach(deliver, OutboxConfig::default());
    session.subscribe(&filter("a"), 0, Start::Live).unwrap();
    publish(&broker, "a", "x");
    broker.drained().await;
    assert_eq!(session.outbox().closed(), Some(OutboxEnd::Broken));
    flag.store(false, Ordering::Relaxed);
    let outbox = session.renew_outbox(OutboxConfig::default());
    publish(&broker, "a", "y");
    broker.drained().await;
    assert_eq!((outbox.closed(), outbox.queued().messages), (None, 1));
    drop(session);
    broker.drained().await;
    assert_eq!(broker.stats().subscribers, 0);
}

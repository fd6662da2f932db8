//! Many replays of one subscriber, or the retained messages of many filters: all of them end, with nothing lost.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{
    After, Broker, Class, Config, Deliver, Delivery, Outbox, OutboxConfig, OutboxPolicy, Publish, Sink,
    StartFrom, SubscribeOptions,
};
use bytes::Bytes;
use support::*;

/// A front whose frames must not be dropped.
struct Strict;

impl Deliver for Strict {
    fn deliver(&self, delivery: &Delivery, _: &[u32], sink: &mut Sink<'_>) {
        sink.send(delivery.message().payload(), Class::Control);
    }
}

/// A reader that takes little at a time, until it has had so many frames.
async fn take_slowly(outbox: &Outbox, frames: usize) -> Vec<Bytes> {
    let mut taken = Vec::new();
    let all = async {
        while taken.len() < frames {
            taken.extend(outbox.take(2_000));
            assert_eq!(outbox.closed(), None, "after {} frames", taken.len());
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(30), all).await;
    assert!(ended.is_ok(), "{} of {frames} frames came", taken.len());
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_many_replays_of_a_slow_reader_goes_live() {
    const REPLAYS: usize = 8;
    let broker = Broker::new(Config::default());
    for number in 0..200 {
        for replay in 0..REPLAYS {
            publish(&broker, &format!("a/{replay}"), format!("{replay}:{number}:{:1500}", ""));
        }
    }
    let outbox = OutboxConfig::new(1_000, 256 << 10, OutboxPolicy::Disconnect);
    let subscriber = broker.attach(Arc::new(Strict), outbox);
    let mut replays = Vec::new();
    for replay in 0..REPLAYS {
        let filter = filter(&format!("a/{replay}"));
        let replay = subscriber.subscribe_after(&[(filter, replay as u32)], After::Earliest).unwrap();
        replays.push(tokio::spawn(replay.run(|_| {})));
    }
    let mut heard = BTreeMap::<String, Vec<usize>>::new();
    for frame in take_slowly(&subscriber.outbox(), 200 * REPLAYS).await {
        let text = String::from_utf8(frame.to_vec()).unwrap();
        let mut parts = text.split(':');
        let (replay, number) = (parts.next().unwrap(), parts.next().unwrap());
        heard.entry(replay.into()).or_default().push(number.parse().unwrap());
    }
    assert!(heard.values().all(|numbers| numbers.iter().copied().eq(0..200)), "{heard:?}");
    for replay in replays {
        tokio::time::timeout(Duration::from_secs(10), replay).await.expect("it goes live").unwrap();
    }
    for replay in 0..REPLAYS {
        publish(&broker, &format!("a/{replay}"), format!("{replay}:live:"));
    }
    broker.drained().await;
    assert_eq!(take_slowly(&subscriber.outbox(), REPLAYS).await.len(), REPLAYS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_retained_messages_of_several_filters_arrive_and_all_go_live() {
    let broker = Broker::new(Config::default());
    for number in 0..3_000 {
        for name in ["a", "b"] {
            let channel = channel(&format!("{name}/{number}"));
            broker.publish(Publish::new(channel, "kept").retain(true)).unwrap();
        }
    }
    let mut options = SubscribeOptions::default();
    options.from = StartFrom::Retained;
    options.outbox = OutboxConfig::default();
    let mut stream = broker.subscribe_with(&[filter("a/*"), filter("b/*")], options).unwrap();
    let mut heard = Vec::new();
    for _ in 0..6_000 {
        heard.push(next(&mut stream).await.channel().to_string());
    }
    heard.sort_unstable();
    heard.dedup();
    assert_eq!(heard.len(), 6_000);
    for name in ["a/0", "b/0"] {
        publish(&broker, name, "live");
        assert_eq!(next(&mut stream).await.channel().as_str(), name);
    }
}

#[tokio::test]
async fn a_replay_that_is_given_up_leaves_its_turn_to_the_next() {
    let broker = Broker::new(Config::default());
    for number in 0..50 {
        publish(&broker, "a", numbered(0, number));
    }
    let outbox = OutboxConfig::new(20, 1 << 20, OutboxPolicy::Disconnect);
    let subscriber = broker.attach(Arc::new(Strict), outbox);
    let run = |tag: u32| {
        let replay = subscriber.subscribe_after(&[(filter("a"), tag)], After::Earliest).unwrap();
        tokio::spawn(replay.run(|_| {}))
    };
    let first = run(0);
    while subscriber.outbox().queued().messages == 0 {
        tokio::task::yield_now().await;
    }
    let (second, third) = (run(1), run(2));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let both = tokio::time::timeout(Duration::from_secs(10), async { (second.await, third.await) });
    let mut both = std::pin::pin!(both);
    loop {
        tokio::select! {
            ended = &mut both => {
                let (second, third) = ended.expect("both go live");
                return second.and(third).unwrap();
            }
            () = tokio::time::sleep(Duration::from_micros(200)) => {
                subscriber.outbox().take(10);
            }
        }
    }
}

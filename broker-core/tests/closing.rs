//! What is said about closing, dropping and cancelling holds, whatever handles are left.

mod support;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{
    After, Broker, Config, Deliver, Delivery, Event, OutboxConfig, OutboxEnd, OutboxPolicy, Publish,
    PublishError, SendError, Sink, Start, StartFrom, SubscribeError, SubscribeOptions, Subscription,
};
use support::*;

/// Waits a generous while for what must end.
async fn ends<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.unwrap_or_else(|_| panic!("{what} hangs"))
}

/// Reads a stream to its end; the payloads of its messages.
async fn rest(mut stream: Subscription) -> Vec<String> {
    let mut payloads = Vec::new();
    while let Some(event) = stream.next().await {
        if let Event::Message(message) = event {
            payloads.push(String::from_utf8(message.payload().to_vec()).unwrap());
        }
    }
    payloads
}

fn from(from: StartFrom) -> SubscribeOptions {
    let mut options = SubscribeOptions::default();
    options.from = from;
    options
}

/// A front that puts payloads as they are.
struct Plain;

impl Deliver for Plain {
    fn deliver(&self, delivery: &Delivery, _: &[u32], sink: &mut Sink<'_>) {
        sink.send(delivery.message().payload(), broker_core::Class::Control);
    }
}

/// A front whose first delivery waits until it is let go, with its lane.
struct Stuck(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);

impl Deliver for Stuck {
    fn deliver(&self, _: &Delivery, _: &[u32], _: &mut Sink<'_>) {
        _ = self.0.lock().unwrap().recv_timeout(Duration::from_secs(10));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_stream_ends_when_the_broker_is_closed_and_has_what_was_taken() {
    let broker = Broker::new(Config::default());
    let clones = [broker.clone(), broker.clone()];
    let live = broker.subscribe(filter("a")).unwrap();
    let waiting = tokio::spawn(rest(broker.subscribe(filter("a")).unwrap()));
    for number in 0..100 {
        publish(&broker, "a", numbered(0, number));
    }
    clones[0].close();
    assert_eq!(ends("a stream that waits", waiting).await.unwrap().len(), 100);
    assert_eq!(ends("a stream that is read later", rest(live)).await.len(), 100);
    drop(clones);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_replay_or_get_retained_messages_end_too() {
    for start in [StartFrom::Retained, StartFrom::Log(After::Earliest), StartFrom::Now] {
        for name in ["a/1", "a/*"] {
            // Before it has begun, and while it waits.
            for polls in [0, 20] {
                let broker = Broker::new(Config::default());
                for number in 0..3_000 {
                    let to = channel(&format!("a/{}", number % 1_500));
                    broker.publish(Publish::new(to, "x").retain(true)).unwrap();
                }
                let mut stream = broker.subscribe_with(&[filter(name)], from(start)).unwrap();
                for _ in 0..polls {
                    _ = tokio::time::timeout(Duration::from_millis(1), stream.next()).await;
                }
                broker.close();
                ends(&format!("{start:?} {name} {polls}"), rest(stream)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_behind_retained_messages_is_delivered_before_the_end() {
    let broker = Broker::new(Config::default());
    for number in 0..2_000 {
        broker.publish(Publish::new(channel(&format!("a/{number}")), "kept").retain(true)).unwrap();
    }
    let stream = broker.subscribe_with(&[filter("a/*")], from(StartFrom::Retained)).unwrap();
    publish(&broker, "a/new", "live");
    broker.close();
    assert!(ends("the stream", rest(stream)).await.contains(&"live".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn who_waits_on_a_busy_broker_is_told_that_it_is_closed() {
    let mut config = Config::default();
    config.lanes = Some(1);
    config.max_lane_deliveries = 0;
    let broker = Broker::new(config);
    let (let_go, held) = std::sync::mpsc::channel();
    let stuck = broker.attach(Arc::new(Stuck(std::sync::Mutex::new(held))), OutboxConfig::default());
    stuck.subscribe(&filter("a"), 0, Start::Live).unwrap();
    while broker.publish(Publish::new(channel("a"), "x")).is_ok() {
        tokio::task::yield_now().await;
    }
    let waiting = tokio::spawn({
        let broker = broker.clone();
        async move { broker.publish_wait(Publish::new(channel("a"), "x")).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    broker.close();
    assert_eq!(ends("publish_wait", waiting).await.unwrap(), Err(PublishError::Closed));
    assert_eq!(broker.publish(Publish::new(channel("a"), "x")), Err(PublishError::Closed));
    assert!(matches!(broker.subscribe(filter("a")), Err(SubscribeError::Closed)));
    assert_eq!(
        stuck.join_group("g", &filter("a"), 1, &Default::default()).unwrap_err(),
        SubscribeError::Closed
    );
    drop(let_go);
    ends("drained", broker.drained()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drained_waits_for_what_was_taken_and_for_nothing_that_is_gone() {
    let broker = Broker::new(Config::default());
    let subscriber = broker.attach(Arc::new(Plain), OutboxConfig::default());
    subscriber.subscribe(&filter("a"), 0, Start::Live).unwrap();
    for number in 0..500 {
        publish(&broker, "a", numbered(0, number));
    }
    broker.close();
    ends("drained behind close", broker.drained()).await;
    assert_eq!(subscriber.outbox().queued().messages, 500);
    ends("drained once more", broker.drained()).await;
    // The lanes end behind it.
    let closed = async {
        while subscriber.outbox().closed().is_none() {
            tokio::task::yield_now().await;
        }
    };
    ends("the lane", closed).await;
    assert_eq!(subscriber.outbox().closed(), Some(OutboxEnd::Shutdown));
    ends("drained without lanes", broker.drained()).await;
    let key = subscriber.key();
    let sent = ends("send_to", broker.send_to(key, Publish::new(channel("a"), "x"))).await;
    assert_eq!(sent.unwrap_err(), SendError::Gone);
    // What comes after the end is closed from the start.
    assert_eq!(subscriber.renew_outbox(OutboxConfig::default()).closed(), Some(OutboxEnd::Shutdown));
    let late = broker.attach(Arc::new(Plain), OutboxConfig::default());
    assert_eq!(late.outbox().closed(), Some(OutboxEnd::Shutdown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_ends_with_its_broker() {
    let broker = Broker::new(Config::default());
    for number in 0..1_000 {
        publish(&broker, "a", numbered(0, number));
    }
    let outbox = OutboxConfig::new(10, 1 << 20, OutboxPolicy::Disconnect);
    let subscriber = broker.attach(Arc::new(Plain), outbox);
    let replay = subscriber.subscribe_after(&[(filter("a"), 0)], After::Earliest).unwrap();
    // Its reader never reads.
    let running = tokio::spawn(replay.run(|_| {}));
    while subscriber.outbox().queued().messages == 0 {
        tokio::task::yield_now().await;
    }
    broker.close();
    ends("a replay", running).await.unwrap();
    assert!(subscriber.subscribe_after(&[(filter("a"), 0)], After::Earliest).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn winding_down_refuses_what_is_new_and_leaves_subscribers_attached() {
    let broker = Broker::new(Config::default());
    let mut stream = broker.subscribe(filter("a")).unwrap();
    publish(&broker, "a", "taken");
    broker.wind_down();
    assert!(broker.is_closed());
    assert_eq!(broker.publish(Publish::new(channel("a"), "x")), Err(PublishError::Closed));
    assert!(matches!(broker.subscribe(filter("a")), Err(SubscribeError::Closed)));
    ends("drained", broker.drained()).await;
    assert_eq!(next(&mut stream).await.payload(), "taken");
    assert_eq!(stream.subscriber().outbox().closed(), None);
    broker.close();
    assert!(ends("the stream", stream.next()).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_handle_ends_it_in_whatever_order_they_are_dropped() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let broker = Broker::new(Config::default());
        let mut handles = [Some(broker.clone()), Some(broker.clone()), Some(broker)];
        let stream = handles[0].as_ref().unwrap().subscribe(filter("a")).unwrap();
        let subscriber = handles[1].as_ref().unwrap().attach(Arc::new(Plain), OutboxConfig::default());
        subscriber.subscribe(&filter("a"), 0, Start::Live).unwrap();
        publish(handles[2].as_ref().unwrap(), "a", "x");
        for at in order {
            handles[at] = None;
        }
        assert_eq!(ends("the stream", rest(stream)).await, ["x"], "{order:?}");
        let closed = async {
            while subscriber.outbox().closed().is_none() {
                tokio::task::yield_now().await;
            }
        };
        ends("a held subscriber", closed).await;
    }
}

#[test]
fn a_runtime_that_is_shut_down_ends_everything_on_it() {
    let build =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (its_own, another) = (build(), build());
    let (broker, stream, subscriber) = its_own.block_on(async {
        let broker = Broker::new(Config::default());
        let stream = broker.subscribe(filter("a")).unwrap();
        let subscriber = broker.attach(Arc::new(Plain), OutboxConfig::default());
        subscriber.subscribe(&filter("a"), 0, Start::Live).unwrap();
        (broker, stream, subscriber)
    });
    publish(&broker, "a", "x");
    let waiting = another.spawn(rest(stream));
    its_own.shutdown_timeout(Duration::from_secs(10));
    another.block_on(async {
        ends("a stream", waiting).await.unwrap();
        ends("drained", broker.drained()).await;
        assert!(broker.is_closed());
        assert_eq!(broker.publish(Publish::new(channel("a"), "x")), Err(PublishError::Closed));
        let refused = ends("publish_wait", broker.publish_wait(Publish::new(channel("a"), "x"))).await;
        assert_eq!(refused, Err(PublishError::Closed));
        assert_eq!(subscriber.outbox().closed(), Some(OutboxEnd::Shutdown));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_was_taken_while_it_was_closed_is_delivered_and_the_rest_refused() {
    for round in 0..50 {
        let broker = Broker::new(Config::default());
        let mut options = SubscribeOptions::default();
        options.outbox = OutboxConfig::new(1_000_000, 1 << 30, OutboxPolicy::Disconnect);
        let stream = broker.subscribe_with(&[filter("a/*")], options).unwrap();
        let publishers: Vec<_> = (0..3)
            .map(|publisher| {
                let broker = broker.clone();
                std::thread::spawn(move || {
                    let to = channel(&format!("a/{publisher}"));
                    (0..)
                        .take_while(|number| {
                            let payload = numbered(publisher, *number);
                            broker.publish(Publish::new(to.clone(), payload)).is_ok()
                        })
                        .count()
                })
            })
            .collect();
        std::thread::sleep(Duration::from_micros(100 * round));
        broker.close();
        let taken: usize = publishers.into_iter().map(|publisher| publisher.join().unwrap()).sum();
        assert_eq!(ends("the stream", rest(stream)).await.len(), taken);
    }
}

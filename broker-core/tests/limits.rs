//! Bounds, policies, groups, back-pressure, and what happens when a broker goes.

mod support;

use std::sync::Arc;
use std::time::Duration;

use broker_core::{
    Action, Broker, Class, Config, Deliver, Delivery, Echo, Event, LogConfig, OutboxConfig, OutboxEnd,
    OutboxPolicy, Principal, Publish, PublishError, Rights, Room, Rule, Sink, Start, SubscribeError,
    SubscribeOptions,
};
use support::*;

fn options(max_messages: usize, policy: OutboxPolicy) -> SubscribeOptions {
    let mut given = SubscribeOptions::default();
    given.outbox = OutboxConfig::new(max_messages, 1 << 20, policy);
    given
}

/// Publishes ten messages on channels `a0` and `a1` in turn to a reader that polls only afterwards.
async fn after_ten(policy: OutboxPolicy) -> (Vec<String>, u64, bool) {
    let mut config = Config::default();
    config.lanes = Some(1);
    let broker = Broker::new(config);
    let mut stream = broker.subscribe_with(&[filter("*")], options(4, policy)).unwrap();
    for number in 0..10 {
        publish(&broker, &format!("a{}", number % 2), number.to_string());
        broker.drained().await;
    }
    let (mut payloads, mut lagged) = (Vec::new(), 0);
    loop {
        match tokio::time::timeout(Duration::from_millis(50), stream.next()).await {
            Ok(Some(Event::Message(message))) => {
                payloads.push(String::from_utf8(message.payload().to_vec()).unwrap());
            }
            Ok(Some(Event::Lagged(count))) => lagged += count,
            Ok(Some(other)) => panic!("{other:?}"),
            Ok(None) => return (payloads, lagged, true),
            Err(_) => return (payloads, lagged, false),
        }
    }
}

#[tokio::test]
async fn each_policy_does_what_it_says() {
    let texts = |numbers: &[u32]| numbers.iter().map(u32::to_string).collect::<Vec<_>>();
    assert_eq!(after_ten(OutboxPolicy::DropOldest).await, (texts(&[6, 7, 8, 9]), 6, false));
    assert_eq!(after_ten(OutboxPolicy::DropNewest).await, (texts(&[0, 1, 2, 3]), 6, false));
    assert_eq!(after_ten(OutboxPolicy::Conflate).await, (texts(&[8, 9]), 8, false));
    let (payloads, _, ended) = after_ten(OutboxPolicy::Disconnect).await;
    assert!(payloads.is_empty() && ended);
}

#[tokio::test]
async fn an_empty_outbox_takes_one_message_of_any_size() {
    let broker = Broker::new(Config::default());
    let outbox = OutboxConfig::new(10, 10, OutboxPolicy::DropNewest);
    let mut options = SubscribeOptions::default();
    options.outbox = outbox;
    let mut stream = broker.subscribe_with(&[filter("a")], options).unwrap();
    publish(&broker, "a", vec![0; 1_000]);
    publish(&broker, "a", vec![0; 1]);
    broker.drained().await;
    assert_eq!(next_payload_len(&mut stream).await, 1_000);
}

async fn next_payload_len(stream: &mut broker_core::Subscription) -> usize {
    stream.message().await.unwrap().payload().len()
}

#[tokio::test]
async fn limits_refuse_with_the_bound() {
    let mut config = Config::default();
    config.max_message_bytes = 10;
    config.max_channels = 2;
    config.max_channel_bytes = 5;
    let broker = Broker::new(config);
    let try_publish = |name: &str, bytes: usize| broker.publish(Publish::new(channel(name), vec![0; bytes]));
    assert_eq!(try_publish("a", 11), Err(PublishError::TooLarge { bytes: 11, max: 10 }));
    assert_eq!(try_publish("abcdef", 1), Err(PublishError::ChannelTooLong { bytes: 6, max: 5 }));
    try_publish("a", 10).unwrap();
    let _held = broker.subscribe(filter("b")).unwrap();
    assert_eq!(try_publish("c", 1), Err(PublishError::TooManyChannels { max: 2 }));
    assert_eq!(broker.subscribe(filter("c")).err(), Some(SubscribeError::TooManyChannels { max: 2 }));
    broker.subscribe(filter("c/*")).unwrap();
    try_publish("a", 1).unwrap();
    broker.close();
    assert_eq!(try_publish("a", 1), Err(PublishError::Closed));
}

/// Holds its lane until it is let go.
struct Slow(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);

impl Deliver for Slow {
    fn deliver(&self, _: &Delivery, _: &[u32], _: &mut Sink<'_>) {
        _ = self.0.lock().unwrap().recv_timeout(Duration::from_secs(5));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_with_too_much_waiting_says_busy_and_loses_nothing_it_took() {
    let mut config = Config::default();
    config.lanes = Some(1);
    config.max_lane_deliveries = 3;
    let broker = Broker::new(config);
    let (let_go, held) = std::sync::mpsc::channel();
    let slow = broker.attach(Arc::new(Slow(held.into())), OutboxConfig::default());
    slow.subscribe(&filter("a"), 0, Start::Live).unwrap();
    let mut other = broker.subscribe(filter("a")).unwrap();
    let mut taken = 0;
    let refused = loop {
        match broker.publish(Publish::new(channel("a"), "x")) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 10, "never busy");
    };
    assert!(matches!(refused, PublishError::Busy { retry_after } if !retry_after.is_zero()));
    // What may be tried again comes back as it was.
    let again =
        Publish::new(channel("a"), "again").json().event("e").ttl(Duration::from_secs(9)).retain(true);
    let again = again.qos(broker_core::Qos::AtLeastOnce).from(slow.key(), broker_core::Echo::Skip);
    let refused = broker.try_publish(again.clone()).unwrap_err();
    assert_eq!(format!("{:?}", refused.publish.unwrap()), format!("{again:?}"));
    let closed = Broker::new(Config::default());
    closed.close();
    let refused = closed.try_publish(again).unwrap_err();
    assert!(refused.error == PublishError::Closed && refused.publish.is_none());
    broker.publish(Publish::new(channel("elsewhere"), "x")).unwrap();
    let waiting = tokio::spawn({
        let broker = broker.clone();
        async move { broker.publish_wait(Publish::new(channel("a"), "last")).await }
    });
    for _ in 0..=taken {
        let_go.send(()).unwrap();
    }
    waiting.await.unwrap().unwrap();
    let messages = until(&mut other, "last").await;
    assert_eq!(messages.len(), taken + 1);
    assert!(broker.stats().refused_busy >= 1);
}

/// Sends a frame per delivery, whose text is the tags.
struct Tags;

impl Deliver for Tags {
    fn deliver(&self, _: &Delivery, tags: &[u32], sink: &mut Sink<'_>) {
        sink.send(&format!("{tags:?}").into(), Class::Droppable);
    }
}

#[tokio::test]
async fn a_subscriber_is_called_once_with_all_its_tags() {
    let mut config = Config::default();
    config.lanes = Some(1);
    let broker = Broker::new(config);
    let subscriber = broker.attach(Arc::new(Tags), OutboxConfig::default());
    for (text, tag) in [("a/b", 7), ("a/*", 3), ("x", 1), ("#", 9)] {
        assert!(subscriber.subscribe(&filter(text), tag, Start::Live).unwrap().new);
        assert!(!subscriber.subscribe(&filter(text), tag, Start::Live).unwrap().new);
    }
    publish(&broker, "a/b", "x");
    assert!(subscriber.unsubscribe(&filter("a/*"), 3));
    assert!(!subscriber.unsubscribe(&filter("a/*"), 3));
    publish(&broker, "a/b", "x");
    broker.drained().await;
    let frames = subscriber.outbox().take(usize::MAX);
    assert_eq!(frames.len(), 2);
    let sorted = |frame: &[u8]| {
        let text = String::from_utf8(frame.to_vec()).unwrap();
        let mut tags: Vec<u32> =
            text.trim_matches(['[', ']']).split(", ").map(|tag| tag.parse().unwrap()).collect();
        tags.sort_unstable();
        tags
    };
    assert_eq!(sorted(&frames[0]), [3, 7, 9]);
    assert_eq!(sorted(&frames[1]), [7, 9]);
}

#[tokio::test]
async fn a_group_gives_each_message_to_one_member_and_passes_over_the_offline_and_the_full() {
    let broker = Broker::new(Config::default());
    for text in ["jobs", "jobs/#"] {
        let members: Vec<_> =
            (0..3).map(|_| broker.attach(Arc::new(Tags), OutboxConfig::default())).collect();
        let rooms: [Arc<Room>; 3] = Default::default();
        for (member, room) in members.iter().zip(&rooms) {
            member.join_group("workers", &filter(text), 1, room).unwrap();
        }
        let counts = || members.iter().map(|member| member.outbox().queued().messages).collect::<Vec<_>>();
        for _ in 0..9 {
            let receipt = broker.publish(Publish::new(channel("jobs"), "x")).unwrap();
            assert_eq!(receipt.receivers, 1);
        }
        broker.drained().await;
        assert_eq!(counts(), [3, 3, 3]);
        members[1].set_online(false);
        for _ in 0..8 {
            publish(&broker, "jobs", "x");
        }
        broker.drained().await;
        assert_eq!((counts()[1], counts().iter().sum::<usize>()), (3, 17));
        let before = counts();
        rooms[0].shut();
        for _ in 0..4 {
            publish(&broker, "jobs", "x");
        }
        broker.drained().await;
        assert_eq!(counts(), [before[0], 3, before[2] + 4], "a member without room is passed over");
        rooms[2].shut();
        for _ in 0..4 {
            publish(&broker, "jobs", "x");
        }
        broker.drained().await;
        assert_eq!(counts()[1], 3, "an offline one does not stand in for those");
        assert_eq!(counts()[0] + counts()[2], before[0] + before[2] + 8);
        for member in &members {
            member.set_online(false);
        }
        publish(&broker, "jobs", "x");
        broker.drained().await;
        assert_eq!(counts().iter().sum::<usize>(), 26, "offline members queue when nobody is online");
    }
    assert_eq!(broker.stats().subscriptions, 0);
}

#[tokio::test]
async fn a_publisher_may_be_left_out() {
    let broker = Broker::new(Config::default());
    let mut own = broker.subscribe(filter("a")).unwrap();
    let mut other = broker.subscribe(filter("a")).unwrap();
    let key = own.subscriber().key();
    broker.publish(Publish::new(channel("a"), "skip").from(key, Echo::Skip)).unwrap();
    broker.publish(Publish::new(channel("a"), "echo").from(key, Echo::Deliver)).unwrap();
    assert_eq!(next(&mut own).await.payload(), "echo");
    assert_eq!(next(&mut other).await.payload(), "skip");
}

#[tokio::test]
async fn a_denied_part_of_a_wildcard_is_kept_from_its_subscriber() {
    let broker = Broker::new(Config::default());
    let deny = Rule::new([Action::Subscribe], filter("a/secret/#"));
    let principal = Principal::anonymous(Rights::all().deny(deny));
    let subscriber = broker.attach_as(Arc::new(Tags), OutboxConfig::default(), &principal);
    subscriber.subscribe(&filter("#"), 0, Start::Retained).unwrap();
    publish(&broker, "a/secret", "x");
    publish(&broker, "a/secret/b", "x");
    publish(&broker, "a/b", "x");
    broker.drained().await;
    assert_eq!(subscriber.outbox().queued().messages, 1);
}

#[tokio::test]
async fn a_dropped_subscriber_leaves_nothing_and_its_slot_is_used_again() {
    let mut config = Config::default();
    config.lanes = Some(1);
    config.log = LogConfig::OFF;
    let broker = Broker::new(config);
    let old = broker.attach(Arc::new(Tags), OutboxConfig::default());
    old.subscribe(&filter("a"), 0, Start::Live).unwrap();
    old.join_group("g", &filter("b/*"), 1, &Default::default()).unwrap();
    let key = old.key();
    drop(old);
    broker.drained().await;
    let stats = broker.stats();
    assert_eq!(
        (stats.channels, stats.subscribers, stats.subscriptions, stats.wildcard_filters),
        (0, 0, 0, 0)
    );
    let new = broker.attach(Arc::new(Tags), OutboxConfig::default());
    new.subscribe(&filter("a"), 0, Start::Live).unwrap();
    assert_ne!(new.key(), key);
    publish(&broker, "a", "x");
    broker.drained().await;
    assert_eq!(new.outbox().queued().messages, 1);
}

#[tokio::test]
async fn channels_without_subscribers_go_when_the_log_forgets_them() {
    let mut log = LogConfig::default();
    log.max_bytes = 32 << 10;
    let mut config = Config::default();
    config.log = log;
    let broker = Broker::new(config);
    for number in 0..20_000 {
        publish(&broker, &format!("c/{number}"), "x");
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let stats = broker.stats();
    assert_eq!(stats.channels, stats.log_messages);
    assert!(stats.channels < 1_000, "{}", stats.channels);
}

#[tokio::test]
async fn dropping_the_last_broker_ends_streams_and_closes_outboxes() {
    let broker = Broker::new(Config::default());
    let mut stream = broker.subscribe(filter("a")).unwrap();
    let subscriber = broker.attach(Arc::new(Tags), OutboxConfig::default());
    publish(&broker, "a", "x");
    drop(broker);
    assert_eq!(next(&mut stream).await.payload(), "x", "what was taken is delivered");
    assert!(stream.next().await.is_none());
    assert_eq!(subscriber.outbox().closed(), Some(OutboxEnd::Shutdown));
}

#[tokio::test]
async fn channels_are_listed_in_order_by_page() {
    let broker = Broker::new(Config::default());
    let _held: Vec<_> = ["b", "a/2", "a/1", "a/1"].map(|name| broker.subscribe(filter(name)).unwrap()).into();
    let page = broker.channels("a/", None, 1);
    assert_eq!(
        (page.channels[0].channel.as_str(), page.channels[0].subscriptions, page.more),
        ("a/1", 2, true)
    );
    let page = broker.channels("a/", Some("a/1"), 5);
    assert_eq!((page.channels.len(), page.channels[0].channel.as_str(), page.more), (1, "a/2", false));
    assert!(broker.channel(&channel("nope")).is_none());
}

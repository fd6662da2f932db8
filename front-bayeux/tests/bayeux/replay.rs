use broker_core::Filter;
use serde_json::{Value, json};

use crate::support::{Poller, Server, data, last, ms, quick};

async fn subscribe(poller: &mut Poller, channel: &str, from: Value) -> Value {
    let ext = json!({"replay": {channel: from}});
    last(&poller.send(json!({"channel": "/meta/subscribe", "subscription": channel, "ext": ext})).await)
        .clone()
}

/// Events until `count` are there.
async fn collect(poller: &mut Poller, count: usize) -> Vec<Value> {
    let mut events = Vec::new();
    while events.len() < count {
        let answer = poller.connect().await;
        assert_eq!(last(&answer)["successful"], true, "{answer:?}");
        events.extend(answer.into_iter().filter(|message| message.get("data").is_some()));
    }
    events
}

#[tokio::test]
async fn positions_are_new_all_or_after_an_id() {
    let server = Server::start(quick()).await;
    for number in 0..5 {
        server.publish("a", &number.to_string());
    }
    let mut poller = server.poller_with(json!({"replay": true})).await;
    assert_eq!(subscribe(&mut poller, "/a", json!(-2)).await["successful"], true);
    let events = collect(&mut poller, 5).await;
    assert_eq!(data(&events), [0, 1, 2, 3, 4]);
    let id = events[2]["ext"]["replay"].clone();

    let mut second = server.poller_with(json!({"replay": true})).await;
    assert_eq!(subscribe(&mut second, "/a", id).await["successful"], true);
    assert_eq!(data(&collect(&mut second, 2).await), [3, 4]);

    let mut third = server.poller_with(json!({"replay": true})).await;
    assert_eq!(subscribe(&mut third, "/a", json!(-1)).await["successful"], true);
    server.publish("a", "5");
    assert_eq!(data(&collect(&mut third, 1).await), [5]);
    assert_eq!(data(&collect(&mut second, 1).await), [5], "and live after the replay");
}

#[tokio::test]
async fn salesforces_form_counts_in_the_data() {
    let mut config = quick();
    config.events.replay_in_data = vec![Filter::parse("event/*").unwrap()];
    let server = Server::start(config).await;
    for number in 0..3 {
        server.publish("event/x", &format!("{{\"payload\":{{\"n\":{number}}}}}"));
    }
    let mut poller = server.poller_with(json!({"replay": true})).await;
    subscribe(&mut poller, "/event/x", json!(-2)).await;
    let events = collect(&mut poller, 3).await;
    let id = events[0]["data"]["event"]["replayId"].as_u64().unwrap();
    assert_eq!(events[0]["data"]["payload"], json!({"n": 0}));
    assert!(events[0].get("ext").is_none());
    let mut second = server.poller_with(json!({"replay": true})).await;
    subscribe(&mut second, "/event/x", json!(id)).await;
    assert_eq!(collect(&mut second, 2).await[0]["data"]["payload"]["n"], 1);
}

#[tokio::test]
async fn salesforces_clients_need_not_ask() {
    let mut config = quick();
    config.events.replay_in_data = vec![Filter::parse("event/*").unwrap()];
    let server = Server::start(config).await;
    server.publish("event/x", "{}");
    server.publish("a", "{}");
    let reply = server.browser().await.handshake(json!({})).await;
    assert_eq!(reply["ext"], json!({"replay": true}));
    let mut poller = server.poller().await;
    let both = json!({"channel": "/meta/subscribe", "subscription": ["/event/x", "/a"],
        "ext": {"replay": {"/event/x": -2, "/a": -2}}});
    let mut events = poller.send(both).await;
    events.retain(|message| message.get("data").is_some());
    let missing = 2 - events.len();
    events.extend(collect(&mut poller, missing).await);
    events.sort_by_key(|event| event["channel"].to_string());
    assert!(events[0].get("ext").is_none(), "only who asked finds ids in `ext`");
    assert!(events[1]["data"]["event"]["replayId"].is_u64());
}

#[tokio::test]
async fn a_position_that_is_not_there_is_an_error() {
    let server = Server::start(quick()).await;
    server.publish("a", "1");
    let mut poller = server.poller_with(json!({"replay": true})).await;
    for from in [json!(0), json!(1), json!(999_999), json!(-3), json!("zz-5"), json!("x"), json!({})] {
        let reply = subscribe(&mut poller, "/a", from.clone()).await;
        let error = reply["error"].as_str().unwrap_or_default();
        assert!(error.starts_with("400::The replayId {"), "{from}: {reply}");
    }
}

#[tokio::test]
async fn a_position_of_an_earlier_life_is_refused_and_all_can_be_had() {
    let config = || {
        let mut config = quick();
        config.events.replay_in_data = vec![Filter::parse("event/*").unwrap()];
        config
    };
    let integer = |event: &Value| event["data"]["event"]["replayId"].as_u64().unwrap();
    let text = |event: &Value| event["ext"]["replay"].as_str().unwrap().to_owned();
    let mut earlier: Vec<Value> = Vec::new();
    let mut largest = 0;
    for _ in 0..3 {
        // Each life gives as many offsets as the one before, so that a bare offset would be believed.
        let server = Server::start(config()).await;
        let mut poller = server.poller_with(json!({"replay": true})).await;
        for number in 0..5 {
            server.publish("event/x", &format!("{{\"n\":{number}}}"));
            server.publish("a", &number.to_string());
        }
        for from in &earlier {
            for channel in ["/event/x", "/a"] {
                let reply = subscribe(&mut poller, channel, from.clone()).await;
                let shown = from.as_str().map_or_else(|| from.to_string(), str::to_owned);
                let error = format!(
                    "400::The replayId {{{shown}}} you provided was invalid.  Please provide a valid ID, -2 to replay all events, or -1 to replay only new events."
                );
                assert_eq!((&reply["successful"], &reply["error"]), (&json!(false), &json!(error)));
            }
        }
        subscribe(&mut poller, "/event/x", json!(-2)).await;
        let events = collect(&mut poller, 5).await;
        let integers: Vec<u64> = events.iter().map(integer).collect();
        assert!(integers.is_sorted() && integers[0] > largest && integers[4] < 1 << 53, "{integers:?}");
        largest = integers[4];
        subscribe(&mut poller, "/a", json!(-2)).await;
        earlier.extend(integers.into_iter().map(|integer| json!(integer)));
        earlier.extend(collect(&mut poller, 5).await.iter().map(|event| json!(text(event))));
    }
}

#[tokio::test]
async fn a_long_past_is_paced_to_the_queue() {
    let mut config = quick();
    config.max_queue_messages = 1000;
    let server = Server::start(config).await;
    for number in 0..3000 {
        server.publish("a", &number.to_string());
    }
    let mut poller = server.poller_with(json!({"replay": true})).await;
    subscribe(&mut poller, "/a", json!(-2)).await;
    tokio::time::sleep(ms(50)).await;
    server.publish("a", "3000");
    let numbers: Vec<u64> =
        collect(&mut poller, 3001).await.iter().map(|event| event["data"].as_u64().unwrap()).collect();
    assert!(numbers.into_iter().eq(0..=3000));
}

#[tokio::test]
async fn without_the_handshake_there_is_no_replay() {
    let server = Server::start(quick()).await;
    server.publish("a", "1");
    let mut poller = server.poller().await;
    assert_eq!(subscribe(&mut poller, "/a", json!(-2)).await["successful"], true);
    assert!(data(&poller.connect().await).is_empty());
}

/// The events of a session that is subscribed live to all and replays a part of it, while others publish.
async fn overlapping(live: &str, replayed: &str, over_socket: bool) -> Vec<u64> {
    let mut config = quick();
    config.timing.max_interval = ms(60_000);
    let server = Server::start(config).await;
    let publish = |number: u64| server.publish("a/b", &number.to_string());
    (0..600).for_each(publish);
    server.broker.drained().await;
    let (broker, mut number) = (server.broker.clone(), 600_u64);
    let publisher = tokio::spawn(async move {
        while number < 1500 {
            let channel = broker_core::Channel::parse("a/b").unwrap();
            broker.publish(broker_core::Publish::new(channel, number.to_string()).json()).unwrap();
            number += 1;
            tokio::task::yield_now().await;
        }
    });
    let mut events: Vec<u64> = Vec::new();
    let take = |messages: &[Value]| -> Vec<u64> {
        data(messages).iter().map(|data| data.as_u64().unwrap()).collect()
    };
    let message =
        json!({"channel": "/meta/subscribe", "subscription": replayed, "ext": {"replay": {replayed: -2}}});
    if over_socket {
        let mut socket = server.socket_session(json!({"replay": true})).await;
        let id = socket.id.clone();
        socket
            .send(json!([{"channel": "/meta/subscribe", "subscription": live, "clientId": id},
                {"channel": message["channel"], "subscription": replayed, "clientId": id, "ext": message["ext"]}]))
            .await;
        while events.len() < 1500 {
            events.extend(take(&socket.receive().await));
        }
        publisher.await.unwrap();
        // Nothing is left over.
        server.broker.drained().await;
        socket.silent(ms(100)).await;
    } else {
        let mut poller = server.poller_with(json!({"replay": true})).await;
        let subscribe = [json!({"channel": "/meta/subscribe", "subscription": live}), message];
        events.extend(take(&poller.batch(&subscribe).await));
        while events.len() < 1500 {
            events.extend(take(&poller.connect().await));
        }
        publisher.await.unwrap();
        server.broker.drained().await;
        events.extend(take(&poller.connect().await));
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replay_and_another_subscription_bring_comes_once() {
    for (live, replayed) in [("/a/*", "/a/b"), ("/a/b", "/a/**"), ("/**", "/a/*")] {
        for over_socket in [false, true] {
            let mut events = overlapping(live, replayed, over_socket).await;
            events.sort_unstable();
            assert!(events.into_iter().eq(0..1500), "{live} {replayed} {over_socket}");
        }
    }
}

#[tokio::test]
async fn two_replays_that_overlap_bring_each_message_once_however_long_the_past_is() {
    const PAST: u64 = 20_000;
    let mut config = quick();
    config.timing.max_interval = ms(60_000);
    let server = Server::start(config).await;
    for number in 0..PAST {
        server.publish("a/b", &number.to_string());
    }
    let mut socket = server.socket_session(json!({"replay": true})).await;
    let subscribe = |names: [&str; 2]| {
        json!({"channel": "/meta/subscribe", "clientId": socket.id, "subscription": names,
            "ext": {"replay": {names[0]: -2, names[1]: -2}}})
    };
    let message = subscribe(["/a/*", "/a/b"]);
    socket.send(json!([message])).await;
    let mut next = 0;
    while next < PAST {
        for data in data(&socket.receive().await) {
            assert_eq!(data, next);
            next += 1;
        }
    }
    socket.silent(ms(300)).await;
    server.publish("a/b", &PAST.to_string());
    assert_eq!(data(&socket.receive().await), [PAST]);
    socket.silent(ms(50)).await;
}

#[tokio::test]
async fn a_replay_goes_on_when_a_subscription_that_overlaps_it_ends() {
    let mut config = quick();
    config.timing.max_interval = ms(60_000);
    let server = Server::start(config).await;
    for number in 0..1000 {
        server.publish("a/b", &number.to_string());
    }
    let mut poller = server.poller_with(json!({"replay": true})).await;
    poller.subscribe("/a/*").await;
    subscribe(&mut poller, "/a/b", json!(-2)).await;
    for number in 1000..1500 {
        server.publish("a/b", &number.to_string());
    }
    server.broker.drained().await;
    let unsubscribe = json!({"channel": "/meta/unsubscribe", "subscription": "/a/*"});
    let mut events = poller.send(unsubscribe).await;
    events.retain(|message| message.get("data").is_some());
    for number in 1500..2000 {
        server.publish("a/b", &number.to_string());
    }
    let missing = 2000 - events.len();
    events.extend(collect(&mut poller, missing).await);
    let mut numbers: Vec<u64> = data(&events).iter().map(|data| data.as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..2000));
    assert!(data(&poller.connect().await).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_several_replays_to_a_slow_socket_goes_live() {
    const REPLAYS: usize = 8;
    let mut config = quick();
    config.max_queue_bytes = 256 << 10;
    // Its one connect is answered at once, and reading takes a while.
    config.timing.max_interval = ms(60_000);
    let server = Server::start(config).await;
    let long = "x".repeat(1_500);
    for _ in 0..200 {
        (0..REPLAYS).for_each(|replay| server.publish(&format!("a/{replay}"), &format!("\"{long}\"")));
    }
    let mut socket = server.socket_session(json!({"replay": true})).await;
    let id = socket.id.clone();
    for replay in 0..REPLAYS {
        let name = format!("/a/{replay}");
        socket
            .send(json!([{"channel": "/meta/subscribe", "subscription": name, "clientId": id, "ext": {"replay": {name.as_str(): -2}}}]))
            .await;
    }
    tokio::time::sleep(ms(200)).await;
    let mut events = 0;
    while events < 200 * REPLAYS {
        events += data(&socket.receive().await).len();
        tokio::time::sleep(ms(1)).await;
    }
    // A message that comes while a replay ends is brought by it; one that comes later, live.
    (0..REPLAYS).for_each(|replay| server.publish(&format!("a/{replay}"), "1"));
    while events < 201 * REPLAYS {
        events += data(&socket.receive().await).len();
    }
    assert_eq!(events, 201 * REPLAYS);
}

/// Publishes as soon as a session has subscribed to `/a/*`: between that and the replay that the same request asks for.
struct Hasty(broker_core::Broker);

impl front_bayeux::Listener for Hasty {
    fn subscribed(&self, _: &front_bayeux::ClientId, filter: &Filter) {
        if filter.to_string() == "a/*" {
            for number in 10..20 {
                let channel = broker_core::Channel::parse("a/b").unwrap();
                self.0.publish(broker_core::Publish::new(channel, number.to_string()).json()).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn what_comes_between_the_subscriptions_of_one_request_comes_once_and_the_past_when_asked_for() {
    let mut config = quick();
    config.timing.max_interval = ms(60_000);
    let broker = broker_core::Broker::new(broker_core::Config::default());
    let front = front_bayeux::Front::new(broker.clone(), std::sync::Arc::new(broker_core::AllowAll), config);
    front.set_listener(Hasty(broker.clone()));
    let server = Server::serve(broker, front).await;
    (0..10).for_each(|number| server.publish("a/b", &number.to_string()));
    let mut poller = server.poller_with(json!({"replay": true})).await;
    let answer = poller
        .batch(&[
            json!({"channel": "/meta/subscribe", "subscription": "/a/*"}),
            json!({"channel": "/meta/subscribe", "subscription": "/a/b", "ext": {"replay": {"/a/b": -2}}}),
        ])
        .await;
    let mut events = data(&answer);
    while events.len() < 20 {
        events.extend(data(&poller.connect().await));
    }
    assert!(data(&poller.connect().await).is_empty());
    let mut numbers: Vec<u64> = events.iter().map(|data| data.as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..20), "{events:?}");
    // Asked for in a later request, what is live elsewhere comes as well.
    assert_eq!(subscribe(&mut poller, "/a/**", json!(-2)).await["successful"], true);
    assert_eq!(collect(&mut poller, 20).await.len(), 20);
    assert!(data(&poller.connect().await).is_empty());
}

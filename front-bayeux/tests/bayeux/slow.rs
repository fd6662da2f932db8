//! Clients that read, slowly or late: what they lose they are told.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_core::{AllowAll, Broker, Channel, LogConfig, Publish};
use front_bayeux::{Config, Front, QueueFull};
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::span;

use crate::support::{Server, data, last, ms, quick};

fn numbers(messages: &[Value]) -> Vec<u64> {
    data(messages).iter().filter_map(Value::as_u64).collect()
}

/// A server whose sessions live for a minute.
async fn patient(mut config: Config) -> Server {
    config.timing.max_interval = ms(60_000);
    Server::start(config).await
}

#[tokio::test]
async fn a_burst_is_no_reason_to_lose_a_client_that_reads() {
    const BURST: u64 = 20_000;
    let server = patient(quick()).await;
    let mut plain = server.poller().await;
    let mut acking = server.poller_with(json!({"ack": true})).await;
    let mut socket = server.socket_session(json!({})).await;
    let mut acking_socket = server.socket_session(json!({"ack": true})).await;
    plain.subscribe("/a").await;
    acking.subscribe("/a").await;
    socket.subscribe("/a").await;
    acking_socket.subscribe("/a").await;
    for number in 0..BURST {
        server.publish("a", &number.to_string());
    }
    server.broker.drained().await;

    let mut got = Vec::new();
    while got.len() < BURST as usize {
        got.extend(numbers(&plain.connect().await));
    }
    assert!(got.into_iter().eq(0..BURST));

    let (mut got, mut ack) = (Vec::new(), json!(0));
    while got.len() < BURST as usize {
        let answer = acking.send(json!({"channel": "/meta/connect", "ext": {"ack": ack}})).await;
        ack = last(&answer)["ext"]["ack"].clone();
        got.extend(numbers(&answer));
    }
    assert!(got.into_iter().eq(0..BURST));

    let mut got = Vec::new();
    while got.len() < BURST as usize {
        got.extend(numbers(&socket.receive().await));
    }
    assert!(got.into_iter().eq(0..BURST));

    acking_socket
        .send(json!([{"channel": "/meta/connect", "clientId": acking_socket.id, "ext": {"ack": 0}}]))
        .await;
    assert!(numbers(&acking_socket.receive().await).into_iter().eq(0..BURST));
    assert_eq!((server.front.stats().overflowed, server.front.stats().dropped), (0, 0));
}

#[tokio::test]
async fn who_loses_events_is_told_how_many() {
    let mut config = quick();
    config.max_queue_messages = 3;
    config.queue_full = QueueFull::DropNewest;
    let server = patient(config).await;
    let mut poller = server.poller().await;
    poller.subscribe("/a").await;
    for number in 0..5 {
        server.publish("a", &number.to_string());
    }
    server.broker.drained().await;
    let answer = poller.connect().await;
    assert_eq!((numbers(&answer), &last(&answer)["ext"]["dropped"]), (vec![0, 1, 2], &json!(2)));
    assert_eq!(last(&poller.connect().await).get("ext"), None, "once");
    assert_eq!(server.front.stats().dropped, 2);
}

#[tokio::test]
async fn who_loses_events_over_its_socket_is_told_how_many() {
    let mut config = quick();
    config.max_queue_messages = 200;
    config.queue_full = QueueFull::DropOldest;
    let server = patient(config).await;
    let mut socket = server.socket_session(json!({})).await;
    socket.subscribe("/a").await;
    let pad = "x".repeat(10_000);
    for number in 0..2000 {
        server.publish("a", &format!("{{\"n\":{number},\"pad\":\"{pad}\"}}"));
    }
    server.broker.drained().await;
    let connect = json!({"channel": "/meta/connect", "clientId": socket.id, "advice": {"timeout": 0}});
    socket.send(json!([connect])).await;
    let mut got = 0;
    let reply = loop {
        let frame = socket.receive().await;
        got += data(&frame).len();
        if last(&frame)["channel"] == "/meta/connect" {
            break last(&frame).clone();
        }
    };
    let dropped = reply["ext"]["dropped"].as_u64().unwrap();
    assert_eq!((got + dropped as usize, dropped > 0), (2000, true), "{got} {dropped}");
}

#[tokio::test]
async fn expired_events_leave_room_for_fresh_ones() {
    for (queue_full, expected) in [(QueueFull::Disconnect, 3), (QueueFull::DropNewest, 3)] {
        let mut config = quick();
        config.max_queue_messages = 4;
        config.queue_full = queue_full;
        let server = patient(config).await;
        let mut poller = server.poller().await;
        poller.subscribe("/a").await;
        for number in 0..4_u32 {
            let message = Publish::new(Channel::parse("a").unwrap(), number.to_string()).json();
            server.broker.publish(message.ttl(ms(50))).unwrap();
        }
        server.broker.drained().await;
        tokio::time::sleep(ms(100)).await;
        for number in 10..13 {
            server.publish("a", &number.to_string());
        }
        server.broker.drained().await;
        let got = numbers(&poller.connect().await);
        assert_eq!((got.len(), &got[..]), (expected, &[10, 11, 12][..]), "{queue_full:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replays_to_a_slow_reader_all_go_live() {
    const REPLAYS: usize = 8;
    let pad = "x".repeat(1500);
    for run in 0..5 {
        let server = patient(quick()).await;
        for channel in 0..REPLAYS {
            for number in 0..200 {
                server.publish(&format!("a/{channel}"), &format!("{{\"n\":{number},\"pad\":\"{pad}\"}}"));
            }
        }
        let mut socket = server.socket_session(json!({"replay": true})).await;
        let names: Vec<String> = (0..REPLAYS).map(|channel| format!("/a/{channel}")).collect();
        let messages: Vec<Value> = names
            .iter()
            .map(|name| {
                json!({"channel": "/meta/subscribe", "clientId": socket.id, "subscription": name,
                    "ext": {"replay": {name: -2}}})
            })
            .collect();
        socket.send(json!(messages)).await;
        // The socket fills before anything is read.
        tokio::time::sleep(ms(200)).await;
        let mut next = BTreeMap::<String, u64>::new();
        let mut take = |frame: &[Value]| {
            for event in frame.iter().filter(|message| message.get("data").is_some()) {
                let next = next.entry(event["channel"].as_str().unwrap().to_owned()).or_default();
                assert_eq!(event["data"]["n"], *next, "run {run} {}", event["channel"]);
                *next += 1;
            }
            next.values().sum::<u64>()
        };
        let mut got = 0;
        while got < 200 * REPLAYS as u64 {
            got = take(&socket.receive().await);
            if got % 100 == 0 {
                tokio::time::sleep(ms(5)).await;
            }
        }
        for channel in 0..REPLAYS {
            server.publish(&format!("a/{channel}"), "{\"n\":200}");
        }
        while got < 201 * REPLAYS as u64 {
            got = take(&socket.receive().await);
        }
    }
}

#[tokio::test]
async fn a_replay_to_a_client_that_stays_away_holds_a_page_of_it() {
    let server = patient(quick()).await;
    for number in 0..10_000 {
        server.publish("a", &format!("\"{number} {}\"", "x".repeat(100)));
    }
    let mut poller = server.poller_with(json!({"replay": true})).await;
    let message = json!({"channel": "/meta/subscribe", "subscription": "/a", "ext": {"replay": {"/a": -2}}});
    assert_eq!(last(&poller.send(message).await)["successful"], true);
    tokio::time::sleep(ms(300)).await;
    let connections = server.broker.connections(None, 10);
    let queued = connections[0].1.queued();
    assert!(queued.messages > 0 && queued.messages <= 512 && queued.bytes <= 256 << 10, "{queued:?}");
}

#[tokio::test]
async fn a_replay_that_the_log_has_left_behind_ends_the_session_and_says_so() {
    let mut log = LogConfig::default();
    log.max_bytes = 1 << 20;
    let mut given = broker_core::Config::default();
    given.log = log;
    let broker = Broker::new(given);
    let mut config = quick();
    config.timing.max_interval = ms(60_000);
    let front = Front::new(broker.clone(), Arc::new(AllowAll), config);
    let server = Server::serve(broker, front).await;
    let pad = "x".repeat(500);
    let publish = |numbers: std::ops::Range<u32>| {
        for number in numbers {
            server.publish("a", &format!("{{\"n\":{number},\"pad\":\"{pad}\"}}"));
        }
    };
    publish(0..1200);
    let mut poller = server.poller_with(json!({"replay": true})).await;
    let message = json!({"channel": "/meta/subscribe", "subscription": "/a", "ext": {"replay": {"/a": -2}}});
    assert_eq!(last(&poller.send(message).await)["successful"], true);
    // It has had its first page, and does not come for the next.
    tokio::time::sleep(ms(100)).await;
    publish(1200..6000);
    let mut expected: Option<u64> = None;
    let reply = loop {
        assert!(expected.is_none_or(|next| next < 6000), "it was told nothing");
        let answer = poller.connect().await;
        for event in data(&answer) {
            let number = event["n"].as_u64().unwrap();
            assert_eq!(number, expected.unwrap_or(number), "no hole before it is told");
            expected = Some(number + 1);
        }
        if last(&answer)["successful"] == false {
            break last(&answer).clone();
        }
    };
    assert_eq!(reply["error"], "402:replay_lost:session_unknown");
    assert_eq!(reply["advice"]["reconnect"], "handshake");
    assert_eq!(server.front.stats().replays_lost, 1);
}

/// What is said in the log.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("front_bayeux")
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                let _ = write!(self.0, "{field}={value:?} ");
            }
        }
        let mut text = Text(event.metadata().level().to_string());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn a_session_without_room_is_spoken_of_once() {
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.clone());
    let mut config = quick();
    config.max_queue_messages = 3;
    config.queue_full = QueueFull::DropOldest;
    let server = patient(config).await;
    let mut first = server.poller().await;
    let mut second = server.poller().await;
    first.subscribe("/a").await;
    second.subscribe("/a").await;
    for number in 0..50 {
        server.publish("a", &number.to_string());
    }
    server.broker.drained().await;
    first.connect().await;
    let lines = lines.0.lock().unwrap();
    assert_eq!(lines.len(), 2, "one for each session: {lines:?}");
    assert!(lines.iter().all(|line| line.starts_with("WARN") && !line.contains(&first.id)), "{lines:?}");
}

#[tokio::test]
async fn a_socket_without_a_session_is_closed() {
    let mut config = quick();
    config.timing.timeout = Duration::from_secs(20);
    config.websocket.handshake_timeout = ms(200);
    let server = Server::start(config).await;
    let mut silent = server.socket().await;
    let mut session = server.socket_session(json!({})).await;
    session.send(json!([{"channel": "/meta/connect", "clientId": session.id}])).await;
    // Names a session instead of shaking hands.
    let poller = server.poller().await;
    let mut resumed = server.socket().await;
    resumed.send(json!([{"channel": "/meta/connect", "clientId": poller.id}])).await;
    let mut wrong = server.socket().await;
    wrong.send(json!([{"channel": "/a", "clientId": "x", "data": 1}])).await;
    assert_eq!(silent.close_code().await, 1008);
    assert_eq!(wrong.close_code().await, 1008);
    resumed.silent(ms(300)).await;
    session.silent(ms(1)).await;
    assert_eq!(server.front.stats().handshake_timeouts, 2);
    // It may begin another session, but not stay without.
    session.send(json!([{"channel": "/meta/disconnect", "clientId": session.id}])).await;
    assert_eq!(session.close_code().await, 1008);
}

#[tokio::test]
async fn where_publishing_needs_no_session_a_socket_lives_by_what_it_sends() {
    let mut config = quick();
    config.publish_without_session = true;
    config.websocket.handshake_timeout = ms(300);
    let server = Server::start(config).await;
    let mut socket = server.socket().await;
    for _ in 0..5 {
        socket.send(json!([{"channel": "/a", "data": 1}])).await;
        assert_eq!(last(&socket.receive().await)["successful"], true);
        tokio::time::sleep(ms(100)).await;
    }
    assert_eq!(socket.close_code().await, 1008);
}

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use broker_core::Filter;
use front_bayeux::{ClientId, Listener, QueueFull, SessionTiming, TransportOptions};
use serde_json::json;

use crate::support::{Server, data, last, ms, quick};

#[tokio::test]
async fn a_transport_may_have_times_of_its_own() {
    let mut config = quick();
    config.timing.timeout = ms(20_000);
    let mut options = TransportOptions::default();
    options.timeout = Some(ms(200));
    options.interval = Some(ms(7));
    config.long_polling = options;
    config.websocket.timeout = Some(ms(400));
    let server = Server::start(config).await;
    let reply = server.browser().await.handshake(json!({})).await;
    assert_eq!(reply["advice"], json!({"reconnect": "retry", "interval": 7, "timeout": 200}));
    let mut poller = server.poller().await;
    let begun = Instant::now();
    poller.connect().await;
    assert!((ms(190)..ms(10_000)).contains(&begun.elapsed()));
    // Over a socket it gets the socket's, and is told so because the transport changed.
    let mut socket = server.socket().await;
    socket.id = poller.id.clone();
    let begun = Instant::now();
    socket.send(json!([{"channel": "/meta/connect", "clientId": socket.id}])).await;
    let reply = socket.receive().await;
    assert!((ms(390)..ms(10_000)).contains(&begun.elapsed()));
    assert_eq!(last(&reply)["advice"], json!({"reconnect": "retry", "interval": 0, "timeout": 400}));
}

#[tokio::test]
async fn a_transport_may_deliver_with_connects_only() {
    let mut config = quick();
    config.websocket.meta_connect_deliver_only = Some(true);
    let server = Server::start(config).await;
    let mut socket = server.socket_session(json!({})).await;
    socket.subscribe("/a").await;
    server.publish("a", "1");
    server.broker.drained().await;
    socket.silent(ms(50)).await;
    socket.send(json!([{"channel": "/meta/connect", "clientId": socket.id}])).await;
    let frame = socket.receive().await;
    assert_eq!((data(&frame), frame.len()), (vec![json!(1)], 2), "events and their reply in one frame");
    let mut poller = server.poller().await;
    poller.subscribe("/a").await;
    server.publish("a", "2");
    server.broker.drained().await;
    assert_eq!(data(&poller.send(json!({"channel": "/b", "data": 0})).await), [2]);
}

#[tokio::test]
async fn a_session_may_have_times_of_its_own() {
    let mut config = quick();
    config.timing.timeout = ms(20_000);
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    let client = ClientId::parse(&poller.id).unwrap();
    let mut timing = SessionTiming::default();
    timing.timeout = Some(ms(150));
    timing.max_interval = Some(ms(60_000));
    assert!(server.front.set_timing(&client, timing));
    let begun = Instant::now();
    poller.connect().await;
    assert!((ms(140)..ms(10_000)).contains(&begun.elapsed()));
    tokio::time::sleep(ms(1500)).await;
    assert_eq!(last(&poller.connect().await)["successful"], true, "it outlived the others");
}

#[tokio::test]
async fn own_messages_may_be_kept_from_a_channel_or_a_session() {
    let mut config = quick();
    config.not_to_publisher = vec![Filter::parse("quiet/*").unwrap()];
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    poller.subscribe("/**").await;
    let publish = async |poller: &mut crate::support::Poller, channel: &str| {
        let mut events = data(&poller.send(json!({"channel": channel, "data": channel})).await);
        server.broker.drained().await;
        events
            .extend(data(&poller.send(json!({"channel": "/meta/connect", "advice": {"timeout": 0}})).await));
        events.len()
    };
    assert_eq!(publish(&mut poller, "/quiet/x").await, 0);
    assert_eq!(publish(&mut poller, "/loud").await, 1);
    assert!(server.front.set_broadcast_to_publisher(&ClientId::parse(&poller.id).unwrap(), false));
    assert_eq!(publish(&mut poller, "/loud").await, 0);
}

#[tokio::test]
async fn a_full_queue_may_drop_instead_of_ending_the_session() {
    for (policy, expected) in [
        (QueueFull::DropNewest, vec![0, 1, 2]),
        (QueueFull::DropOldest, vec![2, 3, 4]),
        (QueueFull::Clear, vec![3, 4]),
    ] {
        let server = Server::start({
            let mut config = quick();
            config.max_queue_messages = 3;
            config.queue_full = policy;
            config
        })
        .await;
        let mut poller = server.poller().await;
        poller.subscribe("/a").await;
        for number in 0..5 {
            server.publish("a", &number.to_string());
        }
        server.broker.drained().await;
        assert_eq!(data(&poller.connect().await), expected, "{policy:?}");
    }
}

/// Drops for everybody, whatever is configured.
#[derive(Default)]
struct Lenient {
    asked: std::sync::Arc<Mutex<Vec<usize>>>,
    acknowledged: std::sync::Arc<AtomicU32>,
}

impl Listener for Lenient {
    fn queue_full(&self, _: &ClientId, waiting: usize) -> Option<QueueFull> {
        self.asked.lock().unwrap().push(waiting);
        Some(QueueFull::DropNewest)
    }

    fn acknowledged(&self, _: &ClientId, events: u32) {
        self.acknowledged.fetch_add(events, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_listener_decides_about_full_queues_and_hears_of_acknowledgements() {
    let mut config = quick();
    config.max_queue_messages = 3;
    let server = Server::start(config).await;
    let listener = Lenient::default();
    let (asked, acknowledged) = (listener.asked.clone(), listener.acknowledged.clone());
    server.front.set_listener(listener);
    let mut poller = server.poller_with(json!({"ack": true})).await;
    poller.subscribe("/a").await;
    for number in 0..5 {
        server.publish("a", &number.to_string());
    }
    server.broker.drained().await;
    let connect =
        |ack: u64| json!({"channel": "/meta/connect", "ext": {"ack": ack}, "advice": {"timeout": 0}});
    let answer = poller.send(connect(1)).await;
    assert_eq!(
        (data(&answer), last(&answer)["ext"]["ack"].clone()),
        (vec![json!(0), json!(1), json!(2)], json!(2))
    );
    assert_eq!(*asked.lock().unwrap(), [3, 3]);
    poller.send(connect(2)).await;
    assert_eq!(acknowledged.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn channels_that_a_session_makes_are_bounded() {
    let mut config = quick();
    config.max_new_channels_per_second = 1;
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    let mut refused = 0;
    for number in 0..20 {
        let reply = poller.send(json!({"channel": format!("/flood/{number}"), "data": 1})).await;
        if last(&reply)["successful"] == false {
            assert_eq!(last(&reply)["error"], "403:too_many_new_channels:channel_create_denied");
            refused += 1;
        }
    }
    assert!((5..=10).contains(&refused), "{refused}");
    let reply = poller.send(json!({"channel": "/flood/0", "data": 2})).await;
    assert_eq!(last(&reply)["successful"], true, "one that is there may be used");
    let reply =
        poller.send(json!({"channel": "/meta/subscribe", "subscription": ["/x/1", "/x/2", "/x/3"]})).await;
    assert_eq!(last(&reply)["error"], "403:too_many_new_channels:create_denied");
    let mut other = server.poller().await;
    let reply = other.send(json!({"channel": "/flood/new", "data": 1})).await;
    assert_eq!(last(&reply)["successful"], true, "a bound for each session");
}

#[tokio::test]
async fn a_silent_socket_may_be_pinged() {
    let mut config = quick();
    config.websocket.ping_interval = Some(ms(100));
    let server = Server::start(config).await;
    let mut socket = server.socket().await;
    for _ in 0..2 {
        assert!(matches!(socket.frame().await, tokio_tungstenite::tungstenite::Message::Ping(_)));
    }
}

#[tokio::test]
async fn no_time_between_pings_means_that_none_come() {
    let mut config = quick();
    config.websocket.ping_interval = Some(ms(0));
    let server = Server::start(config).await;
    let mut socket = server.socket().await;
    assert!(tokio::time::timeout(ms(400), socket.frame()).await.is_err());
}

#[tokio::test]
async fn more_paths_may_lead_here() {
    let mut config = quick();
    config.mount = vec!["/cometd".into(), "faye".into()];
    let server = Server::start(config).await;
    for (path, served) in [
        ("/cometd", true),
        ("/cometd/handshake", true),
        ("/faye", true),
        ("/faye/x", true),
        ("/fayes", false),
        ("/", false),
    ] {
        assert_eq!(server.front.serves(path), served, "{path}");
    }
}

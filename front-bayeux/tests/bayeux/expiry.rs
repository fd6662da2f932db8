use std::time::Duration;

use serde_json::json;

use crate::support::{Http, Server, data, last, ms, quick};

#[tokio::test]
async fn a_session_without_connects_expires_and_is_told_to_shake_hands() {
    let server = Server::start(quick()).await;
    let mut poller = server.poller().await;
    tokio::time::sleep(ms(400)).await;
    assert_eq!(last(&poller.connect().await)["successful"], true, "still within its time");
    tokio::time::sleep(ms(1300)).await;
    let reply = poller.connect().await;
    assert_eq!(last(&reply)["error"], "402::session_unknown");
    assert_eq!(last(&reply)["advice"]["reconnect"], "handshake");
    assert_eq!((server.front.stats().sessions, server.front.stats().expired), (0, 1));
}

#[tokio::test]
async fn a_session_that_only_shook_hands_expires() {
    let server = Server::start(quick()).await;
    server.browser().await.handshake(json!({})).await;
    tokio::time::sleep(ms(1300)).await;
    assert_eq!(server.front.stats().sessions, 0);
}

#[tokio::test]
async fn a_held_connect_keeps_the_session() {
    let mut config = quick();
    config.timing.timeout = ms(1500);
    let server = Server::start(config).await;
    let poller = server.poller().await;
    let held = poller.hold();
    assert_eq!(last(&held.await.unwrap())["successful"], true);
}

#[tokio::test]
async fn other_messages_keep_the_session() {
    let server = Server::start(quick()).await;
    let mut poller = server.poller().await;
    for _ in 0..4 {
        tokio::time::sleep(ms(300)).await;
        let reply = poller.send(json!({"channel": "/a", "data": 1})).await;
        assert_eq!(last(&reply)["successful"], true);
    }
}

/// Each is more than the kernel takes for a client that does not read, as a reply may have but the first.
const EVENTS: usize = 4;
const EVENT_BYTES: usize = 4_150_000;

/// How long a session lives without a connect there.
const LIFE: Duration = Duration::from_secs(4);

/// A server whose sessions have room for that, and what publishes it to channel `a`.
async fn roomy() -> (Server, impl AsyncFn(&Server)) {
    let mut config = quick();
    config.max_queue_bytes = 64 << 20;
    // Publishing so much takes a while.
    config.timing.max_interval = LIFE;
    config.timing.timeout = ms(3000);
    let publish = async |server: &Server| {
        for _ in 0..EVENTS {
            server.publish("a", &format!("\"{}\"", "x".repeat(EVENT_BYTES)));
        }
        server.broker.drained().await;
    };
    (Server::start(config).await, publish)
}

#[tokio::test]
async fn a_reply_that_waits_for_its_reader_does_not_use_up_the_sessions_time() {
    let (server, publish) = roomy().await;
    let mut poller = server.poller().await;
    poller.subscribe("/a").await;
    for is_held in [false, true] {
        let mut http = Http::open(server.address).await;
        let message = json!({"channel": "/meta/connect", "clientId": poller.id}).to_string();
        if !is_held {
            publish(&server).await;
        }
        http.write(poller.browser.request("POST /cometd", "", &message).as_bytes()).await;
        if is_held {
            tokio::time::sleep(ms(50)).await;
            publish(&server).await;
        }
        tokio::time::sleep(LIFE + ms(1000)).await;
        assert_eq!(server.front.stats().sessions, 1, "held: {is_held}");
        let answer = http.read().await.messages();
        assert!(answer.len() > 1 && last(&answer)["successful"] == true);
        // The rest of the events.
        while poller.connect().await.len() > 1 {}
    }
    let connect = json!({"channel": "/meta/connect", "advice": {"timeout": 0}});
    assert_eq!(last(&poller.send(connect).await)["successful"], true);
    tokio::time::sleep(LIFE + ms(500)).await;
    assert_eq!(server.front.stats().sessions, 0, "now its time is over");
}

#[tokio::test]
async fn a_reply_that_is_never_read_holds_the_session_no_longer_than_its_connection() {
    let (server, publish) = roomy().await;
    let mut poller = server.poller().await;
    poller.subscribe("/a").await;
    publish(&server).await;
    let mut http = Http::open(server.address).await;
    let message = json!({"channel": "/meta/connect", "clientId": poller.id}).to_string();
    http.write(poller.browser.request("POST /cometd", "", &message).as_bytes()).await;
    tokio::time::sleep(LIFE + ms(500)).await;
    assert_eq!(server.front.stats().sessions, 1);
    drop(http);
    tokio::time::sleep(LIFE + ms(1000)).await;
    assert_eq!((server.front.stats().sessions, server.front.stats().expired), (0, 1));
}

#[tokio::test]
async fn a_reply_that_waits_on_its_socket_does_not_use_up_the_sessions_time() {
    let (server, publish) = roomy().await;
    // With acks events come in replies to connects only.
    let mut socket = server.socket_session(json!({"ack": true})).await;
    socket.subscribe("/a").await;
    let mut ack = json!(0);
    for is_held in [false, true] {
        let connect = json!([{"channel": "/meta/connect", "clientId": socket.id, "ext": {"ack": ack}}]);
        if !is_held {
            publish(&server).await;
        }
        socket.send(connect).await;
        if is_held {
            tokio::time::sleep(ms(50)).await;
            publish(&server).await;
        }
        tokio::time::sleep(LIFE + ms(1000)).await;
        assert_eq!(server.front.stats().sessions, 1, "held: {is_held}");
        let mut events = 0;
        while events < EVENTS {
            let answer = socket.receive().await;
            events += data(&answer).len();
            ack = last(&answer)["ext"]["ack"].clone();
            assert_eq!(last(&answer)["successful"], true);
            if events < EVENTS {
                let next = json!([{"channel": "/meta/connect", "clientId": socket.id, "ext": {"ack": ack}}]);
                socket.send(next).await;
            }
        }
        let now = json!({"channel": "/meta/connect", "ext": {"ack": ack}, "advice": {"timeout": 0}});
        ack = socket.call(now).await["ext"]["ack"].clone();
    }
    tokio::time::sleep(LIFE + ms(500)).await;
    assert_eq!(server.front.stats().sessions, 0, "now its time is over");
}

#[tokio::test]
async fn a_closed_socket_starts_the_clock() {
    let mut config = quick();
    config.timing.timeout = ms(60_000);
    let server = Server::start(config).await;
    let mut socket = server.socket_session(json!({})).await;
    socket.send(json!([{"channel": "/meta/connect", "clientId": socket.id}])).await;
    tokio::time::sleep(ms(50)).await;
    assert_eq!(server.front.stats().sessions, 1);
    drop(socket);
    tokio::time::sleep(ms(300)).await;
    assert_eq!(server.front.stats().sessions, 1);
    tokio::time::sleep(ms(1000)).await;
    assert_eq!((server.front.stats().sessions, server.front.stats().websockets), (0, 0));
}

#[tokio::test]
async fn sessions_that_only_connect_may_be_ended() {
    let mut config = quick();
    config.extensions.activity = Some((front_bayeux::Activity::Client, ms(500)));
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    let mut advice = json!(null);
    for _ in 0..6 {
        let reply = poller.connect().await;
        if let Some(told) = last(&reply).get("advice") {
            advice = told["reconnect"].clone();
            break;
        }
    }
    assert_eq!(advice, "none");
}

#[tokio::test]
async fn shutdown_tells_everybody() {
    let mut config = quick();
    config.timing.timeout = ms(60_000);
    let server = Server::start(config).await;
    let poller = server.poller().await;
    let held = poller.hold();
    let mut socket = server.socket_session(json!({})).await;
    let mut idle = server.socket().await;
    socket.send(json!([{"channel": "/meta/connect", "clientId": socket.id, "id": "c"}])).await;
    tokio::time::sleep(ms(50)).await;
    let begun = std::time::Instant::now();
    server.front.shutdown(ms(5000)).await;
    assert!(begun.elapsed() < ms(4000), "{:?}", begun.elapsed());
    assert_eq!(last(&held.await.unwrap())["advice"]["reconnect"], "handshake");
    let reply = socket.receive().await;
    assert_eq!(
        (&last(&reply)["id"], &last(&reply)["advice"]["reconnect"]),
        (&json!("c"), &json!("handshake"))
    );
    assert_eq!(socket.close_code().await, 1001);
    assert_eq!(idle.close_code().await, 1001);
    let reply = server.browser().await.handshake(json!({})).await;
    assert_eq!(reply["error"], "503::server_closing");
}

use serde_json::json;

use crate::support::{Server, last, ms, quick};

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

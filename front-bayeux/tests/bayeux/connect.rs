use std::time::Instant;

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::support::{Http, Server, data, last, ms, quick};

#[tokio::test]
async fn the_first_connect_returns_at_once_and_later_ones_are_held() {
    let begun = Instant::now();
    let mut config = quick();
    config.timing = Default::default();
    Server::start(config).await.poller().await;
    assert!(begun.elapsed() < ms(5000));
    let server = Server::start(quick()).await;
    let mut poller = server.poller().await;
    let begun = Instant::now();
    let reply = poller.connect().await;
    assert!((ms(290)..ms(2000)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(reply, [json!({"channel": "/meta/connect", "successful": true})]);
}

#[tokio::test]
async fn advice_is_answered_with_advice_and_its_timeout_wins() {
    let mut config = quick();
    config.timing.timeout = ms(20_000);
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    let begun = Instant::now();
    let message =
        json!({"channel": "/meta/connect", "connectionType": "long-polling", "advice": {"timeout": 0}});
    let reply = poller.send(message).await;
    assert!(begun.elapsed() < ms(10_000));
    assert_eq!(last(&reply)["advice"], json!({"reconnect": "retry", "interval": 0, "timeout": 20000}));
    let begun = Instant::now();
    poller.send(json!({"channel": "/meta/connect", "advice": {"timeout": 600}})).await;
    assert!((ms(590)..ms(10_000)).contains(&begun.elapsed()));
}

#[tokio::test]
async fn a_held_connect_is_released_by_an_event() {
    let mut config = quick();
    config.timing = Default::default();
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    poller.subscribe("/a").await;
    let held = poller.hold();
    tokio::time::sleep(ms(50)).await;
    server.publish("a", "1");
    let answer = held.await.unwrap();
    assert_eq!(answer[0], json!({"channel": "/a", "data": 1}));
    assert_eq!(answer[1]["channel"], "/meta/connect");
}

#[tokio::test]
async fn events_in_the_gap_wait_for_the_next_connect() {
    let mut config = quick();
    config.timing = Default::default();
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    poller.subscribe("/a").await;
    server.publish("a", "1");
    server.broker.drained().await;
    server.publish("a", "2");
    server.broker.drained().await;
    let begun = Instant::now();
    assert_eq!(data(&poller.connect().await), [1, 2]);
    assert!(begun.elapsed() < ms(5000));
}

#[tokio::test]
async fn a_connect_in_a_batch_is_not_held() {
    let mut config = quick();
    config.timing = Default::default();
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    let begun = Instant::now();
    let answer = poller
        .batch(&[json!({"channel": "/b", "data": 1, "id": "p"}), json!({"channel": "/meta/connect"})])
        .await;
    assert!(begun.elapsed() < ms(5000));
    assert_eq!((&answer[0]["channel"], &answer[1]["channel"]), (&json!("/b"), &json!("/meta/connect")));
}

#[tokio::test]
async fn a_newer_connect_ends_the_older_one() {
    let mut config = quick();
    config.timing = Default::default();
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    poller.subscribe("/a").await;
    let mut older = Http::open(server.address).await;
    let connect = json!({"channel": "/meta/connect", "clientId": poller.id}).to_string();
    older.write(poller.browser.request("POST /cometd", "", &connect).as_bytes()).await;
    tokio::time::sleep(ms(50)).await;
    let newer = poller.hold();
    assert_eq!(older.read().await.status, 500);
    server.publish("a", "1");
    assert_eq!(data(&newer.await.unwrap()), [1]);
}

#[tokio::test]
async fn a_dead_connection_loses_nothing() {
    let mut config = quick();
    config.timing = Default::default();
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    poller.subscribe("/a").await;
    let mut held = Http::open(server.address).await;
    let connect = json!({"channel": "/meta/connect", "clientId": poller.id}).to_string();
    held.write(poller.browser.request("POST /cometd", "", &connect).as_bytes()).await;
    tokio::time::sleep(ms(50)).await;
    held.stream.shutdown().await.unwrap();
    drop(held);
    tokio::time::sleep(ms(50)).await;
    assert_eq!(server.front.stats().held_polls, 0);
    server.publish("a", "1");
    server.broker.drained().await;
    assert_eq!(data(&poller.connect().await), [1]);
}

#[tokio::test]
async fn unknown_sessions_are_told_to_shake_hands() {
    let server = Server::start(quick()).await;
    let mut browser = server.browser().await;
    let connect = r#"[{"channel":"/meta/connect","clientId":"nobody","id":"3"}]"#;
    assert_eq!(
        browser.post(connect).await.messages(),
        [json!({"channel": "/meta/connect", "id": "3", "successful": false, "error": "402::session_unknown",
            "advice": {"reconnect": "handshake", "interval": 0}})]
    );
    for message in [
        json!({"channel": "/a", "data": 1, "clientId": "nobody"}),
        json!({"channel": "/a", "data": 1}),
        json!({"channel": "/a", "data": 1, "clientId": 7}),
        json!({"channel": "/meta/subscribe", "subscription": "/a", "clientId": null}),
    ] {
        let reply = &browser.post(&message.to_string()).await.messages()[0];
        assert_eq!(reply["error"], "402::session_unknown");
        assert!(reply.get("advice").is_none(), "{reply}");
    }
}

#[tokio::test]
async fn disconnect_releases_the_held_connect() {
    let mut config = quick();
    config.timing = Default::default();
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    let held = poller.hold();
    tokio::time::sleep(ms(50)).await;
    let reply = poller.send(json!({"channel": "/meta/disconnect", "id": "9"})).await;
    assert_eq!(reply, [json!({"channel": "/meta/disconnect", "id": "9", "successful": true})]);
    assert_eq!(last(&held.await.unwrap())["advice"]["reconnect"], "none");
    assert_eq!(last(&poller.connect().await)["error"], "402::session_unknown");
    assert_eq!(server.front.stats().sessions, 0);
}

#[tokio::test]
async fn the_server_can_end_a_session() {
    let mut config = quick();
    config.timing = Default::default();
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    let held = poller.hold();
    tokio::time::sleep(ms(50)).await;
    assert!(server.front.disconnect(&front_bayeux::ClientId::parse(&poller.id).unwrap()));
    let answer = held.await.unwrap();
    assert_eq!(answer[0], json!({"channel": "/meta/disconnect", "successful": true}));
    assert_eq!(answer[1]["advice"]["reconnect"], "none");
    let reply = poller.send(json!({"channel": "/a", "data": 1})).await;
    assert_eq!(last(&reply)["error"], "402::session_unknown");
}

#[tokio::test]
async fn lazy_messages_wait_for_company_or_their_time() {
    let lazy = front_bayeux::Lazy::new(broker_core::Filter::parse("lazy/*").unwrap(), Some(ms(150)));
    let mut config = quick();
    config.lazy = vec![lazy];
    config.timing = Default::default();
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    poller.subscribe("/**").await;
    let held = poller.hold();
    tokio::time::sleep(ms(50)).await;
    let begun = Instant::now();
    server.publish("lazy/x", "1");
    assert_eq!(data(&held.await.unwrap()), [1]);
    assert!((ms(140)..ms(2000)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let held = poller.hold();
    tokio::time::sleep(ms(50)).await;
    let begun = Instant::now();
    server.publish("lazy/x", "2");
    server.publish("other", "3");
    assert_eq!(data(&held.await.unwrap()), [2, 3]);
    assert!(begun.elapsed() < ms(2000));
}

use std::time::Duration;

use serde_json::json;

use crate::support::TestServer;
use crate::support::bayeux::Poller;

#[tokio::test]
async fn a_session_that_does_not_connect_expires_and_is_told_to_shake_hands() {
    let server = TestServer::with(|config| {
        config.bayeux.timing.max_interval = Duration::from_millis(300);
        config.bayeux.sweep_period = Duration::from_millis(50);
    })
    .await;
    let mut poller = Poller::handshake(server.http).await;
    poller.subscribe("/a").await;
    poller.connect().await;
    server.wait_for_subscriptions(0).await;
    let reply = poller.connect().await.remove(0);
    assert_eq!(reply["successful"], false);
    assert!(reply["error"].as_str().is_some_and(|error| error.starts_with("402")), "{reply}");
    assert_eq!(reply["advice"]["reconnect"], "handshake");
}

#[tokio::test]
async fn a_session_that_disconnects_is_gone() {
    let server = TestServer::start().await;
    let mut poller = Poller::handshake(server.http).await;
    poller.subscribe("/a").await;
    let id = poller.client_id.clone();
    let answer = poller.post(&json!([{"channel": "/meta/disconnect", "clientId": id}])).await;
    assert_eq!(answer[0]["successful"], true, "{answer}");
    server.wait_for_subscriptions(0).await;
}

#[tokio::test]
async fn what_comes_between_polls_waits_for_the_next() {
    let server = TestServer::start().await;
    let mut poller = Poller::handshake(server.http).await;
    poller.subscribe("/a").await;
    poller.connect().await;
    for n in 0..10 {
        server.publish_json("a", &n.to_string());
    }
    let events = poller.events(10).await;
    let numbers: Vec<_> = events.iter().filter_map(|event| event["data"].as_u64()).collect();
    assert_eq!(numbers, (0..10).collect::<Vec<_>>());
}

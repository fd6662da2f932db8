use std::time::Instant;

use serde_json::json;

use crate::support::TestServer;
use crate::support::bayeux::Poller;
use crate::support::http::post_json;

#[tokio::test]
async fn a_poll_is_held_until_there_is_something_to_say() {
    let server = TestServer::start().await;
    let mut poller = Poller::handshake(server.http).await;
    poller.subscribe("/chat/room1").await;
    poller.connect().await;
    let publish = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        post_json(server.http, "/v1/publish/chat/room1", r#"{"n":1}"#).await
    };
    let begun = Instant::now();
    let (messages, _) = tokio::join!(poller.connect(), publish);
    assert!(begun.elapsed().as_millis() >= 150, "held");
    let event = messages.iter().find(|message| message["channel"] == "/chat/room1").expect("the event");
    assert!(event.get("id").is_none() && event.get("clientId").is_none(), "{event}");
}

#[tokio::test]
async fn a_batch_is_answered_in_order() {
    let server = TestServer::start().await;
    let mut poller = Poller::handshake(server.http).await;
    let id = poller.client_id.clone();
    let answer = poller
        .post(&json!([
            {"channel": "/meta/subscribe", "clientId": id, "subscription": "/a", "id": "1"},
            {"channel": "/b", "clientId": id, "data": 1, "id": "2"},
            {"channel": "/meta/unsubscribe", "clientId": id, "subscription": "/a", "id": "3"},
        ]))
        .await;
    let ids: Vec<_> =
        answer.as_array().expect("an array").iter().filter_map(|reply| reply["id"].as_str()).collect();
    assert_eq!(ids, ["1", "2", "3"]);
    assert!(answer.as_array().expect("an array").iter().all(|reply| reply["successful"] == true), "{answer}");
}

#[tokio::test]
async fn the_text_of_numbers_survives_in_the_answer() {
    let server = TestServer::start().await;
    let mut poller = Poller::handshake(server.http).await;
    poller.subscribe("/a").await;
    poller.connect().await;
    let text = r#"{"n":12345678901234567890,"x":1e400}"#;
    post_json(server.http, "/v1/publish/a", text).await;
    let messages = poller.connect_text().await;
    assert!(messages.contains(text), "{messages}");
}

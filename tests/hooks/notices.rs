//! What is told after the fact.

use std::time::Duration;

use fanwire::gateway::sign::{Secret, Secrets};
use rumqttc::QoS;
use serde_json::json;

use crate::backend::{Backend, SECRET};
use crate::support::bayeux::Poller;
use crate::support::mqtt::Client;
use crate::support::sse::EventStream;
use crate::support::within;

#[tokio::test]
async fn clients_of_every_protocol_are_told_of_when_they_leave() {
    let backend = Backend::willing().await;
    let server = backend.server(&["disconnect"], json!({})).await;
    let mqtt = Client::connect(server.mqtt, "one").await;
    let connection = fanwire::edge::connection_id(server.broker.connections(None, 1)[0].0);
    mqtt.client.disconnect().await.expect("it says goodbye");
    let left = backend.wait_for("disconnect", 1).await.remove(0);
    assert_eq!((&left["reason"], &left["code"]), (&json!("client"), &json!(1000)));
    assert_eq!((&left["protocol"], &left["transport"]), (&json!("mqtt"), &json!("tcp")));
    assert_eq!((&left["remote"]["ip"], &left["user"]), (&json!("127.0.0.1"), &json!(null)));
    assert_eq!((&left["seq"], &left["connection"]), (&json!(1), &json!(connection)));
    assert!(left["duration_ms"].is_u64());

    drop(EventStream::open(server.http, "/sse/a").await);
    let left = backend.wait_for("disconnect", 2).await.remove(1);
    assert_eq!((&left["protocol"], &left["reason"]), (&json!("sse"), &json!("client")));

    let mut bayeux = Poller::handshake(server.http).await;
    let client = bayeux.client_id.clone();
    bayeux.post(&json!([{"channel": "/meta/disconnect", "clientId": client}])).await;
    let left = backend.wait_for("disconnect", 3).await.remove(2);
    assert_eq!((&left["protocol"], &left["reason"]), (&json!("bayeux"), &json!("client")));

    Client::connect(server.mqtt, "two").await.kill();
    let left = backend.wait_for("disconnect", 4).await.remove(3);
    assert_eq!((&left["reason"], &left["code"]), (&json!("vanished"), &json!(1006)));

    let asked = backend.asked().remove(0);
    let time = asked.header("webhook-timestamp").expect("a time").parse().expect("seconds");
    let secrets = Secrets::new([Secret::parse(SECRET).expect("a secret")]);
    let id = asked.body["id"].as_str().expect("an id");
    assert_eq!(asked.header("webhook-id"), Some(id));
    let signed = secrets.sign(id, time, asked.text.as_bytes());
    assert_eq!(asked.header("webhook-signature"), Some(&*signed));
    assert_eq!(asked.header("content-type"), Some("application/json"));
    assert!(asked.header("user-agent").is_some_and(|agent| agent.starts_with("Fanwire/")));
    server.stop().await;
}

#[tokio::test]
async fn a_channel_is_vacated_three_seconds_after_its_last_subscriber_and_not_for_who_comes_back() {
    let backend = Backend::willing().await;
    let server = backend.server(&["occupied", "vacated"], json!({"channels": ["chat/**"]})).await;
    let mut mqtt = Client::connect(server.mqtt, "one").await;
    mqtt.subscribe("chat/1", QoS::AtMostOnce).await;
    mqtt.subscribe("other", QoS::AtMostOnce).await;
    let first = EventStream::open(server.http, "/sse/chat/1").await;
    assert_eq!(backend.wait_for("occupied", 1).await, [json!({"channel": "chat/1", "subscribers": 1})]);
    mqtt.kill();
    drop(first);
    server.wait_for_subscriptions(0).await;
    let back = EventStream::open(server.http, "/sse/chat/1").await;
    // It is still occupied, as far as the backend knows.
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert_eq!((backend.of("occupied").len(), backend.of("vacated").len()), (1, 0));
    drop(back);
    assert_eq!(backend.wait_for("vacated", 1).await, [json!({"channel": "chat/1", "subscribers": 0})]);
    let _again = EventStream::open(server.http, "/sse/chat/1").await;
    assert_eq!(backend.wait_for("occupied", 2).await.len(), 2);
    server.stop().await;
    assert_eq!(backend.of("vacated").len(), 2, "the end vacates what is occupied");
}

#[tokio::test]
async fn those_whom_a_stop_sends_away_are_told_of_before_it_is_done() {
    let backend = Backend::willing().await;
    let server = backend.server(&["disconnect"], json!({})).await;
    let _mqtt = Client::connect(server.mqtt, "one").await;
    let mut sse = EventStream::open(server.http, "/sse/a").await;
    server.wait_for_subscriptions(1).await;
    let read = tokio::spawn(async move { while sse.next().await.is_some() {} });
    server.stop().await;
    within(read).await.expect("the stream ends");
    let left = backend.of("disconnect");
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.iter().all(|left| left["reason"] == "shutdown" && left["code"] == 1001), "{left:?}");
}

#[tokio::test]
async fn messages_are_told_in_their_order_and_the_start_first() {
    let backend = Backend::willing().await;
    let events = ["message", "broker.started", "occupied"];
    let server = backend.server(&events, json!({"channels": ["a", "b/*"], "batch": 10})).await;
    assert!(backend.wait_for("broker.started", 1).await[0]["epoch"].is_string());
    for number in 0..30 {
        server.publish_json(if number % 2 == 0 { "a" } else { "b/x" }, &number.to_string());
        server.publish("c", "not concerned");
    }
    let told = backend.wait_for("message", 30).await;
    assert_eq!(told.len(), 30);
    for channel in ["a", "b/x"] {
        let of: Vec<_> = told.iter().filter(|told| told["channel"] == channel).collect();
        let numbers: Vec<_> = of.iter().map(|told| told["data"].as_u64().expect("a number")).collect();
        assert!(numbers.is_sorted() && numbers.len() == 15, "{numbers:?}");
        assert!(of.iter().all(|told| told["id"].is_string() && told["content_type"] == "application/json"));
    }
    assert!(backend.asked().len() < 30, "several go together");
    assert!(backend.of("occupied").is_empty(), "who hears of messages occupies nothing");
    server.stop().await;
}

#[tokio::test]
async fn a_backend_that_dies_and_comes_back_hears_of_everything_in_order() {
    let failures = std::sync::atomic::AtomicUsize::new(0);
    let backend = Backend::start(move |_| {
        // The first ones are read and not answered.
        let failed = failures.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if failed < 2 { (0, String::new()) } else { (200, String::new()) }
    })
    .await;
    let server = backend.server(&["message"], json!({"channels": ["a"]})).await;
    (0..20).for_each(|number| _ = server.publish_json("a", &number.to_string()));
    let told = backend.wait_for("message", 22).await;
    let mut numbers: Vec<_> = told.iter().map(|told| told["data"].as_u64().expect("a number")).collect();
    numbers.dedup();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    server.stop().await;
}

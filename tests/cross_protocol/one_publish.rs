use fanwire::Filter;
use rumqttc::QoS;
use serde_json::json;

use crate::support::bayeux::{Poller, Socket};
use crate::support::http::{post, post_json};
use crate::support::mqtt::Client;
use crate::support::sse::EventStream;
use crate::support::{TestServer, within};

/// What no parser of numbers may touch.
const EXACT: &str = r#"{"n":12345678901234567890,"x":1e400}"#;

#[tokio::test]
async fn one_post_reaches_every_protocol_as_it_was_sent() {
    let server = TestServer::start().await;
    let mut in_process = server.broker.subscribe(Filter::parse("chat/*").unwrap()).unwrap();
    let mut stream = EventStream::open(server.http, "/sse/chat/room1").await;
    let mut device = Client::connect(server.mqtt, "device").await;
    device.subscribe("chat/+", QoS::AtLeastOnce).await;
    let mut page = Socket::handshake(server.http).await;
    page.subscribe("/chat/room1").await;
    let mut poller = Poller::handshake(server.http).await;
    poller.subscribe("/chat/*").await;
    poller.connect().await;
    server.wait_for_subscriptions(5).await;

    let answer = post_json(server.http, "/v1/publish/chat/room1", EXACT).await;
    assert_eq!(answer.json()["receivers"], 5);
    assert_eq!(within(in_process.message()).await.unwrap().payload(), EXACT);
    assert_eq!(stream.data().await, EXACT);
    assert_eq!(device.payload().await, EXACT);
    // The first frames may still answer the first connect.
    let mut frame = page.frame_text().await.unwrap();
    while !frame.contains("/chat/room1") {
        frame = page.frame_text().await.unwrap();
    }
    assert!(frame.contains(&format!(r#""data":{EXACT}"#)), "{frame}");
    assert!(poller.connect_text().await.contains(&format!(r#""data":{EXACT}"#)));
}

#[tokio::test]
async fn what_mqtt_and_bayeux_publish_reaches_the_others_too() {
    let server = TestServer::start().await;
    let mut stream = EventStream::open(server.http, "/sse/a").await;
    let mut device = Client::connect(server.mqtt, "device").await;
    device.subscribe("a", QoS::AtMostOnce).await;
    let mut page = Socket::handshake(server.http).await;
    page.subscribe("/a").await;
    server.wait_for_subscriptions(3).await;

    device.publish("a", QoS::AtLeastOnce, r#"{"from":"mqtt"}"#).await;
    assert_eq!(stream.data().await, r#"{"from":"mqtt"}"#);
    assert_eq!(page.event().await["data"], json!({"from": "mqtt"}));
    assert_eq!(device.payload().await, r#"{"from":"mqtt"}"#);

    page.publish("/a", &json!({"from": "bayeux"})).await;
    assert_eq!(stream.data().await, r#"{"from":"bayeux"}"#);
    assert_eq!(device.payload().await, r#"{"from":"bayeux"}"#);
    assert_eq!(page.event().await["data"], json!({"from": "bayeux"}));
}

#[tokio::test]
async fn an_mqtt_payload_that_is_no_json_is_a_string_elsewhere() {
    let server = TestServer::start().await;
    let mut enveloped = EventStream::open(server.http, "/sse/a?format=json").await;
    let mut page = Socket::handshake(server.http).await;
    page.subscribe("/a").await;
    let device = Client::connect(server.mqtt, "device").await;
    server.wait_for_subscriptions(2).await;
    device.publish("a", QoS::AtMostOnce, "21.5 °C").await;
    assert_eq!(page.event().await["data"], "21.5 °C");
    assert!(enveloped.data().await.contains(r#""text":"21.5 °C""#));
}

#[tokio::test]
async fn a_message_retained_by_mqtt_or_http_waits_for_subscribers_of_either() {
    let server = TestServer::start().await;
    post(server.http, "/v1/publish/r/http?retain=true", "1").await;
    let mut device = Client::connect(server.mqtt, "device").await;
    device.retain("r/mqtt", "2").await;
    device.wait_for(|packet| matches!(packet, rumqttc::Incoming::PubAck(_))).await;
    device.subscribe("r/#", QoS::AtMostOnce).await;
    let mut got = [device.payload().await, device.payload().await];
    got.sort();
    assert_eq!(got, ["1", "2"]);
    assert_eq!(crate::support::http::get(server.http, "/v1/retained/r/mqtt").await.status, 200);
}

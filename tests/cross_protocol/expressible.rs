//! Channels that one protocol has no words for.

use rumqttc::QoS;
use serde_json::json;

use crate::support::TestServer;
use crate::support::bayeux::Socket;
use crate::support::mqtt::Client;
use crate::support::sse::EventStream;

#[tokio::test]
async fn a_channel_that_bayeux_cannot_name_is_kept_from_it_and_counted() {
    let server = TestServer::start().await;
    let mut page = Socket::handshake(server.http).await;
    page.subscribe("/**").await;
    let mut device = Client::connect(server.mqtt, "device").await;
    device.subscribe("#", QoS::AtMostOnce).await;
    server.publish_json("a//b", "1");
    server.publish_json("a/b", "2");
    assert_eq!([device.payload().await, device.payload().await], ["1", "2"]);
    assert_eq!(page.event().await["data"], 2);
    let metrics = crate::support::http::get(server.http, "/metrics").await;
    assert!(
        metrics.text().contains("fanwire_inexpressible_messages_total{protocol=\"bayeux\"} 1"),
        "{}",
        metrics.text()
    );
}

#[tokio::test]
async fn bayeux_services_never_reach_the_channel_space() {
    let server = TestServer::start().await;
    let mut stream = EventStream::open(server.http, "/sse/%23").await;
    let mut device = Client::connect(server.mqtt, "device").await;
    device.subscribe("#", QoS::AtMostOnce).await;
    let mut page = Socket::handshake(server.http).await;
    assert_eq!(page.publish("/service/x", &json!(1)).await["successful"], true);
    server.publish_json("a", "2");
    assert_eq!(device.payload().await, "2");
    assert!(stream.data().await.contains(r#""channel":"a""#));
}

#[tokio::test]
async fn wildcards_do_not_match_the_brokers_own_channels() {
    let server = TestServer::start().await;
    let mut stream = EventStream::open(server.http, "/sse/%23").await;
    let mut device = Client::connect(server.mqtt, "device").await;
    device.subscribe("#", QoS::AtMostOnce).await;
    server.wait_for_subscriptions(2).await;
    server.publish("$SYS/x", "hidden");
    server.publish("a", "seen");
    assert_eq!(device.payload().await, "seen");
    assert!(stream.data().await.contains("seen"));
}

#[tokio::test]
async fn unwise_characters_are_refused_from_publishers_of_every_protocol() {
    use crate::support::http::{post_json, request};

    let server = TestServer::start().await;
    let mut all = server.broker.subscribe(fanwire::Filter::parse("#").unwrap()).unwrap();
    let mut page = Socket::handshake(server.http).await;
    for (character, encoded) in [
        ("\u{1}", "%01"),
        ("\n", "%0A"),
        ("\u{7f}", "%7F"),
        ("\u{fdd0}", "%EF%B7%90"),
        ("\u{fffe}", "%EF%BF%BE"),
    ] {
        let channel = format!("a{character}b");
        let raw = post_json(server.http, &format!("/v1/publish/a{encoded}b"), "1").await;
        assert_eq!(
            (raw.status, raw.json()["code"].as_str()),
            (400, Some("invalid_channel")),
            "{encoded}: {raw:?}"
        );
        let object =
            post_json(server.http, "/v1/publish", json!({ "channel": channel, "data": 1 }).to_string()).await;
        assert_eq!(object.status, 400, "{encoded}: {object:?}");
        let event = json!({ "specversion": "1.0", "id": "1", "source": "/s", "type": "t", "subject": channel, "data": 1 });
        let headers = [("content-type", "application/cloudevents+json")];
        let answer =
            request(server.http, "POST", &format!("/v1/publish/a{encoded}b"), &headers, event.to_string())
                .await;
        assert_eq!(answer.status, 400, "{encoded}: {answer:?}");
        let reply = page.publish(&format!("/a{character}b"), &json!(1)).await;
        assert_eq!(reply["successful"], false);
        let error = reply["error"].as_str().unwrap_or_default();
        assert!(error.starts_with("40"), "{encoded}: {reply}");
    }
    server.publish("good", "1");
    assert_eq!(all.message().await.unwrap().channel().as_str(), "good");
}

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
    assert!(metrics.text().contains("fanwire_bayeux_inexpressible_total 1"), "{}", metrics.text());
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

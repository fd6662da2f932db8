use rumqttc::{LastWill, QoS};

use crate::support::TestServer;
use crate::support::mqtt::Client;
use crate::support::sse::EventStream;

fn with_will(options: &mut rumqttc::MqttOptions) {
    options.set_last_will(LastWill::new("wills/c", "gone", QoS::AtLeastOnce, true));
}

#[tokio::test]
async fn a_vanished_client_leaves_its_will_to_every_protocol() {
    let server = TestServer::start().await;
    let mut stream = EventStream::open(server.http, "/sse/wills/c").await;
    server.wait_for_subscriptions(1).await;
    Client::connect_with(server.mqtt, "c", with_will).await.kill();
    assert_eq!(stream.data().await, "gone");
    let mut late = Client::connect(server.mqtt, "late").await;
    late.subscribe("wills/#", QoS::AtMostOnce).await;
    assert!(late.message().await.retain);
}

#[tokio::test]
async fn a_client_that_says_goodbye_leaves_none() {
    let server = TestServer::start().await;
    let mut stream = EventStream::open(server.http, "/sse/wills/c").await;
    let mut client = Client::connect_with(server.mqtt, "c", with_will).await;
    client.client.disconnect().await.unwrap();
    client.ended().await;
    server.wait_for_subscriptions(1).await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    server.publish("wills/c", "nobody died");
    assert_eq!(stream.data().await, "nobody died");
}

use rumqttc::QoS;

use crate::support::TestServer;
use crate::support::mqtt::Client;

#[tokio::test]
async fn the_last_retained_message_waits_for_later_subscribers() {
    let server = TestServer::start().await;
    let mut publisher = Client::connect(server.mqtt, "publisher").await;
    publisher.retain("r/a", "old").await;
    publisher.retain("r/a", "new").await;
    publisher.retain("r/b", "other").await;
    publisher.wait_for(|packet| matches!(packet, rumqttc::Incoming::PubAck(ack) if ack.pkid == 3)).await;
    let mut late = Client::connect(server.mqtt, "late").await;
    late.subscribe("r/+", QoS::AtMostOnce).await;
    let mut got = Vec::new();
    for _ in 0..2 {
        let message = late.message().await;
        assert!(message.retain);
        got.push(String::from_utf8(message.payload.to_vec()).unwrap());
    }
    got.sort();
    assert_eq!(got, ["new", "other"]);
}

#[tokio::test]
async fn an_empty_retained_payload_clears_the_topic() {
    let server = TestServer::start().await;
    let mut publisher = Client::connect(server.mqtt, "publisher").await;
    publisher.retain("r", "x").await;
    publisher.retain("r", "").await;
    publisher.wait_for(|packet| matches!(packet, rumqttc::Incoming::PubAck(ack) if ack.pkid == 2)).await;
    let mut late = Client::connect(server.mqtt, "late").await;
    late.subscribe("r", QoS::AtMostOnce).await;
    server.publish("r", "live");
    let message = late.message().await;
    assert_eq!((message.retain, &message.payload[..]), (false, &b"live"[..]));
}

use rumqttc::{Incoming, QoS};

use crate::support::TestServer;
use crate::support::http::post;
use crate::support::mqtt::{Bare, Client};

#[tokio::test]
async fn a_qos1_publish_is_acknowledged_and_delivered_at_the_lower_of_both() {
    let server = TestServer::start().await;
    let mut both = [Client::connect(server.mqtt, "zero").await, Client::connect(server.mqtt, "one").await];
    both[0].subscribe("t", QoS::AtMostOnce).await;
    both[1].subscribe("t", QoS::AtLeastOnce).await;
    let mut publisher = Client::connect(server.mqtt, "publisher").await;
    publisher.publish("t", QoS::AtLeastOnce, "x").await;
    publisher.wait_for(|packet| matches!(packet, Incoming::PubAck(_))).await;
    assert_eq!(both[0].message().await.qos, QoS::AtMostOnce);
    assert_eq!(both[1].message().await.qos, QoS::AtLeastOnce);
}

#[tokio::test]
async fn what_http_publishes_comes_at_the_qos_of_the_subscription() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.mqtt, "c").await;
    client.subscribe("t", QoS::AtLeastOnce).await;
    post(server.http, "/v1/publish/t", "x").await;
    let message = client.message().await;
    assert_eq!((message.qos, &message.payload[..]), (QoS::AtLeastOnce, &b"x"[..]));
}

#[tokio::test]
async fn a_thousand_qos1_messages_arrive_once_each_and_in_order() {
    let server = TestServer::start().await;
    let mut subscriber = Client::connect(server.mqtt, "subscriber").await;
    subscriber.subscribe("t", QoS::AtLeastOnce).await;
    let publisher = Client::connect(server.mqtt, "publisher").await;
    for n in 0..1000 {
        publisher.publish("t", QoS::AtLeastOnce, &n.to_string()).await;
    }
    for n in 0..1000 {
        assert_eq!(subscriber.payload().await, n.to_string());
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_as_a_duplicate() {
    let server = TestServer::start().await;
    let mut bare = Bare::connect(server.mqtt).await;
    // CONNECT without clean session.
    let connect = b"\x10\x10\x00\x04MQTT\x04\x00\x00\x3c\x00\x04keep";
    bare.send(connect).await;
    assert_eq!(bare.receive(4).await, [0x20, 2, 0, 0]);
    bare.send(b"\x82\x06\x00\x01\x00\x01t\x01").await;
    assert_eq!(bare.receive(5).await, [0x90, 3, 0, 1, 1]);
    server.publish("t", "x");
    let first = bare.receive(8).await;
    assert_eq!(first[..1], [0x32]);
    drop(bare);

    let mut again = Bare::connect(server.mqtt).await;
    again.send(connect).await;
    assert_eq!(again.receive(4).await, [0x20, 2, 1, 0], "the session is there");
    let second = again.receive(8).await;
    assert_eq!(second[0], 0x3a, "with the duplicate flag");
    assert_eq!(second[1..], first[1..], "with its packet id");
}

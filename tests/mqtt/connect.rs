use std::time::Duration;

use rumqttc::QoS;

use crate::support::mqtt::{Bare, Client, connect_packet};
use crate::support::{TestServer, within};

#[tokio::test]
async fn subscriptions_match_by_mqtt_rules() {
    let server = TestServer::start().await;
    let cases = [
        ("a/b", "a/b", true),
        ("a/+", "a/b", true),
        ("a/+", "a", false),
        ("a/#", "a", true),
        ("a/#", "a/b/c", true),
        ("+/b", "a/b", true),
        ("#", "a/b", true),
        ("#", "$x/y", false),
        ("+/y", "$x/y", false),
        ("$x/#", "$x/y", true),
        ("a//b", "a//b", true),
        ("a/+/b", "a//b", true),
    ];
    for (filter, topic, matches) in cases {
        let mut client = Client::connect(server.mqtt, "matching").await;
        client.subscribe(filter, QoS::AtMostOnce).await;
        client.subscribe("end", QoS::AtMostOnce).await;
        server.publish(topic, "hit");
        server.publish("end", "end");
        let expected = if matches { "hit" } else { "end" };
        // `#` hits the end too, after the hit.
        assert_eq!(client.payload().await, expected, "{filter} {topic}");
        client.kill();
    }
}

#[tokio::test]
async fn a_silent_client_is_dropped_after_one_and_a_half_keep_alives() {
    let server = TestServer::start().await;
    let mut bare = Bare::connect(server.mqtt).await;
    let mut packet = connect_packet("quiet");
    packet[11] = 1;
    bare.send(&packet).await;
    assert_eq!(bare.receive(4).await, [0x20, 2, 0, 0]);
    let begun = std::time::Instant::now();
    assert!(bare.rest().await.is_empty());
    let lived = begun.elapsed();
    assert!(lived > Duration::from_millis(1400) && lived < Duration::from_secs(4), "{lived:?}");
}

#[tokio::test]
async fn pings_are_answered() {
    let server = TestServer::start().await;
    let mut bare = Bare::shake_hands(server.mqtt, "c").await;
    bare.send(&[0xc0, 0]).await;
    assert_eq!(bare.receive(2).await, [0xd0, 0]);
}

#[tokio::test]
async fn an_old_version_is_refused_in_its_own_terms() {
    let server = TestServer::start().await;
    let mut bare = Bare::connect(server.mqtt).await;
    bare.send(b"\x10\x0f\x00\x04MQTT\x09\x02\x00\x3c\x00\x03abc").await;
    let answer = bare.rest().await;
    assert_eq!(answer.first(), Some(&0x20), "{answer:?}");
    assert!(
        answer.get(3).is_some_and(|code| *code == 1 || *code == 0x84),
        "unacceptable version: {answer:?}"
    );
}

#[tokio::test]
async fn without_a_connect_the_connection_ends_in_time() {
    let server =
        TestServer::with(|config| config.mqtt_front.handshake_timeout = Duration::from_millis(300)).await;
    let mut bare = Bare::connect(server.mqtt).await;
    within(async { assert!(bare.rest().await.is_empty()) }).await;
}

//! Other brokers' bridges: mosquitto's says what it is by bit 0x80 of the protocol level.

use crate::client::*;
use crate::support::Server;

/// CONNECT of a bridge, with the will that mosquitto's leaves.
fn connect_bridge(name: &str, level: u8, will_topic: &str) -> Vec<u8> {
    // Clean session; a will at QoS 1, retained.
    let flags = 0x02 | 0x04 | 0x08 | 0x20;
    let properties: &[u8] = if level & 0x7F == 5 { &[0] } else { &[] };
    packet(
        0x10,
        &[
            &string(name),
            &[level, flags, 0, 0],
            properties,
            &string("bridge"),
            properties,
            &string(will_topic),
            &binary(b"0"),
        ],
    )
}

const STATE: &str = "$SYS/broker/connection/here.there/state";

/// Name and level of the protocol, and the version whose packets go with them.
const BRIDGES: [(&str, u8, u8); 3] = [("MQIsdp", 0x83, 4), ("MQTT", 0x84, 4), ("MQTT", 0x85, 5)];

#[tokio::test]
async fn a_bridge_is_not_sent_what_it_published_and_gets_retain_as_published() {
    let server = Server::start().await;
    for (name, level, version) in BRIDGES {
        let (mut bridge, _) =
            Client::connected_with(server.address, &connect_bridge(name, level, STATE)).await;
        let mut other = Client::connected(server.address, 4, "other").await;
        bridge.subscribe(version, &[("t/#", 0)]).await;
        other.subscribe(4, &[("t/#", 0)]).await;
        bridge.send(&publish(version, 2, "t/out", 1, b"out")).await;
        assert_eq!(other.read_publish().await, (0, "t/out".into(), 0, b"out".to_vec()));
        assert_eq!(bridge.read().await.first, 0x40, "the acknowledgement and no echo");
        for (flags, kept) in [(1, b"kept"), (0, b"live")] {
            other.send(&publish(4, flags, "t/in", 0, kept)).await;
            assert_eq!(bridge.read().await.first, 0x30 | flags, "RETAIN as published at level {level:#x}");
            other.read_publish().await;
        }
        let kept = broker_core::Channel::parse("t/in").unwrap();
        assert!(server.broker.clear_retained(&kept).await.unwrap());
    }
}

#[tokio::test]
async fn a_bridges_word_about_itself_lets_it_in_and_is_dropped() {
    let server = Server::start().await;
    let mut witness = Client::connected(server.address, 4, "witness").await;
    witness.subscribe(4, &[("$SYS/broker/connection/#", 1)]).await;
    for (name, level, version) in BRIDGES {
        let (mut bridge, _) =
            Client::connected_with(server.address, &connect_bridge(name, level, STATE)).await;
        bridge.send(&publish(version, 3, STATE, 1, b"1")).await;
        bridge.expect(&ack(0x40, 1)).await;
        // Lost without a goodbye, so that the will would be due.
        drop(bridge);
    }
    witness.expect_quiet().await;
    assert_eq!(server.front.stats().refused_rights, 0);
}

#[tokio::test]
async fn other_wills_on_the_brokers_own_topics_are_refused() {
    let server = Server::start().await;
    for topic in ["$SYS/broker/connection/state", "$SYS/broker/connection/a/b/state", "$SYS/broker/uptime"] {
        let mut bridge = Client::open(server.address).await;
        bridge.send(&connect_bridge("MQTT", 0x84, topic)).await;
        bridge.expect(&[0x20, 2, 0, 5]).await;
    }
}

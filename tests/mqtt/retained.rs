use rumqttc::QoS;

use crate::support::TestServer;
use crate::support::mqtt::{Bare, Client};

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

/// A SUBSCRIBE of version 3.1.1 for all these filters.
fn subscribe(filters: &[&str], qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1];
    for filter in filters {
        body.extend_from_slice(&u16::try_from(filter.len()).expect("a short filter").to_be_bytes());
        body.extend_from_slice(filter.as_bytes());
        body.push(qos);
    }
    let mut packet = vec![0x82];
    let mut rest = body.len();
    while rest > 127 {
        packet.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    packet.push(rest as u8);
    packet.extend(body);
    packet
}

/// Reads until nothing comes that was wanted: topics with the QoS they came at. Acknowledges QoS 1.
async fn read_publishes(bare: &mut Bare, count: usize) -> Vec<String> {
    let mut topics = Vec::new();
    while topics.len() < count {
        let head = bare.receive(2).await;
        let (first, mut length) = (head[0], usize::from(head[1] & 0x7f));
        if head[1] > 0x7f {
            length += usize::from(bare.receive(1).await[0]) << 7;
        }
        let body = bare.receive(length).await;
        if first >> 4 != 3 {
            assert_eq!(first, 0x90, "a SUBACK comes first");
            assert!(topics.is_empty());
            continue;
        }
        assert_eq!(first & 1, 1, "it is marked as retained");
        let topic = usize::from(body[0]) << 8 | usize::from(body[1]);
        topics.push(String::from_utf8(body[2..2 + topic].to_vec()).expect("UTF-8"));
        if first & 6 == 2 {
            bare.send(&[0x40, 2, body[2 + topic], body[3 + topic]]).await;
        }
    }
    topics
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_subscribe_with_several_wildcards_brings_every_retained_message() {
    let server = TestServer::start().await;
    for number in 0..4_000 {
        for kind in ["a", "b", "c"] {
            let channel = fanwire::Channel::parse(&format!("{kind}/{number}")).expect("legal");
            let publish = fanwire::Publish::new(channel, "kept").retain(true);
            server.broker.publish(publish).expect("taken");
        }
    }
    for (qos, id) in [(0, "qos0"), (1, "qos1")] {
        for round in 0..3 {
            let mut bare = Bare::shake_hands(server.mqtt, &format!("{id}-{round}")).await;
            bare.send(&subscribe(&["a/+", "b/#", "c/+"], qos)).await;
            let mut topics = read_publishes(&mut bare, 12_000).await;
            topics.sort();
            topics.dedup();
            assert_eq!(topics.len(), 12_000);
        }
    }
    assert_eq!(server.broker.stats().dropped, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_literal_filters_bring_every_retained_message_too() {
    let server = TestServer::start().await;
    let names: Vec<String> = (0..3_000).map(|number| format!("a/{number}")).collect();
    for name in &names {
        let channel = fanwire::Channel::parse(name).expect("legal");
        server.broker.publish(fanwire::Publish::new(channel, "kept").retain(true)).expect("taken");
    }
    let filters: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut bare = Bare::shake_hands(server.mqtt, "c").await;
    bare.send(&subscribe(&filters, 0)).await;
    let head = bare.receive(3).await;
    assert_eq!(head[0], 0x90);
    bare.receive(usize::from(head[1] & 0x7f) + (usize::from(head[2]) << 7)).await;
    let mut topics = read_publishes(&mut bare, 3_000).await;
    topics.sort();
    topics.dedup();
    assert_eq!(topics.len(), 3_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscribe_that_repeats_a_wildcard_thousands_of_times_costs_one_delivery() {
    let server = TestServer::start().await;
    for number in 0..5_000 {
        let channel = fanwire::Channel::parse(&format!("a/{number}")).expect("legal");
        server.broker.publish(fanwire::Publish::new(channel, "kept").retain(true)).expect("taken");
    }
    let mut bare = Bare::shake_hands(server.mqtt, "c").await;
    bare.send(&subscribe(&vec!["#"; 7_000], 0)).await;
    let head = bare.receive(3).await;
    assert_eq!(head[0], 0x90);
    bare.receive(usize::from(head[1] & 0x7f) + (usize::from(head[2]) << 7)).await;
    let mut topics = read_publishes(&mut bare, 5_000).await;
    topics.sort();
    topics.dedup();
    assert_eq!(topics.len(), 5_000);
    // Nothing more comes than the answer to this.
    bare.send(&[0xc0, 0]).await;
    assert_eq!(bare.receive(2).await, [0xd0, 0]);
    server.broker.drained().await;
    assert_eq!(server.broker.stats().delivered, 5_000);
}

//! PUBLISH in and out, QoS 0 to 2, retained messages.

use broker_core::{Channel, Publish};
use front_mqtt::Config;

use crate::client::*;
use crate::support::Server;

#[tokio::test]
async fn qos_0_reaches_a_subscriber() {
    let server = Server::start().await;
    let mut subscriber = Client::connected(server.address, 4, "s").await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    assert_eq!(subscriber.subscribe(4, &[("a/+", 0)]).await, [0]);
    publisher.send(&publish(4, 0, "a/b", 0, b"hello")).await;
    assert_eq!(subscriber.read_publish().await, (0, "a/b".into(), 0, b"hello".to_vec()));
}

#[tokio::test]
async fn qos_1_is_acknowledged_and_delivered() {
    let server = Server::start().await;
    let mut subscriber = Client::connected(server.address, 4, "s").await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    assert_eq!(subscriber.subscribe(4, &[("a", 1)]).await, [1]);
    for (n, id) in [(1u8, 10), (2, 10), (3, 65_535)] {
        publisher.send(&publish(4, 2, "a", id, &[n])).await;
        publisher.expect(&ack(0x40, id)).await;
        let (flags, topic, delivered, payload) = subscriber.read_publish().await;
        assert_eq!((flags, &*topic, delivered, payload), (2, "a", u16::from(n), vec![n]));
        subscriber.send(&ack(0x40, delivered)).await;
    }
}

#[tokio::test]
async fn delivered_qos_is_the_lesser_of_published_and_granted() {
    let server = Server::start().await;
    for published in 0..3u8 {
        for granted in 0..3u8 {
            let mut client = Client::connected(server.address, 4, "c").await;
            client.subscribe(4, &[("t", granted)]).await;
            let mut publisher = Client::connected(server.address, 4, "p").await;
            publisher.send(&publish(4, published << 1, "t", 5, b"x")).await;
            let (flags, ..) = client.read_publish().await;
            assert_eq!(flags >> 1, published.min(granted), "{published} to {granted}");
        }
    }
}

#[tokio::test]
async fn qos_2_runs_its_four_packets_both_ways() {
    let server = Server::start().await;
    let mut subscriber = Client::connected(server.address, 4, "s").await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    subscriber.subscribe(4, &[("a", 2)]).await;
    publisher.send(&publish(4, 4, "a", 9, b"once")).await;
    publisher.expect(&ack(0x50, 9)).await;
    // Repeats before PUBREL are answered and not delivered again.
    publisher.send(&publish(4, 0xC, "a", 9, b"once")).await;
    publisher.expect(&ack(0x50, 9)).await;
    publisher.send(&ack(0x62, 9)).await;
    publisher.expect(&ack(0x70, 9)).await;
    publisher.send(&ack(0x62, 9)).await;
    publisher.expect(&ack(0x70, 9)).await;

    let (flags, _, id, payload) = subscriber.read_publish().await;
    assert_eq!((flags, payload), (4, b"once".to_vec()));
    subscriber.send(&ack(0x50, id)).await;
    subscriber.expect(&ack(0x62, id)).await;
    subscriber.send(&ack(0x70, id)).await;
    subscriber.expect_quiet().await;
}

#[tokio::test]
async fn messages_of_one_publisher_arrive_in_order() {
    let server = Server::start().await;
    let mut subscriber = Client::connected(server.address, 4, "s").await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    subscriber.subscribe(4, &[("a", 1)]).await;
    let sender = tokio::spawn(async move {
        for n in 0..500u16 {
            publisher.send(&publish(4, 2, "a", n + 1, &n.to_be_bytes())).await;
        }
        for n in 0..500u16 {
            publisher.expect(&ack(0x40, n + 1)).await;
        }
    });
    for n in 0..500u16 {
        let (_, _, id, payload) = subscriber.read_publish().await;
        assert_eq!(payload, n.to_be_bytes());
        subscriber.send(&ack(0x40, id)).await;
    }
    sender.await.unwrap();
}

#[tokio::test]
async fn unacknowledged_messages_wait_behind_the_bound_on_those_in_flight() {
    let mut config = front_mqtt::Config::default();
    config.max_inflight = 3;
    let server = Server::with(config).await;
    let mut subscriber = Client::connected(server.address, 4, "s").await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    subscriber.subscribe(4, &[("a", 1)]).await;
    for n in 0..10u8 {
        publisher.send(&publish(4, 2, "a", 1, &[n])).await;
        publisher.read().await;
    }
    let mut ids = Vec::new();
    for n in 0..3u8 {
        let (_, _, id, payload) = subscriber.read_publish().await;
        assert_eq!(payload, [n]);
        ids.push(id);
    }
    subscriber.expect_quiet().await;
    // Acknowledgements out of order each free a place.
    for (n, id) in (3u8..).zip([ids[1], ids[2], ids[0]]) {
        subscriber.send(&ack(0x40, id)).await;
        assert_eq!(subscriber.read_publish().await.3, [n]);
    }
}

#[tokio::test]
async fn what_others_publish_comes_at_the_granted_qos() {
    let server = Server::start().await;
    let mut client = Client::connected(server.address, 4, "c").await;
    client.subscribe(4, &[("q0", 0), ("q1", 1), ("q2", 2)]).await;
    for (topic, flags) in [("q0", 0), ("q1", 2), ("q2", 4)] {
        server.broker.publish(Publish::new(Channel::parse(topic).unwrap(), "x").json()).unwrap();
        assert_eq!(client.read_publish().await.0, flags);
    }
}

#[tokio::test]
async fn a_retained_message_is_for_later_subscribers() {
    let server = Server::start().await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    let mut early = Client::connected(server.address, 4, "e").await;
    early.subscribe(4, &[("r/#", 1)]).await;
    publisher.send(&publish(4, 3, "r/1", 1, b"kept")).await;
    publisher.read().await;
    assert_eq!(early.read_publish().await.0, 2, "live messages are not marked as retained");

    let mut late = Client::connected(server.address, 4, "l").await;
    late.subscribe(4, &[("r/+", 0)]).await;
    assert_eq!(late.read_publish().await, (1, "r/1".into(), 0, b"kept".to_vec()));
    // Subscribing again brings it again.
    late.subscribe(4, &[("r/+", 1)]).await;
    assert_eq!(late.read_publish().await.0, 3);

    publisher.send(&publish(4, 0, "r/1", 0, b"")).await;
    publisher.send(&publish(4, 1, "r/2", 0, b"")).await;
    let mut still = Client::connected(server.address, 4, "x").await;
    still.subscribe(4, &[("r/1", 0)]).await;
    assert_eq!(still.read_publish().await.3, b"kept", "without RETAIN nothing is cleared");
    publisher.send(&publish(4, 1, "r/1", 0, b"")).await;
    publisher.send(PING).await;
    publisher.expect(&[0xD0, 0]).await;
    let mut none = Client::connected(server.address, 4, "n").await;
    none.subscribe(4, &[("r/#", 0)]).await;
    none.expect_quiet().await;
}

#[tokio::test]
async fn the_suback_goes_before_the_retained_messages() {
    let server = Server::start().await;
    for n in 0..100 {
        let channel = Channel::parse(&format!("r/{n}")).unwrap();
        server.broker.publish(Publish::new(channel, "x").retain(true)).unwrap();
    }
    for _ in 0..20 {
        let mut client = Client::connected(server.address, 4, "c").await;
        client.subscribe(4, &[("r/#", 1)]).await;
        for _ in 0..100 {
            let (.., id, _) = client.read_publish().await;
            client.send(&ack(0x40, id)).await;
        }
    }
}

#[tokio::test]
async fn large_messages_pass_both_ways() {
    let server = Server::start().await;
    let mut client = Client::connected(server.address, 4, "c").await;
    client.subscribe(4, &[("big", 1)]).await;
    for (flags, bytes) in [(0, 1 << 20), (2, 1 << 20), (2, 2047), (2, 2048), (0, 4 << 20)] {
        let payload: Vec<u8> = (0..bytes).map(|n: u32| n as u8).collect();
        client.send(&publish(4, flags, "big", 1, &payload)).await;
        let mut got = None;
        for _ in 0..if flags == 0 { 1 } else { 2 } {
            let raw = client.read().await;
            if raw.first >> 4 == 3 {
                got = Some(raw);
            }
        }
        let got = got.unwrap();
        assert!(got.body.ends_with(&payload), "{bytes}");
        if flags == 2 {
            client.send(&ack(0x40, u16::from_be_bytes([got.body[5], got.body[6]]))).await;
        }
    }
}

#[tokio::test]
async fn a_packet_above_the_maximum_is_refused_by_its_header() {
    let mut config = front_mqtt::Config::default();
    config.max_packet_bytes = 100;
    let server = Server::with(config).await;
    let mut client = Client::connected(server.address, 5, "c").await;
    client.send(&[0x30, 0x80, 0x01]).await;
    let disconnect = client.read().await;
    assert_eq!((disconnect.first, disconnect.body[0]), (0xE0, 0x95));
    client.expect_closed().await;
    let mut client = Client::connected(server.address, 4, "c").await;
    client.send(&publish(4, 0, "t", 0, &[0; 95])).await;
    client.send(PING).await;
    client.expect(&[0xD0, 0]).await;
    client.send(&publish(4, 0, "t", 0, &[0; 96])).await;
    client.expect_closed().await;
}

#[tokio::test]
async fn sys_topics_are_the_brokers() {
    let server = Server::start().await;
    let mut client = Client::connected(server.address, 4, "c").await;
    client.subscribe(4, &[("$SYS/broker/version", 0)]).await;
    let (flags, topic, _, payload) = client.read_publish().await;
    assert_eq!((flags, &*topic), (1, "$SYS/broker/version"));
    assert!(payload.starts_with(b"fanwire "));
    client.subscribe(4, &[("$SYS/x", 1), ("#", 1), ("$other/x", 1)]).await;
    client.send(&publish(4, 2, "$SYS/x", 3, b"forged")).await;
    client.expect(&ack(0x40, 3)).await;
    client.send(&publish(4, 2, "$other/x", 4, b"fine")).await;
    let (first, second) = (client.read().await, client.read().await);
    assert!([first.first, second.first].contains(&0x40) && [first.first, second.first].contains(&0x32));
    client.expect_quiet().await;
}

#[tokio::test]
async fn many_retained_messages_all_come() {
    let server = Server::start().await;
    const COUNT: usize = 5_000;
    for n in 0..COUNT {
        let channel = Channel::parse(&format!("r/{n}")).unwrap();
        server.broker.publish(Publish::new(channel, "x").retain(true)).unwrap();
    }
    for qos in [0, 1] {
        let mut client = Client::connected(server.address, 4, "c").await;
        client.subscribe(4, &[("r/#", qos)]).await;
        for n in 0..COUNT {
            let (_, _, id, _) = client.try_publish().await.unwrap_or_else(|| panic!("{n} came at QoS {qos}"));
            if qos > 0 {
                client.send(&ack(0x40, id)).await;
            }
        }
    }
}

#[tokio::test]
async fn retained_messages_wait_in_the_store_for_who_acknowledges_none() {
    let server = Server::start().await;
    for n in 0..5_000 {
        let channel = Channel::parse(&format!("r/{n}")).unwrap();
        server.broker.publish(Publish::new(channel, "x").retain(true)).unwrap();
    }
    let mut client = Client::connected(server.address, 4, "c").await;
    client.subscribe(4, &[("r/#", 1)]).await;
    let in_flight = Config::default().max_inflight;
    for n in 0..in_flight {
        assert!(client.try_publish().await.is_some(), "{n} came");
    }
    client.expect_quiet().await;
    let stats = server.front.stats();
    assert!((1..=600).contains(&stats.messages_waiting), "{} wait in the session", stats.messages_waiting);
}

#[tokio::test]
async fn acknowledgements_come_in_the_order_of_what_they_answer() {
    let server = Server::start().await;
    for level in [4, 5] {
        let mut client = Client::connected(server.address, level, "c").await;
        client.subscribe(level, &[("t", 2)]).await;
        let all: Vec<u8> = (1..=40u16)
            .flat_map(|id| publish(level, if id % 2 == 0 { 2 } else { 4 }, "t", id, &[1]))
            .collect();
        client.send(&all).await;
        let (mut answers, mut heard) = (vec![Vec::new(); 16], Vec::new());
        for _ in 0..80 {
            let raw = client.read().await;
            match raw.first >> 4 {
                3 if raw.first & 4 != 0 => heard.push(u16::from_be_bytes([raw.body[3], raw.body[4]])),
                3 => {}
                kind => answers[usize::from(kind)].push(u16::from_be_bytes([raw.body[0], raw.body[1]])),
            }
        }
        assert_eq!(answers[4], (1..=20).map(|n| 2 * n).collect::<Vec<_>>(), "PUBACK");
        assert_eq!(answers[5], (1..=20).map(|n| 2 * n - 1).collect::<Vec<_>>(), "PUBREC");
        assert_eq!(heard.len(), 20);
        client.send(&heard.iter().flat_map(|id| ack(0x50, *id)).collect::<Vec<_>>()).await;
        for id in heard {
            client.expect(&ack(0x62, id)).await;
        }
    }
}

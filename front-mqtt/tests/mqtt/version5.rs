//! What only version 5 has: properties, aliases, flow control, options, reasons, enhanced authentication.

use std::sync::Arc;
use std::time::Duration;

use broker_core::{
    AllowAll, Answer, AuthError, Broker, Channel, ContentType, Credentials, Filter, Policy, Principal,
    Publish, Rights,
};
use front_mqtt::{Config, Exchange, Front, Mechanism, Step, Stepping};

use crate::client::*;
use crate::support::Server;

/// A PUBLISH taken apart: flags, topic, packet identifier, properties, payload.
struct Publish5 {
    flags: u8,
    topic: String,
    id: u16,
    properties: Vec<u8>,
    payload: Vec<u8>,
}

async fn read_publish(client: &mut Client) -> Publish5 {
    let raw = client.read().await;
    assert_eq!(raw.first >> 4, 3, "a PUBLISH should have come: {raw:x?}");
    let length = usize::from(u16::from_be_bytes([raw.body[0], raw.body[1]]));
    let topic = String::from_utf8(raw.body[2..2 + length].to_vec()).unwrap();
    let mut rest = &raw.body[2 + length..];
    let mut id = 0;
    if raw.first & 6 != 0 {
        id = u16::from_be_bytes([rest[0], rest[1]]);
        rest = &rest[2..];
    }
    let bytes = usize::from(rest[0]);
    assert!(bytes < 128);
    Publish5 {
        flags: raw.first & 0xF,
        topic,
        id,
        properties: rest[1..1 + bytes].to_vec(),
        payload: rest[1 + bytes..].to_vec(),
    }
}

#[tokio::test]
async fn the_default_connack_announces_what_differs() {
    let server = Server::start().await;
    let mut client = Client::open(server.address).await;
    client.send(&connect(5, "c", true, 0, &[])).await;
    let expected = [0x20, 14, 0, 0, 11, 0x27, 0, 0x50, 0, 0, 0x22, 0, 10, 0x21, 0, 100];
    client.expect(&expected).await;

    let mut config = Config::default();
    config.max_packet_bytes = 268_435_455;
    let server = Server::with(config).await;
    let mut client = Client::open(server.address).await;
    client.send(&connect(5, "c", true, 0, &[])).await;
    client.expect(&[0x20, 9, 0, 0, 6, 0x22, 0, 10, 0x21, 0, 100]).await;
}

#[tokio::test]
async fn what_the_server_decides_for_the_client_is_told() {
    let mut config = Config::default();
    config.max_packet_bytes = 268_435_455;
    config.topic_alias_maximum = 0;
    config.receive_maximum = 65_535;
    config.max_keep_alive_secs = Some(60);
    config.max_session_expiry_secs = Some(10);
    config.maximum_qos = broker_core::Qos::AtLeastOnce;
    config.retain_available = false;
    config.response_information = Some("r/".into());
    let server = Server::with(config).await;
    let mut client = Client::open(server.address).await;
    client.send(&connect(5, "", true, 120, &[0x11, 0, 0, 0, 99, 0x19, 1])).await;
    let connack = client.read().await;
    let mut expected = vec![0x11, 0, 0, 0, 10, 0x12, 0, 41];
    let id_at = 3 + expected.len();
    let id = connack.body[id_at..id_at + 41].to_vec();
    expected.extend(&id);
    expected.extend([0x13, 0, 60, 0x25, 0, 0x24, 1, 0x1A, 0, 2, b'r', b'/']);
    assert_eq!(&connack.body[3..], expected);
    assert_eq!(&id[..5], b"auto-");

    // The assigned identifier resumes the session.
    client.send(&[0xE0, 0]).await;
    client.expect_closed().await;
    let id = String::from_utf8(id).unwrap();
    let (mut client, present) = Client::connected_with(server.address, &connect(5, &id, false, 9, &[])).await;
    assert!(present);
    assert_eq!(client.subscribe(5, &[("a", 2)]).await, [1], "granted at most the maximum");
    client.send(&publish(5, 4, "a", 1, b"x")).await;
    assert_eq!(client.read().await.body[0], 0x9B);
    let mut client = Client::connected(server.address, 5, "c").await;
    client.send(&publish(5, 1, "a", 0, b"x")).await;
    assert_eq!(client.read().await.body[0], 0x9A);
    // A will that breaks the announcement is refused at once.
    for (flags, code) in [(0x16, 0x9B), (0x26, 0x9A)] {
        let mut client = Client::open(server.address).await;
        let head = [string("MQTT"), vec![5, flags, 0, 0, 0]].concat();
        client.send(&packet(0x10, &[&head, &string("c"), &[0], &string("w"), &binary(b"x")])).await;
        assert_eq!(client.read().await.body[1], code);
    }
}

#[tokio::test]
async fn bad_connects_are_told_why() {
    let server = Server::start().await;
    let name = string("MQTT");
    for (body, code) in [
        ([&name[..], &[5, 3, 0, 0, 0], &string("c")].concat(), 0x81),
        ([&name[..], &[5, 2, 0, 0, 3, 0x21, 0, 0], &string("c")].concat(), 0x82),
        ([&name[..], &[5, 2, 0, 0, 4, 0x15, 0, 1, b'x'], &string("c")].concat(), 0x8C),
        ([&name[..], &[5, 6, 0, 0, 0], &string("c"), &[0], &string("a/#"), &string("")].concat(), 0x90),
        ([&name[..], &[5, 2, 0, 0, 0], &string("c"), &[0]].concat(), 0x81),
    ] {
        let mut client = Client::open(server.address).await;
        client.send(&packet(0x10, &[&body])).await;
        let connack = client.read().await;
        assert_eq!((connack.first, connack.body[0], connack.body[1]), (0x20, 0, code));
        client.expect_closed().await;
    }
}

#[tokio::test]
async fn properties_are_forwarded_unchanged_and_in_order() {
    let server = Server::start().await;
    let mut client = Client::connected(server.address, 5, "c").await;
    client.subscribe(5, &[("t", 1)]).await;
    let mut old = Client::connected(server.address, 4, "old").await;
    old.subscribe(4, &[("t", 0)]).await;
    let mut inside = server.broker.subscribe(Filter::parse("t").unwrap()).unwrap();
    let properties = [
        &[0x01, 1][..],
        &[0x03, 0, 1, b'c'],
        &[0x08, 0, 1, b'r'],
        &[0x09, 0, 2, 0, 255],
        &[0x26, 0, 1, b'z', 0, 1, b'1'],
        &[0x26, 0, 1, b'a', 0, 1, b'2'],
        &[0x26, 0, 1, b'z', 0, 1, b'1'],
    ]
    .concat();
    for flags in [0, 2] {
        client.send(&publish_with(5, flags, "t", 7, &properties, b"hi")).await;
        if flags == 2 {
            // PUBACK and PUBLISH come in any order.
            let first = client.try_read(SOON).await.unwrap();
            if first.first == 0x40 {
                assert_eq!(read_publish(&mut client).await.properties, properties);
            } else {
                client.expect(&ack(0x40, 7)).await;
            }
        } else {
            let got = read_publish(&mut client).await;
            assert_eq!((got.properties, got.payload), (properties.clone(), b"hi".to_vec()));
        }
        assert_eq!(old.read_publish().await.3, b"hi");
        let message = inside.message().await.unwrap();
        assert_eq!(message.content_type().map(ContentType::as_str), Some("c"));
        let properties = message.properties().unwrap();
        assert_eq!((properties.reply_to.as_deref(), properties.payload_is_utf8), (Some("r"), Some(true)));
        assert_eq!(properties.correlation.as_deref(), Some(&[0, 255][..]));
    }
}

#[tokio::test]
async fn message_expiry_counts_down_and_ends() {
    let server = Server::start().await;
    let keep = connect(5, "c", false, 0, &[0x11, 0, 0, 0, 100]);
    let (mut client, _) = Client::connected_with(server.address, &keep).await;
    client.subscribe(5, &[("t", 1)]).await;
    client.send(DISCONNECT).await;
    client.expect_closed().await;
    let mut publisher = Client::connected(server.address, 5, "p").await;
    for (n, expiry) in [(1u8, 1u8), (2, 10)] {
        publisher.send(&publish_with(5, 3, &format!("r/{n}"), 1, &[2, 0, 0, 0, expiry], b"kept")).await;
        publisher.send(&publish_with(5, 2, "t", 1, &[2, 0, 0, 0, expiry], &[n])).await;
    }
    for _ in 0..4 {
        publisher.read().await;
    }
    tokio::time::sleep(Duration::from_millis(1600)).await;
    let (mut client, _) = Client::connected_with(server.address, &keep).await;
    let got = read_publish(&mut client).await;
    assert_eq!((got.payload, got.properties), (vec![2], vec![2, 0, 0, 0, 9]));
    client.send(&ack(0x40, got.id)).await;
    client.subscribe(5, &[("r/+", 0)]).await;
    let got = read_publish(&mut client).await;
    assert_eq!((&*got.topic, got.flags, got.properties), ("r/2", 1, vec![2, 0, 0, 0, 9]));
    client.expect_quiet().await;
    // Published and delivered at once: as it was written. 0 reaches who is there.
    for expiry in [7, 0] {
        publisher.send(&publish_with(5, 0, "r/live", 0, &[2, 0, 0, 0, expiry], b"x")).await;
        assert_eq!(read_publish(&mut client).await.properties, [2, 0, 0, 0, expiry]);
    }
}

#[tokio::test]
async fn incoming_aliases_stand_for_topics_of_this_connection() {
    let server = Server::start().await;
    let mut witness = Client::connected(server.address, 4, "w").await;
    witness.subscribe(4, &[("#", 0)]).await;
    let mut client = Client::connected(server.address, 5, "c").await;
    for (topic, alias, arrives) in
        [("a", 1, "a"), ("", 1, "a"), ("b", 1, "b"), ("", 1, "b"), ("c", 10, "c"), ("", 1, "b")]
    {
        client.send(&publish_with(5, 0, topic, 0, &[0x23, 0, alias], b"x")).await;
        assert_eq!(witness.read_publish().await.1, arrives);
    }
    for (topic, alias, code) in [("", 2, 0x82), ("t", 0, 0x94), ("", 0, 0x94), ("t", 11, 0x94)] {
        let mut client = Client::connected(server.address, 5, "c").await;
        client.send(&publish_with(5, 0, topic, 0, &[0x23, 0, alias], b"x")).await;
        assert_eq!(client.read().await.body[0], code, "{topic} {alias}");
        client.expect_closed().await;
    }
}

#[tokio::test]
async fn outgoing_aliases_are_by_topic_and_within_the_clients_maximum() {
    let server = Server::start().await;
    let (mut client, _) =
        Client::connected_with(server.address, &connect(5, "c", true, 0, &[0x22, 0, 2])).await;
    client.subscribe(5, &[("t/#", 1)]).await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    let expected: [(&str, &str, &[u8]); 7] = [
        ("t/a", "t/a", &[0x23, 0, 1]),
        ("t/a", "", &[0x23, 0, 1]),
        ("t/b", "t/b", &[0x23, 0, 2]),
        ("t/a", "", &[0x23, 0, 1]),
        ("t/c", "t/c", &[]),
        ("t/b", "", &[0x23, 0, 2]),
        ("t/c", "t/c", &[]),
    ];
    for (n, (topic, name, properties)) in expected.into_iter().enumerate() {
        publisher.send(&publish(4, if n % 2 == 0 { 0 } else { 2 }, topic, 1, b"x")).await;
        let got = read_publish(&mut client).await;
        assert_eq!((&*got.topic, &*got.properties), (name, properties), "{n}");
    }
}

#[tokio::test]
async fn more_unfinished_publishes_than_are_borne_end_the_connection() {
    let mut config = Config::default();
    config.receive_maximum = 2;
    config.max_unreleased_publishes = 3;
    let server = Server::with(config).await;
    let mut client = Client::connected(server.address, 5, "c").await;
    for id in 1..4 {
        client.send(&publish(5, 4, "t", id, b"x")).await;
        assert_eq!(client.read().await.first, 0x50);
    }
    // Finishing one makes room for one.
    client.send(&ack(0x62, 2)).await;
    client.expect(&ack(0x70, 2)).await;
    client.send(&publish(5, 4, "t", 4, b"x")).await;
    assert_eq!(client.read().await.first, 0x50);
    client.send(&publish(5, 4, "t", 5, b"x")).await;
    assert_eq!(client.read().await.body[0], 0x93);
    client.expect_closed().await;
}

/// MQTT.js sends as many as its page wants, whatever the maximum.
#[tokio::test]
async fn many_times_the_receive_maximum_is_borne() {
    let server = Server::start().await;
    let mut witness = Client::connected(server.address, 4, "w").await;
    witness.subscribe(4, &[("t", 0)]).await;
    let (mut client, _) =
        Client::connected_with(server.address, &connect(5, "c", false, 0, &[0x11, 0, 0, 0, 60])).await;
    const COUNT: u16 = 5_000;
    let all: Vec<u8> = (1..=COUNT).flat_map(|id| publish(5, 4, "t", id, &id.to_be_bytes())).collect();
    let again = all.clone();
    client.send(&all).await;
    for id in 1..=COUNT {
        client.expect(&ack(0x50, id)).await;
        assert_eq!(witness.read_publish().await.3, id.to_be_bytes());
    }
    // All of them are still known as taken: none is published again.
    client.send(&again).await;
    for id in 1..=COUNT {
        client.expect(&ack(0x50, id)).await;
    }
    for id in 1..=COUNT {
        client.send(&ack(0x62, id)).await;
        client.expect(&ack(0x70, id)).await;
    }
    witness.expect_quiet().await;
}

#[tokio::test]
async fn the_clients_receive_maximum_holds_and_failures_free_a_place() {
    let server = Server::start().await;
    let (mut client, _) =
        Client::connected_with(server.address, &connect(5, "c", true, 0, &[0x21, 0, 2])).await;
    client.subscribe(5, &[("t", 2)]).await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    for n in 0..5u8 {
        publisher.send(&publish(4, 4, "t", u16::from(n) + 1, &[n])).await;
        publisher.read().await;
        publisher.send(&ack(0x62, u16::from(n) + 1)).await;
        publisher.read().await;
    }
    publisher.send(&publish(4, 0, "t", 0, b"zero")).await;
    let (first, second) = (read_publish(&mut client).await, read_publish(&mut client).await);
    assert_eq!((first.payload, second.payload), (vec![0], vec![1]));
    assert_eq!(read_publish(&mut client).await.payload, b"zero", "QoS 0 is never held back");
    client.expect_quiet().await;
    // PUBREC keeps the place until PUBCOMP.
    client.send(&ack(0x50, first.id)).await;
    client.expect(&ack(0x62, first.id)).await;
    client.expect_quiet().await;
    client.send(&ack(0x70, first.id)).await;
    assert_eq!(read_publish(&mut client).await.payload, [2]);
    // A PUBREC that refuses ends the exchange.
    client.send(&packet(0x50, &[&second.id.to_be_bytes(), &[0x97]])).await;
    assert_eq!(read_publish(&mut client).await.payload, [3]);
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_packet_too_large_for_the_client_is_as_if_delivered() {
    let server = Server::start().await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    for alias in [0, 5] {
        let properties = [0x27, 0, 0, 0, 30, 0x22, 0, alias];
        let (mut client, _) =
            Client::connected_with(server.address, &connect(5, "c", true, 0, &properties)).await;
        client.subscribe(5, &[("t", 1)]).await;
        for flags in [0, 2] {
            publisher.send(&publish(4, flags, "t", 1, &[0; 40])).await;
            publisher.send(&publish(4, flags, "t", 2, b"fits")).await;
            let got = read_publish(&mut client).await;
            assert_eq!(got.payload, b"fits");
            assert_eq!(got.id, u16::from(flags == 2), "no identifier was used up");
        }
    }
    assert_eq!(server.front.stats().messages_dropped, 4);
}

#[tokio::test]
async fn subscription_identifiers_come_with_what_they_matched() {
    let server = Server::start().await;
    let mut client = Client::connected(server.address, 5, "c").await;
    let mut send = async |filter: &str, id: u8| {
        let properties: &[u8] = if id > 0 { &[2, 0x0B, id] } else { &[0] };
        client.send(&packet(0x82, &[&[0, 1], properties, &string(filter), &[1]])).await;
        assert_eq!(client.read().await.body[3], 1);
    };
    send("t/a", 1).await;
    send("t/+", 2).await;
    send("t/#", 0).await;
    let mut other = Client::connected(server.address, 5, "other").await;
    other.subscribe(5, &[("t/a", 1)]).await;
    server.broker.publish(Publish::new(Channel::parse("t/a").unwrap(), "x").retain(true)).unwrap();
    let mut ids = read_publish(&mut client).await.properties;
    if ids[1] == 2 {
        ids = vec![ids[2], ids[3], ids[0], ids[1]];
    }
    assert_eq!(ids, [0x0B, 1, 0x0B, 2]);
    assert_eq!(read_publish(&mut other).await.properties, [] as [u8; 0], "never to another client");
    // Retained messages carry it too; subscribing without one takes it away.
    let mut late = Client::connected(server.address, 5, "late").await;
    late.send(&packet(0x82, &[&[0, 1], &[2, 0x0B, 9], &string("t/+"), &[0]])).await;
    assert_eq!(late.read().await.first, 0x90);
    assert_eq!(read_publish(&mut late).await.properties, [0x0B, 9]);
    late.subscribe(5, &[("t/+", 0)]).await;
    assert_eq!(read_publish(&mut late).await.properties, [] as [u8; 0]);
}

#[tokio::test]
async fn subscription_options_hold() {
    let server = Server::start().await;
    server.broker.publish(Publish::new(Channel::parse("r").unwrap(), "old").retain(true)).unwrap();
    let mut client = Client::connected(server.address, 5, "c").await;
    // Retain handling 2 never, 1 only for a new subscription, 0 always.
    client.subscribe(5, &[("r", 0x20)]).await;
    client.expect_quiet().await;
    client.subscribe(5, &[("r", 0x10)]).await;
    client.expect_quiet().await;
    client.subscribe(5, &[("r", 0x00)]).await;
    assert_eq!(read_publish(&mut client).await.flags, 1);
    client.subscribe(5, &[("+", 0x10)]).await;
    assert_eq!(read_publish(&mut client).await.flags, 1);
    client.send(&unsubscribe(5, 1, &["r", "+"])).await;
    client.read().await;
    // Retain as published.
    client.subscribe(5, &[("p", 0x28)]).await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    for retain in [1, 0] {
        publisher.send(&publish(4, retain, "p", 0, b"x")).await;
        assert_eq!(read_publish(&mut client).await.flags, retain);
    }
    // No local skips that subscription only.
    client.subscribe(5, &[("n", 0x04), ("m/+", 0x04), ("m/#", 0)]).await;
    for topic in ["n", "m/1"] {
        client.send(&publish(5, 0, topic, 0, b"mine")).await;
    }
    assert_eq!(read_publish(&mut client).await.topic, "m/1");
    publisher.send(&publish(4, 0, "n", 0, b"theirs")).await;
    assert_eq!(read_publish(&mut client).await.payload, b"theirs");
    client.expect_quiet().await;
    // No local and a shared subscription do not go together.
    client.send(&subscribe(5, 1, &[("$share/g/a", 0x04)])).await;
    assert_eq!(client.read().await.body[0], 0x82);
}

#[tokio::test]
async fn a_publish_nobody_hears_is_acknowledged_with_that() {
    let server = Server::start().await;
    let mut client = Client::connected(server.address, 5, "c").await;
    client.send(&publish(5, 2, "nobody", 3, b"x")).await;
    client.expect(&[0x40, 3, 0, 3, 0x10]).await;
    client.send(&publish(5, 4, "nobody", 4, b"x")).await;
    client.expect(&[0x50, 3, 0, 4, 0x10]).await;
    client.send(&ack(0x62, 4)).await;
    client.expect(&ack(0x70, 4)).await;
    client.send(&ack(0x62, 4)).await;
    client.expect(&[0x70, 3, 0, 4, 0x92]).await;
    client.send(&ack(0x50, 9)).await;
    client.expect(&[0x62, 3, 0, 9, 0x92]).await;
}

#[tokio::test]
async fn reason_strings_go_on_acknowledgements_if_the_client_asks_for_them() {
    use broker_core::{Action, Anonymous, Rule};
    let rights = Rights::all().deny(Rule::new([Action::Publish], Filter::parse("no").unwrap()));
    let rights = Arc::new(Anonymous(Principal::anonymous(rights)));
    let server = Server::with_rights(Config::default(), rights).await;
    for (asks, told) in [(&[0x17, 1][..], true), (&[0x17, 0], false), (&[], false)] {
        let (mut client, _) = Client::connected_with(server.address, &connect(5, "c", true, 0, asks)).await;
        client.send(&publish(5, 2, "no", 3, b"x")).await;
        let puback = client.read().await;
        assert_eq!((puback.body[2], puback.body.len() > 3), (0x87, told), "{puback:x?}");
    }
}

#[tokio::test]
async fn connack_and_disconnect_say_why_whatever_the_client_asks_unless_nothing_may() {
    for (reason_strings, asks) in [(true, 1), (true, 0), (false, 1)] {
        let mut config = Config::default();
        config.reason_strings = reason_strings;
        let server = Server::with(config).await;
        let mut client = Client::open(server.address).await;
        client.send(&connect(5, "c", true, 0, &[0x17, asks, 0x15, 0, 1, b'x'])).await;
        let connack = client.read().await;
        assert_eq!((connack.body[1], connack.body.len() > 3), (0x8C, reason_strings), "{connack:x?}");
        let asking = connect(5, "c", true, 0, &[0x17, asks]);
        let (mut client, _) = Client::connected_with(server.address, &asking).await;
        client.send(&publish(5, 2, "$SYS/x", 3, b"x")).await;
        let puback = client.read().await;
        assert_eq!((puback.body[2], puback.body.len() > 3), (0x87, reason_strings && asks == 1));
        client.send(&[0xF0, 1, 0x19]).await;
        let disconnect = client.read().await;
        assert_eq!(
            (disconnect.body[0], disconnect.body.len() > 1),
            (0x82, reason_strings),
            "{disconnect:x?}"
        );
        let (mut client, _) = Client::connected_with(server.address, &asking).await;
        let (key, connection) = server.broker.connections(None, 1).pop().unwrap();
        connection.close(&broker_core::CloseCause::Administrative(None));
        let disconnect = client.read().await;
        assert_eq!((disconnect.body[0], disconnect.body.len() > 1), (0x98, reason_strings), "{key:?}");
    }
}

#[tokio::test]
async fn reason_strings_give_way_to_the_clients_maximum_packet_size() {
    let server = Server::start().await;
    let small = [0x27, 0, 0, 0, 12];
    let mut client = Client::open(server.address).await;
    let wrong_method = [&small[..], &[0x15, 0, 1, b'x']].concat();
    client.send(&connect(5, "c", true, 0, &wrong_method)).await;
    client.expect(&[0x20, 3, 0, 0x8C, 0]).await;
    let mut client = Client::open(server.address).await;
    client.send(&connect(5, "c", true, 0, &small)).await;
    client.expect(&[0x20, 3, 0, 0x95, 0]).await;
    let room_for_connack = [0x27, 0, 0, 0, 20];
    let (mut client, _) =
        Client::connected_with(server.address, &connect(5, "c", true, 0, &room_for_connack)).await;
    client.send(&publish(5, 2, "$SYS/x", 3, b"x")).await;
    client.expect(&[0x40, 3, 0, 3, 0x87]).await;
    client.send(&[0xF0, 1, 0x19]).await;
    client.expect(&[0xE0, 1, 0x82]).await;
}

#[tokio::test]
async fn server_packets_from_a_client_are_a_protocol_error() {
    let server = Server::start().await;
    for first in [0x20, 0x90, 0xB0, 0xD0] {
        let mut client = Client::connected(server.address, 5, "c").await;
        client.send(&[first, 0]).await;
        let disconnect = client.read().await;
        assert_eq!((disconnect.first, disconnect.body[0]), (0xE0, 0x82));
        client.expect_closed().await;
    }
}

/// Asks for "one", then "two".
struct TwoWords;

struct Words(u8);

impl Mechanism for TwoWords {
    fn name(&self) -> &str {
        "WORDS"
    }

    fn begin(&self, _: &str) -> Box<dyn Exchange> {
        Box::new(Words(0))
    }
}

impl Exchange for Words {
    fn step<'a>(&'a mut self, data: &'a [u8]) -> Stepping<'a> {
        Box::pin(async move {
            self.0 += 1;
            match (self.0, data) {
                (1, b"one") => Step::Continue(b"next".to_vec()),
                (2, b"two") => {
                    Step::Done { principal: Principal::anonymous(Rights::all()), data: b"hello".to_vec() }
                }
                _ => Step::Failed(broker_core::AuthError::Invalid("wrong word".into())),
            }
        })
    }
}

fn with_word(word: &str) -> Vec<u8> {
    let properties = [&[0x15][..], &string("WORDS"), &[0x16], &string(word)].concat();
    connect(5, "c", true, 0, &properties)
}

fn auth(reason: u8, method: &str, word: &str) -> Vec<u8> {
    let properties = [&[0x15][..], &string(method), &[0x16], &string(word)].concat();
    packet(0xF0, &[&[reason, properties.len() as u8], &properties])
}

#[tokio::test]
async fn enhanced_authentication_runs_its_mechanism() {
    let broker = Broker::new(broker_core::Config::default());
    let front = Front::new(broker, Arc::new(AllowAll), Config::default()).with_mechanism(Arc::new(TwoWords));
    let server = Server::around(front).await;
    let mut client = Client::open(server.address).await;
    client.send(&with_word("one")).await;
    client.expect(&auth(0x18, "WORDS", "next")).await;
    client.send(&auth(0x18, "WORDS", "two")).await;
    let connack = client.read().await;
    assert_eq!((connack.first, connack.body[1]), (0x20, 0));
    let told = [&[0x15][..], &string("WORDS"), &[0x16], &string("hello")].concat();
    assert!(connack.body.ends_with(&told));

    // Again, while the connection goes on.
    client.send(&[auth(0x19, "WORDS", "one"), PING.to_vec()].concat()).await;
    client.expect(&auth(0x18, "WORDS", "next")).await;
    client.expect(&[0xD0, 0]).await;
    client.send(&auth(0x18, "WORDS", "two")).await;
    client.expect(&auth(0x00, "WORDS", "hello")).await;
    client.send(&auth(0x19, "WORDS", "wrong")).await;
    assert_eq!(client.read().await.body[0], 0x87);
    client.expect_closed().await;

    // What goes wrong before CONNACK, and with which code.
    for (second, code) in [
        (auth(0x18, "WORDS", "wrong"), 0x86),
        (auth(0x18, "OTHER", "two"), 0x82),
        (auth(0x19, "WORDS", "two"), 0x82),
        (PING.to_vec(), 0x82),
    ] {
        let mut client = Client::open(server.address).await;
        client.send(&with_word("one")).await;
        client.read().await;
        client.send(&second).await;
        let connack = client.read().await;
        assert_eq!((connack.first, connack.body[1]), (0x20, code));
        client.expect_closed().await;
    }
    // And after it.
    for (packet, code) in [(auth(0x18, "WORDS", "two"), 0x82), (auth(0x19, "OTHER", "one"), 0x82)] {
        let mut client = Client::open(server.address).await;
        client.send(&with_word("one")).await;
        client.read().await;
        client.send(&auth(0x18, "WORDS", "two")).await;
        client.read().await;
        client.send(&packet).await;
        assert_eq!(client.read().await.body[0], code);
    }
    let mut client = Client::connected(server.address, 5, "plain").await;
    client.send(&auth(0x19, "WORDS", "one")).await;
    assert_eq!(client.read().await.body[0], 0x82);
}

/// No authenticator is asked where a mechanism says who it is, and the policy all the same.
#[tokio::test]
async fn a_policy_is_asked_after_a_mechanism_too() {
    struct Nobody;
    impl Policy for Nobody {
        fn connect<'a>(
            &'a self,
            credentials: &Credentials<'a>,
            _: Principal,
        ) -> Answer<'a, Result<Principal, AuthError>> {
            assert_eq!((credentials.client_id, credentials.protocol), (Some("c"), "mqtt"));
            Answer::later(async { Err(AuthError::Invalid("not today".to_owned())) })
        }
    }
    let broker = Broker::new(broker_core::Config::default());
    assert!(broker.set_policy(Arc::new(Nobody)));
    let front = Front::new(broker, Arc::new(AllowAll), Config::default()).with_mechanism(Arc::new(TwoWords));
    let server = Server::around(front).await;
    let mut client = Client::open(server.address).await;
    client.send(&with_word("one")).await;
    client.expect(&auth(0x18, "WORDS", "next")).await;
    client.send(&auth(0x18, "WORDS", "two")).await;
    let connack = client.read().await;
    assert_eq!((connack.first, connack.body[1]), (0x20, 0x86));
    client.expect_closed().await;
}

//! Sessions whose messages an engine keeps: over lives of the server, and within one.

use std::sync::Arc;
use std::time::Duration;

use broker_core::{AllowAll, Broker, Channel, IdempotencyKey, Publish, Qos};
use conformance::{Chaos, Ground, MEMORY, PacedGround};
use front_mqtt::Config;

use crate::client::*;
use crate::support::Server;

/// The next life of a server. The one before is left as it is, as by a crash: what it still does counts for nothing once
/// its sessions were claimed.
pub(crate) async fn life(ground: &dyn Ground) -> Server {
    let mut config = broker_core::Config::default();
    config.namespaces = vec![broker_core::NamespaceConfig::new(MEMORY, broker_core::LogConfig::default())];
    let broker = Broker::with_engine(config, ground.open());
    Server::on(broker, Config::default(), Arc::new(AllowAll)).await
}

pub(crate) fn keep(level: u8) -> Vec<u8> {
    // Session expiry of 100 s for version 5.
    connect(level, "c", false, 0, &[0x11, 0, 0, 0, 100])
}

async fn publish_all(server: &Server, topic: &str, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let publish = Publish::new(Channel::parse(topic).unwrap(), n.to_string()).qos(Qos::AtLeastOnce);
        for _ in 0..10_000 {
            let key = format!("{topic} {n}");
            let published = server.broker.submit_once(publish.clone(), &IdempotencyKey::new(&key)).await;
            if published.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
    }
}

/// Reads messages and acknowledges them.
async fn take(client: &mut Client, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let (_, _, id, payload) = client.read_publish().await;
        assert_eq!(String::from_utf8_lossy(&payload), n.to_string());
        client.send(&ack(0x40, id)).await;
    }
}

/// All that was sent is handled.
pub(crate) async fn settle(client: &mut Client) {
    client.send(PING).await;
    client.expect(&[0xD0, 0]).await;
}

async fn leave(server: &Server, mut client: Client) {
    client.send(DISCONNECT).await;
    client.expect_closed().await;
    // The end of the connection is recorded once no connection is left.
    for _ in 0..500 {
        if server.front.stats().connections == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the connection does not end");
}

#[tokio::test]
async fn what_was_published_while_a_client_was_away_comes_once_and_in_order() {
    for restarts in [false, true] {
        let ground = PacedGround::default();
        let mut server = life(&ground).await;
        let (mut client, present) = Client::connected_with(server.address, &keep(4)).await;
        assert!(!present);
        assert_eq!(client.subscribe(4, &[("q/#", 1), ("q/+", 1), ("other", 1)]).await, [1, 1, 1]);
        publish_all(&server, "q/t", 0..10).await;
        take(&mut client, 0..10).await;
        leave(&server, client).await;
        publish_all(&server, "q/t", 10..600).await;
        assert_eq!(server.front.client("c").unwrap().queued, 0, "nothing waits in memory");
        if restarts {
            server = life(&ground).await;
        }
        let (mut client, present) = Client::connected_with(server.address, &keep(4)).await;
        assert!(present, "{restarts}");
        take(&mut client, 10..300).await;
        publish_all(&server, "q/t", 600..610).await;
        take(&mut client, 300..610).await;
        publish_all(&server, "q/t", 610..615).await;
        take(&mut client, 610..615).await;
        client.expect_quiet().await;
    }
}

#[tokio::test]
async fn what_was_in_flight_is_repeated_under_its_identifiers() {
    for restarts in [false, true] {
        let ground = PacedGround::default();
        let mut server = life(&ground).await;
        let (mut client, _) = Client::connected_with(server.address, &keep(4)).await;
        client.subscribe(4, &[("t", 1)]).await;
        publish_all(&server, "t", 0..5).await;
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(client.read_publish().await.2);
        }
        client.send(&[ack(0x40, ids[1]), ack(0x40, ids[3])].concat()).await;
        settle(&mut client).await;
        // No goodbye.
        drop(client);
        publish_all(&server, "t", 5..8).await;
        if restarts {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            server = life(&ground).await;
        }
        let (mut client, present) = Client::connected_with(server.address, &keep(4)).await;
        assert!(present);
        for n in [0, 2, 4] {
            let expected = (0xA, "t".to_owned(), ids[n], n.to_string().into_bytes());
            assert_eq!(client.read_publish().await, expected, "{restarts}");
            client.send(&ack(0x40, ids[n])).await;
        }
        for n in 5..8_u32 {
            let (flags, _, id, payload) = client.read_publish().await;
            assert_eq!((flags, payload), (2, n.to_string().into_bytes()));
            assert!(!ids.contains(&id), "{id} is another exchange");
            client.send(&ack(0x40, id)).await;
        }
        client.expect_quiet().await;
    }
}

#[tokio::test]
async fn who_publishes_for_the_absent_is_told_that_it_was_taken() {
    let ground = PacedGround::default();
    let server = life(&ground).await;
    let (mut client, _) = Client::connected_with(server.address, &keep(5)).await;
    client.subscribe(5, &[("t", 1)]).await;
    leave(&server, client).await;
    let mut publisher = Client::connected(server.address, 5, "p").await;
    publisher.send(&publish(5, 2, "t", 7, b"x")).await;
    publisher.expect(&ack(0x40, 7)).await;
    publisher.send(&publish(5, 2, &format!("{MEMORY}/t"), 8, b"x")).await;
    publisher.expect(&[0x40, 3, 0, 8, 0x10]).await;
    let receipt = server.broker.publish_wait(Publish::new(Channel::parse("t").unwrap(), "y")).await.unwrap();
    assert_eq!(receipt.receivers, 0, "the absent are in no list");
}

#[tokio::test]
async fn the_memory_waits_in_the_session_and_is_lost_with_the_process() {
    let ground = PacedGround::default();
    let server = life(&ground).await;
    let (mut client, _) = Client::connected_with(server.address, &keep(4)).await;
    client.subscribe(4, &[("#", 1)]).await;
    leave(&server, client).await;
    let memory = format!("{MEMORY}/t");
    let in_memory = |n: u32| {
        let message = Publish::new(Channel::parse(&memory).unwrap(), n.to_string()).qos(Qos::AtLeastOnce);
        server.broker.publish(message).unwrap()
    };
    for n in 0..3 {
        in_memory(n);
        publish_all(&server, "t", n..n + 1).await;
    }
    server.broker.handed_over().await;
    assert_eq!(server.front.client("c").unwrap().queued, 3, "of the memory's");
    let (mut client, _) = Client::connected_with(server.address, &keep(4)).await;
    let mut brought = Vec::new();
    for _ in 0..6 {
        let (_, topic, id, payload) = client.read_publish().await;
        brought.push((topic, String::from_utf8(payload).unwrap()));
        client.send(&ack(0x40, id)).await;
    }
    for topic in ["t", &memory] {
        let of_topic: Vec<_> = brought.iter().filter(|(name, _)| name == topic).map(|(_, n)| &**n).collect();
        assert_eq!(of_topic, ["0", "1", "2"], "{topic}");
    }
    settle(&mut client).await;
    leave(&server, client).await;
    in_memory(3);
    publish_all(&server, "t", 3..4).await;
    let server = life(&ground).await;
    let (mut client, present) = Client::connected_with(server.address, &keep(4)).await;
    assert!(present);
    take(&mut client, 3..4).await;
    client.expect_quiet().await;
    server.broker.publish(Publish::new(Channel::parse(&memory).unwrap(), "new")).unwrap();
    assert_eq!(client.read_publish().await.3, b"new", "the subscription is there again");
}

#[tokio::test]
async fn a_subscription_begins_where_it_was_made_also_while_others_catch_up() {
    let ground = PacedGround::default();
    let server = life(&ground).await;
    let (mut client, _) = Client::connected_with(server.address, &keep(4)).await;
    client.subscribe(4, &[("a", 1)]).await;
    leave(&server, client).await;
    publish_all(&server, "b", 0..10).await;
    publish_all(&server, "a", 0..200).await;
    let server = life(&ground).await;
    let (mut client, _) = Client::connected_with(server.address, &keep(4)).await;
    let mut ids: Vec<u16> = Vec::new();
    for n in 0..20_u32 {
        let (_, topic, id, payload) = client.read_publish().await;
        assert_eq!((&*topic, payload), ("a", n.to_string().into_bytes()));
        ids.push(id);
    }
    // As many as may be in flight are: nothing but the SUBACK can come.
    client.send(&subscribe(4, 100, &[("b", 1)])).await;
    let suback = loop {
        let raw = client.read().await;
        if raw.first != 0x32 {
            break raw;
        }
        let id = u16::from_be_bytes([raw.body[3], raw.body[4]]);
        ids.push(id);
    };
    assert_eq!((suback.first, suback.body), (0x90, vec![0, 100, 1]));
    publish_all(&server, "b", 10..12).await;
    for id in &ids {
        client.send(&ack(0x40, *id)).await;
    }
    let count = u32::try_from(ids.len()).unwrap();
    take(&mut client, count..200).await;
    take(&mut client, 10..12).await;
    client.expect_quiet().await;
    leave(&server, client).await;
    // What it ends stays ended.
    let server = life(&ground).await;
    let (mut client, _) = Client::connected_with(server.address, &keep(4)).await;
    client.send(&unsubscribe(4, 101, &["a"])).await;
    client.expect(&ack(0xB0, 101)).await;
    drop(client);
    let server = life(&ground).await;
    let (mut client, present) = Client::connected_with(server.address, &keep(4)).await;
    assert!(present);
    publish_all(&server, "a", 200..201).await;
    publish_all(&server, "b", 12..13).await;
    take(&mut client, 12..13).await;
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_session_that_was_ended_is_not_there_in_the_next_life() {
    let ground = PacedGround::default();
    let server = life(&ground).await;
    let (mut client, _) = Client::connected_with(server.address, &keep(4)).await;
    client.subscribe(4, &[("t", 1)]).await;
    leave(&server, client).await;
    let clean = Client::connected(server.address, 4, "c").await;
    drop(clean);
    publish_all(&server, "t", 0..3).await;
    let server = life(&ground).await;
    let (mut client, present) = Client::connected_with(server.address, &keep(4)).await;
    assert!(!present);
    client.expect_quiet().await;
}

/// One that takes the place of an online session is a new one, and kept like any other.
#[tokio::test]
async fn a_session_that_begins_over_another_one_is_kept() {
    let ground = PacedGround::default();
    let mut server = life(&ground).await;
    let clean = connect(5, "c", true, 0, &[0x11, 0, 0, 0, 100]);
    for (n, before) in [(0, clean.clone()), (10, connect(5, "c", true, 0, &[]))] {
        let (_old, _) = Client::connected_with(server.address, &before).await;
        let (mut client, present) = Client::connected_with(server.address, &clean).await;
        assert!(!present);
        client.subscribe(5, &[("t", 1)]).await;
        leave(&server, client).await;
        publish_all(&server, "t", n..n + 3).await;
        assert_eq!(server.front.client("c").unwrap().queued, 0, "nothing waits in memory");
        server = life(&ground).await;
        let (mut client, present) = Client::connected_with(server.address, &keep(4)).await;
        assert!(present);
        take(&mut client, n..n + 3).await;
    }
}

/// QoS 0 is not for the absent, and what expires does not come.
#[tokio::test]
async fn what_is_not_for_the_absent_is_passed_over() {
    let ground = PacedGround::default();
    let server = life(&ground).await;
    let (mut client, _) = Client::connected_with(server.address, &keep(4)).await;
    client.subscribe(4, &[("t", 1), ("once", 0)]).await;
    leave(&server, client).await;
    for (topic, qos) in [("t", Qos::AtMostOnce), ("once", Qos::AtLeastOnce), ("t", Qos::AtLeastOnce)] {
        let message = Publish::new(Channel::parse(topic).unwrap(), "0").qos(qos);
        server.broker.publish_wait(message).await.unwrap();
    }
    let (mut client, _) = Client::connected_with(server.address, &keep(4)).await;
    take(&mut client, 0..1).await;
    client.expect_quiet().await;
    let message = Publish::new(Channel::parse("once").unwrap(), "now");
    server.broker.publish_wait(message).await.unwrap();
    assert_eq!(client.read_publish().await.3, b"now");
}

/// Over an engine that delays, refuses and loses answers: clients come again until they are let in, and get all once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_whole_over_an_engine_that_does_its_worst() {
    for seed in [1, 2, 3] {
        let ground = Chaos::new(seed);
        let mut server = life(&ground).await;
        let mut sent = 0;
        let mut client = comes_in(&server, true).await;
        for round in 0..6 {
            publish_all(&server, "t", sent..sent + 40).await;
            take(&mut client, sent..sent + 40).await;
            settle(&mut client).await;
            sent += 40;
            leave(&server, client).await;
            publish_all(&server, "t", sent..sent + 40).await;
            if round % 2 == 1 {
                server = life(&ground).await;
            }
            client = comes_in(&server, false).await;
            take(&mut client, sent..sent + 40).await;
            sent += 40;
        }
    }
}

async fn comes_in(server: &Server, subscribes: bool) -> Client {
    comes_in_as(server, "c", subscribes.then_some(1)).await
}

/// Comes again until it is let in, and perhaps subscribed to `t` at this QoS.
pub(crate) async fn comes_in_as(server: &Server, name: &str, subscribes: Option<u8>) -> Client {
    for _ in 0..200 {
        let mut client = Client::open(server.address).await;
        client.send(&connect(4, name, false, 0, &[])).await;
        let Some(connack) = client.try_read(SOON).await else { continue };
        if connack.body[1] != 0 {
            continue;
        }
        let Some(qos) = subscribes else { return client };
        client.send(&subscribe(4, 1, &[("t", qos)])).await;
        if client.try_read(SOON).await.is_some_and(|suback| suback.first == 0x90 && suback.body[2] == qos) {
            return client;
        }
    }
    panic!("it is never let in");
}

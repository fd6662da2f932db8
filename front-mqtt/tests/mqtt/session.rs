//! Sessions that outlive their connection: queues, repeats, expiry.

use std::time::Duration;

use front_mqtt::Config;

use crate::client::*;
use crate::support::Server;

#[tokio::test]
async fn a_clean_session_leaves_nothing() {
    let server = Server::start().await;
    let mut client = Client::connected(server.address, 4, "c").await;
    client.subscribe(4, &[("t", 1)]).await;
    client.send(DISCONNECT).await;
    client.expect_closed().await;
    let (mut client, present) = Client::connected_with(server.address, &connect(4, "c", false, 0, &[])).await;
    assert!(!present);
    let mut publisher = Client::connected(server.address, 4, "p").await;
    publisher.send(&publish(4, 2, "t", 1, b"x")).await;
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_session_keeps_subscriptions_and_queues_in_order() {
    let server = Server::start().await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    for level in [4, 5] {
        // Session expiry of 100 s for version 5.
        let again = connect(level, "c", false, 0, &[0x11, 0, 0, 0, 100]);
        let (mut client, present) = Client::connected_with(server.address, &again).await;
        assert_eq!(present, level == 5, "the session passes from version to version");
        client.subscribe(level, &[("q/#", 2)]).await;
        client.send(DISCONNECT).await;
        client.expect_closed().await;
        for n in 0..20u8 {
            let id = u16::from(level) * 100 + u16::from(n);
            publisher.send(&publish(4, if n % 2 == 0 { 2 } else { 4 }, "q/t", id, &[n])).await;
            publisher.read().await;
            publisher.send(&publish(4, 0, "q/t", 0, b"not for the absent")).await;
        }
        let (mut client, present) = Client::connected_with(server.address, &again).await;
        assert!(present);
        let mut ids = Vec::new();
        for n in 0..20u8 {
            let raw = client.read().await;
            let first = if n % 2 == 0 { 0x32 } else { 0x34 };
            assert_eq!((raw.first, raw.body.last()), (first, Some(&n)));
            ids.push(u16::from_be_bytes([raw.body[5], raw.body[6]]));
        }
        for (n, id) in ids.into_iter().enumerate() {
            client.send(&ack(if n % 2 == 0 { 0x40 } else { 0x50 }, id)).await;
            if n % 2 == 1 {
                client.expect(&ack(0x62, id)).await;
                client.send(&ack(0x70, id)).await;
            }
        }
        client.expect_quiet().await;
    }
}

#[tokio::test]
async fn unfinished_exchanges_are_repeated_in_order_on_the_next_connection() {
    let server = Server::start().await;
    let keep = connect(4, "c", false, 0, &[]);
    let (mut client, _) = Client::connected_with(server.address, &keep).await;
    client.subscribe(4, &[("t", 2)]).await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    for (n, flags) in [(1u8, 2), (2, 4), (3, 4), (4, 2)] {
        publisher.send(&publish(4, flags, "t", u16::from(n), &[n])).await;
        publisher.read().await;
    }
    for n in 1..5u16 {
        assert_eq!(client.read_publish().await.2, n);
    }
    // The second gets as far as PUBREL, the fourth is done.
    client.send(&ack(0x50, 2)).await;
    client.expect(&ack(0x62, 2)).await;
    client.send(&ack(0x40, 4)).await;
    client.send(PING).await;
    client.expect(&[0xD0, 0]).await;
    client.expect_quiet().await;
    for _ in 0..2 {
        drop(client);
        client = Client::connected_with(server.address, &keep).await.0;
        assert_eq!(client.read_publish().await, (0xA, "t".into(), 1, vec![1]));
        client.expect(&ack(0x62, 2)).await;
        assert_eq!(client.read_publish().await, (0xC, "t".into(), 3, vec![3]));
        client.expect_quiet().await;
    }
    client.send(&[ack(0x40, 1), ack(0x70, 2), ack(0x50, 3)].concat()).await;
    client.expect(&ack(0x62, 3)).await;
    client.send(&ack(0x70, 3)).await;
    client.send(PING).await;
    client.expect(&[0xD0, 0]).await;
    drop(client);
    let (mut client, present) = Client::connected_with(server.address, &keep).await;
    assert!(present);
    client.expect_quiet().await;
}

#[tokio::test]
async fn an_incoming_qos_2_exchange_survives_a_reconnect() {
    let server = Server::start().await;
    let mut witness = Client::connected(server.address, 4, "w").await;
    witness.subscribe(4, &[("t", 0)]).await;
    let keep = connect(4, "c", false, 0, &[]);
    let (mut client, _) = Client::connected_with(server.address, &keep).await;
    client.send(&publish(4, 4, "t", 5, b"x")).await;
    client.expect(&ack(0x50, 5)).await;
    drop(client);
    let (mut client, _) = Client::connected_with(server.address, &keep).await;
    client.send(&publish(4, 0xC, "t", 5, b"x")).await;
    client.expect(&ack(0x50, 5)).await;
    client.send(&ack(0x62, 5)).await;
    client.expect(&ack(0x70, 5)).await;
    witness.read().await;
    witness.expect_quiet().await;
    // The identifier is free again.
    client.send(&publish(4, 4, "t", 5, b"y")).await;
    client.expect(&ack(0x50, 5)).await;
    witness.read().await;
}

#[tokio::test]
async fn a_full_queue_drops_the_newest_and_counts_it() {
    let mut config = Config::default();
    config.max_queued_messages = 3;
    let server = Server::with(config).await;
    let keep = connect(4, "c", false, 0, &[]);
    let (mut client, _) = Client::connected_with(server.address, &keep).await;
    client.subscribe(4, &[("t", 1)]).await;
    client.send(DISCONNECT).await;
    client.expect_closed().await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    for n in 0..5u8 {
        publisher.send(&publish(4, 2, "t", 1, &[n])).await;
        publisher.read().await;
    }
    server.broker.drained().await;
    assert_eq!(server.front.stats().messages_dropped, 2);
    let (mut client, _) = Client::connected_with(server.address, &keep).await;
    for n in 0..3u8 {
        assert_eq!(client.read_publish().await.3, [n]);
    }
    client.expect_quiet().await;
}

#[tokio::test]
async fn qos_0_waits_for_the_absent_only_if_asked_to() {
    let mut config = Config::default();
    config.queue_qos0_offline = true;
    let server = Server::with(config).await;
    let keep = connect(4, "c", false, 0, &[]);
    let (mut client, _) = Client::connected_with(server.address, &keep).await;
    client.subscribe(4, &[("t", 0)]).await;
    client.send(DISCONNECT).await;
    client.expect_closed().await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    publisher.send(&publish(4, 0, "t", 0, b"x")).await;
    publisher.send(PING).await;
    publisher.expect(&[0xD0, 0]).await;
    server.broker.drained().await;
    let (mut client, _) = Client::connected_with(server.address, &keep).await;
    assert_eq!(client.read_publish().await.3, b"x");
}

#[tokio::test]
async fn a_session_ends_when_its_time_is_over() {
    let server = Server::start().await;
    let for_one_second = connect(5, "c", false, 0, &[0x11, 0, 0, 0, 1]);
    let (mut client, present) = Client::connected_with(server.address, &for_one_second).await;
    assert!(!present);
    client.send(DISCONNECT).await;
    client.expect_closed().await;
    let (client, present) = Client::connected_with(server.address, &for_one_second).await;
    assert!(present);
    drop(client);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(server.front.stats().sessions, 0);
    let (_client, present) = Client::connected_with(server.address, &for_one_second).await;
    assert!(!present);
}

#[tokio::test]
async fn a_goodbye_may_change_the_session_expiry_but_not_from_nothing() {
    let server = Server::start().await;
    let long = connect(5, "c", false, 0, &[0x11, 0, 0, 0, 100]);
    let (mut client, _) = Client::connected_with(server.address, &long).await;
    client.send(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
    client.expect_closed().await;
    let (client, present) = Client::connected_with(server.address, &connect(5, "c", false, 0, &[])).await;
    assert!(!present);
    drop(client);
    let (mut client, _) = Client::connected_with(server.address, &connect(5, "c", false, 0, &[])).await;
    client.send(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 9]).await;
    assert_eq!(client.read().await.body[0], 0x82);
}

#[tokio::test]
async fn a_full_server_still_takes_its_own_sessions_back() {
    let mut config = Config::default();
    config.max_sessions = 1;
    let server = Server::with(config).await;
    let keep = connect(4, "c", false, 0, &[]);
    let (client, _) = Client::connected_with(server.address, &keep).await;
    drop(client);
    let mut other = Client::open(server.address).await;
    other.send(&connect(5, "other", true, 0, &[])).await;
    assert_eq!(other.read().await.body[1], 0x97);
    let (_client, present) = Client::connected_with(server.address, &keep).await;
    assert!(present);
}

/// The connection is cut again and again while messages flow both ways.
#[tokio::test]
async fn qos_2_survives_cuts_without_loss_or_repeat() {
    let server = Server::start().await;
    let keep = connect(4, "c", false, 0, &[]);
    let (mut client, _) = Client::connected_with(server.address, &keep).await;
    client.subscribe(4, &[("t", 2)]).await;
    let address = server.address;
    let sender = tokio::spawn(async move {
        let mut publisher = Client::connected(address, 4, "p").await;
        for n in 0..400u16 {
            publisher.send(&publish(4, 4, "t", n + 1, &n.to_be_bytes())).await;
            publisher.expect(&ack(0x50, n + 1)).await;
            publisher.send(&ack(0x62, n + 1)).await;
            publisher.expect(&ack(0x70, n + 1)).await;
        }
    });
    let (mut got, mut known) = (Vec::new(), std::collections::HashSet::new());
    let mut packets = 0;
    while got.len() < 400 || !known.is_empty() {
        packets += 1;
        // Every few packets the client vanishes, sometimes after it has answered.
        if packets % 7 == 0 {
            drop(client);
            client = Client::connected_with(address, &keep).await.0;
        }
        let raw = client.read().await;
        match raw.first >> 4 {
            3 => {
                let id = u16::from_be_bytes([raw.body[3], raw.body[4]]);
                if known.insert(id) {
                    got.push(u16::from_be_bytes([raw.body[5], raw.body[6]]));
                } else {
                    assert!(raw.first & 8 != 0, "only a repeat may come twice");
                }
                client.send(&ack(0x50, id)).await;
            }
            6 => {
                let id = u16::from_be_bytes([raw.body[0], raw.body[1]]);
                known.remove(&id);
                client.send(&ack(0x70, id)).await;
            }
            other => panic!("{other}"),
        }
    }
    sender.await.unwrap();
    assert_eq!(got, (0..400).collect::<Vec<u16>>());
}

#[tokio::test]
async fn exchanges_under_way_finish_after_unsubscribe() {
    let server = Server::start().await;
    let keep = connect(4, "c", false, 0, &[]);
    let (mut client, _) = Client::connected_with(server.address, &keep).await;
    client.subscribe(4, &[("t", 2)]).await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    for (n, flags) in [(1u8, 2), (2, 4)] {
        publisher.send(&publish(4, flags, "t", u16::from(n), &[n])).await;
        publisher.read().await;
        client.read_publish().await;
    }
    client.send(&unsubscribe(4, 9, &["t"])).await;
    client.expect(&ack(0xB0, 9)).await;
    drop(client);
    let (mut client, _) = Client::connected_with(server.address, &keep).await;
    assert_eq!(client.read_publish().await, (0xA, "t".into(), 1, vec![1]));
    assert_eq!(client.read_publish().await, (0xC, "t".into(), 2, vec![2]));
    client.send(&[ack(0x40, 1), ack(0x50, 2)].concat()).await;
    client.expect(&ack(0x62, 2)).await;
    client.send(&ack(0x70, 2)).await;
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_shared_qos_2_exchange_finishes_after_a_reconnect_of_its_member() {
    let server = Server::start().await;
    let keep = connect(4, "m1", false, 0, &[]);
    let (mut member, _) = Client::connected_with(server.address, &keep).await;
    member.subscribe(4, &[("$share/g/t", 2)]).await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    publisher.send(&publish(4, 4, "t", 1, b"x")).await;
    publisher.read().await;
    assert_eq!(member.read_publish().await.0, 4);
    drop(member);
    tokio::time::sleep(QUIET).await;
    let mut other = Client::connected(server.address, 4, "m2").await;
    other.subscribe(4, &[("$share/g/t", 2)]).await;
    other.expect_quiet().await;
    let (mut member, _) = Client::connected_with(server.address, &keep).await;
    assert_eq!(member.read_publish().await, (0xC, "t".into(), 1, b"x".to_vec()));
    member.send(&ack(0x50, 1)).await;
    member.expect(&ack(0x62, 1)).await;
    member.send(&ack(0x70, 1)).await;
    other.expect_quiet().await;
}

#[tokio::test]
async fn version_3_1_is_not_told_of_a_session_because_the_byte_is_reserved_there() {
    let server = Server::start().await;
    let again = packet(0x10, &[&string("MQIsdp"), &[3, 0, 0, 0], &string("old")]);
    for _ in 0..2 {
        let mut client = Client::open(server.address).await;
        client.send(&again).await;
        client.expect(&[0x20, 2, 0, 0]).await;
        client.send(DISCONNECT).await;
        client.expect_closed().await;
    }
    let (_, present) = Client::connected_with(server.address, &connect(4, "old", false, 0, &[])).await;
    assert!(present);
}

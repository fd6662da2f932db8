//! CONNECT, CONNACK, keep alive, takeover, DISCONNECT.

use std::time::{Duration, Instant};

use front_mqtt::Config;

use crate::client::*;
use crate::support::Server;

#[tokio::test]
async fn a_client_is_let_in_and_pings() {
    let server = Server::start().await;
    let mut client = Client::open(server.address).await;
    client.send(&connect(4, "a", true, 60, &[])).await;
    client.expect(&[0x20, 2, 0, 0]).await;
    client.send(PING).await;
    client.expect(&[0xD0, 0]).await;
    client.send(DISCONNECT).await;
    client.expect_closed().await;
}

#[tokio::test]
async fn version_3_1_is_spoken() {
    let server = Server::start().await;
    let mut client = Client::open(server.address).await;
    client.send(&packet(0x10, &[&string("MQIsdp"), &[3, 2, 0, 60], &string("old")])).await;
    client.expect(&[0x20, 2, 0, 0]).await;
}

#[tokio::test]
async fn bad_first_packets_are_answered_in_their_own_shape() {
    let server = Server::start().await;
    // What is sent, and what comes before the close.
    let cases: Vec<(Vec<u8>, Vec<u8>)> = vec![
        (packet(0x10, &[&string("MQTT"), &[9, 2, 0, 0], &string("a")]), vec![0x20, 2, 0, 1]),
        (packet(0x10, &[&string("MQTT"), &[3, 2, 0, 0], &string("a")]), vec![0x20, 2, 0, 1]),
        (packet(0x10, &[&string("HTTP"), &[4, 2, 0, 0], &string("a")]), vec![]),
        (packet(0x10, &[&string("MQTT"), &[4, 0, 0, 0], &string("")]), vec![0x20, 2, 0, 2]),
        (packet(0x10, &[&string("MQTT"), &[4, 3, 0, 0], &string("a")]), vec![]),
        (PING.to_vec(), vec![]),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![]),
        (vec![0x10, 0xFF, 0xFF, 0xFF, 0xFF], vec![]),
        (vec![0; 64], vec![]),
    ];
    for (sent, expected) in cases {
        let mut client = Client::open(server.address).await;
        client.send(&sent).await;
        if !expected.is_empty() {
            client.expect(&expected).await;
        }
        client.expect_closed().await;
    }
}

#[tokio::test]
async fn a_level_nobody_speaks_is_answered_as_version_3_is_unless_its_body_is_version_5s() {
    let server = Server::start().await;
    let of_3 = string("a");
    let of_5 = [&[0][..], &string("a")].concat();
    for name in ["MQTT", "MQIsdp"] {
        for level in (0..=0xFF).filter(|level| ![3, 4, 5].contains(&(level & 0x7F))) {
            let mut client = Client::open(server.address).await;
            client.send(&packet(0x10, &[&string(name), &[level, 2, 0, 0], &of_3])).await;
            client.expect(&[0x20, 2, 0, 1]).await;
            client.expect_closed().await;
        }
    }
    for level in [6, 0x7F] {
        let mut client = Client::open(server.address).await;
        client.send(&packet(0x10, &[&string("MQTT"), &[level, 2, 0, 0], &of_5])).await;
        let connack = client.read().await;
        assert_eq!((connack.first, connack.body[1]), (0x20, 0x84), "{connack:x?}");
        client.expect_closed().await;
    }
    for (name, level) in [("MQTT", 2), ("MQTT", 0x86), ("MQIsdp", 6)] {
        let mut client = Client::open(server.address).await;
        client.send(&packet(0x10, &[&string(name), &[level, 2, 0, 0], &of_5])).await;
        client.expect(&[0x20, 2, 0, 1]).await;
    }
}

#[tokio::test]
async fn an_empty_client_id_gets_a_clean_session() {
    let server = Server::start().await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Client::connected(server.address, 4, "").await);
    }
    assert_eq!(server.front.stats().sessions, 3);
}

#[tokio::test]
async fn a_second_connect_ends_the_connection() {
    let server = Server::start().await;
    let mut client = Client::connected(server.address, 4, "a").await;
    client.send(&connect(4, "a", true, 0, &[])).await;
    client.expect_closed().await;
    let mut client = Client::connected(server.address, 5, "a").await;
    client.send(&connect(5, "a", true, 0, &[])).await;
    let disconnect = client.read().await;
    assert_eq!((disconnect.first, disconnect.body[0]), (0xE0, 0x82));
}

#[tokio::test]
async fn packets_sent_right_behind_connect_are_handled() {
    let server = Server::start().await;
    let mut client = Client::open(server.address).await;
    let all = [
        connect(4, "a", true, 0, &[]),
        subscribe(4, 7, &[("t", 0)]),
        publish(4, 0, "t", 0, b"x"),
        PING.to_vec(),
    ];
    client.send(&all.concat()).await;
    client.expect(&[0x20, 2, 0, 0]).await;
    client.expect(&[0x90, 3, 0, 7, 0]).await;
    let (mut got, mut ponged) = (false, false);
    for _ in 0..2 {
        match client.read().await.first {
            0x30 => got = true,
            0xD0 => ponged = true,
            other => panic!("{other:x}"),
        }
    }
    assert!(got && ponged);
}

#[tokio::test]
async fn packets_may_come_byte_by_byte() {
    let server = Server::start().await;
    let mut client = Client::open(server.address).await;
    for byte in connect(4, "a", true, 0, &[]) {
        client.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    client.expect(&[0x20, 2, 0, 0]).await;
}

#[tokio::test]
async fn a_newer_connection_takes_the_client_id_over() {
    let server = Server::start().await;
    for (old, new) in [(4, 4), (5, 4), (4, 5), (5, 5)] {
        let mut first = Client::connected(server.address, old, "same").await;
        let mut second = Client::connected(server.address, new, "same").await;
        if old == 5 {
            first.expect(&[0xE0, 1, 0x8E]).await;
        }
        first.expect_closed().await;
        second.send(PING).await;
        second.expect(&[0xD0, 0]).await;
        assert_eq!(server.front.stats().sessions, 1);
    }
}

#[tokio::test]
async fn many_takeovers_at_once_leave_one() {
    let server = Server::start().await;
    let mut tasks = Vec::new();
    for _ in 0..40 {
        let address = server.address;
        tasks.push(tokio::spawn(async move {
            let mut client = Client::open(address).await;
            client.send(&connect(4, "same", false, 0, &[])).await;
            _ = client.try_read(SOON).await;
            client
        }));
    }
    let mut clients = Vec::new();
    for task in tasks {
        clients.push(task.await.unwrap());
    }
    let mut alive = 0;
    for client in &mut clients {
        use tokio::io::AsyncWriteExt;
        _ = client.stream.write_all(PING).await;
        alive += usize::from(client.try_read(SOON).await.is_some_and(|raw| raw.first == 0xD0));
    }
    assert_eq!(alive, 1);
    assert_eq!(server.front.stats().sessions, 1);
}

#[tokio::test]
async fn silence_for_one_and_a_half_keep_alives_ends_the_connection() {
    let server = Server::start().await;
    for level in [4, 5] {
        let (mut client, _) =
            Client::connected_with(server.address, &connect(level, "k", true, 1, &[])).await;
        let mut other = Client::connected(server.address, 4, "o").await;
        client.subscribe(level, &[("t", 0)]).await;
        let since = Instant::now();
        // Deliveries to the client are no sign of its life.
        for _ in 0..4 {
            other.send(&publish(4, 0, "t", 0, b"x")).await;
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        for _ in 0..4 {
            assert_eq!(client.read().await.first, 0x30);
        }
        if level == 5 {
            let disconnect = client.read().await;
            assert_eq!((disconnect.first, disconnect.body[0]), (0xE0, 0x8D));
        }
        client.expect_closed().await;
        let after = since.elapsed();
        assert!(after > Duration::from_millis(1400) && after < Duration::from_millis(2500), "{after:?}");
    }
}

#[tokio::test]
async fn any_packet_is_a_sign_of_life() {
    let server = Server::start().await;
    let (mut client, _) = Client::connected_with(server.address, &connect(4, "k", true, 1, &[])).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        client.send(&publish(4, 0, "t", 0, b"x")).await;
    }
    client.send(PING).await;
    client.expect(&[0xD0, 0]).await;
}

#[tokio::test]
async fn no_connect_in_time_closes() {
    let mut config = Config::default();
    config.handshake_timeout = Duration::from_millis(300);
    let server = Server::with(config).await;
    let mut client = Client::open(server.address).await;
    client.send(&[0x10]).await;
    client.expect_closed().await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let mut config = Config::default();
    config.max_connections = 1;
    let server = Server::with(config).await;
    let first = Client::connected(server.address, 4, "a").await;
    for (level, code) in [(4, 3), (5, 0x97)] {
        let mut client = Client::open(server.address).await;
        client.send(&connect(level, "b", true, 0, &[])).await;
        let connack = client.read().await;
        assert_eq!((connack.first, connack.body[1]), (0x20, code));
        client.expect_closed().await;
    }
    drop(first);
    tokio::time::sleep(QUIET).await;
    Client::connected(server.address, 4, "c").await;
}

#[tokio::test]
async fn one_address_has_its_own_bound() {
    let mut config = Config::default();
    config.max_connections_per_address = Some(2);
    let server = Server::with(config).await;
    let first = Client::connected(server.address, 4, "a").await;
    let _second = Client::connected(server.address, 4, "b").await;
    let mut third = Client::open(server.address).await;
    third.send(&connect(5, "c", true, 0, &[])).await;
    assert_eq!(third.read().await.body[1], 0x97);
    drop(first);
    tokio::time::sleep(QUIET).await;
    Client::connected(server.address, 4, "c").await;
}

#[tokio::test]
async fn shutdown_tells_everybody_and_waits() {
    let server = Server::start().await;
    let mut old = Client::connected(server.address, 4, "a").await;
    let mut new = Client::connected(server.address, 5, "b").await;
    let front = server.front.clone();
    let down = tokio::spawn(async move { front.shutdown(Duration::from_secs(5)).await });
    new.expect(&[0xE0, 1, 0x8B]).await;
    new.expect_closed().await;
    old.expect_closed().await;
    drop((old, new));
    tokio::time::timeout(SOON, down).await.unwrap().unwrap();
    assert_eq!(server.front.stats().connections, 0);
    let mut late = Client::open(server.address).await;
    late.send(&connect(5, "late", true, 0, &[])).await;
    assert_eq!(late.read().await.body[1], 0x8B);
}

#[tokio::test]
async fn client_identifiers_may_be_long_and_unusual() {
    let server = Server::start().await;
    let longest = "x".repeat(65_535);
    for level in [4, 5] {
        for id in ["a", "0123456789abcdefghijABC", "é/+#$ \u{1F4A1}", "\u{1}", &longest] {
            let (mut client, present) =
                Client::connected_with(server.address, &connect(level, id, true, 0, &[])).await;
            assert!(!present);
            client.send(PING).await;
            client.expect(&[0xD0, 0]).await;
            assert!(server.front.client(id).is_some());
        }
    }
}

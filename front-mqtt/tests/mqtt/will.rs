//! Wills: when they are published, when not, and when later.

use std::time::{Duration, Instant};

use crate::client::*;
use crate::support::Server;

/// CONNECT with a will to `w/<id>`; version 5 with a session expiry and a will delay, in seconds.
pub(crate) fn with_will(level: u8, id: &str, clean: bool, keep_alive: u16, expiry: u8, delay: u8) -> Vec<u8> {
    let flags = 0x04 | if clean { 2 } else { 0 };
    let head = [string("MQTT"), vec![level, flags], keep_alive.to_be_bytes().to_vec()].concat();
    let (properties, will) = if level == 5 {
        (vec![5, 0x11, 0, 0, 0, expiry], vec![5, 0x18, 0, 0, 0, delay])
    } else {
        (Vec::new(), Vec::new())
    };
    packet(0x10, &[&head, &properties, &string(id), &will, &string(&format!("w/{id}")), &binary(b"gone")])
}

async fn witness(server: &Server) -> Client {
    let mut witness = Client::connected(server.address, 4, "witness").await;
    witness.subscribe(4, &[("w/#", 1)]).await;
    witness
}

#[tokio::test]
async fn a_lost_connection_publishes_the_will_and_a_goodbye_does_not() {
    let server = Server::start().await;
    let mut witness = witness(&server).await;
    for level in [4, 5] {
        let (mut client, _) =
            Client::connected_with(server.address, &with_will(level, "bye", true, 0, 0, 0)).await;
        client.send(DISCONNECT).await;
        client.expect_closed().await;
        witness.expect_quiet().await;
        let (client, _) =
            Client::connected_with(server.address, &with_will(level, "lost", true, 0, 0, 0)).await;
        drop(client);
        assert_eq!(witness.read_publish().await, (0, "w/lost".into(), 0, b"gone".to_vec()));
        let (mut client, _) =
            Client::connected_with(server.address, &with_will(level, "bad", true, 0, 0, 0)).await;
        client.send(&[0x00, 0x00]).await;
        assert_eq!(witness.read_publish().await.1, "w/bad");
        let (_silent, _) =
            Client::connected_with(server.address, &with_will(level, "silent", true, 1, 0, 0)).await;
        assert_eq!(witness.read_publish().await.1, "w/silent");
        let (_old, _) =
            Client::connected_with(server.address, &with_will(level, "taken", true, 0, 0, 0)).await;
        let _new = Client::connected(server.address, level, "taken").await;
        assert_eq!(witness.read_publish().await.1, "w/taken");
    }
    let (mut client, _) = Client::connected_with(server.address, &with_will(5, "asked", true, 0, 0, 0)).await;
    client.send(&[0xE0, 1, 4]).await;
    assert_eq!(witness.read_publish().await.1, "w/asked");
}

#[tokio::test]
async fn a_delayed_will_waits_for_the_lesser_of_delay_and_session() {
    let server = Server::start().await;
    let mut witness = witness(&server).await;
    for (id, expiry, delay, waits) in
        [("none", 0, 9, 0), ("delay", 9, 1, 1), ("session", 1, 9, 1), ("at-once", 9, 0, 0)]
    {
        let (client, _) =
            Client::connected_with(server.address, &with_will(5, id, true, 0, expiry, delay)).await;
        let since = Instant::now();
        drop(client);
        assert_eq!(witness.read_publish().await.1, format!("w/{id}"));
        let after = since.elapsed();
        let expected = Duration::from_secs(waits);
        assert!(after >= expected && after < expected + Duration::from_millis(700), "{id}: {after:?}");
    }
}

#[tokio::test]
async fn resuming_cancels_a_delayed_will_and_starting_clean_publishes_it() {
    let server = Server::start().await;
    let mut witness = witness(&server).await;
    let (client, _) = Client::connected_with(server.address, &with_will(5, "c", false, 0, 60, 1)).await;
    drop(client);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (client, present) =
        Client::connected_with(server.address, &with_will(5, "c", false, 0, 60, 60)).await;
    assert!(present);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    witness.expect_quiet().await;
    drop(client);
    tokio::time::sleep(QUIET).await;
    let (_client, present) = Client::connected_with(server.address, &connect(5, "c", true, 0, &[])).await;
    assert!(!present);
    assert_eq!(witness.read_publish().await.1, "w/c");
    witness.expect_quiet().await;
}

#[tokio::test]
async fn a_will_can_be_retained() {
    let server = Server::start().await;
    let head = [string("MQTT"), vec![4, 0x2E, 0, 0]].concat();
    let connect = packet(0x10, &[&head, &string("c"), &string("w/kept"), &binary(b"gone")]);
    let (client, _) = Client::connected_with(server.address, &connect).await;
    drop(client);
    tokio::time::sleep(QUIET).await;
    let mut witness = witness(&server).await;
    assert_eq!(witness.read_publish().await, (3, "w/kept".into(), 1, b"gone".to_vec()));
}

#[tokio::test]
async fn a_will_needs_the_right_to_publish() {
    use broker_core::{Action, Anonymous, Filter, Principal, Rights, Rule};
    let rights = Rights::all().deny(Rule::new([Action::Publish], Filter::parse("w/#").unwrap()));
    let rights = std::sync::Arc::new(Anonymous(Principal::anonymous(rights)));
    let server = Server::with_rights(front_mqtt::Config::default(), rights).await;
    for (level, code) in [(4, 5), (5, 0x87)] {
        let mut client = Client::open(server.address).await;
        client.send(&with_will(level, "c", true, 0, 0, 0)).await;
        assert_eq!(client.read().await.body[1], code);
        client.expect_closed().await;
    }
}

#[tokio::test]
async fn shutdown_publishes_no_wills() {
    let server = Server::start().await;
    let mut inside = server.broker.subscribe(broker_core::Filter::parse("w/#").unwrap()).unwrap();
    let (mut client, _) = Client::connected_with(server.address, &with_will(4, "c", true, 0, 0, 0)).await;
    let front = server.front.clone();
    let down = tokio::spawn(async move { front.shutdown(SOON).await });
    client.expect_closed().await;
    drop(client);
    down.await.unwrap();
    assert!(tokio::time::timeout(QUIET, inside.message()).await.is_err());
}

#[tokio::test]
async fn a_goodbye_counts_however_soon_the_client_is_back() {
    let server = Server::start().await;
    let mut witness = witness(&server).await;
    witness.subscribe(4, &[("last", 0)]).await;
    for round in 0..50u8 {
        let level = 4 + round % 2;
        let connect = with_will(level, "quick", false, 0, 100, 0);
        let (mut client, _) = Client::connected_with(server.address, &connect).await;
        // The last word is published, and the goodbye heard, before the next connection has the session.
        client.send(&[&publish(level, 0, "last", 0, &[round])[..], DISCONNECT].concat()).await;
        let (mut again, _) = Client::connected_with(server.address, &connect).await;
        again.send(DISCONNECT).await;
        again.expect_closed().await;
        assert_eq!(witness.read_publish().await, (0, "last".into(), 0, vec![round]));
        drop(client);
    }
    witness.expect_quiet().await;
}

#[tokio::test]
async fn a_will_that_could_not_be_published_is_refused() {
    let mut config = broker_core::Config::default();
    config.max_message_bytes = 3;
    let broker = broker_core::Broker::new(config);
    let server = Server::on(broker, Default::default(), std::sync::Arc::new(broker_core::AllowAll)).await;
    for (level, answer) in [(4, vec![0x20, 2, 0, 5]), (5, vec![0x20])] {
        let mut client = Client::open(server.address).await;
        client.send(&with_will(level, "big", true, 0, 0, 0)).await;
        let connack = client.read().await;
        assert_eq!(connack.first, answer[0]);
        assert_eq!(connack.body[1], if level == 4 { 5 } else { 0x95 });
        client.expect_closed().await;
    }
}

#[tokio::test]
async fn a_will_carries_its_properties_in_order() {
    let server = Server::start().await;
    let mut witness = Client::connected(server.address, 5, "witness").await;
    witness.subscribe(5, &[("w", 0)]).await;
    let pair = |name: &str, value: &str| [vec![38], string(name), string(value)].concat();
    let users = [pair("k", "2"), pair("k", "1"), pair("a", "")].concat();
    let properties = [vec![24, 0, 0, 0, 0, 1, 1], vec![3], string("text/plain"), users.clone()].concat();
    let head = [string("MQTT"), vec![5, 0x06, 0, 0, 0], string("dying")].concat();
    let will = [vec![properties.len() as u8], properties, string("w"), binary(b"gone")].concat();
    let (client, _) = Client::connected_with(server.address, &packet(0x10, &[&head, &will])).await;
    drop(client);
    let raw = witness.read().await;
    let expected = [vec![1, 1, 3], string("text/plain"), users].concat();
    let body = [string("w"), vec![expected.len() as u8], expected, b"gone".to_vec()].concat();
    assert_eq!((raw.first, raw.body), (0x30, body));
}

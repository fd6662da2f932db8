//! SUBSCRIBE, UNSUBSCRIBE, filters, rights, shared subscriptions.

use std::sync::Arc;

use broker_core::{Action, Anonymous, Filter, Principal, Rights, Rule};
use front_mqtt::{Config, Denied, DeniedSubscribe};

use crate::client::*;
use crate::support::Server;

#[tokio::test]
async fn filters_match_as_the_standard_says() {
    let server = Server::start().await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    for (filter, topic, matches) in [
        ("a/#", "a", true),
        ("a/#", "a/b/c", true),
        ("a/+", "a", false),
        ("a/+", "a/", true),
        ("+/+", "/", true),
        ("+", "/a", false),
        ("/+", "/a", true),
        ("#", "a/b", true),
        ("#", "$x/b", false),
        ("+/b", "$x/b", false),
        ("$x/#", "$x/b", true),
        ("a", "A", false),
        ("a//c", "a//c", true),
        ("a/+/c", "a//c", true),
        ("sport/tennis/+", "sport/tennis/p/r", false),
        ("*", "*", true),
        ("*", "a", false),
        ("**", "a", false),
        ("ü/+", "ü/é", true),
    ] {
        let mut client = Client::connected(server.address, 4, "c").await;
        assert_eq!(client.subscribe(4, &[(filter, 0), ("end", 0)]).await, [0, 0], "{filter}");
        publisher.send(&publish(4, 0, topic, 0, b"x")).await;
        publisher.send(&publish(4, 0, "end", 0, b"x")).await;
        let mut got = client.read_publish().await.1;
        assert_eq!(got, if matches { topic } else { "end" }, "{filter} {topic}");
        while got != "end" {
            got = client.read_publish().await.1;
        }
    }
}

#[tokio::test]
async fn each_filter_has_its_code() {
    let server = Server::start().await;
    for (level, invalid) in [(4, 0x80), (5, 0x8F)] {
        let mut client = Client::connected(server.address, level, "c").await;
        let asked = [
            ("a", 0),
            ("b", 1),
            ("c", 2),
            ("a/#/b", 0),
            ("a#", 0),
            ("a+", 0),
            ("", 0),
            ("$share/g/", 0),
            ("$share//a", 0),
            ("$share/g", 0),
            ("$share/g+/a", 0),
            ("$share/g/a", 1),
        ];
        let codes = client.subscribe(level, &asked).await;
        let i = invalid;
        assert_eq!(codes, [0, 1, 2, i, i, i, i, i, i, i, i, 1]);
    }
}

#[tokio::test]
async fn overlapping_filters_bring_one_copy_at_the_highest_qos() {
    let server = Server::start().await;
    let mut client = Client::connected(server.address, 4, "c").await;
    client.subscribe(4, &[("a/#", 0), ("a/b", 2), ("a/+", 1)]).await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    publisher.send(&publish(4, 4, "a/b", 1, b"x")).await;
    assert_eq!(client.read_publish().await.0, 4);
    client.expect_quiet().await;
}

#[tokio::test]
async fn unsubscribing_ends_deliveries_and_is_always_acknowledged() {
    let server = Server::start().await;
    let mut client = Client::connected(server.address, 4, "c").await;
    client.subscribe(4, &[("a", 0), ("b", 0)]).await;
    client.send(&unsubscribe(4, 7, &["a", "never", "+"])).await;
    client.expect(&[0xB0, 2, 0, 7]).await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    publisher.send(&[publish(4, 0, "a", 0, b"x"), publish(4, 0, "b", 0, b"x")].concat()).await;
    assert_eq!(client.read_publish().await.1, "b");
    let mut client = Client::connected(server.address, 5, "c").await;
    client.subscribe(5, &[("a", 0)]).await;
    client.send(&unsubscribe(5, 7, &["a", "never", "a/#/b"])).await;
    client.expect(&[0xB0, 6, 0, 7, 0, 0x00, 0x11, 0x8F]).await;
}

#[tokio::test]
async fn subscribing_again_changes_the_qos() {
    let server = Server::start().await;
    let mut client = Client::connected(server.address, 4, "c").await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    for qos in [2, 0, 1] {
        assert_eq!(client.subscribe(4, &[("a", qos)]).await, [qos]);
        publisher.send(&publish(4, 4, "a", 1 + u16::from(qos), b"x")).await;
        assert_eq!(client.read_publish().await.0 >> 1, qos);
        client.expect_quiet().await;
    }
}

fn rights() -> Arc<Anonymous> {
    let filter = |text: &str| Filter::parse(text).unwrap();
    Arc::new(Anonymous(Principal::anonymous(
        Rights::all()
            .deny(Rule::new([Action::Subscribe], filter("secret/#")))
            .deny(Rule::new([Action::Publish], filter("read-only/#"))),
    )))
}

#[tokio::test]
async fn rights_hold_at_subscribe_and_at_each_delivery() {
    let server = Server::with_rights(Config::default(), rights()).await;
    for (level, denied) in [(4, 0x80), (5, 0x87)] {
        let mut client = Client::connected(server.address, level, "c").await;
        assert_eq!(client.subscribe(level, &[("secret/a", 1), ("#", 1)]).await, [denied, 1]);
        let mut publisher = Client::connected(server.address, 4, "p").await;
        publisher.send(&[publish(4, 0, "secret/a", 0, b"x"), publish(4, 0, "open", 0, b"x")].concat()).await;
        let raw = client.read().await;
        assert_eq!(&raw.body[2..6], b"open");
        client.expect_quiet().await;
    }
}

#[tokio::test]
async fn a_denied_subscription_may_be_left_unexplained() {
    let mut config = Config::default();
    config.denied_subscribe = DeniedSubscribe::Unspecified;
    let server = Server::with_rights(config, rights()).await;
    let mut client = Client::connected(server.address, 5, "c").await;
    assert_eq!(client.subscribe(5, &[("secret/a", 1)]).await, [0x80]);
}

#[tokio::test]
async fn a_publish_without_the_right_to_it_reaches_nobody() {
    let server = Server::with_rights(Config::default(), rights()).await;
    let mut witness = Client::connected(server.address, 4, "w").await;
    witness.subscribe(4, &[("#", 0)]).await;
    let mut client = Client::connected(server.address, 5, "c").await;
    client.send(&publish(5, 0, "read-only/a", 0, b"x")).await;
    client.send(&publish(5, 2, "read-only/a", 1, b"x")).await;
    assert_eq!(client.read().await.body[..3], [0, 1, 0x87]);
    client.send(&publish(5, 4, "read-only/a", 2, b"x")).await;
    assert_eq!(client.read().await.body[..3], [0, 2, 0x87]);
    let mut client = Client::connected(server.address, 4, "c").await;
    client.send(&publish(4, 4, "read-only/a", 2, b"x")).await;
    client.expect(&ack(0x50, 2)).await;
    client.send(&ack(0x62, 2)).await;
    client.expect(&ack(0x70, 2)).await;
    witness.expect_quiet().await;

    let mut config = Config::default();
    config.denied_publish = Denied::Disconnect;
    let server = Server::with_rights(config, rights()).await;
    let mut client = Client::connected(server.address, 5, "c").await;
    client.send(&publish(5, 0, "read-only/a", 0, b"x")).await;
    assert_eq!(client.read().await.body[0], 0x87);
    client.expect_closed().await;
}

#[tokio::test]
async fn a_shared_subscription_gives_each_message_to_one_member() {
    let server = Server::start().await;
    let mut members = Vec::new();
    for (id, level) in [("m1", 4), ("m2", 5)] {
        let mut member = Client::connected(server.address, level, id).await;
        assert_eq!(member.subscribe(level, &[("$share/g/t/+", 1)]).await, [1]);
        members.push(member);
    }
    let mut other = Client::connected(server.address, 4, "o").await;
    other.subscribe(4, &[("$share/h/t/+", 0)]).await;
    let mut both = Client::connected(server.address, 4, "b").await;
    both.subscribe(4, &[("$share/i/t/+", 0), ("t/+", 0)]).await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    for n in 0..20u8 {
        publisher.send(&publish(4, 0, "t/x", 0, &[n])).await;
    }
    for n in 0..20u8 {
        assert_eq!(other.read_publish().await.3, [n]);
        assert_eq!(both.read_publish().await.3, [n]);
        assert_eq!(both.read_publish().await.3, [n]);
    }
    let mut got = Vec::new();
    for member in &mut members {
        while let Some(raw) = member.try_read(QUIET).await {
            got.push(*raw.body.last().unwrap());
        }
    }
    got.sort_unstable();
    assert_eq!(got, (0..20).collect::<Vec<u8>>());
}

#[tokio::test]
async fn what_a_member_leaves_unacknowledged_goes_to_another_when_its_session_ends() {
    let server = Server::start().await;
    let mut first = Client::connected(server.address, 4, "m1").await;
    first.subscribe(4, &[("$share/g/t", 1)]).await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    for n in 0..5u8 {
        publisher.send(&publish(4, 2, "t", 1, &[n])).await;
        publisher.read().await;
    }
    let (.., id, _) = first.read_publish().await;
    first.send(&ack(0x40, id)).await;
    let mut second = Client::connected(server.address, 4, "m2").await;
    second.subscribe(4, &[("$share/g/t", 1)]).await;
    tokio::time::sleep(QUIET).await;
    drop(first);
    for n in 1..5u8 {
        let (_, _, id, payload) = second.read_publish().await;
        assert_eq!(payload, [n]);
        second.send(&ack(0x40, id)).await;
    }
}

#[tokio::test]
async fn an_offline_member_is_passed_over() {
    let server = Server::start().await;
    let (mut away, _) = Client::connected_with(server.address, &connect(4, "away", false, 0, &[])).await;
    away.subscribe(4, &[("$share/g/t", 1)]).await;
    away.send(DISCONNECT).await;
    away.expect_closed().await;
    tokio::time::sleep(QUIET).await;
    let mut here = Client::connected(server.address, 4, "here").await;
    here.subscribe(4, &[("$share/g/t", 1)]).await;
    let mut publisher = Client::connected(server.address, 4, "p").await;
    for n in 0..10u8 {
        publisher.send(&publish(4, 2, "t", 1, &[n])).await;
        publisher.read().await;
        let (_, _, id, payload) = here.read_publish().await;
        assert_eq!(payload, [n]);
        here.send(&ack(0x40, id)).await;
    }
}

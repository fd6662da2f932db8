//! Characters that a topic should not hold, because there are clients that close their connection over them.

use std::sync::Arc;

use broker_core::{AllowAll, Broker, ChannelCharacters, Filter};
use front_mqtt::Config;

use crate::client::*;
use crate::support::Server;

const UNWISE: [&str; 6] = ["a/\u{1}", "a\n", "\u{7f}", "a/\u{85}/b", "\u{fdd0}", "a\u{1ffff}"];

#[tokio::test]
async fn control_characters_and_non_characters_are_refused_in_topics() {
    let server = Server::start().await;
    for topic in UNWISE {
        let mut old = Client::connected(server.address, 4, "old").await;
        let mut new = Client::connected(server.address, 5, "new").await;
        let mut heard = server.broker.subscribe(Filter::parse("#").unwrap()).unwrap();
        old.subscribe(4, &[("#", 1)]).await;
        new.send(&publish(5, 2, topic, 1, b"x")).await;
        new.expect(&[0x40, 3, 0, 1, 0x90]).await;
        new.send(&publish(5, 4, topic, 2, b"x")).await;
        new.expect(&[0x50, 3, 0, 2, 0x90]).await;
        new.send(&publish(5, 0, topic, 0, b"x")).await;
        old.send(&publish(4, 3, topic, 1, b"x")).await;
        old.expect(&ack(0x40, 1)).await;
        // The connections live, and the next good message is the first that anybody hears.
        new.send(&publish(5, 2, "good", 3, b"x")).await;
        new.expect(&ack(0x40, 3)).await;
        assert_eq!(old.read_publish().await.1, "good");
        assert_eq!(heard.message().await.unwrap().channel().as_str(), "good");
    }
    assert_eq!(server.broker.stats().refused, 4 * UNWISE.len() as u64);
    assert!(server.broker.retained_matching(&Filter::parse("#").unwrap()).is_empty());
}

/// CONNECT with a will.
fn with_will(level: u8, topic: &str) -> Vec<u8> {
    let none: &[u8] = if level == 5 { &[0] } else { &[] };
    let head = [&string("MQTT")[..], &[level, 6, 0, 0]].concat();
    packet(0x10, &[&head, none, &string("w"), none, &string(topic), &binary(b"gone")])
}

#[tokio::test]
async fn a_will_may_not_hold_them_either() {
    let server = Server::start().await;
    for topic in UNWISE {
        let mut new = Client::open(server.address).await;
        new.send(&with_will(5, topic)).await;
        assert_eq!(new.read().await.body[1], 0x90);
        new.expect_closed().await;
        let mut old = Client::open(server.address).await;
        old.send(&with_will(4, topic)).await;
        old.expect_closed().await;
    }
}

#[tokio::test]
async fn any_topic_is_let_through_where_that_is_wanted() {
    let mut core = broker_core::Config::default();
    core.channel_characters = ChannelCharacters::Any;
    let server = Server::on(Broker::new(core), Config::default(), Arc::new(AllowAll)).await;
    let mut client = Client::connected(server.address, 4, "c").await;
    client.subscribe(4, &[("#", 0)]).await;
    for topic in UNWISE {
        client.send(&publish(4, 0, topic, 0, b"x")).await;
        assert_eq!(client.read_publish().await.1, topic);
        let (mut will, _) = Client::connected_with(server.address, &with_will(4, topic)).await;
        will.send(PING).await;
        will.expect(&[0xD0, 0]).await;
        drop(will);
        assert_eq!(client.read_publish().await.3, b"gone");
    }
}

#[tokio::test]
async fn a_filter_with_them_is_a_filter() {
    let server = Server::start().await;
    let mut client = Client::connected(server.address, 4, "c").await;
    for filter in UNWISE {
        assert_eq!(client.subscribe(4, &[(filter, 1)]).await, [1]);
    }
}

#[tokio::test]
async fn a_message_to_one_client_may_not_hold_them() {
    let server = Server::start().await;
    let _client = Client::connected(server.address, 4, "c").await;
    let (key, _) = server.broker.connections(None, 1).pop().unwrap();
    for topic in UNWISE {
        let channel = broker_core::Channel::parse(topic).unwrap();
        let sent = server.broker.send_to(key, broker_core::Publish::new(channel, "x")).await;
        assert_eq!(sent, Err(broker_core::SendError::Inexpressible));
    }
}

#[tokio::test]
async fn properties_with_them_are_left_out_of_what_mqtt_clients_get() {
    for characters in [ChannelCharacters::Strict, ChannelCharacters::Any] {
        let mut core = broker_core::Config::default();
        core.channel_characters = characters;
        let server = Server::on(Broker::new(core), Config::default(), Arc::new(AllowAll)).await;
        let mut client = Client::connected(server.address, 5, "c").await;
        client.subscribe(5, &[("t", 1)]).await;
        let mut heard = server.broker.subscribe(Filter::parse("t").unwrap()).unwrap();
        for (unwise, plain) in [("a\u{1}", "a"), ("\u{fffe}", "\u{fffd}"), ("two\nlines", "one line")] {
            let good = [&[0x26][..], &string("k"), &string(plain)].concat();
            for bad in [
                [&[0x03][..], &string(unwise)].concat(),
                [&[0x08][..], &string(unwise)].concat(),
                [&[0x26][..], &string(unwise), &string("v")].concat(),
                [&[0x26][..], &string("k"), &string(unwise)].concat(),
            ] {
                for flags in [0, 2] {
                    let properties = [&bad[..], &good].concat();
                    client.send(&publish_with(5, flags, "t", 1, &properties, b"x")).await;
                    let mut got = client.read().await;
                    if got.first == 0x40 {
                        got = client.read().await;
                    } else if flags == 2 {
                        client.expect(&ack(0x40, 1)).await;
                    }
                    let kept = if characters == ChannelCharacters::Any { &properties } else { &good };
                    let expected = [&[kept.len() as u8][..], kept, b"x"].concat();
                    assert!(got.body.ends_with(&expected), "{got:x?} should end with {expected:x?}");
                    if flags == 2 {
                        client.send(&ack(0x40, u16::from_be_bytes([got.body[3], got.body[4]]))).await;
                    }
                    let whole = heard.message().await.unwrap();
                    let there = whole.content_type().is_some() as usize
                        + whole
                            .properties()
                            .map_or(0, |held| held.user.len() + held.reply_to.is_some() as usize);
                    assert_eq!(there, 2, "other protocols see all of it");
                }
            }
        }
    }
}

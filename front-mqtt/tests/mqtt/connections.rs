//! Sessions as operators see and move them, over the broker's registry of connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use broker_core::{
    Action, Authenticated, Authenticator, Channel, CloseCause, Connection, Credentials, Filter, ForcedError,
    Principal, Publish, Qos, Rights, Rule, SendError, Subscribed,
};
use front_mqtt::{Config, QueuePolicy};

use crate::TRANSPORT;
use crate::client::*;
use crate::support::Server;
use crate::transport::Transport;

fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

fn message(channel: &str, payload: &str) -> Publish {
    Publish::new(Channel::parse(channel).unwrap(), payload.to_owned())
}

fn only(server: &Server) -> (broker_core::SubscriberKey, Arc<dyn Connection>) {
    let mut all = server.broker.connections(None, 10);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[tokio::test]
async fn a_client_says_who_it_is() {
    let server = Server::start().await;
    let mut client = Client::connected(server.address, 5, "me").await;
    client.subscribe(5, &[("a/+", 1), ("b/#", 0), ("$share/g/c", 1)]).await;
    let (key, me) = only(&server);
    let peer = me.peer().unwrap();
    let transport = match TRANSPORT {
        Transport::Tcp => "tcp",
        Transport::WebSocket => "websocket",
    };
    assert_eq!((peer.protocol, peer.transport, peer.principal.user()), ("mqtt", transport, None));
    let details = me.details();
    assert_eq!(details.remote.unwrap().to_string(), "127.0.0.1");
    assert_eq!(details.client_id.as_deref(), Some("me"));
    assert_eq!(details.subscriptions, ["a/*", "b/#", "$share/g/c"]);
    assert!(details.last_active_ms >= peer.since_ms && peer.since_ms > 1_700_000_000_000);
    assert_eq!(server.broker.subscribers_of(&Channel::parse("a/1").unwrap()), [key]);
    client.send(DISCONNECT).await;
    client.expect_closed().await;
    assert!(me.peer().is_none());
    assert_eq!(me.subscribe(&filter("x")), Err(ForcedError::Gone));
    assert_eq!(server.broker.send_to(key, message("x", "y")).await, Err(SendError::Gone));
    drop(me);
    eventually(|| server.broker.connections(None, 10).is_empty()).await;
}

#[tokio::test]
async fn a_session_without_its_client_is_listed_without_a_peer() {
    let server = Server::start().await;
    let again = connect(4, "kept", false, 0, &[]);
    let (mut client, _) = Client::connected_with(server.address, &again).await;
    client.send(DISCONNECT).await;
    client.expect_closed().await;
    let (key, me) = only(&server);
    eventually(|| me.peer().is_none()).await;
    let (_client, present) = Client::connected_with(server.address, &again).await;
    assert!(present && me.peer().is_some());
    assert_eq!(only(&server).0, key);
}

#[tokio::test]
async fn a_direct_message_is_a_publish_on_its_channel() {
    let server = Server::start().await;
    for level in [4, 5] {
        let (mut client, _) =
            Client::connected_with(server.address, &connect(level, "d", true, 0, &[0x22, 0, 5])).await;
        let (key, _) = only(&server);
        server.broker.send_to(key, message("news/1", "hello").qos(Qos::ExactlyOnce)).await.unwrap();
        let nothing: &[u8] = if level == 5 { &[0] } else { &[] };
        client.expect(&packet(0x30, &[&string("news/1"), nothing, b"hello"])).await;
        assert_eq!(server.broker.send_to(key, message("a+b", "x")).await, Err(SendError::Inexpressible));
        assert_eq!(server.front.client("d").unwrap().sent, 1);
        client.send(DISCONNECT).await;
        client.expect_closed().await;
        eventually(|| server.broker.connections(None, 10).is_empty()).await;
    }
}

#[tokio::test]
async fn a_client_is_told_why_it_is_closed() {
    let server = Server::start().await;
    let mut cases = vec![
        (CloseCause::Administrative(Some("tidying up".to_owned())), 0x98, "tidying up"),
        (CloseCause::Administrative(None), 0x98, "closed by an operator"),
        (CloseCause::Expired, 0xA0, "reconnect"),
        (CloseCause::RightsChanged, 0x87, "reconnect"),
    ];
    for (why, code, text) in cases.drain(..) {
        for level in [4, 5] {
            let mut client = Client::connected(server.address, level, "c").await;
            let (_, me) = only(&server);
            me.close(&why);
            if level == 5 {
                let last = client.read().await;
                assert_eq!((last.first, last.body[0]), (0xE0, code));
                assert!(String::from_utf8_lossy(&last.body).contains(text), "{last:x?}");
            }
            client.expect_closed().await;
            drop(me);
            eventually(|| server.broker.connections(None, 10).is_empty()).await;
        }
    }
    // A client with a small maximum packet size is told the code alone.
    let (mut client, _) =
        Client::connected_with(server.address, &connect(5, "c", true, 0, &[0x27, 0, 0, 0, 20])).await;
    only(&server).1.close(&CloseCause::Administrative(Some("a reason far too long for it".to_owned())));
    client.expect(&[0xE0, 1, 0x98]).await;
}

#[tokio::test]
async fn a_client_can_be_subscribed_by_force_within_its_bound() {
    let mut config = Config::default();
    config.max_subscriptions = 4;
    let server = Server::with(config).await;
    let mut client = Client::connected(server.address, 4, "f").await;
    client.subscribe(4, &[("mine/+", 1)]).await;
    let (_, me) = only(&server);
    assert_eq!(me.subscribe(&filter("mine/*")), Ok(Subscribed::THERE));
    assert_eq!(me.subscribe(&filter("forced/#")), Ok(Subscribed::ADDED));
    // One or more levels: MQTT cannot write that filter, and a client may have a level of that name.
    assert_eq!(me.subscribe(&filter("deep/**")), Ok(Subscribed::ADDED));
    assert_eq!(client.subscribe(4, &[("deep/**", 0)]).await, [0]);
    assert_eq!(me.subscribe(&filter("more")), Err(ForcedError::TooMany { max: 4 }));
    assert_eq!(me.details().subscriptions, ["mine/*", "forced/#", "deep/**", "deep/**"]);
    for channel in ["forced", "deep", "deep/1"] {
        server.broker.publish(message(channel, "x").qos(Qos::ExactlyOnce)).unwrap();
    }
    assert_eq!(client.read_publish().await, (0, "forced".into(), 0, b"x".to_vec()));
    assert_eq!(client.read_publish().await.1, "deep/1");
    // The client may ask for the same at another QoS, and it may end it.
    assert_eq!(client.subscribe(4, &[("forced/#", 1)]).await, [1]);
    server.broker.publish(message("forced/1", "x").qos(Qos::ExactlyOnce)).unwrap();
    assert_eq!(client.read_publish().await.0, 2);
    client.send(&unsubscribe(4, 9, &["forced/#"])).await;
    client.expect(&ack(0xB0, 9)).await;
    assert!(me.unsubscribe(&filter("deep/**")) && me.unsubscribe(&filter("mine/*")));
    assert!(!me.unsubscribe(&filter("forced/#")) && !me.unsubscribe(&filter("other")));
    for channel in ["forced/2", "deep/2", "mine/2"] {
        server.broker.publish(message(channel, "x")).unwrap();
    }
    client.expect_quiet().await;
}

/// May hear everything, or everything but `secret/#`.
struct Changing(AtomicBool);

impl Authenticator for Changing {
    fn authenticate<'a>(&'a self, _: Credentials<'a>) -> Authenticated<'a> {
        let mut rights = Rights::all();
        if self.0.load(Ordering::Relaxed) {
            rights = rights.deny(Rule::new([Action::Subscribe], filter("secret/#")));
        }
        Authenticated::now(Ok(Principal::anonymous(rights)))
    }
}

#[tokio::test]
async fn what_waits_is_not_delivered_to_a_client_that_may_not_see_it_any_more() {
    let changing = Arc::new(Changing(AtomicBool::new(false)));
    let server = Server::with_rights(Config::default(), changing.clone()).await;
    for level in [4, 5] {
        changing.0.store(false, Ordering::Relaxed);
        let again = connect(level, "r", false, 0, &[0x11, 0, 0, 0, 100]);
        let (mut client, _) =
            Client::connected_with(server.address, &connect(level, "r", true, 0, &[])).await;
        client.send(DISCONNECT).await;
        client.expect_closed().await;
        let (mut client, _) = Client::connected_with(server.address, &again).await;
        client.subscribe(level, &[("#", 2), ("secret/1", 1)]).await;
        // In flight, unacknowledged: at QoS 1 and 2, allowed and not.
        for (channel, qos) in [
            ("secret/1", Qos::AtLeastOnce),
            ("open/1", Qos::AtLeastOnce),
            ("secret/2", Qos::ExactlyOnce),
            ("open/2", Qos::ExactlyOnce),
        ] {
            server.broker.publish(message(channel, "in flight").qos(qos)).unwrap();
            client.read().await;
        }
        drop(client);
        eventually(|| !server.front.client("r").unwrap().connected).await;
        // Queued.
        for channel in ["secret/3", "open/3", "secret/4", "open/4"] {
            server.broker.publish(message(channel, "queued").qos(Qos::AtLeastOnce)).unwrap();
        }
        eventually(|| server.front.client("r").unwrap().queued == 4).await;
        changing.0.store(true, Ordering::Relaxed);
        let (mut client, present) = Client::connected_with(server.address, &again).await;
        assert!(present);
        let mut came = Vec::new();
        for _ in 0..5 {
            let raw = client.read().await;
            let topic = 2 + usize::from(u16::from_be_bytes([raw.body[0], raw.body[1]]));
            came.push(match raw.first >> 4 {
                3 => String::from_utf8(raw.body[2..topic].to_vec()).unwrap(),
                _ => format!("{:x}", raw.first),
            });
        }
        // The client may have the QoS 2 message already: its identifier is released and not given away.
        assert_eq!(came, ["open/1", "62", "open/2", "open/3", "open/4"]);
        server.broker.publish(message("secret/1", "live").qos(Qos::AtLeastOnce)).unwrap();
        client.expect_quiet().await;
        assert_eq!(server.front.client("r").unwrap().subscriptions, 1);
    }
}

#[tokio::test]
async fn a_full_queue_loses_its_newest_or_its_oldest() {
    for (queue_policy, kept) in [(QueuePolicy::DropNewest, [0, 1, 2]), (QueuePolicy::DropOldest, [3, 4, 5])] {
        let mut config = Config::default();
        config.max_queued_messages = 3;
        config.queue_policy = queue_policy;
        let server = Server::with(config).await;
        let again = connect(4, "q", false, 0, &[]);
        let (mut client, _) = Client::connected_with(server.address, &again).await;
        client.subscribe(4, &[("t", 1)]).await;
        client.send(DISCONNECT).await;
        client.expect_closed().await;
        eventually(|| !server.front.client("q").unwrap().connected).await;
        for n in 0..6 {
            server.broker.publish(message("t", &n.to_string()).qos(Qos::AtLeastOnce)).unwrap();
        }
        eventually(|| server.front.client("q").unwrap().dropped == 3).await;
        assert_eq!(server.front.client("q").unwrap().queued, 3);
        let (mut client, _) = Client::connected_with(server.address, &again).await;
        for n in kept {
            assert_eq!(client.read_publish().await.3, n.to_string().into_bytes(), "{queue_policy:?}");
        }
        client.expect_quiet().await;
        let stats = server.front.client("q").unwrap();
        assert_eq!((stats.connected, stats.inflight, stats.sent, stats.queued), (true, 3, 3, 0));
    }
}

#[tokio::test]
async fn what_a_client_sends_is_counted_for_it() {
    let server = Server::start().await;
    let mut client = Client::connected(server.address, 5, "counted").await;
    assert_eq!(server.front.client("nobody"), None);
    client.send(&publish(5, 0, "t", 0, b"x")).await;
    client.send(&publish(5, 2, "t", 1, b"x")).await;
    client.read().await;
    assert_eq!(server.front.client("counted").unwrap().received, 2);
    assert_eq!(server.front.stats().messages_received, 2);
    client.send(DISCONNECT).await;
    client.expect_closed().await;
    eventually(|| server.front.client("counted").is_none()).await;
    assert_eq!(server.front.stats().messages_received, 2);
}

#[tokio::test]
async fn channels_that_no_topic_can_name_stay_away_from_clients() {
    let server = Server::start().await;
    for level in [4, 5] {
        let mut client = Client::connected(server.address, level, "c").await;
        client.subscribe(level, &[("#", 1)]).await;
        for (channel, qos) in [("a+b", Qos::AtMostOnce), ("a#", Qos::AtLeastOnce), ("fine", Qos::AtMostOnce)]
        {
            server.broker.publish(message(channel, "x").qos(qos)).unwrap();
        }
        assert_eq!(client.read_publish().await.1, "fine");
        client.send(DISCONNECT).await;
        client.expect_closed().await;
    }
}

/// Waits until something that happens in another task has happened.
async fn eventually(mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("it did not come to pass in 5 s");
}

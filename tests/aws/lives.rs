use std::sync::Arc;

use fanwire::core::{
    self, Action, Answer, AuthError, Authenticated, Authenticator, Credentials, Denied, Filter, Policy,
    Principal, Publish, Rights, Rule,
};
use fanwire::mqtt;
use rumqttc::QoS;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::http::request;
use crate::support::mqtt::{Bare, Client};
use crate::support::{TestServer, within};
use crate::{events, unsigned, whole};

/// Who reads what is told of `watched`.
async fn watcher(server: &TestServer) -> Client {
    let mut watcher = Client::connect(server.mqtt, "watcher").await;
    watcher.subscribe("$aws/events/+/+/watched", QoS::AtLeastOnce).await;
    watcher
}

/// The next event: its kind, and itself.
async fn next(watcher: &mut Client) -> (String, Value) {
    let message = watcher.message().await;
    let event: Value = serde_json::from_slice(&message.payload).unwrap();
    let kind = event["eventType"].as_str().unwrap().to_owned();
    assert!(message.topic.ends_with(&format!("/{kind}/watched")), "{}", message.topic);
    assert_eq!(event["clientId"], "watched");
    (kind, event)
}

#[tokio::test]
async fn a_takeover_is_told_in_order_and_pairs_have_one_version() {
    let server = unsigned().await;
    let mut watcher = watcher(&server).await;
    let first = Client::connect(server.mqtt, "watched").await;
    let second = Client::connect(server.mqtt, "watched").await;
    let mut events = Vec::new();
    for expected in ["connected", "disconnected", "connected"] {
        let (kind, event) = next(&mut watcher).await;
        assert_eq!(kind, expected, "{event}");
        events.push(event);
    }
    assert_eq!(events[1]["disconnectReason"], "DUPLICATE_CLIENTID");
    assert_eq!(events[1]["clientInitiatedDisconnect"], false);
    let version = |at: usize| events[at]["versionNumber"].as_u64().unwrap();
    assert_eq!(version(0), version(1));
    assert!(version(2) > version(1));
    assert_ne!(events[0]["sessionIdentifier"], events[2]["sessionIdentifier"]);
    drop((first, second));
}

#[tokio::test]
async fn subscriptions_are_told_as_mqtt_writes_them() {
    let server = unsigned().await;
    let mut watcher = watcher(&server).await;
    let mut client = Client::connect(server.mqtt, "watched").await;
    client.subscribe("a/+/#", QoS::AtMostOnce).await;
    client.subscribe("$share/g/b", QoS::AtMostOnce).await;
    client.client.unsubscribe("a/+/#").await.unwrap();
    assert_eq!(next(&mut watcher).await.0, "connected");
    for (expected, topic) in
        [("subscribed", "a/+/#"), ("subscribed", "$share/g/b"), ("unsubscribed", "a/+/#")]
    {
        let (kind, event) = next(&mut watcher).await;
        assert_eq!((&*kind, &event["topics"][0]), (expected, &Value::from(topic)));
    }
}

/// SUBSCRIBE (`0x82`, at QoS 0) or UNSUBSCRIBE (`0xa2`) with these filters.
fn packet(kind: u8, filters: &[&str]) -> Vec<u8> {
    let mut body = vec![0, 1];
    for filter in filters {
        body.extend_from_slice(&u16::try_from(filter.len()).unwrap().to_be_bytes());
        body.extend_from_slice(filter.as_bytes());
        body.extend_from_slice(if kind == 0x82 { &[0] } else { &[] });
    }
    let mut packet = vec![kind, u8::try_from(body.len()).ok().filter(|length| *length < 128).unwrap()];
    packet.extend(body);
    packet
}

#[tokio::test]
async fn a_packet_is_one_event_with_all_that_was_granted() {
    let server = unsigned().await;
    let mut watcher = watcher(&server).await;
    let mut client = Bare::shake_hands(server.mqtt, "watched").await;
    client.send(&packet(0x82, &["a", "wrong/#/filter", "b/+", "$share/g/c", "a"])).await;
    assert_eq!(client.receive(9).await, [0x90, 7, 0, 1, 0, 0x80, 0, 0, 0]);
    // One of these is there already, and is not told again.
    client.send(&packet(0x82, &["b/+", "d"])).await;
    assert_eq!(client.receive(6).await, [0x90, 4, 0, 1, 0, 0]);
    client.send(&packet(0xa2, &["a", "never", "$share/g/c"])).await;
    assert_eq!(client.receive(4).await, [0xb0, 2, 0, 1]);
    drop(client);
    for (expected, topics) in [
        ("connected", json!(null)),
        ("subscribed", json!(["a", "b/+", "$share/g/c"])),
        ("subscribed", json!(["d"])),
        ("unsubscribed", json!(["a", "$share/g/c"])),
        ("disconnected", json!(null)),
    ] {
        let (kind, event) = next(&mut watcher).await;
        assert_eq!((&*kind, &event["topics"]), (expected, &topics), "{event}");
    }
}

/// Allows every filter but `undecided`, of which it tells that it was asked.
struct Undecided(Arc<Notify>);

impl Policy for Undecided {
    fn subscribe(&self, _: &core::Client<'_>, filter: &Filter) -> Answer<'static, Result<(), Denied>> {
        if filter.to_string() != "undecided" {
            return Answer::now(Ok(()));
        }
        self.0.notify_one();
        Answer::later(std::future::pending())
    }
}

#[tokio::test]
async fn what_a_packet_came_to_is_told_before_its_client_has_left() {
    let asked = Arc::<Notify>::default();
    let policy = Arc::new(Undecided(Arc::clone(&asked)));
    let server = whole(|config| config.policy = Some(policy), events()).await;
    let mut watcher = watcher(&server).await;
    let mut client = Bare::shake_hands(server.mqtt, "watched").await;
    client.send(&packet(0x82, &["a", "b", "undecided", "c"])).await;
    within(asked.notified()).await;
    // Another connection of the same client.
    let _second = Client::connect(server.mqtt, "watched").await;
    client.rest().await;
    for (expected, topics) in [
        ("connected", json!(null)),
        ("subscribed", json!(["a", "b"])),
        ("disconnected", json!(null)),
        ("connected", json!(null)),
    ] {
        let (kind, event) = next(&mut watcher).await;
        assert_eq!((&*kind, &event["topics"]), (expected, &topics), "{event}");
    }
}

#[tokio::test]
async fn why_a_client_left_is_told() {
    let server = unsigned().await;
    let mut watcher = watcher(&server).await;
    let left = async |watcher: &mut Client| {
        assert_eq!(next(watcher).await.0, "connected");
        let (kind, event) = next(watcher).await;
        assert_eq!(kind, "disconnected");
        event["disconnectReason"].as_str().unwrap().to_owned()
    };
    Client::connect(server.mqtt, "watched").await.kill();
    assert_eq!(left(&mut watcher).await, "CONNECTION_LOST");
    let client = Client::connect(server.mqtt, "watched").await;
    client.client.disconnect().await.unwrap();
    assert_eq!(left(&mut watcher).await, "CLIENT_INITIATED_DISCONNECT");
    let mut closed = Client::connect(server.mqtt, "watched").await;
    assert_eq!(request(server.http, "DELETE", "/connections/watched", &[], "").await.status, 200);
    closed.ended().await;
    assert_eq!(left(&mut watcher).await, "API_INITIATED_DISCONNECT");
    let mut wrong = Bare::shake_hands(server.mqtt, "watched").await;
    wrong.send(&[0x00, 0]).await;
    wrong.rest().await;
    assert_eq!(left(&mut watcher).await, "CLIENT_ERROR");
    // A keep alive of one second, and nothing after CONNECT.
    let mut silent = Bare::connect(server.mqtt).await;
    silent.send(b"\x10\x13\x00\x04MQTT\x04\x02\x00\x01\x00\x07watched").await;
    assert_eq!(silent.receive(4).await, [0x20, 2, 0, 0]);
    silent.rest().await;
    assert_eq!(left(&mut watcher).await, "MQTT_KEEP_ALIVE_TIMEOUT");
}

/// Lets everybody do everything but publish to `secret`, by the rights or by what it says as a policy.
struct Guard {
    by_rights: bool,
}

impl Authenticator for Guard {
    fn authenticate<'a>(&'a self, _: Credentials<'a>) -> Authenticated<'a> {
        let rights = Rights::all();
        let secret = Rule::new([Action::Publish], Filter::parse("secret").unwrap());
        Answer::now(Ok(Principal::anonymous(if self.by_rights { rights.deny(secret) } else { rights })))
    }
}

impl Policy for Guard {
    fn publish(&self, _: &core::Client<'_>, publish: Publish) -> Answer<'static, Result<Publish, Denied>> {
        let is_secret = !self.by_rights && publish.channel().as_str() == "secret";
        Answer::now(if is_secret { Err(Denied::Forbidden("no".into())) } else { Ok(publish) })
    }
}

#[tokio::test]
async fn whoever_is_closed_for_what_it_may_not_do_has_left_for_that() {
    for by_rights in [true, false] {
        let guard = Arc::new(Guard { by_rights });
        let server = whole(
            |config| {
                config.mqtt_front.denied_publish = mqtt::Denied::Disconnect;
                config.authenticator = guard.clone();
                config.policy = Some(guard);
            },
            events(),
        )
        .await;
        let mut watcher = watcher(&server).await;
        for topic in ["secret", "$aws/events/presence/connected/other"] {
            let mut client = Client::connect(server.mqtt, "watched").await;
            client.publish("allowed", QoS::AtMostOnce, "x").await;
            client.publish(topic, QoS::AtLeastOnce, "x").await;
            client.ended().await;
            assert_eq!(next(&mut watcher).await.0, "connected");
            let (kind, event) = next(&mut watcher).await;
            assert_eq!(
                (&*kind, &event["disconnectReason"]),
                ("disconnected", &json!("AUTH_ERROR")),
                "{topic}"
            );
            assert_eq!(event["clientInitiatedDisconnect"], false);
        }
    }
}

/// Lets in whoever says a name, as that user.
struct ByName;

impl Authenticator for ByName {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Authenticated<'a> {
        let named = credentials.user.map(|name| Principal::user_with(name, Rights::all()));
        Answer::now(named.ok_or(AuthError::Required))
    }
}

#[tokio::test]
async fn all_events_of_a_client_name_its_user() {
    let server = whole(|config| config.authenticator = Arc::new(ByName), events()).await;
    let connect = async |id, name: &'static str| {
        Client::connect_with(server.mqtt, id, |options| _ = options.set_credentials(name, "x")).await
    };
    let mut watcher = connect("watcher", "bob").await;
    watcher.subscribe("$aws/events/+/+/watched", QoS::AtLeastOnce).await;
    let mut client = connect("watched", "ann").await;
    client.subscribe("a", QoS::AtMostOnce).await;
    client.client.unsubscribe("a").await.unwrap();
    client.client.disconnect().await.unwrap();
    for expected in ["connected", "subscribed", "unsubscribed", "disconnected"] {
        let (kind, event) = next(&mut watcher).await;
        assert_eq!((&*kind, &event["principalIdentifier"]), (expected, &Value::from("ann")), "{event}");
    }
}

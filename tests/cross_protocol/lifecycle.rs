//! An embedding service hears of every client the same way.

use std::sync::{Arc, Mutex};

use fanwire::core::{Account, CloseCause, Connection, Interest, Left, Lifecycle, SubscriberKey};
use rumqttc::QoS;
use serde_json::json;

use crate::support::bayeux::Socket;
use crate::support::mqtt::{Bare, Client};
use crate::support::sse::EventStream;
use crate::support::{TestServer, eventually};

#[derive(Default)]
struct Ears(Mutex<Vec<(SubscriberKey, String)>>);

impl Ears {
    fn note(&self, key: SubscriberKey, text: String) {
        self.0.lock().expect("not poisoned").push((key, text));
    }

    /// What was heard of the client that joined by this protocol and transport, in order.
    fn of(&self, joined: &str) -> Vec<String> {
        let heard = self.0.lock().expect("not poisoned");
        let key = heard.iter().find(|(_, text)| text == joined).map(|(key, _)| *key);
        heard.iter().filter(|(of, _)| Some(*of) == key).map(|(_, text)| text.clone()).collect()
    }

    async fn wait_for(&self, joined: &str, expected: &[&str]) {
        let mut last = Vec::new();
        let is_so = || {
            last = self.of(joined);
            last.len() >= expected.len()
        };
        eventually(is_so).await;
        assert_eq!(last, expected);
    }
}

impl Lifecycle for Ears {
    fn joined(&self, client: SubscriberKey, connection: &Arc<dyn Connection>) {
        let peer = connection.peer().expect("somebody is there");
        self.note(client, format!("joined {} {}", peer.protocol, peer.transport));
    }
    fn subscribed(&self, client: SubscriberKey, of: Interest<'_>) {
        self.note(
            client,
            format!("subscribed {}{}", of.group.map(|g| format!("{g}:")).unwrap_or_default(), of.filter),
        );
    }
    fn unsubscribed(&self, client: SubscriberKey, of: Interest<'_>) {
        self.note(client, format!("unsubscribed {}", of.filter));
    }
    fn left(&self, client: SubscriberKey, how: Left, _: &Account<'_>) {
        self.note(client, format!("left {}{}", how.why, if how.stays { ", stays" } else { "" }));
    }
}

async fn heard() -> (TestServer, Arc<Ears>) {
    let server = TestServer::start().await;
    let ears = Arc::new(Ears::default());
    server.broker.hear(Arc::clone(&ears) as Arc<dyn Lifecycle>);
    (server, ears)
}

#[tokio::test]
async fn every_protocol_tells_the_life_of_its_clients() {
    let (server, ears) = heard().await;

    let stream = EventStream::open(server.http, "/sse?channel=a&channel=b/*").await;
    drop(stream);
    ears.wait_for(
        "joined sse http/1.1",
        &["joined sse http/1.1", "subscribed a", "subscribed b/*", "left client"],
    )
    .await;

    let mut device = Client::connect(server.mqtt, "one").await;
    device.subscribe("a/+", QoS::AtLeastOnce).await;
    device.subscribe("$share/g/c", QoS::AtLeastOnce).await;
    device.client.unsubscribe("a/+").await.expect("queued");
    device.client.disconnect().await.expect("queued");
    let life = ["joined mqtt tcp", "subscribed a/*", "subscribed g:c", "unsubscribed a/*", "left client"];
    ears.wait_for("joined mqtt tcp", &life).await;

    let mut page = Socket::handshake(server.http).await;
    page.subscribe("/chat/*").await;
    for (channel, field) in [("/meta/unsubscribe", "subscription"), ("/meta/disconnect", "x")] {
        let message = json!([{"channel": channel, "clientId": page.client_id, field: "/chat/*"}]);
        page.send(&message).await;
    }
    let life = ["joined bayeux websocket", "subscribed chat/*", "unsubscribed chat/*", "left client"];
    ears.wait_for("joined bayeux websocket", &life).await;
}

#[tokio::test]
async fn an_operators_close_is_told_by_every_protocol() {
    let (server, ears) = heard().await;
    let _stream = EventStream::open(server.http, "/sse/a").await;
    let _device = Bare::shake_hands(server.mqtt, "one").await;
    let _page = Socket::handshake(server.http).await;
    let joined = ["joined sse http/1.1", "joined mqtt tcp", "joined bayeux websocket"];
    for (_, connection) in server.broker.connections(None, 10) {
        connection.close(&CloseCause::Administrative(None));
    }
    for joined in joined {
        eventually(|| ears.of(joined).last().map(String::as_str) == Some("left closed")).await;
    }
}

#[tokio::test]
async fn a_session_that_stays_joins_again_and_one_that_is_taken_over_says_so() {
    let (server, ears) = heard().await;
    let persistent = |id: &str| {
        let mut packet = crate::support::mqtt::connect_packet(id);
        packet[9] = 0;
        packet
    };
    let mut first = Bare::connect(server.mqtt).await;
    first.send(&persistent("device")).await;
    assert_eq!(first.receive(4).await, [0x20, 2, 0, 0]);
    let mut second = Bare::connect(server.mqtt).await;
    second.send(&persistent("device")).await;
    assert_eq!(second.receive(4).await, [0x20, 2, 1, 0]);
    drop(second);
    let life = ["joined mqtt tcp", "left taken_over, stays", "joined mqtt tcp", "left lost, stays"];
    ears.wait_for("joined mqtt tcp", &life).await;
    let mut third = Bare::connect(server.mqtt).await;
    third.send(&crate::support::mqtt::connect_packet("device")).await;
    assert_eq!(third.receive(4).await, [0x20, 2, 0, 0]);
    let life = [&life[..], &["left taken_over"]].concat();
    ears.wait_for("joined mqtt tcp", &life).await;
}

#[tokio::test]
async fn a_server_that_stops_is_why_its_clients_leave() {
    let (server, ears) = heard().await;
    let _stream = EventStream::open(server.http, "/sse/a").await;
    let _device = Bare::shake_hands(server.mqtt, "one").await;
    let _page = Socket::handshake(server.http).await;
    server.stop().await;
    for joined in ["joined sse http/1.1", "joined mqtt tcp", "joined bayeux websocket"] {
        assert_eq!(ears.of(joined).last().map(String::as_str), Some("left shutdown"), "{joined}");
    }
}

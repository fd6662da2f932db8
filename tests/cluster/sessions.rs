//! MQTT sessions of durable channels are the cluster's: they go on at another node, whatever became of the one before.

use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::QoS;
use rustix::process::Signal;

use super::durable::node;
use super::nats::Nats;
use super::support::mqtt::{Bare, Client};
use super::support::process::Process;
use super::support::{http, within};
use super::{until_ready_is, until_there_are};

/// Longer than it takes until a node is missed.
const LATE: Duration = Duration::from_secs(40);

/// A client of version 5 that wants its session, which lasts so long, and with a will on `wills` that says its identifier.
pub(crate) struct Returning {
    bare: Bare,
    is_known: bool,
}

impl Returning {
    pub(crate) async fn connect(
        address: SocketAddr,
        id: &str,
        expiry_secs: u8,
        will_delay_secs: Option<u8>,
    ) -> Self {
        Self::try_connect(address, id, expiry_secs, will_delay_secs).await.expect("it is let in")
    }

    /// Or why it is not let in.
    async fn try_connect(
        address: SocketAddr,
        id: &str,
        expiry_secs: u8,
        will_delay_secs: Option<u8>,
    ) -> Result<Self, u8> {
        let mut body = b"\x00\x04MQTT\x05".to_vec();
        body.push(if will_delay_secs.is_some() { 4 } else { 0 });
        body.extend_from_slice(&[0, 60, 5, 0x11, 0, 0, 0, expiry_secs]);
        let put = |body: &mut Vec<u8>, text: &str| {
            body.extend_from_slice(&u16::try_from(text.len()).expect("short").to_be_bytes());
            body.extend_from_slice(text.as_bytes());
        };
        put(&mut body, id);
        if let Some(delay) = will_delay_secs {
            body.extend_from_slice(&[5, 0x18, 0, 0, 0, delay]);
            put(&mut body, "wills");
            put(&mut body, id);
        }
        let mut bare = Bare::connect(address).await;
        bare.send(&packet(0x10, &body)).await;
        let mut client = Self { bare, is_known: false };
        let (head, connack) = client.packet().await;
        assert_eq!(head, 0x20, "{connack:x?}");
        client.is_known = connack[0] == 1;
        if connack[1] == 0 { Ok(client) } else { Err(connack[1]) }
    }

    async fn packet(&mut self) -> (u8, Vec<u8>) {
        let head = self.bare.receive(2).await;
        assert!(head[1] < 128, "a short packet");
        (head[0], self.bare.receive(usize::from(head[1])).await)
    }

    async fn subscribe(&mut self, filter: &str, qos: u8) {
        assert_eq!(self.ask_for(filter, qos).await, qos);
    }

    /// What SUBACK says.
    pub(crate) async fn ask_for(&mut self, filter: &str, qos: u8) -> u8 {
        let mut body = vec![0, 1, 0, 0, u8::try_from(filter.len()).expect("short")];
        body.extend_from_slice(filter.as_bytes());
        body.push(qos);
        self.bare.send(&packet(0x82, &body)).await;
        let (head, body) = self.packet().await;
        assert_eq!((head, &body[..3], body.len()), (0x90, &[0, 1, 0][..], 4));
        body[3]
    }

    async fn publish(&mut self) -> (u8, u16, char) {
        let (head, body) = self.packet().await;
        published(head, &body)
    }

    async fn answer(&mut self, kind: u8, id: u16) {
        self.bare.send(&packet(kind, &id.to_be_bytes())).await;
    }

    /// Closed because somebody else has the session.
    async fn ends_taken_over(mut self) {
        let rest = self.bare.rest().await;
        assert!(rest.first() == Some(&0xe0) && rest.get(2) == Some(&0x8e), "{rest:x?}");
    }
}

/// Of a PUBLISH: its first byte, its identifier and its payload of one character.
fn published(head: u8, body: &[u8]) -> (u8, u16, char) {
    assert_eq!(head >> 4, 3, "{head:x} {body:x?}");
    let topic = usize::from(body[1]);
    let id = u16::from_be_bytes([body[2 + topic], body[3 + topic]]);
    (head, id, char::from(*body.last().expect("a payload")))
}

fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![head, u8::try_from(body.len()).expect("short")];
    packet.extend_from_slice(body);
    packet
}

async fn two(nats: &Nats) -> [Process; 2] {
    let servers = [node(nats, "n1").await, node(nats, "n2").await];
    until_there_are(&servers, 2).await;
    servers
}

async fn kill(mut server: Process) {
    server.signal(Signal::KILL);
    server.exit().await;
}

#[tokio::test]
async fn a_session_of_a_node_that_was_killed_goes_on_at_another_one() {
    let Some(nats) = Nats::keeping() else { return };
    let [one, other] = two(&nats).await;
    let publisher = Client::connect(other.mqtt, "publisher").await;
    let mut client = Returning::connect(one.mqtt, "mover", 255, None).await;
    assert!(!client.is_known);
    client.subscribe("orders/+", 2).await;
    for text in ["a", "b"] {
        publisher.publish("orders/1", QoS::ExactlyOnce, text).await;
    }
    let ((0x34, first, 'a'), (0x34, second, 'b')) = (client.publish().await, client.publish().await) else {
        panic!("it is not what was published");
    };
    // It has the first of them.
    client.answer(0x50, first).await;
    assert_eq!(client.packet().await, (0x62, first.to_be_bytes().to_vec()));
    kill(one).await;
    publisher.publish("orders/2", QoS::AtLeastOnce, "c").await;
    let mut client = Returning::connect(other.mqtt, "mover", 255, None).await;
    assert!(client.is_known, "there is a session");
    // What was begun goes on under its identifiers, and the rest follows.
    let mut packets = vec![client.packet().await, client.packet().await, client.packet().await];
    let release = packets.iter().position(|packet| packet.0 == 0x62).expect("PUBREL");
    assert_eq!(packets.remove(release).1, first.to_be_bytes());
    let publishes = packets.iter().map(|(head, body)| published(*head, body)).collect::<Vec<_>>();
    let [(0x3c, again, 'b'), (0x32, third, 'c')] = publishes[..] else { panic!("{publishes:x?}") };
    assert_eq!(again, second);
    client.answer(0x70, first).await;
    client.answer(0x50, second).await;
    assert_eq!(client.packet().await, (0x62, second.to_be_bytes().to_vec()));
    client.answer(0x40, third).await;
    publisher.publish("orders/1", QoS::ExactlyOnce, "d").await;
    assert_eq!(client.publish().await.2, 'd', "nothing comes twice");
}

#[tokio::test]
async fn a_publish_of_a_client_whose_node_was_killed_is_there_once() {
    let Some(nats) = Nats::keeping() else { return };
    let [one, other] = two(&nats).await;
    let publish = |head: u8, id: u8| packet(head, &[&[0, 6][..], b"orders", &[0, id, 0, b'`' + id]].concat());
    let mut client = Returning::connect(one.mqtt, "mover", 255, None).await;
    for id in 1..=3 {
        client.bare.send(&publish(0x34, id)).await;
        assert_eq!(client.packet().await, (0x50, vec![0, id]));
    }
    client.answer(0x62, 2).await;
    assert_eq!(client.packet().await, (0x70, vec![0, 2]));
    kill(one).await;
    let mut client = Returning::connect(other.mqtt, "mover", 255, None).await;
    for id in [1, 3] {
        client.bare.send(&publish(0x3c, id)).await;
        assert_eq!(client.packet().await.0, 0x50);
        client.answer(0x62, u16::from(id)).await;
        assert_eq!(client.packet().await, (0x70, vec![0, id]));
    }
    // The identifier is free, and stands for another message.
    client.bare.send(&publish(0x34, 2)).await;
    assert_eq!(client.packet().await.0, 0x50);
    let history = http::get(other.http, "/v1/history/orders?limit=100").await.json();
    let texts: Vec<_> =
        history["messages"].as_array().expect("a list").iter().map(|one| one["text"].clone()).collect();
    assert_eq!(texts, ["a", "b", "c", "b"]);
}

#[tokio::test]
async fn a_session_moves_while_its_node_lives_and_its_will_is_as_on_one_node() {
    let Some(nats) = Nats::keeping() else { return };
    let [one, other] = two(&nats).await;
    let mut wills = Client::connect(one.mqtt, "listener").await;
    wills.subscribe("wills", QoS::AtMostOnce).await;
    for (id, delay) in [("soon", 0), ("cancelled", 60)] {
        let mut old = Returning::connect(one.mqtt, id, 255, Some(delay)).await;
        old.subscribe("orders", 1).await;
        let mut new = Returning::connect(other.mqtt, id, 255, Some(delay)).await;
        assert!(new.is_known);
        old.ends_taken_over().await;
        wills.publish("orders", QoS::AtLeastOnce, "a").await;
        assert_eq!(new.publish().await.2, 'a');
        // And back again: of what the first node knew of it nothing is true any more.
        let mut back = Returning::connect(one.mqtt, id, 255, Some(delay)).await;
        assert!(back.is_known);
        new.ends_taken_over().await;
        assert_eq!(back.publish().await.2, 'a', "nobody has said that it came");
        wills.publish("orders", QoS::AtLeastOnce, "b").await;
        assert_eq!(back.publish().await.2, 'b');
        back.bare.send(b"\xe0\x00").await;
    }
    assert_eq!([wills.payload().await, wills.payload().await], ["soon", "soon"]);
    assert_eq!(wills.payload_if_any(Duration::from_millis(300)).await, None);
}

#[tokio::test]
async fn a_node_that_was_paused_has_its_session_no_more() {
    let Some(nats) = Nats::keeping() else { return };
    let [one, other] = two(&nats).await;
    let mut old = Returning::connect(one.mqtt, "mover", 255, None).await;
    old.subscribe("orders", 1).await;
    one.signal(Signal::STOP);
    let mut new = Returning::connect(other.mqtt, "mover", 255, None).await;
    assert!(new.is_known);
    one.signal(Signal::CONT);
    old.ends_taken_over().await;
    let publisher = Client::connect(one.mqtt, "publisher").await;
    publisher.publish("orders", QoS::AtLeastOnce, "a").await;
    assert_eq!(new.publish().await.2, 'a');
}

#[tokio::test]
async fn the_will_of_a_client_whose_node_was_killed_is_published_once() {
    let Some(nats) = Nats::keeping() else { return };
    let [one, other] = two(&nats).await;
    let third = node(&nats, "n3").await;
    let mut wills = Client::connect(third.mqtt, "listener").await;
    wills.subscribe("wills", QoS::AtMostOnce).await;
    let _gone = Returning::connect(one.mqtt, "gone", 2, Some(0)).await;
    let _back = Returning::connect(one.mqtt, "back", 255, Some(200)).await;
    kill(one).await;
    let back = Returning::connect(other.mqtt, "back", 255, None).await;
    assert!(back.is_known);
    assert_eq!(wills.payload_within(LATE).await, "gone");
    assert_eq!(wills.payload_if_any(Duration::from_secs(3)).await, None);
    within(async {
        let again = Returning::connect(other.mqtt, "gone", 2, None).await;
        assert!(!again.is_known, "its time is over");
    })
    .await;
}

#[tokio::test]
async fn what_a_client_has_acknowledged_does_not_come_again_at_another_node() {
    let Some(nats) = Nats::keeping() else { return };
    let [one, other] = two(&nats).await;
    let staying =
        |address| Client::connect_with(address, "mover", |options| _ = options.set_clean_session(false));
    let mut client = staying(one.mqtt).await;
    client.subscribe("orders/+", QoS::AtLeastOnce).await;
    let publisher = Client::connect(other.mqtt, "publisher").await;
    // Not as many as are recorded at once.
    for number in 0..550 {
        publisher.publish("orders/1", QoS::AtLeastOnce, &number.to_string()).await;
    }
    for number in 0..550 {
        assert_eq!(client.payload().await, number.to_string());
    }
    // The last acknowledgements are there, and not recorded by themselves.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut moved = staying(other.mqtt).await;
    client.ended().await;
    assert_eq!(moved.payload_if_any(Duration::from_millis(700)).await, None, "it has all of them");
    publisher.publish("orders/1", QoS::AtLeastOnce, "next").await;
    assert_eq!(moved.payload().await, "next");
    assert_eq!(super::metric(other.http, "fanwire_cluster_takeovers_unrecorded_total").await, 0.0);
}

#[tokio::test]
async fn sessions_of_running_nodes_outlast_the_stream_that_they_are_recorded_in() {
    let Some(nats) = Nats::keeping() else { return };
    let [one, other] = two(&nats).await;
    let mut here = Returning::connect(one.mqtt, "here", 255, None).await;
    here.subscribe("orders", 1).await;
    let mut away = Returning::connect(one.mqtt, "away", 255, None).await;
    away.subscribe("orders", 1).await;
    away.bare.send(b"\xe0\x00").await;
    nats.ask("$JS.API.STREAM.DELETE.fw_S0", "");
    for server in [&one, &other] {
        until_ready_is(server.http, 503).await;
    }
    for (id, server) in [("here", &other), ("new", &one)] {
        let refused = Returning::try_connect(server.mqtt, id, 255, None).await.err();
        assert_eq!(refused, Some(0x88), "{id}: whether it has a session is not known");
    }
    // What is in no session goes on, and so does who is connected.
    let publisher = Client::connect(one.mqtt, "publisher").await;
    publisher.publish("orders", QoS::AtLeastOnce, "a").await;
    let (_, id, text) = here.publish().await;
    assert_eq!(text, 'a');
    here.answer(0x40, id).await;
    for server in [&one, &other] {
        let is_back = async {
            while http::get(server.http, "/readyz").await.status != 200 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        // It is given up after 10 s.
        tokio::time::timeout(LATE, is_back).await.expect("in time");
        let lost = super::metric(server.http, "fanwire_cluster_durable_lost{stream=\"sessions\"}").await;
        assert_eq!(lost, 1.0);
    }
    let mut moved = Returning::connect(other.mqtt, "here", 255, None).await;
    assert!(moved.is_known);
    here.ends_taken_over().await;
    let mut back = Returning::connect(other.mqtt, "away", 255, None).await;
    assert!(back.is_known);
    assert_eq!(back.publish().await.2, 'a', "it has missed that");
    publisher.publish("orders", QoS::AtLeastOnce, "b").await;
    assert_eq!(moved.publish().await.2, 'b', "it had acknowledged the one before");
}

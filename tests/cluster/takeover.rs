//! A client identifier that connects to another node is there alone.

use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::QoS;
use serde_json::Value;

use crate::nats::Nats;
use crate::support::mqtt::{Bare, Client};
use crate::support::process::Process;
use crate::support::{http, within};
use crate::{three, until_ready_is};

/// CONNECT of version 5 with a will on `wills`, after so many seconds, of a session that lasts an hour.
fn connect(id: &str, clean_start: bool, will_delay_secs: u8) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x05".to_vec();
    body.push(0x04 | if clean_start { 2 } else { 0 });
    body.extend_from_slice(&[0, 60, 5, 0x11, 0, 0, 0x0e, 0x10]);
    let put = |body: &mut Vec<u8>, text: &str| {
        body.extend_from_slice(&u16::try_from(text.len()).expect("short").to_be_bytes());
        body.extend_from_slice(text.as_bytes());
    };
    put(&mut body, id);
    body.extend_from_slice(&[5, 0x18, 0, 0, 0, will_delay_secs]);
    put(&mut body, "wills");
    put(&mut body, id);
    let mut packet = vec![0x10, u8::try_from(body.len()).expect("short")];
    packet.append(&mut body);
    packet
}

async fn connected(address: SocketAddr, id: &str, clean_start: bool, will_delay_secs: u8) -> Bare {
    let mut bare = Bare::connect(address).await;
    bare.send(&connect(id, clean_start, will_delay_secs)).await;
    let head = bare.receive(4).await;
    assert_eq!((head[0], head[3]), (0x20, 0), "{head:?}");
    bare.receive(usize::from(head[1]) - 2).await;
    bare
}

/// Where clients of this identifier are, by what any node says.
async fn nodes_of(server: &Process, id: &str) -> Vec<String> {
    let list = http::get(server.http, "/v1/connections?scope=cluster&limit=1000").await.json();
    let list = list["connections"].as_array().expect("a list").iter();
    let text = |one: &Value| one["node"].as_str().expect("a node").to_owned();
    list.filter(|one| one["client_id"] == id).map(text).collect()
}

async fn until_alone(server: &Process, id: &str) -> String {
    within(async {
        loop {
            let nodes = nodes_of(server, id).await;
            if let [node] = &nodes[..] {
                return node.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_client_that_connects_elsewhere_is_closed_where_it_was() {
    let Some(nats) = Nats::start(&[]) else { return };
    let servers = three(&nats).await;
    let mut five = connected(servers[0].mqtt, "five", true, 0).await;
    let mut three = Bare::shake_hands(servers[1].mqtt, "three").await;
    let _five = connected(servers[1].mqtt, "five", false, 0).await;
    let rest = five.rest().await;
    assert!(rest.first() == Some(&0xe0) && rest.get(2) == Some(&0x8e), "{rest:x?}");
    let _three = Bare::shake_hands(servers[2].mqtt, "three").await;
    assert!(three.rest().await.is_empty(), "3.1.1 has no word for it");
    assert_eq!(until_alone(&servers[0], "five").await, "n2");
    assert_eq!(until_alone(&servers[0], "three").await, "n3");
    // What it was subscribed to before is nowhere any more, as the new node said that there was no session.
    let shown = http::get(servers[0].http, "/v1/connections").await.json();
    assert_eq!(shown["connections"], serde_json::json!([]));
}

#[tokio::test]
async fn a_session_whose_client_is_away_ends_with_a_connection_elsewhere() {
    let Some(nats) = Nats::start(&[]) else { return };
    let servers = three(&nats).await;
    let mut away = connected(servers[0].mqtt, "mover", false, 0).await;
    // SUBSCRIBE to `a` at QoS 1, SUBACK, DISCONNECT.
    away.send(b"\x82\x07\x00\x01\x00\x00\x01a\x01").await;
    away.receive(6).await;
    away.send(b"\xe0\x00").await;
    away.rest().await;
    let _here = connected(servers[1].mqtt, "mover", false, 0).await;
    within(async {
        while http::get(servers[0].http, "/v1/channels/a").await.status != 404 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_will_of_who_was_taken_over_is_as_on_one_node() {
    let Some(nats) = Nats::start(&[]) else { return };
    let servers = three(&nats).await;
    let mut wills = Client::connect(servers[2].mqtt, "listener").await;
    wills.subscribe("wills", QoS::AtMostOnce).await;
    let mut taken = Vec::new();
    // Without a delay it is said; with one it is not, unless the new connection wants nothing of the old session.
    for (id, clean_start, delay) in [("soon", false, 0), ("cancelled", false, 60), ("ended", true, 60)] {
        let mut old = connected(servers[0].mqtt, id, true, delay).await;
        // Not within the same millisecond, where either may be the later one.
        tokio::time::sleep(Duration::from_millis(5)).await;
        taken.push(connected(servers[1].mqtt, id, clean_start, delay).await);
        old.rest().await;
    }
    assert_eq!([wills.payload().await, wills.payload().await], ["soon", "ended"]);
    assert_eq!(wills.payload_if_any(Duration::from_millis(300)).await, None);
}

#[tokio::test]
async fn of_many_that_connect_at_once_one_is_left() {
    let Some(nats) = Nats::start(&[]) else { return };
    let servers = three(&nats).await;
    let mut racing = tokio::task::JoinSet::new();
    for number in 0..60 {
        let address = servers[number % 3].mqtt;
        racing.spawn(async move {
            // One that is taken over before its CONNACK has come is as good.
            let mut bare = Bare::connect(address).await;
            bare.send(&connect("racer", number % 2 == 0, 0)).await;
            bare
        });
    }
    let _open = racing.join_all().await;
    until_alone(&servers[0], "racer").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    for server in &servers {
        assert_eq!(nodes_of(server, "racer").await.len(), 1);
    }
}

#[tokio::test]
async fn clients_that_connected_while_nats_was_away_are_one_again_afterwards() {
    let Some(mut nats) = Nats::start(&[]) else { return };
    let servers = three(&nats).await;
    nats.kill();
    for server in &servers {
        until_ready_is(server.http, 503).await;
    }
    let mut first = connected(servers[0].mqtt, "twice", true, 0).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let _second = connected(servers[1].mqtt, "twice", true, 0).await;
    nats.restart();
    for server in &servers {
        until_ready_is(server.http, 200).await;
    }
    let rest = first.rest().await;
    assert!(rest.first() == Some(&0xe0) && rest.get(2) == Some(&0x8e), "{rest:x?}");
    assert_eq!(until_alone(&servers[2], "twice").await, "n2");
}

//! Clients of other nodes: listed, found, sent to, subscribed and closed from any node.

use std::net::SocketAddr;

use rumqttc::QoS;
use rustix::process::Signal;
use serde_json::Value;

use crate::nats::Nats;
use crate::support::http;
use crate::support::mqtt::Client;
use crate::support::process;
use crate::support::sse::EventStream;
use crate::{node_with, three};

async fn get(address: SocketAddr, target: &str) -> Value {
    let answer = http::get(address, target).await;
    assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    answer.json()
}

/// `name` of each of them.
fn each(list: &Value, name: &str) -> Vec<String> {
    let text = |one: &Value| one[name].as_str().map_or_else(|| one[name].to_string(), str::to_owned);
    let mut each: Vec<String> = list.as_array().expect("a list").iter().map(text).collect();
    each.sort();
    each
}

#[tokio::test]
async fn any_node_lists_the_clients_of_all() {
    let Some(nats) = Nats::start(&[]) else { return };
    let servers = three(&nats).await;
    let mut one = Client::connect(servers[0].mqtt, "one").await;
    one.subscribe("chat/+", QoS::AtMostOnce).await;
    let _two = EventStream::open(servers[1].http, "/sse/chat/room1").await;
    let _three = EventStream::open(servers[2].http, "/sse/elsewhere").await;
    for server in &servers {
        assert_eq!(each(&get(server.http, "/v1/connections").await["connections"], "node"), ["null"]);
        let list = get(server.http, "/v1/connections?scope=cluster").await;
        assert_eq!(each(&list["connections"], "node"), ["n1", "n2", "n3"]);
        assert_eq!((&list["partial"], &list["next"]), (&Value::Null, &Value::Null), "{list}");
        let list = get(server.http, "/v1/connections?scope=cluster&channel=chat/room1").await;
        assert_eq!(each(&list["connections"], "protocol"), ["mqtt", "sse"]);
        // By pages of one each comes once.
        let (mut nodes, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = get(server.http, &format!("/v1/connections?scope=cluster&limit=1{cursor}")).await;
            nodes.extend(each(&page["connections"], "node"));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        nodes.sort();
        assert_eq!(nodes, ["n1", "n2", "n3"]);
        let present = get(server.http, "/v1/presence/chat/room1").await;
        assert_eq!(
            (&present["connections"], each(&present["members"], "node")),
            (&2.into(), vec!["n1".to_owned(), "n2".to_owned()])
        );
        let numbers = get(server.http, "/v1/presence/chat/room1?stats=true").await;
        assert_eq!(numbers, serde_json::json!({"connections": 2, "users": 0}));
    }
    let present = get(servers[2].http, "/v1/presence/chat/room1?scope=node").await;
    assert_eq!(present["connections"], 0);
    let url = format!("http://{}", servers[2].http);
    let (code, out) = {
        let ended =
            process::run_with_input(&["connections", "--scope", "cluster", "--url", &url], &[], b"").await;
        (ended.code, ended.out)
    };
    assert!(code == Some(0) && out.contains("NODE") && out.contains("n1"), "{out}");
}

#[tokio::test]
async fn a_client_is_reached_from_any_node() {
    let Some(nats) = Nats::start(&[]) else { return };
    let servers = three(&nats).await;
    let mut one = Client::connect(servers[0].mqtt, "one").await;
    one.subscribe("own", QoS::AtMostOnce).await;
    let list = get(servers[0].http, "/v1/connections").await;
    let id = list["connections"][0]["id"].as_str().expect("an id").to_owned();
    let there = servers[2].http;
    let shown = get(there, &format!("/v1/connections/{id}")).await;
    assert_eq!((&shown["client_id"], &shown["node"]), (&"one".into(), &"n1".into()));
    let answer = http::post(there, &format!("/v1/connections/{id}/messages?channel=to/you"), "psst").await;
    assert_eq!((answer.status, one.payload().await), (200, "psst".to_owned()), "{}", answer.text());
    let filter = format!("/v1/connections/{id}/subscriptions/forced");
    assert_eq!(http::request(there, "PUT", &filter, &[], "").await.status, 204);
    let published = http::post(servers[0].http, "/v1/publish/forced", "for all").await;
    assert_eq!((published.status, one.payload().await), (200, "for all".to_owned()));
    assert_eq!(http::request(there, "DELETE", &filter, &[], "").await.status, 204);
    // Refused there in the words of the node that has it.
    let again = http::request(there, "DELETE", &filter, &[], "").await;
    assert_eq!((again.status, again.code()), (404, "not_subscribed".to_owned()));
    let too_large =
        http::post(there, &format!("/v1/connections/{id}/messages"), vec![b'x'; 1024 * 1024]).await;
    assert_eq!((too_large.status, too_large.code()), (413, "message_too_large".to_owned()));
    let closed =
        http::request(there, "DELETE", &format!("/v1/connections/{id}?reason=enough"), &[], "").await;
    assert_eq!(closed.status, 204, "{}", closed.text());
    one.ended().await;
    let gone = http::get(there, &format!("/v1/connections/{id}")).await;
    assert_eq!((gone.status, gone.code()), (410, "gone".to_owned()));
}

#[tokio::test]
async fn who_is_silent_is_said_to_be() {
    let Some(nats) = Nats::start(&[]) else { return };
    let servers = three(&nats).await;
    let _one = Client::connect(servers[0].mqtt, "one").await;
    let _two = Client::connect(servers[1].mqtt, "two").await;
    servers[1].signal(Signal::STOP);
    let list = get(servers[2].http, "/v1/connections?scope=cluster").await;
    assert_eq!((each(&list["connections"], "node"), &list["partial"]), (vec!["n1".to_owned()], &true.into()));
    let nowhere = http::request(servers[2].http, "DELETE", "/v1/connections/1", &[], "").await;
    assert_eq!((nowhere.status, nowhere.code()), (503, "node_silent".to_owned()));
    assert!(nowhere.header("retry-after").is_some());
    // After three beats it is not there any more, and nobody waits for it.
    until_listed(servers[2].http, &["n1"]).await;
    servers[1].signal(Signal::CONT);
    until_listed(servers[2].http, &["n1", "n2"]).await;
}

/// Until clients are listed on these nodes, and no other is waited for.
async fn until_listed(address: SocketAddr, nodes: &[&str]) {
    for _ in 0..300 {
        let list = get(address, "/v1/connections?scope=cluster").await;
        if list["partial"].is_null() && each(&list["connections"], "node") == nodes {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{nodes:?} are not there");
}

/// States of all nodes, once they are these.
async fn until_nodes_are(address: SocketAddr, states: &[&str]) -> Value {
    let mut list = Value::Null;
    for _ in 0..300 {
        list = get(address, "/v1/nodes").await;
        if each(&list["nodes"], "state") == states {
            return list;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{list}")
}

#[tokio::test]
async fn any_node_shows_how_all_are() {
    let Some(nats) = Nats::start(&[]) else { return };
    let servers = three(&nats).await;
    let mut one = Client::connect(servers[0].mqtt, "one").await;
    one.subscribe("chat", QoS::AtMostOnce).await;
    assert_eq!(http::post(servers[1].http, "/v1/publish/chat", "x").await.status, 200);
    assert_eq!(one.payload().await, "x");
    for (number, server) in servers.iter().enumerate() {
        let list = until_nodes_are(server.http, &["ready", "ready", "ready"]).await;
        assert_eq!(list["partial"], Value::Null);
        let nodes = list["nodes"].as_array().expect("a list");
        let here: Vec<_> = nodes.iter().map(|node| node["here"].as_bool()).collect();
        assert!(here.iter().enumerate().all(|(at, here)| *here == Some(at == number)), "{list}");
        let told = |name: &str| nodes.iter().map(|node| node[name].as_u64()).collect::<Option<Vec<_>>>();
        assert_eq!(told("connections"), Some(vec![1, 0, 0]), "{list}");
        assert_eq!(told("sent").map(|sent| sent[1]), Some(1), "{list}");
        assert_eq!(told("received").map(|received| received[0]), Some(1), "{list}");
        assert!(nodes.iter().all(|node| node["streams"].is_null() && node["version"].is_string()), "{list}");
    }
    servers[1].signal(Signal::STOP);
    let list = get(servers[2].http, "/v1/nodes").await;
    assert_eq!(
        (each(&list["nodes"], "state"), &list["partial"]),
        (["ready", "ready", "silent"].map(str::to_owned).to_vec(), &true.into())
    );
    assert!(list["nodes"][1]["heard_ms"].is_u64() && list["nodes"][1]["connections"].is_null(), "{list}");
    until_nodes_are(servers[2].http, &["gone", "ready", "ready"]).await;
    // That one may have been asked still.
    let list = get(servers[2].http, "/v1/nodes").await;
    assert!(list["nodes"][1]["heard_ms"].as_u64() >= Some(7_000) && list["partial"].is_null(), "{list}");
    servers[1].signal(Signal::CONT);
    until_nodes_are(servers[2].http, &["ready", "ready", "ready"]).await;
    // One that says goodbye is gone at once.
    servers[0].signal(Signal::TERM);
    let list = until_nodes_are(servers[2].http, &["gone", "ready", "ready"]).await;
    assert_eq!(list["nodes"][0]["name"], "n1");
}

/// A key's rate is spent on one node, and nothing is left of it on another.
#[tokio::test]
async fn a_key_has_one_rate_over_all_nodes() {
    let Some(nats) = Nats::start(&[]) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let secret = fanwire::auth::NewKey::generate().expect("random numbers");
    let file = folder.path().join("keys.toml");
    let key = format!(
        "[[keys]]\nid = \"k1\"\nhash = \"{}\"\nrights = [{{ actions = [\"publish\"], channels = [\"**\"] }}]\nrate = 1\nburst = 60\n",
        secret.hash
    );
    std::fs::write(&file, key).expect("a file");
    let mut servers = Vec::new();
    for name in ["n1", "n2"] {
        servers.push(node_with(&nats, name, &["--config", file.to_str().expect("a path")]).await);
    }
    let authorization = format!("Bearer {}", secret.secret);
    let headers = [("authorization", &*authorization)];
    let publish =
        async |at: SocketAddr| http::request(at, "POST", "/v1/publish/a", &headers, "x").await.status;
    let mut spent = 0;
    while publish(servers[0].http).await == 200 {
        spent += 1;
    }
    assert!(spent >= 60, "{spent}");
    // By itself it has all of the burst, and no more than half of it goes in the time until it has heard.
    let mut taken = 0;
    while publish(servers[1].http).await == 200 {
        taken += 1;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(taken < 40, "{taken}");
}

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
use crate::three;

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

//! Bayeux sessions of a node that is no more: another one advises to shake hands again.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::nats::Nats;
use crate::support::bayeux::Poller;
use crate::support::http;
use crate::three;

#[tokio::test]
async fn a_session_of_a_node_that_ends_shakes_hands_with_another() {
    let Some(nats) = Nats::start(&[]) else { return };
    let servers = three(&nats).await;
    let mut poller = Poller::handshake(servers[0].http).await;
    poller.subscribe("/chat").await;
    assert_eq!(http::post(servers[1].http, "/v1/publish/chat", "1").await.status, 200);
    assert_eq!(poller.events(1).await[0]["data"], 1);
    let (id, cookie) = (poller.client_id.clone(), poller.cookie().expect("a cookie").to_owned());
    servers[0].signal(Signal::KILL);
    // As a balancer sends its next request, whatever that is, to whoever is left.
    let there = servers[1].http;
    let headers = [("content-type", "application/json"), ("cookie", &*cookie)];
    let connect = json!([{"channel": "/meta/connect", "clientId": id, "connectionType": "long-polling"}]);
    let subscribe = json!([{"channel": "/meta/subscribe", "clientId": id, "subscription": "/chat"}]);
    for (asked, advice) in [(&connect, json!("handshake")), (&subscribe, Value::Null)] {
        let answer = http::request(there, "POST", "/cometd", &headers, asked.to_string()).await.json();
        let reply = &answer[0];
        assert_eq!((&reply["successful"], &reply["error"]), (&json!(false), &json!("402::session_unknown")));
        assert_eq!(reply["advice"]["reconnect"], advice, "only connects carry the advice: {answer}");
    }
    // What a client does then: its subscriptions are made anew, and messages of any node come.
    let mut again = Poller::handshake(there).await;
    assert_ne!(again.client_id, id);
    again.subscribe("/chat").await;
    assert_eq!(http::post(servers[2].http, "/v1/publish/chat", "2").await.status, 200);
    assert_eq!(again.events(1).await[0]["data"], 2);
}

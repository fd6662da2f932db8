//! Salesforce's integers over the death of the server that gave them.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::bayeux::Poller;
use crate::support::http::post_json;
use crate::support::process::Process;

async fn subscribe(poller: &mut Poller, from: Value) -> Value {
    let message = json!([{"channel": "/meta/subscribe", "clientId": poller.client_id, "subscription": "/event/x",
        "ext": {"replay": {"/event/x": from}}}]);
    let answer = poller.post(&message).await;
    answer.as_array().and_then(|answer| answer.last()).expect("a reply").clone()
}

/// A life of the server: `count` messages, and their ids as a client gets them that asks for all.
async fn live(server: &Process, count: usize) -> Vec<u64> {
    for number in 0..count {
        post_json(server.http, "/v1/publish/event/x", format!("{{\"n\":{number}}}")).await;
    }
    let mut poller = Poller::handshake(server.http).await;
    assert_eq!(subscribe(&mut poller, json!(-2)).await["successful"], true);
    let events = poller.events(count).await;
    events.iter().map(|event| event["data"]["event"]["replayId"].as_u64().expect("an integer")).collect()
}

#[tokio::test]
async fn an_integer_of_a_server_that_was_killed_is_refused_by_the_next_one() {
    let mut known: Vec<u64> = Vec::new();
    for _ in 0..3 {
        let mut server = Process::start(&["--config", "tests/binary/replay_ids.toml"]).await;
        let ids = live(&server, 6).await;
        assert!(ids.is_sorted() && known.last() < ids.first(), "{ids:?} after {known:?}");
        let mut poller = Poller::handshake(server.http).await;
        for id in known.iter().copied().chain([5]) {
            let reply = subscribe(&mut poller, json!(id)).await;
            let error = reply["error"].as_str().unwrap_or_default();
            assert!(
                error.starts_with(&format!("400::The replayId {{{id}}} you provided was invalid.")),
                "{reply}"
            );
        }
        assert_eq!(subscribe(&mut poller, json!(ids[3])).await["successful"], true);
        let after: Vec<Value> =
            poller.events(2).await.iter().map(|event| event["data"]["n"].clone()).collect();
        assert_eq!(after, [4, 5]);
        known.extend(ids);
        server.signal(Signal::KILL);
        server.exit().await;
    }
}

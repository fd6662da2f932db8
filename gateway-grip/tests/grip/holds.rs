//! Clients of HTTP that are held as their origin says: responses that wait.

use broker_core::{Channel, Publish};
use serde_json::{Value, json};

use crate::support::{Origin, Server, Stream, within};

/// A route to an origin, in front of a broker.
pub(crate) async fn held(more: Value) -> (Origin, Server) {
    let origin = Origin::start().await;
    let mut route = json!({"id": "a", "dialect": "grip", "path": "/**", "origin": origin.url()});
    for (name, value) in more.as_object().unwrap() {
        route[name] = value.clone();
    }
    (origin, Server::start(json!([route])).await)
}

impl Server {
    pub(crate) async fn items(&self, items: Value) -> Value {
        let body = json!({ "items": items }).to_string();
        let request = format!(
            "POST /grip/publish/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAccept: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self.ask(&request).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        serde_json::from_str::<Value>(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap()["results"].clone()
    }

    /// A client that has asked and waits.
    pub(crate) async fn asks(&self, origin: &mut Origin, answer: &str) -> Stream {
        let mut client = self.connect().await;
        client.send("GET /live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        origin.answer(answer).await;
        client
    }

    /// Until so many are held.
    pub(crate) async fn holding(&self, count: usize) {
        within(async {
            let is_held = |(_, connection): &(_, std::sync::Arc<dyn broker_core::Connection>)| {
                connection.peer().is_some_and(|peer| peer.protocol == "grip")
            };
            while self.broker.connections(None, 100).iter().filter(|one| is_held(one)).count() != count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

pub(crate) fn answer(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

const WAIT: &str = "grip-hold: response\r\ngrip-channel: room\r\nx-kept: 1\r\nx-replaced: old\r\n";

#[tokio::test]
async fn a_response_waits_and_is_what_is_published() {
    let (mut origin, server) = held(json!({})).await;
    let mut client = server.asks(&mut origin, &answer(WAIT, "nothing new")).await;
    server.holding(1).await;
    let results = server
        .items(json!([{"channel": "room", "id": "1", "formats": {"http-response":
            {"code": 201, "reason": "Made", "headers": [["X-Replaced", "new"], ["x-list", "1"], ["x-list", "2"]], "body": "news"}}}]))
        .await;
    assert_eq!(results[0]["receivers"], 1);
    let got = client.rest().await;
    assert!(got.starts_with("HTTP/1.1 201 Made\r\n"), "{got}");
    assert!(got.ends_with("\r\n\r\nnews") && got.contains("content-length: 4\r\n"), "{got}");
    for line in ["x-kept: 1\r\n", "x-replaced: new\r\n", "x-list: 1\r\n", "x-list: 2\r\n"] {
        assert!(got.contains(line), "{line} in {got}");
    }
    assert!(!got.contains("grip-") && !got.contains("old"), "{got}");
    server.holding(0).await;
}

#[tokio::test]
async fn a_document_instructs_as_headers_do() {
    let (mut origin, server) = held(json!({"channel_prefix": "p/"})).await;
    let document = json!({"hold": {"mode": "response", "channels": [{"name": "room"}]},
        "response": {"code": 200, "headers": {"Content-Type": "application/json"}, "body": "{\"a\": [1]}"}});
    let told = answer("content-type: application/grip-instruct; charset=utf-8\r\n", &document.to_string());
    let mut client = server.asks(&mut origin, &told).await;
    server.holding(1).await;
    let patch = json!([{"op": "add", "path": "/a/-", "value": 2}]);
    server.items(json!([{"channel": "p/room", "http-response": {"body-patch": patch}}])).await;
    let got = client.rest().await;
    assert!(got.ends_with("\r\n\r\n{\"a\":[1,2]}"), "{got}");
    assert!(got.contains("content-type: application/json\r\n"), "{got}");
    // One that cannot be changed so is the origin's own.
    let mut client = server.asks(&mut origin, &told).await;
    server.holding(1).await;
    let patch = json!([{"op": "remove", "path": "/b"}]);
    server.items(json!([{"channel": "p/room", "http-response": {"body-patch": patch}}])).await;
    assert!(client.rest().await.ends_with("\r\n\r\n{\"a\": [1]}"));
}

#[tokio::test]
async fn each_of_200_channels_may_have_a_header_of_its_own() {
    let (mut origin, server) = held(json!({})).await;
    let channels = |count| (0..count).map(|n| format!("grip-channel: room/{n}\r\n")).collect::<String>();
    let told = answer(&format!("grip-hold: response\r\n{}", channels(200)), "nothing new");
    let mut client = server.asks(&mut origin, &told).await;
    server.holding(1).await;
    let news = json!([{"channel": "room/199", "http-response": {"body": "news"}}]);
    assert_eq!(server.items(news).await[0]["receivers"], 1);
    assert!(client.rest().await.ends_with("\r\n\r\nnews"));
    let told = answer(&format!("grip-hold: response\r\n{}", channels(201)), "nothing new");
    let refused = server.asks(&mut origin, &told).await.rest().await;
    assert!(refused.starts_with("HTTP/1.1 502 "), "{refused}");
}

#[tokio::test]
async fn what_is_published_while_the_origin_is_asked_is_not_lost() {
    let (mut origin, server) = held(json!({})).await;
    let mut client = server.connect().await;
    client.send("GET /live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let mut asked = origin.accept().await;
    asked.head().await;
    server.items(json!([{"channel": "room", "http-response": {"body": "meanwhile"}}])).await;
    asked.send(&answer(WAIT, "nothing new")).await;
    assert!(client.rest().await.ends_with("\r\n\r\nmeanwhile"));
    assert!(origin.is_alone(), "it is not asked again");
}

#[tokio::test]
async fn what_follows_an_id_is_there_at_once() {
    let (mut origin, server) = held(json!({})).await;
    let item =
        |id: &str| json!({"channel": "room", "id": id, "http-response": {"body": format!("no. {id}")}});
    server.items(json!([item("1"), item("2"), item("3")])).await;
    let after =
        |id: &str| answer(&format!("grip-hold: response\r\ngrip-channel: room; prev-id={id}\r\n"), "own");
    assert!(server.asks(&mut origin, &after("1")).await.rest().await.ends_with("no. 2"));
    let mut client = server.asks(&mut origin, &after("3")).await;
    server.holding(1).await;
    server.items(json!([item("4")])).await;
    assert!(client.rest().await.ends_with("no. 4"));
    // Nobody knows what follows this one: the client has to come again.
    assert!(server.asks(&mut origin, &after("gone")).await.rest().await.ends_with("own"));
}

#[tokio::test]
async fn messages_of_other_protocols_are_answers_and_formats_are_not_made_up() {
    let (mut origin, server) = held(json!({})).await;
    let mut client = server.asks(&mut origin, &answer(WAIT, "own")).await;
    server.holding(1).await;
    server.items(json!([{"channel": "room", "ws-message": {"content": "not for it"}}])).await;
    server.broker.publish(Publish::new(Channel::parse("room").unwrap(), "{}").json()).unwrap();
    let got = client.rest().await;
    assert!(got.starts_with("HTTP/1.1 200 ") && got.ends_with("\r\n\r\n{}"), "{got}");
    assert!(got.contains("content-type: application/json\r\n") && got.contains("x-kept: 1\r\n"), "{got}");
}

#[tokio::test]
async fn a_response_is_the_origins_own_in_the_end() {
    let (mut origin, server) = held(json!({})).await;
    let short =
        format!("{WAIT}grip-timeout: 1\r\ngrip-status: 404 Not There\r\ngrip-expose-headers: x-kept\r\n");
    let mut waits = server.asks(&mut origin, &answer(&short, "own")).await;
    let mut closed = server.asks(&mut origin, &answer(WAIT, "own")).await;
    server.holding(2).await;
    let (_, connection) = server.broker.connections(None, 100).remove(1);
    assert_eq!(connection.details().subscriptions, ["room"]);
    connection.close(&broker_core::CloseCause::Administrative(None));
    assert!(closed.rest().await.ends_with("own"));
    let got = waits.rest().await;
    assert!(got.starts_with("HTTP/1.1 404 Not There\r\n") && got.ends_with("\r\n\r\nown"), "{got}");
    assert!(got.contains("x-kept: 1\r\n") && !got.contains("x-replaced"), "{got}");
}

#[tokio::test]
async fn filters_decide_what_an_answer_is() {
    let (mut origin, server) = held(json!({})).await;
    let told = "grip-hold: response\r\ngrip-channel: room; filter=skip-self; filter=var-subst\r\ngrip-set-meta: user=\"ann\"\r\n";
    let mut client = server.asks(&mut origin, &answer(told, "own")).await;
    server.holding(1).await;
    let say = |more: Value| {
        let mut item = json!({"channel": "room", "http-response": {"body": "for %(user)s"}});
        for (name, value) in more.as_object().unwrap() {
            item[name] = value.clone();
        }
        item
    };
    let other = json!({"body": "other", "content-filters": ["build-id"]});
    server
        .items(json!([
            say(json!({"meta": {"sender": "ann"}})),
            // Kept inside, so sent to each client that is there.
            say(json!({"meta": {"sender": "ann"}, "bridge": false})),
            say(json!({"http-response": other})),
            say(json!({}))
        ]))
        .await;
    assert!(client.rest().await.ends_with("\r\n\r\nfor ann"));
}

#[tokio::test]
async fn a_wrong_instruction_is_an_error_and_never_a_hang() {
    let (mut origin, server) = held(json!({"debug": true})).await;
    for (told, why) in [
        ("grip-hold: forever\r\ngrip-channel: a\r\n", "not known"),
        ("grip-hold: stream\r\n", "on no channel"),
        ("grip-hold: response\r\ngrip-channel: $SYS/a\r\n", "broker's own"),
        ("grip-hold: response\r\ngrip-channel: a\r\ngrip-timeout: soon\r\n", "not a number"),
        ("content-type: application/grip-instruct\r\n", "not JSON"),
    ] {
        let (got, _) = tokio::join!(server.get("/"), async { origin.answer(&answer(told, "{")).await });
        assert!(got.starts_with("HTTP/1.1 502 ") && got.contains(why), "{told} {got}");
    }
    let (got, _) = tokio::join!(server.get("/"), async {
        origin.answer(&answer("grip-status: 403 No\r\nx-a: 1\r\n", "not you")).await
    });
    assert!(got.starts_with("HTTP/1.1 403 No\r\n") && got.ends_with("not you"), "{got}");
    assert!(got.contains("x-a: 1") && !got.contains("grip-"), "{got}");
}

#[tokio::test]
async fn a_hint_has_the_origin_asked_again() {
    let (mut origin, server) = held(json!({})).await;
    let mut client = server.asks(&mut origin, &answer(WAIT, "own")).await;
    server.holding(1).await;
    let hint = json!([{"channel": "room", "http-response": {"action": "hint"}}]);
    server.items(hint.clone()).await;
    // It may hold the client again, on another channel.
    let told = "grip-hold: response\r\ngrip-channel: other\r\nx-new: 1\r\n";
    let head = origin.answer(&answer(told, "new")).await;
    assert!(head.starts_with("GET /live ") && head.contains("grip-feature"), "{head}");
    crate::support::within(async {
        let on = |(_, one): &(_, std::sync::Arc<dyn broker_core::Connection>)| {
            one.details().subscriptions == ["other"]
        };
        while !server.broker.connections(None, 100).iter().any(on) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.items(json!([{"channel": "other", "http-response": {"action": "hint"}}])).await;
    origin.answer(&answer("x-last: 1\r\n", "there")).await;
    let got = client.rest().await;
    assert!(got.ends_with("\r\n\r\nthere") && got.contains("x-last: 1\r\n"), "{got}");
    assert!(!got.contains("x-new") && !got.contains("x-kept"), "{got}");
}

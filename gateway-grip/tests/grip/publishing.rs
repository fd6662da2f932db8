//! What backends publish with libraries for GRIP, as readers of other protocols get it.

use std::time::Duration;

use broker_core::{Channel, Filter, HistoryQuery};
use serde_json::{Value, json};

use crate::support::{Server, within};

impl Server {
    async fn publish(&self, headers: &str, body: &str) -> String {
        let length = body.len();
        let request = format!(
            "POST /grip/publish/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        );
        self.ask(&request).await
    }

    fn log(&self, channel: &str) -> Vec<(String, Option<String>)> {
        let history =
            self.broker.history(&Filter::literal(Channel::parse(channel).unwrap()), HistoryQuery::default());
        let shown = |message: &std::sync::Arc<broker_core::Message>| {
            let id = message.properties().and_then(|properties| {
                properties.user.iter().find(|(name, _)| &**name == "grip_id").map(|(_, id)| id.to_string())
            });
            (String::from_utf8_lossy(message.payload()).into_owned(), id)
        };
        history.messages.iter().map(shown).collect()
    }
}

fn stream(id: &str, prev_id: &str, content: &str) -> Value {
    json!({"channel": "a", "id": id, "prev-id": prev_id, "formats": {"http-stream": {"content": content}}})
}

#[tokio::test]
async fn an_item_is_a_message_of_its_channel_with_its_id() {
    let server = Server::start(json!([])).await;
    let mut messages = server.broker.subscribe("a".parse().unwrap()).unwrap();
    let items = json!({"items": [
        {"channel": "a", "id": "1", "formats": {"http-stream": {"content": "event: e\ndata: {\"n\":1}\n\n"}}},
        {"channel": "a", "http-response": {"body": "text"}},
        {"channel": "a", "ws-message": {"content": "hidden"}, "bridge": false},
        {"channel": "b/*", "ws-message": {"content": "m"}}]});
    let answer = server.publish("Accept: application/json\r\n", &items.to_string()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(body["message"], "Published");
    assert_eq!(body["results"][0], json!({"id": "1", "receivers": 1, "duplicate": false}));
    assert_eq!(body["results"][2], json!({"id": null, "receivers": 0, "duplicate": false}));
    let first = within(messages.message()).await.unwrap();
    assert_eq!((&first.payload()[..], first.event()), (&br#"{"n":1}"#[..], Some("e")));
    assert_eq!(server.log("a"), [(r#"{"n":1}"#.to_owned(), Some("1".to_owned())), ("text".to_owned(), None)]);
    assert_eq!(server.log("b/*").len(), 1, "a star is a name like any other");
    let again = server.publish("", &items.to_string()).await;
    assert!(again.ends_with("\r\n\r\nPublished\n"), "{again}");
    assert_eq!(server.log("a").len(), 3, "an id is taken once");
}

#[tokio::test]
async fn items_come_in_the_order_that_their_publisher_says() {
    let server = Server::start(json!([])).await;
    let publish = async |items: Vec<Value>| server.publish("", &json!({"items": items}).to_string()).await;
    publish(vec![stream("1", "0", "one")]).await;
    publish(vec![stream("3", "2", "three")]).await;
    assert_eq!(server.log("a").len(), 1);
    publish(vec![stream("2", "1", "two")]).await;
    let texts: Vec<String> = server.log("a").into_iter().map(|(text, _)| text).collect();
    assert_eq!(texts, ["one", "two", "three"]);
    // What it waits for never comes: it is sent late, not dropped.
    publish(vec![stream("9", "8", "nine")]).await;
    assert_eq!(server.log("a").len(), 3);
    within(async {
        while server.log("a").len() < 4 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_is_said_and_nothing_is_published() {
    let server = Server::start(json!([])).await;
    let good = json!({"channel": "a", "ws-message": {"content": "x"}});
    for (items, status, said) in [
        (json!({"items": [good, {"ws-message": {"content": "x"}}]}), 400, "items[1].channel: is missing"),
        (json!({"items": [good, {"channel": "$x", "ws-message": {"content": "x"}}]}), 400, "items[1]"),
        (json!({"items": 1}), 400, "items"),
        (json!([]), 400, ""),
    ] {
        let answer = server.publish("", &items.to_string()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(said), "{answer}");
    }
    assert_eq!(server.log("a"), []);
    let long =
        format!(r#"{{"items":[{{"channel":"a","ws-message":{{"content":"{}"}}}}]}}"#, "x".repeat(2 << 20));
    assert!(server.publish("", &long).await.starts_with("HTTP/1.1 413 "));
    for (request, status) in [
        ("GET /grip/publish/", 405),
        ("POST /grip/other", 404),
        ("GET /grip", 200),
        ("GET /grip/", 200),
        ("GET /gripe", 404),
    ] {
        let answer = server
            .ask(&format!("{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"))
            .await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
}

#[tokio::test]
async fn a_key_publishes_to_its_channels_and_nobody_without_one() {
    let keys =
        json!({"control_keys": [{"iss": "app", "key": "base64:c2VjcmV0", "channels": ["a/**"], "rate": 3}]});
    let server = Server::start_with(json!([]), keys).await;
    let item =
        |channel: &str| json!({"items": [{"channel": channel, "ws-message": {"content": "x"}}]}).to_string();
    for (headers, channel, status) in [
        ("", "a/b", 401),
        ("Authorization: Bearer wrong\r\n", "a/b", 401),
        ("Authorization: Bearer secret\r\n", "b", 403),
        ("Authorization: Bearer secret\r\n", "a/b", 200),
        ("Authorization: Basic YXBwOnNlY3JldA==\r\n", "a/b", 200),
        ("Authorization: Bearer secret\r\n", "a/b", 200),
        ("Authorization: Bearer secret\r\n", "a/b", 429),
    ] {
        let answer = server.publish(headers, &item(channel)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{headers}{channel}: {answer}");
    }
}

#[tokio::test]
async fn a_connection_to_the_control_port_publishes_again_and_again() {
    let server = Server::start(json!([])).await;
    let mut stream = server.control().await;
    let body = json!({"items": [{"channel": "a", "ws-message": {"content": "x"}}]}).to_string();
    for path in ["/publish/", "/publish", "/grip/publish/"] {
        stream
            .send(&format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
            .await;
        let answer = stream.until("Published\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
    stream.send("GET /v1/figures HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(stream.rest().await.starts_with("HTTP/1.1 404 "));
    assert_eq!(server.log("a").len(), 3);
}

#[tokio::test]
async fn pages_of_other_sites_publish_nothing_and_none_does_on_the_control_port() {
    let server = Server::start(json!([])).await;
    let item = json!({"items": [{"channel": "a", "http-stream": {"content": "x"}}]}).to_string();
    let refused = server.publish("Origin: https://evil.example\r\n", &item).await;
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    let own = server.publish("Origin: http://localhost:3000\r\n", &item).await;
    assert!(own.starts_with("HTTP/1.1 200 "), "{own}");
    let mut control = server.control().await;
    let length = item.len();
    // A page that has given the server a name of its own is of the same origin.
    let head = format!(
        "POST /publish/ HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{item}"
    );
    control.send(&head).await;
    let refused = control.rest().await;
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    assert_eq!(server.log("a").len(), 1);
}

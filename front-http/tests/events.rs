//! CloudEvents over real sockets.

mod support;

use serde_json::json;
use support::Server;

const STRUCTURED: &str = "Content-Type: application/cloudevents+json\r\n";
const BATCHED: &str = "Content-Type: application/cloudevents-batch+json\r\n";

fn event(id: &str, more: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"{id}","source":"/shop","type":"order.made"{more}}}"#)
}

#[tokio::test]
async fn a_structured_event_keeps_its_text_and_is_published_once() {
    let server = Server::start().await;
    let mut stream = server.stream("/sse/orders/7?format=json").await;
    let text = event("1", r#","subject":"orders/7", "data":{"n":12345678901234567890}"#);
    let first = server.post("/v1/events", STRUCTURED, &text).await.json();
    assert_eq!((&first["channel"], &first["duplicate"]), (&json!("orders/7"), &json!(false)));
    let got = stream.event().await;
    assert!(
        got.contains(&format!("\"data\":{text},\"content_type\":\"application/cloudevents+json\"")),
        "{got}"
    );
    let again = server.post("/v1/events", STRUCTURED, &text).await.json();
    assert_eq!((&again["id"], &again["duplicate"]), (&first["id"], &json!(true)));
    let other = server.post("/v1/events", STRUCTURED, event("1", r#","subject":"orders/7""#)).await;
    assert_eq!((other.status, other.code().as_str()), (409, "idempotency_mismatch"));
}

#[tokio::test]
async fn a_binary_event_is_published_as_a_structured_one() {
    let server = Server::start().await;
    let mut stream = server.stream("/sse/c").await;
    let headers = "ce-specversion: 1.0\r\nce-id: a%20b\r\nce-source: /shop\r\nce-type: t\r\nContent-Type: application/json\r\n";
    let answer = server.post("/v1/events?channel=c", headers, r#"{"x":1e400}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let data = stream.event().await;
    let data = data.lines().find_map(|line| line.strip_prefix("data: ")).unwrap().to_owned();
    assert!(data.contains(r#""id":"a b""#) && data.ends_with(r#""data":{"x":1e400}}"#), "{data}");
    let missing = server.post("/v1/events?channel=c", "ce-specversion: 1.0\r\nce-id: 1\r\n", "x").await;
    assert_eq!((missing.status, missing.code().as_str()), (422, "invalid_event"));
}

#[tokio::test]
async fn a_bad_event_harms_no_other_of_its_batch() {
    let server = Server::start().await;
    let batch = format!(
        "[{},{},{}]",
        event("1", r#","channel":"a""#),
        event("", ""),
        event("2", r#","subject":"*""#)
    );
    let json = server.post("/v1/events", BATCHED, batch).await.json();
    assert_eq!(json["errors"], 2);
    assert_eq!(json["results"][0]["channel"], "a");
    assert_eq!(json["results"][1]["error"]["code"], "invalid_event");
    assert_eq!(json["results"][1]["error"]["status"], 422);
    assert_eq!(json["results"][2]["error"]["code"], "invalid_channel");
}

#[tokio::test]
async fn what_is_no_event_is_refused() {
    let server = Server::start().await;
    for (headers, body, status, code) in [
        (STRUCTURED, "{", 400, "invalid_json"),
        (STRUCTURED, "{}", 422, "invalid_event"),
        (STRUCTURED, "[]", 422, "invalid_event"),
        (BATCHED, "{}", 400, "invalid_json"),
        ("Content-Type: application/json\r\n", "{}", 415, "unsupported_media_type"),
        ("", "{}", 415, "unsupported_media_type"),
    ] {
        let answer = server.post("/v1/events", headers, body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{headers}{body}");
    }
    let deep = event("1", &format!(r#","data":{}{}"#, "[".repeat(200_000), "]".repeat(200_000)));
    assert_eq!(server.post("/v1/events", STRUCTURED, deep).await.code(), "json_too_deep");
}

#[tokio::test]
async fn webhooks_shake_hands() {
    let server = Server::start().await;
    let asked = "WebHook-Request-Origin: events.example.com\r\nWebHook-Request-Rate: 120\r\n";
    let answer = server.ask("OPTIONS /v1/events", asked, b"").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("webhook-allowed-origin"), Some("events.example.com"));
    assert_eq!(answer.header("webhook-allowed-rate"), Some("120"));
    assert_eq!(answer.header("allow"), Some("POST"));
    assert_eq!(server.ask("OPTIONS /v1/events", "", b"").await.status, 204);
}

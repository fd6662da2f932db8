//! `/v1/sources`.

use std::sync::Arc;
use std::time::Duration;

use broker_core::AllowAll;
use front::Front as _;
use gateway::resource::Door;
use http::Request;
use http_body_util::BodyExt;
use http_edge::{Body, OriginPolicy, TokenSources};
use serde_json::{Value, json};
use sources::Front;

use crate::support::{Life, Upstream, ok, within};

pub(crate) fn front_of(life: &Life) -> Front {
    let door = Door::new(Arc::new(AllowAll), OriginPolicy::default(), TokenSources::default());
    Front::new(life.sources.clone(), door)
}

/// The status, and the body as JSON.
pub(crate) async fn asked(front: &Front, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request::builder().method(method).uri(path).body(Body::full(bytes)).unwrap();
    let answer = within(front.handle(None, request)).await;
    let status = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_source_is_put_shown_paused_and_taken_away() {
    let upstream = Upstream::start(|number, _| ok("", &format!("page {number}"))).await;
    let life = Life::start_with(&[], upstream.port().parse().unwrap());
    let front = front_of(&life);
    let source = json!({"kind": "poll", "url": upstream.url, "channel": "a", "interval": "1s", "headers": {"x-key": "secret"}});
    let (code, shown) = asked(&front, "PUT", "/v1/sources/feed", &source).await;
    assert_eq!((code, &shown["id"], &shown["kind"]), (201, &json!("feed"), &json!("poll")));
    assert_eq!(life.hear("a").text().await, "page 0");
    let (code, shown) = asked(&front, "GET", "/v1/sources/feed", &Value::Null).await;
    assert_eq!(
        (code, &shown["state"], &shown["attempts"], &shown["error"]),
        (200, &json!("open"), &json!(0), &Value::Null)
    );
    assert!(!shown.to_string().contains("secret"));
    let (code, shown) = asked(&front, "POST", "/v1/sources/feed/pause", &Value::Null).await;
    assert_eq!((code, &shown["state"]), (200, &json!("paused")));
    let requests = upstream.heads().len();
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    assert_eq!(upstream.heads().len(), requests, "it rests");
    assert_eq!(asked(&front, "POST", "/v1/sources/feed/resume", &Value::Null).await.0, 200);
    let mut heard = life.hear("a");
    while heard.text().await == "page 0" {}
    assert_eq!(asked(&front, "POST", "/v1/sources/feed/messages", &json!(1)).await.1["code"], "not_open");
    assert_eq!(asked(&front, "PUT", "/v1/sources/feed", &source).await.0, 200);
    let (_, list) = asked(&front, "GET", "/v1/sources", &Value::Null).await;
    assert_eq!(list["sources"].as_array().map(Vec::len), Some(1));
    assert_eq!(asked(&front, "DELETE", "/v1/sources/feed", &Value::Null).await.0, 204);
    assert_eq!(asked(&front, "DELETE", "/v1/sources/feed", &Value::Null).await.0, 404);
}

#[tokio::test]
async fn what_cannot_be_meant_or_reached_is_refused_when_it_is_put() {
    let life = Life::start(&[]);
    let front = front_of(&life);
    for (source, code, said) in [
        (
            json!({"kind": "poll", "url": "http://127.0.0.1:81/", "channel": "a"}),
            "address_denied",
            "port 81 is neither 80 nor 443",
        ),
        (
            json!({"kind": "poll", "url": "http://10.0.0.1/", "channel": "a"}),
            "address_denied",
            "10.0.0.1 is a private network",
        ),
        (json!({"kind": "poll", "url": "http://0x7f000001:81/", "channel": "a"}), "address_denied", ""),
        (
            json!({"kind": "poll", "url": "http://a.example/"}),
            "invalid_source",
            "channel: where its messages go",
        ),
        (
            json!({"kind": "poll", "url": "http://a.example/", "channel": "a", "id": "b"}),
            "invalid_source",
            "`id` is another one",
        ),
        (json!([]), "invalid_source", "an object is a source"),
    ] {
        let (status, problem) = asked(&front, "PUT", "/v1/sources/feed", &source).await;
        assert_eq!((status, &problem["code"]), (400, &json!(code)), "{source}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(said), "{source}: {problem}");
    }
    assert_eq!(asked(&front, "GET", "/v1/sources", &Value::Null).await.1, json!({"sources": []}));
}

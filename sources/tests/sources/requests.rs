//! Single requests over the HTTP resource.

use std::time::Duration;

use serde_json::{Value, json};

use crate::resources::{asked, front_of};
use crate::support::{Heard, Life, Upstream, ok, status};

async fn reply(heard: &mut Heard) -> Value {
    serde_json::from_str(&heard.text().await).unwrap()
}

#[tokio::test]
async fn an_answer_is_one_message_on_the_reply_channel() {
    let upstream = Upstream::start(|_, head| {
        assert!(head.starts_with("POST /job HTTP/1.1\r\n") && head.ends_with("{\"n\":1}"), "{head}");
        assert!(
            head.contains("x-key: secret\r\n") && head.contains("content-type: application/json\r\n"),
            "{head}"
        );
        ok("content-type: application/json\r\nx-a: b\r\n", "{\"done\":true}")
    })
    .await;
    let life = Life::start_with(&[], upstream.port().parse().unwrap());
    let front = front_of(&life);
    let mut heard = life.hear("jobs/7");
    let wanted = json!({"url": format!("{}/job", upstream.url), "headers": {"x-key": "secret"}, "data": {"n": 1},
        "reply_channel": "jobs/7", "key": "k"});
    let (code, taken) = asked(&front, "POST", "/v1/requests", &wanted).await;
    assert_eq!(code, 202);
    let answer = reply(&mut heard).await;
    assert_eq!(
        (&answer["id"], &answer["status"], &answer["data"]),
        (&taken["id"], &json!(200), &json!({"done": true}))
    );
    assert!(answer["headers"].as_array().unwrap().contains(&json!(["x-a", "b"])), "{answer}");
    assert!(answer["duration_ms"].is_u64());
    // The same again is the same; something else under its key is not.
    assert_eq!(asked(&front, "POST", "/v1/requests", &wanted).await, (202, taken));
    let mut other = wanted.clone();
    other["data"] = json!({"n": 2});
    let (code, problem) = asked(&front, "POST", "/v1/requests", &other).await;
    assert_eq!((code, &problem["code"]), (409, &json!("idempotency_conflict")));
    heard.nothing(Duration::from_millis(200)).await;
    assert_eq!(upstream.heads().len(), 1);
}

#[tokio::test]
async fn what_fails_is_tried_again_and_said_once() {
    let upstream = Upstream::start(|number, head| match number {
        _ if head.starts_with("GET /large") => ok("", "too much"),
        0 => status("503 Service Unavailable"),
        _ => ok("", "well"),
    })
    .await;
    let life = Life::start_with(&[], upstream.port().parse().unwrap());
    let front = front_of(&life);
    let mut heard = life.hear("r");
    let request = |more: Value| {
        let mut request = json!({"url": upstream.url, "reply_channel": "r"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    assert_eq!(asked(&front, "POST", "/v1/requests", &request(json!({"retry": 3}))).await.0, 202);
    let answer = reply(&mut heard).await;
    assert_eq!((&answer["status"], &answer["text"]), (&json!(200), &json!("well")));
    let large = request(json!({"url": format!("{}/large", upstream.url), "max_response": 3}));
    assert_eq!(asked(&front, "POST", "/v1/requests", &large).await.0, 202);
    let answer = reply(&mut heard).await;
    assert_eq!(answer["error"]["condition"], "too-large", "{answer}");
    let nobody = request(json!({"url": format!("http://127.0.0.2:{}/", upstream.port())}));
    assert_eq!(asked(&front, "POST", "/v1/requests", &nobody).await.0, 202);
    assert_eq!(reply(&mut heard).await["error"]["condition"], "connection-failed");
    heard.nothing(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn where_nobody_may_connect_to_is_refused_before_anything_is_sent() {
    let upstream = Upstream::start(|_, _| ok("", "")).await;
    let life = Life::start(&[]);
    let front = front_of(&life);
    let wanted = json!({"url": upstream.url, "reply_channel": "r"});
    let (code, problem) = asked(&front, "POST", "/v1/requests", &wanted).await;
    assert_eq!((code, &problem["code"]), (403, &json!("policy")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("gateway.allow_ports"), "{problem}");
    let (code, problem) = asked(&front, "POST", "/v1/requests", &json!({"url": upstream.url})).await;
    assert_eq!((code, &problem["code"]), (400, &json!("invalid_request")));
    assert_eq!(upstream.heads(), [""; 0]);
}

#[tokio::test]
async fn what_a_url_says_of_its_host_is_judged_at_once_for_requests_and_sources() {
    let life = Life::start_closed();
    let front = front_of(&life);
    for host in
        ["localhost", "app.localhost.", "127.1", "0x7f000001", "[::ffff:10.0.0.1]", "[64:ff9b::a00:1]"]
    {
        let request = json!({"url": format!("http://{host}/"), "reply_channel": "r"});
        let (code, problem) = asked(&front, "POST", "/v1/requests", &request).await;
        assert_eq!((code, &problem["code"]), (403, &json!("policy")), "{host}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains("gateway.allow_addresses"), "{host}: {problem}");
        for (kind, scheme) in [("poll", "http"), ("websocket", "ws")] {
            let source = json!({"kind": kind, "url": format!("{scheme}://{host}/"), "channel": "a"});
            let (code, problem) = asked(&front, "PUT", "/v1/sources/a", &source).await;
            assert_eq!((code, &problem["code"]), (400, &json!("address_denied")), "{host}: {problem}");
        }
    }
}

#[tokio::test]
async fn one_that_is_under_way_can_be_taken_back_and_says_so() {
    let upstream =
        Upstream::start(|_, _| "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n<open>".to_owned()).await;
    let life = Life::start_with(&[], upstream.port().parse().unwrap());
    let front = front_of(&life);
    let mut heard = life.hear("r");
    let (_, taken) =
        asked(&front, "POST", "/v1/requests", &json!({"url": upstream.url, "reply_channel": "r"})).await;
    let path = format!("/v1/requests/{}", taken["id"].as_str().unwrap());
    assert_eq!(asked(&front, "DELETE", &path, &Value::Null).await.0, 204);
    let answer = reply(&mut heard).await;
    assert_eq!((&answer["id"], &answer["error"]["condition"]), (&taken["id"], &json!("cancelled")));
    assert_eq!(asked(&front, "DELETE", &path, &Value::Null).await.0, 404);
}

use fanwire::{ContentType, Filter};

use crate::support::http::{post, post_json, request};
use crate::support::{TestServer, within};

#[tokio::test]
async fn one_request_reaches_a_subscriber_and_is_answered_with_its_id() {
    let server = TestServer::start().await;
    let mut all = server.broker.subscribe(Filter::parse("chat/*").unwrap()).unwrap();
    let answer =
        post_json(server.http, "/v1/publish/chat/room1?event=said", r#"{"n": 12345678901234567890}"#).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let message = within(all.message()).await.unwrap();
    assert_eq!(&message.payload()[..], br#"{"n": 12345678901234567890}"#);
    assert!(message.content_type().is_some_and(ContentType::is_json));
    assert_eq!(message.event(), Some("said"));
    let said = answer.json();
    assert_eq!(said["channel"], "chat/room1");
    assert_eq!(said["receivers"], 1);
    assert_eq!(said["id"], message.id().unwrap().to_string());
}

#[tokio::test]
async fn any_bytes_are_a_payload() {
    let server = TestServer::start().await;
    let mut all = server.broker.subscribe(Filter::parse("b").unwrap()).unwrap();
    let bytes: Vec<u8> = (0..=255).collect();
    let headers = [("content-type", "application/octet-stream")];
    assert_eq!(request(server.http, "POST", "/v1/publish/b", &headers, bytes.clone()).await.status, 200);
    assert_eq!(within(all.message()).await.unwrap().payload(), &bytes);
}

#[tokio::test]
async fn a_bad_item_harms_no_other() {
    let server = TestServer::start().await;
    let mut all = server.broker.subscribe(Filter::parse("a").unwrap()).unwrap();
    let items = r#"[{"channel":"a","data":1},{"channel":"","data":2},{"channel":"a","data":3}]"#;
    let answer = post_json(server.http, "/v1/publish", items).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["errors"], 1);
    for expected in ["1", "3"] {
        assert_eq!(within(all.message()).await.unwrap().payload(), expected);
    }
}

#[tokio::test]
async fn mistakes_have_a_code() {
    let server = TestServer::start().await;
    let cases = [
        ("POST", "/v1/publish/a/*/b", "x", 400, "invalid_channel"),
        ("POST", "/v1/publish", "{", 400, "invalid_json"),
        ("GET", "/v1/publish/a", "", 405, "method_not_allowed"),
        ("GET", "/v1/nothing", "", 404, "not_found"),
        ("GET", "/nothing", "", 404, "not_found"),
    ];
    for (method, target, body, status, code) in cases {
        let answer = request(server.http, method, target, &[], body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {target}: {answer:?}");
    }
}

#[tokio::test]
async fn a_payload_over_the_limit_is_413() {
    let server = TestServer::with(|config| config.broker.max_message_bytes = 1000).await;
    assert_eq!(post(server.http, "/v1/publish/a", vec![b'x'; 1000]).await.status, 200);
    assert_eq!(post(server.http, "/v1/publish/a", vec![b'x'; 1001]).await.status, 413);
}

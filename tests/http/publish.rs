use std::net::SocketAddr;

use fanwire::{ContentType, Filter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::http::{post, post_json, request};
use crate::support::{PATIENCE, TestServer, within};

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

/// Python's `requests`, among others, reads nothing before it has sent everything.
#[tokio::test]
async fn lines_are_taken_from_a_client_that_reads_only_after_it_has_sent_all() {
    const LINES: usize = 50_000;
    let server = TestServer::start().await;
    let body: String = (0..LINES).map(|n| format!("{{\"channel\":\"nd\",\"data\":{n}}}\n")).collect();
    let answer = timeout(PATIENCE * 6, write_then_read(server.http, &body)).await.expect("no stall");
    assert_eq!(answer.matches("\"duplicate\":false").count(), LINES, "{}", &answer[..answer.len().min(500)]);
}

#[tokio::test]
async fn results_beyond_their_bound_wait_for_a_client_that_reads() {
    let server = TestServer::with(|config| config.api.max_result_bytes = 100).await;
    let body = "{\"channel\":\"nd\",\"data\":1}\n".repeat(2_000);
    let lines = [("content-type", "application/x-ndjson")];
    let answer = request(server.http, "POST", "/v1/publish", &lines, body).await;
    assert_eq!(answer.text().lines().count(), 2_000);
}

/// Sends a whole request before it reads a byte, with little room in the kernel for what it leaves unread.
async fn write_then_read(address: SocketAddr, body: &str) -> String {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 << 10).expect("a buffer");
    let mut stream = socket.connect(address).await.expect("the server listens");
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    stream.write_all(body.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    answer
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
        ("POST", "/v1/publish/%zz", "x", 400, "invalid_channel"),
        ("POST", "/v1/publish/%ff", "x", 400, "invalid_channel"),
        ("POST", "/v1/publish/a?ttl=1&ttl=2", "x", 400, "invalid_parameter"),
        ("POST", "/v1/publish/a?event=%ff", "x", 400, "invalid_parameter"),
        ("POST", "/v1/events?channel=a&channel=b", "{}", 400, "invalid_parameter"),
        ("PUT", "/v1/retained/a?retain=false", "x", 400, "invalid_parameter"),
        ("DELETE", "/v1/retained/a?x=1", "", 400, "invalid_parameter"),
        ("GET", "/v1/channels/a?x=1", "", 400, "invalid_parameter"),
        ("GET", "/v1/connections/1?x=1", "", 400, "invalid_parameter"),
        ("PUT", "/v1/connections/1/subscriptions/a?x=1", "", 400, "invalid_parameter"),
        ("GET", "/v1/history/a?limit=1&limit=2", "", 400, "invalid_parameter"),
    ];
    for (method, target, body, status, code) in cases {
        let answer = request(server.http, method, target, &[], body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {target}: {answer:?}");
    }
}

/// A script's variable that is not set leaves an empty name, which must not make a batch of the body.
#[tokio::test]
async fn an_empty_name_is_no_channel_and_never_a_batch() {
    let server = TestServer::start().await;
    let mut other = server.broker.subscribe(Filter::parse("other").unwrap()).unwrap();
    let item = r#"{"channel":"other","data":1}"#;
    for (method, target) in [
        ("POST", "/v1/publish/"),
        ("GET", "/v1/history/"),
        ("GET", "/v1/retained/"),
        ("PUT", "/v1/retained/"),
        ("GET", "/v1/channels/"),
        ("GET", "/v1/presence/"),
        ("PUT", "/v1/connections/1/subscriptions/"),
    ] {
        let answer = request(server.http, method, target, &[], item).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_channel"), "{method} {target}");
    }
    assert_eq!(post(server.http, "/v1/publish", item.replace('1', "2")).await.status, 200);
    assert_eq!(within(other.message()).await.unwrap().payload(), "2", "and nothing before it");
}

#[tokio::test]
async fn of_two_idempotency_keys_none_is_taken() {
    let server = TestServer::start().await;
    for target in ["/v1/publish/a", "/v1/publish"] {
        let keys = [("idempotency-key", "one"), ("idempotency-key", "two")];
        let answer = request(server.http, "POST", target, &keys, r#"{"channel":"a","data":1}"#).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_parameter"), "{target}");
    }
}

#[tokio::test]
async fn a_payload_over_the_limit_is_413() {
    let server = TestServer::with(|config| config.broker.max_message_bytes = 1000).await;
    assert_eq!(post(server.http, "/v1/publish/a", vec![b'x'; 1000]).await.status, 200);
    assert_eq!(post(server.http, "/v1/publish/a", vec![b'x'; 1001]).await.status, 413);

    // A client that keeps its connection hears that this one ends.
    let mut stream = TcpStream::connect(server.http).await.expect("it listens");
    let head = "POST /v1/publish/a HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        assert!(within(stream.read_buf(&mut answer)).await.expect("an answer") > 0);
    }
    let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 413 ") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
}

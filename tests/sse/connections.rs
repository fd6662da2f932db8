//! What else may stand on a connection beside a stream, and what a stream's head says.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::http::request;
use crate::support::{TestServer, within};

/// A connection that sends what it is told and shows every byte that comes back.
struct Raw {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Raw {
    async fn send(server: &TestServer, text: &str) -> Raw {
        let mut stream = TcpStream::connect(server.http).await.expect("the server listens");
        stream.write_all(text.as_bytes()).await.expect("written");
        Raw { stream, received: Vec::new() }
    }

    /// Takes everything up to and with `end`.
    async fn until(&mut self, end: &str) -> String {
        within(async {
            loop {
                let found = self.received.windows(end.len()).position(|window| window == end.as_bytes());
                if let Some(at) = found {
                    let rest = self.received.split_off(at + end.len());
                    return String::from_utf8(std::mem::replace(&mut self.received, rest)).expect("UTF-8");
                }
                let mut piece = [0; 4096];
                let read = self.stream.read(&mut piece).await.expect("it can be read");
                assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&self.received));
                self.received.extend_from_slice(&piece[..read]);
            }
        })
        .await
    }
}

#[tokio::test]
async fn a_stream_may_follow_other_requests_sent_in_the_same_breath() {
    let server = TestServer::start().await;
    let mut raw = Raw::send(
        &server,
        "POST /v1/publish/other HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhiHEAD /sse/a HTTP/1.1\r\nHost: x\r\n\r\n\
         GET /sse HTTP/1.1\r\nHost: x\r\n\r\nGET /sse/a HTTP/1.1\r\nHost: x\r\n\r\nGET /sse/b HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    .await;
    assert!(raw.until("\"duplicate\":false}").await.starts_with("HTTP/1.1 200 OK\r\n"));
    let head = raw.until("\r\n\r\n").await;
    assert!(
        head.contains("content-type: text/event-stream\r\n") && !head.contains("content-length"),
        "{head}"
    );
    assert!(raw.until("b/*\"}").await.starts_with("HTTP/1.1 400 Bad Request\r\n"), "a HEAD has no body");
    let head = raw.until("\r\n\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("transfer-encoding: chunked\r\n"),
        "{head}"
    );
    assert!(raw.until("\n\r\n").await.contains("\r\nid: "), "a chunk with where it begins");
    // What is pipelined behind a stream is discarded: `b` has no subscriber.
    assert_eq!(server.publish("b", "nobody").receivers, 0);
    let id = server.publish("a", "one").id.expect("recorded");
    let event = format!("id: {id}\ndata: one\n\n");
    assert_eq!(raw.until("\n\n\r\n").await, format!("{:x}\r\n{event}\r\n", event.len()));
}

#[tokio::test]
async fn the_head_is_the_same_however_the_stream_is_carried() {
    let server = TestServer::start().await;
    let carried = [
        ("GET /sse/a HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1", true),
        ("GET /sse/a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab", "HTTP/1.1", true),
        (
            "GET /sse/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            "HTTP/1.1",
            true,
        ),
        ("GET /sse/a HTTP/1.0\r\n\r\n", "HTTP/1", false),
        ("GET /sse/a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "HTTP/1", false),
        ("GET /sse/a HTTP/1.0\r\nContent-Length: 2\r\n\r\nab", "HTTP/1", false),
    ];
    for (request, version, chunked) in carried {
        let mut raw = Raw::send(&server, request).await;
        let head = raw.until("\r\n\r\n").await;
        let mut lines = head.lines();
        let status = lines.next().expect("a status line");
        assert!(status.starts_with(version) && status.ends_with(" 200 OK"), "{head}");
        let fields: Vec<_> = lines.collect();
        for field in [
            "content-type: text/event-stream",
            "cache-control: no-store, no-transform",
            "x-accel-buffering: no",
        ] {
            assert_eq!(fields.iter().filter(|line| **line == field).count(), 1, "{field} in {head}");
        }
        assert!(!head.contains("content-length"), "{head}");
        assert_eq!(head.contains("transfer-encoding: chunked"), chunked, "{head}");
        // Node's `fetch` takes the end of a connection that was to close for the end of the body, chunks or not.
        assert_eq!(head.contains("connection: close"), !chunked, "{head}");
        let start = raw.until("\n").await;
        let start = if chunked { raw.until("\n").await } else { start };
        assert!(start.starts_with("id: "), "{start:?}");
        server.publish("a", "one");
        let event = raw.until("data: one\n\n").await;
        assert!(event.contains("id: "), "{event}");
    }
}

#[tokio::test]
async fn a_preflight_allows_what_fetch_based_clients_send_and_is_remembered_for_ten_minutes() {
    let server = TestServer::start().await;
    let headers = [
        ("origin", "http://localhost:3000"),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "last-event-id,authorization,cache-control"),
    ];
    let answer = request(server.http, "OPTIONS", "/sse/a", &headers, "").await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:3000"));
    assert_eq!(answer.header("vary"), Some("Origin"));
    assert_eq!(answer.header("access-control-max-age"), Some("600"));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    let allowed = answer.header("access-control-allow-headers").expect("a list").to_ascii_lowercase();
    for name in ["last-event-id", "authorization", "cache-control"] {
        assert!(allowed.split(", ").any(|one| one == name), "{name} in {allowed}");
    }
}

#[tokio::test]
async fn a_name_that_could_forge_a_field_is_refused_however_it_is_published() {
    let server = TestServer::start().await;
    let json = [("content-type", "application/json")];
    let lines = [("content-type", "application/x-ndjson")];
    let event = |name: &str| format!(r#"{{"channel":"a","data":1,"event":"{name}"}}"#);
    for name in ["a\\nid: 7", "a\\rb", "\\r\\n", "a\\u000ab"] {
        for (headers, body) in
            [(&json, event(name)), (&json, format!("[{}]", event(name))), (&lines, event(name))]
        {
            let answer = request(server.http, "POST", "/v1/publish", headers, body.clone()).await;
            let said = answer.text().to_owned();
            let refused = answer.status == 400 || said.contains(r#""status":400"#);
            assert!(refused && said.contains("line break"), "{body}: {} {said}", answer.status);
        }
    }
    for target in
        ["/v1/publish/a?event=x%0Ay", "/v1/publish/a?event=x%0Dy", "/v1/events?channel=a&event=x%0Dy"]
    {
        assert_eq!(request(server.http, "POST", target, &[], "1").await.status, 400, "{target}");
    }
    assert_eq!(request(server.http, "PUT", "/v1/retained/a?event=x%0Ay", &[], "1").await.status, 400);
    assert_eq!(server.broker.stats().published, 0);
}

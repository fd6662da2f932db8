//! What no client would send. The server answers in HTTP's terms, or closes, and lives.

use std::time::{Duration, Instant};

use fanwire::Filter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::http::{get, post_json, raw, request};
use crate::support::{TestServer, within};

#[tokio::test]
async fn garbage_is_answered_or_closed_and_the_server_lives() {
    let server = TestServer::start().await;
    let zeros = vec![0; 70_000];
    let noise: Vec<u8> = (0..70_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let cases: [&[u8]; 8] = [
        b"\r\n\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03abc\r\n\r\n",
        &zeros,
        &noise,
    ];
    for bytes in cases {
        let mut stream = TcpStream::connect(server.http).await.expect("the server listens");
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = within(stream.read_to_end(&mut answer)).await;
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(20)]).into_owned();
        assert!(
            answer.is_empty()
                || shown.starts_with("HTTP/1.1 4")
                || shown.starts_with("HTTP/1.1 505")
                || answer[3..9] == [0, 0, 4, 0, 0, 0]
                || answer.len() < 200,
            "{shown:?}"
        );
    }
    assert_eq!(get(server.http, "/healthz").await.status, 200);
}

#[tokio::test]
async fn an_endless_head_is_cut_off() {
    let server = TestServer::start().await;
    let mut head = b"GET / HTTP/1.1\r\nhost: x\r\nx-long: ".to_vec();
    head.resize(200_000, b'a');
    let answer = raw(server.http, &head).await;
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
}

/// What hyper alone would answer without a body, and without the headers by which a page may read it.
#[tokio::test]
async fn what_is_no_request_and_a_head_that_is_too_long_are_problems_that_their_page_can_read() {
    let server = TestServer::start().await;
    let page = "origin: http://localhost:3000\r\n";
    let long = "x".repeat(20_000);
    for (asked, status, code) in [
        (format!("GET /sse?channel={long} HTTP/1.1\r\nhost: x\r\n{page}\r\n"), 431, "request_head_too_large"),
        (
            format!("GET /v1/history/a HTTP/1.1\r\nhost: x\r\n{page}cookie: {long}\r\n\r\n"),
            431,
            "request_head_too_large",
        ),
        (
            format!("GET /cometd HTTP/1.1\r\nhost: x\r\ncookie: {long}\r\n{page}\r\n"),
            431,
            "request_head_too_large",
        ),
        (format!("GET /healthz HTTP/9.9\r\nhost: x\r\n{page}\r\n"), 505, "version_not_supported"),
        (format!("GET /healthz\r\nhost: x\r\n{page}\r\n"), 400, "malformed_request"),
        (format!("GET /a b HTTP/1.1\r\nhost: x\r\n{page}\r\n"), 400, "malformed_request"),
        (format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{page}bad name: x\r\n\r\n"), 400, "malformed_request"),
        (
            format!("POST /v1/publish/a HTTP/1.1\r\nhost: x\r\n{page}content-length: x\r\n\r\n"),
            400,
            "malformed_request",
        ),
        (
            format!("POST /v1/publish/a HTTP/1.1\r\n{page}content-length: 1\r\n\r\nx"),
            400,
            "malformed_request",
        ),
        (format!("GET /healthz HTTP/1.1\r\nhost: x\r\nhost: x\r\n{page}\r\n"), 400, "malformed_request"),
    ] {
        let answer = String::from_utf8(raw(server.http, asked.as_bytes()).await).expect("UTF-8");
        let asked = &asked[..asked.len().min(60)];
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{asked}: {answer:?}"));
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{asked}: {answer}");
        let problem: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!((&problem["code"], &problem["status"]), (&code.into(), &status.into()), "{asked}");
        for field in [
            "content-type: application/problem+json",
            "access-control-allow-origin: http://localhost:3000",
            "access-control-allow-credentials: true",
            "connection: close",
            &format!("content-length: {}", body.len()),
        ] {
            assert!(head.split("\r\n").any(|line| line == field), "{field} for {asked}: {head}");
        }
        assert!(head.contains("\r\nx-request-id: "), "{head}");
    }
    let first = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGARBAGE\r\n\r\n";
    let answer = String::from_utf8(raw(server.http, first.as_bytes()).await).expect("UTF-8");
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\"malformed_request\""),
        "{answer}"
    );
    assert_eq!(get(server.http, "/healthz").await.status, 200);
}

/// RFC 9112 §6.1: of two proxies one may believe each.
#[tokio::test]
async fn two_lengths_are_refused_in_any_order_and_nothing_of_the_body_is_a_request() {
    let server = TestServer::start().await;
    for [first, second] in [
        ["content-length: 4", "transfer-encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 4"],
    ] {
        let asked = format!(
            "POST /v1/publish/a HTTP/1.1\r\nhost: x\r\n{first}\r\n{second}\r\n\r\n1\r\nx\r\n0\r\n\r\n\
             GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
        );
        let answer = String::from_utf8(raw(server.http, asked.as_bytes()).await).expect("UTF-8");
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("malformed_request"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
    for only in ["content-length: 1\r\n\r\nx", "transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"] {
        let asked = format!(
            "POST /v1/publish/a HTTP/1.1\r\nhost: x\r\n{only}\
             GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        );
        let answer = String::from_utf8(raw(server.http, asked.as_bytes()).await).expect("UTF-8");
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    }
}

#[tokio::test]
async fn a_long_field_over_http2_is_431_with_a_problem() {
    let server = TestServer::start().await;
    let mut client = crate::support::http::http2(server.http).await;
    let asked = http::Request::get(format!("http://{}/healthz", server.http))
        .header("origin", "http://localhost:3000")
        .header("x-long", "x".repeat(20_000))
        .body(http_body_util::Empty::new())
        .expect("legal");
    let answer = within(client.send_request(asked)).await.expect("an answer");
    assert_eq!(answer.status(), 431);
    assert_eq!(answer.headers()["access-control-allow-origin"], "http://localhost:3000");
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
}

#[tokio::test]
async fn a_hundred_megabytes_are_413_whether_announced_or_not() {
    const BODY: usize = 100 << 20;
    let server = TestServer::start().await;
    for (framing, target) in [
        ("content-length: 104857600", "/v1/publish/a"),
        ("transfer-encoding: chunked", "/v1/publish/a"),
        ("transfer-encoding: chunked", "/v1/publish"),
    ] {
        let mut stream = TcpStream::connect(server.http).await.expect("the server listens");
        let head = format!("POST {target} HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("written");
        let (mut reading, mut writing) = stream.into_split();
        let sender = tokio::spawn(async move {
            let mut piece = vec![b' '; 1 << 20];
            if framing.starts_with("transfer") {
                piece.splice(..0, *b"100000\r\n");
                piece.extend_from_slice(b"\r\n");
            }
            // The server stops reading; then this fails.
            for _ in 0..BODY >> 20 {
                if writing.write_all(&piece).await.is_err() {
                    return;
                }
            }
        });
        let mut answer = vec![0; 12];
        within(reading.read_exact(&mut answer)).await.expect("an answer while the body is still coming");
        assert_eq!(answer, b"HTTP/1.1 413", "{framing} {target}");
        drop(reading);
        sender.abort();
    }
    assert_eq!(get(server.http, "/healthz").await.status, 200);
}

#[tokio::test]
async fn deep_json_is_an_error_where_it_is_parsed_and_bytes_where_it_is_not() {
    let server = TestServer::start().await;
    let mut all = server.broker.subscribe(Filter::parse("deep").unwrap()).unwrap();
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    assert_eq!(post_json(server.http, "/v1/publish/deep", deep.clone()).await.status, 200);
    assert_eq!(within(all.message()).await.unwrap().payload(), &deep);

    let item = format!(r#"{{"channel":"deep","data":{deep}}}"#);
    assert_eq!(post_json(server.http, "/v1/publish", item).await.code(), "json_too_deep");
    assert_eq!(post_json(server.http, "/v1/publish", deep.clone()).await.json()["errors"], 1);
    // Nothing of it makes an envelope or a Bayeux message that nobody could parse.
    let history = get(server.http, "/v1/history/deep").await;
    assert_eq!(history.status, 200);
    assert!(history.json()["messages"][0].get("data").is_none(), "not as JSON");
}

#[tokio::test]
async fn half_open_and_silent_connections_are_closed_in_time() {
    let server =
        TestServer::with(|config| config.connection.header_read_timeout = Duration::from_millis(300)).await;
    let begun = Instant::now();
    let mut silent = TcpStream::connect(server.http).await.expect("the server listens");
    let mut half = TcpStream::connect(server.http).await.expect("the server listens");
    half.write_all(b"GET / HTTP/1.1\r\nhos").await.expect("written");
    for stream in [&mut silent, &mut half] {
        let mut rest = Vec::new();
        let _ = within(stream.read_to_end(&mut rest)).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_thousand_one_shot_publishers_leave_nothing_behind() {
    let server = TestServer::start().await;
    let before = std::fs::read_dir("/proc/self/fd").expect("a list").count();
    for n in 0..1000 {
        let close = [("connection", "close")];
        assert_eq!(request(server.http, "POST", "/v1/publish/a", &close, n.to_string()).await.status, 200);
    }
    crate::support::eventually(|| std::fs::read_dir("/proc/self/fd").expect("a list").count() <= before + 2)
        .await;
}

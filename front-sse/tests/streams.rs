//! Streams over real sockets.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::{
    Action, AllowAll, Anonymous, AuthError, Channel, ContentType, Filter, LogConfig, NamespaceConfig,
    OutboxConfig, OutboxPolicy, Principal, Publish, Rights, Rule, unix_ms,
};
use bytes::Bytes;
use front_sse::Config;
use support::{Framing, Server, eventually};

fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

#[tokio::test]
async fn a_message_reaches_a_stream_taken_back_from_hyper() {
    let server = Server::start().await;
    let mut client = server.open("/sse/chat/room1").await;
    let head = client.head.to_lowercase();
    for line in [
        "http/1.1 200 ok",
        "content-type: text/event-stream",
        "cache-control: no-store, no-transform",
        "x-accel-buffering: no",
        "transfer-encoding: chunked",
        "vary: origin",
    ] {
        assert!(head.contains(line), "{line} in {head}");
    }
    assert!(!head.contains("content-length") && !head.contains("connection:"), "{head}");
    let opening = client.until("\n").await;
    assert_eq!(opening, format!("id: {}\n", server.broker.head()), "a line comes at once");
    let receipt = server.publish("chat/room1", "hello");
    assert_eq!(receipt.receivers, 1);
    let id = receipt.id.unwrap();
    assert_eq!(client.event().await, format!("id: {id}\ndata: hello\n\n"));
}

#[tokio::test]
async fn json_is_the_envelope_and_exact() {
    let server = Server::start().await;
    let mut client = server.open("/sse?channel=a/*&channel=b").await;
    let text = r#"{"n":12345678901234567890, "x":1e400}"#;
    let receipt = server.broker.publish(Publish::new(channel("a/1"), text).json().event("tick")).unwrap();
    let event = client.event().await;
    let id = receipt.id.unwrap();
    let start = format!("id: {id}\nevent: tick\ndata: {{\"channel\":\"a/1\",\"id\":\"{id}\",\"time\":\"2");
    assert!(event.starts_with(&start), "{event}");
    let end = format!("\"data\":{text},\"event\":\"tick\",\"content_type\":\"application/json\"}}\n\n");
    assert!(event.ends_with(&end), "{event}");
    server.broker.publish(Publish::new(channel("b"), Bytes::from_static(b"\xff"))).unwrap();
    assert!(client.event().await.contains("\"base64\":\"/w==\"}"));
}

#[tokio::test]
async fn bytes_come_as_a_binary_event_in_raw() {
    let server = Server::start().await;
    let mut client = server.open("/sse/a?format=raw").await;
    let bytes = Publish::new(channel("a"), Bytes::from_static(b"\x00\xff")).content_type(ContentType::BYTES);
    server.broker.publish(bytes).unwrap();
    let event = client.event().await;
    assert!(event.contains("\nevent: binary\ndata: {\"channel\":\"a\""), "{event}");
    assert!(event.contains("\"base64\":\"AP8=\""), "{event}");
}

#[tokio::test]
async fn overlapping_filters_bring_a_message_once() {
    let server = Server::start().await;
    server.broker.publish(Publish::new(channel("a/b"), "kept").retain(true)).unwrap();
    let mut client = server.open("/sse?channel=a/b&channel=a/*&channel=a/%23&channel=%23").await;
    assert!(client.event().await.contains("\"text\":\"kept\""));
    assert_eq!(server.publish("a/b", "1").receivers, 4);
    server.publish("a/b", "2");
    assert!(client.event().await.contains("\"data\":1"));
    assert!(client.event().await.contains("\"data\":2"));
    assert!(client.is_silent().await);
}

#[tokio::test]
async fn a_stream_resumes_after_its_last_id_and_goes_on_live() {
    let server = Server::start().await;
    let first = server.publish("a", "1").id.unwrap();
    server.publish("b", "x");
    server.publish("a", "2");
    let mut client = server.open_with("/sse/a", &format!("Last-Event-ID: {first}\r\n")).await;
    assert!(client.event().await.ends_with("data: 2\n\n"));
    let live = server.publish("a", "3");
    assert_eq!(client.event().await, format!("id: {}\ndata: 3\n\n", live.id.unwrap()));
    assert!(client.is_silent().await);
}

#[tokio::test]
async fn every_spelling_of_the_last_id_is_read_and_the_header_wins() {
    let server = Server::start().await;
    let first = server.publish("a", "1").id.unwrap();
    server.publish("a", "2");
    let header = format!("Last-Event-ID: {first}\r\n");
    for (query, header) in [
        (format!("last_event_id={first}"), ""),
        (format!("lastEventId={first}"), ""),
        (format!("lastEventID={first}"), ""),
        (format!("Last-Event-ID={first}"), ""),
        ("last_event_id=zz-9".to_owned(), header.as_str()),
    ] {
        let mut client = server.open_with(&format!("/sse/a?{query}"), header).await;
        assert!(client.event().await.ends_with("data: 2\n\n"), "{query} {header}");
        assert!(client.is_silent().await);
    }
    let mut all = server.open("/sse/a?last_event_id=earliest").await;
    assert!(all.event().await.ends_with("data: 1\n\n"));
    assert!(all.event().await.ends_with("data: 2\n\n"));
}

#[tokio::test]
async fn a_stream_begins_with_a_position_that_can_be_resumed_from() {
    let server = Server::start().await;
    server.publish("a", "before");
    let mut client = server.open("/sse/a").await;
    let opening = client.until("\n").await;
    let id = opening.strip_prefix("id: ").unwrap().trim();
    drop(client);
    server.publish("a", "missed");
    let mut client = server.open_with("/sse/a", &format!("Last-Event-ID: {id}\r\n")).await;
    assert!(client.event().await.ends_with("data: missed\n\n"));
}

#[tokio::test]
async fn a_position_that_is_gone_is_told() {
    let mut small = LogConfig::default();
    small.max_bytes = 64 << 10;
    let mut core = broker_core::Config::default();
    core.log = small;
    let server = Server::with(core, Config::default(), Arc::new(AllowAll)).await;
    let old = server.publish("a", "first").id.unwrap();
    for _ in 0..100 {
        server.publish("a", &"x".repeat(4 << 10));
    }
    let last = server.publish("a", "last").id.unwrap();
    let mut client = server.open_with("/sse/a", &format!("Last-Event-ID: {old}\r\n")).await;
    let gap = client.event().await;
    let (id, rest) = gap.split_once('\n').unwrap();
    assert!(rest.starts_with("event: gap\ndata: {\"channel\":\"a\",\"requested\":\""), "{gap}");
    assert!(rest.contains(&format!("\"requested\":\"{old}\"")), "{gap}");
    let first = id.strip_prefix("id: ").unwrap();
    assert!(rest.contains(&format!("\"first\":\"{first}\"")), "the oldest that can be resumed from: {gap}");
    while !client.event().await.contains(&last.to_string()) {}
    for unknown in ["nonsense", "zz9-5", "\"\\x"] {
        let mut client = server.open_with("/sse/a", &format!("Last-Event-ID: {unknown}\r\n")).await;
        let gap = client.event().await;
        let shown = unknown.replace('\\', "\\\\").replace('"', "\\\"");
        assert!(gap.contains(&format!("\"requested\":\"{shown}\"")), "{gap}");
        while !client.event().await.contains(&last.to_string()) {}
    }
    assert!(server.front.stats().gaps >= 4);
}

#[tokio::test]
async fn a_gap_with_nothing_after_it_is_told_once() {
    for target in ["/sse/a", "/sse?channel=a&channel=b/*"] {
        let server = Server::start().await;
        let mut client = server.open_with(target, "Last-Event-ID: elsewhere-7\r\n").await;
        let told = if target == "/sse/a" { 1 } else { 2 };
        let mut ids = Vec::new();
        for _ in 0..told {
            let gap = client.event().await;
            assert!(gap.contains("event: gap\n") && gap.contains("\"next\":null"), "{gap}");
            ids.extend(gap.strip_prefix("id: ").and_then(|rest| rest.lines().next()).map(str::to_owned));
        }
        assert_eq!(ids.len(), 1, "the last one, so that whoever is cut between them is told of all again");
        drop(client);
        let header = format!("Last-Event-ID: {}\r\n", ids[0]);
        let mut client = server
            .open_with(&format!("{target}{}", if told == 1 { "?format=json" } else { "" }), &header)
            .await;
        server.publish("a", "live");
        let event = client.event().await;
        assert!(event.contains("\"text\":\"live\""), "not told again: {event}");
    }
}

#[tokio::test]
async fn a_gap_moves_no_position_past_what_is_kept() {
    let mut log = LogConfig::default();
    log.max_bytes = 64 << 10;
    let namespaces = vec![NamespaceConfig::new("small".to_owned(), log)];
    let mut core = broker_core::Config::default();
    core.namespaces = namespaces;
    let server = Server::with(core, Config::default(), Arc::new(AllowAll)).await;
    let old = server.publish("small/a", "first").id.unwrap();
    server.publish("kept", "still here");
    for _ in 0..100 {
        server.publish("small/a", &"x".repeat(4 << 10));
    }
    let mut client =
        server.open_with("/sse?channel=small/**&channel=kept", &format!("Last-Event-ID: {old}\r\n")).await;
    for _ in 0..2 {
        let gap = client.event().await;
        assert!(gap.starts_with("event: gap\n"), "after it the other ring's message would be lost: {gap}");
    }
    assert!(client.event().await.contains("still here"));
}

#[tokio::test]
async fn retained_messages_come_first_and_leave_the_position_alone() {
    let server = Server::start().await;
    server.broker.publish(Publish::new(channel("a"), "kept").retain(true)).unwrap();
    server.publish("a", "later");
    let mut client = server.open("/sse/a").await;
    let position = server.broker.head();
    assert_eq!(client.event().await, format!("id: {position}\ndata: kept\n\n"), "where the stream began");
    let mut client = server.open("/sse/a?retained=false").await;
    server.publish("a", "live");
    assert!(client.event().await.ends_with("data: live\n\n"));
}

/// Whoever resumes after an id has all that came before it.
#[tokio::test]
async fn no_id_overtakes_another_while_retained_messages_are_looked_for() {
    let server = Server::start().await;
    // None of them matches, and finding that out takes a while.
    for at in 0..50_000 {
        server.broker.publish(Publish::new(channel(&format!("b/{at}/y")), "kept").retain(true)).unwrap();
    }
    let mut client = server.open("/sse?channel=a/*&channel=b/*/x&format=raw").await;
    server.publish("b/1/x", "first");
    server.publish("a/1", "second");
    for expected in ["first", "second"] {
        let event = client.event().await;
        assert!(event.ends_with(&format!("data: {expected}\n\n")), "{event}");
    }
}

#[tokio::test]
async fn more_retained_messages_than_a_stream_takes_are_refused() {
    let outbox = OutboxConfig::new(10, 1 << 20, OutboxPolicy::Disconnect);
    let mut config = Config::default();
    config.outbox = outbox;
    let server = Server::with(broker_core::Config::default(), config, Arc::new(AllowAll)).await;
    for at in 0..6 {
        server.broker.publish(Publish::new(channel(&format!("a/{at}")), "kept").retain(true)).unwrap();
    }
    let answer = server.ask("GET /sse/a/* HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"too_many_retained\""), "{answer}");
    server.open("/sse/a/1").await.event().await;
    server.open("/sse/a/*?retained=false").await;
}

#[tokio::test]
async fn nothing_is_lost_or_repeated_across_many_reconnects() {
    const MESSAGES: u64 = 3_000;
    let server = Arc::new(Server::start().await);
    let publisher = Arc::clone(&server);
    let mut client = server.open("/sse/n/*?format=raw").await;
    let publishing = tokio::spawn(async move {
        for number in 0..MESSAGES {
            publisher.publish(&format!("n/{}", number % 3), &number.to_string());
            publisher.publish("noise", "x");
            if number % 20 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let (mut expected, mut reconnects) = (0, 0);
    while expected < MESSAGES {
        let event = client.event().await;
        let (id, data) = event.trim().split_once("\ndata: ").unwrap();
        assert_eq!(data, expected.to_string(), "after {reconnects} reconnects");
        expected += 1;
        if expected % 97 == 0 {
            reconnects += 1;
            let id = id.strip_prefix("id: ").unwrap();
            client = server.open_with("/sse/n/*?format=raw", &format!("Last-Event-ID: {id}\r\n")).await;
        }
    }
    publishing.await.unwrap();
    assert!(client.is_silent().await);
    assert_eq!(server.front.stats().gaps, 0);
}

/// Knows everybody, after a while.
struct Slow;

impl broker_core::Authenticator for Slow {
    fn authenticate<'a>(&'a self, _: broker_core::Credentials<'a>) -> broker_core::Authenticated<'a> {
        broker_core::Authenticated::later(async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(Principal::anonymous(Rights::all()))
        })
    }
}

#[tokio::test]
async fn a_stream_is_taken_back_after_a_slow_authenticator_too() {
    let server = Server::with(broker_core::Config::default(), Config::default(), Arc::new(Slow)).await;
    let mut gone = server.connect().await;
    gone.send("GET /sse/a HTTP/1.1\r\nHost: x\r\n\r\n").await;
    drop(gone);
    let mut client = server.open("/sse/a").await;
    assert!(client.head.contains("transfer-encoding: chunked"));
    assert_eq!(server.publish("a", "1").receivers, 1, "who left while being asked for is forgotten");
    assert!(client.event().await.ends_with("data: 1\n\n"));
}

#[tokio::test]
async fn an_embedding_server_gets_a_streaming_body() {
    use http_body_util::BodyExt;
    let server = Server::start().await;
    let request = http::Request::get("/sse/a").body(http_edge::Body::empty()).unwrap();
    let response = server.front.handle(request).await;
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    server.publish("a", "1");
    let mut text = String::new();
    while !text.contains("data: 1\n\n") {
        let frame = body.frame().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    assert!(text.starts_with("id: "), "no frame of ours: {text}");
    drop(body);
    eventually(|| server.front.stats().streams == 0).await;
}

#[tokio::test]
async fn refusals_are_problems_with_a_code() {
    let server = Server::start().await;
    let close = "HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for (request, status, code) in [
        ("GET /sse", "400", "channel_required"),
        ("GET /sse/", "400", "channel_required"),
        ("GET /sse?format=raw", "400", "channel_required"),
        ("GET /sse/a/**/b", "400", "invalid_filter"),
        ("GET /sse/a%00", "400", "invalid_filter"),
        ("GET /sse/%ff", "400", "invalid_filter"),
        ("GET /sse/a?format=xml", "400", "invalid_format"),
        ("GET /ssee", "404", "not_found"),
        ("PUT /sse/a", "405", "method_not_allowed"),
        ("POST /sse/a", "415", "unsupported_media_type"),
        ("GET /sse/a?chanel=b", "400", "invalid_parameter"),
        ("GET /sse/a?_=1", "400", "invalid_parameter"),
    ] {
        let answer = server.ask(&format!("{request} {close}")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("content-type: application/problem+json\r\n"), "{answer}");
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
    }
    let answer = server.ask(&format!("DELETE /sse/a {close}")).await;
    assert!(answer.contains("allow: GET, HEAD, POST, QUERY, OPTIONS\r\n"), "{answer}");
}

#[tokio::test]
async fn filters_that_fit_no_address_come_in_a_body() {
    let server = Server::start().await;
    let first = server.publish("f/0", "missed").id.unwrap();
    server.publish("f/999", "seen");
    let channels: Vec<_> = (0..1_000).map(|at| format!("\"f/{at}\"")).collect();
    let body = format!("{{\"channels\":[{}],\"last_event_id\":\"{first}\"}}", channels.join(","));
    let kind = "Content-Type: application/json; charset=utf-8\r\n";
    for (method, position) in [("POST", ""), ("QUERY", "Last-Event-ID: earliest\r\n")] {
        let mut client = server.connect().await;
        let head = format!(
            "{method} /sse HTTP/1.1\r\nHost: x\r\n{kind}{position}Content-Length: {}\r\n\r\n",
            body.len()
        );
        client.send(&(head + &body)).await;
        let head = client.until("\r\n\r\n").await;
        assert!(
            head.starts_with("HTTP/1.1 200 ") && head.contains("content-type: text/event-stream\r\n"),
            "{head}"
        );
        if method == "QUERY" {
            assert!(client.event().await.contains("missed"), "the header wins");
        }
        assert!(client.event().await.contains("\"text\":\"seen\""));
    }
    for (kind, body, status, code) in [
        (kind, "{\"channels\":[\"a\"],\"chanel\":1}", "400", "invalid_json"),
        (kind, "{\"channels\":[\"a/**/b\"]}", "400", "invalid_filter"),
        (
            kind,
            &format!("{{\"channels\":[{}\"one more\"]}}", "\"a\",".repeat(1_000)),
            "400",
            "too_many_filters",
        ),
        (kind, &"x".repeat((1 << 20) + 1), "413", "body_too_large"),
        ("Content-Type: text/plain\r\n", "{\"channels\":[\"a\"]}", "415", "unsupported_media_type"),
    ] {
        let length = body.len();
        let request = format!(
            "POST /sse HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{kind}Content-Length: {length}\r\n\r\n{body}"
        );
        let answer = server.ask(&request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
    }
}

#[tokio::test]
async fn head_has_the_head_of_a_stream_and_nothing_else() {
    let server = Server::start().await;
    let answer = server.ask("HEAD /sse/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("content-type: text/event-stream\r\n")
    );
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    assert!(!answer.contains("content-length"), "{answer}");
    assert_eq!(server.front.stats().opened, 0);
}

#[tokio::test]
async fn http_1_0_is_closed_by_its_end_and_never_chunked() {
    let server = Server::start().await;
    for body in ["", "Content-Length: 2\r\n"] {
        let mut client = server.connect().await;
        let rest = if body.is_empty() { "" } else { "ab" };
        client.send(&format!("GET /sse/a HTTP/1.0\r\n{body}\r\n{rest}")).await;
        let head = client.until("\r\n\r\n").await;
        assert!(!head.to_lowercase().contains("chunked"), "{head}");
        server.publish("a", "1");
        let event = client.event().await;
        assert!(event.starts_with("id: ") && event.ends_with("data: 1\n\n"), "{event}");
        let (_, stream) = server.broker.connections(None, 10).remove(0);
        stream.close(&broker_core::CloseCause::RightsChanged);
        let rest = client.rest().await;
        assert!(rest.starts_with(": rights changed") && rest.ends_with('\n'), "no frame: {rest:?}");
        drop(stream);
        eventually(|| server.front.stats().streams == 0).await;
    }
}

#[tokio::test]
async fn a_get_with_a_body_is_streamed_in_chunks() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.send("GET /sse/a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab").await;
    let head = client.until("\r\n\r\n").await.to_lowercase();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    server.publish("a", "1");
    assert!(client.event().await.ends_with("data: 1\n\n"));
}

#[tokio::test]
async fn pages_of_allowed_origins_only_may_subscribe() {
    let mut config = Config::default();
    config.origins = http_edge::OriginPolicy::SameOrigin;
    let server = Server::with(broker_core::Config::default(), config, Arc::new(AllowAll)).await;
    let ask = |origin: &str| {
        format!("GET /sse/a HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\nConnection: close\r\n\r\n")
    };
    let refused = server.ask(&ask("https://evil.example")).await;
    assert!(refused.starts_with("HTTP/1.1 403 ") && refused.contains("origin_not_allowed"), "{refused}");
    assert!(!refused.contains("access-control-allow-origin"));
    let client = server.open_with("/sse/a", "Origin: http://x\r\n").await;
    assert!(client.head.contains("access-control-allow-origin: http://x\r\n"), "{}", client.head);
    let preflight = "OPTIONS /sse/a HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nAccess-Control-Request-Method: GET\r\nConnection: close\r\n\r\n";
    let answer = server.ask(preflight).await;
    assert!(answer.starts_with("HTTP/1.1 204 ") && answer.contains("Last-Event-ID"), "{answer}");
}

fn rights() -> Rights {
    let filter = |text| Filter::parse(text).unwrap();
    Rights::none()
        .allow(Rule::new([Action::Subscribe], filter("open/#")))
        .deny(Rule::new([Action::Subscribe], filter("open/secret/#")))
}

#[tokio::test]
async fn rights_hold_for_filters_and_for_each_message() {
    let authenticator = Arc::new(Anonymous(Principal::anonymous(rights())));
    let server = Server::with(broker_core::Config::default(), Config::default(), authenticator).await;
    for target in ["/sse/closed", "/sse/%23", "/sse?channel=open/a&channel=x", "/sse/open/secret/a"] {
        let answer =
            server.ask(&format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("\"forbidden\""), "{target} {answer}");
    }
    let secret = server.publish("open/secret/a", "hidden").id.unwrap();
    let mut live = server.open("/sse/open/%23").await;
    let from = format!("{}-{}", secret.to_string().split_once('-').unwrap().0, secret.offset() - 1);
    let mut resumed = server.open_with("/sse/open/%23", &format!("Last-Event-ID: {from}\r\n")).await;
    server.publish("open/secret/a", "hidden");
    server.publish("open/a", "shown");
    assert!(live.event().await.contains("shown"));
    assert!(resumed.event().await.contains("shown"));
}

#[tokio::test]
async fn expired_credentials_end_a_stream() {
    let principal = Principal::anonymous(Rights::all()).expiring_at(unix_ms() + 300);
    let server =
        Server::with(broker_core::Config::default(), Config::default(), Arc::new(Anonymous(principal))).await;
    let mut client = server.open("/sse/a").await;
    let rest = client.rest().await;
    assert!(rest.contains(": credentials expired"), "{rest}");
    assert!(rest.contains("\nretry: "), "{rest}");
    assert_eq!(client.framing, Framing::Ended);
}

#[tokio::test]
async fn a_stream_that_is_cut_does_not_look_whole() {
    let outbox = OutboxConfig::new(10_000, 64 << 10, OutboxPolicy::Disconnect);
    let mut config = Config::default();
    config.outbox = outbox;
    let server = Server::with(broker_core::Config::default(), config, Arc::new(AllowAll)).await;
    let mut taken_back = server.open("/sse/a").await;
    let mut piped = server.connect().await;
    piped.send("GET /sse/a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab").await;
    piped.until("\r\n\r\n").await;
    let payload = "x".repeat(16 << 10);
    for _ in 0..2_000 {
        server.publish("a", &payload);
        if server.front.stats().closed_slow == 2 {
            break;
        }
        tokio::task::yield_now().await;
    }
    eventually(|| server.front.stats().streams == 0).await;
    for client in [&mut taken_back, &mut piped] {
        // Also a reset tells a cut.
        let mut bytes = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut client.stream, &mut bytes).await;
        assert!(read.is_err() || !bytes.ends_with(b"\r\n0\r\n\r\n"), "{:?}", client.framing);
        assert_eq!(client.framing, Framing::Chunked);
    }
}

#[tokio::test]
async fn a_reader_that_stops_is_closed_and_resumes() {
    let outbox = OutboxConfig::new(10_000, 256 << 10, OutboxPolicy::Disconnect);
    let mut config = Config::default();
    config.outbox = outbox;
    let server = Server::with(broker_core::Config::default(), config, Arc::new(AllowAll)).await;
    let mut stopped = server.open("/sse/a").await;
    stopped.until("\n").await;
    let mut reader = server.open("/sse/a").await;
    let payload = "x".repeat(16 << 10);
    let mut last = String::new();
    // The client's kernel takes up to several MB before the server's socket is full.
    for _ in 0..1_000 {
        last = server.publish("a", &payload).id.unwrap().to_string();
        reader.event().await;
        if server.front.stats().closed_slow > 0 {
            break;
        }
    }
    eventually(|| server.front.stats().closed_slow == 1 && server.front.stats().streams == 1).await;
    assert_eq!(server.publish("a", "more").receivers, 1);
    assert!(reader.event().await.ends_with("data: more\n\n"), "the others go on");
    let mut resumed = server.open_with("/sse/a", &format!("Last-Event-ID: {last}\r\n")).await;
    assert!(resumed.event().await.ends_with("data: more\n\n"));
}

#[tokio::test]
async fn a_client_that_leaves_is_forgotten() {
    let server = Server::start().await;
    let client = server.open("/sse/a").await;
    eventually(|| server.front.stats().streams == 1).await;
    drop(client);
    eventually(|| server.front.stats().streams == 0).await;
    eventually(|| server.publish("a", "1").receivers == 0).await;
}

#[tokio::test]
async fn keep_alive_comments_come_while_nothing_else_does() {
    let mut config = Config::default();
    config.keep_alive = Duration::from_millis(200);
    let server = Server::with(broker_core::Config::default(), config, Arc::new(AllowAll)).await;
    let mut client = server.open("/sse/a").await;
    client.until("\n").await;
    for _ in 0..3 {
        assert_eq!(client.until("\n").await, ":\n", "a comment, and no blank line");
    }
    server.publish("a", "1");
    assert!(client.event().await.ends_with("data: 1\n\n"));
}

#[tokio::test]
async fn shutdown_writes_what_was_accepted_and_says_when_to_come_back() {
    let server = Server::start().await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(server.open("/sse/a").await);
    }
    server.publish("a", "accepted");
    let front = server.front.clone();
    let window = Duration::from_millis(400);
    let done = tokio::spawn(async move { front.shutdown(window).await });
    for client in &mut clients {
        let rest = client.rest().await;
        assert!(rest.contains("data: accepted\n\n"), "{rest}");
        assert_eq!(client.framing, Framing::Ended);
        let (_, retry) = rest.rsplit_once("\nretry: ").unwrap();
        let retry: u64 = retry.trim().parse().unwrap();
        assert!((500..=1_000).contains(&retry), "{retry}");
    }
    done.await.unwrap();
    assert_eq!(server.front.stats().streams, 0);
    let late = server.ask("GET /sse/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(late.starts_with("HTTP/1.1 200 ") && late.contains("\nretry: "), "{late}");
}

#[tokio::test]
async fn streams_end_evenly_across_the_window() {
    let server = Server::start().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(server.open("/sse/a").await);
    }
    let window = Duration::from_secs(1);
    let begun = Instant::now();
    let front = server.front.clone();
    let done = tokio::spawn(async move { front.shutdown(window).await });
    for (at, client) in clients.iter_mut().enumerate() {
        client.rest().await;
        let earliest = window.mul_f64(at as f64 / 4.0);
        assert!(begun.elapsed() >= earliest, "stream {at} ended after {:?}", begun.elapsed());
    }
    done.await.unwrap();
}

#[tokio::test]
async fn too_many_streams_are_sent_away_gently() {
    let mut config = Config::default();
    config.max_streams = 1;
    let server = Server::with(broker_core::Config::default(), config, Arc::new(AllowAll)).await;
    let _first = server.open("/sse/a").await;
    let second = server.ask("GET /sse/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(second.starts_with("HTTP/1.1 200 ") && second.contains("\nretry: "), "{second}");
    assert!(second.contains("content-type: text/event-stream\r\n"), "{second}");
    assert!(!second.contains("content-length"), "{second}");
    let old = server.ask("GET /sse/a HTTP/1.0\r\n\r\n").await;
    assert!(old.contains("\r\n\r\n: no room now\nretry: ") && old.ends_with("\n"), "{old}");
    assert!(!old.ends_with("\n\n"), "no block that is no event: {old}");
    assert_eq!(server.front.stats().refused, 2);
}

/// Knows nobody for now.
struct Occupied(AuthError);

impl broker_core::Authenticator for Occupied {
    fn authenticate<'a>(&'a self, _: broker_core::Credentials<'a>) -> broker_core::Authenticated<'a> {
        broker_core::Authenticated::now(Err(self.0.clone()))
    }
}

/// A browser never comes back from an error status, and these pass.
#[tokio::test]
async fn while_credentials_cannot_be_checked_clients_are_sent_away_gently() {
    for (error, status) in [
        (AuthError::Busy { retry_after: Duration::from_secs(3) }, "429"),
        (AuthError::Unavailable("no key set".into()), "503"),
    ] {
        let occupied = Arc::new(Occupied(error));
        let server = Server::with(broker_core::Config::default(), Config::default(), occupied).await;
        let answer = server.ask("GET /sse/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\nretry: "), "{answer}");
        assert!(answer.contains("content-type: text/event-stream\r\n"), "{answer}");
        let head = server.ask("HEAD /sse/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
}

#[tokio::test]
async fn channels_named_like_wildcards_are_counted_and_not_sent() {
    let server = Server::start().await;
    let mut client = server.open("/sse/%23").await;
    let any = Publish::new(channel("a/*/b"), "no");
    server.broker.publish(any).unwrap();
    server.broker.publish(Publish::new(channel("a"), "no").event("two\nlines")).unwrap();
    server.publish("a", "yes");
    assert!(client.event().await.contains("yes"));
    assert_eq!(server.front.stats().inexpressible, 2);
}

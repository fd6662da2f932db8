//! What the log says: who came, failed, was slow, left, and why; never a secret; and that the page lists every line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rumqttc::QoS;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::http::{get, request};
use crate::support::http2::Http2;
use crate::support::mqtt::{Bare, Client};
use crate::support::process::Process;
use crate::support::sse::EventStream;
use crate::support::{bayeux, within};

/// A server whose log is in a file, as JSON.
struct Logged {
    server: Process,
    log: tempfile::NamedTempFile,
    _config: tempfile::NamedTempFile,
}

impl Logged {
    async fn start(config: &str) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), config).expect("written");
        let path = file.path().to_str().expect("a path").to_owned();
        let appended = fs::OpenOptions::new().append(true).open(log.path()).expect("it opens");
        let arguments = ["--log-format", "json", "--config", &path];
        let server = Process::start_logging(&arguments, appended).await;
        Logged { server, log, _config: file }
    }

    fn text(&self) -> String {
        fs::read_to_string(self.log.path()).expect("UTF-8")
    }

    fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// The first line with this message for which more holds.
    async fn line(&self, message: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                let mut lines = self.lines().into_iter();
                if let Some(line) = lines.find(|line| line["message"] == message && holds(line)) {
                    return line;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let found = tokio::time::timeout(crate::support::PATIENCE, found).await;
        found.unwrap_or_else(|_| panic!("no line {message:?} in\n{}", self.text()))
    }
}

/// A key, a user with a password, and nobody else.
fn rights() -> String {
    let hash = fanwire::auth::KeyHash::of(b"planted-key");
    format!(
        "[[keys]]\nid = \"reader\"\nhash = \"{hash}\"\nrights = [{{ actions = [\"subscribe\", \"publish\"], channels = [\"open/**\", \"open\"] }}]\n\
         [auth]\naccess_token = true\ncookie = \"access_token\"\n"
    )
}

const KEY: &str = "planted-key";

#[tokio::test]
async fn every_protocol_tells_who_came_and_left_and_what_passed() {
    let logged = Logged::start("").await;
    let server = &logged.server;
    let mut stream = EventStream::open(server.http, "/sse/a").await;
    let came = logged.line("connected", |line| line["protocol"] == "sse").await;
    assert_eq!((&came["level"], &came["remote"]), (&json!("INFO"), &json!("127.0.0.1")), "{came}");
    assert_eq!(came["transport"], "http/1.1");
    request(server.http, "POST", "/v1/publish/a", &[], "hello").await;
    stream.next().await.expect("the message");
    drop(stream);
    let left = logged.line("disconnected", |line| line["protocol"] == "sse").await;
    assert_eq!((&left["connection"], &left["reason"]), (&came["connection"], &json!("client")), "{left}");
    assert_eq!((&left["sent_messages"], &left["received_messages"]), (&json!(1), &json!(0)), "{left}");
    assert!(left["sent_bytes"].as_u64() > Some(5) && left["seconds"].is_number(), "{left}");

    let mut device = Client::connect(server.mqtt, "device-7").await;
    device.subscribe("b", QoS::AtMostOnce).await;
    device.client.publish("b", QoS::AtMostOnce, false, "hello").await.expect("queued");
    device.message().await;
    device.client.disconnect().await.expect("queued");
    let came = logged.line("connected", |line| line["protocol"] == "mqtt").await;
    assert_eq!((&came["client_id"], &came["transport"]), (&json!("device-7"), &json!("tcp")), "{came}");
    let left = logged.line("disconnected", |line| line["client_id"] == "device-7").await;
    assert_eq!((&left["reason"], &left["connection"]), (&json!("client"), &came["connection"]), "{left}");
    assert_eq!((&left["sent_messages"], &left["received_messages"]), (&json!(1), &json!(1)), "{left}");
    assert!(left["received_bytes"].as_u64() > Some(5) && left["sent_bytes"].as_u64() > Some(5), "{left}");

    let mut page = bayeux::Socket::handshake(server.http).await;
    page.subscribe("/c").await;
    page.publish("/c", &json!({"text": "hello"})).await;
    page.event().await;
    page.send(&json!([{"channel": "/meta/disconnect", "clientId": page.client_id}])).await;
    let left = logged.line("disconnected", |line| line["protocol"] == "bayeux").await;
    assert_eq!((&left["reason"], &left["remote"]), (&json!("client"), &json!("127.0.0.1")), "{left}");
    assert_eq!((&left["sent_messages"], &left["received_messages"]), (&json!(1), &json!(1)), "{left}");
    // The JSON of handshake, connect, subscription and all.
    assert!(left["received_bytes"].as_u64() > Some(300) && left["sent_bytes"].as_u64() > Some(300), "{left}");
    // A session's id lets whoever has it speak for the client.
    assert!(!logged.text().contains(&page.client_id));
}

#[tokio::test]
async fn what_a_bayeux_client_polled_is_counted() {
    let logged = Logged::start("").await;
    let http = logged.server.http;
    let kind = [("content-type", "application/json")];
    let say = async |messages: Value, more: &[(&str, &str)]| {
        let headers: Vec<_> = kind.iter().chain(more).copied().collect();
        request(http, "POST", "/cometd", &headers, messages.to_string()).await
    };
    let shake = json!([{"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"]}]);
    let shaken = say(shake, &[]).await;
    let cookie =
        shaken.header("set-cookie").expect("the browser's cookie").split(';').next().unwrap_or("").to_owned();
    let id = shaken.json()[0]["clientId"].clone();
    let cookie = [("cookie", &*cookie)];
    let connect = json!({"channel": "/meta/connect", "clientId": id, "connectionType": "long-polling", "advice": {"timeout": 0}});
    let mut polled = 0;
    let wish = json!({"channel": "/meta/subscribe", "clientId": id, "subscription": "/c"});
    polled += say(json!([wish, connect]), &cookie).await.body.len();
    let large = "x".repeat(5000);
    say(json!([{"channel": "/c", "clientId": id, "data": large}]), &cookie).await;
    for _ in 0..100 {
        polled += say(json!([connect]), &cookie).await.body.len();
        if polled > large.len() {
            break;
        }
    }
    assert!(polled > large.len(), "the event came with a poll: {polled}");
    say(json!([{"channel": "/meta/disconnect", "clientId": id}]), &cookie).await;
    let left = logged.line("disconnected", |line| line["protocol"] == "bayeux").await;
    assert_eq!(left["sent_bytes"], json!(polled), "{left}");
}

#[tokio::test]
async fn refusals_say_why_and_a_client_that_comes_again_and_again_is_one_line() {
    let logged = Logged::start(&rights()).await;
    let server = &logged.server;
    let id = [("x-request-id", "asked-4711")];
    assert_eq!(request(server.http, "POST", "/v1/publish/open", &id, "x").await.status, 401);
    let line = logged.line("refused", |line| line["protocol"] == "http").await;
    assert_eq!((&line["reason"], &line["request"]), (&json!("credentials_required"), &json!("asked-4711")));
    assert_eq!((&line["what"], &line["remote"]), (&json!("/v1/publish/open"), &json!("127.0.0.1")), "{line}");
    for _ in 0..50 {
        request(server.http, "POST", "/v1/publish/open", &[], "x").await;
        EventStream::open(server.http, "/sse/closed").await;
    }
    let line = logged.line("refused", |line| line["protocol"] == "sse").await;
    assert_eq!(line["reason"], "credentials_required", "{line}");
    let count = |protocol: &str| {
        let lines = logged.lines().into_iter();
        lines.filter(|line| line["message"] == "refused" && line["protocol"] == protocol).count()
    };
    assert_eq!((count("http"), count("sse")), (1, 1));

    // Of Bayeux by the id of its answer, and once there is a session by its connection.
    let known = json!([{"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"],
        "ext": {"authentication": {"token": KEY}}}]);
    let headers = [("content-type", "application/json"), ("x-request-id", "shaken-1")];
    let shaken = request(server.http, "POST", "/cometd", &headers, known.to_string()).await;
    assert_eq!(shaken.header("x-request-id"), Some("shaken-1"));
    let cookie = shaken.header("set-cookie").expect("a cookie").split(';').next().expect("a pair").to_owned();
    let session = shaken.json()[0]["clientId"].clone();
    let came = logged.line("connected", |line| line["protocol"] == "bayeux").await;
    let publish = json!([{"channel": "/closed", "clientId": session, "data": 1}]);
    let headers =
        [("content-type", "application/json"), ("x-request-id", "asked-4712"), ("cookie", &*cookie)];
    request(server.http, "POST", "/cometd", &headers, publish.to_string()).await;
    let line = logged.line("refused", |line| line["protocol"] == "bayeux" && line["what"] == "/closed").await;
    assert_eq!(
        (&line["request"], &line["connection"]),
        (&json!("asked-4712"), &came["connection"]),
        "{line}"
    );
    assert_eq!(line["user"], came["user"], "{line}");
    let unknown = json!([{"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"]}]);
    let headers = [("content-type", "application/json"), ("x-request-id", "asked-4713")];
    request(server.http, "POST", "/cometd", &headers, unknown.to_string()).await;
    let line = logged.line("refused", |line| line["what"] == "/meta/handshake").await;
    assert_eq!((&line["request"], &line["connection"]), (&json!("asked-4713"), &Value::Null), "{line}");
    let headers = [("origin", "https://evil.example"), ("x-request-id", "asked-4714")];
    request(server.http, "POST", "/cometd", &headers, "[]").await;
    let line = logged.line("refused", |line| line["protocol"] == "bayeux" && line["what"] == "/cometd").await;
    assert_eq!((&line["request"], &line["reason"]), (&json!("asked-4714"), &json!("forbidden")), "{line}");

    let mut device = Bare::connect(server.mqtt).await;
    device.send(&crate::support::mqtt::connect_packet("intruder")).await;
    device.rest().await;
    let line = logged.line("refused", |line| line["protocol"] == "mqtt").await;
    assert_eq!(line["reason"], "NotAuthorized", "{line}");
    let metrics = get(server.http, "/metrics").await;
    let line = metrics.text().lines().find(|line| line.starts_with("fanwire_suppressed_log_lines_total "));
    assert_eq!(line, Some("fanwire_suppressed_log_lines_total 99"));
}

#[tokio::test]
async fn what_a_device_may_not_publish_names_its_connection() {
    let logged = Logged::start(&rights()).await;
    let server = &logged.server;
    let mut device = Bare::connect(server.mqtt).await;
    device.send(&connect("device-9", "any", KEY)).await;
    device.receive(4).await;
    device.send(&[0x30, 8, 0, 6, b'c', b'l', b'o', b's', b'e', b'd']).await;
    let came = logged.line("connected", |line| line["client_id"] == "device-9").await;
    let line = logged.line("refused", |line| line["client_id"] == "device-9").await;
    assert_eq!((&line["connection"], &line["what"]), (&came["connection"], &json!("closed")), "{line}");
}

/// Whatever place a client shows its credentials in, and whether they are right or not.
#[tokio::test]
async fn no_secret_is_in_the_log_at_any_level() {
    let config = format!("[logging]\nlevel = \"trace\"\naccess = true\n{}", rights());
    let logged = Logged::start(&config).await;
    let server = &logged.server;
    for (at, secret) in [KEY, "planted-wrong"].into_iter().enumerate() {
        let basic = format!("Basic {}", base64_of(&format!("planted-user:{secret}")));
        let bearer = format!("Bearer {secret}");
        let cookie = format!("access_token={secret}; sid={secret}");
        for target in ["/v1/publish/open", "/v1/publish/closed"] {
            for (name, value) in [
                ("authorization", &*bearer),
                ("authorization", &*basic),
                ("cookie", &*cookie),
                ("x-api-key", secret),
            ] {
                request(server.http, "POST", target, &[(name, value)], "x").await;
            }
            let target = format!("{target}?access_token={secret}");
            request(server.http, "POST", &target, &[], "x").await;
        }
        for target in [format!("/sse/open?access_token={secret}"), format!("/sse/closed?token={secret}")] {
            EventStream::open(server.http, &target).await;
        }
        EventStream::open_with(server.http, "/sse/open", &format!("authorization: {bearer}\r\n")).await;
        // Over HTTP/2, and as names of subprotocols, where some pages have no other place.
        let http2 = Http2::plain(server.http).await;
        for (path, name, value) in [
            ("/cometd".to_owned(), "authorization", &*bearer),
            (format!("/cometd?access_token={secret}"), "cookie", &*cookie),
            ("/mqtt".to_owned(), "sec-websocket-protocol", &*format!("mqtt, {secret}")),
            ("/mqtt".to_owned(), "sec-websocket-protocol", secret),
            (format!("/nowhere/?token={secret}"), "x-api-key", secret),
        ] {
            let opened = http2.open(&path, &[(name, value)]).await;
            if let Ok((mut socket, _)) = opened {
                let shake = json!([{"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["websocket"]}]);
                let bytes = connect("over-http2", "planted-user", secret);
                let first =
                    if path == "/mqtt" { Message::binary(bytes) } else { Message::text(shake.to_string()) };
                within(socket.send(first)).await.expect("written");
                within(socket.next()).await.expect("an answer").expect("a frame");
            }
            let target = format!("{path}{}secret={secret}", if path.contains('?') { '&' } else { '?' });
            let upgrade = [
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
                (name, value),
            ];
            if name == "sec-websocket-protocol" && value == secret {
                assert_eq!(request(server.http, "GET", &target, &upgrade, "").await.status, 400);
            }
        }
        let handshake = json!([{"channel": "/meta/handshake", "version": "1.0",
            "supportedConnectionTypes": ["long-polling"], "ext": {"authentication": {"token": secret}}}]);
        let json = [("content-type", "application/json")];
        let answer = request(server.http, "POST", "/cometd", &json, handshake.to_string()).await;
        let client_id = answer.json()[0]["clientId"].as_str().map(str::to_owned);
        for channel in ["/open", "/closed"] {
            let publish = json!([{"channel": channel, "clientId": client_id, "data": 1}]);
            request(server.http, "POST", "/cometd", &json, publish.to_string()).await;
        }
        let mut device = Bare::connect(server.mqtt).await;
        device.send(&connect(&format!("device-{at}"), "planted-user", secret)).await;
        if device.receive(4).await[3] == 0 {
            device.send(&[0x30, 8, 0, 6, b'c', b'l', b'o', b's', b'e', b'd', 0xE0, 0]).await;
            device.rest().await;
        }
        // As a token in the name, where some devices have no other place.
        let mut device = Bare::connect(server.mqtt).await;
        device.send(&connect("other", secret, "")).await;
        device.receive(4).await;
    }
    logged.line("request", |line| line["path"] == "/v1/publish/closed").await;
    logged.line("refused", |line| line["protocol"] == "mqtt").await;
    logged.line("refused", |line| line["protocol"] == "bayeux").await;
    logged.line("connected", |line| line["protocol"] == "mqtt").await;
    logged.line("refused", |line| line["what"] == "closed" && line["client_id"] == "device-0").await;
    let text = logged.text();
    assert!(text.lines().count() > 30, "{text}");
    let planted: Vec<_> = text.lines().filter(|line| line.contains("planted")).collect();
    assert!(planted.is_empty(), "{planted:#?}");
}

/// MQTT 3.1.1 CONNECT with name and password.
fn connect(client: &str, user: &str, password: &str) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x04\xC2\0\x3C".to_vec();
    for field in [client, user, password] {
        body.extend(u16::try_from(field.len()).expect("short").to_be_bytes());
        body.extend(field.as_bytes());
    }
    let mut packet = vec![0x10, u8::try_from(body.len()).expect("short")];
    packet.extend(body);
    packet
}

fn base64_of(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[tokio::test]
async fn the_access_log_is_off_unless_it_is_asked_for() {
    let silent = Logged::start("[logging]\nlevel = \"trace\"\n").await;
    get(silent.server.http, "/v1/channels").await;
    let logged = Logged::start("[logging]\naccess = true\n").await;
    let answer = get(logged.server.http, "/v1/channels?limit=1").await;
    let line = logged.line("request", |line| line["path"] == "/v1/channels").await;
    assert_eq!((&line["method"], &line["status"]), (&json!("GET"), &json!(200)), "{line}");
    assert_eq!(line["request"], answer.header("x-request-id").expect("an id"), "{line}");
    assert!(
        line["seconds"].is_number() && line["remote"] == "127.0.0.1" && line["front"] == "http",
        "{line}"
    );
    get(logged.server.http, "/nothing/here").await;
    let line = logged.line("request", |line| line["path"] == "/nothing/here").await;
    assert_eq!((&line["status"], &line["front"]), (&json!(404), &json!("")), "{line}");
    assert!(!silent.text().contains("\"request\""), "{}", silent.text());
}

#[tokio::test]
async fn a_slow_reader_is_named_when_it_is_closed_and_when_it_loses_messages() {
    let logged = Logged::start("").await;
    let server = &logged.server;
    // Neither of them reads.
    let _stream = EventStream::open(server.http, "/sse/a").await;
    let mut device = Bare::shake_hands(server.mqtt, "sluggish").await;
    device.send(&[0x82, 6, 0, 1, 0, 1, b'a', 0]).await;
    device.receive(5).await;
    let body = "x".repeat(50_000);
    within(async {
        loop {
            request(server.http, "POST", "/v1/publish/a", &[], body.clone()).await;
            let text = logged.text();
            if text.contains("slow reader closed") && text.contains("messages dropped for a slow reader") {
                break;
            }
        }
    })
    .await;
    let closed = logged.line("slow reader closed", |line| line["protocol"] == "sse").await;
    assert_eq!((&closed["level"], &closed["remote"]), (&json!("WARN"), &json!("127.0.0.1")), "{closed}");
    let left = logged.line("disconnected", |line| line["reason"] == "too_slow").await;
    assert_eq!(left["connection"], closed["connection"]);
    let lost = logged.line("messages dropped for a slow reader", |_| true).await;
    assert_eq!((&lost["client_id"], &lost["protocol"]), (&json!("sluggish"), &json!("mqtt")), "{lost}");
    for _ in 0..100 {
        request(server.http, "POST", "/v1/publish/a", &[], body.clone()).await;
    }
    let of_device = |line: &Value| line["message"] == lost["message"] && line["client_id"] == "sluggish";
    assert_eq!(logged.lines().into_iter().filter(of_device).count(), 1, "once a minute");
}

#[tokio::test]
async fn what_an_absent_session_has_no_room_for_is_told_once() {
    let logged = Logged::start("[mqtt]\nmax_queued_messages = 5\n").await;
    let server = &logged.server;
    // Version 3.1.1 without a clean session, subscribed at QoS 1.
    let mut device = Bare::connect(server.mqtt).await;
    device.send(b"\x10\x10\0\x04MQTT\x04\0\0\x3c\0\x04away\x82\x06\0\x01\0\x01a\x01").await;
    device.receive(9).await;
    device.send(&[0xE0, 0]).await;
    device.rest().await;
    let came = logged.line("disconnected", |line| line["client_id"] == "away").await;
    let mut publisher = Client::connect(server.mqtt, "publisher").await;
    for _ in 0..40 {
        publisher.publish("a", QoS::AtLeastOnce, "x").await;
    }
    publisher.subscribe("b", QoS::AtLeastOnce).await;
    let lost = logged.line("messages dropped for a session whose client is away", |_| true).await;
    assert_eq!((&lost["level"], &lost["client_id"]), (&json!("WARN"), &json!("away")), "{lost}");
    assert_eq!(lost["connection"], came["connection"], "{lost}");
    assert!(lost["messages"].as_u64() >= Some(1) && lost["total"].as_u64() >= Some(1), "{lost}");
    within(async {
        while !get(server.http, "/metrics").await.text().contains("fanwire_mqtt_messages_dropped_total 35\n")
        {
        }
    })
    .await;
    let lines = logged.lines().into_iter().filter(|line| line["message"] == lost["message"]);
    assert_eq!(lines.count(), 1, "once a minute");
}

/// A log that nobody reads any more is no reason to stop serving: its lines are lost and counted.
#[tokio::test]
async fn a_log_that_is_not_read_does_not_stop_the_server() {
    let mut command = crate::support::process::command();
    command.args(["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]);
    let server = Process::started_with_stderr(command, std::process::Stdio::piped()).await;
    within(async {
        for _ in 0..2_000 {
            drop(Bare::shake_hands(server.mqtt, "again").await);
        }
    })
    .await;
    let metrics = get(server.http, "/metrics").await;
    let lost = metrics.text().lines().find_map(|line| line.strip_prefix("fanwire_lost_log_lines_total "));
    assert!(lost.and_then(|lost| lost.parse::<u64>().ok()) > Some(0), "{lost:?}");
}

/// An event in the code.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    message: String,
    level: String,
    fields: Vec<String>,
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            rust_files(&entry, found);
        } else if entry.extension().is_some_and(|end| end == "rs") {
            found.push(entry);
        }
    }
}

/// Up to the bracket that closes what is open, outside of texts.
fn inside_brackets(text: &str) -> &str {
    let (mut depth, mut is_text, mut is_escaped) = (1, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_text => is_escaped = true,
            '"' => is_text = !is_text,
            '(' | '[' | '{' if !is_text => depth += 1,
            ')' | ']' | '}' if !is_text => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    panic!("no end of {text}")
}

/// The arguments of a macro, at its commas.
fn arguments(text: &str) -> Vec<String> {
    let (mut depth, mut is_text, mut is_escaped) = (0, false, false);
    let mut found = vec![String::new()];
    for c in text.chars() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_text => is_escaped = true,
            '"' => is_text = !is_text,
            '(' | '[' | '{' if !is_text => depth += 1,
            ')' | ']' | '}' if !is_text => depth -= 1,
            ',' if depth == 0 && !is_text => {
                found.push(String::new());
                continue;
            }
            _ => {}
        }
        found.last_mut().expect("one").push(c);
    }
    found.into_iter().map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect()
}

fn events_of(source: &str) -> Vec<Event> {
    // What tests do is no event of the server.
    let source = source.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut found = Vec::new();
    for (at, _) in source.match_indices("tracing::") {
        let rest = &source[at + "tracing::".len()..];
        let Some((level, call)) = rest.split_once("!(") else { continue };
        if !["error", "warn", "info", "debug", "trace"].contains(&level) {
            continue;
        }
        let arguments = arguments(inside_brackets(call));
        let text = arguments.iter().position(|argument| argument.starts_with('"')).expect("a message");
        let message = arguments[text].trim_matches('"').split('{').next().unwrap_or_default();
        let message = message.trim().trim_matches('`');
        let fields = arguments[..text].iter().filter(|argument| !argument.starts_with("target:"));
        let fields = fields.map(|field| {
            let name = field.split('=').next().unwrap_or_default().trim();
            name.trim_start_matches(['%', '?']).rsplit('.').next().unwrap_or_default().to_owned()
        });
        found.push(Event { message: message.to_owned(), level: level.to_owned(), fields: fields.collect() });
    }
    found
}

#[test]
fn the_page_of_the_log_lists_every_event_with_level_and_fields() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for entry in fs::read_dir(root).expect("the package").map(|entry| entry.expect("an entry").path()) {
        let is_ours =
            entry.join("Cargo.toml").exists() && !entry.ends_with("benches") && !entry.ends_with("fuzz");
        if entry.ends_with("src") {
            rust_files(&entry, &mut files);
        } else if is_ours {
            rust_files(&entry.join("src"), &mut files);
        }
    }
    let mut events = BTreeMap::new();
    for file in &files {
        for event in events_of(&fs::read_to_string(file).expect("UTF-8")) {
            events.insert(event.message.clone(), (event, file));
        }
    }
    assert!(events.len() > 20, "{events:#?}");
    let page = include_str!("../../docs/logging.md");
    let mut rows = BTreeMap::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = row.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect();
        let [message, level, fields, ..] = cells[..] else { panic!("{row}") };
        let fields: Vec<_> =
            fields.split_whitespace().map(|field| field.trim_matches('`').to_owned()).collect();
        let message = message.trim_matches('`').split('…').next().unwrap_or_default().trim();
        rows.insert(message.to_owned(), (level.to_owned(), fields));
    }
    for (message, (event, file)) in &events {
        let Some((level, fields)) = rows.remove(message) else {
            panic!("docs/logging.md has no row `{message}`, which {} writes", file.display());
        };
        assert_eq!((&level, &fields), (&event.level, &event.fields), "`{message}`");
    }
    assert!(rows.is_empty(), "nothing writes {:?}", rows.keys());
}

//! A configuration that changes while the binary serves.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::attempts::connect_packet;
use crate::support::bayeux::Socket;
use crate::support::http::request;
use crate::support::mqtt::Bare;
use crate::support::process::Process;
use crate::support::sse::EventStream;

const KEPT: &str = "the kept key";
const CHANGED: &str = "the changed key";
const REMOVED: &str = "the removed key";

fn key(id: &str, secret: &str, channel: &str) -> String {
    let hash = fanwire::auth::KeyHash::of(secret.as_bytes());
    format!(
        "[[keys]]\nid = \"{id}\"\nhash = \"{hash}\"\nrights = [{{ actions = [\"publish\", \"subscribe\", \"history\"], channels = [\"{channel}\"] }}]\n"
    )
}

fn before() -> String {
    key("kept", KEPT, "#") + &key("changed", CHANGED, "#") + &key("removed", REMOVED, "#")
}

fn after() -> String {
    key("kept", KEPT, "#") + &key("changed", CHANGED, "a/#") + &key("added", "the added key", "#")
}

async fn start(text: &str, more: &str) -> (Process, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), format!("{more}\n{text}")).expect("written");
    let path = file.path().to_str().expect("a path").to_owned();
    (Process::start(&["--config", &path]).await, file)
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
}

async fn status(server: &Process, secret: &str) -> u16 {
    let bearer = format!("Bearer {secret}");
    request(server.http, "POST", "/v1/publish/b", &[("authorization", &bearer)], "x").await.status
}

async fn until(server: &Process, secret: &str, expected: u16) {
    crate::support::within(async {
        while status(server, secret).await != expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn device(server: &Process, id: &str, secret: &str) -> Bare {
    let mut device = Bare::connect(server.mqtt).await;
    let mut packet = connect_packet(5, Some(secret));
    // Each its own client identifier of the same length.
    let at = packet.windows(6).position(|window| window == b"device").expect("the identifier");
    packet[at..at + 6].copy_from_slice(id.as_bytes());
    device.send(&packet).await;
    let head = device.receive(2).await;
    assert_eq!(device.receive(usize::from(head[1])).await[1], 0);
    device
}

#[tokio::test]
async fn at_a_signal_only_those_whose_rights_changed_are_closed() {
    let (server, file) = start(&before(), "[server]\nreload_interval = \"0s\"").await;
    let line = |secret: &str| format!("authorization: Bearer {secret}\r\n");
    let mut kept = EventStream::open_with(server.http, "/sse/b", &line(KEPT)).await;
    let mut changed = EventStream::open_with(server.http, "/sse/b", &line(CHANGED)).await;
    let mut removed = EventStream::open_with(server.http, "/sse/b", &line(REMOVED)).await;
    assert_eq!([kept.status, changed.status, removed.status], [200; 3]);
    let mut kept_device = device(&server, "keptxx", KEPT).await;
    let mut removed_device = device(&server, "remove", REMOVED).await;
    let token = |secret: &str| json!({"authentication": {"token": secret}});
    let mut kept_page = Socket::handshake_with(server.http, &token(KEPT)).await;
    let mut removed_page = Socket::handshake_with(server.http, &token(REMOVED)).await;
    // Held, so that there is something to answer.
    removed_page.connect().await;
    let held = {
        let (http, bearer) = (server.http, format!("Bearer {REMOVED}"));
        tokio::spawn(async move {
            request(http, "GET", "/v1/history/later?wait=50", &[("authorization", &bearer)], "").await
        })
    };

    write(file.path(), &after());
    server.signal(Signal::HUP);
    until(&server, REMOVED, 401).await;
    assert_eq!(status(&server, "the added key").await, 200);
    assert_eq!(status(&server, CHANGED).await, 403);
    for stream in [&mut changed, &mut removed] {
        while let Some(event) = stream.next().await {
            assert!(event.data.is_empty() || event.data == "x", "{event:?}");
        }
        assert!(stream.retry.is_some(), "told to come back");
    }
    let rest = removed_device.rest().await;
    assert_eq!(rest.first(), Some(&0xE0), "DISCONNECT: {rest:02x?}");
    assert!(String::from_utf8_lossy(&rest).contains("reconnect"), "{rest:02x?}");
    loop {
        // The advice, then the close, or the close alone once the advice was read.
        let Some(frame) = removed_page.frame().await else { break };
        if frame.iter().any(|message| message["advice"]["reconnect"] == "handshake") {
            break;
        }
    }
    let held = held.await.expect("no panic");
    assert_eq!(held.status, 401, "{held:?}");

    // The others were not touched.
    kept_device.send(&[0xC0, 0]).await;
    assert_eq!(kept_device.receive(2).await, [0xD0, 0]);
    assert_eq!(kept_page.publish("/b", &json!("still here")).await["successful"], true);
    while !kept.data().await.contains("still here") {}
}

#[tokio::test]
async fn a_changed_file_is_noticed_and_a_wrong_one_is_not_taken() {
    let (server, file) = start(&before(), "[server]\nreload_interval = \"100ms\"").await;
    let head = "[server]\nreload_interval = \"100ms\"\n";
    for wrong in
        ["[[keys]]\nid = \"x\"", "no toml", "[[issuers]]\nalgorithms = [\"HS256\"]\nsecret = \"short\""]
    {
        write(file.path(), wrong);
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(status(&server, KEPT).await, 200, "{wrong}");
        assert_eq!(status(&server, "made-up").await, 401, "{wrong}");
    }
    write(file.path(), &(head.to_owned() + &after()));
    until(&server, REMOVED, 401).await;
    until(&server, "the added key", 200).await;
}

#[tokio::test]
async fn a_file_without_rights_does_not_open_a_running_server() {
    let head = "[server]\nreload_interval = \"100ms\"\n";
    let file = tempfile::NamedTempFile::new().expect("a file");
    write(file.path(), &(head.to_owned() + &before()));
    let path = file.path().to_str().expect("a path").to_owned();
    // The file's own address is loopback in both cases, which is no reason to open what listens everywhere.
    for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let said = log.reopen().expect("the same file");
        let mut server = Process::start_logging_on(listen, &["--config", &path], said).await;
        server.http.set_ip([127, 0, 0, 1].into());
        let refused =
            || std::fs::read_to_string(log.path()).expect("UTF-8").matches("is not taken over").count();
        let nobody = async || request(server.http, "POST", "/v1/publish/b", &[], "x").await.status;
        for (told, text) in ["", "# later\n", head, "[server]\n"].into_iter().enumerate() {
            write(file.path(), text);
            if text == "[server]\n" {
                server.signal(Signal::HUP);
            }
            crate::support::eventually(|| refused() > told).await;
            assert_eq!([nobody().await, status(&server, KEPT).await], [401, 200], "{text:?}");
        }
        // And what comes after is taken over.
        write(file.path(), &(head.to_owned() + &after()));
        until(&server, "the added key", 200).await;
        assert_eq!([nobody().await, status(&server, REMOVED).await], [401, 401]);
        write(file.path(), &(head.to_owned() + &before()));
    }
}

#[tokio::test]
async fn where_tokens_are_looked_for_changes_too() {
    let (server, file) = start(&before(), "").await;
    let secret = KEPT.replace(' ', "%20");
    let query = format!("/v1/history/b?access_token={secret}");
    let cookie = format!("theirs=1; fanwire={KEPT}");
    let now = async || {
        let by_query = request(server.http, "GET", &query, &[], "").await.status;
        let by_cookie = request(server.http, "GET", "/v1/history/b", &[("cookie", &cookie)], "").await.status;
        // Streams and devices of browsers look where the API does.
        let mut heads = Vec::new();
        for (target, line) in [
            (format!("/sse/b?access_token={secret}"), String::new()),
            ("/sse/b".to_owned(), format!("cookie: {cookie}\r\n")),
        ] {
            heads.push(EventStream::open_with(server.http, &target, &line).await.status);
        }
        assert_eq!(heads, [by_query, by_cookie]);
        (by_query, by_cookie)
    };
    assert_eq!(now().await, (401, 401));
    for (auth, expected) in [
        ("access_token = true", (200, 401)),
        ("cookie = \"fanwire\"", (401, 200)),
        ("cookie = \"fanwire\"\naccess_token = true", (200, 200)),
        ("cookie = \"other\"", (401, 401)),
    ] {
        let probe = auth.replace('\n', " ");
        write(file.path(), &format!("[auth]\n{auth}\n{}{}", key("probe", &probe, "#"), before()));
        server.signal(Signal::HUP);
        // What is new in the same file tells when it has been taken over.
        until(&server, &probe, 200).await;
        assert_eq!(now().await, expected, "{auth}");
    }
}

#[tokio::test]
async fn what_has_to_wait_for_a_restart_is_named() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let log = tempfile::NamedTempFile::new().expect("a file");
    let text = |settings: &str| format!("{settings}\n[server]\nreload_interval = \"0s\"\n{}", before());
    write(file.path(), &text("[sse]\nkeep_alive = \"20s\""));
    let arguments = ["--config", file.path().to_str().expect("a path")];
    let server = Process::start_logging(&arguments, log.reopen().expect("the same file")).await;
    let told = async |settings: &str, reloads: usize| {
        write(file.path(), settings);
        server.signal(Signal::HUP);
        crate::support::within(async {
            loop {
                let log = std::fs::read_to_string(log.path()).expect("UTF-8");
                if log.matches("rights were reloaded").count() == reloads {
                    let line = log.lines().rfind(|line| line.contains("at the next start"));
                    return line.unwrap_or_default().to_owned();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    };
    // Rights alone, and what is written in other words.
    let same = text(
        "[sse]\nkeep_alive = \"20000ms\"\n[auth]\naccess_token = true\n[limits]\nrequests_per_address = 1000",
    );
    assert_eq!(told(&same, 1).await, "");
    let other =
        text("[sse]\nkeep_alive = \"10s\"\n[http]\nmetrics = \"manage\"\n[[namespaces]]\nname = \"a\"\n");
    let line = told(&other, 2).await;
    assert!(line.contains("WARN") && line.contains("\"http.metrics, namespaces, sse.keep_alive\""), "{line}");
}

#[tokio::test]
async fn rates_and_origins_change_too() {
    let (server, file) = start(&before(), "").await;
    let page = [("authorization", "Bearer the kept key"), ("origin", "https://app.example")];
    let from_page = async || request(server.http, "POST", "/v1/publish/b", &page, "x").await.status;
    assert_eq!(from_page().await, 403);
    let text = "[server]\nallowed_origins = [\"https://app.example\"]\n".to_owned() + &before();
    write(file.path(), &text);
    server.signal(Signal::HUP);
    crate::support::within(async { while from_page().await != 200 {} }).await;
    write(file.path(), &text.replace("id = \"kept\"", "id = \"kept\"\nrate = 1"));
    server.signal(Signal::HUP);
    crate::support::within(async { while from_page().await != 429 {} }).await;
}

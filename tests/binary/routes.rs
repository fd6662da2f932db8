//! Routes of the real binary, as a configuration file has them.

use std::io::Write;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::http::{get, request};
use crate::support::process::{Process, run_with_input};
use crate::support::within;

/// An origin that says what it was asked for.
async fn origin() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Clients may leave without a word.
            tokio::spawn(answer_one(stream));
        }
    });
    port
}

async fn answer_one(mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let said = String::from_utf8_lossy(&head);
    if said.contains("/held") {
        // Until whoever asked has gone.
        return stream.read_u8().await.map(drop);
    }
    let line = said.lines().next().unwrap_or_default();
    let answer =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{line}", line.len());
    stream.write_all(answer.as_bytes()).await
}

async fn asked(server: &Process, host: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(server.http).await.expect("it listens");
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.expect("answered");
    answer
}

#[tokio::test]
async fn a_route_for_a_host_is_a_reason_to_answer_to_it() {
    let port = origin().await;
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let text = format!(
        "[[gateway.routes]]\nid = \"shop\"\ndialect = \"proxy\"\nhost = \"*.example.org\"\npath = \"/live/**\"\n\
         origin = \"http://127.0.0.1:{port}\"\n"
    );
    file.write_all(text.as_bytes()).expect("written");
    let server = Process::start(&["--config", file.path().to_str().expect("plain")]).await;
    let answer = asked(&server, "a.example.org:8080", "/live/a?b").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("GET /live/a?b HTTP/1.1"), "{answer}");
    for (host, path, status) in [
        ("a.example.org", "/else", "404"),
        ("a.example.com", "/live/a", "421"),
        ("localhost", "/live/a", "404"),
    ] {
        let answer = asked(&server, host, path).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{host}{path}: {answer}");
    }
}

fn route(id: &str, path: &str, port: u16) -> String {
    format!(
        "[[gateway.routes]]\nid = \"{id}\"\ndialect = \"proxy\"\npath = \"{path}\"\norigin = \"http://127.0.0.1:{port}\"\n"
    )
}

fn source(id: &str, path: &str, port: u16) -> String {
    format!(
        "[[gateway.sources]]\nid = \"{id}\"\nkind = \"poll\"\nchannel = \"feed\"\nurl = \"http://127.0.0.1:{port}{path}\"\n"
    )
}

/// The members of a list that name its things.
fn ids(answer: &Value, list: &str) -> Vec<String> {
    let all = answer[list].as_array().into_iter().flatten();
    all.filter_map(|one| one["id"].as_str().map(str::to_owned)).collect()
}

/// Asks until the answer is as it should be.
async fn until(server: &Process, target: &str, holds: impl Fn(&Value) -> bool) -> Value {
    within(async {
        loop {
            let answer = get(server.http, target).await.json();
            if holds(&answer) {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await
}

#[tokio::test]
async fn routes_are_shown_to_who_may_manage_with_what_is_under_way() {
    let port = origin().await;
    let key = |id: &str, actions: &str| {
        let hash = fanwire::auth::KeyHash::of(id.as_bytes());
        format!(
            "[[keys]]\nid = \"{id}\"\nhash = \"{hash}\"\nrights = [{{ actions = [{actions}], channels = [\"**\"] }}]\n"
        )
    };
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let text = key("ops", "\"manage\"") + &key("app", "\"publish\"") + &route("shop", "/shop/**", port);
    file.write_all((text + &route("live", "/live", port)).as_bytes()).expect("written");
    let server = Process::start(&["--config", file.path().to_str().expect("plain")]).await;
    let as_of = async |secret: &str, method: &str, path: &str| {
        let bearer = format!("Bearer {secret}");
        request(server.http, method, path, &[("authorization", &bearer)], "").await
    };
    assert_eq!(get(server.http, "/v1/routes").await.status, 401);
    assert_eq!(as_of("app", "GET", "/v1/routes").await.status, 403);
    assert_eq!(as_of("ops", "POST", "/v1/routes").await.status, 405);
    assert_eq!(as_of("ops", "GET", "/v1/routes/none").await.code(), "not_found");
    let all = as_of("ops", "GET", "/v1/routes").await.json();
    assert_eq!(ids(&all, "routes"), ["shop", "live"], "{all}");
    let shown = as_of("ops", "GET", "/v1/routes/shop").await.json();
    assert_eq!(
        (&shown["dialect"], &shown["host"], &shown["path"], &shown["connections"]),
        (&json!("proxy"), &json!("*"), &json!("/shop/**"), &json!(0)),
        "{shown}"
    );
    assert_eq!(shown["origins"], json!([{"url": format!("http://127.0.0.1:{port}/"), "state": "open"}]));
    assert!(shown["last_active_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{shown}");

    let shows = async |count: u64| {
        within(async {
            while as_of("ops", "GET", "/v1/routes/shop").await.json()["connections"] != json!(count) {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        })
        .await;
    };
    let mut held = TcpStream::connect(server.http).await.expect("it listens");
    let head = format!("GET /shop/held HTTP/1.1\r\nHost: {}\r\n\r\n", server.http);
    held.write_all(head.as_bytes()).await.expect("sent");
    shows(1).await;
    drop(held);
    shows(0).await;
}

#[tokio::test]
async fn routes_and_sources_of_the_file_are_read_again_at_a_signal() {
    let port = origin().await;
    let write = |path: &Path, text: &str| {
        let head = "[server]\nreload_interval = \"0s\"\n";
        let lets = format!("[gateway]\nallow_addresses = [\"127.0.0.1\"]\nallow_ports = [{port}]\n");
        std::fs::write(path, format!("{head}{lets}{text}")).expect("written");
    };
    let file = tempfile::NamedTempFile::new().expect("a file");
    let before = route("same", "/same", port) + &route("gone", "/gone", port);
    let of_sources =
        source("a-same", "/1", port) + &source("b-gone", "/2", port) + &source("c-put", "/3", port);
    write(file.path(), &(before + &of_sources));
    let server = Process::start(&["--config", file.path().to_str().expect("plain")]).await;
    let put = json!({"kind": "poll", "channel": "feed", "url": format!("http://127.0.0.1:{port}/put")});
    let put = request(server.http, "PUT", "/v1/sources/c-put", &[], put.to_string()).await;
    assert_eq!(put.status, 200, "{put:?}");
    let is_open = |answer: &Value| answer["state"] == json!("open");
    let same = until(&server, "/v1/sources/a-same", is_open).await;
    assert_eq!(get(server.http, "/gone").await.status, 200);

    let after = route("same", "/same", port) + &route("new", "/new", port);
    let of_sources =
        source("a-same", "/1", port) + &source("c-put", "/4", port) + &source("d-new", "/5", port);
    write(file.path(), &(after + &of_sources));
    server.signal(Signal::HUP);
    until(&server, "/v1/routes", |answer| ids(answer, "routes") == ["same", "new"]).await;
    until(&server, "/v1/sources", |answer| ids(answer, "sources") == ["a-same", "c-put", "d-new"]).await;
    assert_eq!((get(server.http, "/gone").await.status, get(server.http, "/new").await.status), (404, 200));
    let url = |answer: &Value| answer["url"].as_str().expect("a URL").to_owned();
    let now = get(server.http, "/v1/sources/a-same").await.json();
    assert_eq!((&now["since"], &now["state"]), (&same["since"], &same["state"]), "it went on");
    assert!(url(&get(server.http, "/v1/sources/c-put").await.json()).ends_with("/put"), "the last word");

    write(file.path(), &route("last", "/last", port));
    server.signal(Signal::HUP);
    until(&server, "/v1/routes", |answer| ids(answer, "routes") == ["last"]).await;
    until(&server, "/v1/sources", |answer| ids(answer, "sources") == ["c-put"]).await;
}

#[tokio::test]
async fn routes_of_pushpin_become_a_configuration_that_loads() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name).to_str().expect("plain").to_owned();
    std::fs::write(
        place("routes"),
        "# what Debian's package brings\n* localhost:80,over_http\n\n\
         *.example.com,id=shop,path_beg=/live/,path_rem=5,prefix=shop-,debug a:80,host=inner.example b:81,host=inner.example\n\
         example.org,path_beg=/plain,no_grip,header=\"X-From: \\\"here\\\", there\" c:443,ssl,insecure\n\
         example.org,path_beg=/signed,sig_iss=me,sig_key=base64:c2VjcmV0 c:443,ssl,over_http,one_event\n",
    )
    .expect("written");
    let imported = run_with_input(&["import-routes", &place("routes")], &[], b"").await;
    assert_eq!((imported.code, imported.err.as_str()), (Some(0), ""), "{imported:?}");
    std::fs::write(place("fanwire.toml"), &imported.out).expect("written");
    let checked = run_with_input(&["check-config", &place("fanwire.toml")], &[], b"").await;
    assert_eq!(checked.code, Some(0), "{checked:?}\n{}", imported.out);

    let unmapped = b"* zhttp/tcp://127.0.0.1:1\n*,session,path_beg=/a a:80,sub=news\n*,path_beg=/v1 a:80\n";
    let imported = run_with_input(&["import-routes", "-"], &[], unmapped).await;
    assert_eq!(imported.code, Some(1), "{imported:?}");
    for said in
        ["line 1: the target", "line 2: `session`", "line 2: `sub` is of WebSockets", "line 3: \"/v1**\""]
    {
        assert!(imported.err.contains(said), "{said}: {imported:?}");
    }
    std::fs::write(place("fanwire.toml"), &imported.out).expect("written");
    let checked = run_with_input(&["check-config", &place("fanwire.toml")], &[], b"").await;
    assert_eq!(checked.code, Some(0), "{checked:?}\n{}", imported.out);
    assert_eq!(imported.out.matches("[[gateway.routes]]").count(), 1, "{}", imported.out);
    assert_eq!(run_with_input(&["import-routes", &place("nowhere")], &[], b"").await.code, Some(2));
}

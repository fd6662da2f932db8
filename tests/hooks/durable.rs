//! The binary with what a file says. With `--data`: what was accepted and not delivered, what was given up and what shadows say are there after
//! `kill -9`.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use futures_util::StreamExt as _;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::backend::{Asked, Backend, SECRET};
use crate::support::http::{get, post, request};
use crate::support::process::{Process, run};
use crate::support::{eventually, within};

async fn begin(data: &Path, file: &Path) -> Process {
    let text = |path: &Path| path.to_str().expect("plain").to_owned();
    Process::start(&["--data", &text(data), "--config", &text(file)]).await
}

async fn kill(mut server: Process) {
    server.signal(Signal::KILL);
    server.exit().await;
}

fn written(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

/// Asks until an answer is as it should be.
async fn until(server: &Process, target: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..2_000 {
        last = get(server.http, target).await.json();
        if holds(&last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{target}: {last}")
}

#[tokio::test]
async fn notifications_and_dead_letters_survive_kill_9() {
    let works = Arc::new(AtomicBool::new(false));
    let says = Arc::clone(&works);
    let backend = Backend::start(move |asked: &Asked| {
        let is_end = asked.body["requestContext"]["eventType"] == "DISCONNECT";
        match asked.head.split(' ').nth(1) {
            _ if says.load(SeqCst) => (200, r#"{"statusCode":200}"#.to_owned()),
            Some("/rule") => (422, String::new()),
            Some("/fn") if !is_end => (200, r#"{"statusCode":200}"#.to_owned()),
            _ => (500, String::new()),
        }
    })
    .await;
    let to = format!("http://{}", backend.address);
    let file = written(&format!(
        r#"
[[gateway.webhooks]]
id = "test"
url = "{to}/hooks"
secret = "{SECRET}"
channels = ["a/**"]
events = ["message"]

[aws]
signatures = "ignored"
[[aws.rules]]
name = "many"
filter = "rule/#"
url = "{to}/rule"

[[gateway.aws]]
name = "chat"
path = "/dev"
route_selection = "$request.body.action"
integrations.main = {{ kind = "lambda", url = "{to}/fn", timeout = "5s" }}
routes."$connect" = {{ integration = "main" }}
routes."$disconnect" = {{ integration = "main" }}
retry = []
"#
    ));
    let data = tempfile::tempdir().expect("a directory");
    let server = begin(data.path(), file.path()).await;
    for number in 0..20 {
        let target = format!("/v1/publish/a/{}", number % 2);
        assert_eq!(post(server.http, &target, number.to_string()).await.status, 200);
    }
    assert_eq!(post(server.http, "/v1/publish/rule/1", "poison").await.status, 200);
    let address = format!("ws://{}/dev", server.http);
    let (mut client, _) = within(tokio_tungstenite::connect_async(address)).await.expect("101");
    within(client.close(None)).await.expect("closed");
    let has_two = |letters: &Value| letters["letters"].as_array().is_some_and(|letters| letters.len() == 2);
    let dead = until(&server, "/v1/dead-letters", has_two).await;
    // What was tried is in the queue again, and all of it on the disk.
    let waits = |hook: &Value| hook["queue"]["events"] == json!(20) && hook["queue"]["kept"] == json!(true);
    until(&server, "/v1/webhooks/test", waits).await;
    eventually(|| backend.asked().iter().filter(|asked| asked.head.contains("/hooks")).count() >= 2).await;
    let tried = backend.asked();
    let before: Vec<&str> = tried.iter().filter_map(|asked| asked.header("webhook-id")).collect();
    // Dead letters are written after they are seen.
    tokio::time::sleep(Duration::from_millis(300)).await;
    kill(server).await;

    let so_far = backend.asked().len();
    works.store(true, SeqCst);
    let server = begin(data.path(), file.path()).await;
    let messages = || -> Vec<Asked> {
        let asked = backend.asked().into_iter().skip(so_far);
        asked.filter(|asked| asked.body["type"] == "message").collect()
    };
    eventually(|| messages().len() == 20).await;
    for channel in ["a/0", "a/1"] {
        let events = messages().into_iter().filter(|asked| asked.body["data"]["channel"] == channel);
        let numbers: Vec<u64> = events.filter_map(|asked| asked.body["data"]["data"].as_u64()).collect();
        let first = u64::from(channel == "a/1");
        assert_eq!(numbers, (0..10).map(|n| 2 * n + first).collect::<Vec<_>>(), "in order");
    }
    let after: Vec<Asked> = messages();
    let after: Vec<&str> = after.iter().filter_map(|asked| asked.header("webhook-id")).collect();
    assert!(before.iter().all(|id| after.contains(id)), "under the same ids: {before:?} {after:?}");

    let found = until(&server, "/v1/dead-letters", has_two).await;
    let letters = found["letters"].as_array().expect("a list");
    let hooks: Vec<_> = letters.iter().map(|letter| letter["hook"].as_str().unwrap_or_default()).collect();
    assert_eq!((found == dead, &*hooks), (true, &["aws.rules.many", "aws:chat"][..]), "{dead} {found}");
    for letter in letters {
        let so_far = backend.asked().len();
        let id = letter["id"].as_str().expect("an id");
        let path = format!("/v1/dead-letters/{}/replay", id.replace('/', "%2F").replace('+', "%2B"));
        assert_eq!(request(server.http, "POST", &path, &[], "").await.status, 202, "{letter}");
        eventually(|| backend.asked().len() == so_far + 1).await;
        let again = backend.asked().remove(so_far);
        assert!(again.text == letter["event"] || again.body == letter["event"], "{letter} {again:?}");
    }
    let is_empty = |hook: &Value| hook["queue"]["events"] == json!(0) && hook["queue"]["kept"] == json!(true);
    until(&server, "/v1/webhooks/test", is_empty).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    kill(server).await;

    let so_far = backend.asked().len();
    let server = begin(data.path(), file.path()).await;
    assert_eq!(post(server.http, "/v1/publish/a/1", "\"last\"").await.status, 200);
    eventually(|| backend.asked().len() > so_far).await;
    let rest: Vec<_> = backend.asked().into_iter().skip(so_far).map(|asked| asked.body).collect();
    assert_eq!((rest.len(), &rest[0]["data"]["data"]), (1, &json!("last")), "nothing comes twice");
    let none = get(server.http, "/v1/dead-letters").await.json();
    assert_eq!(none["letters"], json!([]));
}

/// URLs that are put may lead to this backend.
fn lets_to(backend: &Backend) -> tempfile::NamedTempFile {
    let port = backend.address.port();
    written(&format!("[gateway]\nallow_addresses = [\"127.0.0.1\"]\nallow_ports = [{port}]\n"))
}

async fn put(server: &Process, target: &str, what: &Value) -> u16 {
    request(server.http, "PUT", target, &[], what.to_string()).await.status
}

/// The members of a list that name each of its things, in its order.
fn ids(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(|one| one["id"].as_str()).collect()
}

#[tokio::test]
async fn webhooks_that_were_put_survive_kill_9_with_their_order_and_secrets() {
    let backend = Backend::start(|asked: &Asked| match asked.head.split(' ').nth(1) {
        Some("/first") => (403, String::new()),
        _ => (204, String::new()),
    })
    .await;
    let hook = |path: &str| {
        json!({"url": format!("http://{}/{path}", backend.address), "secret": SECRET, "events": ["publish"],
            "channels": ["orders/**"], "headers": {"x-key": "k-1"}})
    };
    let (file, data) = (lets_to(&backend), tempfile::tempdir().expect("a directory"));
    let server = begin(data.path(), file.path()).await;
    // By their names they would come in another order.
    for (id, path) in [("z", "before"), ("y", "gone"), ("x", "second")] {
        assert_eq!(put(&server, &format!("/v1/webhooks/{id}"), &hook(path)).await, 201);
    }
    assert_eq!(put(&server, "/v1/webhooks/z", &hook("first")).await, 200, "in its place");
    assert_eq!(request(server.http, "DELETE", "/v1/webhooks/y", &[], "").await.status, 204);
    let mode = std::fs::metadata(data.path().join("db")).expect("the store");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o700);
    kill(server).await;

    let server = begin(data.path(), file.path()).await;
    let list = get(server.http, "/v1/webhooks").await;
    assert_eq!(ids(&list.json()["webhooks"]), ["z", "x"], "{list:?}");
    assert!(!list.text().contains("whsec_") && !list.text().contains("k-1"), "{list:?}");
    assert_eq!(post(server.http, "/v1/publish/orders/1", "x").await.status, 403);
    let asked = backend.asked().pop().expect("one was asked");
    assert!(asked.head.starts_with("POST /first ") && asked.header("x-key") == Some("k-1"), "{asked:?}");
    let part = |name| asked.header(name).expect("signed").to_owned();
    let secrets = fanwire::gateway::sign::Secrets::new(fanwire::gateway::sign::Secret::parse(SECRET));
    let time = part("webhook-timestamp").parse().expect("seconds");
    assert_eq!(
        secrets.sign(&part("webhook-id"), time, asked.text.as_bytes()),
        part("webhook-signature"),
        "with the secret"
    );
    assert_eq!(request(server.http, "DELETE", "/v1/webhooks/z", &[], "").await.status, 204);
    assert_eq!(request(server.http, "DELETE", "/v1/webhooks/x", &[], "").await.status, 204);
    kill(server).await;

    let server = begin(data.path(), file.path()).await;
    assert_eq!(get(server.http, "/v1/webhooks").await.json()["webhooks"], json!([]));
    assert_eq!(post(server.http, "/v1/publish/orders/1", "x").await.status, 200);
}

#[tokio::test]
async fn sources_that_were_put_survive_kill_9_as_they_were_wanted() {
    let backend = Backend::start(|_| (200, r#"{"n":1}"#.to_owned())).await;
    let source = |path: &str| {
        json!({"kind": "poll", "url": format!("http://{}/{path}", backend.address), "channel": "feed",
            "interval": "1s", "headers": {"x-key": "k-1"}})
    };
    let (file, data) = (lets_to(&backend), tempfile::tempdir().expect("a directory"));
    let server = begin(data.path(), file.path()).await;
    for (id, path) in [("gone", "gone"), ("resting", "resting"), ("again", "again"), ("feed", "feed")] {
        assert_eq!(put(&server, &format!("/v1/sources/{id}"), &source(path)).await, 201);
    }
    assert_eq!(request(server.http, "DELETE", "/v1/sources/gone", &[], "").await.status, 204);
    for wish in ["resting/pause", "again/pause", "again/resume"] {
        assert_eq!(post(server.http, &format!("/v1/sources/{wish}"), "").await.status, 200);
    }
    kill(server).await;

    let so_far = backend.asked().len();
    let server = begin(data.path(), file.path()).await;
    let paths = |asked: &[Asked]| -> std::collections::BTreeSet<String> {
        asked.iter().filter_map(|asked| Some(asked.head.split(' ').nth(1)?.to_owned())).collect()
    };
    eventually(|| paths(&backend.asked()[so_far..]).len() == 2).await;
    let asked = backend.asked().split_off(so_far);
    assert_eq!(paths(&asked), ["/again", "/feed"].map(str::to_owned).into());
    assert!(asked.iter().all(|asked| asked.header("x-key") == Some("k-1")), "{asked:?}");
    let list = get(server.http, "/v1/sources").await;
    assert!(!list.text().contains("k-1"), "{list:?}");
    let states = list.json()["sources"].as_array().cloned().expect("a list");
    let resting = states.iter().find(|source| source["id"] == "resting").expect("it is there");
    assert_eq!((states.len(), &resting["state"]), (3, &json!("paused")), "{list:?}");
}

/// Says what comes behind the last id, up to a number that grows.
async fn say_events(
    mut stream: tokio::net::TcpStream,
    until: Arc<std::sync::atomic::AtomicUsize>,
) -> std::io::Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let last = head.split("last-event-id: ").nth(1).and_then(|rest| rest.split('\r').next());
    let mut said: usize = last.map_or(0, |id| id.parse().expect("an id of ours"));
    let begin = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    stream.write_all(begin.as_bytes()).await?;
    loop {
        if said < until.load(SeqCst) {
            said += 1;
            stream.write_all(format!("id: {said}\ndata: {said}\n\n").as_bytes()).await?;
        } else {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// An upstream that says such events on each connection.
async fn stream_of_events(until: Arc<std::sync::atomic::AtomicUsize>) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(say_events(stream, Arc::clone(&until)));
        }
    });
    address
}

#[tokio::test]
async fn an_event_stream_goes_on_behind_its_last_id_after_kill_9() {
    let until_number = Arc::new(std::sync::atomic::AtomicUsize::new(10));
    let upstream = stream_of_events(Arc::clone(&until_number)).await;
    let file = written(&format!(
        "[gateway]\nallow_addresses = [\"127.0.0.1\"]\nallow_ports = [{port}]\n\
         [[gateway.sources]]\nid = \"file\"\nkind = \"sse\"\nchannel = \"feed/file\"\nurl = \"http://{upstream}/file\"\n",
        port = upstream.port()
    ));
    let data = tempfile::tempdir().expect("a directory");
    let server = begin(data.path(), file.path()).await;
    let source = json!({"kind": "sse", "url": format!("http://{upstream}/put"), "channel": "feed/put"});
    assert_eq!(put(&server, "/v1/sources/put", &source).await, 201);
    let is_at = |last: &'static str| move |source: &Value| source["last_id"] == json!(last);
    for id in ["file", "put"] {
        until(&server, &format!("/v1/sources/{id}"), is_at("10")).await;
    }
    // It is written a moment after it is shown.
    tokio::time::sleep(Duration::from_millis(300)).await;
    kill(server).await;

    until_number.store(15, SeqCst);
    let server = begin(data.path(), file.path()).await;
    for id in ["file", "put"] {
        let now = until(&server, &format!("/v1/sources/{id}"), is_at("15")).await;
        assert_eq!(now["received"], json!(5), "what it had does not come again");
        let history = get(server.http, &format!("/v1/history/feed/{id}?limit=100")).await.json();
        let all = history["messages"].as_array().expect("a list");
        let all: Vec<_> = all.iter().filter_map(|message| message["data"].as_u64()).collect();
        assert_eq!(all, (1..=15).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn without_a_store_what_was_put_is_forgotten() {
    let backend = Backend::willing().await;
    let file = lets_to(&backend);
    let begin = || async { Process::start(&["--config", file.path().to_str().expect("plain")]).await };
    let server = begin().await;
    let url = format!("http://{}/", backend.address);
    let hook = json!({"url": url, "secret": SECRET, "events": ["publish"]});
    assert_eq!(put(&server, "/v1/webhooks/one", &hook).await, 201);
    let source = json!({"kind": "poll", "url": url, "channel": "feed"});
    assert_eq!(put(&server, "/v1/sources/one", &source).await, 201);
    kill(server).await;
    let server = begin().await;
    assert_eq!(get(server.http, "/v1/webhooks").await.json()["webhooks"], json!([]));
    assert_eq!(get(server.http, "/v1/sources").await.json()["sources"], json!([]));
}

#[tokio::test]
async fn shadows_survive_kill_9() {
    let file = written("[aws]\niot = true\nsignatures = \"ignored\"\n");
    let data = tempfile::tempdir().expect("a directory");
    let server = begin(data.path(), file.path()).await;
    for body in [r#"{"state":{"desired":{"on":true}}}"#, r#"{"state":{"reported":{"level":1.50}}}"#] {
        assert_eq!(post(server.http, "/things/lamp/shadow", body).await.status, 200);
    }
    assert_eq!(post(server.http, "/things/lamp/shadow?name=s", r#"{"state":{}}"#).await.status, 200);
    assert_eq!(post(server.http, "/things/gone/shadow", r#"{"state":{}}"#).await.status, 200);
    assert_eq!(request(server.http, "DELETE", "/things/gone/shadow", &[], "").await.status, 200);
    let document = |text: &str| {
        let mut document: Value = serde_json::from_str(text).expect("JSON");
        document.as_object_mut().expect("an object").remove("timestamp");
        document
    };
    let before = document(get(server.http, "/things/lamp/shadow").await.text());
    kill(server).await;

    let server = begin(data.path(), file.path()).await;
    let after = document(get(server.http, "/things/lamp/shadow").await.text());
    assert_eq!((&after, &after["version"]), (&before, &json!(2)));
    assert_eq!(get(server.http, "/things/lamp/shadow?name=s").await.status, 200);
    assert_eq!(get(server.http, "/things/gone/shadow").await.status, 404);
    let again = post(server.http, "/things/gone/shadow", r#"{"state":{}}"#).await.json();
    assert_eq!(again["version"], 2, "versions of a deleted one go on");
}

/// As functions at AWS want it.
#[tokio::test]
async fn requests_to_functions_are_signed_with_the_named_key() {
    let backend = Backend::start(|_| (200, r#"{"statusCode":200}"#.to_owned())).await;
    let file = |sign: &str| {
        written(&format!(
            r#"
[aws]
region = "eu-west-1"
[[aws.keys]]
access_key = "AKIDFANWIRECHECK"
secret = "not-a-secret/+="
gateways = ["*"]
[[gateway.aws]]
name = "chat"
path = "/dev"
route_selection = "$request.body.action"
integrations.main = {{ kind = "lambda", url = "http://{}/2015-03-31/functions/chat/invocations" }}
routes."$connect" = {{ integration = "main" }}
sign = "{sign}"
"#,
            backend.address
        ))
    };
    let known = file("AKIDFANWIRECHECK");
    let server = Process::start(&["--config", known.path().to_str().expect("plain")]).await;
    let address = format!("ws://{}/dev", server.http);
    within(tokio_tungstenite::connect_async(address)).await.expect("101");
    let asked = backend.asked().remove(0);
    let mut request = http::Request::post("/2015-03-31/functions/chat/invocations");
    for (name, value) in asked.head.lines().skip(1).filter_map(|line| line.split_once(": ")) {
        request = request.header(name, value);
    }
    let parts = request.body(()).expect("a request").into_parts().0;
    let key = aws_api::Key::new("AKIDFANWIRECHECK", "not-a-secret/+=");
    let verifier = aws_api::sigv4::Verifier::new("eu-west-1", Duration::from_secs(300), &[key]);
    let now = std::time::UNIX_EPOCH.elapsed().expect("a time").as_secs().cast_signed();
    let signed = verifier.verify("lambda", &parts, asked.text.as_bytes(), now);
    assert!(signed.is_ok(), "{signed:?} {}", asked.head);

    let unknown = file("AKIDOTHER");
    let (code, said) = run(&["--config", unknown.path().to_str().expect("plain")], &[]).await;
    assert!(code == Some(2) && said.contains("gateway.aws[0].sign"), "{said}");
}

#[tokio::test]
async fn a_revoked_user_is_closed_and_its_authorizer_is_asked_again() {
    let allows = json!({"principalId": "ann", "policyDocument": {"Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}});
    let backend = Backend::start(move |asked: &Asked| {
        let is_asked_who = asked.head.starts_with("POST /who ");
        (200, if is_asked_who { allows.to_string() } else { r#"{"statusCode":200}"#.to_owned() })
    })
    .await;
    let to = format!("http://{}", backend.address);
    let file = written(&format!(
        r#"
[aws]
signatures = "ignored"
[[gateway.aws]]
name = "chat"
path = "/dev"
route_selection = "$request.body.action"
integrations.main = {{ kind = "lambda", url = "{to}/fn" }}
authorizers.who = {{ url = "{to}/who", identity = ["route.request.querystring.token"], cache = "1h" }}
routes."$connect" = {{ integration = "main", authorizer = "who" }}
"#
    ));
    let server = Process::start(&["--config", file.path().to_str().expect("plain")]).await;
    let address = format!("ws://{}/dev?token=1", server.http);
    let asked = || backend.asked().iter().filter(|asked| asked.head.starts_with("POST /who ")).count();
    let (mut client, _) = within(tokio_tungstenite::connect_async(&address)).await.expect("101");
    within(tokio_tungstenite::connect_async(&address)).await.expect("101");
    assert_eq!(asked(), 1, "its answer is kept");

    for wrong in ["", "{}", r#"{"user":1}"#, r#"{"name":"ann"}"#] {
        let refused = post(server.http, "/v1/revocations", wrong).await;
        assert_eq!((refused.status, &*refused.code()), (400, "invalid_revocation"), "{refused:?}");
    }
    let nobody = post(server.http, "/v1/revocations", r#"{"user":"bob"}"#).await;
    assert_eq!((nobody.status, nobody.json()), (200, json!({"closed": 0})));
    let revoked = post(server.http, "/v1/revocations", r#"{"user":"ann"}"#).await;
    assert!(revoked.status == 200 && revoked.json()["closed"].as_u64() >= Some(1), "{revoked:?}");
    let code = loop {
        match within(client.next()).await {
            Some(Ok(Message::Close(Some(frame)))) => break u16::from(frame.code),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 4401);
    within(tokio_tungstenite::connect_async(&address)).await.expect("101");
    assert_eq!(asked(), 2, "it is judged anew");
}

#[tokio::test]
async fn a_name_that_leads_where_it_may_not_any_more_is_found_out_when_it_is_called() {
    let data = tempfile::tempdir().expect("a directory");
    let file = written("[gateway]\nallow_hosts = [\"localhost\"]\n");
    let server = begin(data.path(), file.path()).await;
    let hook =
        json!({"url": "http://localhost/", "secret": SECRET, "events": ["message"], "channels": ["a"]});
    let headers = [("content-type", "application/json")];
    let put = request(server.http, "PUT", "/v1/webhooks/a", &headers, hook.to_string()).await;
    assert_eq!(put.status, 201, "{put:?}");
    kill(server).await;

    let file = written("");
    let server = begin(data.path(), file.path()).await;
    assert_eq!(post(server.http, "/v1/publish/a", "x").await.status, 200);
    let has_one = |letters: &Value| letters["letters"].as_array().is_some_and(|letters| letters.len() == 1);
    let letters = until(&server, "/v1/dead-letters", has_one).await;
    let error = letters["letters"][0]["last"]["error"].as_str().expect("an error");
    assert!(error.contains("may not be connected to"), "{error}");
    let hook = get(server.http, "/v1/webhooks/a").await.json();
    assert_eq!(hook["state"], "failed", "{hook}");
    assert!(hook["last_error"]["error"].as_str().is_some_and(|error| error.contains("localhost")), "{hook}");
}

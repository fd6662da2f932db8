//! The binary with `--data`: what it acknowledged is there after `kill -9`.

use std::path::Path;

use rumqttc::QoS;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::bayeux::Socket;
use crate::support::http::{get, post, request};
use crate::support::mqtt::Client;
use crate::support::process::{Process, run, run_with_input};
use crate::support::sse::EventStream;

async fn begin(data: &Path) -> Process {
    Process::start(&["--data", data.to_str().expect("a name")]).await
}

async fn kill(mut server: Process) {
    server.signal(Signal::KILL);
    server.exit().await;
}

async fn publish(server: &Process, target: &str, body: &str) -> Value {
    let answer = post(server.http, &format!("/v1/publish/{target}"), body.to_owned()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// The ids of all that is there, page by page.
async fn history(server: &Process, target: &str) -> Vec<String> {
    let mut ids = Vec::<String>::new();
    for _ in 0..1_000 {
        let after = ids.last().map_or_else(String::new, |id| format!("&after={id}"));
        let page = get(server.http, &format!("/v1/history/{target}?limit=100{after}")).await.json();
        assert_eq!(page["gap"], json!(false), "{page}");
        let messages = page["messages"].as_array().cloned().unwrap_or_default();
        ids.extend(messages.iter().map(|message| message["id"].as_str().unwrap_or_default().to_owned()));
        if messages.len() < 100 {
            return ids;
        }
    }
    panic!("it does not end");
}

fn offset(id: &str) -> u64 {
    id.rsplit('-').next().and_then(|offset| offset.parse().ok()).expect("an id")
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let data = tempfile::tempdir().expect("a directory");
    let server = begin(data.path()).await;
    let mut ids = Vec::new();
    for n in 0..50 {
        let answer = publish(&server, "orders/1", &n.to_string()).await;
        ids.push(answer["id"].as_str().expect("an id").to_owned());
    }
    publish(&server, "state/lamp?retain=true", "on").await;
    publish(&server, "state/door?retain=true", "open").await;
    assert_eq!(request(server.http, "DELETE", "/v1/retained/state/door", &[], "").await.status, 204);
    kill(server).await;

    let server = begin(data.path()).await;
    assert_eq!(history(&server, "orders/1").await, ids);
    assert_eq!(get(server.http, "/v1/retained/state/lamp?format=raw").await.text(), "on");
    assert_eq!(get(server.http, "/v1/retained/state/door").await.status, 404);
    for target in ["/sse/orders/1?format=raw", "/sse?channel=orders/*&format=raw"] {
        let resumed = format!("last-event-id: {}\r\n", ids[39]);
        let mut stream = EventStream::open_with(server.http, target, &resumed).await;
        for n in 40..50 {
            assert_eq!(stream.data().await, n.to_string(), "{target}");
        }
        assert_eq!(stream.last_id(), ids[49], "{target}");
    }
    let mut retained = EventStream::open(server.http, "/sse?channel=state/*&format=raw&retained=true").await;
    assert_eq!(retained.data().await, "on");
    let next = publish(&server, "orders/1", "50").await;
    let offset =
        |id: &str| id.split_once('-').and_then(|(_, offset)| offset.parse::<u64>().ok()).expect("an id");
    let next = next["id"].as_str().expect("an id").to_owned();
    assert_eq!(next.split('-').next(), ids[0].split('-').next(), "the epoch stays");
    assert!(offset(&next) > offset(&ids[49]), "no offset is used again");
    ids.push(next);
    kill(server).await;
    assert_eq!(history(&begin(data.path()).await, "orders/1").await, ids);
}

/// Killed while publishers are at it, again and again on the same directory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_whenever_it_is_killed() {
    let data = tempfile::tempdir().expect("a directory");
    let mut acknowledged = Vec::<String>::new();
    for round in 0..4_u64 {
        let server = begin(data.path()).await;
        let http = server.http;
        let publishers: Vec<_> = (0..8)
            .map(|publisher| {
                tokio::spawn(async move {
                    let mut ids = Vec::new();
                    // Until the server is gone.
                    for n in 0..100_000 {
                        let body = format!("{round} {publisher} {n}");
                        let Some(answer) = try_post(http, "/v1/publish/orders/all", &body).await else {
                            break;
                        };
                        ids.extend(answer["id"].as_str().map(str::to_owned));
                    }
                    ids
                })
            })
            .collect();
        tokio::time::sleep(std::time::Duration::from_millis(200 + 77 * round)).await;
        kill(server).await;
        let before = acknowledged.len();
        for publisher in publishers {
            acknowledged.extend(crate::support::within(publisher).await.expect("no panic"));
        }
        assert!(acknowledged.len() > before, "it acknowledged something in round {round}");
    }
    let there = history(&begin(data.path()).await, "orders/all").await;
    assert!(there.iter().is_sorted_by_key(|id| offset(id)), "in order");
    let there: std::collections::HashSet<_> = there.into_iter().collect();
    let lost: Vec<_> = acknowledged.iter().filter(|id| !there.contains(*id)).collect();
    assert!(lost.is_empty(), "lost {} of {}: {lost:?}", lost.len(), acknowledged.len());
    let distinct: std::collections::HashSet<_> = acknowledged.iter().collect();
    assert_eq!(distinct.len(), acknowledged.len(), "no offset is given twice");
}

/// What a POST is answered, if it is answered.
async fn try_post(address: std::net::SocketAddr, target: &str, body: &str) -> Option<Value> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut socket = tokio::net::TcpStream::connect(address).await.ok()?;
    let length = body.len();
    let head = format!(
        "POST {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    socket.write_all(format!("{head}{body}").as_bytes()).await.ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| serde_json::from_str(body).ok())?
}

#[tokio::test]
async fn a_key_is_answered_as_before_after_kill_9() {
    let data = tempfile::tempdir().expect("a directory");
    let headers = [("idempotency-key", "order-17")];
    let server = begin(data.path()).await;
    let first = request(server.http, "POST", "/v1/publish/orders", &headers, "x").await.json();
    kill(server).await;
    let server = begin(data.path()).await;
    let again = request(server.http, "POST", "/v1/publish/orders", &headers, "x").await;
    assert_eq!(
        (again.status, &again.json()["id"], &again.json()["duplicate"]),
        (200, &first["id"], &json!(true))
    );
    let other = request(server.http, "POST", "/v1/publish/orders", &headers, "y").await;
    assert!((400..500).contains(&other.status), "{other:?}");
    assert_eq!(history(&server, "orders").await.len(), 1);
}

/// As MQTT clients keep their sessions: without a clean one.
async fn device(server: &Process) -> Client {
    Client::connect_with(server.mqtt, "device", |options| {
        options.set_clean_session(false);
    })
    .await
}

/// The session's client reads some, is away, and so is the server; publishers go on in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_with_many_queued_messages_goes_on_over_kill_9_without_gap_or_repeat() {
    const EACH: usize = 400;
    let data = tempfile::tempdir().expect("a directory");
    let mut server = begin(data.path()).await;
    let mut client = device(&server).await;
    client.subscribe("orders/+", QoS::AtLeastOnce).await;
    let (mut published, mut read) = (0, 0);
    for round in 0..3 {
        client.kill();
        if round == 1 {
            server.signal(Signal::TERM);
            assert_eq!(server.exit().await.code(), Some(0));
        } else {
            kill(server).await;
        }
        server = begin(data.path()).await;
        let publisher = Client::connect(server.mqtt, "publisher").await;
        for _ in 0..EACH {
            publisher
                .publish(&format!("orders/{}", published % 7), QoS::AtLeastOnce, &published.to_string())
                .await;
            published += 1;
        }
        // All is acknowledged once something behind it is seen.
        let mut witness = Client::connect(server.mqtt, "witness").await;
        witness.subscribe("end", QoS::AtLeastOnce).await;
        publisher.publish("end", QoS::AtLeastOnce, "").await;
        witness.message().await;
        kill(server).await;
        server = begin(data.path()).await;
        client = device(&server).await;
        // Not all of it before the next time; what was acknowledged is recorded within a second.
        while read < published - if round == 2 { 0 } else { EACH / 2 } {
            assert_eq!(client.payload().await, read.to_string(), "in round {round}");
            read += 1;
        }
        // What the client has read and acknowledged without the test's looking may be all that there is.
        while let Some(payload) = client.payload_if_any(std::time::Duration::from_millis(1_500)).await {
            assert_eq!(payload, read.to_string(), "in round {round}");
            read += 1;
        }
    }
    assert_eq!(read, published);
    kill(server).await;
    let checked = run_with_input(&["store", "check", data.path().to_str().expect("a name")], &[], b"").await;
    assert!(checked.code == Some(0) && checked.out.contains(" sessions=1 "), "{checked:?}");
}

#[tokio::test]
async fn a_server_that_stops_goes_on_right_behind_itself() {
    let data = tempfile::tempdir().expect("a directory");
    let mut server = begin(data.path()).await;
    let first = publish(&server, "a", "1").await;
    server.signal(Signal::TERM);
    assert_eq!(server.exit().await.code(), Some(0));
    let checked = run_with_input(&["store", "check", data.path().to_str().expect("a name")], &[], b"").await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.out.starts_with("a messages=1 ") && checked.out.contains("\nok epoch="), "{checked:?}");
    let server = begin(data.path()).await;
    let second = publish(&server, "a", "2").await;
    let offset_of = |answer: &Value| offset(answer["id"].as_str().expect("an id"));
    assert_eq!(offset_of(&second), offset_of(&first) + 1);
}

#[tokio::test]
async fn a_namespace_in_memory_forgets_and_the_others_do_not() {
    let data = tempfile::tempdir().expect("a directory");
    let file = data.path().join("fanwire.toml");
    let text = "[store]\ndirectory = \"kept\"\ndurability = \"interval:50ms\"\n\
                [[namespaces]]\nname = \"chat\"\ndurability = \"memory\"\n\
                [[namespaces]]\nname = \"orders\"\ndurability = \"always\"\nstore = { max_age = \"30d\", max_messages = 1000 }\n";
    std::fs::write(&file, text).expect("written");
    let begin = || async { Process::start(&["--config", file.to_str().expect("a name")]).await };
    let server = begin().await;
    for channel in ["chat/1", "orders/1", "else"] {
        publish(&server, channel, "x").await;
    }
    // Over what is kept and what is not a stream has a position in each.
    let mut all = EventStream::open(server.http, "/sse?channel=**&format=raw").await;
    publish(&server, "chat/1", "y").await;
    assert_eq!(all.data().await, "y");
    publish(&server, "orders/1", "o1").await;
    assert_eq!(all.data().await, "o1");
    let position = all.last_id().to_owned();
    assert!(position.contains('~'), "{position}");
    for (channel, payload) in [("orders/1", "o2"), ("chat/1", "lost"), ("orders/2", "o3")] {
        publish(&server, channel, payload).await;
    }
    let target = "/sse?channel=**&format=raw";
    let mut resumed =
        EventStream::open_with(server.http, target, &format!("last-event-id: {position}\r\n")).await;
    let mut rest = [resumed.data().await, resumed.data().await, resumed.data().await];
    rest.sort();
    assert_eq!(rest, ["lost", "o2", "o3"], "each log goes on where it was");
    drop((all, resumed));
    kill(server).await;
    let server = begin().await;
    publish(&server, "chat/2", "new").await;
    let mut resumed =
        EventStream::open_with(server.http, target, &format!("last-event-id: {position}\r\n")).await;
    let gap = crate::support::within(resumed.next()).await.expect("an event");
    assert_eq!(gap.event, "gap", "the memory's past is gone: {gap:?}");
    let rest = [resumed.data().await, resumed.data().await, resumed.data().await];
    assert_eq!(rest, ["new", "o2", "o3"]);
    assert!(resumed.last_id().contains('~'));
    let counts = [
        history(&server, "chat/1").await,
        history(&server, "orders/1").await,
        history(&server, "else").await,
    ];
    assert_eq!(counts.map(|ids| ids.len()), [0, 3, 1]);
    kill(server).await;
    let kept = data.path().join("kept");
    let checked = run_with_input(&["store", "check", kept.to_str().expect("a name")], &[], b"").await;
    assert!(checked.out.contains("\norders messages=4 ") && checked.code == Some(0), "{checked:?}");
}

#[tokio::test]
async fn a_store_that_another_server_has_is_refused() {
    let data = tempfile::tempdir().expect("a directory");
    let server = begin(data.path()).await;
    let path = data.path().to_str().expect("a name");
    let (code, said) = run(&["--http", "127.0.0.1:0", "--mqtt", "off", "--data", path], &[]).await;
    assert_eq!((code, said), (Some(2), format!("fanwire: {path} is in use by process {}\n", server.id())));
    let checked = run_with_input(&["store", "check", path], &[], b"").await;
    assert_eq!(checked.code, Some(2), "{checked:?}");
    let nothing = tempfile::tempdir().expect("a directory");
    let checked =
        run_with_input(&["store", "check", nothing.path().to_str().expect("a name")], &[], b"").await;
    assert_eq!(checked.code, Some(2), "{checked:?}");
}

#[tokio::test]
async fn what_needs_a_store_says_so() {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("fanwire.toml");
    for (text, key) in [
        ("[store]\ndurability = \"os\"", "store.durability"),
        ("[[namespaces]]\nname = \"a\"\ndurability = \"always\"", "namespaces[0].durability"),
        ("[[namespaces]]\nname = \"a\"\nstore = { max_bytes = \"1 GiB\" }", "namespaces[0].store"),
    ] {
        std::fs::write(&file, text).expect("written");
        let (code, said) = run(&["check-config", file.to_str().expect("a name")], &[]).await;
        assert_eq!(code, Some(2));
        let expected = format!("`{key}`: needs a store: `store.directory`, or --data");
        assert!(said.contains(&expected), "{said}");
    }
    std::fs::write(&file, "[[namespaces]]\nname = \"a\"\ndurability = \"memory\"").expect("written");
    assert_eq!(run(&["check-config", file.to_str().expect("a name")], &[]).await.0, Some(0));
}

/// Two namespaces in memory and two that are kept, with messages of each in turn.
#[tokio::test]
async fn pages_over_both_logs_bring_everything_once_and_tell_of_no_gap() {
    let data = tempfile::tempdir().expect("a directory");
    let file = data.path().join("fanwire.toml");
    let text = "[store]\ndirectory = \"kept\"\ndurability = \"os\"\n\
                [[namespaces]]\nname = \"chat\"\ndurability = \"memory\"\n\
                [[namespaces]]\nname = \"news\"\ndurability = \"memory\"\n";
    std::fs::write(&file, text).expect("written");
    let begin = || async { Process::start(&["--config", file.to_str().expect("a name")]).await };
    let server = begin().await;
    let channels = ["chat/1", "orders/1", "news/1", "orders/2", "else"];
    let mut expected = Vec::new();
    for n in 0..60_usize {
        // Not in step: sometimes one log has many in a row.
        let channel = channels[(n * n / 7) % channels.len()];
        expected.push(publish(&server, channel, &n.to_string()).await["id"].clone());
    }
    for (filter, limit) in [("%23", 7), ("**", 1), ("%23", 1_000), ("*/1", 4)] {
        let (walked, next) = walk(&server, filter, limit, None).await;
        let mut wanted = expected.clone();
        if filter == "*/1" {
            wanted.retain(|id| walked.contains(id));
            assert!(wanted.len() > 30, "{walked:?}");
        }
        let sorted = |ids: &[Value]| {
            let mut ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
            ids.sort();
            ids
        };
        assert_eq!(sorted(&walked), sorted(&wanted), "{filter} {limit}");
        for log in [&walked[0], walked.iter().find(|id| epoch(id) != epoch(&walked[0])).expect("two logs")] {
            let of_log = walked.iter().filter(|id| epoch(id) == epoch(log));
            let offsets: Vec<_> = of_log.map(|id| offset(id.as_str().expect("an id"))).collect();
            assert!(offsets.is_sorted_by(|one, other| one < other), "{filter} {limit}");
        }
        assert_eq!(walk(&server, filter, limit, Some(&next)).await, (Vec::new(), next.clone()));
    }
    // An event stream and a session of Bayeux go on from there.
    let (_, position) = walk(&server, "**", 9, None).await;
    for (channel, body) in [("orders/1", "\"o\""), ("chat/1", "\"c\"")] {
        let target = format!("/v1/publish/{channel}");
        let answer = crate::support::http::post_json(server.http, &target, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let head = format!("last-event-id: {position}\r\n");
    let mut stream = EventStream::open_with(server.http, "/sse?channel=**&format=raw", &head).await;
    let mut resumed = [stream.data().await, stream.data().await];
    resumed.sort();
    assert_eq!(resumed, ["\"c\"", "\"o\""]);
    let mut page = Socket::handshake_with(server.http, &json!({"replay": true})).await;
    let only_one = position.split('~').next().expect("an id").to_owned();
    let subscribe = |from: &str| {
        json!([{"channel": "/meta/subscribe", "clientId": page.client_id, "subscription": "/**",
            "ext": {"replay": {"/**": from}}}])
    };
    let (both, only_one) = (subscribe(&position), subscribe(&only_one));
    page.send(&only_one).await;
    let refused = subscribed(&mut page).await.0;
    assert_eq!(refused["successful"], false, "it says nothing of the other log: {refused}");
    page.send(&both).await;
    let (reply, mut brought) = subscribed(&mut page).await;
    assert_eq!(reply["successful"], true, "{reply}");
    while brought.len() < 2 {
        let frame = crate::support::within(page.frame()).await.expect("events");
        brought.extend(frame.iter().filter_map(|message| message["data"].as_str().map(str::to_owned)));
    }
    brought.sort();
    assert_eq!(brought, ["c", "o"]);
    // The memory's past goes with the server, and that is told once.
    kill(server).await;
    let server = begin().await;
    let last = publish(&server, "orders/1", "last").await["id"].clone();
    let page = get(server.http, &format!("/v1/history/%23?after={position}")).await.json();
    assert_eq!((&page["gap"], page["messages"].as_array().map(Vec::len)), (&json!(true), Some(2)), "{page}");
    assert_eq!(page["messages"][1]["id"], last);
    let next = page["next"].as_str().expect("a position").to_owned();
    assert_eq!(walk(&server, "%23", 10, Some(&next)).await, (Vec::new(), next));
}

/// The answer to a subscription, and the payloads that came before it.
async fn subscribed(page: &mut Socket) -> (Value, Vec<String>) {
    let mut brought = Vec::new();
    loop {
        for message in crate::support::within(page.frame()).await.expect("an answer") {
            if message["channel"] == "/meta/subscribe" {
                return (message, brought);
            }
            brought.extend(message["data"].as_str().map(str::to_owned));
        }
    }
}

fn epoch(id: &Value) -> &str {
    id.as_str().and_then(|id| id.split('-').next()).expect("an id")
}

/// The ids of all that follows, and the position behind them.
async fn walk(server: &Process, filter: &str, limit: usize, after: Option<&str>) -> (Vec<Value>, String) {
    let (mut ids, mut after) = (Vec::new(), after.map(str::to_owned));
    for _ in 0..200 {
        let named = after.as_ref().map_or_else(String::new, |after| format!("&after={after}"));
        let page = get(server.http, &format!("/v1/history/{filter}?limit={limit}{named}")).await.json();
        assert_eq!(page["gap"], json!(false), "{page}");
        let messages = page["messages"].as_array().cloned().unwrap_or_default();
        assert!(messages.len() <= limit);
        ids.extend(messages.iter().map(|message| message["id"].clone()));
        let next = page["next"].as_str().expect("a position").to_owned();
        if messages.is_empty() {
            return (ids, next);
        }
        after = Some(next);
    }
    panic!("it does not end");
}

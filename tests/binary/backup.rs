//! `fanwire store backup`: a copy of what a server keeps, while it runs and while it does not.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::http::{get, post, request};
use crate::support::mqtt::Bare;
use crate::support::process::{Ended, Process, run_with_input};
use crate::support::sse::EventStream;

async fn begin(data: &Path) -> Process {
    Process::start(&["--data", data.to_str().expect("a name")]).await
}

async fn store(arguments: &[&str], paths: &[&Path]) -> Ended {
    let paths = paths.iter().map(|path| path.to_str().expect("a name"));
    let arguments: Vec<_> = ["store"].into_iter().chain(arguments.iter().copied()).chain(paths).collect();
    run_with_input(&arguments, &[], b"").await
}

async fn publish(server: &Process, target: &str, body: &str) -> String {
    let answer = post(server.http, &format!("/v1/publish/{target}"), body.to_owned()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["id"].as_str().expect("an id").to_owned()
}

async fn ids(server: &Process, target: &str) -> (Vec<String>, Value) {
    let page = get(server.http, &format!("/v1/history/{target}")).await.json();
    let messages = page["messages"].as_array().cloned().unwrap_or_default();
    (
        messages.iter().map(|message| message["id"].as_str().unwrap_or_default().to_owned()).collect(),
        page["gap"].clone(),
    )
}

#[tokio::test]
async fn a_server_begins_where_its_backup_was_made() {
    let folder = tempfile::tempdir().expect("a directory");
    let (data, copy) = (folder.path().join("data"), folder.path().join("copy"));
    let server = begin(&data).await;
    let mut kept = Vec::new();
    for n in 0..20 {
        kept.push(publish(&server, "orders/1", &n.to_string()).await);
    }
    publish(&server, "state/lamp?retain=true", "on").await;
    let headers = [("idempotency-key", "order-17")];
    let keyed = request(server.http, "POST", "/v1/publish/keyed", &headers, "x").await.json();

    let made = store(&["backup"], &[&data, &copy]).await;
    assert_eq!((made.code, made.err.as_str()), (Some(0), ""), "{made:?}");
    assert!(
        made.out.starts_with("keyed messages=1 ")
            && made.out.contains("\norders messages=20 ")
            && made.out.contains("\nok epoch="),
        "{made:?}"
    );
    let later = publish(&server, "orders/1", "the copy does not know it").await;
    publish(&server, "state/lamp?retain=true", "off").await;
    assert_eq!(ids(&server, "orders/1").await.0.len(), 21, "the server goes on");
    let checked = store(&["check"], &[&copy]).await;
    assert_eq!((checked.code, &checked.out), (Some(0), &made.out), "{checked:?}");

    let restored = begin(&copy).await;
    assert_eq!(ids(&restored, "orders/1").await, (kept.clone(), json!(false)));
    assert_eq!(get(restored.http, "/v1/retained/state/lamp?format=raw").await.text(), "on");
    let again = request(restored.http, "POST", "/v1/publish/keyed", &headers, "x").await.json();
    assert_eq!((&again["id"], &again["duplicate"]), (&keyed["id"], &json!(true)));
    let resumed = |id: &str| format!("last-event-id: {id}\r\n");
    let mut stream =
        EventStream::open_with(restored.http, "/sse/orders/1?format=raw", &resumed(&kept[17])).await;
    assert_eq!([stream.data().await, stream.data().await], ["18", "19"]);
    let next = publish(&restored, "orders/1", "20").await;
    assert_eq!((stream.data().await, stream.last_id()), ("20".to_owned(), next.as_str()));
    assert!(!ids(&server, "orders/1").await.0.contains(&next), "no id means two messages");
    // Who has seen what the backup does not know hears of it.
    let mut stream =
        EventStream::open_with(restored.http, "/sse/orders/1?format=raw", &resumed(&later)).await;
    let gap = crate::support::within(stream.next()).await.expect("an event");
    assert_eq!((gap.event.as_str(), stream.data().await.as_str()), ("gap", "20"));
}

#[tokio::test]
async fn a_backup_is_made_of_a_store_that_nobody_has_and_refused_in_words() {
    let folder = tempfile::tempdir().expect("a directory");
    let (data, copy) = (folder.path().join("data"), folder.path().join("copy"));
    let missing = store(&["backup"], &[&data, &copy]).await;
    assert_eq!((missing.code, missing.err), (Some(2), format!("fanwire: {} is no store\n", data.display())));
    let mut server = begin(&data).await;
    let id = publish(&server, "orders", "x").await;
    server.signal(Signal::KILL);
    server.exit().await;
    let made = store(&["backup"], &[&data, &copy]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let again = store(&["backup"], &[&data, &copy]).await;
    assert_eq!((again.code, again.err), (Some(2), format!("fanwire: {} is not empty\n", copy.display())));
    let inside = store(&["backup"], &[&data, &data.join("copy")]).await;
    let said = format!("fanwire: {} lies in the store\n", data.join("copy").display());
    assert_eq!((inside.code, inside.err), (Some(2), said));
    let restored = begin(&copy).await;
    assert_eq!(ids(&restored, "orders").await, (vec![id], json!(false)));
    let used = store(&["backup"], &[&copy, &data.join("../third")]).await;
    assert_eq!(used.code, Some(0), "{used:?}");
}

/// A session that outlives its connection is in the backup, with what waits for it.
#[tokio::test]
async fn an_absent_session_finds_in_the_backup_what_was_published_before_it() {
    let folder = tempfile::tempdir().expect("a directory");
    let (data, copy) = (folder.path().join("data"), folder.path().join("copy"));
    let connect = async |server: &Process| {
        let mut client = Bare::connect(server.mqtt).await;
        // Version 3.1.1, a session that stays.
        client.send(b"\x10\x0f\x00\x04MQTT\x04\x00\x00\x3c\x00\x03dev").await;
        let answer = client.receive(4).await;
        assert_eq!(answer[3], 0, "{answer:?}");
        (client, answer[2] == 1)
    };
    let server = begin(&data).await;
    let (mut client, was_there) = connect(&server).await;
    assert!(!was_there);
    client.send(b"\x82\x0d\x00\x01\x00\x08orders/1\x01").await;
    assert_eq!(client.receive(5).await, [0x90, 3, 0, 1, 1]);
    client.send(b"\xe0\x00").await;
    assert_eq!(client.rest().await, b"");
    publish(&server, "orders/1", "waits").await;
    let made = store(&["backup"], &[&data, &copy]).await;
    assert!(made.code == Some(0) && made.out.contains(" sessions=1 "), "{made:?}");

    let restored = begin(&copy).await;
    let (mut client, was_there) = connect(&restored).await;
    assert!(was_there, "the session is in the backup");
    let packet = client.receive(2 + 2 + 8 + 2 + 5).await;
    assert_eq!((packet[0] & 0xf6, &packet[4..12], &packet[14..]), (0x32, &b"orders/1"[..], &b"waits"[..]));
}

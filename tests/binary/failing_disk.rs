//! A server whose disk takes nothing for a while: what its clients hear, and how it goes on.
//!
//! Files of the process are not allowed to grow (`RLIMIT_FSIZE`), so that its writes fail, whoever runs this and wherever;
//! `store/tests/disks.rs` has disks that are full, frozen and gone.

use std::path::Path;

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::{Value, json};

use crate::support::bayeux::Socket;
use crate::support::http::{get, post, request};
use crate::support::mqtt::Bare;
use crate::support::process::Process;
use crate::support::sse::EventStream;
use crate::support::within;

/// Namespaces are kept, but `chat`.
async fn begin(folder: &Path) -> Process {
    let file = folder.join("fanwire.toml");
    let text = "[store]\ndirectory = \"kept\"\nmin_free_bytes = \"1 KiB\"\n\
                [[namespaces]]\nname = \"chat\"\ndurability = \"memory\"\n";
    std::fs::write(&file, text).expect("written");
    // Else the signal that comes with such a failure ends it.
    Process::start_after_with("trap '' XFSZ", &["--config", file.to_str().expect("a name")]).await
}

fn let_files_grow(server: &Process, may: bool) {
    let id = i32::try_from(server.id()).ok().and_then(Pid::from_raw).expect("a process id");
    let current = if may { None } else { Some(0) };
    prlimit(Some(id), Resource::Fsize, Rlimit { current, maximum: None }).expect("a child may be limited");
}

async fn publish(server: &Process, target: &str, body: &str) -> String {
    let answer = post(server.http, &format!("/v1/publish/{target}"), body.to_owned()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["id"].as_str().expect("an id").to_owned()
}

/// A client of a version of MQTT, with a clean session.
async fn mqtt(server: &Process, level: u8) -> Bare {
    let mut client = Bare::connect(server.mqtt).await;
    let props: &[u8] = if level == 5 { &[0] } else { &[] };
    let body = [b"\x00\x04MQTT", &[level, 2, 0, 60][..], props, &[0, 1, b'0' + level]].concat();
    client.send(&[&[0x10, u8::try_from(body.len()).expect("short")], &body[..]].concat()).await;
    let head = client.receive(2).await;
    assert_eq!(client.receive(usize::from(head[1])).await[1], 0);
    client
}

/// A message of one byte for `orders`, under packet id 1.
fn packet(level: u8, qos: u8) -> Vec<u8> {
    let (id, props): (&[u8], &[u8]) =
        (if qos > 0 { &[0, 1] } else { &[] }, if level == 5 { &[0] } else { &[] });
    let body = [b"\x00\x06orders", id, props, b"x"].concat();
    [&[0x30 | qos << 1, u8::try_from(body.len()).expect("short")], &body[..]].concat()
}

async fn metric(server: &Process, name: &str) -> u64 {
    let page = get(server.http, "/metrics").await;
    let line = page.text().lines().find(|line| line.split(' ').next() == Some(name)).map(str::to_owned);
    line.and_then(|line| line.rsplit(' ').next().and_then(|value| value.parse().ok())).expect("a number")
}

async fn becomes(server: &Process, target: &str, status: u16) {
    within(async {
        while get(server.http, target).await.status != status {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
}

async fn ids(server: &Process, target: &str) -> Vec<String> {
    let page = get(server.http, &format!("/v1/history/{target}?limit=1000")).await.json();
    assert_eq!(page["gap"], json!(false), "{page}");
    let messages = page["messages"].as_array().cloned().unwrap_or_default();
    messages.iter().filter_map(|message| message["id"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_failed_write_is_told_to_all_and_the_store_goes_on_when_the_disk_does() {
    let folder = tempfile::tempdir().expect("a directory");
    let server = begin(folder.path()).await;
    let mut acknowledged = Vec::new();
    for n in 0..10 {
        acknowledged.push(publish(&server, "orders", &n.to_string()).await);
    }
    publish(&server, "state?retain=true", "on").await;
    let mut memory = EventStream::open(server.http, "/sse/chat/1?format=raw").await;
    let mut kept = EventStream::open(server.http, "/sse/orders?format=raw").await;
    let mut page = Socket::handshake(server.http).await;
    let (mut mqtt5, mut mqtt3) = (mqtt(&server, 5).await, mqtt(&server, 4).await);

    let_files_grow(&server, false);
    let unknown = post(server.http, "/v1/publish/orders", "unknown").await;
    assert_eq!((unknown.status, unknown.code().as_str()), (503, "outcome_unknown"), "{unknown:?}");
    becomes(&server, "/readyz", 503).await;
    let refused = post(server.http, "/v1/publish/orders", "refused").await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "store_unavailable"), "{refused:?}");
    assert_eq!(refused.header("retry-after"), Some("5"));
    assert_eq!(request(server.http, "DELETE", "/v1/retained/state", &[], "").await.status, 503);
    let reply: Value = page.publish("/orders", &json!("refused")).await;
    assert_eq!(reply["error"], "503::store_unavailable", "{reply}");
    // QoS 0 is dropped and counted, and its connection stays.
    let before = metric(&server, "fanwire_store_refused_total").await;
    mqtt5.send(&[&packet(5, 0)[..], &[0xC0, 0]].concat()).await;
    assert_eq!(mqtt5.receive(2).await, [0xD0, 0]);
    assert_eq!(metric(&server, "fanwire_store_refused_total").await, before + 1);
    mqtt5.send(&packet(5, 1)).await;
    assert_eq!(mqtt5.receive(5).await[..5], [0x40, 3, 0, 1, 0x83][..]);
    mqtt3.send(&packet(4, 1)).await;
    assert_eq!(mqtt3.rest().await, b"", "version 3 cannot say it");
    // What is in memory goes on, and so do reads.
    publish(&server, "chat/1", "still").await;
    assert_eq!(memory.data().await, "still");
    assert_eq!(ids(&server, "orders").await, acknowledged);
    assert_eq!(get(server.http, "/v1/retained/state?format=raw").await.text(), "on");
    assert_eq!(metric(&server, "fanwire_store_state").await, 0);

    let_files_grow(&server, true);
    becomes(&server, "/readyz", 200).await;
    let again = publish(&server, "orders", "again").await;
    let payload = kept.data().await;
    assert!(payload == "again", "what was not acknowledged was not delivered: {payload}");
    assert_eq!(metric(&server, "fanwire_store_state").await, 1);
    let mut server = server;
    server.signal(Signal::KILL);
    server.exit().await;

    let server = begin(folder.path()).await;
    let there = ids(&server, "orders").await;
    acknowledged.push(again);
    let lost: Vec<_> = acknowledged.iter().filter(|id| !there.contains(id)).collect();
    assert!(lost.is_empty() && there.len() <= acknowledged.len() + 1, "{lost:?} {there:?}");
    assert_eq!(get(server.http, "/v1/retained/state?format=raw").await.text(), "on");
    drop(server);
}

#[tokio::test]
async fn a_server_whose_store_has_lost_what_it_acknowledged_ends_with_70() {
    let folder = tempfile::tempdir().expect("a directory");
    let mut server = begin(folder.path()).await;
    publish(&server, "orders", "x").await;
    let_files_grow(&server, false);
    assert_eq!(post(server.http, "/v1/publish/orders", "unknown").await.status, 503);
    // All that it wrote lies in its journal still.
    let db = folder.path().join("kept/db");
    for file in std::fs::read_dir(&db).expect("a folder").flatten() {
        if file.path().extension().is_some_and(|end| end == "jnl") {
            std::fs::File::create(file.path()).expect("emptied");
        }
    }
    let_files_grow(&server, true);
    assert_eq!(server.exit().await.code(), Some(70));
}

//! The binary with `--data`, killed in the middle of exchanges of QoS 2, and wills after that.

use std::path::Path;

use rustix::process::Signal;

use crate::support::http::get;
use crate::support::mqtt::Bare;
use crate::support::process::Process;

async fn begin(data: &Path) -> Process {
    Process::start(&["--data", data.to_str().expect("a name")]).await
}

async fn kill(mut server: Process) {
    server.signal(Signal::KILL);
    server.exit().await;
}

/// CONNECT of version 3.1.1 without a clean session, and its CONNACK; whether the session was there.
async fn come(server: &Process, id: &str) -> (Bare, bool) {
    let mut bare = Bare::connect(server.mqtt).await;
    let length = u8::try_from(12 + id.len()).expect("a short id");
    let head = [&[0x10, length], &b"\x00\x04MQTT\x04\x00\x00\x3c\x00"[..], &[length - 12], id.as_bytes()];
    bare.send(&head.concat()).await;
    let connack = bare.receive(4).await;
    assert_eq!((connack[0], connack[3]), (0x20, 0));
    (bare, connack[2] == 1)
}

/// PUBLISH to the topic `t` at QoS 2.
fn publish(dup: u8, id: u8, payload: &str) -> Vec<u8> {
    let length = u8::try_from(5 + payload.len()).expect("a short payload");
    [&[0x34 | dup, length, 0, 1, b't', 0, id], payload.as_bytes()].concat()
}

async fn payloads(server: &Process) -> Vec<String> {
    let page = get(server.http, "/v1/history/t?limit=1000").await.json();
    let messages = page["messages"].as_array().cloned().unwrap_or_default();
    messages
        .iter()
        .map(|message| message["data"].as_str().map_or_else(|| message.to_string(), Into::into))
        .collect()
}

/// Killed before and behind each packet of an exchange, in both directions.
#[tokio::test]
async fn an_exchange_goes_on_where_it_was_after_kill_9() {
    let data = tempfile::tempdir().expect("a directory");
    let mut server = begin(data.path()).await;
    let (mut subscriber, _) = come(&server, "s").await;
    subscriber.send(&[0x82, 6, 0, 1, 0, 1, b't', 2]).await;
    assert_eq!(subscriber.receive(5).await, [0x90, 3, 0, 1, 2]);
    for round in 0..3_u8 {
        let payload = format!("message {round}");
        let (mut publisher, present) = come(&server, "p").await;
        assert_eq!(present, round > 0);
        publisher.send(&publish(0, 7, &payload)).await;
        assert_eq!(publisher.receive(4).await, [0x50, 2, 0, 7]);
        let came = subscriber.receive(7 + payload.len()).await;
        assert_eq!((came[0], &came[7..]), (0x34, payload.as_bytes()));
        let id = came[6];
        kill(server).await;
        server = begin(data.path()).await;
        let (mut publisher, _) = come(&server, "p").await;
        publisher.send(&publish(8, 7, &payload)).await;
        assert_eq!(publisher.receive(4).await, [0x50, 2, 0, 7]);
        (subscriber, _) = come(&server, "s").await;
        let again = subscriber.receive(7 + payload.len()).await;
        assert_eq!((again[0], again[6], &again[7..]), (0x3C, id, payload.as_bytes()));
        subscriber.send(&[0x50, 2, 0, id]).await;
        assert_eq!(subscriber.receive(4).await, [0x62, 2, 0, id]);
        publisher.send(&[0x62, 2, 0, 7]).await;
        assert_eq!(publisher.receive(4).await, [0x70, 2, 0, 7]);
        kill(server).await;
        server = begin(data.path()).await;
        (subscriber, _) = come(&server, "s").await;
        assert_eq!(subscriber.receive(4).await, [0x62, 2, 0, id], "and never the message again");
        subscriber.send(&[0x70, 2, 0, id]).await;
        let there = payloads(&server).await;
        assert_eq!(there.len(), usize::from(round) + 1, "{there:?}");
    }
    kill(server).await;
}

/// Without a client that would set anything off, and not again in a third life.
#[tokio::test]
async fn the_will_of_who_was_here_at_kill_9_is_published_once() {
    let data = tempfile::tempdir().expect("a directory");
    let server = begin(data.path()).await;
    // Version 5, clean start off, session expiry 2 s, the will `gone` to the topic `t`.
    let mut client = Bare::connect(server.mqtt).await;
    let connect =
        b"\x10\x1d\x00\x04MQTT\x05\x04\x00\x3c\x05\x11\x00\x00\x00\x02\x00\x01w\x00\x00\x01t\x00\x04gone";
    client.send(connect).await;
    assert_eq!(client.receive(2).await[0], 0x20);
    kill(server).await;
    let server = begin(data.path()).await;
    for _ in 0..500 {
        if !payloads(&server).await.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(payloads(&server).await.len(), 1);
    kill(server).await;
    let server = begin(data.path()).await;
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    assert_eq!(payloads(&server).await.len(), 1);
    kill(server).await;
}

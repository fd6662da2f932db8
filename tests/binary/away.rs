//! The binary with `--data`: what MQTT clients find that were away, where that is not all of it or not theirs alone.

use std::path::Path;

use rustix::process::Signal;

use crate::support::http::{get, post};
use crate::support::mqtt::Bare;
use crate::support::process::Process;

/// CONNECT of version 5 to a session that lasts, and its CONNACK from the flags on.
async fn come(server: &Process, id: &str) -> (Bare, Vec<u8>) {
    let mut bare = Bare::connect(server.mqtt).await;
    let mut connect = b"\x00\x04MQTT\x05\x00\x00\x3c\x05\x11\xff\xff\xff\xff".to_vec();
    connect.extend([0, u8::try_from(id.len()).expect("a short id")]);
    connect.extend(id.as_bytes());
    let length = u8::try_from(connect.len()).expect("a short packet");
    bare.send(&[&[0x10, length], &connect[..]].concat()).await;
    let head = bare.receive(2).await;
    assert_eq!(head[0], 0x20);
    let rest = bare.receive(usize::from(head[1])).await;
    assert_eq!(rest[1], 0, "{rest:?}");
    (bare, rest)
}

async fn subscribe(bare: &mut Bare, filter: &str) {
    let length = u8::try_from(filter.len()).expect("a short filter");
    bare.send(&[&[0x82, length + 6, 0, 1, 0, 0, length], filter.as_bytes(), &[1]].concat()).await;
    assert_eq!(bare.receive(6).await, [0x90, 4, 0, 1, 0, 1]);
}

async fn publish(server: &Process, channel: &str, body: &str) -> String {
    let answer = post(server.http, &format!("/v1/publish/{channel}"), body.to_owned()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["id"].as_str().expect("an id").to_owned()
}

async fn kill(mut server: Process) {
    server.signal(Signal::KILL);
    server.exit().await;
}

/// The value of CONNACK's user property `fanwire-gap`.
fn gap_in(connack: &[u8]) -> Option<String> {
    let name = b"\x26\x00\x0bfanwire-gap";
    let at = connack.windows(name.len()).position(|window| window == name)? + name.len();
    let length = usize::from(u16::from_be_bytes([connack[at], connack[at + 1]]));
    Some(String::from_utf8(connack[at + 2..at + 2 + length].to_vec()).expect("UTF-8"))
}

async fn begin(data: &Path, config: &str) -> Process {
    let file = data.join("fanwire.toml");
    std::fs::write(&file, config).expect("a file");
    let directory = data.join("store");
    Process::start(&[
        "--config",
        file.to_str().expect("a name"),
        "--data",
        directory.to_str().expect("a name"),
    ])
    .await
}

const SMALL: &str = "[log]\nmax_bytes = \"16 KiB\"\n[[namespaces]]\nname = \"orders\"\nlog = { max_bytes = \"16 KiB\" }\nstore = { max_messages = 16 }\n";

/// Publishes until what came first is gone; the id of that.
async fn publish_too_much(server: &Process) -> String {
    let first = publish(server, "orders/1", "0").await;
    for n in 1..200 {
        publish(server, "orders/1", &n.to_string()).await;
    }
    // The store drops what is too much once a second.
    for _ in 0..100 {
        let page = get(server.http, &format!("/v1/history/orders/1?after={first}")).await.json();
        if page["gap"] == serde_json::json!(true) {
            return first;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("nothing was dropped");
}

/// Also for a session of an earlier life, and not for one that misses nothing.
#[tokio::test]
async fn a_client_is_told_that_retention_has_passed_its_position() {
    let data = tempfile::tempdir().expect("a directory");
    let mut server = begin(data.path(), SMALL).await;
    for round in 0..2 {
        let (id, other_id) = (format!("late{round}"), format!("other{round}"));
        let (mut late, connack) = come(&server, &id).await;
        assert_eq!(gap_in(&connack), None, "{connack:?}");
        subscribe(&mut late, "orders/+").await;
        let (mut other, _) = come(&server, &other_id).await;
        subscribe(&mut other, "else").await;
        drop((late, other));
        let first = publish_too_much(&server).await;
        if round == 1 {
            kill(server).await;
            server = begin(data.path(), SMALL).await;
        }
        let (late, connack) = come(&server, &id).await;
        assert_eq!(connack[0], 1);
        let gap = gap_in(&connack).expect("a gap");
        let (requested, oldest) = gap.split_once(' ').expect("two positions");
        let offset = |id: &str| id.rsplit('-').next().and_then(|it| it.parse::<u64>().ok()).expect("an id");
        assert!(offset(requested) < offset(oldest) && offset(oldest) >= offset(&first), "{gap}");
        let (other, connack) = come(&server, &other_id).await;
        assert_eq!((connack[0], gap_in(&connack)), (1, None));
        // It is counted once the replay has seen it.
        let mut counted = false;
        for _ in 0..500 {
            let metrics = get(server.http, "/metrics").await;
            let is_counted = |line: &str| {
                line.strip_prefix("fanwire_mqtt_session_gaps_total ").is_some_and(|count| count != "0")
            };
            counted = metrics.text().lines().any(is_counted);
            if counted {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(counted);
        drop((late, other));
        // The client has come, and reads on behind it.
        let (late, connack) = come(&server, &id).await;
        assert_eq!((connack[0], gap_in(&connack)), (1, None));
        drop(late);
    }
}

/// The next PUBLISH at QoS 1: its payload. It is acknowledged.
/// A client that is connected and hears nothing is as far as the log: a crash finds it there, not where it last heard.
#[tokio::test]
async fn retention_does_not_pass_the_position_of_an_idle_client() {
    let data = tempfile::tempdir().expect("a directory");
    let server = begin(data.path(), SMALL).await;
    let (mut idle, _) = come(&server, "idle").await;
    subscribe(&mut idle, "orders/quiet").await;
    publish_too_much(&server).await;
    // Ten seconds is the longest that a few sessions wait for their turn.
    tokio::time::sleep(std::time::Duration::from_secs(13)).await;
    kill(server).await;
    let server = begin(data.path(), SMALL).await;
    publish(&server, "orders/quiet", "then").await;
    drop(idle);
    let (mut idle, connack) = come(&server, "idle").await;
    assert_eq!((connack[0], gap_in(&connack)), (1, None));
    assert_eq!(payload(&mut idle).await, "then");
}

async fn payload(bare: &mut Bare) -> String {
    let head = bare.receive(2).await;
    assert_eq!(head[0] & 0xF6, 0x32, "{head:?}");
    let rest = bare.receive(usize::from(head[1])).await;
    let at = 2 + usize::from(u16::from_be_bytes([rest[0], rest[1]]));
    bare.send(&[0x40, 2, rest[at], rest[at + 1]]).await;
    let properties = usize::from(rest[at + 2]);
    String::from_utf8(rest[at + 3 + properties..].to_vec()).expect("UTF-8")
}

/// Who comes first is told what the group misses, also in the next life, and gets what is left of it; who comes then has
/// missed nothing.
#[tokio::test]
async fn who_comes_first_to_a_group_is_told_that_retention_has_passed_its_position() {
    let data = tempfile::tempdir().expect("a directory");
    let mut server = begin(data.path(), SMALL).await;
    for round in 0..2 {
        let (filter, ids) =
            (format!("$share/g{round}/orders/+"), ["one", "two"].map(|id| format!("{id}{round}")));
        for id in &ids {
            let (mut member, _) = come(&server, id).await;
            subscribe(&mut member, &filter).await;
        }
        alone(&server).await;
        let first = publish_too_much(&server).await;
        if round == 1 {
            kill(server).await;
            server = begin(data.path(), SMALL).await;
        }
        let (mut one, connack) = come(&server, &ids[0]).await;
        let gap = gap_in(&connack).expect("a gap");
        let (requested, oldest) = gap.split_once(' ').expect("two positions");
        let offset = |id: &str| id.rsplit('-').next().and_then(|it| it.parse::<u64>().ok()).expect("an id");
        assert!(offset(requested) < offset(oldest) && offset(oldest) >= offset(&first), "{gap}");
        // The newest is there, and nothing twice.
        let mut all = vec![payload(&mut one).await.parse::<u32>().expect("a number")];
        while all.last() != Some(&199) {
            all.push(payload(&mut one).await.parse().expect("a number"));
        }
        assert!(all[0] > 0 && all.is_sorted_by(|a, b| a + 1 == *b), "{all:?}");
        let (mut two, connack) = come(&server, &ids[1]).await;
        assert_eq!((connack[0], gap_in(&connack)), (1, None));
        nothing_comes(&mut two).await;
        drop((one, two));
        alone(&server).await;
    }
}

/// PINGREQ: all that was sent before is handled once it is answered, and nothing else has come.
async fn nothing_comes(bare: &mut Bare) {
    bare.send(&[0xC0, 0]).await;
    assert_eq!(bare.receive(2).await, [0xD0, 0]);
}

/// Until the server has seen that nobody is connected.
async fn alone(server: &Process) {
    for _ in 0..200 {
        let metrics = get(server.http, "/metrics").await;
        if metrics.text().lines().any(|line| line == "fanwire_mqtt_connections 0") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("somebody is still there");
}

/// Published while the group is empty, with and without `kill -9`, and once more while it is not.
#[tokio::test]
async fn a_group_gets_what_came_while_nobody_was_there_once() {
    const MANY: usize = 300;
    let data = tempfile::tempdir().expect("a directory");
    let mut server = begin(data.path(), "").await;
    let (mut one, _) = come(&server, "one").await;
    subscribe(&mut one, "$share/g/orders/+").await;
    let (mut two, _) = come(&server, "two").await;
    subscribe(&mut two, "$share/g/orders/+").await;
    let mut next = 0;
    for round in 0..4 {
        // One is there, and gets all of it.
        drop(two);
        for _ in 0..10 {
            publish(&server, "orders/1", &next.to_string()).await;
            assert_eq!(payload(&mut one).await, next.to_string(), "in round {round}");
            next += 1;
        }
        nothing_comes(&mut one).await;
        drop(one);
        alone(&server).await;
        let first = next;
        for _ in 0..MANY {
            publish(&server, "orders/1", &next.to_string()).await;
            next += 1;
        }
        match round {
            0 | 2 => {
                kill(server).await;
                server = begin(data.path(), "").await;
                publish(&server, "orders/1", &next.to_string()).await;
                next += 1;
            }
            _ => {}
        }
        // The other one comes first.
        (two, _) = come(&server, "two").await;
        for expected in first..next {
            assert_eq!(payload(&mut two).await, expected.to_string(), "in round {round}");
        }
        nothing_comes(&mut two).await;
        (one, _) = come(&server, "one").await;
        nothing_comes(&mut one).await;
    }
    // A group that nobody is a member of begins anew.
    for bare in [&mut one, &mut two] {
        bare.send(b"\xA2\x16\x00\x02\x00\x00\x11$share/g/orders/+").await;
        assert_eq!(bare.receive(6).await, [0xB0, 4, 0, 2, 0, 0]);
    }
    publish(&server, "orders/1", "of nobody").await;
    subscribe(&mut one, "$share/g/orders/+").await;
    publish(&server, "orders/1", "after").await;
    assert_eq!(payload(&mut one).await, "after");
    kill(server).await;
}

/// The next PUBLISH: its topic, and whether it is retained. It is acknowledged if it is to be.
async fn any_publish(bare: &mut Bare) -> (String, bool) {
    let flags = bare.receive(1).await[0];
    assert_eq!(flags & 0xF0, 0x30, "{flags:x}");
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = bare.receive(1).await[0];
        length |= usize::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let rest = bare.receive(length).await;
    let at = 2 + usize::from(u16::from_be_bytes([rest[0], rest[1]]));
    if flags & 6 != 0 {
        bare.send(&[0x40, 2, rest[at], rest[at + 1]]).await;
    }
    (String::from_utf8(rest[2..at].to_vec()).expect("UTF-8"), flags & 1 == 1)
}

/// The first byte of the next packet.
async fn next_kind(bare: &Bare) -> u8 {
    let mut first = [0];
    crate::support::within(bare.0.peek(&mut first)).await.expect("it is there");
    first[0]
}

/// What is published while a subscription has many retained messages before it, to it and to others, in this life and
/// after a connection that ended meanwhile.
#[tokio::test]
async fn nothing_is_lost_behind_retained_messages() {
    const RETAINED: usize = 3_000;
    const LIVE: usize = 20;
    let data = tempfile::tempdir().expect("a directory");
    let server = begin(data.path(), "").await;
    let items: Vec<_> = (0..RETAINED)
        .map(|n| serde_json::json!({"channel": format!("b/{n}"), "text": "x".repeat(2_000), "retain": true}))
        .collect();
    for items in items.chunks(500) {
        let answer = post(server.http, "/v1/publish", serde_json::json!(items).to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    for breaks in [false, true] {
        let (mut bare, _) = come(&server, if breaks { "breaks" } else { "stays" }).await;
        subscribe(&mut bare, "a/#").await;
        bare.send(b"\x82\x09\0\x02\0\0\x03b/#\x01").await;
        // SUBACK comes among the first of what is retained.
        while next_kind(&bare).await != 0x90 {
            assert!(any_publish(&mut bare).await.1);
        }
        assert_eq!(bare.receive(6).await, [0x90, 4, 0, 2, 0, 1]);
        // It does not read on: most of what is retained is still to come.
        for n in 0..LIVE {
            publish(&server, "b/live", &n.to_string()).await;
            publish(&server, "a/live", &n.to_string()).await;
        }
        if breaks {
            drop(bare);
            alone(&server).await;
            (bare, _) = come(&server, "breaks").await;
        }
        let mut live = std::collections::BTreeMap::<String, usize>::new();
        while live.values().sum::<usize>() < 2 * LIVE {
            let (topic, is_retained) = any_publish(&mut bare).await;
            if !is_retained {
                *live.entry(topic).or_default() += 1;
            }
        }
        assert_eq!(live, [("a/live".to_owned(), LIVE), ("b/live".to_owned(), LIVE)].into());
        drop(bare);
        alone(&server).await;
    }
    kill(server).await;
}

//! Descriptors at their end: whoever is refused hears why, whoever is served goes on, and nobody spins.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::http::{get, post, raw};
use crate::support::process::Process;
use crate::support::within;

const ASKING: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
const CONNECT_3: &[u8] = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00";
const CONNECT_5: &[u8] = b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00";

#[tokio::test]
async fn the_soft_limit_is_raised_to_the_hard_one() {
    let server = Process::start_after("ulimit -Sn 100; ulimit -Hn 1000").await;
    let _open = hold(server.http, 300).await;
    assert_eq!(get(server.http, "/healthz").await.status, 200);
}

#[tokio::test]
async fn of_four_hundred_at_once_each_is_served_or_told_that_there_is_no_room() {
    let server = Process::start_after("ulimit -n 256").await;
    let (mut served, mut told) = (Vec::new(), 0);
    for (stream, answer) in all_at_once(server.http, 400, ASKING).await {
        let answer = String::from_utf8(answer).expect("UTF-8");
        if answer.starts_with("HTTP/1.1 200 ") {
            served.push(stream);
        } else {
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer:?}");
            assert!(
                answer.contains("too_many_connections") && answer.contains("\r\nretry-after: "),
                "{answer}"
            );
            told += 1;
        }
    }
    assert!(served.len() > 150 && told > 150, "{} served, {told} told", served.len());

    // A browser would take an error status for an event stream as final.
    let stream = raw(server.http, b"GET /sse/a HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let stream = String::from_utf8(stream).expect("UTF-8");
    assert!(stream.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"), "{stream}");
    assert!(stream.contains("\nretry: ") && stream.ends_with('\n'), "{stream}");

    // Those inside are served on.
    for stream in &mut served {
        stream.write_all(ASKING).await.expect("it is open");
        let answer = answer_of(stream, ASKING).await;
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&answer));
    }
    drop(served);
    within(until_served(server.http)).await;
    assert_eq!(post(server.http, "/v1/publish/a", "x").await.status, 200);
}

#[tokio::test]
async fn mqtt_clients_for_whom_there_is_no_room_are_told_in_their_version() {
    for (connect, taken, refused) in
        [(CONNECT_3, &[0x20, 2, 0, 0][..], &[0x20, 2, 0, 3][..]), (CONNECT_5, &[0x20][..], &[0x20][..])]
    {
        let server = Process::start_after("ulimit -n 256").await;
        let (mut served, mut told) = (Vec::new(), 0);
        for (stream, answer) in all_at_once(server.mqtt, 400, connect).await {
            // Of version 5: the length, no session, the reason.
            let reason = *answer.get(3).unwrap_or_else(|| panic!("{answer:?}"));
            if reason == 0 {
                assert!(answer.starts_with(taken), "{answer:?}");
                served.push(stream);
            } else {
                assert!(answer.starts_with(refused) && matches!(reason, 3 | 0x97), "{answer:?}");
                told += 1;
            }
        }
        assert!(served.len() > 150 && told > 150, "{} served, {told} told", served.len());
    }
}

#[tokio::test]
async fn those_that_are_refused_and_say_nothing_do_not_keep_others_from_being_told() {
    let server = Process::start_after("ulimit -n 256").await;
    let silent = hold(server.http, 400).await;
    for (_, answer) in all_at_once(server.http, 100, ASKING).await {
        assert!(answer.starts_with(b"HTTP/1.1 503 "), "{:?}", String::from_utf8_lossy(&answer));
    }
    // They were told too.
    let mut told = 0;
    for mut stream in silent {
        let mut answer = [0; 12];
        let read = tokio::time::timeout(Duration::from_millis(10), stream.read(&mut answer)).await;
        told += usize::from(matches!(read, Ok(Ok(12))) && answer == *b"HTTP/1.1 503");
    }
    assert!(told > 150, "{told}");
}

#[tokio::test]
async fn more_than_an_address_may_have_are_all_told_too() {
    let environment = "export FANWIRE_LIMITS_MAX_CONNECTIONS_PER_ADDRESS=50; ulimit -n 2000";
    let server = Process::start_after(environment).await;
    let _fifty = hold(server.http, 50).await;
    for (address, asking, expected) in [
        (server.http, ASKING, &b"HTTP/1.1 429 "[..]),
        (server.mqtt, CONNECT_3, b"\x20\x02\x00\x03"),
        (server.mqtt, CONNECT_5, b"\x20"),
    ] {
        for (_, answer) in all_at_once(address, 300, asking).await {
            assert!(answer.starts_with(expected), "{:?}", String::from_utf8_lossy(&answer));
        }
    }
}

#[tokio::test]
async fn a_limit_that_changes_while_it_serves_is_heeded() {
    let server = Process::start_after("ulimit -n 4000").await;
    let mut open = hold(server.http, 100).await;
    within(until_served(server.http)).await;
    limit(&server, 60);
    // Accepting fails: they wait in the kernel's queue.
    open.extend(hold(server.http, 100).await);
    let before = server.cpu_ticks();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = server.cpu_ticks() - before;
    assert!(used <= 20, "{used} of 100 ticks");
    limit(&server, 4000);
    within(until_served(server.http)).await;
    let metrics = get(server.http, "/metrics").await;
    assert!(number(metrics.text(), "fanwire_accept_pauses_total") > 0);

    // What it may have more it takes: the first count was made of 60.
    assert_eq!(number(metrics.text(), "fanwire_max_descriptors"), 3936);
    limit(&server, 256);
    open.extend(hold(server.http, 150).await);
    drop(open);
    within(until_served(server.http)).await;
}

/// From outside, as an operator would.
fn limit(server: &Process, descriptors: usize) {
    let arguments = [format!("--pid={}", server.id()), format!("--nofile={descriptors}:4000")];
    let done = std::process::Command::new("prlimit").args(arguments).status().expect("util-linux is there");
    assert!(done.success());
}

fn number(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name}"))
}

/// Connections that say nothing.
async fn hold(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..count {
        open.push(TcpStream::connect(address).await.expect("in the backlog"));
    }
    open
}

/// So many clients that all say the same, and how each is answered.
async fn all_at_once(address: SocketAddr, count: usize, asking: &'static [u8]) -> Vec<(TcpStream, Vec<u8>)> {
    let mut clients = JoinSet::new();
    for _ in 0..count {
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("in the backlog");
            stream.write_all(asking).await.expect("written");
            let answer = answer_of(&mut stream, asking).await;
            (stream, answer)
        });
    }
    clients.join_all().await
}

/// A whole answer of HTTP, or a CONNACK. Nothing if the server has only closed.
async fn answer_of(stream: &mut TcpStream, asking: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    let is_whole = |answer: &[u8]| match asking {
        ASKING => std::str::from_utf8(answer).is_ok_and(|text| {
            let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            length.is_some_and(|length| length == body.len().to_string())
        }),
        _ => answer.get(1).is_some_and(|length| answer.len() >= 2 + usize::from(*length)),
    };
    while !is_whole(&answer) {
        if within(stream.read_buf(&mut answer)).await.expect("no reset") == 0 {
            break;
        }
    }
    answer
}

async fn until_served(address: SocketAddr) {
    loop {
        let question = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        if raw(address, question).await.starts_with(b"HTTP/1.1 200") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

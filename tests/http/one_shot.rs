//! Backends that live for milliseconds: they connect, publish and go, not all of them politely.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::http::{get, request};
use crate::support::process::Process;
use crate::support::within;

/// How a publisher goes.
#[derive(Clone, Copy, Debug)]
enum Leaving {
    /// It asks the server to close, and waits until it has.
    Asking,
    /// It reads the answer and closes a connection that could have been kept.
    ClosingFirst,
    /// It ends its side at once and reads the answer.
    HalfClosing,
    /// It is killed before it reads: the kernel resets what is unread.
    Dying,
}

/// How much more memory may be in use after six thousand publishers than after two, in bytes. Their messages in the log
/// take one of them; what a connection has while it lives (hyper's buffers alone are 8 kB) would be 32 and more if it
/// stayed.
const MAX_GROWTH: usize = 4 << 20;

const WAYS: [Leaving; 4] = [Leaving::Asking, Leaving::ClosingFirst, Leaving::HalfClosing, Leaving::Dying];

async fn publish(server: SocketAddr, number: usize) {
    let leaving = WAYS[number % WAYS.len()];
    let mut stream = TcpStream::connect(server).await.expect("the server listens");
    let close = if matches!(leaving, Leaving::Asking) { "connection: close\r\n" } else { "" };
    let body = number.to_string();
    let text = format!(
        "POST /v1/publish/once HTTP/1.1\r\nhost: localhost\r\n{close}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await.expect("it takes the request");
    let mut answer = Vec::new();
    match leaving {
        Leaving::Asking => _ = stream.read_to_end(&mut answer).await.expect("an answer"),
        Leaving::HalfClosing => {
            stream.shutdown().await.expect("half closed");
            stream.read_to_end(&mut answer).await.expect("an answer");
        }
        Leaving::ClosingFirst => {
            while !answer.ends_with(b"}") {
                assert_ne!(stream.read_buf(&mut answer).await.expect("an answer"), 0);
            }
        }
        Leaving::Dying => return,
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{leaving:?}: {}", String::from_utf8_lossy(&answer));
}

async fn publish_all(server: SocketAddr, numbers: std::ops::Range<usize>) {
    let mut publishers = JoinSet::new();
    for number in numbers {
        if publishers.len() == 32 {
            publishers.join_next().await.expect("there are some").expect("it succeeds");
        }
        publishers.spawn(async move { within(publish(server, number)).await });
    }
    while let Some(done) = publishers.join_next().await {
        done.expect("it succeeds");
    }
}

/// The sockets of the server's port by their state, as `/proc/net/tcp` has it.
fn sockets(server: SocketAddr) -> BTreeMap<&'static str, usize> {
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes([127, 0, 0, 1]), server.port());
    let mut states = BTreeMap::new();
    for line in std::fs::read_to_string("/proc/net/tcp").expect("Linux").lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.get(1) == Some(&local.as_str()) {
            let state = match fields.get(3).copied() {
                Some("01") => "ESTABLISHED",
                Some("06") => "TIME_WAIT",
                Some("08") => "CLOSE_WAIT",
                Some("0A") => "LISTEN",
                _ => "closing",
            };
            *states.entry(state).or_default() += 1;
        }
    }
    states
}

/// Private memory in use, in bytes.
fn memory(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux 4.5 or newer");
    let kib = line.trim().strip_suffix(" kB").and_then(|kib| kib.parse::<usize>().ok()).expect("a number");
    kib << 10
}

fn descriptors(process: &Process) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", process.id())).expect("it lives").count()
}

#[tokio::test]
async fn a_thousand_one_shot_publishers_leave_nothing_behind() {
    let server = Process::start(&[]).await;
    // What is opened lazily is open after this.
    publish_all(server.http, 0..64).await;
    let settled = |count: usize| {
        let server = &server;
        async move {
            for _ in 0..200 {
                let sockets = sockets(server.http);
                let lasting = sockets.iter().filter(|(state, _)| !matches!(**state, "LISTEN" | "TIME_WAIT"));
                if lasting.count() == 0 && descriptors(server) <= count {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            panic!("{:?}, {} descriptors, {count} expected", sockets(server.http), descriptors(server));
        }
    };
    settled(usize::MAX).await;
    let before = descriptors(&server);
    publish_all(server.http, 64..1_064).await;
    settled(before).await;

    // What a thousand had in use the next ones use again. An allocator gives back in its own time, so that the first ones may have had less.
    let mut in_use = Vec::new();
    for thousand in 1..=6 {
        publish_all(server.http, thousand * 1_000 + 64..thousand * 1_000 + 1_064).await;
        settled(before).await;
        in_use.push(memory(&server));
    }
    let warm = in_use.iter().take(2).max().expect("two");
    let last = in_use.iter().rev().take(2).min().expect("two");
    assert!(last.saturating_sub(*warm) < MAX_GROWTH, "{in_use:?} bytes after each thousand");

    let metrics = get(server.http, "/metrics").await;
    let published =
        metrics.text().lines().find(|line| line.starts_with("fanwire_http_published_messages_total"));
    // Whoever died may have done so before its request was read.
    let count = published.and_then(|line| line.split(' ').next_back()).and_then(|count| count.parse().ok());
    assert!(count.is_some_and(|count: usize| (5_298..=7_064).contains(&count)), "{published:?}");
}

#[tokio::test]
async fn a_function_that_is_run_three_times_publishes_once() {
    let server = Process::start(&[]).await;
    let headers = [("idempotency-key", "invocation-1"), ("content-type", "application/json")];
    let run = || request(server.http, "POST", "/v1/publish/orders", &headers, r#"{"order":1}"#);
    let (one, two) = tokio::join!(run(), run());
    let three = run().await;
    let answers = [one, two, three].map(|answer| {
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    });
    assert!(answers.iter().all(|answer| answer["id"] == answers[0]["id"]), "{answers:?}");
    let firsts = answers.iter().filter(|answer| answer["duplicate"] == false).count();
    assert_eq!(firsts, 1, "{answers:?}");
    let history = get(server.http, "/v1/history/orders").await.json();
    assert_eq!(history["messages"].as_array().map(Vec::len), Some(1), "{history}");

    // A hundred at one instant, on a key of their own.
    let mut retries = JoinSet::new();
    for _ in 0..100 {
        retries.spawn(async move {
            let headers = [("idempotency-key", "invocation-2")];
            request(server.http, "POST", "/v1/publish/orders", &headers, "again").await.json()
        });
    }
    let answers = retries.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer["duplicate"] == false).count(), 1);
    let history = get(server.http, "/v1/history/orders").await.json();
    assert_eq!(history["messages"].as_array().map(Vec::len), Some(2), "{history}");
}

//! What peers begin and do not finish costs what they sent and not what they announced, and comes back.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::http::{get, post};
use crate::support::process::Process;
use crate::support::within;

const MIB: u64 = 1 << 20;

/// Memory that belongs to the process alone, in bytes.
fn private_bytes(server: &Process) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", server.id())).expect("it lives");
    let of = |name: &str| -> u64 {
        let line = rollup.lines().find(|line| line.starts_with(name)).expect("a line");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    };
    (of("Private_Dirty:") + of("Private_Clean:")) * 1024
}

/// `count` connections that each send `pieces`, each piece by itself.
async fn begin(address: SocketAddr, count: usize, pieces: &[&[u8]]) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("it is open");
        for piece in pieces {
            stream.write_all(piece).await.expect("written");
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        all.push(stream);
    }
    // Until the server has read them; what it has not would only make the figure smaller.
    tokio::time::sleep(Duration::from_millis(500)).await;
    all
}

async fn growth(server: &Process, address: SocketAddr, count: usize, pieces: &[&[u8]]) -> u64 {
    let before = private_bytes(server);
    let open = begin(address, count, pieces).await;
    let after = private_bytes(server);
    drop(open);
    tokio::time::sleep(Duration::from_millis(300)).await;
    after.saturating_sub(before)
}

#[tokio::test]
async fn an_announcement_costs_nothing() {
    let server = Process::start_after("ulimit -n 4000").await;
    let post = |length: &str| {
        format!(
            "POST /v1/publish HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let (small, large) = (post("100"), post("16777216"));
    // Whatever is allocated once is.
    growth(&server, server.http, 300, &[small.as_bytes(), b"[", b" "]).await;
    let small = growth(&server, server.http, 600, &[small.as_bytes(), b"[", b" "]).await;
    let large = growth(&server, server.http, 600, &[large.as_bytes(), b"[", b" "]).await;
    assert!(large < small + 4 * MIB, "{large} bytes for 16 MiB announced, {small} for 100");
    assert!(large < 600 * 64 * 1024, "{large} bytes for 600 connections");

    // Half of a CONNECT, of a frame, and a short one.
    let short = growth(&server, server.mqtt, 600, &[b"\x10", b"\x0f", b"\x00"]).await;
    let long = growth(&server, server.mqtt, 600, &[b"\x10", b"\xff\xff\x1f", b"\x00"]).await;
    assert!(long < short + 4 * MIB, "{long} bytes for 512 KiB announced, {short} for 15");
    assert!(long < 600 * 24 * 1024, "{long} bytes for 600 connections");
    assert_eq!(get(server.http, "/healthz").await.status, 200);
}

#[tokio::test]
async fn what_counts_as_unfinished_is_what_is_held_and_it_comes_back() {
    let server = Process::start(&[]).await;
    // Whatever is allocated once is.
    for _ in 0..10 {
        post(server.http, "/v1/publish/a", vec![b'x'; 600_000]).await;
    }
    let before = private_bytes(&server);
    let head = b"POST /v1/publish/b HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4000000\r\n\r\n";
    let piece = vec![b'x'; 600_000];
    let mut open = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(server.http).await.expect("the server listens");
        stream.write_all(head).await.expect("written");
        within(stream.write_all(&piece)).await.expect("written");
        open.push(stream);
    }
    let counted = within(async {
        loop {
            let counted = gauge(&server, "fanwire_unfinished_bytes").await;
            if counted == 100 * 600_000 {
                return counted;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let held = private_bytes(&server) - before;
    assert!(held < 2 * counted && held * 2 > counted, "{held} bytes held, {counted} counted");

    // What is given back is there for the next; the allocator itself keeps some of it.
    let peak = private_bytes(&server);
    for _ in 0..3 {
        drop(std::mem::take(&mut open));
        within(async {
            while gauge(&server, "fanwire_unfinished_bytes").await > 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        for _ in 0..50 {
            let mut stream = TcpStream::connect(server.http).await.expect("the server listens");
            stream.write_all(head).await.expect("written");
            within(stream.write_all(&piece)).await.expect("written");
            open.push(stream);
        }
    }
    let after = private_bytes(&server);
    assert!(after < peak + 8 * MIB, "{after} bytes for half as many as took {peak}");
}

async fn gauge(server: &Process, name: &str) -> u64 {
    let metrics = get(server.http, "/metrics").await;
    let line = metrics.text().lines().find(|line| line.split(' ').next() == Some(name)).map(str::to_owned);
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("a gauge")
}

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::http::{get, post, raw};
use crate::support::process::Process;
use crate::support::within;

#[tokio::test]
async fn the_soft_limit_is_raised_to_the_hard_one() {
    let server = Process::start_after("ulimit -Sn 100; ulimit -Hn 1000").await;
    let _open = hold(server.http, 300).await;
    assert_eq!(get(server.http, "/healthz").await.status, 200);
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_the_rest_go_on() {
    let server = Process::start_after("ulimit -n 200").await;
    let mut open = Vec::new();
    for _ in 0..400 {
        let mut stream = TcpStream::connect(server.http).await.expect("in the backlog");
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        open.push(stream);
    }
    let (mut served, mut told) = (0, 0);
    for stream in &mut open {
        let mut bytes = [0; 512];
        let count = within(stream.read(&mut bytes)).await.unwrap_or(0);
        let answer = std::str::from_utf8(&bytes[..count]).expect("UTF-8");
        if answer.starts_with("HTTP/1.1 503 ") {
            assert!(answer.contains("too_many_connections") && answer.contains("retry-after: "), "{answer}");
            told += 1;
        } else if answer.starts_with("HTTP/1.1 200 ") {
            served += 1;
        }
    }
    assert!(served > 100 && told > 0, "{served} served, {told} told that there is no room");
    // A browser would take an error status for an event stream as final.
    let stream = within(async {
        loop {
            // Of many refusals at a time some are without a word.
            let answer = raw(server.http, b"GET /sse/a HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
            if !answer.is_empty() {
                return String::from_utf8(answer).expect("UTF-8");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(stream.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"), "{stream}");
    assert!(stream.contains("\nretry: ") && stream.ends_with('\n'), "{stream}");

    drop(open);
    within(async {
        loop {
            let question = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
            if raw(server.http, question).await.starts_with(b"HTTP/1.1 200") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(post(server.http, "/v1/publish/a", "x").await.status, 200);
}

#[tokio::test]
async fn out_of_descriptors_it_waits_instead_of_spinning() {
    // What is kept free is less than refusals may take, so that accepting fails with EMFILE.
    let server = Process::start_after("ulimit -n 64").await;
    let open = hold(server.http, 500).await;
    let before = server.cpu_ticks();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = server.cpu_ticks() - before;
    assert!(used <= 10, "{used} of 100 ticks");

    drop(open);
    let metrics = within(async {
        loop {
            let question = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
            let answer = String::from_utf8(raw(server.http, question).await).expect("UTF-8");
            if answer.starts_with("HTTP/1.1 200") {
                break answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    let pauses =
        metrics.lines().find_map(|line| line.strip_prefix("fanwire_accept_pauses_total ")).expect("counted");
    assert_ne!(pauses, "0");
}

/// Connections that say nothing.
async fn hold(address: std::net::SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..count {
        open.push(TcpStream::connect(address).await.expect("in the backlog"));
    }
    open
}

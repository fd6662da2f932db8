//! Many sources whose upstreams restart at random.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::support::Life;

const SOURCES: usize = 200;
/// Events of each, with the numbers from 1 as their ids.
const EVENTS: usize = 20;
/// How often all upstreams are gone at once.
const RESTARTS: usize = 8;

fn some_ms(range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(fastrand::u64(range))
}

/// Serves, and restarts in the middle of what it says; after the last time it stays.
async fn upstream(first: TcpListener, address: SocketAddr) {
    let mut listener = Some(first);
    for restart in 0..=RESTARTS {
        let serving = match listener.take() {
            Some(listener) => listener,
            None => TcpListener::bind(address).await.expect("the port that it had"),
        };
        let (up, gone) = watch::channel(());
        let accept = async {
            while let Ok((stream, _)) = serving.accept().await {
                let mut gone = gone.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = serve(stream) => {}
                        _ = gone.changed() => {}
                    }
                });
            }
        };
        if restart == RESTARTS {
            return accept.await;
        }
        let _ = tokio::time::timeout(some_ms(200..600), accept).await;
        drop(up);
        drop(serving);
        sleep(some_ms(20..100)).await;
    }
}

/// What comes behind the last id, sometimes in pieces, and sometimes something else.
async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    match fastrand::u8(0..20) {
        0 => return Ok(()),
        1 => {
            let answer = "HTTP/1.1 503 Later\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            return stream.write_all(answer.as_bytes()).await;
        }
        _ => {}
    }
    let last = head.split("last-event-id: ").nth(1).and_then(|rest| rest.split('\r').next());
    let last: usize = last.map_or(0, |id| id.parse().expect("an id of ours"));
    // What a reconnecting client may have had already comes again.
    let from = last.saturating_sub(fastrand::usize(0..3)) + 1;
    let begin = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\nretry: 1\n\n";
    stream.write_all(begin.as_bytes()).await?;
    for number in from..=EVENTS {
        let event = format!("id: {number}\ndata: {{\"n\":{number}}}\n\n");
        let (one, other) = event.split_at(fastrand::usize(0..event.len()));
        stream.write_all(one.as_bytes()).await?;
        sleep(some_ms(0..30)).await;
        if fastrand::u8(0..40) == 0 {
            return Ok(());
        }
        stream.write_all(other.as_bytes()).await?;
    }
    // It has said all, and stays.
    stream.read_u8().await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_comes_once_whenever_upstreams_restart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(upstream(listener, address));
    let sources: Vec<_> = (0..SOURCES)
        .map(|number| {
            json!({"id": format!("s{number}"), "kind": "sse", "url": format!("http://{address}/{number}"),
                "channel": format!("feed/{number}")})
        })
        .collect();
    let life = Life::start(&sources);
    let mut heard = life.hear("feed/*");
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for _ in 0..SOURCES * EVENTS {
        let message = heard.next().await;
        let text = String::from_utf8(message.payload().to_vec()).expect("text");
        all.entry(message.channel().as_str().to_owned()).or_default().push(text);
    }
    let expected: Vec<_> = (1..=EVENTS).map(|number| format!("{{\"n\":{number}}}")).collect();
    assert_eq!(all.len(), SOURCES);
    for (channel, events) in all {
        assert_eq!(events, expected, "{channel}");
    }
    heard.nothing(Duration::from_millis(300)).await;
}

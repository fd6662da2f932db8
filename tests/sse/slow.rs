//! Readers that stop, and readers that vanish.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::TestServer;
use crate::support::sse::EventStream;

/// A stream whose reader takes nothing and has next to no room in its kernel.
async fn stopped(server: &TestServer, target: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("it can be small");
    let mut stream = socket.connect(server.http).await.expect("the server listens");
    let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    stream
}

#[tokio::test]
async fn a_reader_that_stops_is_closed_and_resumes_by_id_without_loss() {
    let server = TestServer::start().await;
    let mut reader = EventStream::open(server.http, "/sse/a").await;
    let _stopped = stopped(&server, "/sse/a").await;
    server.wait_for_subscriptions(2).await;
    let payload = "x".repeat(10_000);
    let mut first = String::new();
    for n in 0..1000 {
        server.publish("a", &format!("{n} {payload}"));
        let event = reader.next().await.expect("the other reader is none the wiser");
        assert!(event.data.starts_with(&format!("{n} ")));
        if n == 0 {
            first = event.id;
        }
    }
    server.wait_for_subscriptions(1).await;

    let mut again =
        EventStream::open_with(server.http, "/sse/a", &format!("last-event-id: {first}\r\n")).await;
    for n in 1..1000 {
        assert!(again.data().await.starts_with(&format!("{n} ")), "{n}");
    }
}

#[tokio::test]
async fn readers_that_are_killed_leave_nothing() {
    let server = TestServer::start().await;
    let before = std::fs::read_dir("/proc/self/fd").expect("a list").count();
    let mut streams = Vec::new();
    for _ in 0..200 {
        streams.push(stopped(&server, "/sse/a").await);
    }
    server.wait_for_subscriptions(200).await;
    for stream in streams {
        // What the kernel does for a killed process with unread input: a reset.
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("it can be set");
    }
    server.publish("a", "to nobody");
    server.wait_for_subscriptions(0).await;
    crate::support::eventually(|| std::fs::read_dir("/proc/self/fd").expect("a list").count() <= before + 2)
        .await;
}

#[tokio::test]
async fn a_reader_that_takes_nothing_for_ten_seconds_is_closed_before_its_outbox_is_full() {
    let server = TestServer::start().await;
    let mut reader = EventStream::open(server.http, "/sse/a").await;
    let _stopped = stopped(&server, "/sse/a").await;
    server.wait_for_subscriptions(2).await;
    let payload = "x".repeat(10_000);
    for _ in 0..60 {
        server.publish("a", &payload);
        reader.next().await.expect("the other reader is none the wiser");
    }
    assert_eq!(server.broker.stats().subscriptions, 2, "600 kB are within the outbox");
    for _ in 0..600 {
        if server.broker.stats().subscriptions == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("a minute, and it is still there");
}

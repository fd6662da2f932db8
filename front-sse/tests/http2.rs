//! Streams over HTTP/2 by prior knowledge.

mod support;

use http::{Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{Server, eventually};
use tokio::net::TcpStream;

async fn connect(server: &Server) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(server.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(128 * 1024)
        .initial_connection_window_size(16 * 1024 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

async fn open(sender: &mut SendRequest<Empty<Bytes>>, target: &str) -> Incoming {
    let request = Request::get(format!("http://broker{target}")).body(Empty::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert!(!response.headers().contains_key("connection"));
    response.into_body()
}

/// Reads until `end` has come; a keep-alive may stand behind it.
async fn until(body: &mut Incoming, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        let frame = body.frame().await.expect("the stream goes on").unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    text
}

#[tokio::test]
async fn two_thousand_streams_share_two_connections() {
    let server = Server::start().await;
    let mut streams = Vec::new();
    for half in 0..2 {
        let mut sender = connect(&server).await;
        for at in half * 1_000..(half + 1) * 1_000 {
            streams.push(open(&mut sender, &format!("/sse?channel=all&channel=one/{at}&format=raw")).await);
        }
    }
    assert_eq!(server.publish("all", "everyone").receivers, 2_000);
    server.publish("one/7", "you");
    server.publish("one/1007", "you");
    for (at, stream) in streams.iter_mut().enumerate() {
        let end = if at % 1_000 == 7 { "data: you\n\n" } else { "data: everyone\n\n" };
        assert_eq!(until(stream, end).await.matches("data: everyone\n\n").count(), 1);
    }
    drop(streams);
    eventually(|| server.front.stats().streams == 0).await;
}

#[tokio::test]
async fn a_head_a_refusal_and_a_preflight_share_a_connection_with_a_stream() {
    let server = Server::start().await;
    let mut sender = connect(&server).await;
    let mut stream = open(&mut sender, "/sse/a").await;
    for (method, target, status) in
        [("HEAD", "/sse/a", 200), ("GET", "/sse", 400), ("PUT", "/sse/a", 405), ("OPTIONS", "/sse/a", 204)]
    {
        let request = Request::builder().method(method).uri(format!("http://broker{target}"));
        let answer = sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), status, "{method} {target}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.is_empty(), matches!(method, "HEAD" | "OPTIONS"), "{method} {target}");
    }
    server.publish("a", "1");
    until(&mut stream, "data: 1\n\n").await;
}

#[tokio::test]
async fn a_stream_that_resumes_is_told_of_a_gap_and_ends_with_the_front() {
    let server = Server::start().await;
    let mut sender = connect(&server).await;
    let mut stream = open(&mut sender, "/sse/a?last_event_id=elsewhere-1").await;
    let text = until(&mut stream, "}\n\n").await;
    assert!(
        text.starts_with(":\nid: ")
            && text.contains("\nevent: gap\ndata: {\"channel\":\"a\",\"requested\":\"elsewhere-1\","),
        "{text}"
    );
    let front = server.front.clone();
    let ending = tokio::spawn(async move { front.shutdown(std::time::Duration::from_millis(200)).await });
    let rest = stream.collect().await.unwrap().to_bytes();
    assert!(std::str::from_utf8(&rest).unwrap().contains(": shutting down\nretry: "), "{rest:?}");
    ending.await.unwrap();
}

#[tokio::test]
async fn a_stream_that_is_not_read_holds_up_no_other() {
    let mut config = front_sse::Config::default();
    config.outbox = broker_core::OutboxConfig::new(10_000, 64 << 10, broker_core::OutboxPolicy::Disconnect);
    let server =
        Server::with(broker_core::Config::default(), config, std::sync::Arc::new(broker_core::AllowAll))
            .await;
    let mut sender = connect(&server).await;
    let stopped = open(&mut sender, "/sse/a").await;
    let mut read = open(&mut sender, "/sse/a").await;
    until(&mut read, "\n").await;
    let payload = "x".repeat(8 << 10);
    for _ in 0..200 {
        server.publish("a", &payload);
        until(&mut read, &format!("data: {payload}\n\n")).await;
    }
    eventually(|| server.front.stats().closed_slow == 1).await;
    assert_eq!(server.front.stats().streams, 1);
    let cut = tokio::time::timeout(std::time::Duration::from_secs(10), stopped.collect()).await.unwrap();
    assert!(cut.is_err(), "a stream that was cut does not look like one that ended");
}

#[tokio::test]
async fn streams_without_a_window_hold_what_one_connection_may_their_outboxes_too() {
    const STREAMS: u64 = 120;
    const BEHIND_EACH: u64 = 9 * (100 << 10);
    let server = Server::start().await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(0)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let mut unread = Vec::new();
    for at in 0..STREAMS {
        unread.push(open(&mut sender, &format!("/sse/one/{at}")).await);
    }
    let payload = "x".repeat(100 << 10);
    for at in 0..STREAMS {
        for _ in 0..9 {
            server.publish(&format!("one/{at}"), &payload);
        }
        server.broker.drained().await;
    }
    // Within the 10 s after which a stream without any progress ends by itself.
    eventually(|| server.front.stats().streams as u64 * BEHIND_EACH <= 64 << 20).await;
    assert!(server.front.stats().streams > 20, "no more are reset than must be: {:?}", server.front.stats());
    assert!(!connection.is_finished(), "the connection goes on");
}

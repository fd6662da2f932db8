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

/// Reads until the text ends with `end`.
async fn until(body: &mut Incoming, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let frame = body.frame().await.expect("the stream goes on").unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    text
}

#[tokio::test]
async fn a_thousand_streams_share_one_connection() {
    let server = Server::start().await;
    let mut sender = connect(&server).await;
    let mut streams = Vec::new();
    for at in 0..1_000 {
        streams.push(open(&mut sender, &format!("/sse?channel=all&channel=one/{at}&format=raw")).await);
    }
    assert_eq!(server.publish("all", "everyone").receivers, 1_000);
    server.publish("one/7", "you");
    for (at, stream) in streams.iter_mut().enumerate() {
        let end = if at == 7 { "data: you\n\n" } else { "data: everyone\n\n" };
        assert_eq!(until(stream, end).await.matches("data: everyone\n\n").count(), 1);
    }
    drop(streams);
    eventually(|| server.front.stats().streams == 0).await;
}

#[tokio::test]
async fn a_stream_that_is_not_read_holds_up_no_other() {
    let config = front_sse::Config {
        outbox: broker_core::OutboxConfig {
            max_messages: 10_000,
            max_bytes: 64 << 10,
            policy: broker_core::Policy::Disconnect,
        },
        ..front_sse::Config::default()
    };
    let server =
        Server::with(broker_core::Config::default(), config, std::sync::Arc::new(broker_core::AllowAll))
            .await;
    let mut sender = connect(&server).await;
    let stopped = open(&mut sender, "/sse/a").await;
    let mut read = open(&mut sender, "/sse/a").await;
    until(&mut read, "\n\n").await;
    let payload = "x".repeat(8 << 10);
    for _ in 0..200 {
        server.publish("a", &payload);
        until(&mut read, &format!("data: {payload}\n\n")).await;
    }
    eventually(|| server.front.stats().closed_slow == 1).await;
    assert_eq!(server.front.stats().streams, 1);
    drop(stopped);
}

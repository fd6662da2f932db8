use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::TestServer;
use crate::support::http::{post, post_json};
use crate::support::sse::EventStream;

#[tokio::test]
async fn one_channel_is_raw_and_several_are_envelopes() {
    let server = TestServer::start().await;
    let mut one = EventStream::open(server.http, "/sse/a/b").await;
    let mut many = EventStream::open(server.http, "/sse?channel=a/*&channel=x").await;
    assert_eq!(one.status, 200);
    post_json(server.http, "/v1/publish/a/b?event=e", r#"{"n": 1e400}"#).await;
    let event = one.next().await.expect("an event");
    assert_eq!((event.data.as_str(), event.event.as_str()), (r#"{"n": 1e400}"#, "e"));
    let enveloped = many.next().await.expect("an event");
    assert!(
        enveloped.data.contains(r#""channel":"a/b""#) && enveloped.data.contains(r#""data":{"n": 1e400}"#),
        "{enveloped:?}"
    );
    assert_eq!(enveloped.id, event.id);
}

#[tokio::test]
async fn a_payload_cannot_forge_an_event() {
    let server = TestServer::start().await;
    let mut stream = EventStream::open(server.http, "/sse/a").await;
    post(server.http, "/v1/publish/a", "one\rid: 7\r\r\nevent: forged\n\ndata: x").await;
    post(server.http, "/v1/publish/a", "next").await;
    let event = stream.next().await.expect("an event");
    assert_eq!(event.data, "one\nid: 7\n\nevent: forged\n\ndata: x");
    assert_eq!(event.event, "");
    assert_eq!(stream.data().await, "next");
}

#[tokio::test]
async fn a_thousand_streams_get_every_message_in_order() {
    const STREAMS: usize = 1000;
    const MESSAGES: usize = 50;
    let server = TestServer::start().await;
    let mut readers = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = EventStream::open(server.http, "/sse/many").await;
        readers.push(tokio::spawn(async move {
            for n in 0..MESSAGES {
                assert_eq!(stream.data().await, n.to_string());
            }
        }));
    }
    server.wait_for_subscriptions(STREAMS).await;
    for n in 0..MESSAGES {
        assert_eq!(post(server.http, "/v1/publish/many", n.to_string()).await.json()["receivers"], STREAMS);
    }
    for reader in readers {
        reader.await.expect("every message, in order");
    }
    // All gone without a word: nothing of them stays.
    server.wait_for_subscriptions(0).await;
}

#[tokio::test]
async fn a_request_behind_another_on_one_connection_still_gets_its_stream() {
    let server = TestServer::start().await;
    let mut socket = TcpStream::connect(server.http).await.expect("the server listens");
    let both = "POST /v1/publish/x HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n1\
                GET /sse/a HTTP/1.1\r\nhost: x\r\n\r\n";
    socket.write_all(both.as_bytes()).await.expect("written");
    server.wait_for_subscriptions(1).await;
    server.publish("a", "hello");
    let mut seen = String::new();
    crate::support::within(async {
        while !seen.contains("data: hello") {
            let mut bytes = [0; 4096];
            let count = tokio::io::AsyncReadExt::read(&mut socket, &mut bytes).await.expect("open");
            assert_ne!(count, 0, "closed after {seen}");
            seen.push_str(std::str::from_utf8(&bytes[..count]).expect("UTF-8"));
        }
    })
    .await;
    assert!(seen.starts_with("HTTP/1.1 200 OK") && seen.contains("text/event-stream"), "{seen}");
}

//! Event streams and WebSockets.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Life, Upstream, ok, status, stream, within};

#[tokio::test]
async fn an_event_stream_goes_on_from_its_last_id_and_repeats_nothing() {
    let upstream = Upstream::start(|number, _| match number {
        0 => stream("retry: 1\n\nid: 1\nevent: price\ndata: {\"n\":1}\n\nid: 2\ndata: two\n\n"),
        // What was cut off comes again, with one that is known.
        1 => stream("id: 2\ndata: two\n\nid: 3\ndata: a\ndata: b\n\n<open>"),
        _ => status("500 Internal Server Error"),
    })
    .await;
    let life = Life::start(&[json!({"id": "s", "kind": "sse", "url": upstream.url, "channel": "feed/x",
        "headers": {"x-key": "secret"}})]);
    let mut heard = life.hear("feed/x");
    let first = heard.next().await;
    assert_eq!((&**first.payload(), first.event()), (&b"{\"n\":1}"[..], Some("price")));
    assert_eq!(first.content_type().map(|kind| kind.as_str()), Some("application/json"));
    let second = heard.next().await;
    assert_eq!(&**second.payload(), b"two");
    assert_eq!(second.content_type().map(|kind| kind.as_str()), Some("text/plain;charset=utf-8"));
    assert_eq!(heard.text().await, "a\nb", "the second is not repeated");
    let heads = upstream.heads();
    assert!(heads[0].contains("accept: text/event-stream\r\n") && !heads[0].contains("last-event-id"));
    assert!(heads[1].contains("last-event-id: 2\r\n"), "{}", heads[1]);
    assert!(heads.iter().all(|head| head.contains("x-key: secret\r\n")));
    let shown = format!("{:?}", life.sources);
    assert!(!shown.contains("secret"), "{shown}");
}

#[tokio::test]
async fn an_event_that_is_cut_off_behind_its_id_comes_again() {
    let upstream = Upstream::start(|number, head| match number {
        0 => stream("id: 1\nda"),
        _ if head.contains("last-event-id") => stream(": nothing behind it\n\n<open>"),
        _ => stream("id: 1\ndata: whole\n\n<open>"),
    })
    .await;
    let life = Life::start(&[json!({"id": "s", "kind": "sse", "url": upstream.url, "channel": "feed/x"})]);
    assert_eq!(life.hear("feed/x").text().await, "whole");
}

#[tokio::test]
async fn a_stream_that_says_204_rests_and_what_is_no_stream_is_said() {
    let upstream = Upstream::start(|_, head| match head {
        head if head.starts_with("GET /over") => status("204 No Content"),
        _ => ok("content-type: text/html\r\n", "hello"),
    })
    .await;
    let source = |id: &str, path: &str| json!({"id": id, "kind": "sse", "url": format!("{}{path}", upstream.url), "channel": "a"});
    let life = Life::start(&[source("over", "/over"), source("page", "/page")]);
    within(async {
        while life.sources.state_of("over").unwrap().phase != sources::Phase::Paused
            || life.sources.state_of("page").unwrap().phase != sources::Phase::Backoff
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let state = life.sources.state_of("page").unwrap();
    assert_eq!(state.error, Some((sources::Condition::Protocol, "no event stream: text/html".to_owned())));
}

#[tokio::test]
async fn what_is_larger_than_it_may_be_ends_the_connection_and_not_the_source() {
    let upstream = Upstream::start(|number, _| match number {
        0 => stream(&format!("id: 1\ndata: {}\n\n", "x".repeat(2_000))),
        _ => stream("id: 2\ndata: small\n\n<open>"),
    })
    .await;
    let life = Life::start(&[
        json!({"id": "s", "kind": "sse", "url": upstream.url, "channel": "a", "max_message": 1000}),
    ]);
    assert_eq!(life.hear("a").text().await, "small");
}

#[tokio::test]
async fn a_redirect_to_another_host_is_followed_without_what_is_secret() {
    let target = Upstream::start(|_, _| stream("data: here\n\n<open>")).await;
    // Another name of the same machine is another host.
    let elsewhere = format!("http://localhost:{}/x", target.port());
    let first = Upstream::start(move |_, _| {
        format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {elsewhere}\r\ncontent-length: 0\r\n\r\n")
    })
    .await;
    let life = Life::start(&[
        json!({"id": "s", "kind": "sse", "url": first.url, "channel": "a", "headers": {"x-key": "secret"}}),
    ]);
    // Where it leads to stands in no file, so its port is judged.
    within(async {
        while life.sources.state_of("s").unwrap().phase != sources::Phase::Failed {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let state = life.sources.state_of("s").unwrap();
    assert_eq!(state.error.map(|(condition, _)| condition), Some(sources::Condition::Policy));
    assert_eq!(target.heads(), [""; 0], "nobody connected");
    let port = target.port().parse().unwrap();
    let life = Life::start_with(
        &[
            json!({"id": "s", "kind": "sse", "url": first.url, "channel": "a", "headers": {"x-key": "secret"}}),
        ],
        port,
    );
    assert_eq!(life.hear("a").text().await, "here");
    assert!(!target.heads()[0].contains("secret"), "{:?}", target.heads());
}

#[tokio::test]
async fn a_websocket_brings_texts_and_bytes_and_takes_messages() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/feed", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let hello = socket.next().await.unwrap().unwrap();
        socket.send(Message::text("{\"type\":\"a/b\"}")).await.unwrap();
        socket.send(Message::text("no channel")).await.unwrap();
        socket.send(Message::text("{\"type\":\"c\"}")).await.unwrap();
        let sent = socket.next().await.unwrap().unwrap();
        (hello, sent, socket.next().await.unwrap().unwrap())
    });
    let life = Life::start(&[
        json!({"id": "w", "kind": "websocket", "url": url, "channel_from": "/type", "on_open": ["hello"], "ping": "1s"}),
    ]);
    let mut heard = life.hear("**");
    let first = heard.next().await;
    assert_eq!((first.channel().as_str(), &**first.payload()), ("a/b", &b"{\"type\":\"a/b\"}"[..]));
    assert_eq!(heard.next().await.channel().as_str(), "c");
    let state = life.sources.state_of("w").unwrap();
    assert_eq!((state.phase, state.received, state.dropped), (sources::Phase::Open, 2, 1));
    assert!(life.sources.send("w", "up".into()));
    let (hello, sent, ping) = within(server).await.unwrap();
    assert_eq!((hello, sent), (Message::text("hello"), Message::text("up")));
    assert!(ping.is_ping(), "after a second of silence: {ping:?}");
}

#[tokio::test]
async fn a_websocket_that_answers_no_ping_is_given_up_and_connected_to_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/feed", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let silent = tokio_tungstenite::accept_async(stream).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        socket.send(Message::binary(vec![0, 255])).await.unwrap();
        drop(silent);
        socket
    });
    let life =
        Life::start(&[json!({"id": "w", "kind": "websocket", "url": url, "channel": "a", "ping": "1s"})]);
    let message = life.hear("a").next().await;
    assert_eq!(&**message.payload(), [0, 255]);
    assert_eq!(message.content_type().map(|kind| kind.as_str()), Some("application/octet-stream"));
    within(server).await.unwrap();
}

//! WebSockets whose events an origin gets by short requests.

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Origin, Server, Stream, within};

const EVENTS: &str = "content-type: application/websocket-events\r\n";

/// The next request: its head and its body.
pub(crate) async fn request(stream: &mut Stream) -> (String, String) {
    let head = stream.head().await.to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next());
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    within(tokio::io::AsyncReadExt::read_exact(&mut stream.0, &mut body)).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

pub(crate) async fn answer(stream: &mut Stream, more: &str, body: &str) {
    let length = body.len();
    stream.send(&format!("HTTP/1.1 200 OK\r\n{EVENTS}{more}content-length: {length}\r\n\r\n{body}")).await;
}

#[tokio::test]
async fn an_origin_that_answers_requests_talks_to_a_websocket() {
    let mut origin = Origin::start().await;
    let route = json!({"id": "a", "dialect": "grip", "path": "/**", "origin": origin.url(),
        "sig_key": "base64:c2VjcmV0", "channel_prefix": "p/"});
    let server = Server::start(json!([route])).await;
    let connecting =
        tokio::spawn(tokio_tungstenite::connect_async(format!("ws://{}/chat?x=1", server.address)));
    let mut stream = origin.accept().await;
    let (head, body) = request(&mut stream).await;
    assert!(head.starts_with("post /chat?x=1 ") && head.contains("grip-sig: ey"), "{head}");
    assert!(head.contains(EVENTS.trim_end()) && !head.contains("sec-websocket-key"), "{head}");
    assert_eq!(body, "OPEN\r\n");
    let subscribe = r#"c:{"type":"subscribe","channel":"room"}"#;
    let opened = format!("OPEN\r\nTEXT {:x}\r\n{subscribe}\r\n", subscribe.len());
    answer(&mut stream, "sec-websocket-extensions: grip\r\n", &opened).await;
    let (mut client, _) = within(connecting).await.unwrap().unwrap();
    client.send(Message::text("hello")).await.unwrap();
    let (_, body) = request(&mut stream).await;
    assert_eq!(body, "TEXT 5\r\nhello\r\n");
    answer(&mut stream, "", "TEXT 8\r\nm:there!\r\n").await;
    assert_eq!(within(client.next()).await.unwrap().unwrap(), Message::text("there!"));
    // What is published reaches it without the origin, and what is for others only does not.
    let items = json!({"items": [
        {"channel": "p/room", "http-stream": {"content": "not for it"}},
        {"channel": "p/room", "ws-message": {"content": "published"}}]})
    .to_string();
    let publish = format!(
        "POST /grip/publish/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{items}",
        items.len()
    );
    assert!(server.ask(&publish).await.ends_with("Published\n"));
    assert_eq!(within(client.next()).await.unwrap().unwrap(), Message::text("published"));
    client.close(None).await.unwrap();
    let (_, body) = request(&mut stream).await;
    assert!(body.starts_with("CLOSE"), "{body}");
    answer(&mut stream, "", "CLOSE\r\n").await;
}

#[tokio::test]
async fn a_request_of_http_is_signed() {
    let mut origin = Origin::start().await;
    let route = json!({"id": "a", "dialect": "grip", "path": "/**", "origin": origin.url(), "sig_key": "x"});
    let server = Server::start(json!([route])).await;
    let plain = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    let (got, head) = tokio::join!(server.get("/"), origin.answer(plain));
    assert!(got.ends_with("ok") && head.contains("grip-sig: "), "{head}");
}

#[tokio::test]
async fn what_instructs_sockets_comes_in_its_order_and_is_in_no_log() {
    let mut origin = Origin::start().await;
    let route = json!({"id": "a", "dialect": "grip", "path": "/**", "origin": origin.url()});
    let server = Server::start(json!([route])).await;
    let connecting = tokio::spawn(tokio_tungstenite::connect_async(format!("ws://{}/", server.address)));
    let mut stream = origin.accept().await;
    request(&mut stream).await;
    let subscribe = r#"c:{"type":"subscribe","channel":"room"}"#;
    let opened = format!("OPEN\r\nTEXT {:x}\r\n{subscribe}\r\n", subscribe.len());
    answer(&mut stream, "sec-websocket-extensions: grip\r\n", &opened).await;
    let (mut client, _) = within(connecting).await.unwrap().unwrap();
    let message = |what: serde_json::Value| json!({"channel": "room", "ws-message": what});
    let items = json!({"items": [
        message(json!({"content": "one"})),
        message(json!({"action": "refresh"})),
        message(json!({"content": "two"})),
        message(json!({"action": "close", "code": 4001, "reason": "go"}))]})
    .to_string();
    let publish = format!(
        "POST /grip/publish/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{items}",
        items.len()
    );
    assert!(server.ask(&publish).await.ends_with("Published\n"));
    for text in ["one", "two"] {
        assert_eq!(within(client.next()).await.unwrap().unwrap(), Message::text(text));
    }
    let Message::Close(Some(close)) = within(client.next()).await.unwrap().unwrap() else {
        panic!("a close")
    };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (4001, "go"));
    assert_eq!(request(&mut stream).await.1, "", "it was refreshed");

    let last = broker_core::Publish::new(broker_core::Channel::parse("room").unwrap(), "three");
    server.broker.publish(last).unwrap();
    let mut options = broker_core::SubscribeOptions::default();
    options.from = broker_core::StartFrom::Log(broker_core::After::Earliest);
    let filter = broker_core::Filter::parse("room").unwrap();
    let mut log = server.broker.subscribe_with(&[filter], options).unwrap();
    for text in ["one", "two", "three"] {
        let message = loop {
            match within(log.next()).await {
                Some(broker_core::Event::Message(message)) => break message,
                Some(_) => {}
                None => panic!("the broker ended"),
            }
        };
        assert_eq!(&message.payload()[..], text.as_bytes());
    }
}

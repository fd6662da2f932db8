//! A gateway of the real binary, as a configuration file has it.

use std::io::Write as _;

use futures_util::{SinkExt, StreamExt};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_tungstenite::tungstenite::Message;

use super::support::process::Process;
use super::support::within;

/// A function behind Lambda's Invoke API: says what it was told, and subscribes who comes.
async fn function() -> (u16, UnboundedReceiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (told, events) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let told = told.clone();
            tokio::spawn(async move {
                let mut read = Vec::new();
                loop {
                    let whole = loop {
                        let text = String::from_utf8_lossy(&read).into_owned();
                        let length = |head: &str| {
                            let head = head.to_ascii_lowercase();
                            head.split("content-length: ").nth(1)?.lines().next()?.parse::<usize>().ok()
                        };
                        if let Some((head, body)) = text.split_once("\r\n\r\n")
                            && body.len() >= length(head).unwrap_or(0)
                        {
                            break body.to_owned();
                        }
                        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                            return;
                        }
                    };
                    read.clear();
                    let event: Value = serde_json::from_str(&whole).expect("an event");
                    let answer = match event["requestContext"]["eventType"].as_str() {
                        Some("CONNECT") => json!({"statusCode": 200, "fanwire": {"subscribe": ["news"]}}),
                        _ => json!({"statusCode": 200, "body": event["body"]}),
                    };
                    let _ = told.send(event);
                    let answer = answer.to_string();
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
                    let _ = stream.write_all((head + &answer).as_bytes()).await;
                }
            });
        }
    });
    (port, events)
}

#[tokio::test]
async fn a_gateway_runs_as_the_file_says() {
    let (port, mut events) = function().await;
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let text = format!(
        r#"
[aws]
region = "eu-west-1"
account = "123456789012"
signatures = "ignored"

[[gateway.aws]]
name = "chat"
path = "/dev"
route_selection = "$request.body.action"
integrations.main = {{ kind = "lambda", url = "http://127.0.0.1:{port}/invoke", timeout = "5s" }}
routes."$connect" = {{ integration = "main" }}
routes."$disconnect" = {{ integration = "main" }}
routes."$default" = {{ integration = "main", response = true }}
"#
    );
    file.write_all(text.as_bytes()).expect("written");
    let mut server = Process::start(&["--config", file.path().to_str().expect("plain")]).await;
    let mut stream = TcpStream::connect(server.http).await.expect("it listens");
    // As a client of HTTP/1 that spells its header fields in its own way.
    let head = "GET /dev?x=1 HTTP/1.1\r\nHost: localhost\r\nHeaderAuth1: a\r\nConnection: Upgrade\r\n\
                Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let connect = within(events.recv()).await.expect("an event");
    assert_eq!(connect["headers"]["HeaderAuth1"], "a", "{connect}");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        within(stream.read_buf(&mut answer)).await.expect("an answer");
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    drop(stream);
    let end = within(events.recv()).await.expect("an event");
    assert_eq!(end["requestContext"]["disconnectStatusCode"], 1006);

    let address = format!("ws://{}/dev", server.http);
    let (mut client, _) = within(tokio_tungstenite::connect_async(address)).await.expect("101");
    let id = within(events.recv()).await.expect("an event")["requestContext"]["connectionId"].clone();
    let id = id.as_str().expect("text").to_owned();
    within(client.send(Message::text("hello"))).await.expect("sent");
    let text = |message: Option<Result<Message, _>>| {
        message.expect("a message").expect("a frame").into_text().expect("text")
    };
    assert_eq!(text(within(client.next()).await), "hello");
    for (target, said) in
        [(format!("/dev/@connections/{id}"), "posted"), ("/v1/publish/news".to_owned(), "published")]
    {
        let mut stream = TcpStream::connect(server.http).await.expect("it listens");
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{said}",
            said.len()
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        assert_eq!(text(within(client.next()).await), said);
    }
    server.signal(Signal::TERM);
    assert!(within(server.exit()).await.success());
    let mut codes = Vec::new();
    while let Ok(event) = events.try_recv() {
        codes.push(event["requestContext"]["disconnectStatusCode"].clone());
    }
    assert_eq!(codes.last(), Some(&json!(1001)), "functions hear of it before the process ends");
}

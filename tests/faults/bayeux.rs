//! Acknowledging sessions through the cutting proxy: each event once, in order, whatever was cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fanwire::{Channel, Publish};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::proxy::Proxy;
use crate::support::bayeux::Poller;
use crate::support::{TestServer, within};

/// How often a connection is cut: 7 every day, 1,000 in `scripts/soak`.
fn cuts() -> usize {
    std::env::var("FW_TEST_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(7)
}

/// Enough messages that all cuts fall among them: 200 for 7.
fn messages() -> usize {
    cuts() * 200 / 7
}

struct Session {
    server: TestServer,
    proxy: Proxy,
    id: String,
    cookie: String,
    ack: u64,
    got: Arc<AtomicUsize>,
}

/// Messages on their way at a time: a frame with all of them gets through between two cuts now and then.
const WINDOW: usize = 10;

impl Session {
    /// Shakes hands and subscribes without cuts; what follows goes through the proxy.
    async fn subscribed() -> Self {
        let server = TestServer::start().await;
        let mut poller = Poller::handshake_with(server.http, &json!({"ack": true})).await;
        poller.subscribe("/faults").await;
        let proxy = Proxy::start(server.http, cuts(), 40..3000, 1..41, 10).await;
        let (id, cookie) = (poller.client_id.clone(), poller.cookie().expect("a cookie").to_owned());
        Self { server, proxy, id, cookie, ack: 0, got: Arc::default() }
    }

    fn publish(&self) -> tokio::task::JoinHandle<()> {
        let (broker, got) = (self.server.broker.clone(), Arc::clone(&self.got));
        tokio::spawn(async move {
            for number in 0..messages() {
                let text = format!("{{\"n\":{number},\"pad\":\"{}\"}}", "x".repeat(100));
                let channel = Channel::parse("faults").expect("a legal channel");
                broker.publish(Publish::new(channel, text).json()).expect("taken");
                while number + 1 >= got.load(Ordering::Relaxed) + WINDOW {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        })
    }

    fn got(&self) -> usize {
        self.got.load(Ordering::Relaxed)
    }

    fn connect(&self, kind: &str) -> String {
        json!([{"channel": "/meta/connect", "clientId": self.id, "connectionType": kind, "ext": {"ack": self.ack}}])
            .to_string()
    }

    /// What a client does with a response or frame that arrived whole.
    fn take(&mut self, messages: &[Value]) {
        for message in messages {
            if let Some(data) = message.get("data") {
                let got = self.got.fetch_add(1, Ordering::Relaxed);
                assert_eq!(data["n"], got, "after {} cuts", self.proxy.cuts());
            } else if message["channel"] == "/meta/connect" {
                assert_eq!(message["successful"], true, "the session lives on: {message}");
                self.ack = message["ext"]["ack"].as_u64().expect("a number");
            }
        }
    }
}

#[tokio::test]
async fn long_polling_that_is_cut_brings_every_event_once_in_order() {
    let mut session = Session::subscribed().await;
    let publisher = session.publish();
    while session.got() < messages() {
        let stream = TcpStream::connect(session.proxy.address).await.expect("the proxy listens");
        let mut connection = Connection { stream, input: Vec::new() };
        while session.got() < messages() {
            let body = session.connect("long-polling");
            let request = format!(
                "POST /cometd/connect HTTP/1.1\r\nHost: localhost\r\nCookie: {}\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                session.cookie,
                body.len()
            );
            let Some(answer) = within(connection.exchange(&request)).await else { break };
            session.take(&answer);
        }
    }
    publisher.await.expect("it publishes");
    assert_eq!((session.got(), session.proxy.cuts()), (messages(), cuts()));
}

#[tokio::test]
async fn a_websocket_that_is_cut_brings_every_event_once_in_order() {
    let mut session = Session::subscribed().await;
    let publisher = session.publish();
    while session.got() < messages() {
        let url = format!("ws://{}/cometd", session.proxy.address);
        let Ok((mut socket, _)) = within(tokio_tungstenite::connect_async(url)).await else { continue };
        while session.got() < messages() {
            let connect = Message::text(session.connect("websocket"));
            if within(socket.send(connect)).await.is_err() {
                break;
            }
            let Some(frame) = within(frame(&mut socket)).await else { break };
            session.take(&frame);
        }
    }
    publisher.await.expect("it publishes");
    assert_eq!((session.got(), session.proxy.cuts()), (messages(), cuts()));
}

/// The messages of the next frame; `None` once the connection is gone.
async fn frame(socket: &mut WebSocketStream<MaybeTlsStream<TcpStream>>) -> Option<Vec<Value>> {
    loop {
        match socket.next().await?.ok()? {
            Message::Text(text) => return Some(serde_json::from_str(&text).expect("JSON")),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Connection {
    /// One request and the messages of its response; `None` if the connection went before it was whole.
    async fn exchange(&mut self, request: &str) -> Option<Vec<Value>> {
        self.stream.write_all(request.as_bytes()).await.ok()?;
        let end = loop {
            if let Some(end) = self.input.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            self.fill().await?;
        };
        let head = String::from_utf8(self.input.drain(..end).collect()).expect("text");
        // The server may still hold the connect of a connection that it does not know to be dead.
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let length: usize = length.parse().expect("a number");
        while self.input.len() < length {
            self.fill().await?;
        }
        let body: Vec<u8> = self.input.drain(..length).collect();
        Some(serde_json::from_slice(&body).expect("JSON"))
    }

    async fn fill(&mut self) -> Option<()> {
        let mut buffer = [0; 4096];
        let read = self.stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        self.input.extend_from_slice(&buffer[..read]);
        Some(())
    }
}

//! A Bayeux client over long-polling and over WebSocket, as small as can be.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::{http, within};

/// A session over long-polling: every call is a request on a connection of its own.
pub struct Poller {
    address: SocketAddr,
    pub client_id: String,
    cookie: Option<String>,
}

impl Poller {
    pub async fn handshake(address: SocketAddr) -> Self {
        Self::handshake_with(address, &json!({})).await
    }

    pub async fn handshake_with(address: SocketAddr, ext: &Value) -> Self {
        let mut poller = Poller { address, client_id: String::new(), cookie: None };
        let handshake = json!([{"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"], "ext": ext}]);
        let answer = poller.post(&handshake).await;
        assert_eq!(answer[0]["successful"], true, "{answer}");
        poller.client_id = answer[0]["clientId"].as_str().expect("a clientId").to_owned();
        poller
    }

    /// The cookie that its session is bound to.
    pub fn cookie(&self) -> Option<&str> {
        self.cookie.as_deref()
    }

    /// Sends messages as they are and returns the answer.
    pub async fn post(&mut self, messages: &Value) -> Value {
        serde_json::from_str(&self.post_text(messages).await).expect("JSON")
    }

    /// The same, with the answer's very text: a parser rounds large numbers.
    pub async fn post_text(&mut self, messages: &Value) -> String {
        let mut headers = vec![("content-type", "application/json;charset=UTF-8")];
        if let Some(cookie) = &self.cookie {
            headers.push(("cookie", cookie));
        }
        let answer = http::request(self.address, "POST", "/cometd", &headers, messages.to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        if let Some(cookie) = answer.header("set-cookie") {
            self.cookie = cookie.split(';').next().map(str::to_owned);
        }
        answer.text().to_owned()
    }

    pub async fn subscribe(&mut self, channel: &str) {
        let id = self.client_id.clone();
        let answer = self
            .post(&json!([{"channel": "/meta/subscribe", "clientId": id, "subscription": channel}]))
            .await;
        assert!(
            answer.as_array().expect("an array").iter().any(|reply| reply["successful"] == true),
            "{answer}"
        );
    }

    fn connect_message(&self) -> Value {
        json!([{"channel": "/meta/connect", "clientId": self.client_id, "connectionType": "long-polling"}])
    }

    /// A connect's answer as text.
    pub async fn connect_text(&mut self) -> String {
        let connect = self.connect_message();
        self.post_text(&connect).await
    }

    /// A connect: the messages that came, its own reply among them.
    pub async fn connect(&mut self) -> Vec<Value> {
        let connect = self.connect_message();
        match self.post(&connect).await {
            Value::Array(messages) => messages,
            other => panic!("{other}"),
        }
    }

    /// Connects until `count` events have come.
    pub async fn events(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        while events.len() < count {
            let messages = self.connect().await;
            events.extend(messages.into_iter().filter(|message| message["channel"] != "/meta/connect"));
        }
        events
    }
}

/// A session over WebSocket.
pub struct Socket {
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub client_id: String,
    waiting: Vec<Value>,
    next_id: u64,
}

impl Socket {
    pub async fn handshake(address: SocketAddr) -> Self {
        Self::handshake_with(address, &json!({})).await
    }

    /// With an `ext`.
    pub async fn handshake_with(address: SocketAddr, ext: &Value) -> Self {
        let (socket, _) = within(tokio_tungstenite::connect_async(format!("ws://{address}/cometd")))
            .await
            .expect("an upgrade");
        let mut client = Socket { socket, client_id: String::new(), waiting: Vec::new(), next_id: 0 };
        let handshake = json!({"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["websocket"], "ext": ext});
        let reply = client.ask(handshake).await;
        assert_eq!(reply["successful"], true, "{reply}");
        client.client_id = reply["clientId"].as_str().expect("a clientId").to_owned();
        client.connect().await;
        client
    }

    /// Sends a connect without waiting for its reply, which is held.
    pub async fn connect(&mut self) {
        let connect =
            json!({"channel": "/meta/connect", "clientId": self.client_id, "connectionType": "websocket"});
        self.send(&json!([connect])).await;
    }

    pub async fn subscribe(&mut self, channel: &str) {
        let reply = self.ask_subscription(channel).await;
        assert_eq!(reply["successful"], true, "{reply}");
    }

    /// The reply to a subscribe, whatever it says.
    pub async fn ask_subscription(&mut self, channel: &str) -> Value {
        let id = self.client_id.clone();
        self.ask(json!({"channel": "/meta/subscribe", "clientId": id, "subscription": channel})).await
    }

    pub async fn publish(&mut self, channel: &str, data: &Value) -> Value {
        let id = self.client_id.clone();
        self.ask(json!({"channel": channel, "clientId": id, "data": data})).await
    }

    pub async fn send(&mut self, messages: &Value) {
        within(self.socket.send(Message::text(messages.to_string()))).await.expect("written");
    }

    /// Sends a message and waits for its reply; what else comes is kept.
    async fn ask(&mut self, mut message: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id.to_string();
        message["id"] = json!(id);
        self.send(&json!([message])).await;
        loop {
            let mut messages = self.frame().await.expect("the socket lives");
            if let Some(at) = messages.iter().position(|message| message["id"] == id.as_str()) {
                let reply = messages.remove(at);
                self.waiting.extend(messages);
                return reply;
            }
            self.waiting.extend(messages);
        }
    }

    /// The next event. A connect's reply is answered with the next connect.
    pub async fn event(&mut self) -> Value {
        loop {
            let mut waiting = std::mem::take(&mut self.waiting).into_iter();
            let mut connect = false;
            let mut found = None;
            for message in waiting.by_ref() {
                if message["channel"] == "/meta/connect" {
                    connect = true;
                } else if message.get("data").is_some() {
                    found = Some(message);
                    break;
                }
            }
            self.waiting = waiting.collect();
            if connect {
                self.connect().await;
            }
            if let Some(found) = found {
                return found;
            }
            let messages = self.frame().await.expect("the socket lives");
            self.waiting.extend(messages);
        }
    }

    /// The next frame's messages; `None` once the server has closed.
    pub async fn frame(&mut self) -> Option<Vec<Value>> {
        match serde_json::from_str(&self.frame_text().await?).expect("JSON") {
            Value::Array(messages) => Some(messages),
            other => panic!("not an array: {other}"),
        }
    }

    /// The next frame as it is.
    pub async fn frame_text(&mut self) -> Option<String> {
        within(async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => return Some(text.as_str().to_owned()),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                    Some(Ok(_)) => {}
                }
            }
        })
        .await
    }
}

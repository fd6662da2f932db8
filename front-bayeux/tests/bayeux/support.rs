//! A server on port 0, an HTTP client that shows everything, a WebSocket client, short forms.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{AllowAll, Authenticator, Broker, Channel, Publish};
use front_bayeux::{Config, Front};
use futures_util::{SinkExt, StreamExt};
use http_edge::{ServeConfig, serve};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Nothing here takes longer unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Connects are held 300 ms, sessions live 1 s more, the sweep looks every 20 ms.
pub(crate) fn quick() -> Config {
    let mut config = Config::default();
    config.timing.timeout = ms(300);
    config.timing.interval = Duration::ZERO;
    config.timing.max_interval = ms(1000);
    config.sweep_period = ms(20);
    config
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) broker: Broker,
    pub(crate) front: Front,
    _stop: watch::Sender<bool>,
}

impl Server {
    pub(crate) async fn start(config: Config) -> Self {
        Self::start_with(config, AllowAll).await
    }

    pub(crate) async fn start_with(config: Config, authenticator: impl Authenticator) -> Self {
        let broker = Broker::new(broker_core::Config::default());
        let front = Front::new(broker.clone(), Arc::new(authenticator), config);
        Self::serve(broker, front).await
    }

    pub(crate) async fn serve(broker: Broker, front: Front) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let served = front.clone();
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let front = served.clone();
                let service = move |request| {
                    let front = front.clone();
                    async move { front.handle(request).await }
                };
                let mut config = ServeConfig::default();
                config.holds = http_edge::Holds::by(|_| true);
                tokio::spawn(serve(stream, peer, service, config, stopped.clone()));
            }
        });
        Self { address, broker, front, _stop: stop }
    }

    pub(crate) fn publish(&self, channel: &str, json: &str) {
        let publish = Publish::new(Channel::parse(channel).unwrap(), json.to_owned()).json();
        self.broker.publish(publish).unwrap();
    }

    pub(crate) async fn browser(&self) -> Browser {
        Browser { address: self.address, cookie: None }
    }

    /// A long-polling session that has shaken hands and connected once.
    pub(crate) async fn poller(&self) -> Poller {
        self.poller_with(json!({})).await
    }

    pub(crate) async fn poller_with(&self, ext: Value) -> Poller {
        let mut browser = self.browser().await;
        let reply = browser.handshake(ext).await;
        let id = reply["clientId"].as_str().expect("a session").to_owned();
        let mut poller = Poller { browser, id };
        let first = poller.send(json!({"channel": "/meta/connect", "connectionType": "long-polling"})).await;
        assert_eq!(last(&first)["successful"], true, "{first:?}");
        poller
    }

    pub(crate) async fn socket(&self) -> Socket {
        let (stream, _) = connect_async(format!("ws://{}/cometd", self.address)).await.unwrap();
        Socket { stream, id: String::new() }
    }

    /// A WebSocket session that has shaken hands and connected once.
    pub(crate) async fn socket_session(&self, ext: Value) -> Socket {
        let mut socket = self.socket().await;
        socket.handshake(ext).await;
        socket
            .send(json!([{"channel": "/meta/connect", "clientId": socket.id, "connectionType": "websocket"}]))
            .await;
        assert_eq!(last(&socket.receive().await)["successful"], true);
        socket
    }
}

pub(crate) fn last(messages: &[Value]) -> &Value {
    messages.last().expect("an answer")
}

/// The `data` of all events in an answer.
pub(crate) fn data(messages: &[Value]) -> Vec<Value> {
    messages
        .iter()
        .filter(|message| message.get("data").is_some())
        .map(|message| message["data"].clone())
        .collect()
}

/// A response as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn messages(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// One HTTP/1.1 connection.
pub(crate) struct Http {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
}

impl Http {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), input: Vec::new() }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn read(&mut self) -> Answer {
        timeout(PATIENCE, self.read_answer()).await.expect("an answer in time")
    }

    async fn read_answer(&mut self) -> Answer {
        let end = loop {
            if let Some(end) = self.input.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            self.fill().await;
        };
        let head = String::from_utf8(self.input.drain(..end).collect()).unwrap();
        let status = head[9..12].parse().unwrap();
        let mut answer = Answer { status, head, body: String::new() };
        let length: usize = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.input.len() < length {
            self.fill().await;
        }
        answer.body = String::from_utf8(self.input.drain(..length).collect()).unwrap();
        answer
    }

    async fn fill(&mut self) {
        let mut buffer = [0; 16 * 1024];
        let read = self.stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "closed after {:?}", String::from_utf8_lossy(&self.input));
        self.input.extend_from_slice(&buffer[..read]);
    }
}

/// A client with a cookie jar of one.
#[derive(Clone)]
pub(crate) struct Browser {
    pub(crate) address: SocketAddr,
    pub(crate) cookie: Option<String>,
}

impl Browser {
    pub(crate) fn request(&self, line: &str, headers: &str, body: &str) -> String {
        let cookie = self.cookie.as_ref().map_or(String::new(), |cookie| format!("Cookie: {cookie}\r\n"));
        let length = body.len();
        format!("{line} HTTP/1.1\r\nHost: x\r\n{cookie}{headers}Content-Length: {length}\r\n\r\n{body}")
    }

    pub(crate) async fn exchange(&mut self, line: &str, headers: &str, body: &str) -> Answer {
        let mut http = Http::open(self.address).await;
        http.write(self.request(line, headers, body).as_bytes()).await;
        let answer = http.read().await;
        if let Some(cookie) = answer.header("set-cookie") {
            self.cookie = Some(cookie.split(';').next().unwrap().to_owned());
        }
        answer
    }

    /// Posts text as it is.
    pub(crate) async fn post(&mut self, body: &str) -> Answer {
        self.exchange("POST /cometd", "Content-Type: application/json\r\n", body).await
    }

    pub(crate) async fn handshake(&mut self, ext: Value) -> Value {
        let types = ["websocket", "long-polling", "callback-polling"];
        let message = json!([{"channel": "/meta/handshake", "version": "1.0", "id": "1",
            "supportedConnectionTypes": types, "ext": ext}]);
        let answer = self.post(&message.to_string()).await.messages();
        answer.into_iter().find(|message| message["channel"] == "/meta/handshake").unwrap()
    }
}

/// A long-polling session.
#[derive(Clone)]
pub(crate) struct Poller {
    pub(crate) browser: Browser,
    pub(crate) id: String,
}

impl Poller {
    fn fill(&self, mut message: Value) -> Value {
        if message.get("clientId").is_none() {
            message["clientId"] = json!(self.id);
        }
        message
    }

    /// One message; the whole answer.
    pub(crate) async fn send(&mut self, message: Value) -> Vec<Value> {
        let body = self.fill(message).to_string();
        self.browser.post(&body).await.messages()
    }

    pub(crate) async fn batch(&mut self, messages: &[Value]) -> Vec<Value> {
        let filled: Vec<Value> = messages.iter().map(|message| self.fill(message.clone())).collect();
        self.browser.post(&json!(filled).to_string()).await.messages()
    }

    pub(crate) async fn connect(&mut self) -> Vec<Value> {
        self.send(json!({"channel": "/meta/connect", "connectionType": "long-polling"})).await
    }

    /// A connect whose answer is awaited elsewhere.
    pub(crate) fn hold(&self) -> tokio::task::JoinHandle<Vec<Value>> {
        let mut own = self.clone();
        tokio::spawn(async move { own.connect().await })
    }

    pub(crate) async fn subscribe(&mut self, channel: &str) {
        let reply = self.send(json!({"channel": "/meta/subscribe", "subscription": channel})).await;
        assert_eq!(last(&reply)["successful"], true, "{reply:?}");
    }
}

/// A WebSocket client.
pub(crate) struct Socket {
    pub(crate) stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(crate) id: String,
}

impl Socket {
    pub(crate) async fn send(&mut self, messages: Value) {
        self.text(&messages.to_string()).await;
    }

    pub(crate) async fn text(&mut self, text: &str) {
        self.stream.send(Message::text(text)).await.unwrap();
    }

    /// Says at the level of TCP that nothing more comes, without a close frame.
    pub(crate) async fn half_close(&mut self) {
        if let MaybeTlsStream::Plain(stream) = self.stream.get_mut() {
            stream.shutdown().await.unwrap();
        }
    }

    /// The messages of the next frame.
    pub(crate) async fn receive(&mut self) -> Vec<Value> {
        match self.frame().await {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn frame(&mut self) -> Message {
        timeout(PATIENCE, self.stream.next()).await.expect("a frame in time").expect("open").unwrap()
    }

    /// Nothing comes for a while.
    pub(crate) async fn silent(&mut self, time: Duration) {
        if let Ok(frame) = timeout(time, self.stream.next()).await {
            panic!("{frame:?}");
        }
    }

    /// The close code that the server gives.
    pub(crate) async fn close_code(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.frame().await {
                return frame.map_or(1005, |frame| frame.code.into());
            }
        }
    }

    pub(crate) async fn handshake(&mut self, ext: Value) -> Value {
        self.send(json!([{"channel": "/meta/handshake", "version": "1.0", "id": "1",
            "supportedConnectionTypes": ["websocket"], "ext": ext}]))
            .await;
        let reply = last(&self.receive().await).clone();
        self.id = reply["clientId"].as_str().unwrap_or_default().to_owned();
        reply
    }

    /// One message of this session and its reply.
    pub(crate) async fn call(&mut self, mut message: Value) -> Value {
        message["clientId"] = json!(self.id);
        self.send(json!([message])).await;
        last(&self.receive().await).clone()
    }

    pub(crate) async fn subscribe(&mut self, channel: &str) {
        let reply = self.call(json!({"channel": "/meta/subscribe", "subscription": channel})).await;
        assert_eq!(reply["successful"], true, "{reply}");
    }
}

impl Http {
    /// The first byte and the payload of the next WebSocket frame, on a connection that was upgraded.
    pub(crate) async fn read_frame(&mut self) -> (u8, String) {
        timeout(PATIENCE, async {
            loop {
                if let [first, length, rest @ ..] = &self.input[..] {
                    let (start, length) = match (*length, rest) {
                        (126, [high, low, ..]) => (4, usize::from(*high) << 8 | usize::from(*low)),
                        (126, _) => (4, usize::MAX / 2),
                        (length, _) => (2, usize::from(length)),
                    };
                    if self.input.len() >= start + length {
                        let first = *first;
                        let frame: Vec<u8> = self.input.drain(..start + length).collect();
                        return (first, String::from_utf8_lossy(&frame[start..]).into_owned());
                    }
                }
                self.fill().await;
            }
        })
        .await
        .expect("a frame in time")
    }
}

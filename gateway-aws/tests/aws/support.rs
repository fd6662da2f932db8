//! A front behind a real listener, a small runtime emulator, and clients.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_core::{AllowAll, Authenticator, Broker};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use gateway_aws::{Config, Front};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use http_edge::{RawHeads, ServeConfig, serve};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message, client::IntoClientRequest};

/// How long anything may take that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Fails the test if it takes too long.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}

/// Waits until something holds.
pub(crate) async fn eventually(mut holds: impl FnMut() -> bool) {
    within(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A call of a function.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    pub(crate) fn event(&self) -> Value {
        serde_json::from_slice(&self.body).expect("an event")
    }

    pub(crate) fn kind(&self) -> String {
        self.event()["requestContext"]["eventType"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn text(&self) -> String {
        self.event()["body"].as_str().unwrap_or_default().to_owned()
    }
}

/// What a function answers.
pub(crate) enum Answer {
    /// The answer of the Invoke API.
    Json(Value),
    /// Status, header fields and body.
    Raw(u16, Vec<(&'static str, &'static str)>, String),
    /// The connection ends.
    Cut,
}

pub(crate) fn ok() -> Answer {
    Answer::Json(json!({"statusCode": 200}))
}

type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Functions that run somewhere, as a runtime emulator shows them.
#[derive(Clone)]
pub(crate) struct Functions {
    pub(crate) address: SocketAddr,
    calls: Arc<Mutex<VecDeque<Call>>>,
}

impl Functions {
    pub(crate) async fn start<F>(answer: impl Fn(Call) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, answer)
    }

    pub(crate) fn on<F>(listener: TcpListener, answer: impl Fn(Call) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let calls = Arc::<Mutex<VecDeque<Call>>>::default();
        let functions = Self { address, calls: Arc::clone(&calls) };
        let answer: Arc<dyn Fn(Call) -> Answering + Send + Sync> =
            Arc::new(move |call| Box::pin(answer(call)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (calls, answer) = (Arc::clone(&calls), Arc::clone(&answer));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (calls, answer) = (Arc::clone(&calls), Arc::clone(&answer));
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
                        let call = Call { path: parts.uri.path().to_owned(), headers: parts.headers, body };
                        calls.lock().unwrap().push_back(call.clone());
                        let response = match answer(call).await {
                            Answer::Json(value) => Response::new(Full::new(Bytes::from(value.to_string()))),
                            Answer::Raw(status, headers, body) => {
                                let mut response = Response::builder().status(status);
                                for (name, value) in headers {
                                    response = response.header(name, value);
                                }
                                response.body(Full::new(Bytes::from(body))).unwrap()
                            }
                            Answer::Cut => return Err(std::io::Error::other("cut")),
                        };
                        Ok::<_, std::io::Error>(response)
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(async move { connection.serve_connection(TokioIo::new(stream), service).await });
            }
        });
        functions
    }

    /// The next call that nobody has looked at.
    pub(crate) async fn next(&self) -> Call {
        let mut found = None;
        eventually(|| {
            found = self.calls.lock().unwrap().pop_front();
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// The next call of this kind; what came before it is passed over.
    pub(crate) async fn next_of(&self, kind: &str) -> Call {
        loop {
            let call = self.next().await;
            if call.kind() == kind {
                return call;
            }
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// A gateway.
pub(crate) struct Server {
    pub(crate) broker: Broker,
    pub(crate) front: Front,
    pub(crate) address: SocketAddr,
    _running: watch::Sender<bool>,
}

impl Server {
    /// The API `chat` at `/dev`, all of whose routes go to `functions`, with changes.
    pub(crate) async fn start(functions: &Functions, changes: Value) -> Self {
        Self::with(vec![Self::api(functions, changes)], |_| {}, Arc::new(AllowAll)).await
    }

    /// The API of [`start`](Self::start).
    pub(crate) fn api(functions: &Functions, changes: Value) -> Value {
        let mut api = json!({
            "name": "chat", "path": "/dev", "route_selection": "$request.body.action",
            "integrations": {"main": {"kind": "lambda", "url": functions.url("/main"), "timeout": "2s"}},
            "routes": {
                "$connect": {"integration": "main"}, "$disconnect": {"integration": "main"},
                "$default": {"integration": "main", "response": true}, "mute": {"integration": "main"},
            },
            "retry": ["20ms", "20ms", "20ms"],
        });
        for (name, value) in changes.as_object().unwrap() {
            api[name] = value.clone();
        }
        api
    }

    pub(crate) async fn with(
        apis: Vec<Value>,
        change: impl FnOnce(&mut Config),
        authenticator: Arc<dyn Authenticator>,
    ) -> Self {
        let apis: Vec<gateway_aws::settings::Written> =
            apis.into_iter().map(|api| serde_json::from_value(api).unwrap()).collect();
        let mut config = Config::default();
        config.apis = gateway_aws::settings::apis(&apis, |_| false, |_| None).unwrap();
        change(&mut config);
        let broker = Broker::new(broker_core::Config::default());
        let front = Front::new(broker.clone(), authenticator, config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (running, stop) = watch::channel(false);
        let served = front.clone();
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let front = served.clone();
                let service = move |request| {
                    let front = front.clone();
                    async move { front.handle(request).await }
                };
                let mut config = ServeConfig::default();
                config.raw_heads = RawHeads::by(|_| true);
                tokio::spawn(serve(stream, peer, service, config, stop.clone()));
            }
        });
        Server { broker, front, address, _running: running }
    }

    /// A client at `/dev`.
    pub(crate) async fn open(&self) -> Client {
        self.open_at("/dev", &[]).await.expect("101")
    }

    /// A client, or the status that refuses it.
    pub(crate) async fn open_at(
        &self,
        target: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Client, u16> {
        let mut request = format!("ws://{}{target}", self.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(self.address).await.unwrap();
        match within(tokio_tungstenite::client_async(request, stream)).await {
            Ok((socket, response)) => Ok(Client { socket, response: response.map(drop) }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends raw bytes and reads until the answer's head is there, and what follows within a moment.
    pub(crate) async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        within(async {
            let mut chunk = [0; 4096];
            loop {
                let bytes = stream.read(&mut chunk).await.unwrap_or(0);
                read.extend_from_slice(&chunk[..bytes]);
                if bytes == 0 || is_whole(&read) {
                    return;
                }
            }
        })
        .await;
        String::from_utf8_lossy(&read).into_owned()
    }

    /// A request of HTTP: status, head, body.
    pub(crate) async fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &str,
        body: &[u8],
    ) -> (u16, String, String) {
        let mut request = format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        // The bodies of these tests are text.
        request.push_str(std::str::from_utf8(body).unwrap());
        let answer = self.raw(&request).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, head.to_owned(), body.to_owned())
    }
}

/// Whether an answer has come as far as it says.
fn is_whole(read: &[u8]) -> bool {
    let text = String::from_utf8_lossy(read);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let lower = head.to_ascii_lowercase();
    let length =
        lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
    body.len() >= length.unwrap_or(0)
}

/// A WebSocket client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) response: Response<()>,
}

impl Client {
    pub(crate) async fn send(&mut self, text: &str) {
        within(self.socket.send(Message::text(text.to_owned()))).await.unwrap();
    }

    /// The next text or binary message, or the close frame's code.
    pub(crate) async fn next(&mut self) -> Result<Message, u16> {
        loop {
            match within(self.socket.next()).await {
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(frame))) => return Err(frame.map_or(1005, |frame| frame.code.into())),
                Some(Ok(message)) => return Ok(message),
                Some(Err(_)) | None => return Err(1006),
            }
        }
    }

    pub(crate) async fn text(&mut self) -> String {
        self.next().await.expect("a message").into_text().expect("text").to_string()
    }

    pub(crate) async fn json(&mut self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("JSON: {text}"))
    }

    /// The code that it is closed with.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            if let Err(code) = self.next().await {
                return code;
            }
        }
    }
}

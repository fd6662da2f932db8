//! A backend that a test scripts.

use std::net::SocketAddr;
use std::sync::Arc;

use fanwire::gateway::webhook::{Settings, Written};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{TestServer, eventually};

pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A request: its head with names in small letters, its body, and that as JSON if it is any.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) head: String,
    pub(crate) text: String,
    pub(crate) body: Value,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
    }
}

type Answers = dyn Fn(&Asked) -> (u16, String) + Send + Sync;

/// It answers as long as the test runs.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Backend {
    pub(crate) async fn start(answers: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.expect("a free port"), answers)
    }

    /// The same on a listener, as long as the runtime runs that it is made in.
    pub(crate) fn on(
        listener: TcpListener,
        answers: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answers, all): (Arc<Answers>, _) = (Arc::new(answers), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&answers), Arc::clone(&all)));
            }
        });
        Self { address, asked }
    }

    /// One that says yes to everything.
    pub(crate) async fn willing() -> Self {
        Self::start(|_| (204, String::new())).await
    }

    /// A webhook of this backend with a change to what is usual.
    pub(crate) fn hook(&self, events: &[&str], change: Value) -> Settings {
        let url = format!("http://{}/hooks", self.address);
        let mut written = json!({"id": "test", "url": url, "secret": SECRET, "events": events});
        for (key, value) in change.as_object().into_iter().flatten() {
            written[key] = value.clone();
        }
        let written: Written = serde_json::from_value(written).expect("a webhook");
        written.settings(None).expect("settings")
    }

    /// A server with one webhook, of this backend.
    pub(crate) async fn server(&self, events: &[&str], change: Value) -> TestServer {
        let hook = self.hook(events, change);
        TestServer::with(|config| {
            config.gateway.webhooks.push(hook);
            config.shutdown_window = std::time::Duration::from_secs(3);
        })
        .await
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    /// The `data` of the events of a kind so far.
    pub(crate) fn of(&self, kind: &str) -> Vec<Value> {
        let all = self.asked.lock();
        let events = all.iter().flat_map(|asked| match &asked.body {
            Value::Array(several) => several.clone(),
            one => vec![one.clone()],
        });
        events.filter(|event| event["type"] == kind).map(|event| event["data"].clone()).collect()
    }

    /// Waits until so many events of a kind have come.
    pub(crate) async fn wait_for(&self, kind: &str, count: usize) -> Vec<Value> {
        eventually(|| self.of(kind).len() >= count).await;
        self.of(kind)
    }
}

async fn serve(mut stream: TcpStream, answers: Arc<Answers>, all: Arc<Mutex<Vec<Asked>>>) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8(head).expect("text");
        let mut asked = Asked { head, text: String::new(), body: Value::Null };
        let length = asked.header("content-length").map_or(0, |length| length.parse().expect("a number"));
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        asked.text = String::from_utf8(body).expect("text");
        asked.body = serde_json::from_str(&asked.text).unwrap_or_default();
        let (status, body) = answers(&asked);
        all.lock().push(asked);
        if status == 0 {
            return;
        }
        let answer = format!("HTTP/1.1 {status} Some\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let answer = if status == 204 { "HTTP/1.1 204 No Content\r\n\r\n".to_owned() } else { answer };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

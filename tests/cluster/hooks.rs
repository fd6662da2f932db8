//! Webhooks of several nodes with one backend: it is told once that a channel is occupied, and vacated.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::nats::Nats;
use crate::support::process::{self, Process};
use crate::support::sse::EventStream;
use crate::until_there_are;

/// A backend that takes everything, and what it was told.
struct Backend {
    address: SocketAddr,
    told: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Backend {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let told = Arc::<std::sync::Mutex<Vec<String>>>::default();
        let heard = Arc::clone(&told);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&heard)));
            }
        });
        Self { address, told }
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().expect("not poisoned").clone()
    }

    async fn until(&self, told: &[&str]) {
        // A node that is gone is missed after 7 s.
        for _ in 0..1_500 {
            if self.told().len() >= told.len() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What would be told beside it has come by then.
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(self.told(), told);
    }
}

/// Answers the requests of one connection.
async fn answer(mut stream: TcpStream, told: Arc<std::sync::Mutex<Vec<String>>>) {
    let mut bytes = Vec::new();
    while stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        let Some(head) = text.find("\r\n\r\n") else { continue };
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let end = head + 4 + length.unwrap_or(0);
        if bytes.len() < end {
            continue;
        }
        let event: Value = serde_json::from_slice(&bytes[head + 4..end]).expect("JSON");
        let [what, channel] =
            [&event["type"], &event["data"]["channel"]].map(|text| text.as_str().unwrap_or_default());
        if !channel.is_empty() {
            told.lock().expect("not poisoned").push(format!("{what} {channel}"));
        }
        bytes.drain(..end);
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
            return;
        }
    }
}

async fn node(nats: &Nats, name: &str, backend: &Backend, folder: &std::path::Path) -> Process {
    let file = folder.join("fanwire.toml");
    let text = format!(
        "[[gateway.webhooks]]\nid = \"all\"\nurl = \"http://{}/\"\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n\
         events = [\"occupied\", \"vacated\"]\n",
        backend.address
    );
    std::fs::write(&file, text).expect("written");
    let mut command = process::command();
    command.args(["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--config"]).arg(&file);
    command.envs([("FANWIRE_CLUSTER_SERVERS", format!("[\"{}\"]", nats.url()).as_str())]);
    command.env("FANWIRE_CLUSTER_NODE", name);
    Process::started(command).await
}

#[tokio::test]
async fn a_channel_is_occupied_and_vacated_once_for_all_nodes() {
    let Some(nats) = Nats::start(&[]) else { return };
    let (backend, folder) = (Backend::start().await, tempfile::tempdir().expect("a folder"));
    let mut servers = Vec::new();
    for name in ["n1", "n2", "n3"] {
        servers.push(node(&nats, name, &backend, folder.path()).await);
    }
    until_there_are(&servers, 3).await;
    // At the same moment on two nodes, and on the third one later.
    let (one, two) = tokio::join!(
        EventStream::open(servers[0].http, "/sse/room"),
        EventStream::open(servers[1].http, "/sse/room")
    );
    backend.until(&["occupied room"]).await;
    let three = EventStream::open(servers[2].http, "/sse/room").await;
    drop((one, two));
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    assert_eq!(backend.told(), ["occupied room"], "there is somebody on the third node");
    drop(three);
    backend.until(&["occupied room", "vacated room"]).await;

    // The others tell of a node that is gone without a word.
    let _last = EventStream::open(servers[2].http, "/sse/left").await;
    let said = ["occupied room", "vacated room", "occupied left", "vacated left"];
    backend.until(&said[..3]).await;
    servers[2].signal(Signal::KILL);
    backend.until(&said).await;
}

//! Items of GRIP that come to one node, for clients that another one holds.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::nats::Nats;
use crate::support::process::{self, Process};
use crate::support::{http, within};
use crate::{metric, until_there_are};

/// An origin that holds everybody on `room`: at `/wait` a response, elsewhere a stream of plain text.
async fn origin() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut line = String::new();
                let mut reader = BufReader::new(&mut stream);
                _ = reader.read_line(&mut line).await;
                let mode = if line.contains("/wait") { "response" } else { "stream" };
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ngrip-hold: {mode}\r\ngrip-channel: room\r\ncontent-type: text/plain\r\n\
                     content-length: 3\r\nconnection: close\r\n\r\nin\n"
                );
                _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    port
}

async fn node(nats: &Nats, name: &str, origin: u16, folder: &std::path::Path) -> Process {
    let file = folder.join("fanwire.toml");
    let text = format!(
        "[[gateway.routes]]\nid = \"live\"\ndialect = \"grip\"\npath = \"/live/**\"\norigin = \"http://127.0.0.1:{origin}\"\n"
    );
    std::fs::write(&file, text).expect("written");
    let mut command = process::command();
    command.args(["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--config"]).arg(&file);
    command.envs([("FANWIRE_CLUSTER_SERVERS", format!("[\"{}\"]", nats.url()).as_str())]);
    command.env("FANWIRE_CLUSTER_NODE", name);
    Process::started(command).await
}

async fn publish(address: SocketAddr, items: Value) {
    let answer = http::post_json(address, "/grip/publish/", json!({ "items": items }).to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// A client that is held: all that it gets, in pieces or to its end.
struct Held(BufReader<TcpStream>);

impl Held {
    async fn ask(address: SocketAddr, path: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        // Of an older version, so that the body is as it is.
        let head = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        Self(BufReader::new(stream))
    }

    /// Until a line is this.
    async fn until(&mut self, wanted: &str) {
        while self.line().await != wanted {}
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(within(self.0.read_line(&mut line)).await.expect("read"), 0, "it is over");
        line.trim_end().to_owned()
    }

    async fn rest(&mut self) -> String {
        let mut rest = String::new();
        within(self.0.read_to_string(&mut rest)).await.expect("read");
        rest
    }
}

#[tokio::test]
async fn items_of_one_node_are_items_on_all_in_their_order_and_to_their_end() {
    let Some(nats) = Nats::start(&[]) else { return };
    let (port, folder) = (origin().await, tempfile::tempdir().expect("a folder"));
    let servers =
        [node(&nats, "n1", port, folder.path()).await, node(&nats, "n2", port, folder.path()).await];
    until_there_are(&servers, 2).await;
    let (holding, other) = (servers[0].http, servers[1].http);
    let (mut stream, mut response) =
        (Held::ask(holding, "/live/").await, Held::ask(holding, "/live/wait").await);
    stream.until("in").await;
    within(async {
        for mode in ["response", "stream"] {
            while metric(holding, &format!("fanwire_grip_holds{{mode=\"{mode}\"}}")).await != 1.0 {}
        }
    })
    .await;

    // What each kind of client gets stands in the item, on whichever node it is.
    publish(other, json!([{"channel": "room", "id": "1", "formats": {
        "http-stream": {"content": "one\n"}, "http-response": {"code": 201, "body": "news"}, "ws-message": {"content": "no"}}}]))
    .await;
    assert_eq!(stream.line().await, "one");
    let got = response.rest().await;
    assert!(got.contains(" 201 ") && got.ends_with("\r\n\r\nnews"), "{got}");

    // From here and there by turns: nobody waits for what is there already, which would take 5 s each time.
    within(async {
        for id in 2..=20 {
            let item = json!([{"channel": "room", "id": id.to_string(), "prev-id": (id - 1).to_string(),
                "http-stream": {"content": format!("{id}\n")}}]);
            publish([holding, other][id % 2], item).await;
            // At first what comes after it is published once it is there, and then at once.
            if id <= 10 {
                assert_eq!(stream.line().await, id.to_string());
            }
        }
        for id in 11..=20 {
            assert_eq!(stream.line().await, id.to_string());
        }
    })
    .await;

    // The last word and the end, in one request to the node that holds nobody.
    publish(
        other,
        json!([
            {"channel": "room", "id": "21", "prev-id": "20", "http-stream": {"content": "last\n"}},
            {"channel": "room", "http-stream": {"action": "close"}}
        ]),
    )
    .await;
    assert_eq!(stream.rest().await, "last\n");
}

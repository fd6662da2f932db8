//! An origin of GRIP that is stopped and started again under those it holds: they stay, and get all of what is published
//! meanwhile, once.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::http::{get, request};
use crate::support::process::Process;

/// How many streams are held, unless `FW_TEST_HOLDS` says.
const STREAMS: usize = 500;

/// How many responses wait besides.
const RESPONSES: usize = 20;

/// Items that are published: before, while nobody answers, and after.
const ITEMS: usize = 90;

/// How long all of it may take: an open breaker lets one request through after 5 s, and links are asked again after up to
/// 8 s more.
const LONG: Duration = Duration::from_secs(120);

/// Fails the test if it takes too long.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("in time")
}

/// A backend at one address, for as long as it is deployed.
struct Deployed {
    accepting: JoinHandle<()>,
}

impl Deployed {
    async fn at(address: SocketAddr, version: &'static str, links: &Arc<AtomicUsize>) -> (Self, SocketAddr) {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let address = listener.local_addr().expect("an address");
        let links = Arc::clone(links);
        let accepting = tokio::spawn(async move {
            // All of them end with this task.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, version, Arc::clone(&links)));
            }
        });
        (Self { accepting }, address)
    }

    /// Cuts whoever it talks to, as one that is killed does.
    async fn stop(self) {
        self.accepting.abort();
        _ = self.accepting.await;
    }
}

async fn serve(mut stream: TcpStream, version: &'static str, links: Arc<AtomicUsize>) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head);
        let stream_behind = |id: &str| {
            format!(
                "content-type: text/plain\r\ngrip-hold: stream\r\ngrip-channel: room; prev-id={id}\r\n\
                 grip-link: </next>; rel=next; timeout=300\r\n"
            )
        };
        let (told, body) = match head.split(' ').nth(1) {
            Some("/stream") => (stream_behind("0"), ""),
            Some("/next") => {
                links.fetch_add(1, Relaxed);
                let last = head.lines().find_map(|line| line.strip_prefix("grip-last: room; last-id="));
                (stream_behind(last.expect("where it stands").trim_matches('"')), "")
            }
            Some("/wait") => ("grip-hold: response\r\ngrip-channel: wait\r\n".to_owned(), "nothing new"),
            _ => (String::new(), version),
        };
        let answer = format!("HTTP/1.1 200 OK\r\n{told}content-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// Somebody who is held, and what has come so far.
struct Held {
    stream: TcpStream,
    got: Vec<u8>,
}

impl Held {
    async fn open(server: &Process, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(server.http).await.expect("it listens");
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", server.http);
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream
    }

    /// Once it has the head of its answer: so that there are no more requests at a time than the route may have.
    async fn stream(server: &Process) -> Self {
        let mut held = Self { stream: Self::open(server, "/stream").await, got: Vec::new() };
        in_time(held.until("\r\n\r\n")).await;
        held
    }

    async fn until(&mut self, end: &str) {
        while !self.got.ends_with(end.as_bytes()) {
            let so_far = String::from_utf8_lossy(&self.got).into_owned();
            assert_ne!(self.stream.read_buf(&mut self.got).await.expect("it stays"), 0, "{so_far}");
        }
    }

    /// What it has got, without the head, up to an end.
    async fn heard(mut self, end: &str) -> String {
        self.until(end).await;
        let text = String::from_utf8(self.got).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        body.to_owned()
    }
}

async fn publish(server: &Process, item: Value) {
    let items = json!({ "items": [item] }).to_string();
    let answer = request(server.http, "POST", "/grip/publish/", &[], items).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

async fn publish_to_streams(server: &Process, ids: std::ops::Range<usize>) {
    for id in ids {
        let item = json!({"channel": "room", "id": id.to_string(), "prev-id": (id - 1).to_string(),
            "http-stream": {"content": format!("<{id}>")}});
        publish(server, item).await;
    }
}

async fn holding(server: &Process, mode: &str, count: usize) {
    in_time(async {
        let wanted = format!("fanwire_grip_holds{{mode=\"{mode}\"}} {count}\n");
        while !get(server.http, "/metrics").await.text().contains(&wanted) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn whoever_is_held_stays_while_its_origin_is_deployed_anew() {
    let streams = std::env::var("FW_TEST_HOLDS").map_or(STREAMS, |count| count.parse().expect("a number"));
    let links = Arc::<AtomicUsize>::default();
    let (first, address) = Deployed::at(([127, 0, 0, 1], 0).into(), "first", &links).await;
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let route = format!(
        "[[gateway.routes]]\nid = \"live\"\ndialect = \"grip\"\npath = \"/**\"\norigin = \"http://{address}\"\n"
    );
    file.write_all(route.as_bytes()).expect("written");
    let server = Process::start(&["--config", file.path().to_str().expect("plain")]).await;

    let mut readers = JoinSet::new();
    for _ in 0..streams {
        readers.spawn(Held::stream(&server).await.heard("last\r\n"));
    }
    let mut waiting = JoinSet::new();
    for _ in 0..RESPONSES {
        let stream = Held::open(&server, "/wait").await;
        waiting.spawn(Held { stream, got: Vec::new() }.heard("news"));
    }
    holding(&server, "stream", streams).await;
    holding(&server, "response", RESPONSES).await;
    publish_to_streams(&server, 1..ITEMS / 3).await;

    first.stop().await;
    publish_to_streams(&server, ITEMS / 3..ITEMS / 2).await;
    // All go to their link, where nobody is.
    assert_eq!(request(server.http, "POST", "/grip/recover/", &[], "").await.status, 200);
    let refused = get(server.http, "/page").await.status;
    assert!(matches!(refused, 502 | 503), "{refused}");
    // Who waits for a response does not need the origin for it.
    publish(&server, json!({"channel": "wait", "http-response": {"body": "news"}})).await;
    in_time(async {
        while let Some(got) = waiting.join_next().await {
            assert_eq!(got.expect("it was answered"), "news");
        }
    })
    .await;
    publish_to_streams(&server, ITEMS / 2..ITEMS * 2 / 3).await;
    assert_eq!(readers.len(), streams);
    holding(&server, "stream", streams).await;

    let (_second, _) = Deployed::at(address, "second", &links).await;
    publish_to_streams(&server, ITEMS * 2 / 3..ITEMS).await;
    in_time(async {
        while get(server.http, "/page").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(get(server.http, "/page").await.text(), "second");
    in_time(async {
        while links.load(Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    // All that asked are live again; an item more, and the last word.
    holding(&server, "stream", streams).await;
    publish_to_streams(&server, ITEMS..ITEMS + 1).await;
    publish(&server, json!({"channel": "room", "no-seq": true, "http-stream": {"content": "last"}})).await;
    let whole: String = (1..=ITEMS).map(|id| format!("<{id}>")).chain(["last".to_owned()]).collect();
    in_time(async {
        while let Some(got) = readers.join_next().await {
            let got = got.expect("it stays");
            let mut content = String::new();
            let mut rest = &*got;
            while let Some((size, more)) = rest.split_once("\r\n") {
                let size = usize::from_str_radix(size, 16).expect("the size of a chunk");
                content.push_str(&more[..size]);
                rest = &more[size + 2..];
            }
            assert_eq!(content, whole);
        }
    })
    .await;
    let metrics = get(server.http, "/metrics").await;
    assert!(metrics.text().contains("fanwire_grip_gaps_total{served=\"closed\"} 0\n"), "{}", metrics.text());
}

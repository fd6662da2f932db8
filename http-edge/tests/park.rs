//! Requests that are held: what the client gets is what hyper would have given it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http::Request;
use http_edge::{Body, Park, Response, ServeConfig, read_body, serve};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(5);
const BIG: usize = 8 << 20;

/// What the handler of `/held` waits for, and how many of its answers are waited for.
#[derive(Default)]
struct Held {
    release: Notify,
    waiting: AtomicUsize,
}

struct Waiting(Arc<Held>);

impl Waiting {
    fn new(held: Arc<Held>) -> Self {
        held.waiting.fetch_add(1, SeqCst);
        Waiting(held)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

/// `/held` waits, `/big` waits and is large, `/now` is parked with an answer that is there, others echo.
async fn answer(mut request: Request<Incoming>, held: Arc<Held>) -> Response {
    let park = request.extensions_mut().remove::<Park>();
    let path = request.uri().path().to_owned();
    let body = read_body(request.into_body(), 1 << 20).await.unwrap_or_default();
    let text = format!("{path} parked={} {}", park.is_some(), String::from_utf8_lossy(&body));
    let later = async move {
        let _waiting = Waiting::new(Arc::clone(&held));
        if path != "/now" {
            held.release.notified().await;
        }
        let body = if path == "/big" { "x".repeat(BIG) } else { text };
        http::Response::builder().status(202).header("x-kept", "yes").body(Body::full(body)).unwrap()
    };
    match park {
        Some(park) => park.wait(later).await,
        None => later.await,
    }
}

struct Server {
    address: std::net::SocketAddr,
    held: Arc<Held>,
    shutdown: watch::Sender<bool>,
}

async fn start() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, stop) = watch::channel(false);
    let held = Arc::new(Held::default());
    let shared = Arc::clone(&held);
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let held = Arc::clone(&shared);
            let service = move |request| answer(request, Arc::clone(&held));
            let mut config = ServeConfig::default();
            config.holds = http_edge::Holds::by(|uri| uri.path() != "/never");
            tokio::spawn(serve(stream, peer, service, config, stop.clone()));
        }
    });
    Server { address, held, shutdown }
}

impl Server {
    async fn holds(&self, count: usize) {
        let holds = async {
            while self.held.waiting.load(SeqCst) != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, holds).await.expect("in time");
    }
}

fn request(path: &str, headers: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// Head, in lower case, and body of the next answer.
async fn read(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let reading = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("open"));
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.expect("a length").parse().unwrap()];
        stream.read_exact(&mut body).await.expect("whole");
        (head, body)
    };
    timeout(PATIENCE, reading).await.expect("in time")
}

#[tokio::test]
async fn a_connection_goes_on_after_each_held_answer() {
    let server = start().await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    for round in 0..3 {
        for path in ["/held", "/never", "/now", "/big"] {
            let body = round.to_string();
            client.write_all(request(path, "", &body).as_bytes()).await.unwrap();
            if path != "/now" {
                server.holds(1).await;
                server.held.release.notify_one();
            }
            let (head, body) = read(&mut client).await;
            assert!(head.starts_with("http/1.1 202 accepted\r\n"), "{head}");
            assert!(head.contains("x-kept: yes\r\n") && head.contains("date: "), "{head}");
            assert!(!head.contains("connection: "), "{head}");
            if path == "/big" {
                assert_eq!(body, vec![b'x'; BIG]);
            } else {
                let expected = format!("{path} parked={} {round}", path != "/never");
                assert_eq!(String::from_utf8(body).unwrap(), expected);
            }
        }
    }
}

#[tokio::test]
async fn pipelined_requests_around_a_held_one_are_answered_in_order() {
    let server = start().await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    let long = "y".repeat(20_000);
    let chunked = "POST /held HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\n";
    let bodies = ["a", &long, "b"];
    // All in one piece, so that what follows a held request was read with it.
    let piece =
        [request("/now", "", bodies[0]), request("/held", "", bodies[1]), request("/held", "", bodies[2])];
    client
        .write_all(format!("{}{chunked}{}", piece.concat(), request("/now", "", "z")).as_bytes())
        .await
        .unwrap();
    assert!(read(&mut client).await.1.ends_with(b"/now parked=true a"));
    for body in [&*long, "b", "c"] {
        server.holds(1).await;
        server.held.release.notify_one();
        assert!(read(&mut client).await.1.ends_with(body.as_bytes()));
    }
    assert!(read(&mut client).await.1.ends_with(b"/now parked=true z"));
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed() {
    let server = start().await;
    for ends_in_order in [true, false] {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client.write_all(request("/held", "", "a").as_bytes()).await.unwrap();
        server.holds(1).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        if !ends_in_order {
            client.set_zero_linger().unwrap();
        }
        drop(client);
        server.holds(0).await;
    }
}

#[tokio::test]
async fn only_connections_that_stay_open_are_parked() {
    let server = start().await;
    for (version, headers) in [
        ("1.1", "Connection: close\r\n"),
        ("1.1", "Connection: x, Close\r\n"),
        ("1.0", ""),
        ("1.0", "Connection: keep-alive\r\n"),
    ] {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        let request = request("/now", headers, "a").replace("HTTP/1.1", &format!("HTTP/{version}"));
        client.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(read(&mut client).await.1, b"/now parked=false a", "{version} {headers}");
    }
}

#[tokio::test]
async fn at_shutdown_a_held_request_is_answered_and_its_connection_closed() {
    let server = start().await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(request("/held", "", "a").as_bytes()).await.unwrap();
    server.holds(1).await;
    server.shutdown.send_replace(true);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.held.waiting.load(SeqCst), 1);
    server.held.release.notify_one();
    let (head, body) = read(&mut client).await;
    assert!(head.contains("connection: close\r\n") && body.ends_with(b" a"), "{head}");
    assert_eq!(timeout(PATIENCE, client.read(&mut [0; 1])).await.expect("closed").unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let held = Arc::new(Held::default());
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let shared = Arc::clone(&held);
    let mut config = ServeConfig::default();
    config.holds = http_edge::Holds::by(|_| true);
    config.header_read_timeout = Duration::from_millis(300);
    let (_shutdown, stop) = watch::channel(false);
    let served = serve(stream, peer, move |request| answer(request, Arc::clone(&shared)), config, stop);
    let serving = tokio::spawn(served);
    client.write_all(request("/big", "", "").as_bytes()).await.unwrap();
    held.release.notify_one();
    timeout(PATIENCE, serving).await.expect("in time").unwrap();
}

#[tokio::test]
async fn a_head_request_is_not_parked() {
    let server = start().await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    let head = request("/now", "", "").replace("POST", "HEAD");
    client
        .write_all(format!("{head}{}", request("/now", "Connection: close\r\n", "z")).as_bytes())
        .await
        .unwrap();
    let mut answers = String::new();
    timeout(PATIENCE, client.read_to_string(&mut answers)).await.expect("in time").unwrap();
    assert_eq!(answers.matches("/now parked").count(), 1, "{answers}");
}

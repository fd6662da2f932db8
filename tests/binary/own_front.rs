//! A protocol that the server does not know, added from outside.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use fanwire::edge::{Body, Cookies, OriginPolicy, Peer, Response, read_body};
use fanwire::front::{Accepted, Context, Front, Metric, Reason, Refusal, Task};
use fanwire::{Channel, Publish, Server};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::embedding::example;
use crate::support::http::{get, post, request};
use crate::support::sse::EventStream;
use crate::support::{TestServer, within};

/// What is posted to `/echo/CHANNEL` is published and answered; on its own listener a line says the same.
struct Echo {
    context: Context,
    address: Option<SocketAddr>,
    published: Arc<AtomicU64>,
    /// Milliseconds that it was given to leave; 0 before it was told.
    told: Arc<AtomicU64>,
    origins: OriginPolicy,
}

impl Echo {
    fn of(context: &Context) -> Self {
        let address = Some(([127, 0, 0, 1], 0).into());
        let origins = OriginPolicy::List(vec!["https://echo.example".to_owned()]);
        let told = Arc::default();
        Echo { context: context.clone(), address, published: Arc::default(), told, origins }
    }

    fn telling(context: &Context, told: &Arc<AtomicU64>) -> Self {
        Echo { told: Arc::clone(told), ..Self::of(context) }
    }

    fn publish(&self, channel: &str, payload: impl Into<bytes::Bytes>) {
        let channel = Channel::parse(channel).expect("a legal channel");
        self.context.broker.publish(Publish::new(channel, payload)).expect("the broker takes it");
        self.published.fetch_add(1, Relaxed);
    }
}

impl Front for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn claims(&self, path: &str) -> bool {
        path.starts_with("/echo/") || path.starts_with("/sse/")
    }

    fn handle(&self, peer: Option<Peer>, request: http::Request<Body>) -> Task<Response> {
        assert!(peer.is_some_and(|peer| peer.0.ip().is_loopback()));
        let front = Echo {
            origins: OriginPolicy::Any,
            published: Arc::clone(&self.published),
            ..Self::of(&self.context)
        };
        Box::pin(async move {
            let channel = request.uri().path().trim_start_matches("/echo/").to_owned();
            let body = read_body(request.into_body(), 1000).await.expect("a short body");
            front.publish(&channel, body.clone());
            http::Response::new(Body::full(body))
        })
    }

    fn refuse(&self, refusal: &Refusal, _: &http::request::Parts) -> Option<Task<Response>> {
        if refusal.reason == Reason::OtherHost {
            return None;
        }
        let mut response = http::Response::new(Body::full(format!("echo: {}", refusal.problem.detail)));
        *response.status_mut() = http::StatusCode::IM_A_TEAPOT;
        Some(Box::pin(std::future::ready(response)))
    }

    fn readers(&self) -> Option<(&OriginPolicy, Cookies)> {
        Some((&self.origins, Cookies::Omit))
    }

    fn listens(&self) -> Option<SocketAddr> {
        self.address
    }

    fn serve(&self, accepted: Accepted) -> Task {
        let front = Echo { published: Arc::clone(&self.published), ..Self::of(&self.context) };
        Box::pin(async move {
            let mut lines = BufReader::new(accepted.socket.into_stream()).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                front.publish("lines", line);
            }
        })
    }

    fn refuse_stream(&self, refusal: &Refusal, accepted: Accepted) -> Task {
        let why = format!("{:?}", refusal.reason);
        Box::pin(async move { _ = accepted.socket.into_stream().write_all(why.as_bytes()).await })
    }

    fn collect(&self, out: &mut Vec<Metric>) {
        out.push(Metric::counter("echo_published", "What echo published", self.published.load(Relaxed)));
    }

    fn shut_down(&self, window: Duration) -> Task {
        let told = Arc::clone(&self.told);
        Box::pin(async move { told.store(window.as_millis() as u64, Relaxed) })
    }
}

#[tokio::test]
async fn a_front_from_outside_serves_its_paths_beside_the_others() {
    let told = Arc::default();
    let tells = Arc::clone(&told);
    let make = move |context: &Context| Echo::telling(context, &tells);
    let server = TestServer::with(|config| *config = std::mem::take(config).with_front(make)).await;
    let mut events = EventStream::open(server.http, "/sse/chat/room1").await;
    assert_eq!(events.status, 200, "what a built-in front claims stays its own");
    let answer = post(server.http, "/echo/chat/room1", "hello").await;
    assert_eq!((answer.status, answer.text()), (200, "hello"));
    assert!(answer.header("x-request-id").is_some_and(|id| id.len() == 16), "{answer:?}");
    assert_eq!(events.data().await, "hello", "one channel space");
    assert_eq!(get(server.http, "/else").await.status, 404);
    let metrics = get(server.http, "/metrics").await;
    assert!(metrics.text().contains("\nfanwire_echo_published_total 1\n"), "{}", metrics.text());
    server.stop().await;
    assert_eq!(told.load(Relaxed), 1000, "it had its window to tell its clients");
}

#[tokio::test]
async fn a_front_from_outside_has_a_listener_of_its_own_and_refuses_in_its_own_terms() {
    let loopback = Some(([127, 0, 0, 1], 0).into());
    let config = fanwire::Config {
        http: loopback,
        mqtt: None,
        max_connections_per_address: Some(2),
        shutdown_window: Duration::from_secs(1),
        ..fanwire::Config::default()
    };
    let server = Server::bind(config.with_front(Echo::of)).await.expect("free ports");
    let (http, echo) = (server.http_address().expect("HTTP"), server.address_of("echo").expect("a listener"));
    assert_eq!(server.address_of("nobody"), None);
    let mut lines = server.broker().subscribe("lines".parse().expect("a filter")).expect("open");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async { _ = stopped.await }));

    let mut device = TcpStream::connect(echo).await.expect("it listens");
    device.write_all(b"one\n").await.expect("written");
    assert_eq!(within(lines.message()).await.expect("published").payload(), "one");

    // A connection that waits and one that asks: the address has its two, over both listeners.
    let _kept = TcpStream::connect(http).await.expect("it listens");
    let page = [("host", "localhost"), ("origin", "https://echo.example")];
    let answer = within(async {
        loop {
            let answer = request(http, "POST", "/echo/a", &page, "hello").await;
            if answer.status != 200 {
                break answer;
            }
        }
    })
    .await;
    assert_eq!((answer.status, answer.text()), (418, "echo: too many connections from this address"));
    let answer = request(http, "GET", "/v1/openapi.json", &[("host", "localhost")], "").await;
    assert_eq!((answer.status, &*answer.code()), (429, "too_many_connections"));
    let mut refused = String::new();
    let mut late = TcpStream::connect(echo).await.expect("it listens");
    within(late.read_to_string(&mut refused)).await.expect("told");
    assert_eq!(refused, "AddressFull");

    drop(stop);
    within(running).await.expect("it ends");
}

#[tokio::test]
async fn the_example_of_an_own_front_does_what_it_says() {
    let mut command = Command::new(example("own_front"));
    command.args(["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--lines", "127.0.0.1:0"]);
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("it runs");
    let mut said = String::new();
    within(BufReader::new(child.stdout.take().expect("piped")).read_line(&mut said)).await.expect("a line");
    let address = |name: &str| -> SocketAddr {
        let of = said.split_whitespace().find_map(|part| part.strip_prefix(name)).expect("an address");
        of.parse().expect("an address")
    };
    let (http, lines) = (address("http="), address("lines="));
    let by_filter = first_line(lines, b"chat/*\n");
    let by_http = first_line(http, b"GET /lines/chat/room1 HTTP/1.0\r\nhost: localhost\r\n\r\n");
    // Neither says when it has subscribed.
    let publishing = async {
        loop {
            assert_eq!(post(http, "/v1/publish/chat/room1", "hello").await.status, 200);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = publishing => {}
        _ = within(async { tokio::join!(by_filter, by_http) }) => {}
    }
    assert_eq!(get(http, "/lines/a/**/b").await.status, 403, "what is no filter");
    let metrics = get(http, "/metrics").await;
    assert!(metrics.text().contains("fanwire_lines_sent_total"), "{}", metrics.text());
}

/// Says something, and waits for the line that the example makes of a message.
async fn first_line(address: SocketAddr, said: &[u8]) {
    let mut stream = BufReader::new(TcpStream::connect(address).await.expect("it listens"));
    stream.write_all(said).await.expect("written");
    let mut line = String::new();
    while line != "chat/room1 hello\n" {
        line.clear();
        assert_ne!(stream.read_line(&mut line).await.expect("a line"), 0, "it ended before");
    }
}

//! A protocol that the server does not know, added from outside.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use fanwire::edge::{Body, Cookies, OriginPolicy, Peer, Response, read_body};
use fanwire::front::{Accepted, Common, Context, Front, Metric, Reason, Refusal, Section, Task};
use fanwire::settings::{Period, Setting as _, Size};
use fanwire::{Arguments, Channel, Loaded, Loader, OwnFront, Publish, Server};
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
    config: EchoConfig,
}

#[derive(Clone)]
struct EchoConfig {
    /// The longest thing that is posted.
    max_body_bytes: usize,
    /// What comes before the echo.
    greeting: String,
    patience: Duration,
    common: Common,
}

impl Default for EchoConfig {
    fn default() -> Self {
        let (greeting, patience) = (String::new(), Duration::from_secs(1));
        EchoConfig { max_body_bytes: 1000, greeting, patience, common: Common::default() }
    }
}

fanwire::settings::section!(
    /// `[echo]`
    EchoSection: EchoConfig { max_body_bytes: Size, greeting: String, patience: Period }
);

impl Section for EchoSection {
    type Config = EchoConfig;
    const NAME: &'static str = "echo";
    const ADDRESS: Option<&'static str> = Some("off");

    fn set_broker(&self, broker: &mut fanwire::core::Config) {
        broker.max_channels = 77;
    }

    fn into_config(self, common: &Common) -> EchoConfig {
        EchoConfig { common: common.clone(), ..self.into_value() }
    }
}

impl Echo {
    fn of(context: &Context) -> Self {
        let address = Some(([127, 0, 0, 1], 0).into());
        let origins = OriginPolicy::List(vec!["https://echo.example".to_owned()]);
        let told = Arc::default();
        let (context, published, config) = (context.clone(), Arc::default(), EchoConfig::default());
        Echo { context, address, published, told, origins, config }
    }

    fn telling(context: &Context, told: &Arc<AtomicU64>) -> Self {
        Echo { told: Arc::clone(told), ..Self::of(context) }
    }

    fn set_up(context: &Context, config: EchoConfig) -> Self {
        Echo { address: config.common.address, config, ..Self::of(context) }
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
            config: self.config.clone(),
            ..Self::of(&self.context)
        };
        Box::pin(async move {
            let channel = request.uri().path().trim_start_matches("/echo/").to_owned();
            let Ok(body) = read_body(request.into_body(), front.config.max_body_bytes).await else {
                let mut response = http::Response::new(Body::full("echo: too long"));
                *response.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
                return response;
            };
            front.publish(&channel, body.clone());
            http::Response::new(Body::full([front.config.greeting.as_bytes(), &body].concat()))
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
    assert!(metrics.text().contains("protocols=\"bayeux,echo,http,mqtt,route,sse\""), "{}", metrics.text());
    server.stop().await;
    assert_eq!(told.load(Relaxed), 1000, "it had its window to tell its clients");
}

#[tokio::test]
async fn a_front_from_outside_has_a_listener_of_its_own_and_refuses_in_its_own_terms() {
    let loopback = Some(([127, 0, 0, 1], 0).into());
    let mut config = fanwire::Config::default();
    config.http = loopback;
    config.mqtt = None;
    config.max_connections_per_address = Some(2);
    config.shutdown_window = Duration::from_secs(1);
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

fn loader() -> Loader {
    Loader::default().with_front(OwnFront::with_section::<EchoSection, _>(Echo::set_up))
}

/// What is read, or what is wrong with it.
fn load(file: &str, environment: &[(&str, &str)]) -> Result<Loaded, String> {
    let mut arguments = Arguments::default();
    arguments.config = Some("FILE".into());
    arguments.http = Some("127.0.0.1:0".to_owned());
    arguments.mqtt = Some("off".to_owned());
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
    loader().check(arguments, file, environment).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_front_from_outside_is_set_up_by_a_section_of_its_own() {
    let file = "[echo]\nmax_body_bytes = \"2 KiB\"\ngreeting = \"file: \"\naddress = \"127.0.0.1:0\"\n\
                [server]\nallowed_origins = [\"https://echo.example\"]\n[broker]\nmax_message_bytes = 3000\n";
    let loaded = load(file, &[("FANWIRE_ECHO_GREETING", "variable: ")]).expect("legal");
    let server = Server::bind(loaded.config).await.expect("free ports");
    let (http, echo) = (server.http_address().expect("HTTP"), server.address_of("echo").expect("a listener"));
    let common = &server.fronts().get::<Echo>().expect("made").config.common;
    assert!(common.http.is_some() && common.broker.max_message_bytes == 3000);
    assert_eq!(common.broker.max_channels, 77, "its own word about the broker");
    let page = http::HeaderMap::from_iter([
        (http::header::HOST, http::HeaderValue::from_static("localhost")),
        (http::header::ORIGIN, http::HeaderValue::from_static("https://echo.example")),
    ]);
    assert!(common.origins.allows(&page), "those that the configuration lets in");
    let mut lines = server.broker().subscribe("lines".parse().expect("a filter")).expect("open");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async { _ = stopped.await }));
    let answer = post(http, "/echo/a", "x".repeat(2000)).await;
    assert_eq!((answer.status, answer.text().len()), (200, "variable: ".len() + 2000));
    assert_eq!(post(http, "/echo/a", "x".repeat(2100)).await.status, 413);
    let mut device = TcpStream::connect(echo).await.expect("it listens");
    device.write_all(b"one\n").await.expect("written");
    assert_eq!(within(lines.message()).await.expect("published").payload(), "one");
    drop((device, stop));
    within(running).await.expect("it ends");
}

/// A file, an environment, and what is said of them.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

#[test]
fn what_is_wrong_in_the_section_of_a_front_from_outside_is_told_as_in_any_other() {
    let cases: [Case<'_>; 10] = [
        (
            "[echo]\nmax_body_byte = 3",
            &[],
            "FILE: unknown key `echo.max_body_byte`, did you mean `echo.max_body_bytes`?",
        ),
        ("[echo]\nadress = \"off\"", &[], "FILE: unknown key `echo.adress`, did you mean `echo.address`?"),
        ("[ecko]\n", &[], "FILE: unknown key `ecko`, did you mean `echo`?"),
        ("greeting = \"\"", &[], "FILE: unknown key `greeting`, did you mean `echo.greeting`?"),
        (
            "",
            &[("FANWIRE_ECHO_GREETIN", "x")],
            "environment: unknown key `FANWIRE_ECHO_GREETIN`, did you mean `FANWIRE_ECHO_GREETING`?",
        ),
        ("[echo]\npatience = 3", &[], "FILE: `echo.patience`: `3` needs a unit, such as \"3s\""),
        ("[echo]\npatience = 0", &[], "FILE: `echo.patience`: 0 is too short here, say how long"),
        (
            "[echo]\naddress = \"nowhere\"",
            &[],
            "`echo.address`: `nowhere` is not an address such as 127.0.0.1:8080",
        ),
        (
            "[echo]\naddress = \"0.0.0.0:0\"",
            &[],
            "`echo.address`: 0.0.0.0:0 is reachable from other machines and no rights are configured; configure \
             keys, users, issuers or [anonymous], or say --allow-anonymous to let everybody do everything",
        ),
        // The first by the order of keys, whoever they belong to.
        (
            "[echo]\nqqqqqqqqqqqqqqqq = 3\n[bayeux]\nqqqqqqqqqqqqqqqq = 3\n[http]\nqqqqqqqqqqqqqqqq = 3",
            &[],
            "FILE: unknown key `bayeux.qqqqqqqqqqqqqqqq`",
        ),
    ];
    for (file, environment, expected) in cases {
        assert_eq!(load(file, environment).map(|_| ()).expect_err(file), expected);
    }
}

#[test]
fn the_keys_of_a_front_from_outside_are_listed_and_only_where_it_is() {
    let told = |loader: &Loader| -> Vec<_> {
        let keys = loader.keys().into_iter().filter(|key| key.name.starts_with("echo."));
        keys.map(|key| format!("{} {} {}", key.name, key.variable, key.default.unwrap_or_default())).collect()
    };
    let expected = [
        "echo.address FANWIRE_ECHO_ADDRESS \"off\"",
        "echo.greeting FANWIRE_ECHO_GREETING \"\"",
        "echo.max_body_bytes FANWIRE_ECHO_MAX_BODY_BYTES 1000",
        "echo.patience FANWIRE_ECHO_PATIENCE \"1s\"",
        "echo.tls FANWIRE_ECHO_TLS ",
        "echo.tls_address FANWIRE_ECHO_TLS_ADDRESS ",
    ];
    assert_eq!(told(&loader()), expected);
    assert!(told(&Loader::default()).is_empty());
    let twice = loader().with_front(OwnFront::with_section::<EchoSection, _>(Echo::set_up));
    let error = twice.load(Arguments::default(), []).expect_err("one name").to_string();
    assert_eq!(error, "two sections are called [echo]: a front of yours needs one of another name");
}

#[tokio::test]
async fn a_front_with_a_section_that_nobody_loaded_has_its_defaults() {
    let own = OwnFront::with_section::<EchoSection, _>(Echo::set_up);
    let server = TestServer::with(|config| config.own_fronts.push(own)).await;
    assert_eq!(post(server.http, "/echo/a", "x".repeat(1000)).await.status, 200);
    assert_eq!(post(server.http, "/echo/a", "x".repeat(1001)).await.status, 413);
}

/// The example of an own front, configured by a file.
fn own_front(file: &std::path::Path) -> Command {
    let mut command = Command::new(example("own_front"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FANWIRE_")) {
        command.env_remove(name);
    }
    command.args(["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--config"]).arg(file);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

#[tokio::test]
async fn the_example_of_an_own_front_tells_what_is_wrong_and_what_a_reload_cannot_change() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let write = |text: &str| std::fs::write(file.path(), text).expect("written");
    write("[lines]\npatiense = \"3s\"\n");
    let ended = within(own_front(file.path()).output()).await.expect("it runs");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(said.contains("unknown key `lines.patiense`, did you mean `lines.patience`?"), "{said}");
    assert!(!ended.status.success());

    write("[server]\nreload_interval = \"100ms\"\n[lines]\npatience = \"3s\"\n");
    let mut child = own_front(file.path()).spawn().expect("it runs");
    let mut line = String::new();
    within(BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line)).await.expect("a line");
    assert!(line.ends_with(" lines=off\n"), "{line}");
    write("[server]\nreload_interval = \"100ms\"\n[lines]\npatience = \"30s\"\n");
    let mut log = BufReader::new(child.stderr.take().expect("piped")).lines();
    let told = within(async {
        while let Ok(Some(line)) = log.next_line().await {
            if line.contains("at the next start only") {
                return line;
            }
        }
        String::new()
    })
    .await;
    assert!(told.contains("lines.patience"), "{told}");
}

#[tokio::test]
async fn the_example_of_an_own_front_does_what_it_says() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "[lines]\naddress = \"127.0.0.1:0\"\n").expect("written");
    let mut child = own_front(file.path()).spawn().expect("it runs");
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

//! A WebSocket from its handshake to its end, with frames that the test writes itself.

#[path = "websocket/http2.rs"]
mod http2;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use broker_core::{Broker, Deliver, Delivery, OutboxConfig, Sink};
use http::Request;
use http_edge::websocket::{Ending, Heard, Hearing, LINGER, Terms, Upgrade, WebSocket};
use http_edge::{Intake, IntakeConfig, Response, ServeConfig, serve};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use websocket::handshake::Options;
use websocket::{CloseCode, Limits, Patience, encode};

const SOON: Duration = Duration::from_secs(10);

struct Nobody;

impl Deliver for Nobody {
    fn deliver(&self, _: &Delivery, _: &[u32], _: &mut Sink<'_>) {}
}

/// What the server heard, in words.
type Story = UnboundedReceiver<String>;

struct Server {
    broker: Broker,
    terms: Terms,
    /// How long after the last thing heard it is the caller's time.
    due: Option<Duration>,
    told: UnboundedSender<String>,
    outboxes: Mutex<Vec<Arc<broker_core::Outbox>>>,
    /// Of clients that nobody reads.
    unread: Mutex<Vec<link::Socket>>,
}

impl Server {
    fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Response {
        let (mut parts, _) = request.into_parts();
        let mut options = Options::default();
        options.protocols = &["echo"];
        let upgrade = match Upgrade::accept(&mut parts, &options) {
            Ok(upgrade) => upgrade,
            Err(refused) => return refused.response("GET, OPTIONS"),
        };
        let (server, deflate) = (Arc::clone(self), upgrade.deflate());
        let is_unread = parts.uri.path() == "/unread";
        upgrade.then(move |socket| {
            if is_unread {
                return server.unread.lock().unwrap().push(socket);
            }
            let subscriber = server.broker.attach(Arc::new(Nobody), OutboxConfig::default());
            let mut limits = Limits::default();
            limits.max_frame_bytes = 100_000;
            limits.max_message_bytes = 100_000;
            let socket = WebSocket::new(socket, subscriber.outbox(), limits, deflate);
            server.outboxes.lock().unwrap().push(subscriber.outbox());
            tokio::spawn(async move {
                let _subscriber = subscriber;
                server.talk(socket).await;
            });
        })
    }

    /// Sends texts back, and closes after a binary message.
    async fn talk(&self, mut socket: WebSocket) {
        loop {
            let due = self.due.map(|after| Instant::now() + after);
            let heard = socket.hear(&self.terms, due).await;
            self.told.send(format!("{heard:?}")).unwrap();
            match heard {
                Heard::Text(text) => {
                    socket.outbox().send(encode::frame(encode::TEXT, &text), broker_core::Class::Control);
                }
                Heard::Binary(_) => {
                    socket.close(CloseCode::Unsupported, "messages are text");
                    return socket.finish(LINGER).await;
                }
                Heard::Woken | Heard::Due | Heard::Ping(_) | Heard::Pong(_) => {}
                Heard::Ended(ending) if ending.is_told() => return socket.finish(LINGER).await,
                Heard::Ended(_) => return,
            }
        }
    }
}

async fn start(terms: Terms, due: Option<Duration>) -> (std::net::SocketAddr, Arc<Server>, Story) {
    start_with(terms, due, ServeConfig::default()).await
}

async fn start_with(
    terms: Terms,
    due: Option<Duration>,
    config: ServeConfig,
) -> (std::net::SocketAddr, Arc<Server>, Story) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (told, story) = unbounded_channel();
    let broker = Broker::new(broker_core::Config::default());
    let (outboxes, unread) = (Mutex::default(), Mutex::default());
    let server = Arc::new(Server { broker, terms, due, told, outboxes, unread });
    let accepting = Arc::clone(&server);
    tokio::spawn(async move {
        let (_keep, down) = tokio::sync::watch::channel(false);
        while let Ok((stream, peer)) = listener.accept().await {
            let server = Arc::clone(&accepting);
            let service = move |request| {
                let answer = server.answer(request);
                async move { answer }
            };
            tokio::spawn(serve(stream, peer, service, config.clone(), down.clone()));
        }
    });
    (address, server, story)
}

/// The connection and the head of the answer.
async fn ask(address: std::net::SocketAddr, method: &str, fields: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} / HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(SOON, stream.read_u8()).await.unwrap().unwrap());
    }
    (stream, String::from_utf8(head).unwrap().to_lowercase())
}

const OPENING: &str =
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

async fn open(address: std::net::SocketAddr) -> TcpStream {
    let (stream, head) = ask(address, "GET", OPENING).await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    stream
}

/// A masked frame; the mask is zero.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u8::try_from(payload.len()).ok().filter(|length| *length < 126) {
        Some(length) => frame.push(0x80 | length),
        None => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

async fn expect(stream: &mut TcpStream, frame: &[u8]) {
    let mut got = vec![0; frame.len()];
    timeout(SOON, stream.read_exact(&mut got)).await.expect("a frame should have come").unwrap();
    assert_eq!(got, frame);
}

async fn expect_end(stream: &mut TcpStream) {
    assert_eq!(timeout(SOON, stream.read_to_end(&mut Vec::new())).await.unwrap().unwrap(), 0);
}

async fn next(story: &mut Story) -> String {
    timeout(SOON, story.recv()).await.expect("something should have been heard").unwrap()
}

/// As [`next`], without the times that passed before.
async fn after_due(story: &mut Story) -> String {
    loop {
        let heard = next(story).await;
        if heard != "Due" {
            return heard;
        }
    }
}

fn ended(ending: Ending) -> String {
    format!("{:?}", Heard::Ended(ending))
}

#[tokio::test]
async fn what_is_no_handshake_is_answered_with_a_problem() {
    let (address, ..) = start(Terms::default(), None).await;
    let old = OPENING.replace("13", "8");
    for (method, fields, status, code) in [
        ("GET", "", "426", "upgrade_required"),
        ("GET", &*old, "426", "upgrade_required"),
        ("GET", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", "400", "invalid_handshake"),
        ("DELETE", OPENING, "405", "method_not_allowed"),
    ] {
        let (mut stream, head) = ask(address, method, fields).await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
        assert_eq!(head.contains("sec-websocket-version: 13"), status == "426", "{head}");
        assert_eq!(head.contains("allow: get, options"), status == "405", "{head}");
        let mut body = [0; 200];
        let length = timeout(SOON, stream.read(&mut body)).await.unwrap().unwrap();
        let body = String::from_utf8_lossy(&body[..length]);
        assert!(body.contains(&format!("\"code\":\"{code}\"")), "{body}");
    }
}

#[tokio::test]
async fn messages_are_heard_in_order_and_pings_answered_between_them() {
    let (address, server, mut story) = start(Terms::default(), None).await;
    let mut client = open(address).await;
    let sent = [frame(0x81, b"one"), frame(0x89, b"?"), frame(0x01, b"t"), frame(0x80, b"wo")].concat();
    // In one piece, and byte by byte.
    client.write_all(&sent).await.unwrap();
    for byte in &sent {
        client.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    for _ in 0..2 {
        for answer in [&b"\x81\x03one"[..], b"\x8a\x01?", b"\x81\x03two"] {
            expect(&mut client, answer).await;
        }
        assert_eq!(next(&mut story).await, "Text(b\"one\")");
        assert_eq!(next(&mut story).await, "Text(b\"two\")");
    }
    server.outboxes.lock().unwrap()[0].notify();
    assert_eq!(next(&mut story).await, "Woken");
    client.write_all(&frame(0x82, b"x")).await.unwrap();
    assert_eq!(next(&mut story).await, "Binary(b\"x\")");
    expect(&mut client, &encode::close(CloseCode::Unsupported, "messages are text")).await;
    expect_end(&mut client).await;
}

#[tokio::test]
async fn a_close_is_echoed_and_a_fault_told() {
    let (address, _server, mut story) = start(Terms::default(), None).await;
    let too_big = [&[0x81, 0xff][..], &200_000_u64.to_be_bytes(), &[0; 4]].concat();
    for (sent, told, fault) in [
        (frame(0x88, &[3, 233, b'b', b'y', b'e']), encode::close(CloseCode::Away, ""), None),
        (frame(0x88, &[]), encode::close(CloseCode::Status, ""), None),
        (
            vec![0x81, 0],
            encode::close(CloseCode::Protocol, "client frame without a mask"),
            Some(CloseCode::Protocol),
        ),
        (too_big, encode::close(CloseCode::Size, "frame too big"), Some(CloseCode::Size)),
    ] {
        let mut client = open(address).await;
        client.write_all(&sent).await.unwrap();
        expect(&mut client, &told).await;
        expect_end(&mut client).await;
        let heard = next(&mut story).await;
        match fault {
            Some(code) => {
                assert!(heard.contains(&format!("Fault(Violation {{ close_code: {code:?}")), "{heard}")
            }
            None => assert!(heard.starts_with("Ended(Left {"), "{heard}"),
        }
        assert_eq!(heard.contains("bye"), sent.ends_with(b"bye"), "{heard}");
    }
    let client = open(address).await;
    drop(client);
    assert_eq!(next(&mut story).await, ended(Ending::Gone));
}

#[tokio::test]
async fn a_silent_client_is_asked_and_then_given_up() {
    let (ping, idle) = (Duration::from_millis(150), Duration::from_millis(400));
    let mut patience = Patience::default();
    patience.ping_interval = Some(ping);
    patience.idle_timeout = Some(idle);
    let mut terms = Terms::default();
    terms.patience = patience;
    let (address, _server, mut story) = start(terms, None).await;
    let mut client = open(address).await;
    let begin = Instant::now();
    // As long as it answers it stays.
    for _ in 0..4 {
        expect(&mut client, b"\x89\0").await;
        client.write_all(&frame(0x8a, b"")).await.unwrap();
    }
    assert!(begin.elapsed() + ping >= 4 * ping, "{:?}", begin.elapsed());
    let begin = Instant::now();
    for answer in [&b"\x89\0"[..], b"\x89\0", &encode::close(CloseCode::Normal, "idle timeout")] {
        expect(&mut client, answer).await;
    }
    assert!(begin.elapsed() + ping >= idle, "{:?}", begin.elapsed());
    assert_eq!(after_due(&mut story).await, ended(Ending::Idle));
}

#[tokio::test]
async fn a_message_that_comes_too_slowly_or_finds_no_room_is_given_up() {
    let grace = Duration::from_millis(200);
    let intake = |config| {
        let mut chosen = Terms::default();
        chosen.intake = Intake::new(config);
        chosen
    };
    let mut set = IntakeConfig::default();
    set.grace = grace;
    set.min_bytes_per_second = 1_000_000;
    let slow = intake(set);
    let mut given = IntakeConfig::default();
    given.max_bytes = 20_000;
    let full = intake(given);
    for (terms, bytes, code, reason, ending) in [
        (slow, 1, CloseCode::Policy, "the message came too slowly", Ending::Slow),
        (full, 30_000, CloseCode::Again, "no room for unfinished messages", Ending::Shed),
    ] {
        let account = terms.intake.clone();
        let (address, _server, mut story) = start(terms, None).await;
        let mut client = open(address).await;
        let whole = frame(0x81, &vec![b'a'; 60_000]);
        client.write_all(&whole[..bytes]).await.unwrap();
        expect(&mut client, &encode::close(code, reason)).await;
        expect_end(&mut client).await;
        assert_eq!(after_due(&mut story).await, ended(ending));
        assert_eq!((account.stats().held_bytes, account.stats().unfinished), (0, 0));
    }
}

#[tokio::test]
async fn the_callers_time_comes_while_the_client_is_silent() {
    let (address, _server, mut story) = start(Terms::default(), Some(Duration::from_millis(50))).await;
    let mut client = open(address).await;
    assert_eq!([next(&mut story).await, next(&mut story).await], ["Due", "Due"]);
    client.write_all(&frame(0x81, b"here")).await.unwrap();
    expect(&mut client, b"\x81\x04here").await;
    assert_eq!(after_due(&mut story).await, "Text(b\"here\")");
}

#[test]
fn an_idle_socket_is_small() {
    let (socket, hearing) = (size_of::<WebSocket>(), size_of::<Hearing<'_>>());
    assert!(socket <= 240 && hearing <= 128, "{socket} {hearing}");
}

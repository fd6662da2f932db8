//! Connections over real sockets: what is taken over, what is not, and what is closed.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http::{Request, Version};
use http_body_util::{BodyExt, Empty, Full};
use http_edge::{Body, Peer, Response, ServeConfig, Takeover, read_body, response_head, serve};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

struct Server {
    address: SocketAddr,
    taken: Arc<AtomicUsize>,
    shutdown: watch::Sender<bool>,
}

/// Takes over wherever it can at `/take`; elsewhere answers with what it was sent and how.
async fn answer(request: Request<Incoming>, taken: Arc<AtomicUsize>) -> Response {
    let peer = request.extensions().get::<Peer>().is_some();
    let takeover = request.extensions().get::<Takeover>().cloned();
    if request.uri().path() == "/slow" {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    if request.uri().path() == "/big" {
        return http::Response::new(Body::full(vec![b'x'; 8 << 20]));
    }
    if let (Some(takeover), "/take") = (&takeover, request.uri().path()) {
        let (parts, _) =
            http::Response::builder().header("connection", "close").body(()).unwrap().into_parts();
        takeover.claim(response_head(&parts, b"taken"), move |socket| {
            taken.fetch_add(1, SeqCst);
            drop(socket);
        });
        pending::<()>().await;
    }
    let host = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
    let line = format!(
        "{} {:?} takeover={} peer={peer} host={} ",
        request.method(),
        request.version(),
        takeover.is_some(),
        host.is_some()
    );
    let body = read_body(request.into_body(), 1 << 20).await.unwrap_or_default();
    http::Response::new(Body::full([line.as_bytes(), &body].concat()))
}

async fn start(config: ServeConfig) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, stop) = watch::channel(false);
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let count = Arc::clone(&count);
            let service = move |request| answer(request, Arc::clone(&count));
            tokio::spawn(serve(stream, peer, service, config.clone(), stop.clone()));
        }
    });
    Server { address, taken, shutdown }
}

/// Sends `request` and reads until the server closes, or for five seconds.
async fn exchange(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ =
        timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.expect("the server closes");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn only_a_get_without_body_over_http1_is_taken_over() {
    let server = start(ServeConfig::default()).await;
    let close = "Host: x\r\nConnection: close\r\n";
    let cases = [
        (format!("GET /take HTTP/1.1\r\n{close}\r\n"), true),
        (format!("GET /take HTTP/1.1\r\n{close}Content-Length: 0\r\n\r\n"), true),
        ("GET /take HTTP/1.0\r\n\r\n".to_owned(), true),
        ("GET /take HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_owned(), true),
        (format!("GET /take HTTP/1.1\r\n{close}Content-Length: 2\r\n\r\nab"), false),
        (format!("GET /take HTTP/1.1\r\n{close}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), false),
        (format!("HEAD /take HTTP/1.1\r\n{close}\r\n"), false),
        (format!("POST /take HTTP/1.1\r\n{close}Content-Length: 2\r\n\r\nab"), false),
    ];
    let mut expected = 0;
    for (request, taken) in cases {
        let answer = exchange(&server, &request).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") || answer.starts_with("HTTP/1.0 200 OK\r\n"),
            "{answer}"
        );
        assert_eq!(answer.ends_with("\r\n\r\ntaken"), taken, "{request}\n{answer}");
        expected += usize::from(taken);
        assert_eq!(server.taken.load(SeqCst), expected, "{request}");
    }
}

/// RFC 9112 §6.1. A head that comes whole is looked at where it was read, one that comes in pieces as it comes; one
/// that came behind another is not looked at, so that nothing behind it is taken for a request.
#[tokio::test]
async fn two_lengths_are_refused_however_the_head_comes_and_nothing_behind_them_is_a_request() {
    let server = start(ServeConfig::default()).await;
    let both =
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let behind = "GET /behind HTTP/1.1\r\nHost: x\r\n\r\n";
    let whole = exchange(&server, &format!("{both}{behind}")).await;
    assert!(whole.starts_with("HTTP/1.1 400 ") && whole.matches("HTTP/1.1 ").count() == 1, "{whole}");
    for cut in [1, 30, 50, 70, both.len() - 7] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        // Another connection reads in between.
        stream.write_all(&both.as_bytes()[..cut]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        exchange(&server, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        stream.write_all(&both.as_bytes()[cut..]).await.unwrap();
        stream.write_all(behind.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.expect("it closes").unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{cut}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{cut}: {answer}");
    }
    let first = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    for second in [both, &both.replace("Content-Length: 4\r\n", "")] {
        let answer = exchange(&server, &format!("{first}{second}{behind}")).await;
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
        assert!(
            !answer.contains("behind") && answer.to_lowercase().contains("connection: close"),
            "{answer}"
        );
    }
    let chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    let last = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = exchange(&server, &format!("{chunked}{last}")).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
}

#[tokio::test]
async fn a_get_pipelined_behind_posts_is_taken_over_after_their_answers() {
    let server = start(ServeConfig::default()).await;
    let post = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nfirst";
    let slow = "POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nsecond";
    let get = "GET /take HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = exchange(&server, &format!("{post}{slow}{get}GET /never HTTP/1.1\r\n\r\n")).await;
    let (first, second, taken) = (answer.find("first"), answer.find("second"), answer.find("taken"));
    assert!(first.is_some() && first < second && second < taken, "{answer}");
    assert!(answer.ends_with("\r\n\r\ntaken"), "what came behind is discarded: {answer}");
    assert_eq!(server.taken.load(SeqCst), 1);
}

#[tokio::test]
async fn a_client_that_sends_more_than_is_read_still_gets_its_answer() {
    let server = start(ServeConfig::default()).await;
    for framing in ["Content-Length: 16777216\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n1000000\r\n"] {
        // As simple clients do: all of the request first, then the answer.
        let mut request = format!("POST /a HTTP/1.1\r\nHost: x\r\n{framing}").into_bytes();
        request.resize(request.len() + (16 << 20), b'x');
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let sent = timeout(Duration::from_secs(20), stream.write_all(&request)).await.unwrap();
        sent.unwrap_or_else(|error| panic!("{framing:?}: {error}"));
        let mut answer = String::new();
        let read = timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await.unwrap();
        read.unwrap_or_else(|error| panic!("{framing:?}: {error}"));
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_ends_its_side_first_is_answered_where_that_is_wanted() {
    let mut config = ServeConfig::default();
    config.holds = http_edge::Holds::by(|uri| uri.path() == "/gone");
    let server = start(config).await;
    for (request, is_answered) in [
        ("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nfirst", true),
        ("POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nfirst", true),
        ("GET /big HTTP/1.1\r\nHost: x\r\n\r\n", true),
        // The handler hears that the body is incomplete, and what it says to that is told.
        ("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nfirst", true),
        ("", false),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let read = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        read.expect("the server closes").unwrap();
        assert_eq!(answer.starts_with(b"HTTP/1.1 200 OK"), is_answered, "{request:?}: {}", answer.len());
        assert!(!request.contains("/big") || answer.len() > 8 << 20);
    }
}

#[tokio::test]
async fn a_takeover_waits_until_an_unread_answer_is_written() {
    let server = start(ServeConfig::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\nGET /take HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.taken.load(SeqCst), 0, "8 MiB do not fit into the socket's buffers");
    let mut answer = Vec::new();
    timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer.iter().filter(|byte| **byte == b'x').count(), 8 << 20);
    assert!(answer.ends_with(b"\r\n\r\ntaken"));
    assert_eq!(server.taken.load(SeqCst), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_before_the_takeover_leaves_nothing() {
    let server = start(ServeConfig::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\nGET /take HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(stream);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.taken.load(SeqCst), 0);
}

#[tokio::test]
async fn http2_is_told_apart_by_its_preface() {
    let server = start(ServeConfig::default()).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://broker/a").body(Full::new(Bytes::from("hello"))).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "POST HTTP/2.0 takeover=false peer=true host=true hello");
    let request = Request::get("http://broker/take").body(Full::default()).unwrap();
    let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert!(body.starts_with(b"GET HTTP/2.0 takeover=false"));
}

#[tokio::test]
async fn a_preface_in_pieces_and_a_method_in_pieces_are_understood() {
    let server = start(ServeConfig::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for piece in ["P", "R", "OPFIND /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("PROPFIND HTTP/1.1"), "{answer}");
}

#[tokio::test]
async fn silent_clients_and_slow_heads_are_closed() {
    let mut config = ServeConfig::default();
    config.header_read_timeout = Duration::from_millis(200);
    config.idle_timeout = Duration::from_millis(600);
    let server = start(config).await;
    let done = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
    for (sent, answered) in [
        (String::new(), false),
        ("P".to_owned(), false),
        ("GET /a HTTP/1.1\r\nHost".to_owned(), false),
        (done.to_owned(), true),
        (format!("{done}GET /b HT"), true),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), true),
    ] {
        let answer = {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(sent.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.expect(&sent);
            answer
        };
        assert_eq!(!answer.is_empty(), answered, "{sent:?}");
    }
    let answer = exchange(&server, "POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nz").await;
    assert!(answer.ends_with("z"), "a handler may take longer than both timeouts: {answer}");
}

#[tokio::test]
async fn without_a_bound_on_idleness_a_connection_is_kept() {
    let mut config = ServeConfig::default();
    config.header_read_timeout = Duration::from_millis(50);
    config.idle_timeout = Duration::ZERO;
    let server = start(config).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for _ in 0..2 {
        stream.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 1024];
        let read =
            timeout(Duration::from_secs(5), stream.read(&mut answer)).await.expect("an answer").unwrap();
        assert!(
            answer[..read].starts_with(b"HTTP/1.1 200"),
            "{:?}",
            String::from_utf8_lossy(&answer[..read])
        );
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn garbage_and_long_heads_are_refused() {
    let server = start(ServeConfig::default()).await;
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(20_000));
    for (sent, status) in [("\0\u{1}\u{2}\r\n\r\n", "400"), ("GARBAGE\r\n\r\n", "400"), (&long, "431")] {
        let answer = exchange(&server, sent).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[tokio::test]
async fn shutdown_ends_idle_connections_at_once_and_busy_ones_after_their_answer() {
    let server = start(ServeConfig::default()).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.shutdown.send(true).unwrap();
    for mut stream in [idle, busy] {
        let mut answer = String::new();
        timeout(Duration::from_secs(2), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
}

#[tokio::test]
async fn many_requests_share_a_connection() {
    let server = start(ServeConfig::default()).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..50 {
        let request = Request::get("/a").header("host", "x").body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap();
    }
}

#[tokio::test]
async fn of_too_many_streams_that_are_not_read_those_that_waited_longest_are_reset() {
    let mut config = ServeConfig::default();
    config.max_stalled_bytes = 10 * (9 << 20);
    let server = start(config).await;
    for (streams, lost) in [(10, false), (15, true)] {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(32 << 10)
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let mut unread = Vec::new();
        for _ in 0..streams {
            let request = Request::get("http://x/big").body(Empty::<Bytes>::new()).unwrap();
            unread.push(sender.send_request(request).await.unwrap());
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(!connection.is_finished(), "{streams} streams");
        let request = Request::get("http://x/").body(Empty::<Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
        assert!(answer.to_bytes().starts_with(b"GET HTTP/2.0"));
        let mut whole = 0;
        for answer in unread {
            let read = timeout(Duration::from_secs(20), answer.into_body().collect()).await.expect("it ends");
            whole += usize::from(read.is_ok_and(|read| read.to_bytes().len() == 8 << 20));
        }
        assert_eq!(whole < streams, lost, "{whole} of {streams}");
        assert!(whole >= 10, "{whole} of {streams}");
    }
}

/// A thousand streams without a window, each with a writer that would fill it for ever.
#[tokio::test]
async fn a_thousand_streams_without_a_window_hold_no_more_than_one_connection_may() {
    const STREAMS: usize = 1_000;
    const PIPE: usize = 64 << 10;
    const MAX: usize = 8 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_stop, stopped) = watch::channel(false);
    let open = Arc::new(AtomicUsize::new(0));
    let writers = Arc::clone(&open);
    tokio::spawn(async move {
        let (stream, peer) = listener.accept().await.unwrap();
        let service = move |_: Request<Incoming>| {
            let open = Arc::clone(&writers);
            async move {
                let (mut io, body) = http_edge::pipe(PIPE);
                open.fetch_add(1, SeqCst);
                tokio::spawn(async move {
                    while io.write_all(&[b'x'; 4096]).await.is_ok() {}
                    open.fetch_sub(1, SeqCst);
                });
                http::Response::new(body)
            }
        };
        let mut config = ServeConfig::default();
        config.max_stalled_bytes = MAX;
        serve(stream, peer, service, config, stopped).await;
    });
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(0)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let mut unread = Vec::new();
    for _ in 0..STREAMS {
        let request = Request::get("http://x/").body(Empty::<Bytes>::new()).unwrap();
        unread.push(sender.send_request(request).await.unwrap());
    }
    let bounded = async {
        while open.load(SeqCst) * PIPE > MAX {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), bounded).await.expect("the streams beyond the bound are reset");
    tokio::time::sleep(Duration::from_millis(600)).await;
    // Of each the frame that was given counts too, and what the connection may have of it.
    assert!(open.load(SeqCst) * PIPE * 4 > MAX, "no more are reset than must be: {}", open.load(SeqCst));
    assert!(!connection.is_finished(), "the connection goes on");
}

/// Says that it is dropped.
struct Given(Option<tokio::sync::oneshot::Sender<()>>);

impl Drop for Given {
    fn drop(&mut self) {
        let _ = self.0.take().map(|told| told.send(()));
    }
}

#[tokio::test]
async fn while_a_request_is_held_nothing_is_read_and_a_client_that_leaves_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for leaves in [false, true] {
        let mut client = TcpStream::connect(address).await.unwrap();
        let stream = listener.accept().await.unwrap().0.into_std().unwrap();
        let witness = TcpStream::from_std(stream.try_clone().unwrap()).unwrap();
        let release = Arc::new(tokio::sync::Notify::new());
        let (given_up, hears) = tokio::sync::oneshot::channel();
        let given = Arc::new(parking_lot::Mutex::new(Some(Given(Some(given_up)))));
        let (began, begins) = tokio::sync::oneshot::channel();
        let began = Arc::new(parking_lot::Mutex::new(Some(began)));
        let held = Arc::clone(&release);
        let service = move |request: Request<Incoming>| {
            let (held, given, began) = (Arc::clone(&held), Arc::clone(&given), Arc::clone(&began));
            async move {
                if request.uri().path() == "/held" {
                    let _given = given.lock().take();
                    drop(read_body(request.into_body(), 10).await);
                    let _ = began.lock().take().map(|began| began.send(()));
                    held.notified().await;
                }
                http::Response::new(Body::full("done"))
            }
        };
        let (_stop, stopped) = watch::channel(false);
        let stream = TcpStream::from_std(stream).unwrap();
        tokio::spawn(serve(stream, address, service, ServeConfig::default(), stopped));
        client.write_all(b"POST /held HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}").await.unwrap();
        timeout(Duration::from_secs(5), begins).await.expect("it is answered").unwrap();
        if leaves {
            drop(client);
            timeout(Duration::from_secs(5), hears).await.expect("it is noticed").unwrap();
            continue;
        }
        let next = b"GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        client.write_all(next).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut waiting = [0; 100];
        let read = timeout(Duration::from_secs(5), witness.peek(&mut waiting)).await;
        assert_eq!(&waiting[..read.expect("it waits in the socket").unwrap()], next);
        drop(witness);
        release.notify_one();
        let mut answers = String::new();
        timeout(Duration::from_secs(5), client.read_to_string(&mut answers)).await.expect("both").unwrap();
        assert_eq!(answers.matches("\r\n\r\ndone").count(), 2, "{answers}");
    }
}

//! What responses over HTTP/2 hold for clients that do not read, over several connections: in bytes that are really there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use http_edge::{Body, ServeConfig, Stalled, serve};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

const MIB: usize = 1 << 20;
const PAGE: usize = MIB;
const MAX_TOTAL: usize = 16 * MIB;

/// Bytes of pages that are there, now and at most.
#[derive(Default)]
struct Live {
    now: AtomicUsize,
    most: AtomicUsize,
}

struct Page(Vec<u8>, Arc<Live>);

impl Page {
    fn new(live: &Arc<Live>) -> Self {
        let now = live.now.fetch_add(PAGE, SeqCst) + PAGE;
        live.most.fetch_max(now, SeqCst);
        Page(vec![b'x'; PAGE], Arc::clone(live))
    }
}

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.1.now.fetch_sub(PAGE, SeqCst);
    }
}

struct Server {
    address: SocketAddr,
    live: Arc<Live>,
    stalled: Stalled,
    _stop: watch::Sender<bool>,
}

async fn start() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_stop, stopped) = watch::channel(false);
    let (live, stalled) = (Arc::new(Live::default()), Stalled::default());
    let config = ServeConfig {
        max_stalled_total_bytes: MAX_TOTAL,
        stalled: stalled.clone(),
        ..ServeConfig::default()
    };
    let pages = Arc::clone(&live);
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let pages = Arc::clone(&pages);
            let service = move |_: Request<Incoming>| {
                let pages = Arc::clone(&pages);
                async move { http::Response::new(Body::full(Bytes::from_owner(Page::new(&pages)))) }
            };
            tokio::spawn(serve(stream, peer, service, config.clone(), stopped.clone()));
        }
    });
    Server { address, live, stalled, _stop }
}

async fn connect(server: &Server, window: u32) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .initial_connection_window_size(16 << 20)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask(sender: &mut SendRequest<Empty<Bytes>>, method: Method) -> http::Response<Incoming> {
    let request = Request::builder().method(method).uri("http://x/").body(Empty::new()).unwrap();
    timeout(Duration::from_secs(20), sender.send_request(request)).await.expect("an answer").unwrap()
}

/// The head of an answer, if the stream was not reset before it came.
async fn ask_for_much(mut sender: SendRequest<Empty<Bytes>>) -> Option<http::Response<Incoming>> {
    let request = Request::get("http://x/").body(Empty::new()).unwrap();
    timeout(Duration::from_secs(20), sender.send_request(request)).await.expect("an end").ok()
}

/// Room beside the account: what each of the two threads has just made, and has not asked for.
const BESIDE: usize = 2 * PAGE;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_nobody_reads_are_bounded_over_all_connections_as_they_are_made() {
    let server = start().await;
    let mut asked = tokio::task::JoinSet::new();
    let mut unread = Vec::new();
    for _ in 0..4 {
        let sender = connect(&server, 0).await;
        for _ in 0..40 {
            asked.spawn(ask_for_much(sender.clone()));
        }
    }
    while let Some(answer) = asked.join_next().await {
        unread.extend(answer.unwrap());
    }
    let most = server.live.most.load(SeqCst);
    assert!(most <= MAX_TOTAL + BESIDE, "{most} bytes of pages were there");
    assert!(most >= MAX_TOTAL / 2, "and no less than may be: {most}");
    assert!(server.stalled.bytes() <= MAX_TOTAL, "{} in the account", server.stalled.bytes());
    assert!(server.stalled.refused() > 0, "those that ask for most are told so");

    // One that reads is served, a page after the other, and a request that has done something gets its own answer.
    let mut reader = connect(&server, 1 << 20).await;
    let refused = server.stalled.refused();
    for method in [Method::GET, Method::POST, Method::GET, Method::GET] {
        let answer = ask(&mut reader, method).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let read = timeout(Duration::from_secs(20), answer.into_body().collect()).await.expect("its end");
        assert_eq!(read.expect("whole").to_bytes().len(), PAGE);
    }
    assert_eq!(server.stalled.refused(), refused);
    assert!(server.stalled.reset() > 0, "others have made room");
    let most = server.live.most.load(SeqCst);
    assert!(most <= MAX_TOTAL + BESIDE, "{most} bytes of pages were there");

    drop(unread);
    let gone = async {
        while server.live.now.load(SeqCst) > 0 || server.stalled.bytes() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), gone).await.expect("what nobody waits for any more is given back");
}

/// The last frame of a page is with the connection; the page must not be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_piece_of_a_page_that_is_not_read_keeps_no_page() {
    let server = start().await;
    let sender = connect(&server, u32::try_from(PAGE).unwrap() - 1).await;
    let mut unread = Vec::new();
    for _ in 0..8 {
        let answer = ask_for_much(sender.clone()).await.expect("an answer");
        unread.push(answer);
    }
    // All but a byte of each fits into the client's window.
    let given = async {
        while server.live.now.load(SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), given).await.expect("no page is kept for its last piece");
    assert_eq!((server.stalled.reset(), server.stalled.refused()), (0, 0));
}

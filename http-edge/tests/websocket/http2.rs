//! The same over HTTP/2 (RFC 8441): a stream that was opened by an extended CONNECT.

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, StatusCode, Version};
use http_edge::Stalled;

use super::*;

/// A client that lets the server send so much of one stream before it has read it.
async fn connect(address: std::net::SocketAddr, window: u32) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(1 << 24);
    let (client, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    // The server's settings come with its first answer at the latest.
    let ping = Request::get("http://x/").body(()).unwrap();
    timeout(SOON, client.send_request(ping, true).unwrap().0).await.unwrap().unwrap();
    assert!(client.is_extended_connect_protocol_enabled());
    client
}

fn opening(path: &str, protocol: Option<&'static str>) -> Request<()> {
    let target = if protocol.is_some() { format!("http://x{path}") } else { "x:80".to_owned() };
    let mut request = Request::builder().method(Method::CONNECT).version(Version::HTTP_2).uri(target);
    if let Some(protocol) = protocol {
        request = request.extension(Protocol::from_static(protocol));
    }
    request.header("sec-websocket-version", "13").body(()).unwrap()
}

struct Client {
    /// What came and was not looked at.
    come: Vec<u8>,
    reads: RecvStream,
    writes: SendStream<Bytes>,
}

impl Client {
    async fn open(connection: &SendRequest<Bytes>, path: &str) -> (Self, HeaderMap) {
        let mut request = opening(path, Some("websocket"));
        request.headers_mut().insert("sec-websocket-protocol", "other, echo".parse().unwrap());
        let mut connection = connection.clone().ready().await.unwrap();
        let (answer, writes) = connection.send_request(request, false).unwrap();
        let answer = timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let (parts, reads) = answer.into_parts();
        (Client { come: Vec::new(), reads, writes }, parts.headers)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.writes.send_data(Bytes::copy_from_slice(bytes), false).unwrap();
    }

    async fn expect(&mut self, frame: &[u8]) {
        while self.come.len() < frame.len() {
            let data = timeout(SOON, self.reads.data()).await.expect("a frame should have come");
            let data = data.expect("the stream goes on").unwrap();
            self.reads.flow_control().release_capacity(data.len()).unwrap();
            self.come.extend_from_slice(&data);
        }
        assert_eq!(self.come.drain(..frame.len()).as_slice(), frame);
    }

    async fn expect_end(&mut self) {
        assert!(self.come.is_empty());
        while let Some(data) = timeout(SOON, self.reads.data()).await.expect("it should have ended") {
            assert!(data.unwrap().is_empty());
        }
    }
}

#[tokio::test]
async fn a_stream_is_a_websocket_from_its_200_to_its_last_frame() {
    let (address, _server, mut story) = start(Terms::default(), None).await;
    let connection = connect(address, 1 << 20).await;
    let (mut client, head) = Client::open(&connection, "/").await;
    assert_eq!(head["sec-websocket-protocol"], "echo");
    for absent in ["upgrade", "connection", "sec-websocket-accept", "content-length"] {
        assert!(!head.contains_key(absent), "{absent}");
    }
    let (mut other, _) = Client::open(&connection, "/").await;
    for byte in [frame(0x81, b"one"), frame(0x89, b"?"), frame(0x01, b"t"), frame(0x80, b"wo")].concat() {
        client.send(&[byte]);
    }
    for answer in [&b"\x81\x03one"[..], b"\x8a\x01?", b"\x81\x03two"] {
        client.expect(answer).await;
    }
    assert_eq!(next(&mut story).await, "Text(b\"one\")");
    assert_eq!(next(&mut story).await, "Text(b\"two\")");
    // A message of many pieces, both ways.
    let long = vec![b'x'; 60_000];
    client.send(&frame(0x81, &long));
    client.expect(&encode::frame(encode::TEXT, &long)).await;
    next(&mut story).await;
    client.send(&frame(0x88, &[3, 233, b'b', b'y', b'e']));
    client.expect(&encode::close(CloseCode::Away, "")).await;
    client.expect_end().await;
    let left = Ending::Left { code: Some(CloseCode::Away), reason: "bye".into() };
    assert_eq!(next(&mut story).await, ended(left));
    other.send(&frame(0x81, b"still here"));
    other.expect(b"\x81\x0astill here").await;
}

#[tokio::test]
async fn what_opens_no_websocket_is_refused_and_the_connection_goes_on() {
    let (address, ..) = start(Terms::default(), None).await;
    let connection = connect(address, 1 << 20).await;
    let mut old = opening("/", Some("websocket"));
    old.headers_mut().insert("sec-websocket-version", "8".parse().unwrap());
    let mut get = opening("/", Some("websocket"));
    *get.method_mut() = Method::GET;
    get.extensions_mut().clear();
    for (request, status, code) in [
        (opening("/", Some("webtransport")), 501, "protocol_not_supported"),
        (opening("/", None), 501, "protocol_not_supported"),
        (old, 400, "invalid_handshake"),
        (get, 426, "upgrade_required"),
    ] {
        let mut connection = connection.clone().ready().await.unwrap();
        let is_old = request.headers()["sec-websocket-version"] == "8";
        let answer = connection.send_request(request, true).unwrap().0;
        let answer = timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), status, "{code}");
        assert!(!is_old || answer.headers()["sec-websocket-version"] == "13");
        let mut body = answer.into_body();
        let body = timeout(SOON, body.data()).await.unwrap().unwrap().unwrap();
        let body = String::from_utf8_lossy(&body);
        assert!(body.contains(&format!("\"code\":\"{code}\"")), "{body}");
    }
    Client::open(&connection, "/").await;
}

#[tokio::test]
async fn a_stream_that_is_reset_or_ended_without_a_word_is_gone() {
    let (address, _server, mut story) = start(Terms::default(), None).await;
    let connection = connect(address, 1 << 20).await;
    for reason in [Some(Reason::CANCEL), Some(Reason::INTERNAL_ERROR), None] {
        let (mut client, _) = Client::open(&connection, "/").await;
        client.send(&frame(0x81, b"x"));
        client.expect(b"\x81\x01x").await;
        assert_eq!(next(&mut story).await, "Text(b\"x\")");
        match reason {
            Some(reason) => client.writes.send_reset(reason),
            None => client.writes.send_data(Bytes::new(), true).unwrap(),
        }
        assert_eq!(next(&mut story).await, ended(Ending::Gone), "{reason:?}");
    }
}

#[tokio::test]
async fn a_connection_with_nothing_but_a_silent_websocket_is_not_idle() {
    let mut config = ServeConfig::default();
    config.header_read_timeout = Duration::from_millis(50);
    config.idle_timeout = Duration::from_millis(100);
    let (address, _server, _story) = start_with(Terms::default(), None, config).await;
    let connection = connect(address, 1 << 20).await;
    let (mut client, _) = Client::open(&connection, "/").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.send(&frame(0x81, b"x"));
    client.expect(b"\x81\x01x").await;
    // Without it the connection ends.
    client.send(&frame(0x88, &[]));
    drop(client);
    timeout(SOON, async {
        while connection.clone().ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("an idle connection ends");
}

#[tokio::test]
async fn clients_that_do_not_read_are_reset_beyond_the_bound_and_hold_up_nobody_else() {
    const FRAME: usize = 50_000;
    let stalled = Stalled::default();
    let mut config = ServeConfig::default();
    config.max_stalled_bytes = 8 * FRAME;
    config.stalled = stalled.clone();
    let (address, server, mut story) = start_with(Terms::default(), None, config).await;
    let connection = connect(address, 1_000).await;
    let (mut reader, _) = Client::open(&connection, "/").await;
    reader.send(&frame(0x81, b"reader"));
    reader.expect(b"\x81\x06reader").await;
    next(&mut story).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        let (mut client, _) = Client::open(&connection, "/").await;
        // What it does not take waits in the outbox.
        client.send(&frame(0x81, &[b'x'; FRAME]));
        silent.push(client);
        reader.send(&frame(0x81, b"?"));
        reader.expect(b"\x81\x01?").await;
    }
    let reset = async {
        while stalled.reset() < 11 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, reset).await.expect("those beyond the bound are reset");
    let mut gone = 0;
    while gone < 11 {
        gone += usize::from(next(&mut story).await == ended(Ending::Gone));
    }
    assert!(stalled.reset() <= 13, "no more than must be: {}", stalled.reset());
    assert!(server.outboxes.lock().unwrap().len() > 20);
    reader.send(&frame(0x81, b"!"));
    reader.expect(b"\x81\x01!").await;
}

#[tokio::test]
async fn streams_that_nobody_reads_leave_the_others_their_window() {
    let (address, server, mut story) = start(Terms::default(), None).await;
    let connection = connect(address, 1 << 20).await;
    let mut unread = Vec::new();
    for _ in 0..30 {
        let (mut client, _) = Client::open(&connection, "/unread").await;
        client.send(&[0; 256 << 10]);
        unread.push(client);
    }
    let (mut client, _) = Client::open(&connection, "/").await;
    client.send(&frame(0x81, b"x"));
    client.expect(b"\x81\x01x").await;
    assert_eq!(next(&mut story).await, "Text(b\"x\")");
    assert_eq!(server.unread.lock().unwrap().len(), 30);
}

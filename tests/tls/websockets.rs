//! WebSockets over HTTP/2 (RFC 8441), inside of TLS and without.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::served::Secured;
use crate::support::http2::{Http2, Tunnel, opening};
use crate::support::mqtt::connect_packet;
use crate::support::tls::Asking;
use crate::support::within;

/// A server that speaks both, and a connection to it inside of TLS and one without.
async fn started(rest: &str) -> (Secured, [Http2; 2]) {
    let it = Secured::start(&format!("[http]\ntls = \"optional\"\n{rest}")).await;
    let asking = Asking { protocols: &["h2"], ..Asking::default() };
    let to = it.server.https.expect("TLS is spoken");
    let stream = it.authority.connect(to, asking).await.expect("connected");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let secured = Http2::over(stream, &it.url("")).await;
    let plain = Http2::plain(it.server.http).await;
    (it, [secured, plain])
}

async fn next(socket: &mut Tunnel) -> Message {
    within(socket.next()).await.expect("the socket lives").expect("a frame")
}

async fn say(socket: &mut Tunnel, message: Value) {
    within(socket.send(Message::text(json!([message]).to_string()))).await.expect("written");
}

/// A Bayeux session that is subscribed.
async fn bayeux(connection: &Http2, channel: &str) -> (Tunnel, String) {
    let (mut socket, head) = connection.open("/cometd", &[]).await.expect("a WebSocket");
    let of_other_answers = ["access-control-allow-origin", "cache-control", "x-content-type-options"];
    for absent in ["upgrade", "connection", "sec-websocket-accept"].into_iter().chain(of_other_answers) {
        assert!(!head.contains_key(absent), "{absent}");
    }
    assert!(head.contains_key("x-request-id"));
    let heard = async |socket: &mut Tunnel| -> Value {
        let Message::Text(text) = next(socket).await else { panic!("no text") };
        serde_json::from_str::<Value>(&text).expect("JSON")[0].take()
    };
    let shake =
        json!({"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["websocket"]});
    say(&mut socket, shake).await;
    let reply = heard(&mut socket).await;
    assert_eq!(reply["successful"], true, "{reply}");
    let id = reply["clientId"].as_str().expect("a clientId").to_owned();
    say(&mut socket, json!({"channel": "/meta/subscribe", "clientId": id, "subscription": channel})).await;
    let reply = heard(&mut socket).await;
    assert_eq!(reply["successful"], true, "{reply}");
    (socket, id)
}

/// An MQTT client that is subscribed to `t`.
async fn mqtt(connection: &Http2, id: &str) -> Tunnel {
    let offer = [("sec-websocket-protocol", "mqtt")];
    let (mut socket, head) = connection.open("/mqtt", &offer).await.expect("a WebSocket");
    assert_eq!(head["sec-websocket-protocol"], "mqtt");
    let mut bytes = connect_packet(id);
    bytes.extend_from_slice(b"\x82\x06\x00\x01\x00\x01t\x00");
    for piece in bytes.chunks(3) {
        within(socket.send(Message::binary(piece.to_vec()))).await.expect("written");
    }
    let expected = b"\x20\x02\x00\x00\x90\x03\x00\x01\x00";
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        seen.extend_from_slice(&next(&mut socket).await.into_data());
    }
    assert_eq!(seen, expected);
    socket
}

#[tokio::test]
async fn both_fronts_speak_websocket_on_streams_of_one_connection() {
    let (it, connections) = started("").await;
    for (connection, scheme) in connections.iter().zip(["https", "http"]) {
        let (mut comet, _) = bayeux(connection, "/t").await;
        let mut client = mqtt(connection, scheme).await;
        let (status, said) = connection.send("POST", "/v1/publish/t", "\"hello\"").await;
        assert_eq!(status, 200, "{said}");
        let Message::Text(event) = next(&mut comet).await else { panic!("no text") };
        assert!(event.contains("\"data\":\"hello\""), "{event}");
        let packet = next(&mut client).await.into_data();
        assert!(packet.ends_with(b"\"hello\""), "{packet:?}");
        // A frame of the protocol's own, and the end.
        for socket in [&mut comet, &mut client] {
            within(socket.send(Message::Ping(Bytes::from_static(b"?")))).await.expect("written");
            assert_eq!(next(socket).await, Message::Pong(Bytes::from_static(b"?")));
            let frame = CloseFrame { code: CloseCode::Normal, reason: "bye".into() };
            within(socket.close(Some(frame))).await.expect("written");
            let Message::Close(Some(frame)) = next(socket).await else { panic!("no close") };
            assert_eq!(frame.code, CloseCode::Normal);
            assert!(!matches!(within(socket.next()).await, Some(Ok(_))), "nothing comes behind it");
        }
    }
    let metrics = it.curl(&[&it.url("/metrics")]).await;
    assert!(metrics.contains("fanwire_clients_joined_total{protocol=\"mqtt\"} 2\n"), "{metrics}");
}

#[tokio::test]
async fn what_is_refused_over_http1_is_refused_over_http2() {
    let (it, connections) = started("").await;
    let same = it.url("");
    for (connection, base) in connections.iter().zip([same, format!("http://{}", it.server.http)]) {
        let page = [("origin", "https://evil.example")];
        let other = [("sec-websocket-protocol", "chat")];
        for (target, headers, status) in [
            ("/cometd", &page[..], 403),
            ("/mqtt", &page, 403),
            ("/mqtt", &other, 400),
            ("/sse/a", &[], 405),
            ("/v1/publish/a", &[], 405),
            ("/v1/history/a", &[], 405),
            ("/healthz", &[], 405),
            ("/metrics", &[], 405),
            ("/nowhere", &[], 404),
            ("/", &[], 405),
        ] {
            let refused = connection.open(target, headers).await.map(drop);
            let (found, said) = refused.expect_err(target);
            assert_eq!(found, status, "{target} {said}");
        }
        for target in ["/mqtt", "/nowhere"] {
            let answer = connection.ask(opening(&format!("{base}{target}"), "webtransport", &[])).await;
            assert_eq!(answer.status(), 501, "{target}");
        }
        // A page of the same origin may.
        let own = [("origin", base.as_str())];
        connection.open("/cometd", &own).await.expect("a WebSocket");
    }
    let refusing = Http2::plain(it.server.http).await;
    let answer = refusing.ask(opening("http://evil.example/mqtt", "websocket", &[])).await;
    assert_eq!(answer.status(), 421);
}

#[tokio::test]
async fn compression_is_agreed_on_as_over_http1() {
    let (_it, [connection, _]) = started("").await;
    let offer = [("sec-websocket-extensions", "permessage-deflate; client_max_window_bits")];
    let (_socket, head) = connection.open("/cometd", &offer).await.expect("a WebSocket");
    let agreed = head["sec-websocket-extensions"].to_str().expect("text");
    assert!(agreed.starts_with("permessage-deflate"), "{agreed}");
}

#[tokio::test]
async fn a_stream_that_is_reset_ends_its_session_with_a_reason_and_no_other() {
    let (it, [connection, _]) = started("").await;
    let (comet, _) = bayeux(&connection, "/t").await;
    let client = mqtt(&connection, "lost").await;
    let mut stays = mqtt(&connection, "stays").await;
    // Dropped without a word: their streams are cancelled.
    drop((comet, client));
    let wanted = "fanwire_clients_left_total{protocol=\"mqtt\",reason=\"lost\"} 1\n";
    within(async { while !it.curl(&[&it.url("/metrics")]).await.contains(wanted) {} }).await;
    within(async {
        while !it.curl(&[&it.url("/metrics")]).await.contains("fanwire_bayeux_websockets 0\n") {}
    })
    .await;
    connection.send("POST", "/v1/publish/t", "1").await;
    assert!(next(&mut stays).await.into_data().ends_with(b"1"));
}

#[tokio::test]
async fn a_websocket_that_is_not_read_holds_up_no_other_stream() {
    let (it, connections) = started("").await;
    for connection in &connections {
        let _comet = bayeux(connection, "/slow").await;
        let mut other = mqtt(connection, "other").await;
        let large = format!("\"{}\"", "x".repeat(40_000));
        for _ in 0..3 {
            let (status, said) = connection.send("POST", "/v1/publish/slow", &large).await;
            assert_eq!(status, 200, "{said}");
        }
        assert_eq!(connection.send("POST", "/v1/publish/t", "1").await.0, 200);
        assert!(next(&mut other).await.into_data().ends_with(b"1"));
    }
    drop(it);
}

/// A function behind an emulator of Lambda's Invoke API: says yes to all, and tells of each event.
async fn function() -> (std::net::SocketAddr, mpsc::UnboundedReceiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (tell, told) = mpsc::unbounded_channel();
    // It ends with the test's runtime.
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                loop {
                    let (mut line, mut length) = (String::new(), 0);
                    while stream.read_line(&mut line).await.is_ok_and(|read| read > 2) {
                        if let Some((name, value)) = line.trim_end().split_once(": ")
                            && name.eq_ignore_ascii_case("content-length")
                        {
                            length = value.parse().expect("a number");
                        }
                        line.clear();
                    }
                    let mut body = vec![0; length];
                    if length == 0 || stream.read_exact(&mut body).await.is_err() {
                        return;
                    }
                    let said = b"HTTP/1.1 200 OK\r\ncontent-length: 18\r\n\r\n{\"statusCode\":200}";
                    _ = tell.send(serde_json::from_slice(&body).expect("JSON"));
                    if stream.write_all(said).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, told)
}

#[tokio::test]
async fn a_function_sees_the_authority_of_http2_as_host_and_domain_name() {
    let (address, mut told) = function().await;
    let gateway = format!(
        "[[gateway.aws]]\nname = \"chat\"\npath = \"/chat/dev\"\nroute_selection = \"$request.body.action\"\n\
         integrations.main = {{ kind = \"lambda\", url = \"http://{address}/x\" }}\n\
         routes.\"$connect\" = {{ integration = \"main\" }}\nroutes.\"$default\" = {{ integration = \"main\" }}\n"
    );
    let (it, [secured, plain]) = started(&gateway).await;
    let authorities = [it.url("").trim_start_matches("https://").to_owned(), it.server.http.to_string()];
    for (connection, authority) in [&secured, &plain].into_iter().zip(authorities) {
        let (mut socket, _) = connection.open("/chat/dev?a=b", &[("x-own", "1")]).await.expect("a WebSocket");
        let event = within(told.recv()).await.expect("$connect");
        let context = &event["requestContext"];
        assert_eq!((&context["eventType"], &context["domainName"]), (&json!("CONNECT"), &json!(authority)));
        assert_eq!(event["headers"]["Host"], authority, "{event}");
        assert_eq!(event["multiValueHeaders"]["Host"], json!([authority]), "{event}");
        let names = event["headers"].as_object().expect("an object").keys();
        assert!(names.clone().all(|name| !name.starts_with(':')), "{event}");
        assert_eq!((&event["headers"]["x-own"], &context["stage"]), (&json!("1"), &json!("chat/dev")));
        say(&mut socket, json!({"action": "x"})).await;
        let event = within(told.recv()).await.expect("a message");
        assert_eq!(event["requestContext"]["domainName"], authority, "{event}");
    }
}

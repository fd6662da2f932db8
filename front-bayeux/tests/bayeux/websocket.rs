use futures_util::SinkExt;
use serde_json::json;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::{Http, Server, last, ms, quick};

#[tokio::test]
async fn events_are_pushed_without_ending_the_connect() {
    let mut config = quick();
    config.timing = Default::default();
    let server = Server::start(config).await;
    let mut socket = server.socket_session(json!({})).await;
    socket.subscribe("/a").await;
    socket.send(json!([{"channel": "/meta/connect", "clientId": socket.id, "id": "c"}])).await;
    for number in 0..3 {
        server.publish("a", &number.to_string());
        assert_eq!(socket.receive().await, [json!({"channel": "/a", "data": number})]);
    }
    socket.silent(ms(100)).await;
}

#[tokio::test]
async fn a_held_connect_is_answered_when_its_time_is_over() {
    let server = Server::start(quick()).await;
    let mut socket = server.socket_session(json!({})).await;
    let begun = std::time::Instant::now();
    socket.send(json!([{"channel": "/meta/connect", "clientId": socket.id, "id": "c"}])).await;
    assert_eq!(socket.receive().await, [json!({"channel": "/meta/connect", "id": "c", "successful": true})]);
    assert!((ms(290)..ms(2000)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_batch_is_answered_in_one_frame() {
    let server = Server::start(quick()).await;
    let mut socket = server.socket_session(json!({})).await;
    let id = socket.id.clone();
    socket
        .send(json!([{"channel": "/a", "clientId": id, "data": 1, "id": "1"},
            {"channel": "/a/*", "clientId": id, "data": 1, "id": "2"},
            {"channel": "/meta/subscribe", "clientId": id, "subscription": "/x", "id": "3"}]))
        .await;
    let ids: Vec<_> = socket.receive().await.iter().map(|reply| reply["id"].clone()).collect();
    assert_eq!(ids, ["1", "2", "3"]);
}

#[tokio::test]
async fn a_session_goes_on_over_a_new_socket() {
    let server = Server::start(quick()).await;
    let mut old = server.socket_session(json!({})).await;
    old.subscribe("/a").await;
    let id = old.id.clone();
    drop(old);
    tokio::time::sleep(ms(100)).await;
    server.publish("a", "1");
    server.broker.drained().await;
    let mut socket = server.socket().await;
    socket.id = id;
    socket.send(json!([{"channel": "/meta/connect", "clientId": socket.id, "id": "c"}])).await;
    assert_eq!(socket.receive().await, [json!({"channel": "/a", "data": 1})]);
    server.publish("a", "2");
    assert_eq!(socket.receive().await, [json!({"channel": "/a", "data": 2})]);
    assert_eq!(last(&socket.receive().await)["id"], "c");
}

#[tokio::test]
async fn a_handshake_per_socket_may_be_required() {
    let mut config = quick();
    config.websocket.require_handshake_per_connection = true;
    let server = Server::start(config).await;
    let first = server.socket_session(json!({})).await;
    let mut second = server.socket().await;
    second.send(json!([{"channel": "/meta/connect", "clientId": first.id}])).await;
    assert_eq!(last(&second.receive().await)["error"], "402::session_unknown");
}

#[tokio::test]
async fn a_socket_is_bound_to_its_session() {
    let server = Server::start(quick()).await;
    let mut first = server.socket_session(json!({})).await;
    let second = server.socket_session(json!({})).await;
    first.send(json!([{"channel": "/a", "clientId": second.id, "data": 1}])).await;
    assert_eq!(last(&first.receive().await)["error"], "402::session_unknown");
}

#[tokio::test]
async fn a_second_handshake_on_a_socket_makes_a_new_session() {
    let server = Server::start(quick()).await;
    let mut socket = server.socket_session(json!({})).await;
    socket.subscribe("/a").await;
    let old = socket.id.clone();
    socket.handshake(json!({})).await;
    assert_ne!(socket.id, old);
    socket.subscribe("/b").await;
    server.publish("a", "1");
    server.publish("b", "2");
    assert_eq!(socket.receive().await, [json!({"channel": "/b", "data": 2})]);
    socket.send(json!([{"channel": "/meta/connect", "clientId": socket.id}])).await;
    assert_eq!(last(&socket.receive().await)["successful"], true);
}

#[tokio::test]
async fn disconnect_is_answered_and_frees_the_socket_for_another_session() {
    let mut config = quick();
    config.timing = Default::default();
    let server = Server::start(config).await;
    let mut socket = server.socket_session(json!({})).await;
    socket.send(json!([{"channel": "/meta/connect", "clientId": socket.id, "id": "c"}])).await;
    tokio::time::sleep(ms(50)).await;
    socket.send(json!([{"channel": "/meta/disconnect", "clientId": socket.id, "id": "d"}])).await;
    let held = socket.receive().await;
    assert_eq!((&held[0]["id"], &held[0]["advice"]["reconnect"]), (&json!("c"), &json!("none")));
    assert_eq!(
        socket.receive().await,
        [json!({"channel": "/meta/disconnect", "id": "d", "successful": true})]
    );
    socket.handshake(json!({})).await;
    socket.subscribe("/a").await;
    server.publish("a", "1");
    assert_eq!(socket.receive().await, [json!({"channel": "/a", "data": 1})]);
}

#[tokio::test]
async fn the_server_can_end_a_session_over_its_socket() {
    let mut config = quick();
    config.timing = Default::default();
    let server = Server::start(config).await;
    let mut socket = server.socket_session(json!({})).await;
    socket.send(json!([{"channel": "/meta/connect", "clientId": socket.id}])).await;
    tokio::time::sleep(ms(50)).await;
    server.front.disconnect(&front_bayeux::ClientId::parse(&socket.id).unwrap());
    assert_eq!(socket.receive().await, [json!({"channel": "/meta/disconnect", "successful": true})]);
    assert_eq!(socket.receive().await[0]["advice"]["reconnect"], "none");
    assert!(
        matches!(socket.frame().await, tokio_tungstenite::tungstenite::Message::Close(Some(_))),
        "and the socket with it"
    );
}

#[tokio::test]
async fn a_client_is_told_why_an_operator_ends_its_session() {
    let mut config = quick();
    config.timing = Default::default();
    let server = Server::start(config).await;
    let mut socket = server.socket_session(json!({})).await;
    socket.send(json!([{"channel": "/meta/connect", "clientId": socket.id}])).await;
    let poller = server.poller().await;
    let held = poller.hold();
    tokio::time::sleep(ms(50)).await;
    for (_, connection) in server.broker.connections(None, 10) {
        connection.close(&broker_core::CloseCause::Administrative(Some("moved: \"b\"".to_owned())));
    }
    let goodbye = json!({"channel": "/meta/disconnect", "successful": true, "error": "403::moved: \"b\""});
    assert_eq!(socket.receive().await, std::slice::from_ref(&goodbye));
    assert_eq!(socket.receive().await[0]["advice"]["reconnect"], "none");
    match socket.frame().await {
        tokio_tungstenite::tungstenite::Message::Close(Some(close)) => {
            assert_eq!(close.reason.as_str(), "moved: \"b\"");
        }
        other => panic!("{other:?}"),
    }
    let told = held.await.unwrap();
    assert_eq!((&told[0], &told[1]["advice"]["reconnect"]), (&goodbye, &json!("none")));
}

#[tokio::test]
async fn from_long_polling_to_websocket_and_back() {
    let mut config = quick();
    config.timing = Default::default();
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    poller.subscribe("/a").await;
    let held = poller.hold();
    tokio::time::sleep(ms(50)).await;
    let mut socket = server.socket().await;
    socket.id = poller.id.clone();
    socket.send(json!([{"channel": "/meta/connect", "clientId": socket.id, "advice": {"timeout": 0}}])).await;
    let reply = socket.receive().await;
    assert_eq!(last(&reply)["advice"]["reconnect"], "retry", "the transport changed");
    assert!(held.await.is_err(), "the older connect ended with an error status");
    server.publish("a", "1");
    assert_eq!(socket.receive().await, [json!({"channel": "/a", "data": 1})]);
    let held = poller.hold();
    tokio::time::sleep(ms(50)).await;
    server.publish("a", "2");
    assert_eq!(held.await.unwrap()[0]["data"], 2);
    socket.silent(ms(50)).await;
}

#[tokio::test]
async fn broken_frames_close_with_their_codes() {
    let mut config = quick();
    config.websocket.max_message_bytes = 1000;
    let server = Server::start(config).await;
    let deep = "[".repeat(900);
    for (frame, code) in [
        (Message::text("{"), 1011),
        (Message::text("5"), 1011),
        (Message::text(""), 1011),
        (Message::text(deep), 1011),
        (Message::binary(vec![1]), 1003),
        (Message::text(" ".repeat(1001)), 1009),
    ] {
        let mut socket = server.socket().await;
        socket.stream.send(frame.clone()).await.unwrap();
        assert_eq!(socket.close_code().await, code, "{frame:?}");
    }
    let mut socket = server.socket().await;
    socket.stream.send(Message::Ping("x".into())).await.unwrap();
    assert_eq!(socket.frame().await, Message::Pong("x".into()));
    socket.stream.close(None).await.unwrap();
    assert_eq!(socket.close_code().await, 1005);
}

#[tokio::test]
async fn a_sub_protocol_may_be_required() {
    let mut config = quick();
    config.websocket.protocol = Some("cometd".into());
    let server = Server::start(config).await;
    let url = format!("ws://{}/cometd/x", server.address);
    assert!(connect_async(&url).await.is_err());
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "other, cometd".parse().unwrap());
    let (_, response) = connect_async(request).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "cometd");
}

#[tokio::test]
async fn an_idle_socket_is_closed() {
    let mut config = quick();
    config.websocket.idle_timeout = ms(100);
    let server = Server::start(config).await;
    assert_eq!(server.socket().await.close_code().await, 1000);
}

#[tokio::test]
async fn long_events_are_deflated_for_who_asked() {
    let server = Server::start(quick()).await;
    let mut http = Http::open(server.address).await;
    http.write(
        b"GET /cometd HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
          Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
    )
    .await;
    let answer = http.read().await;
    assert_eq!(answer.status, 101);
    assert_eq!(
        answer.header("sec-websocket-extensions"),
        Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover")
    );
    let send = |text: String| {
        let mut frame = vec![0x81, 0xfe];
        frame.extend((text.len() as u16).to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(format!("{text:126}").bytes());
        frame
    };
    let handshake = json!([{"channel": "/meta/handshake", "supportedConnectionTypes": ["websocket"], "id": "1",
        "ext": {"padding": "x".repeat(100)}}]);
    http.write(&send(handshake.to_string())).await;
    let (_, reply) = http.read_frame().await;
    let id = reply.split("\"clientId\":\"").nth(1).unwrap()[..32].to_owned();
    let subscribe = json!([{"channel": "/meta/subscribe", "clientId": id, "subscription": "/a", "ext": {"p": "x".repeat(100)}}]);
    http.write(&send(subscribe.to_string())).await;
    http.read_frame().await;
    server.publish("a", "1");
    assert_eq!(http.read_frame().await.0, 0x81, "short ones are not compressed");
    server.publish("a", &format!("\"{}\"", "y".repeat(1000)));
    let (first, _) = http.read_frame().await;
    assert_eq!(first, 0xc1);
}

#[tokio::test]
async fn events_and_their_order_survive_a_burst() {
    let server = Server::start(quick()).await;
    let mut socket = server.socket_session(json!({})).await;
    socket.subscribe("/a").await;
    for number in 0..2000 {
        server.publish("a", &number.to_string());
    }
    for number in 0..2000 {
        assert_eq!(socket.receive().await[0]["data"], number);
    }
}

#[tokio::test]
async fn what_a_dead_socket_did_not_take_goes_to_the_next_one() {
    let mut config = quick();
    config.timing.max_interval = ms(20_000);
    let server = Server::start(config).await;
    let mut old = server.socket_session(json!({})).await;
    old.subscribe("/a").await;
    let id = old.id.clone();
    let pad = "x".repeat(1000);
    // More than the kernel's buffers hold, less than the queue's limit.
    for number in 0..3000 {
        server.publish("a", &format!("{{\"n\":{number},\"pad\":\"{pad}\"}}"));
    }
    server.broker.drained().await;
    old.half_close().await;
    tokio::time::sleep(ms(100)).await;
    server.publish("a", "{\"n\":3000}");
    server.broker.drained().await;
    let mut socket = server.socket().await;
    socket.id = id;
    socket.send(json!([{"channel": "/meta/connect", "clientId": socket.id, "advice": {"timeout": 0}}])).await;
    let mut numbers = Vec::new();
    loop {
        let frame = socket.receive().await;
        if frame[0]["channel"] == "/meta/connect" {
            break;
        }
        numbers.extend(frame.iter().map(|event| event["data"]["n"].as_u64().unwrap()));
    }
    assert_eq!(numbers.last(), Some(&3000));
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a hole");
}

#[tokio::test]
async fn who_does_not_read_loses_the_session_and_is_told() {
    let mut config = quick();
    config.max_queue_messages = 500;
    config.timing.max_interval = ms(10_000);
    let server = Server::start(config).await;
    let mut socket = server.socket_session(json!({})).await;
    socket.subscribe("/a").await;
    let pad = format!("\"{}\"", "x".repeat(10_000));
    for _ in 0..1500 {
        server.publish("a", &pad);
        server.broker.drained().await;
    }
    tokio::time::sleep(ms(50)).await;
    let mut second = server.socket().await;
    second.send(json!([{"channel": "/meta/connect", "clientId": socket.id}])).await;
    let reply = second.receive().await;
    assert_eq!(last(&reply)["error"], "402:queue_full:session_unknown");
    assert_eq!(last(&reply)["advice"]["reconnect"], "handshake");
}

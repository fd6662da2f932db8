//! What no client would send.

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::bayeux::Socket;
use crate::support::http::{get, post_json};
use crate::support::{TestServer, within};

#[tokio::test]
async fn what_is_no_message_is_400() {
    let server = TestServer::start().await;
    let deep = "[".repeat(200_000);
    for body in ["", "{", "nonsense", "[1]", "[[]]", "\u{0}\u{1}", deep.as_str()] {
        let answer = post_json(server.http, "/cometd", body.to_owned()).await;
        assert_eq!(answer.status, 400, "{:.20}: {answer:?}", body);
    }
    Socket::handshake(server.http).await;
}

#[tokio::test]
async fn a_hundred_megabytes_are_413() {
    let server = TestServer::start().await;
    let mut stream = TcpStream::connect(server.http).await.expect("the server listens");
    let head = "POST /cometd HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 104857600\r\n\r\n[";
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut answer = [0; 12];
    within(tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answer)).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn frames_that_are_no_messages_close_the_socket() {
    let server = TestServer::start().await;
    for frame in
        [Message::text("nonsense"), Message::binary(vec![0xff; 10]), Message::text("[".repeat(200_000))]
    {
        let mut socket = Socket::handshake(server.http).await;
        within(socket.socket.send(frame)).await.expect("written");
        within(async {
            loop {
                match socket.socket.next().await {
                    None | Some(Err(_) | Ok(Message::Close(_))) => break,
                    // An answer in Bayeux terms before the close is as good.
                    Some(Ok(_)) => {}
                }
            }
        })
        .await;
    }
    assert_eq!(get(server.http, "/healthz").await.status, 200);
}

#[tokio::test]
async fn a_client_id_that_is_none_is_told_to_shake_hands() {
    let server = TestServer::start().await;
    let connect =
        json!([{"channel": "/meta/connect", "clientId": "nobody", "connectionType": "long-polling"}]);
    let answer = post_json(server.http, "/cometd", connect.to_string()).await.json();
    assert_eq!(answer[0]["successful"], false);
    assert_eq!(answer[0]["advice"]["reconnect"], "handshake", "{answer}");
}

#[tokio::test]
async fn a_killed_socket_is_forgotten() {
    let server = TestServer::with(|config| {
        config.bayeux.timing.max_interval = std::time::Duration::from_millis(300);
        config.bayeux.sweep_period = std::time::Duration::from_millis(50);
    })
    .await;
    let mut socket = Socket::handshake(server.http).await;
    socket.subscribe("/a").await;
    drop(socket);
    server.wait_for_subscriptions(0).await;
}

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::mqtt::connect_packet;
use crate::support::{TestServer, within};

#[tokio::test]
async fn packets_travel_in_binary_frames_cut_anywhere() {
    let server = TestServer::start().await;
    let mut request = format!("ws://{}/mqtt", server.http).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "mqtt".parse().unwrap());
    let (mut socket, answer) = within(tokio_tungstenite::connect_async(request)).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "mqtt");
    let mut bytes = connect_packet("ws");
    bytes.extend_from_slice(b"\x82\x06\x00\x01\x00\x01t\x00");
    for piece in bytes.chunks(3) {
        within(socket.send(Message::binary(piece.to_vec()))).await.unwrap();
    }
    server.wait_for_subscriptions(1).await;
    server.publish("t", "hello");
    let mut seen = Vec::new();
    while !seen.ends_with(b"hello") {
        match within(socket.next()).await.unwrap().unwrap() {
            Message::Binary(bytes) => seen.extend_from_slice(&bytes),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, b"\x20\x02\x00\x00\x90\x03\x00\x01\x00\x30\x08\x00\x01thello");
}

#[tokio::test]
async fn text_frames_are_not_mqtt() {
    let server = TestServer::start().await;
    let mut request = format!("ws://{}/mqtt", server.http).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "mqtt".parse().unwrap());
    let (mut socket, _) = within(tokio_tungstenite::connect_async(request)).await.unwrap();
    within(socket.send(Message::text("hello"))).await.unwrap();
    match within(socket.next()).await {
        None
        | Some(Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::Protocol(_) | Error::Io(_))) => {}
        other => panic!("{other:?}"),
    }
}

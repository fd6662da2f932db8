//! Origins that do not even take a connection: what has read nothing may be asked again.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::SinkExt;
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::events::{answer, request};
use crate::support::{Server, Stream, within};

/// A listener that takes a connection only where somebody accepts one.
fn narrow() -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.listen(1).unwrap()
}

/// Takes all the room that it has: the kernel answers nobody else.
async fn crowd(address: SocketAddr) -> Vec<TcpStream> {
    let mut all = Vec::new();
    while let Ok(Ok(one)) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        all.push(one);
        assert!(all.len() < 100, "it takes them all");
    }
    all
}

#[tokio::test]
async fn an_origin_that_cannot_be_connected_to_in_time_is_one_that_cannot_be_connected_to() {
    let listener = narrow();
    let address = listener.local_addr().unwrap();
    let _crowd = crowd(address).await;
    let route = json!({"id": "a", "dialect": "proxy", "path": "/**", "origin": format!("http://{address}"),
        "connect_timeout": "200ms", "retry": 0});
    let server = Server::start(json!([route])).await;
    let answer = server.get("/").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[tokio::test]
async fn events_that_nobody_can_have_read_are_sent_again() {
    let listener = narrow();
    let address = listener.local_addr().unwrap();
    let route = json!({"id": "a", "dialect": "grip", "path": "/**", "origin": format!("http://{address}"),
        "connect_timeout": "200ms"});
    let server = Server::start(json!([route])).await;
    let connecting = tokio::spawn(tokio_tungstenite::connect_async(format!("ws://{}/", server.address)));
    let mut stream = Stream(within(listener.accept()).await.unwrap().0);
    assert_eq!(request(&mut stream).await.1, "OPEN\r\n");
    answer(&mut stream, "connection: close\r\n", "OPEN\r\n").await;
    drop(stream);
    let (mut client, _) = within(connecting).await.unwrap().unwrap();

    let crowd = crowd(address).await;
    client.send(Message::text("hello")).await.unwrap();
    // Longer than one try, and shorter than all of them.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let taken = crowd.len();
    drop(crowd);
    for _ in 0..taken {
        within(listener.accept()).await.unwrap();
    }
    let mut stream = Stream(within(listener.accept()).await.unwrap().0);
    assert_eq!(request(&mut stream).await.1, "TEXT 5\r\nhello\r\n");
    answer(&mut stream, "connection: close\r\n", "").await;
}

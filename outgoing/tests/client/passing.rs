//! Requests of others that are passed on.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use outgoing::{Client, Config, Payload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[tokio::test]
async fn a_request_that_nobody_got_comes_back_with_its_body() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{closed}/x");
    let request = Request::post(&url).header("host", "a.example").body(Payload::full("body")).unwrap();
    let unsent = Client::new(Config::default()).pass(request).await.unwrap_err();
    let back = unsent.request.expect("nothing of it was sent");
    assert_eq!((back.uri().to_string(), &back.headers()["host"]), (url, &"a.example".parse().unwrap()));
    assert_eq!(back.into_body().collect().await.unwrap().to_bytes(), "body");
}

#[tokio::test]
async fn fields_go_as_they_are_and_an_upgraded_connection_is_handed_over() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let answer = b"HTTP/1.1 101 Now\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nhi";
        stream.write_all(answer).await.unwrap();
        let mut said = [0; 2];
        stream.read_exact(&mut said).await.unwrap();
        (String::from_utf8(head).unwrap(), said)
    });
    let request = Request::get(url).header("host", "other.example").header("connection", "upgrade");
    let request = request.header("upgrade", "echo").body(Payload::stream(Full::new(Bytes::new()))).unwrap();
    let mut answer = Client::new(Config::default()).pass(request).await.unwrap();
    assert_eq!(answer.status(), 101);
    let mut upgraded = hyper_util::rt::TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
    let mut said = [0; 2];
    upgraded.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"hi");
    upgraded.write_all(b"yo").await.unwrap();
    let (head, said) = server.await.unwrap();
    assert_eq!(&said, b"yo");
    assert!(head.contains("host: other.example\r\n") && !head.contains("user-agent"), "{head}");
}

//! Routes of the real binary, as a configuration file has them.

use std::io::Write;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::process::Process;
use crate::support::within;

/// An origin that says what it was asked for.
async fn origin() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { return };
                head.push(byte);
            }
            let said = String::from_utf8_lossy(&head);
            let line = said.lines().next().unwrap_or_default();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{line}",
                line.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

async fn asked(server: &Process, host: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(server.http).await.expect("it listens");
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.expect("answered");
    answer
}

#[tokio::test]
async fn a_route_for_a_host_is_a_reason_to_answer_to_it() {
    let port = origin().await;
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let text = format!(
        "[[gateway.routes]]\nid = \"shop\"\ndialect = \"proxy\"\nhost = \"*.example.org\"\npath = \"/live/**\"\n\
         origin = \"http://127.0.0.1:{port}\"\n"
    );
    file.write_all(text.as_bytes()).expect("written");
    let server = Process::start(&["--config", file.path().to_str().expect("plain")]).await;
    let answer = asked(&server, "a.example.org:8080", "/live/a?b").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("GET /live/a?b HTTP/1.1"), "{answer}");
    for (host, path, status) in [
        ("a.example.org", "/else", "404"),
        ("a.example.com", "/live/a", "421"),
        ("localhost", "/live/a", "404"),
    ] {
        let answer = asked(&server, host, path).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{host}{path}: {answer}");
    }
}

//! What scales origins.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{Origin, Server, nobody, within};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

/// One notification, answered.
async fn told(scaler: &mut Origin) -> (String, Value) {
    let mut stream = scaler.accept().await;
    let head = stream.head().await.to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next());
    let length: usize = length.unwrap().parse().unwrap();
    let mut body = vec![0; length];
    within(tokio::io::AsyncReadExt::read_exact(&mut stream.0, &mut body)).await.unwrap();
    stream.send(OK).await;
    (head, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn who_scales_hears_of_the_first_request_and_of_the_end_of_the_last() {
    let (mut origin, mut scaler) = (Origin::start().await, Origin::start().await);
    let hook = format!("{}/scale", scaler.url());
    let route = json!({"id": "a", "dialect": "proxy", "path": "/**", "origin": origin.url(),
        "scale_down_after": "30ms", "on_idle": hook, "on_first": hook,
        "notify_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"});
    let server = Server::start(json!([route])).await;
    // Nobody has come since the start.
    let (head, event) = told(&mut scaler).await;
    assert!(head.starts_with("post /scale ") && head.contains("webhook-signature: v1,"), "{head}");
    assert_eq!((&event["type"], &event["data"]["route"]), (&json!("route.idle"), &json!("a")));
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let (_, event) = told(&mut scaler).await;
    assert_eq!((&event["type"], &event["data"]["connections"]), (&json!("route.first"), &json!(1)));
    // Under way for longer than that.
    let mut stream = origin.accept().await;
    stream.head().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(scaler.is_alone());
    stream.send(OK).await;
    assert!(client.rest().await.ends_with("ok"));
    let (_, event) = told(&mut scaler).await;
    assert_eq!((&event["type"], &event["data"]["connections"]), (&json!("route.idle"), &json!(0)));
}

#[tokio::test]
async fn a_request_waits_for_an_origin_that_starts_and_is_told_to_come_back_where_it_does_not() {
    let (slow, never) = (nobody().await, nobody().await);
    let route = |id: &str, address: std::net::SocketAddr, wait: &str| {
        json!({"id": id, "dialect": "proxy", "path": format!("/{id}"), "origin": format!("http://{address}"),
            "cold_start": wait})
    };
    let server = Server::start(json!([route("slow", slow, "10s"), route("never", never, "100ms")])).await;
    let starts = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let mut origin = Origin::on(TcpListener::bind(slow).await.unwrap());
        let mut stream = origin.accept().await;
        let head = stream.head().await;
        let body = stream.until("body").await;
        stream.send(OK).await;
        (head, body)
    };
    let request = "POST /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody";
    let (answer, (head, _)) = tokio::join!(server.ask(request), starts);
    assert!(answer.ends_with("ok") && head.starts_with("POST /slow "), "{answer}");
    let answer = server.get("/never").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1"), "{answer}");
}

#[tokio::test]
async fn an_origin_that_takes_long_to_start_is_found_once_it_has_started() {
    let address = nobody().await;
    let server = Server::start(json!([{"id": "a", "dialect": "proxy", "path": "/a",
        "origin": format!("http://{address}"), "cold_start": "100ms"}]))
    .await;
    // More than those after which an origin that does not start is left alone.
    for _ in 0..6 {
        assert!(server.get("/a").await.starts_with("HTTP/1.1 503 "));
    }
    let mut origin = Origin::on(TcpListener::bind(address).await.unwrap());
    let (answer, _) = tokio::join!(server.get("/a"), async { origin.answer(OK).await });
    assert!(answer.ends_with("ok"), "{answer}");
}

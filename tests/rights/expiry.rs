//! What ends with its credentials.

use std::time::{Duration, Instant};

use fanwire::auth::{Access, Algorithm as Accepted, KeySource};
use jsonwebtoken::Algorithm;
use serde_json::json;

use crate::attempts::{connect_packet, issuer, server};
use crate::sets::{SECRET, encoding_key, header, sign};
use crate::support::bayeux::{Poller, Socket};
use crate::support::http::request;
use crate::support::mqtt::Bare;
use crate::support::sse::EventStream;
use crate::support::{TestServer, within};

const ISS: &str = "https://short.example";
/// How long a token of these tests lasts: time enough to connect on a busy machine.
const LIFE: Duration = Duration::from_millis(2500);

async fn short_lived() -> TestServer {
    let mut short = issuer(ISS, Accepted::Hs256, KeySource::Secret(SECRET.into()));
    short.leeway = Duration::ZERO;
    let mut access = Access::default();
    access.issuers = vec![short];
    server(access).await
}

fn token() -> String {
    let exp = (broker_core::unix_ms() as f64 + LIFE.as_millis() as f64) / 1000.0;
    let rights = json!([{"actions": ["publish", "subscribe", "history"], "channels": ["a"]}]);
    let claims = json!({"iss": ISS, "aud": "fanwire", "sub": "ann", "exp": exp, "rights": rights});
    sign(&header(Algorithm::HS256, None), &claims, &encoding_key(Algorithm::HS256))
}

/// Not early: the credentials were good until then. Rounding takes a little.
fn not_early(began: Instant) {
    assert!(began.elapsed() > LIFE - Duration::from_millis(300), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_stream_is_told_to_come_back_and_ends() {
    let (server, began) = (short_lived().await, Instant::now());
    let line = format!("authorization: Bearer {}\r\n", token());
    let mut stream = EventStream::open_with(server.http, "/sse/a", &line).await;
    assert_eq!(stream.status, 200, "{:?}", stream.head);
    assert_eq!(stream.next().await, None);
    not_early(began);
    assert!(stream.retry.is_some(), "a time to come back after");
    assert_eq!(EventStream::open_with(server.http, "/sse/a", &line).await.status, 401);
}

#[tokio::test]
async fn mqtt_5_is_told_why() {
    let (server, began) = (short_lived().await, Instant::now());
    let mut device = Bare::connect(server.mqtt).await;
    device.send(&connect_packet(5, Some(&token()))).await;
    let head = device.receive(2).await;
    let connack = device.receive(usize::from(head[1])).await;
    assert_eq!(connack[1], 0, "{connack:02x?}");
    let rest = device.rest().await;
    not_early(began);
    assert_eq!((rest[0], rest[2]), (0xE0, 0xA0), "DISCONNECT, maximum connect time: {rest:02x?}");
    assert!(String::from_utf8_lossy(&rest).contains("expired"), "{rest:02x?}");
}

#[tokio::test]
async fn mqtt_3_is_closed() {
    let (server, began) = (short_lived().await, Instant::now());
    let mut device = Bare::connect(server.mqtt).await;
    device.send(&connect_packet(4, Some(&token()))).await;
    assert_eq!(device.receive(4).await, [0x20, 2, 0, 0]);
    assert!(device.rest().await.is_empty());
    not_early(began);
}

#[tokio::test]
async fn a_bayeux_socket_shakes_hands_again() {
    let (server, began) = (short_lived().await, Instant::now());
    let mut page = Socket::handshake_with(server.http, &json!({"authentication": {"token": token()}})).await;
    page.subscribe("/a").await;
    page.connect().await;
    // The held connect is answered, with the advice to shake hands.
    let advice = loop {
        let frame = page.frame().await.expect("told before anything is closed");
        if let Some(advised) = frame.iter().find(|message| message["advice"]["reconnect"] == "handshake") {
            break advised.clone();
        }
    };
    not_early(began);
    assert_eq!(advice["channel"], "/meta/connect", "{advice}");
    assert_eq!(server.broker.stats().subscriptions, 0);
}

#[tokio::test]
async fn a_bayeux_poll_is_answered_with_the_advice_to_shake_hands() {
    let (server, began) = (short_lived().await, Instant::now());
    let mut page = Poller::handshake_with(server.http, &json!({"authentication": {"token": token()}})).await;
    page.subscribe("/a").await;
    page.connect().await;
    let replies = page.connect().await;
    not_early(began);
    let reply = replies.iter().find(|reply| reply["channel"] == "/meta/connect").expect("a reply");
    assert_eq!(reply["advice"]["reconnect"], "handshake", "{reply}");
    let again = page.connect().await;
    assert_eq!(again[0]["error"], "402::session_unknown", "{again:?}");
    assert_eq!(again[0]["advice"]["reconnect"], "handshake", "{again:?}");
}

#[tokio::test]
async fn a_held_history_request_is_answered_401() {
    let (server, began) = (short_lived().await, Instant::now());
    let bearer = format!("Bearer {}", token());
    let answer = request(server.http, "GET", "/v1/history/a?wait=9", &[("authorization", &bearer)], "").await;
    not_early(began);
    assert_eq!((answer.status, &*answer.code()), (401, "credentials_expired"));
}

/// Over HTTP/2 the stream is pulled through a response body.
#[tokio::test]
async fn a_stream_over_http_2_is_told_too() {
    use http_body_util::BodyExt as _;
    let (server, began) = (short_lived().await, Instant::now());
    let mut client = crate::support::http::http2(server.http).await;
    let ask = http::Request::get(format!("http://{}/sse/a", server.http))
        .header("authorization", format!("Bearer {}", token()))
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .expect("a request");
    let answer = within(client.send_request(ask)).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let body = within(answer.into_body().collect()).await.expect("its end").to_bytes();
    not_early(began);
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains("retry: ") && text.contains("expired"), "{text:?}");
}

//! What a long-polling session costs between two polls, its connection apart: there is none.

use std::sync::Arc;

use broker_core::{AllowAll, Broker};
use bytes::Bytes;
use front_bayeux::{Config, Front};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

const SESSIONS: usize = 10_000;
/// The target: session, queue, subscription, registries, and their share of the maps.
const MAX_BYTES: usize = 4096;

/// Private memory of this process, in bytes.
fn private_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let kilobytes = text.lines().filter(|line| line.starts_with("Private_")).map(|line| {
        line.split_whitespace().nth(1).and_then(|number| number.parse::<usize>().ok()).unwrap_or(0)
    });
    kilobytes.sum::<usize>() * 1024
}

async fn post(front: &Front, cookie: &str, message: Value) -> (Value, Option<String>) {
    let request = http::Request::post("/cometd")
        .header("content-type", "application/json")
        .header("cookie", cookie)
        .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0")
        .body(Full::new(Bytes::from(message.to_string())))
        .unwrap();
    let response = front.handle(request).await;
    let cookie = response.headers().get("set-cookie").map(|line| line.to_str().unwrap().to_owned());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (serde_json::from_slice(&body).unwrap(), cookie)
}

/// A session that shook hands, subscribed to a channel of its own and connected.
async fn open(front: &Front, number: usize) {
    let handshake = json!({"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"], "ext": {"ack": true}});
    let (reply, cookie) = post(front, "", handshake).await;
    let (id, cookie) = (reply[0]["clientId"].clone(), cookie.unwrap());
    let cookie = cookie.split(';').next().unwrap();
    let subscribe =
        json!({"channel": "/meta/subscribe", "clientId": id, "subscription": format!("/user/{number}")});
    assert_eq!(post(front, cookie, subscribe).await.0[0]["successful"], true);
    let connect = json!({"channel": "/meta/connect", "clientId": id, "ext": {"ack": 0}});
    assert_eq!(post(front, cookie, connect).await.0[0]["successful"], true);
}

#[tokio::test]
async fn a_long_polling_session_costs_at_most_four_kilobytes_between_polls() {
    if !std::path::Path::new("/proc/self/smaps_rollup").exists() {
        return;
    }
    let broker = Broker::new(broker_core::Config::default());
    let mut config = Config::default();
    config.timing.max_interval = std::time::Duration::from_secs(3600);
    let front = Front::new(broker.clone(), Arc::new(AllowAll), config);
    // What the first ones need of the allocator, the runtime and the maps is not theirs.
    for number in 0..500 {
        open(&front, number).await;
    }
    let before = private_bytes();
    for number in 0..SESSIONS {
        open(&front, 500 + number).await;
    }
    broker.drained().await;
    let bytes = private_bytes().saturating_sub(before) / SESSIONS;
    println!("{bytes} bytes for each of {SESSIONS} sessions");
    assert_eq!(front.stats().sessions, SESSIONS as u64 + 500);
    assert!(bytes <= MAX_BYTES, "{bytes}");
}

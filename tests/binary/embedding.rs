use std::path::PathBuf;
use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::http::{get, post, post_json};
use crate::support::sse::EventStream;
use crate::support::{TestServer, within};

/// Cargo builds examples together with tests, beside them.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps");
    let example = profile.join("examples").join(name);
    assert!(example.exists(), "{} is built by `cargo test` without target filters", example.display());
    example
}

#[tokio::test]
async fn the_embedding_example_serves_its_own_routes_and_the_fronts() {
    let mut command = Command::new(example("embed"));
    let mut child =
        command.arg("127.0.0.1:0").stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("it runs");
    let mut line = String::new();
    within(BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line)).await.expect("a line");
    let address = line
        .trim()
        .strip_prefix("listening http=")
        .and_then(|address| address.parse().ok())
        .expect("an address");

    assert_eq!(get(address, "/").await.status, 200);
    let mut orders = EventStream::open(address, "/live?channel=orders/*").await;
    assert!(post(address, "/orders", r#"{"item":"tea"}"#).await.text().starts_with("order 1 "));
    assert!(orders.data().await.contains(r#""data":{"item":"tea"}"#));
    assert_eq!(post(address, "/api/publish/orders/2", "1").await.status, 403, "only through the service");

    let mut clock = EventStream::open(address, "/live/clock").await;
    clock.data().await;
    assert_eq!(post(address, "/api/publish/clock", "\"hello\"").await.status, 200);
    while clock.data().await != "\"hello\"" {}

    let handshake = json!([{"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"]}]);
    let answer = post_json(address, "/browsers", handshake.to_string()).await;
    assert_eq!(answer.json()[0]["successful"], true, "{answer:?}");
    within(tokio_tungstenite::connect_async(format!("ws://{address}/browsers")))
        .await
        .expect("Bayeux upgrades");
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    let mut request = format!("ws://{address}/devices").into_client_request().expect("a request");
    request.headers_mut().insert("sec-websocket-protocol", "mqtt".parse().expect("a header"));
    within(tokio_tungstenite::connect_async(request)).await.expect("MQTT upgrades");
}

#[tokio::test]
async fn a_stream_in_process_ends_with_its_server_whoever_holds_the_broker() {
    let server = TestServer::start().await;
    let broker = server.broker.clone();
    let filter = fanwire::Filter::parse("orders/*").expect("a filter");
    let mut stream = broker.subscribe(filter).expect("it is open");
    let reading = tokio::spawn(async move {
        let mut messages = 0;
        while stream.message().await.is_some() {
            messages += 1;
        }
        messages
    });
    let mut events = EventStream::open(server.http, "/sse/orders/1").await;
    server.publish("orders/1", "tea");
    server.stop().await;
    assert_eq!(within(reading).await.expect("it does not panic"), 1);
    assert_eq!(events.data().await, "tea", "what was accepted is written");
    within(broker.drained()).await;
    assert!(broker.is_closed());
}

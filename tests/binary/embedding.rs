use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::services::{
    ask_bayeux, connect_mqtt, handshake, next, open_bayeux, open_mqtt, poll, subscribe_bayeux, subscribe_mqtt,
};
use crate::support::http::{post, request};
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

#[test]
fn the_page_goes_through_the_example_from_its_first_line_to_its_last() {
    let page = include_str!("../../docs/embedding.md");
    let example = include_str!("../../examples/embedding.rs");
    let shown: Vec<_> =
        page.split("```rust\n").skip(1).filter_map(|rest| rest.split("\n```").next()).collect();
    // The example begins with what to run and what to see.
    let (_, code) = example.split_once("\n\n").expect("a head");
    let shown = shown.join("\n\n");
    for (number, (shown, line)) in shown.lines().zip(code.lines()).enumerate() {
        assert_eq!(shown, line, "line {number} below the example's head");
    }
    assert_eq!(shown.lines().count(), code.trim_end().lines().count());
}

#[tokio::test]
async fn the_service_of_the_page_serves_its_sessions_over_every_protocol_and_ends() {
    let mut command = Command::new(example("embedding"));
    let mut child =
        command.arg("127.0.0.1:0").stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("it runs");
    let mut line = String::new();
    within(BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line)).await.expect("a line");
    let at = line
        .trim()
        .strip_prefix("listening http=")
        .and_then(|address| address.parse().ok())
        .expect("an address");
    let log_in = async |user: &'static str| {
        let answer = post(at, "/login", user).await;
        let cookie = answer.header("set-cookie").expect("a cookie");
        cookie.split(';').next().expect("a value").to_owned()
    };
    let (ann, bob) = (log_in("ann").await, log_in("bob").await);

    // Without a session nobody is let in.
    assert_eq!(EventStream::open(at, "/events/chat/tea").await.status, 401);
    let refused = poll(at, "/cometd", &handshake("long-polling"), &[]).await.json();
    assert_eq!(refused[0]["successful"], false);
    let mut nobody = open_mqtt(at, "/mqtt", "").await.expect("MQTT upgrades");
    assert_ne!(connect_mqtt(&mut nobody, "nobody").await, 0);
    assert_ne!(request(at, "POST", "/rooms/tea", &[], "hello").await.status, 200);

    let mut stream = EventStream::open_with(at, "/events/chat/tea", &format!("cookie: {ann}\r\n")).await;
    let mut socket = open_bayeux(at, "/cometd", &ann).await;
    let reply = ask_bayeux(&mut socket, &handshake("websocket")).await.expect("an answer");
    subscribe_bayeux(&mut socket, &reply, "/chat/tea").await;
    let mut device = open_mqtt(at, "/mqtt", &bob).await.expect("MQTT upgrades");
    assert_eq!(connect_mqtt(&mut device, "phone").await, 0);
    subscribe_mqtt(&mut device, "chat/tea").await;
    let shaken = poll(at, "/cometd", &handshake("long-polling"), &[("cookie", &bob)]).await;
    let browser = shaken.header("set-cookie").expect("a cookie").split(';').next().expect("a value");
    let (both, id) = (format!("{bob}; {browser}"), shaken.json()[0]["clientId"].clone());
    let poll_as_bob = async |message: Value| {
        let message = json!([with_client(message, &id)]);
        poll(at, "/cometd", &message, &[("cookie", &both)]).await.json()
    };
    let subscribed = poll_as_bob(json!({"channel": "/meta/subscribe", "subscription": "/chat/tea"})).await;
    assert_eq!(subscribed[0]["successful"], true, "{subscribed}");
    // Over SSE nobody says what is open; the room does.
    let there = request(at, "GET", "/rooms/tea", &[("cookie", &ann)], "").await.json();
    let mut members: Vec<_> = there["members"].as_array().expect("members").iter().map(shown).collect();
    members.sort();
    let of = |user: &str, protocol: &str, client: &str| format!("{user} {protocol} {client} 127.0.0.1");
    assert_eq!(
        members,
        [of("ann", "bayeux", ""), of("ann", "sse", ""), of("bob", "bayeux", ""), of("bob", "mqtt", "phone")]
    );
    assert_eq!(there["more"], false);

    // What is said there is heard by all, and only this service says it.
    let said = request(at, "POST", "/rooms/tea", &[("cookie", &bob)], "hello").await;
    assert_eq!(said.text(), "heard by 4\n");
    assert!(stream.data().await.contains(r#"{"from":"bob","text":"hello"}"#));
    let event = next(&mut socket).await.expect("an event").into_data();
    assert!(String::from_utf8_lossy(&event).contains(r#""text":"hello""#));
    let publish = next(&mut device).await.expect("a publish").into_data();
    assert!(publish.ends_with(br#"{"from":"bob","text":"hello"}"#));
    let polled = poll_as_bob(json!({"channel": "/meta/connect", "connectionType": "long-polling"})).await;
    assert!(polled.to_string().contains("\"text\":\"hello\""), "{polled}");
    let published = poll_as_bob(json!({"channel": "/chat/tea", "data": "mine"})).await;
    assert_eq!(published[0]["successful"], false);

    // Who logs out hears nothing more.
    assert_eq!(request(at, "POST", "/logout", &[("cookie", &bob)], "").await.status, 204);
    while next(&mut device).await.is_some() {}
    assert_ne!(request(at, "POST", "/rooms/tea", &[("cookie", &bob)], "hello").await.status, 200);

    // At the end those who are left are told.
    let pid = Pid::from_raw(child.id().expect("it runs").cast_signed()).expect("a process");
    kill_process(pid, Signal::TERM).expect("sent");
    assert!(within(child.wait()).await.expect("it ends").success());
    while next(&mut socket).await.is_some() {}
    assert!(stream.next().await.is_none() && stream.is_whole, "ended, not cut");
}

fn with_client(mut message: Value, id: &Value) -> Value {
    message["clientId"] = id.clone();
    message
}

/// A member of a room as the service tells it.
fn shown(member: &Value) -> String {
    let text = |name: &str| member[name].as_str().unwrap_or_default().to_owned();
    [text("user"), text("protocol"), text("client"), text("from")].join(" ")
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

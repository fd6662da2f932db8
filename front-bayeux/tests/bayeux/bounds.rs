//! What a client can ask for has a bound, and what it orders lets others have their turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use broker_core::{AllowAll, Broker};
use bytes::Bytes;
use front_bayeux::{Config, Front};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use tokio::time::timeout;

use crate::support::{PATIENCE, Server, last, quick};

#[tokio::test]
async fn long_lists_of_names_are_refused_before_they_are_read() {
    let mut config = quick();
    config.max_subscriptions = 100;
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    let names = vec!["/a"; 101];
    for channel in ["/meta/subscribe", "/meta/unsubscribe"] {
        let reply = poller.send(json!({"channel": channel, "subscription": names})).await;
        assert_eq!(last(&reply)["error"], "403:too_many_subscriptions:subscribe_denied");
    }
    let types = vec!["long-polling"; 65];
    let handshake = json!({"channel": "/meta/handshake", "supportedConnectionTypes": types});
    assert_eq!(last(&poller.send(handshake).await)["error"], "301::connection_types_unsupported");
}

#[tokio::test]
async fn forms_have_as_many_messages_as_any_request() {
    let mut config = quick();
    config.max_batch_messages = 100;
    let server = Server::start(config).await;
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    for (count, status) in [(100, 200), (101, 413)] {
        let body = "message={}&".repeat(count);
        let answer = server.browser().await.exchange("POST /cometd", form, &body).await;
        assert_eq!(answer.status, status, "{count}");
    }
}

#[tokio::test]
async fn the_ext_of_a_message_is_bounded() {
    let mut config = quick();
    config.max_ext_bytes = 100;
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    for (bytes, error) in [(50, Value::Null), (100, json!("413:100:ext_too_large"))] {
        let reply = poller.send(json!({"channel": "/a", "data": 1, "ext": {"x": "y".repeat(bytes)}})).await;
        assert_eq!(last(&reply)["error"], error);
    }
}

#[tokio::test]
async fn a_batch_that_is_too_long_is_refused_whatever_follows() {
    let mut config = quick();
    config.max_batch_messages = 100;
    let server = Server::start(config).await;
    let mut browser = server.browser().await;
    let long = format!("[{}", "{},".repeat(1_000_000));
    assert_eq!(browser.post(&long).await.status, 413);
}

struct Client {
    front: Front,
    cookie: String,
    id: String,
}

impl Client {
    async fn new(mut config: Config) -> Self {
        config.timing.max_interval = Duration::from_secs(60);
        let front = Front::new(Broker::new(broker_core::Config::default()), Arc::new(AllowAll), config);
        let mut client = Self { front, cookie: String::new(), id: String::new() };
        let handshake = json!({"channel": "/meta/handshake", "supportedConnectionTypes": ["long-polling"],
            "ext": {"replay": true}});
        let reply = client.post(handshake).await;
        client.id = reply[0]["clientId"].as_str().unwrap().to_owned();
        client
    }

    async fn post(&mut self, messages: Value) -> Value {
        let request = http::Request::post("/cometd")
            .header("content-type", "application/json")
            .header("cookie", &self.cookie)
            .body(Full::new(Bytes::from(messages.to_string())))
            .unwrap();
        let response = self.front.handle(request).await;
        if let Some(cookie) = response.headers().get("set-cookie") {
            self.cookie = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        }
        let body = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    /// How often another task had its turn while this was handled, on one thread.
    async fn turns(&mut self, messages: Value) -> (usize, Value) {
        let (turns, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, ends) = (Arc::clone(&turns), Arc::clone(&over));
        let other = tokio::spawn(async move {
            while !ends.load(Ordering::Relaxed) {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let answer = self.post(messages).await;
        over.store(true, Ordering::Relaxed);
        other.await.unwrap();
        (turns.load(Ordering::Relaxed), answer)
    }
}

#[tokio::test]
async fn a_long_batch_lets_others_have_their_turn() {
    let mut client = Client::new(quick()).await;
    let message = json!({"channel": "/a", "clientId": client.id, "data": "x".repeat(1000)});
    let (turns, answer) = client.turns(json!(vec![message; 3200])).await;
    let refused = answer.as_array().unwrap().iter().find(|reply| reply["successful"] != true);
    assert_eq!(refused, None);
    // While it is read, and while it is done.
    assert!(turns >= 3200 * 1000 / 65_536 + 3200 / 64, "{turns}");
}

#[tokio::test]
async fn a_long_list_of_names_lets_others_have_their_turn() {
    let mut config = quick();
    config.max_new_channels_per_second = 0;
    let mut client = Client::new(config).await;
    let names: Vec<String> = (0..3200).map(|number| format!("/a/{number}")).collect();
    for channel in ["/meta/subscribe", "/meta/unsubscribe"] {
        let message = json!({"channel": channel, "clientId": client.id, "subscription": names});
        let (turns, answer) = client.turns(message).await;
        assert_eq!(answer[0]["successful"], true);
        assert!(turns >= 2 * 3200 / 64, "{turns}");
    }
}

#[tokio::test]
async fn thousands_of_replays_cost_their_session_one_task() {
    let mut config = quick();
    config.max_new_channels_per_second = 0;
    let mut client = Client::new(config).await;
    let names: Vec<String> = (0..2000).map(|number| format!("/a/{number}")).collect();
    let from: serde_json::Map<String, Value> = names.iter().map(|name| (name.clone(), json!(-2))).collect();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let message = json!({"channel": "/meta/subscribe", "clientId": client.id, "subscription": names,
        "ext": {"replay": from}});
    let answer = client.post(message).await;
    assert_eq!(answer[0]["successful"], true);
    assert!(tasks() <= before + 1, "{} and {before}", tasks());
}

#[tokio::test]
async fn a_request_whose_connection_breaks_gives_its_session_back() {
    let mut config = quick();
    config.timing.timeout = Duration::from_secs(60);
    let mut client = Client::new(config).await;
    let message =
        |channel: &str| json!({"channel": channel, "clientId": client.id, "data": 1, "subscription": "/b"});
    let (subscribe, connect, long) =
        (message("/meta/subscribe"), message("/meta/connect"), json!(vec![message("/a"); 1000]));
    client.post(subscribe).await;
    client.post(connect.clone()).await;
    let mut other =
        Client { front: client.front.clone(), cookie: client.cookie.clone(), id: client.id.clone() };
    tokio::select! {
        biased;
        _ = other.post(long) => panic!("it has its turns"),
        () = async { for _ in 0..3 { tokio::task::yield_now().await } } => {}
    }
    let held = tokio::spawn(async move { client.post(connect).await });
    tokio::task::yield_now().await;
    let id = front_bayeux::ClientId::parse(&other.id).unwrap();
    other.front.deliver(&id, "/b", &Bytes::from_static(b"7"));
    let answer = timeout(PATIENCE, held).await.expect("the event wakes it").unwrap();
    assert_eq!(answer[0]["data"], 7);
}

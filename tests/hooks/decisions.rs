//! What backends decide.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use fanwire::auth::{Access, BuiltIn, Key, KeyHash};
use fanwire::{Action, Pattern, RightsTemplate};
use rumqttc::{MqttOptions, Packet, QoS};
use serde_json::json;

use crate::backend::{Asked, Backend};
use crate::support::bayeux::{Poller, Socket};
use crate::support::http;
use crate::support::mqtt::{Bare, Client};
use crate::support::sse::EventStream;
use crate::support::{PATIENCE, TestServer, within};

const ALL: [&str; 4] = ["connect", "subscribe", "publish", "disconnect"];

/// Says no to what has `no` in it, with a reason.
fn strict(asked: &Asked) -> (u16, String) {
    let is_no = asked.text.contains("no-");
    if is_no {
        (200, json!({"allow": false, "reason": "not this"}).to_string())
    } else {
        (204, String::new())
    }
}

/// An MQTT 5 CONNECT with a clean start and these properties.
fn connect5(id: &str, properties: &[u8]) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x05\x02\x00\x3c".to_vec();
    body.push(properties.len() as u8);
    body.extend_from_slice(properties);
    body.extend_from_slice(&(id.len() as u16).to_be_bytes());
    body.extend_from_slice(id.as_bytes());
    [&[0x10, body.len() as u8][..], &body].concat()
}

#[tokio::test]
async fn an_mqtt_client_is_decided_about_in_its_order_and_its_context_comes_back() {
    let backend = Backend::start(|asked| match asked.body["type"].as_str() {
        Some("connect") => (
            200,
            json!({"user": "ann", "context": {"plan": "pro"}, "subscribe": ["inbox/ann"],
                "rights": [{"actions": ["publish", "subscribe"], "channels": ["chat/**"]}]})
            .to_string(),
        ),
        Some("publish") if asked.body["data"]["channel"] == "chat/2" => {
            (200, json!({"replace": {"text": "***"}}).to_string())
        }
        _ => (200, "{}".to_owned()),
    })
    .await;
    let server = backend.server(&ALL, json!({})).await;
    let with_password = |options: &mut MqttOptions| _ = options.set_credentials("who", "secret");
    let mut client = Client::connect_with(server.mqtt, "one", with_password).await;
    let connection = fanwire::edge::connection_id(server.broker.connections(None, 1)[0].0);
    server.wait_for_subscriptions(1).await;
    server.publish("inbox/ann", "welcome");
    assert_eq!(client.payload().await, "welcome");
    client.subscribe("chat/+", QoS::AtLeastOnce).await;
    for (channel, payload) in [("chat/1", "hello"), ("chat/2", "damn"), ("chat/3", "bye")] {
        client.publish(channel, QoS::AtLeastOnce, payload).await;
    }
    let mut got = Vec::new();
    while got.len() < 3 {
        got.push(client.payload().await);
    }
    assert_eq!(got, ["hello", "***", "bye"]);
    client.client.disconnect().await.expect("it says goodbye");
    backend.wait_for("disconnect", 1).await;
    let told: Vec<_> = backend.asked().into_iter().map(|asked| asked.body).collect();
    let kinds: Vec<_> = told.iter().map(|told| told["type"].as_str().expect("a type")).collect();
    assert_eq!(kinds, ["connect", "subscribe", "publish", "publish", "publish", "disconnect"]);
    let seqs: Vec<_> = told.iter().map(|told| told["data"]["seq"].as_u64().expect("a number")).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6]);
    let first = &told[0]["data"];
    assert_eq!((&first["username"], &first["password"]), (&json!("who"), &json!("secret")));
    assert_eq!(
        (&first["client_id"], &first["user"], &first["transport"]),
        (&json!("one"), &json!(null), &json!("tcp"))
    );
    for told in &told {
        assert_eq!(told["data"]["connection"], connection, "{told}");
    }
    for told in &told[1..] {
        assert_eq!(
            (&told["data"]["user"], &told["data"]["context"]),
            (&json!("ann"), &json!({"plan": "pro"}))
        );
    }
    assert_eq!(
        (&told[1]["data"]["filter"], &told[2]["data"]["channel"]),
        (&json!("chat/*"), &json!("chat/1"))
    );
    assert_eq!(told[2]["data"]["text"], "hello");
    server.stop().await;
}

#[tokio::test]
async fn whom_the_configuration_does_not_know_the_webhook_introduces() {
    let backend = Backend::start(|asked| {
        let credentials = &asked.body["data"];
        let is_known =
            credentials["password"] == "theirs" || credentials["headers"]["cookie"] == "session=ann";
        let rights = json!([{"actions": ["subscribe"], "channels": ["inbox/{user}"]}]);
        match asked.body["type"].as_str() {
            Some("connect") if is_known => (200, json!({"user": "ann", "rights": rights}).to_string()),
            // A yes is for whom the configuration knows.
            _ => (204, String::new()),
        }
    })
    .await;
    let hook = backend.hook(&["connect", "publish"], json!({}));
    let mut access = Access::default();
    let all = RightsTemplate::default().allow(Action::ALL, Pattern::parse("#").expect("a pattern"));
    access.keys = vec![Key::new("backend", KeyHash::of(b"a backend's key"), all)];
    let mut aws = fanwire::aws::Config::default();
    (aws.iot, aws.signatures) = (true, fanwire::aws::Signatures::Ignored);
    let server = TestServer::with(|config| {
        config.gateway.webhooks.push(hook);
        config.authenticator = Arc::new(BuiltIn::with(access).expect("nothing is wrong with it"));
        *config = config.clone().with_front(move |context| fanwire::aws::Front::new(context, aws.clone()));
    })
    .await;

    let theirs = |options: &mut MqttOptions| _ = options.set_credentials("who", "theirs");
    let mut client = Client::connect_with(server.mqtt, "one", theirs).await;
    client.subscribe("inbox/ann", QoS::AtLeastOnce).await;
    let (_, connection) = server.broker.connections(None, 1).remove(0);
    assert_eq!(connection.peer().expect("told").principal.user(), Some("ann"));
    server.publish("inbox/ann", "hello");
    assert_eq!(client.payload().await, "hello");

    // Nobody that it knows either, with credentials and without.
    for packet in [crate::support::mqtt::connect_packet("two"), connect_as("three", "who", "wrong")] {
        let mut bare = Bare::connect(server.mqtt).await;
        bare.send(&packet).await;
        let connack = bare.rest().await;
        assert!(connack[0] == 0x20 && connack[3] != 0, "{connack:x?}");
    }
    let session = [("cookie", "session=ann")];
    let stream = http::request(server.http, "GET", "/sse/private", &session, "").await;
    assert_eq!(stream.status, 403, "let in, but not to hear this: {stream:?}");
    assert_eq!(http::get(server.http, "/sse/inbox/ann").await.status, 401);
    assert_eq!(backend.of("connect").len(), 5);

    // Requests that stand alone are no connections, and what a backend publishes is decided already.
    let key = [("authorization", "Bearer a backend's key")];
    for target in ["/v1/publish/inbox/ann", "/topics/inbox/ann"] {
        assert_eq!(http::request(server.http, "POST", target, &key, "x").await.status, 200, "{target}");
        assert_eq!(client.payload().await, "x");
    }
    assert_eq!(http::request(server.http, "POST", "/v1/publish/a", &session, "x").await.status, 401);
    assert_eq!((backend.of("connect").len(), backend.of("publish").len()), (5, 0));
    server.stop().await;
}

/// An MQTT 3.1.1 CONNECT with a user name and a password.
fn connect_as(id: &str, user: &str, password: &str) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x04\xc2\x00\x3c".to_vec();
    for text in [id, user, password] {
        body.extend_from_slice(&(text.len() as u16).to_be_bytes());
        body.extend_from_slice(text.as_bytes());
    }
    [&[0x10, body.len() as u8][..], &body].concat()
}

#[tokio::test]
async fn each_protocol_says_no_in_its_own_terms() {
    let backend = Backend::start(strict).await;
    let server = backend.server(&ALL, json!({})).await;

    let refused = http::get(server.http, "/sse/no-1").await;
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(refused.text().contains("not this"), "{refused:?}");
    let refused = http::post(server.http, "/v1/publish/no-1", "x").await;
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(refused.text().contains("not this"), "{refused:?}");
    assert_eq!(http::post(server.http, "/v1/publish/yes", "x").await.status, 200);

    let mut bare = Bare::connect(server.mqtt).await;
    bare.send(&connect5("no-one", &[])).await;
    let connack = bare.rest().await;
    assert_eq!((connack[0], connack[3]), (0x20, 0x87), "{connack:x?}");
    assert!(String::from_utf8_lossy(&connack).contains("not this"), "{connack:x?}");
    let mut bare = Bare::connect(server.mqtt).await;
    bare.send(&crate::support::mqtt::connect_packet("no-two")).await;
    assert_eq!(bare.rest().await, [0x20, 2, 0, 5]);

    let mut client = Client::connect(server.mqtt, "fine").await;
    client.client.subscribe("no-1", QoS::AtMostOnce).await.expect("it is sent");
    let suback = client.wait_for(|packet| matches!(packet, Packet::SubAck(_))).await;
    assert!(format!("{suback:?}").contains("Failure"), "{suback:?}");

    // Version 3 has no word for a publish that is refused but the close, at any QoS.
    for packet in
        [&b"\x30\x07\x00\x04no-1x"[..], b"\x32\x09\x00\x04no-1\x00\x01x", b"\x34\x09\x00\x04no-1\x00\x01x"]
    {
        let mut bare = Bare::shake_hands(server.mqtt, "bare").await;
        bare.send(packet).await;
        assert_eq!(bare.rest().await, b"", "{packet:x?}");
    }
    // Who asks not to be told why is not told (MQTT 5.0 §3.1.2.11.7); who says nothing is.
    for (properties, is_told) in [(&[][..], true), (&[0x17, 1], true), (&[0x17, 0], false)] {
        let mut bare = Bare::connect(server.mqtt).await;
        bare.send(&connect5("five", properties)).await;
        let connack = bare.receive(2).await;
        bare.receive(usize::from(connack[1])).await;
        bare.send(b"\x32\x0a\x00\x04no-1\x00\x01\x00x").await;
        let puback = bare.receive(2).await;
        let told = bare.receive(usize::from(puback[1])).await;
        assert_eq!((puback[0], told[2]), (0x40, 0x87), "{told:x?}");
        assert_eq!(String::from_utf8_lossy(&told).contains("not this"), is_told, "{told:x?}");
        bare.send(b"\x82\x0e\x00\x02\x00\x00\x01a\x00\x00\x04no-1\x00").await;
        let suback = bare.receive(2).await;
        let told = bare.receive(usize::from(suback[1])).await;
        assert_eq!((suback[0], &told[told.len() - 2..]), (0x90, &[0, 0x87][..]), "{told:x?}");
        assert_eq!(String::from_utf8_lossy(&told).contains("not this"), is_told, "{told:x?}");
    }

    let mut bayeux = Socket::handshake(server.http).await;
    for reply in [bayeux.ask_subscription("/no-1").await, bayeux.publish("/no-1", &json!(1)).await] {
        assert_eq!(
            (&reply["successful"], &reply["error"]),
            (&json!(false), &json!("403::not this")),
            "{reply}"
        );
    }
    let handshake = json!([{"channel": "/meta/handshake", "version": "1.0", "ext": {"a": "no-x"},
        "supportedConnectionTypes": ["long-polling"]}]);
    let reply = http::post_json(server.http, "/cometd", handshake.to_string()).await.json();
    assert_eq!(
        (&reply[0]["error"], &reply[0]["advice"]["reconnect"]),
        (&json!("403::not this"), &json!("none"))
    );
    server.stop().await;
}

#[tokio::test]
async fn a_stream_is_told_by_the_name_that_it_has_and_greeted() {
    let backend = Backend::start(|asked| match asked.body["type"].as_str() {
        Some("connect") => (200, json!({"reply": {"welcome": 1}, "subscribe": ["more"]}).to_string()),
        _ => (204, String::new()),
    })
    .await;
    let server = backend.server(&ALL, json!({})).await;
    let headers = "cookie: a=b\r\nx-other: c\r\n";
    let mut stream =
        EventStream::open_with(server.http, "/sse?channel=a&channel=b/*&format=raw&room=7", headers).await;
    let first = within(stream.next()).await.expect("an event");
    assert_eq!((&*first.event, &*first.data), ("hook", r#"{"welcome":1}"#));
    server.publish("more", "unasked");
    assert_eq!(stream.data().await, "unasked");
    let told = backend.asked();
    let connect = &told[0].body["data"];
    let connection = fanwire::edge::connection_id(server.broker.connections(None, 1)[0].0);
    assert_eq!(connect["connection"], connection);
    assert_eq!(
        (&connect["channels"], &connect["headers"]),
        (&json!(["a", "b/*"]), &json!({"cookie": "a=b"}))
    );
    assert_eq!((&connect["query"]["channel"], &connect["transport"]), (&json!("a"), &json!("http/1.1")));
    assert_eq!(connect["query"]["room"], "7", "a parameter of the backend's own");
    assert_eq!(told[0].header("cookie"), Some("a=b"));
    assert_eq!(told[1].header("cookie"), Some("a=b"), "of every decision");
    assert_eq!(
        (&told[1].body["data"]["channel"], &told[2].body["data"]["filter"]),
        (&json!("a"), &json!("b/*"))
    );
    drop(stream);
    let left = backend.wait_for("disconnect", 1).await.remove(0);
    assert_eq!((&left["connection"], &left["seq"]), (&json!(connection), &json!(4)));

    let poller = Poller::handshake_with(server.http, &json!({"hello": [1, 2]})).await;
    let connect = backend.wait_for("connect", 2).await.remove(1);
    assert_eq!((&connect["ext"], &connect["transport"]), (&json!({"hello": [1, 2]}), &json!("long-polling")));
    assert!(connect["connection"].is_string());
    drop(poller);
    let handshake = json!([{"channel": "/meta/handshake", "version": "1.0",
        "supportedConnectionTypes": ["long-polling"]}]);
    let reply = http::post_json(server.http, "/cometd", handshake.to_string()).await.json();
    assert_eq!(reply[0]["ext"]["hook"], json!({"welcome": 1}));
    server.stop().await;
}

#[tokio::test]
async fn while_a_backend_fails_clients_try_again_or_come_in_as_configured() {
    let backend = Backend::start(|_| (500, String::new())).await;
    let server = backend.server(&["connect", "publish"], json!({})).await;
    let refused = http::get(server.http, "/sse/a").await;
    assert_eq!((refused.status, &*refused.code()), (503, "policy_unavailable"), "{refused:?}");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(http::post(server.http, "/v1/publish/a", "x").await.status, 503);
    let mut bare = Bare::connect(server.mqtt).await;
    bare.send(&connect5("one", &[])).await;
    let connack = bare.rest().await;
    assert_eq!((connack[0], connack[3]), (0x20, 0x88), "{connack:x?}");
    let handshake = json!([{"channel": "/meta/handshake", "version": "1.0",
        "supportedConnectionTypes": ["long-polling"]}]);
    let reply = http::post_json(server.http, "/cometd", handshake.to_string()).await.json();
    assert_eq!(
        (&reply[0]["error"], &reply[0]["advice"]["reconnect"]),
        (&json!("503::policy_unavailable"), &json!("handshake"))
    );
    server.stop().await;

    let server = backend.server(&["connect", "publish"], json!({"on_failure": "allow"})).await;
    assert_eq!(http::post(server.http, "/v1/publish/a", "x").await.status, 200);
    Client::connect(server.mqtt, "one").await.kill();
    server.stop().await;
}

#[tokio::test]
async fn a_connection_ends_when_its_backend_said_and_one_that_waits_holds_up_nobody() {
    static IS_SLOW: AtomicBool = AtomicBool::new(false);
    let soon = || humantime::format_rfc3339_millis(SystemTime::now() + Duration::from_secs(2)).to_string();
    let backend = Backend::start(move |asked| match asked.body["type"].as_str() {
        Some("connect") if asked.text.contains("brief") => (200, json!({"expires_at": soon()}).to_string()),
        Some("publish") => {
            if asked.body["data"]["channel"] == "slow" {
                IS_SLOW.store(true, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(800));
            }
            (204, String::new())
        }
        _ => (204, String::new()),
    })
    .await;
    let server = backend.server(&ALL, json!({})).await;
    let mut brief = EventStream::open(server.http, "/sse/brief").await;
    let slow = Client::connect(server.mqtt, "slow").await;
    slow.publish("slow", QoS::AtLeastOnce, "1").await;
    crate::support::eventually(|| IS_SLOW.load(Ordering::SeqCst)).await;
    assert_eq!(http::post(server.http, "/v1/publish/a", "x").await.status, 200);
    while tokio::time::timeout(PATIENCE, brief.next()).await.expect("it ends").is_some() {}
    let left = backend.wait_for("disconnect", 1).await.remove(0);
    assert_eq!(left["reason"], "expired");
    slow.kill();
    server.stop().await;
}

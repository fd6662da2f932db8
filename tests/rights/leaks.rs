//! Who has no right never sees a byte: by wildcard, history, retained, replay, shared group or count.

use fanwire::auth::Access;
use fanwire::{Action, Pattern, Publish};
use serde_json::json;

use crate::attempts::{connect_packet, everything, key, may, server};
use crate::support::TestServer;
use crate::support::bayeux::Socket;
use crate::support::http::request;
use crate::support::mqtt::Bare;
use crate::support::sse::EventStream;

const READER: &str = "the reader's key";
const READER_LINE: &str = "authorization: Bearer the reader's key\r\n";
const HEADERS: [(&str, &str); 1] = [("authorization", "Bearer the reader's key")];

/// `READER` may read `public/**` but `public/secret/**`; another key may do everything.
async fn guarded() -> TestServer {
    let actions = [Action::Subscribe, Action::History, Action::Presence];
    let rights =
        may(&actions, &["public/#"]).deny(actions, Pattern::parse("public/secret/#").expect("a pattern"));
    let keys = vec![key("reader", READER, rights), key("writer", "the writer's key", everything())];
    let mut access = Access::default();
    access.keys = keys;
    server(access).await
}

fn publish_all(server: &TestServer, retain: bool) {
    for channel in ["public/secret", "public/secret/a", "private/a", "$SYS/x", "public/news"] {
        let channel = fanwire::Channel::parse(channel).expect("a channel");
        let word = if channel.as_str() == "public/news" { "open" } else { "hidden" };
        let publish = Publish::new(channel, format!("\"{word}\"")).json().retain(retain);
        server.broker.publish(publish).expect("the broker takes it");
    }
}

/// Over a bare socket: SUBSCRIBE to `filter` at QoS 1 by protocol `level`, and the reason.
async fn subscribe(device: &mut Bare, level: u8, filter: &str) -> u8 {
    let properties: &[u8] = if level == 5 { &[0] } else { &[] };
    let length = 5 + filter.len() + properties.len();
    let mut packet = vec![0x82, u8::try_from(length).expect("short"), 0, 1];
    packet.extend(properties);
    packet.extend([0, u8::try_from(filter.len()).expect("short")]);
    packet.extend(filter.as_bytes());
    packet.push(1);
    device.send(&packet).await;
    loop {
        let head = device.receive(2).await;
        let body = device.receive(usize::from(head[1])).await;
        assert!(!String::from_utf8_lossy(&body).contains("hidden"), "{filter}");
        if head[0] == 0x90 {
            return *body.last().expect("a reason");
        }
    }
}

async fn device(server: &TestServer) -> Bare {
    let mut device = Bare::connect(server.mqtt).await;
    device.send(&connect_packet(4, Some(READER))).await;
    assert_eq!(device.receive(4).await, [0x20, 2, 0, 0]);
    device
}

#[tokio::test]
async fn http_shows_nothing_of_it() {
    let server = guarded().await;
    publish_all(&server, true);
    let get = async |target: &str| request(server.http, "GET", target, &HEADERS, "").await;
    for target in [
        "/v1/history/public/secret",
        "/v1/history/private/a",
        "/v1/history/%23",
        "/v1/history/*/a",
        "/v1/history/private/**",
        "/v1/history/public/secret/**",
        "/v1/history/public/secret?wait=1",
        "/v1/retained/public/secret",
        "/v1/retained/private/a",
        "/v1/channels/private/a",
        "/v1/channels/public/secret",
        "/v1/presence/private/a",
        "/v1/presence/public/secret",
    ] {
        let answer = get(target).await;
        assert_eq!((answer.status, &*answer.code()), (403, "forbidden"), "{target}");
    }
    // What it may read stays readable, without what is denied.
    for target in
        ["/v1/history/public/%23", "/v1/history/public/**?order=desc&limit=1", "/v1/retained/public/news"]
    {
        let answer = get(target).await;
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        assert!(!answer.text().contains("hidden"), "{target}: {answer:?}");
    }
    let channels = get("/v1/channels").await;
    assert!(channels.text().contains("public/news"), "{channels:?}");
    assert!(!channels.text().contains("secret") && !channels.text().contains("private"), "{channels:?}");
    // Nor may it write, clear, or manage.
    for (method, target) in [
        ("POST", "/v1/publish/public/news"),
        ("PUT", "/v1/retained/public/news"),
        ("DELETE", "/v1/retained/public/news"),
    ] {
        assert_eq!(
            request(server.http, method, target, &HEADERS, "x").await.status,
            403,
            "{method} {target}"
        );
    }
    assert_eq!(
        server.broker.retained(&fanwire::Channel::parse("public/news").unwrap()).unwrap().payload().as_ref(),
        b"\"open\""
    );
}

#[tokio::test]
async fn a_stream_shows_nothing_of_it() {
    let server = guarded().await;
    publish_all(&server, true);
    for target in [
        "/sse/private/a",
        "/sse/public/secret",
        "/sse/%23",
        "/sse/*/a",
        "/sse?channel=public/news&channel=private/a",
    ] {
        assert_eq!(EventStream::open_with(server.http, target, READER_LINE).await.status, 403, "{target}");
    }
    // Live, retained, and the past: the denied part of a wildcard is left out.
    for query in ["", "?retained=true", "?last_event_id=earliest"] {
        let mut stream =
            EventStream::open_with(server.http, &format!("/sse/public/%23{query}"), READER_LINE).await;
        assert_eq!(stream.status, 200, "{query}");
        server.wait_for_subscriptions(1).await;
        publish_all(&server, false);
        let event = stream.data().await;
        assert!(event.contains("open") && !event.contains("hidden"), "{query}: {event}");
        drop(stream);
        server.wait_for_subscriptions(0).await;
    }
}

#[tokio::test]
async fn mqtt_shows_nothing_of_it() {
    let server = guarded().await;
    publish_all(&server, true);
    let mut reader = device(&server).await;
    for filter in [
        "private/a",
        "#",
        "+/a",
        "public/secret",
        "public/secret/#",
        "$share/g/#",
        "$share/g/private/a",
        "$share/g/public/secret/#",
        "$SYS/#",
    ] {
        assert_eq!(subscribe(&mut reader, 4, filter).await, 0x80, "{filter}");
    }
    // Retained ones come after the SUBACK, live ones after them.
    assert_eq!(subscribe(&mut reader, 4, "public/#").await, 1);
    assert_eq!(subscribe(&mut reader, 4, "$share/g/public/#").await, 1);
    publish_all(&server, false);
    let mut live = 0;
    while live < 2 {
        let head = reader.receive(2).await;
        let body = reader.receive(usize::from(head[1])).await;
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(head[0] >> 4 == 3 && text.contains("open"), "{head:02x?} {text:?}");
        live += usize::from(head[0] & 1 == 0);
    }
}

#[tokio::test]
async fn mqtt_may_ask_for_all_below_and_does_not_get_what_is_above() {
    let rights = may(&[Action::Subscribe], &["orders/{user}/**"]);
    let keys = vec![key("ann", READER, rights), key("writer", "the writer's key", everything())];
    let mut access = Access::default();
    access.keys = keys;
    let server = server(access).await;
    let publish = |retain: bool| {
        for (channel, word) in [
            ("orders/ann", "hidden"),
            ("orders/bob/1", "hidden"),
            ("orders", "hidden"),
            ("orders/ann/1", "open"),
        ] {
            let channel = fanwire::Channel::parse(channel).expect("a channel");
            let publish = Publish::new(channel, word).qos(fanwire::core::Qos::AtLeastOnce).retain(retain);
            server.broker.publish(publish).expect("the broker takes it");
        }
    };
    publish(true);
    for level in [4, 5] {
        // A session that stays, with what is published while its client is away.
        let mut packet = connect_packet(level, Some(READER));
        // The connect flags, less that for a clean start.
        packet[9] &= !2;
        if level == 5 {
            // Session expiry interval: never. The properties' length is the byte after the keep alive.
            packet.splice(12..13, [5, 0x11, 0xFF, 0xFF, 0xFF, 0xFF]);
            packet[1] += 5;
        }
        let connect = async || {
            let mut device = Bare::connect(server.mqtt).await;
            device.send(&packet).await;
            let head = device.receive(2).await;
            assert_eq!(device.receive(usize::from(head[1])).await[1], 0);
            device
        };
        let denied = if level == 4 { 0x80 } else { 0x87 };
        let mut device = connect().await;
        for filter in ["orders/ann", "orders/#", "orders/+/#", "orders/bob/#", "#", "$share/g/orders/#"] {
            assert_eq!(subscribe(&mut device, level, filter).await, denied, "{filter}");
        }
        let messages = async |device: &mut Bare, count: usize| {
            let mut seen = 0;
            while seen < count {
                let head = device.receive(2).await;
                let body = device.receive(usize::from(head[1])).await;
                let text = String::from_utf8_lossy(&body).into_owned();
                assert!(head[0] >> 4 == 3 && text.contains("open"), "{head:02x?} {text:?}");
                seen += 1;
                // PUBACK, so that nothing of it comes again.
                let at = 2 + usize::from(body[1]);
                device.send(&[0x40, 2, body[at], body[at + 1]]).await;
            }
        };
        assert_eq!(subscribe(&mut device, level, "orders/ann/#").await, 1);
        messages(&mut device, 1).await; // The retained one.
        assert_eq!(subscribe(&mut device, level, "$share/g/orders/ann/#").await, 1);
        publish(false);
        messages(&mut device, 2).await;
        drop(device);
        publish(false);
        let mut device = connect().await;
        messages(&mut device, 2).await;
        // It is still subscribed: coming back with the same rights ends nothing.
        publish(false);
        messages(&mut device, 2).await;
        device.send(&[0xC0, 0]).await;
        assert_eq!(device.receive(2).await, [0xD0, 0], "and nothing else");
        device.send(&[0xE0, 0]).await;
        device.rest().await;
        // The next level starts anew.
        let mut clean = Bare::connect(server.mqtt).await;
        clean.send(&connect_packet(level, Some(READER))).await;
        clean.receive(2).await;
    }
}

#[tokio::test]
async fn bayeux_shows_nothing_of_it() {
    let server = guarded().await;
    publish_all(&server, true);
    let mut page = Socket::handshake_with(server.http, &json!({"authentication": {"token": READER}})).await;
    for channel in ["/private/a", "/public/secret", "/public/secret/**", "/**", "/*", "/private/*"] {
        let reply = page.ask_subscription(channel).await;
        assert_eq!(reply["error"], "403:denied_by_security_policy:subscribe_denied", "{channel}: {reply}");
    }
    assert_eq!(
        page.publish("/public/news", &json!(1)).await["error"],
        "403:denied_by_security_policy:publish_denied"
    );
    page.subscribe("/public/**").await;
    publish_all(&server, false);
    let event = page.event().await;
    assert_eq!(event["data"], "open", "{event}");
}

//! The same rights on every front.

use std::sync::Arc;

use fanwire::auth::BuiltIn;
use fanwire::{Action, Filter, Rights, Rule};
use rumqttc::{Incoming, QoS, SubscribeReasonCode};
use serde_json::json;

use crate::support::TestServer;
use crate::support::bayeux::Socket;
use crate::support::http::{get, post, post_json, request};
use crate::support::mqtt::Client;
use crate::support::sse::EventStream;

/// Everybody may read `public/**` but not `public/secret`, and write `inbox/*`.
async fn guarded() -> TestServer {
    let filter = |text: &str| Filter::parse(text).unwrap();
    let rights = Rights::none()
        .allow(Rule::new([Action::Subscribe, Action::History], filter("public/#")))
        .allow(Rule::new([Action::Publish], filter("inbox/*")))
        .deny(Rule::new([Action::Subscribe, Action::History], filter("public/secret")));
    TestServer::with(move |config| {
        let authenticator: Arc<BuiltIn> = Arc::new(BuiltIn::new(rights));
        config.authenticator = authenticator;
    })
    .await
}

#[tokio::test]
async fn http_and_sse_ask_for_credentials_where_none_were_shown() {
    let server = guarded().await;
    assert_eq!(post(server.http, "/v1/publish/inbox/a", "x").await.status, 200);
    for target in
        ["/v1/history/public/secret", "/v1/history/inbox/a", "/v1/presence/public/a", "/v1/connections"]
            .into_iter()
            .chain(["/sse/inbox/a", "/sse/public/secret", "/sse/%23"])
    {
        let answer = get(server.http, target).await;
        assert_eq!((answer.status, &*answer.code()), (401, "credentials_required"), "{target}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"fanwire\""), "{target}");
    }
    assert_eq!(post(server.http, "/v1/publish/public/a", "x").await.status, 401);
    let items = r#"[{"channel":"inbox/a","data":1},{"channel":"public/a","data":1}]"#;
    let results = post_json(server.http, "/v1/publish", items).await.json();
    assert_eq!(results["results"][1]["error"]["status"], 401, "{results}");
    assert_eq!(results["results"][1]["error"]["code"], "credentials_required", "{results}");
}

#[tokio::test]
async fn http_and_sse_answer_403_where_credentials_would_change_nothing() {
    let rights = Rights::none().allow(Rule::new([Action::Publish], Filter::parse("inbox/*").unwrap()));
    let server = TestServer::with(move |config| {
        config.authenticator = Arc::new(fanwire::Anonymous(fanwire::Principal::anonymous(rights)));
    })
    .await;
    for target in ["/v1/history/inbox/a", "/sse/inbox/a"] {
        let answer = get(server.http, target).await;
        assert_eq!((answer.status, &*answer.code()), (403, "forbidden"), "{target}");
    }
}

#[tokio::test]
async fn mqtt_refuses_the_subscription() {
    let server = guarded().await;
    let mut device = Client::connect(server.mqtt, "device").await;
    for (filter, allowed) in [("public/#", true), ("public/secret", false), ("inbox/a", false), ("#", false)]
    {
        device.client.subscribe(filter, QoS::AtMostOnce).await.unwrap();
        let Incoming::SubAck(ack) = device.wait_for(|packet| matches!(packet, Incoming::SubAck(_))).await
        else {
            unreachable!("only a SUBACK was waited for")
        };
        assert_eq!(ack.return_codes[0] != SubscribeReasonCode::Failure, allowed, "{filter}");
    }
}

#[tokio::test]
async fn bayeux_refuses_in_its_reply() {
    let server = guarded().await;
    let mut page = Socket::handshake(server.http).await;
    let reply = page.publish("/public/a", &json!(1)).await;
    assert_eq!(reply["successful"], false);
    assert!(reply["error"].as_str().is_some_and(|error| error.starts_with("403")), "{reply}");
    assert_eq!(page.publish("/inbox/a", &json!(1)).await["successful"], true);
}

#[tokio::test]
async fn a_wildcard_never_shows_what_is_denied() {
    let server = guarded().await;
    let mut stream = EventStream::open(server.http, "/sse/public/%23").await;
    let mut device = Client::connect(server.mqtt, "device").await;
    device.subscribe("public/#", QoS::AtMostOnce).await;
    let mut page = Socket::handshake(server.http).await;
    page.subscribe("/public/**").await;
    server.wait_for_subscriptions(3).await;
    server.publish_json("public/secret", "\"secret\"");
    server.publish_json("public/news", "\"news\"");
    assert!(stream.data().await.contains("news"));
    assert_eq!(device.payload().await, "\"news\"");
    assert_eq!(page.event().await["data"], "news");
    // Nor does the past.
    let mut replay = EventStream::open(server.http, "/sse/public/%23?last_event_id=earliest").await;
    assert!(replay.data().await.contains("news"));
}

#[tokio::test]
async fn credentials_that_nobody_can_check_are_refused_everywhere() {
    let server = guarded().await;
    let token = [("authorization", "Bearer made-up")];
    for target in ["/v1/history/public/a", "/sse/public/a"] {
        assert_eq!(request(server.http, "GET", target, &token, "").await.status, 401, "{target}");
    }
    let mut bare = crate::support::mqtt::Bare::connect(server.mqtt).await;
    bare.send(b"\x10\x13\x00\x04MQTT\x04\xc2\x00\x3c\x00\x01c\x00\x01u\x00\x01p").await;
    let answer = bare.rest().await;
    assert!(matches!(answer[..], [0x20, 2, 0, 4 | 5]), "{answer:?}");
}

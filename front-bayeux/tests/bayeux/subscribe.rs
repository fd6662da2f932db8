use serde_json::json;

use crate::support::{Server, data, last, quick};

#[tokio::test]
async fn arrays_are_all_or_nothing_and_echoed() {
    let server = Server::start(quick()).await;
    let mut poller = server.poller().await;
    let reply =
        poller.send(json!({"channel": "/meta/subscribe", "subscription": ["/a", "/b/*"], "id": "1"})).await;
    assert_eq!(
        reply,
        [
            json!({"channel": "/meta/subscribe", "id": "1", "successful": true, "subscription": ["/a", "/b/*"]})
        ]
    );
    let reply = poller.send(json!({"channel": "/meta/subscribe", "subscription": ["/c", "/b/*/c"]})).await;
    assert_eq!(last(&reply)["error"], "403::subscription_invalid");
    for channel in ["a", "b/x", "c"] {
        server.publish(channel, &format!("\"{channel}\""));
    }
    server.broker.drained().await;
    assert_eq!(data(&poller.connect().await), ["a", "b/x"]);
}

#[tokio::test]
async fn bad_subscriptions_have_their_errors() {
    let server = Server::start(quick()).await;
    let mut poller = server.poller().await;
    let cases = [
        (json!({}), "403::subscription_missing"),
        (json!({"subscription": null}), "403::subscription_missing"),
        (json!({"subscription": []}), "403::subscription_missing"),
        (json!({"subscription": 7}), "403::subscription_invalid"),
        (json!({"subscription": {}}), "403::subscription_invalid"),
        (json!({"subscription": [7]}), "403::subscription_invalid"),
        (json!({"subscription": "a"}), "403::subscription_invalid"),
        (json!({"subscription": "/a/*/b"}), "403::subscription_invalid"),
        (json!({"subscription": "/a/***"}), "403::subscription_invalid"),
        (json!({"subscription": "/meta/**"}), "403:denied_by_security_policy:subscribe_denied"),
        (json!({"subscription": "/meta/connect"}), "403:denied_by_security_policy:subscribe_denied"),
    ];
    for channel in ["/meta/subscribe", "/meta/unsubscribe"] {
        for (fields, error) in &cases {
            let mut message = fields.clone();
            message["channel"] = json!(channel);
            let reply = poller.send(message).await;
            assert_eq!(last(&reply)["error"], *error, "{channel} {fields}");
        }
    }
}

#[tokio::test]
async fn service_subscriptions_succeed_and_record_nothing() {
    let server = Server::start(quick()).await;
    let mut poller = server.poller().await;
    poller.subscribe("/service/x").await;
    poller.subscribe("/service/**").await;
    server.publish("service/x", "1");
    server.broker.drained().await;
    assert!(data(&poller.connect().await).is_empty());
}

#[tokio::test]
async fn unsubscribing_ends_delivery_and_may_be_repeated() {
    let server = Server::start(quick()).await;
    let (mut other, mut poller) = (server.poller().await, server.poller().await);
    other.subscribe("/a").await;
    poller.subscribe("/a").await;
    poller.subscribe("/a").await;
    for _ in 0..2 {
        let reply = poller.send(json!({"channel": "/meta/unsubscribe", "subscription": "/a"})).await;
        assert_eq!(last(&reply)["successful"], true);
    }
    server.publish("a", "1");
    server.broker.drained().await;
    assert!(data(&poller.connect().await).is_empty());
    let reply = poller.send(json!({"channel": "/meta/unsubscribe", "subscription": "/nobody"})).await;
    assert_eq!(last(&reply)["error"], "400::channel_missing");
}

#[tokio::test]
async fn subscriptions_of_a_session_are_bounded() {
    let mut config = quick();
    config.max_subscriptions = 2;
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    poller.subscribe("/a").await;
    poller.subscribe("/b").await;
    let reply = poller.send(json!({"channel": "/meta/subscribe", "subscription": "/c"})).await;
    assert_eq!(last(&reply)["successful"], false);
}

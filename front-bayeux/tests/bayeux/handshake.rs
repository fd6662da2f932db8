use serde_json::json;

use crate::support::{Server, last, quick};

#[tokio::test]
async fn a_handshake_gives_a_session_and_a_cookie() {
    let server = Server::start(quick()).await;
    let mut browser = server.browser().await;
    let body = json!([{"channel": "/meta/handshake", "version": "1.0", "id": "7", "minimumVersion": "1.0",
        "supportedConnectionTypes": ["long-polling"], "advice": {"timeout": 60000, "interval": 0}}]);
    let answer = browser.post(&body.to_string()).await;
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.starts_with("BAYEUX_BROWSER=") && cookie.ends_with("; Path=/; HttpOnly"), "{cookie}");
    assert_eq!(answer.header("content-type"), Some("application/json;charset=UTF-8"));
    let reply = &answer.messages()[0];
    assert_eq!(reply["successful"], true);
    assert_eq!(reply["id"], "7");
    assert_eq!((&reply["version"], &reply["minimumVersion"]), (&json!("1.0"), &json!("1.0")));
    assert_eq!(reply["supportedConnectionTypes"], json!(["websocket", "long-polling", "callback-polling"]));
    assert_eq!(reply["advice"], json!({"reconnect": "retry", "interval": 0, "timeout": 300}));
    let id = reply["clientId"].as_str().unwrap();
    assert!(id.len() >= 26 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
    assert!(browser.post(&body.to_string()).await.header("set-cookie").is_none(), "it has one now");
}

#[tokio::test]
async fn no_common_type_is_refused() {
    let server = Server::start(quick()).await;
    let body = r#"{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["iframe"]}"#;
    let reply = &server.browser().await.post(body).await.messages()[0];
    assert_eq!(reply["successful"], false);
    assert!(reply["error"].as_str().unwrap().starts_with("301:"), "{reply}");
    assert_eq!(reply["advice"]["reconnect"], "none");
    assert!(reply.get("clientId").is_none());
}

#[tokio::test]
async fn what_comes_with_a_handshake_is_not_applied() {
    let server = Server::start(quick()).await;
    let mut poller = server.poller().await;
    poller.subscribe("/leak").await;
    let id = poller.id.clone();
    let answer = poller
        .batch(&[
            json!({"channel": "/leak", "clientId": id, "data": 1}),
            json!({"channel": "/meta/handshake", "version": "1.0", "clientId": null,
                "supportedConnectionTypes": ["long-polling"]}),
            json!({"channel": "/leak", "clientId": id, "data": 2}),
        ])
        .await;
    assert_eq!(answer.len(), 1, "{answer:?}");
    assert_eq!(answer[0]["channel"], "/meta/handshake");
    assert_ne!(answer[0]["clientId"], json!(poller.id));
    let events = poller.connect().await;
    assert_eq!(events.len(), 1, "{events:?}");
}

#[tokio::test]
async fn ids_come_back_as_they_were() {
    let server = Server::start(quick()).await;
    let mut browser = server.browser().await;
    for id in ["\"a1\"", "17", "1.50", "\"\\u0061\""] {
        let body = format!(
            r#"[{{"channel":"/meta/handshake","supportedConnectionTypes":["long-polling"],"id":{id}}}]"#
        );
        let answer = browser.post(&body).await;
        assert!(answer.body.contains(&format!("\"id\":{id},")), "{}", answer.body);
    }
    let bad = r#"{"channel":"/meta/handshake","supportedConnectionTypes":["long-polling"],"id":"a-b"}"#;
    assert_eq!(last(&browser.post(bad).await.messages())["error"], "405::message_id_invalid");
}

#[tokio::test]
async fn max_interval_is_told_on_request() {
    let mut config = quick();
    config.handshake_reconnect = true;
    let server = Server::start(config).await;
    let reply = server.browser().await.handshake(json!({})).await;
    assert_eq!(reply["advice"]["maxInterval"], 1000);
}

#[tokio::test]
async fn sessions_per_address_are_bounded() {
    let mut config = quick();
    config.max_sessions_per_address = 2;
    let server = Server::start(config).await;
    let mut replies = Vec::new();
    for _ in 0..3 {
        replies.push(server.browser().await.handshake(json!({})).await["successful"].clone());
    }
    assert_eq!(replies, [true, true, false]);
}

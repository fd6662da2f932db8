//! Tokens as other services' clients send them: in other schemes, and in one of several cookies.

use fanwire::Action;
use fanwire::auth::Access;
use fanwire::edge::TokenPlaces;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::attempts::{key, may, server};
use crate::support::http::request;
use crate::support::{TestServer, within};

const SECRET: &str = "00Dxx0000001gPz!AQEAQ";

fn access() -> Access {
    let rights = may(&[Action::Publish, Action::Subscribe, Action::History], &["event/**"]);
    let mut given = Access::default();
    given.keys = vec![key("app", SECRET, rights)];
    given
}

/// What jsforce does with an access token, over long-polling.
#[tokio::test]
async fn a_client_written_for_salesforce_replays_with_rights_on() {
    let access = access();
    let server = TestServer::with(move |config| {
        config.authenticator = std::sync::Arc::new(fanwire::auth::BuiltIn::with(access).unwrap());
        config.bayeux.events.replay_in_data = vec![fanwire::Filter::parse("event/**").unwrap()];
    })
    .await;
    let authorization = format!("OAuth {SECRET}");
    let post = async |message: Value, authorization: &str| {
        let headers = [("authorization", authorization), ("content-type", "application/json")];
        request(server.http, "POST", "/cometd", &headers, json!([message]).to_string()).await
    };
    let headers = [("authorization", &*authorization), ("content-type", "application/json")];
    let event = r#"{"payload":{"Number__c":7}}"#;
    let published = request(server.http, "POST", "/v1/publish/event/Order__e", &headers, event).await;
    assert_eq!(published.status, 200);
    let shake = json!({"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"], "ext": {"replay": true}});
    for wrong in ["OAuth nobody", "OAuth", "Bogus 00Dxx0000001gPz!AQEAQ"] {
        let answer = post(shake.clone(), wrong).await.json();
        assert_eq!(answer[0]["successful"], false, "{wrong} {answer}");
    }
    let answer = post(shake, &authorization).await;
    let cookie = answer.header("set-cookie").and_then(|line| line.split(';').next()).expect("one").to_owned();
    let answer = answer.json();
    assert_eq!(
        (&answer[0]["successful"], &answer[0]["ext"]["replay"]),
        (&json!(true), &json!(true)),
        "{answer}"
    );
    let id = answer[0]["clientId"].as_str().expect("an id").to_owned();
    let ask = async |message: Value| {
        // A leftover of another path comes first, and one with odd bytes.
        let cookies = format!("name=J\u{fc}rgen; BAYEUX_BROWSER=leftover; {cookie}");
        let headers =
            [("authorization", &*authorization), ("content-type", "application/json"), ("cookie", &*cookies)];
        request(server.http, "POST", "/cometd", &headers, json!([message]).to_string()).await.json()
    };
    let subscribe = |channel: &str| json!({"channel": "/meta/subscribe", "clientId": id, "subscription": channel, "ext": {"replay": {channel: -2}}});
    let refused = ask(subscribe("/other")).await;
    assert_eq!(refused[0]["successful"], false, "{refused}");
    let mut answers = ask(subscribe("/event/Order__e")).await.as_array().expect("an array").clone();
    assert!(
        answers.iter().any(|reply| reply["channel"] == "/meta/subscribe" && reply["successful"] == true),
        "{answers:?}"
    );
    let connect = json!({"channel": "/meta/connect", "clientId": id, "connectionType": "long-polling"});
    for _ in 0..3 {
        if answers.iter().any(|message| message["channel"] == "/event/Order__e") {
            break;
        }
        answers.extend(ask(connect.clone()).await.as_array().expect("an array").clone());
    }
    let event = answers.iter().find(|message| message["channel"] == "/event/Order__e").expect("the event");
    assert_eq!(event["data"]["payload"]["Number__c"], 7, "{event}");
    assert!(event["data"]["event"]["replayId"].is_u64(), "{event}");
}

#[tokio::test]
async fn oauth_and_token_mean_what_bearer_means() {
    let server = server(access()).await;
    for scheme in ["Bearer", "OAuth", "Token", "oauth", "TOKEN"] {
        for (secret, status) in [(SECRET, 200), ("nobody", 401)] {
            let authorization = format!("{scheme} {secret}");
            let headers = [("authorization", &*authorization)];
            let answer = request(server.http, "POST", "/v1/publish/event/a", &headers, "x").await;
            assert_eq!(answer.status, status, "{authorization}");
            let stream = request(server.http, "HEAD", "/sse/event/a", &headers, "").await;
            assert_eq!(stream.status, status, "{authorization}");
        }
    }
}

#[tokio::test]
async fn of_two_cookies_with_one_name_each_is_tried_on_every_front() {
    let access = access();
    let server = TestServer::with(move |config| {
        config.authenticator = std::sync::Arc::new(fanwire::auth::BuiltIn::with(access).unwrap());
        let mut given = TokenPlaces::default();
        given.cookie = Some("fw".to_owned());
        given.query = false;
        let places = fanwire::edge::TokenSources::from(given);
        config.api.token_sources = places.clone();
        config.sse.token_sources = places.clone();
        config.mqtt_front.token_sources = places.clone();
        config.bayeux.token_sources = places;
    })
    .await;
    for (cookies, is_known) in [
        (format!("fw={SECRET}"), true),
        (format!("fw=leftover; a=b; fw={SECRET}"), true),
        (format!("fw={SECRET}; fw=leftover"), true),
        ("fw=leftover; fw=another".to_owned(), false),
    ] {
        let headers = [("cookie", &*cookies)];
        let status = if is_known { 200 } else { 401 };
        let answer = request(server.http, "POST", "/v1/publish/event/a", &headers, "x").await;
        assert_eq!(answer.status, status, "{cookies}");
        assert_eq!(
            request(server.http, "HEAD", "/sse/event/a", &headers, "").await.status,
            status,
            "{cookies}"
        );
        assert_eq!(bayeux_lets_in(&server, &cookies).await, is_known, "{cookies}");
        assert_eq!(mqtt_lets_in(&server, &cookies).await, is_known, "{cookies}");
    }
}

async fn bayeux_lets_in(server: &TestServer, cookies: &str) -> bool {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::Message;
    let mut upgrade = format!("ws://{}/cometd", server.http).into_client_request().unwrap();
    upgrade.headers_mut().insert("cookie", cookies.parse().unwrap());
    let (mut socket, _) = within(tokio_tungstenite::connect_async(upgrade)).await.unwrap();
    let shake =
        json!([{"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["websocket"]}]);
    socket.send(Message::text(shake.to_string())).await.unwrap();
    let answer = within(socket.next()).await.unwrap().unwrap().into_text().unwrap();
    serde_json::from_str::<Value>(&answer).unwrap()[0]["successful"] == true
}

async fn mqtt_lets_in(server: &TestServer, cookies: &str) -> bool {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::Message;
    let mut upgrade = format!("ws://{}/mqtt", server.http).into_client_request().unwrap();
    upgrade.headers_mut().insert("cookie", cookies.parse().unwrap());
    upgrade.headers_mut().insert("sec-websocket-protocol", "mqtt".parse().unwrap());
    let (mut socket, _) = within(tokio_tungstenite::connect_async(upgrade)).await.unwrap();
    // CONNECT of MQTT 3.1.1 without user name and password, as the browser's script has no token to give.
    socket.send(Message::binary(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c".to_vec())).await.unwrap();
    let answer = within(socket.next()).await.unwrap().unwrap().into_data();
    answer.get(3) == Some(&0)
}

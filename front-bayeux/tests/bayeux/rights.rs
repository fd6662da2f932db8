use std::sync::Arc;

use broker_core::{
    Action, AuthError, Authenticated, Authenticator, Broker, Credentials, Filter, Principal, Rights, Rule,
    Subscribed,
};
use front_bayeux::{ByRights, Denial, Front, Handshaken, Policy};
use serde_json::json;

use crate::support::{Server, data, last, quick};

/// Whoever knows the token may read everything but `secret/**` and write to `open/**`.
struct Token;

impl Authenticator for Token {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Authenticated<'a> {
        let filter = |text: &str| Filter::parse(text).unwrap();
        let known = credentials.token == Some("letmein")
            || (credentials.user == Some("u") && credentials.password == Some(b"p"));
        let rights = Rights::none()
            .allow(Rule::new([Action::Subscribe], filter("**")))
            .allow(Rule::new([Action::Publish], filter("open/**")))
            .deny(Rule::new([Action::Subscribe], filter("secret/**")));
        let result = if known { Ok(Principal::user_with("u", rights)) } else { Err(AuthError::Required) };
        Authenticated::now(result)
    }
}

#[tokio::test]
async fn handshakes_need_credentials() {
    let server = Server::start_with(quick(), Token).await;
    let reply = server.browser().await.handshake(json!({})).await;
    assert_eq!(reply["error"], "403::handshake_denied");
    assert_eq!(reply["advice"], json!({"reconnect": "none"}));
    for ext in [
        json!({"authentication": {"token": "letmein"}}),
        json!({"authentication": {"user": "u", "credentials": "p"}}),
    ] {
        assert_eq!(server.browser().await.handshake(ext).await["successful"], true);
    }
    let mut browser = server.browser().await;
    let body = r#"{"channel":"/meta/handshake","supportedConnectionTypes":["long-polling"]}"#;
    let answer = browser.exchange("POST /cometd", "Authorization: Bearer letmein\r\n", body).await;
    assert_eq!(answer.messages()[0]["successful"], true);
}

#[tokio::test]
async fn rights_are_asked_at_subscribe_and_publish() {
    let server = Server::start_with(quick(), Token).await;
    let mut poller = server.poller_with(json!({"authentication": {"token": "letmein"}})).await;
    let reply = poller.send(json!({"channel": "/closed/x", "data": 1})).await;
    assert_eq!(last(&reply)["error"], "403:denied_by_security_policy:publish_denied");
    let reply = poller.send(json!({"channel": "/open/x", "data": 1})).await;
    assert_eq!(last(&reply)["successful"], true);
    let reply = poller.send(json!({"channel": "/meta/subscribe", "subscription": "/secret/x"})).await;
    assert_eq!(last(&reply)["error"], "403:denied_by_security_policy:subscribe_denied");
    poller.subscribe("/**").await;
    server.publish("secret/x", "1");
    server.publish("other", "2");
    server.broker.drained().await;
    assert_eq!(data(&poller.connect().await), [2]);
}

#[tokio::test]
async fn denied_parts_of_a_wildcard_stay_hidden_over_websocket() {
    let server = Server::start_with(quick(), Token).await;
    let mut socket = server.socket_session(json!({"authentication": {"token": "letmein"}})).await;
    socket.subscribe("/**").await;
    server.publish("secret/x", "1");
    server.publish("other", "2");
    assert_eq!(socket.receive().await, [json!({"channel": "/other", "data": 2})]);
}

/// Grants every subscription.
struct Generous(ByRights);

impl Policy for Generous {
    fn can_handshake<'a>(&'a self, credentials: Credentials<'a>, ext: Option<&'a str>) -> Handshaken<'a> {
        self.0.can_handshake(credentials, ext)
    }

    fn can_subscribe(&self, _: &Principal, _: &Filter) -> Result<(), Denial> {
        Ok(())
    }
}

/// Only `own/**` may be read, and `*/secret/**` not at all.
struct Own;

impl Authenticator for Own {
    fn authenticate<'a>(&'a self, _: Credentials<'a>) -> Authenticated<'a> {
        let rule = |text: &str| Rule::new([Action::Subscribe], Filter::parse(text).unwrap());
        let rights = Rights::none().allow(rule("own/**")).deny(rule("*/secret/**"));
        Authenticated::now(Ok(Principal::anonymous(rights)))
    }
}

/// What is published for the two tests below: of the first two words nothing may be seen.
const WORDS: [(&str, &str); 4] =
    [("other/secret/x", "1"), ("own/secret/x", "2"), ("own/x", "3"), ("other/x", "4")];

#[tokio::test]
async fn what_a_policy_grants_is_seen_over_every_transport_but_for_what_is_denied() {
    let broker = Broker::new(broker_core::Config::default());
    let policy = Generous(ByRights(Arc::new(Own)));
    let front = Front::with_policy(broker.clone(), policy, quick());
    let server = Server::serve(broker, front).await;
    let mut poller = server.poller().await;
    let mut socket = server.socket_session(json!({})).await;
    poller.subscribe("/own/**").await;
    poller.subscribe("/other/**").await;
    socket.subscribe("/own/**").await;
    socket.subscribe("/other/**").await;
    for (channel, word) in WORDS {
        server.publish(channel, word);
    }
    server.broker.drained().await;
    assert_eq!(data(&poller.connect().await), [3, 4]);
    for (channel, word) in [("/own/x", 3), ("/other/x", 4)] {
        assert_eq!(socket.receive().await, [json!({"channel": channel, "data": word})]);
    }
}

#[tokio::test]
async fn what_an_operator_adds_is_seen_over_every_transport_but_for_what_is_denied() {
    let server = Server::start_with(quick(), Own).await;
    let mut poller = server.poller().await;
    let mut socket = server.socket_session(json!({})).await;
    for (_, client) in server.broker.connections(None, 5) {
        assert_eq!(client.subscribe(&Filter::parse("*/**").unwrap()), Ok(Subscribed::ADDED));
    }
    for (channel, word) in WORDS {
        server.publish(channel, word);
    }
    server.broker.drained().await;
    assert_eq!(data(&poller.connect().await), [3, 4]);
    for (channel, word) in [("/own/x", 3), ("/other/x", 4)] {
        assert_eq!(socket.receive().await, [json!({"channel": channel, "data": word})]);
    }
}

//! Streams as operators see and move them.

mod support;

use std::sync::Arc;

use broker_core::{
    Action, AllowAll, Anonymous, Channel, CloseCause, Connection, Filter, ForcedError, OutboxConfig,
    OutboxPolicy, Principal, Publish, Rights, Rule, SendError, Subscribed,
};
use front_sse::Config;
use support::{Client, Server, eventually};

fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

fn only(server: &Server) -> (broker_core::SubscriberKey, Arc<dyn Connection>) {
    let mut all = server.broker.connections(None, 10);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn direct(payload: &str) -> Publish {
    Publish::new(Channel::parse("direct").unwrap(), payload.to_owned()).event("note")
}

async fn open(server: &Server) -> Client {
    server.open_with("/sse?channel=a&channel=b/*&format=raw", "User-Agent: teapot/1\r\n").await
}

#[tokio::test]
async fn a_stream_says_who_it_is() {
    let server = Server::start().await;
    let client = open(&server).await;
    let (key, stream) = only(&server);
    let head = client.head.to_lowercase();
    assert!(head.contains(&format!("x-connection-id: {}\r\n", http_edge::connection_id(key))), "{head}");
    let peer = stream.peer().unwrap();
    assert_eq!((peer.protocol, peer.transport, peer.principal.user()), ("sse", "http/1.1", None));
    let details = stream.details();
    assert_eq!(details.remote.unwrap().to_string(), "127.0.0.1");
    assert_eq!(details.user_agent.as_deref(), Some("teapot/1"));
    assert_eq!(details.subscriptions, ["a", "b/*"]);
    assert!(details.last_active_ms >= peer.since_ms && peer.since_ms > 0);
    let channel = Channel::parse("b/1").unwrap();
    assert_eq!(server.broker.subscribers_of(&channel), [key]);
    drop((client, stream));
    eventually(|| server.broker.connections(None, 10).is_empty()).await;
    assert!(server.broker.subscribers_of(&channel).is_empty());
}

#[tokio::test]
async fn a_direct_message_is_an_event_without_an_id() {
    let server = Server::start().await;
    let mut client = open(&server).await;
    let (key, _) = only(&server);
    server.publish("a", "first");
    server.broker.send_to(key, direct("hello")).await.unwrap();
    assert!(client.event().await.ends_with("data: first\n\n"));
    assert_eq!(client.event().await, "event: note\ndata: hello\n\n");
}

#[tokio::test]
async fn a_stream_that_does_not_read_is_full_and_stays_open() {
    let outbox = OutboxConfig::new(1_000, 300_000, OutboxPolicy::Disconnect);
    let mut config = Config::default();
    config.outbox = outbox;
    let server = Server::with(broker_core::Config::default(), config, Arc::new(AllowAll)).await;
    let mut client = open(&server).await;
    client.until("\n").await;
    let (key, stream) = only(&server);
    let big = "x".repeat(100_000);
    let mut accepted = 0;
    let refused = loop {
        match server.broker.send_to(key, direct(&big)).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 1_000, "it never fills");
    };
    assert_eq!(refused, SendError::Full);
    assert!(stream.queued().bytes > 0);
    for _ in 0..accepted {
        assert_eq!(client.event().await.len(), "event: note\ndata: \n\n".len() + big.len());
    }
    assert!(stream.peer().is_some());
}

#[tokio::test]
async fn closing_a_stream_says_why_and_when_to_come_back() {
    let server = Server::start().await;
    for (why, text) in [
        (CloseCause::Administrative(Some("tidying up".to_owned())), ": tidying up\nretry: "),
        (CloseCause::Administrative(None), ": closed by an operator\nretry: "),
        (CloseCause::RightsChanged, ": rights changed, reconnect\nretry: "),
    ] {
        let mut client = open(&server).await;
        let (_, stream) = only(&server);
        stream.close(&why);
        let rest = client.rest().await;
        assert!(rest.contains(text), "{rest}");
        drop(stream);
        eventually(|| server.broker.connections(None, 10).is_empty()).await;
    }
}

#[tokio::test]
async fn a_stream_can_be_subscribed_by_force_within_its_bound() {
    let mut config = Config::default();
    config.max_filters = 3;
    let server = Server::with(broker_core::Config::default(), config, Arc::new(AllowAll)).await;
    let mut client = open(&server).await;
    let (_, stream) = only(&server);
    assert_eq!(stream.subscribe(&filter("a")), Ok(Subscribed::THERE));
    assert_eq!(stream.subscribe(&filter("forced/#")), Ok(Subscribed::ADDED));
    assert_eq!(stream.subscribe(&filter("more")), Err(ForcedError::TooMany { max: 3 }));
    server.publish("forced/x", "1");
    assert!(client.event().await.ends_with("data: 1\n\n"));
    assert!(stream.unsubscribe(&filter("forced/#")) && stream.unsubscribe(&filter("a")));
    assert!(!stream.unsubscribe(&filter("a")));
    for name in ["forced/x", "a", "b/1"] {
        server.publish(name, name);
    }
    assert!(client.event().await.ends_with("data: b/1\n\n"));
}

#[tokio::test]
async fn a_stream_that_is_subscribed_by_force_does_not_show_what_is_denied() {
    let rule = |text: &str| Rule::new([Action::Subscribe], filter(text));
    let rights = Rights::none().allow(rule("a")).allow(rule("b/*")).deny(rule("*/secret/#"));
    let authenticator = Arc::new(Anonymous(Principal::anonymous(rights)));
    let server = Server::with(broker_core::Config::default(), Config::default(), authenticator).await;
    let mut client = open(&server).await;
    let (_, stream) = only(&server);
    assert_eq!(stream.subscribe(&filter("forced/#")), Ok(Subscribed::ADDED));
    for name in ["forced/secret/x", "forced/x"] {
        server.publish(name, name);
    }
    assert!(client.event().await.ends_with("data: forced/x\n\n"));
}

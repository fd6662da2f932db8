use broker_core::{Channel, CloseCause, Connection, Filter, ForcedError, Publish, SendError, SubscriberKey};
use serde_json::json;

use crate::support::{Server, data, last, ms, quick};

fn only(server: &Server) -> (SubscriberKey, std::sync::Arc<dyn Connection>) {
    let mut found = server.broker.connections(None, 10);
    assert_eq!(found.len(), 1);
    found.remove(0)
}

fn message(channel: &str) -> Publish {
    Publish::new(Channel::parse(channel).unwrap(), "7").json()
}

#[tokio::test]
async fn a_session_is_a_connection_from_its_handshake_to_its_end() {
    let server = Server::start(quick()).await;
    assert!(server.broker.connections(None, 10).is_empty());
    let mut poller = server.poller().await;
    poller.subscribe("/a/*").await;
    let (_, connection) = only(&server);
    let peer = connection.peer().unwrap();
    assert_eq!((peer.protocol, peer.transport), ("bayeux", "long-polling"));
    assert!(peer.since_ms > 1_700_000_000_000);
    let details = connection.details();
    assert_eq!(details.subscriptions, ["a/*"]);
    assert!(details.last_active_ms >= peer.since_ms && details.remote.is_some());
    server.publish("a/x", "1");
    server.broker.drained().await;
    assert_eq!(connection.queued().messages, 1);
    poller.send(json!({"channel": "/meta/disconnect"})).await;
    assert!(connection.peer().is_none());
    drop(connection);
    assert!(server.broker.connections(None, 10).is_empty());
}

#[tokio::test]
async fn one_client_is_addressed_whatever_it_is_subscribed_to() {
    let server = Server::start(quick()).await;
    let poller = server.poller().await;
    let (key, _) = only(&server);
    let held = poller.hold();
    tokio::time::sleep(ms(30)).await;
    server.broker.send_to(key, message("direct/x")).await.unwrap();
    assert_eq!(held.await.unwrap()[0], json!({"channel": "/direct/x", "data": 7}));
    assert_eq!(server.broker.send_to(key, message("a//b")).await, Err(SendError::Inexpressible));
}

#[tokio::test]
async fn a_socket_is_addressed_too() {
    for ext in [json!({}), json!({"ack": true})] {
        let server = Server::start(quick()).await;
        let mut socket = server.socket_session(ext.clone()).await;
        socket.send(json!([{"channel": "/meta/connect", "clientId": socket.id, "ext": {"ack": 1}}])).await;
        tokio::time::sleep(ms(30)).await;
        let (key, connection) = only(&server);
        assert_eq!(connection.peer().unwrap().transport, "websocket");
        server.broker.send_to(key, message("direct")).await.unwrap();
        assert_eq!(socket.receive().await[0], json!({"channel": "/direct", "data": 7}), "{ext}");
    }
}

#[tokio::test]
async fn a_full_queue_refuses_a_direct_message_and_keeps_the_session() {
    let mut config = quick();
    config.max_queue_messages = 1;
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    let (key, _) = only(&server);
    server.broker.send_to(key, message("a")).await.unwrap();
    assert_eq!(server.broker.send_to(key, message("a")).await, Err(SendError::Full));
    assert_eq!(data(&poller.connect().await), [7]);
}

#[tokio::test]
async fn a_connection_that_is_closed_is_told_to_stay_away_or_to_come_back() {
    for (why, reconnect) in [
        (CloseCause::Administrative(None), "none"),
        (CloseCause::Expired, "handshake"),
        (CloseCause::RightsChanged, "handshake"),
    ] {
        let server = Server::start({
            let mut config = quick();
            config.timing = Default::default();
            config
        })
        .await;
        let poller = server.poller().await;
        let held = poller.hold();
        let mut socket = server.socket_session(json!({})).await;
        socket.send(json!([{"channel": "/meta/connect", "clientId": socket.id}])).await;
        tokio::time::sleep(ms(50)).await;
        for (_, connection) in server.broker.connections(None, 10) {
            connection.close(&why);
        }
        let over_polling = held.await.unwrap();
        let mut over_socket = socket.receive().await;
        if over_socket[0]["channel"] == "/meta/disconnect" {
            over_socket.extend(socket.receive().await);
        }
        for answer in [over_polling, over_socket] {
            assert_eq!(last(&answer)["advice"]["reconnect"], reconnect, "{answer:?}");
            assert_eq!(answer[0]["channel"] == "/meta/disconnect", reconnect == "none", "{answer:?}");
        }
        assert!(
            server.broker.connections(None, 10).iter().all(|(_, connection)| connection.peer().is_none())
        );
    }
}

#[tokio::test]
async fn a_client_is_subscribed_and_unsubscribed_by_force() {
    let mut config = quick();
    config.max_subscriptions = 2;
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    let (_, connection) = only(&server);
    let filter = |text: &str| Filter::parse(text).unwrap();
    assert!(connection.subscribe(&filter("a/#")).unwrap().new);
    assert!(!connection.subscribe(&filter("a/#")).unwrap().new);
    assert_eq!(connection.subscribe(&filter("service/x")), Err(ForcedError::Inexpressible));
    assert!(connection.subscribe(&filter("b")).unwrap().new);
    assert_eq!(connection.subscribe(&filter("c")), Err(ForcedError::TooMany { max: 2 }));
    server.publish("a/x", "1");
    server.publish("b", "2");
    server.broker.drained().await;
    assert_eq!(data(&poller.connect().await), [1, 2]);
    assert!(connection.unsubscribe(&filter("b")) && !connection.unsubscribe(&filter("b")));
    server.publish("b", "3");
    server.publish("a", "4");
    server.broker.drained().await;
    assert_eq!(data(&poller.connect().await), [4]);
}

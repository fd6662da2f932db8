use std::time::Duration;

use rumqttc::QoS;

use crate::support::TestServer;
use crate::support::bayeux::Poller;
use crate::support::http::{get, post};
use crate::support::mqtt::Client;
use crate::support::sse::EventStream;

#[tokio::test]
async fn an_expired_message_is_sent_from_no_queue_no_replay_and_no_store() {
    let server = TestServer::start().await;
    let mut poller = Poller::handshake(server.http).await;
    poller.subscribe("/a").await;
    poller.connect().await;
    let before = server.broker.head();
    assert_eq!(post(server.http, "/v1/publish/a?ttl=0.2&retain=true", "\"short\"").await.status, 200);
    assert_eq!(post(server.http, "/v1/publish/a", "\"long\"").await.status, 200);
    tokio::time::sleep(Duration::from_millis(400)).await;

    let events = poller.events(1).await;
    assert_eq!(events[0]["data"], "long", "{events:?}");
    let mut stream = EventStream::open(server.http, &format!("/sse/a?last_event_id={before}")).await;
    assert_eq!(stream.data().await, "\"long\"", "and no gap either");
    assert_eq!(get(server.http, "/v1/retained/a").await.status, 404);
    let mut device = Client::connect(server.mqtt, "device").await;
    device.subscribe("a", QoS::AtMostOnce).await;
    server.publish("a", "live");
    assert_eq!(device.payload().await, "live");
}

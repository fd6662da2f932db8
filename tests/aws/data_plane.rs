use rumqttc::QoS;
use serde_json::json;

use crate::support::TestServer;
use crate::support::bayeux::Poller;
use crate::support::http::{Answer, get, post, request};
use crate::support::mqtt::{Bare, Client};
use crate::support::sse::EventStream;
use crate::{unsigned, with};

fn kind(answer: &Answer) -> &str {
    answer.header("x-amzn-errortype").unwrap_or_default()
}

#[tokio::test]
async fn a_publish_is_the_brokers_whoever_reads_it() {
    let server = unsigned().await;
    let mut stream = EventStream::open(server.http, "/sse/a/b").await;
    let mut mqtt = Client::connect(server.mqtt, "reader").await;
    mqtt.subscribe("a/+", QoS::AtLeastOnce).await;
    let answer = post(server.http, "/topics/a%2Fb?qos=1&retain=true", "x").await;
    assert_eq!((answer.status, &answer.json()["message"]), (200, &json!("OK")));
    assert_eq!(answer.header("x-amzn-requestid"), answer.json()["traceId"].as_str());
    assert_eq!(stream.data().await, "x");
    let message = mqtt.message().await;
    assert_eq!((&*message.topic, message.qos), ("a/b", QoS::AtLeastOnce));
    assert_eq!(get(server.http, "/v1/retained/a/b?format=raw").await.text(), "x");
    assert_eq!(get(server.http, "/v1/history/a/b").await.json()["messages"][0]["text"], "x");
    assert_eq!(get(server.http, "/retainedMessage/a/b").await.json()["payload"], "eA==");
    let metrics = get(server.http, "/metrics").await;
    for line in ["fanwire_aws_requests_total 2", "fanwire_aws_published_messages_total 1"] {
        assert!(metrics.text().lines().any(|shown| shown == line), "{line} in\n{}", metrics.text());
    }
}

#[tokio::test]
async fn what_is_not_signed_is_refused_before_anything_is_done() {
    let server = with(|_| {}).await;
    let answer = post(server.http, "/topics/a?retain=true", "x").await;
    assert_eq!((answer.status, kind(&answer)), (403, "MissingAuthenticationTokenException"));
    assert!(answer.header("x-amzn-requestid").is_some() && answer.json()["message"].is_string());
    let bearer = [("authorization", "Bearer x")];
    let answer = request(server.http, "POST", "/topics/a", &bearer, "x").await;
    assert_eq!((answer.status, kind(&answer)), (403, "IncompleteSignatureException"));
    assert!(server.broker.retained(&fanwire::Channel::parse("a").unwrap()).is_none());
    // What is not AWS' stays with the others.
    assert_eq!(get(server.http, "/v1/retained/a").await.code(), "not_retained");
}

#[tokio::test]
async fn a_page_of_another_origin_cannot_ask_where_nothing_is_signed() {
    let server = unsigned().await;
    let page = [("origin", "https://elsewhere.example")];
    let answer = request(server.http, "POST", "/topics/a", &page, "x").await;
    assert_eq!((answer.status, kind(&answer)), (403, "ForbiddenException"));
    assert_eq!(server.broker.stats().published, 0);
}

#[tokio::test]
async fn what_cannot_be_meant_is_said_by_its_name() {
    let server = unsigned().await;
    for (method, target, status, expected) in [
        ("GET", "/topics/a", 405, "MethodNotAllowedException"),
        ("POST", "/topics/a%2F%23", 400, "InvalidRequestException"),
        ("POST", "/topics/", 400, "InvalidRequestException"),
        ("POST", "/topics/a?qos=2", 400, "InvalidRequestException"),
        ("POST", "/topics/a?retain=yes", 400, "InvalidRequestException"),
        ("POST", "/topics/$aws/things/x/shadow/update", 403, "ForbiddenException"),
        ("GET", "/retainedMessage/none", 404, "ResourceNotFoundException"),
        ("GET", "/retainedMessage?maxResults=0", 400, "InvalidRequestException"),
        ("GET", "/retainedMessage?nextToken=*", 400, "InvalidRequestException"),
        ("GET", "/connections/nobody", 404, "ResourceNotFoundException"),
        ("POST", "/connections/nobody/messages", 400, "InvalidRequestException"),
        ("POST", "/connections/nobody/messages?topic=t", 404, "ResourceNotFoundException"),
    ] {
        let answer = request(server.http, method, target, &[], "x").await;
        assert_eq!((answer.status, kind(&answer)), (status, expected), "{method} {target}");
    }
    let zipped = [("content-encoding", "gzip")];
    let answer = request(server.http, "POST", "/topics/a", &zipped, "x").await;
    assert_eq!((answer.status, kind(&answer)), (415, "UnsupportedDocumentEncodingException"));
}

#[tokio::test]
async fn an_empty_retained_publish_forgets() {
    let server = unsigned().await;
    post(server.http, "/topics/a?retain=true", "x").await;
    assert_eq!(get(server.http, "/retainedMessage/a").await.status, 200);
    post(server.http, "/topics/a?retain=true", "").await;
    assert_eq!(get(server.http, "/retainedMessage/a").await.status, 404);
}

#[tokio::test]
async fn the_brokers_own_topics_are_closed_to_clients_of_every_protocol() {
    let server = TestServer::start().await;
    let mut reader = Client::connect(server.mqtt, "reader").await;
    reader.subscribe("$aws/#", QoS::AtLeastOnce).await;
    let forger = Client::connect(server.mqtt, "forger").await;
    forger.publish("$aws/events/x", QoS::AtLeastOnce, "forged").await;
    let answer = post(server.http, "/v1/publish/$aws/events/x", "forged").await;
    assert_eq!((answer.status, &*answer.code()), (403, "reserved_channel"));
    let mut poller = Poller::handshake(server.http).await;
    let (id, channel) = (poller.client_id.clone(), "/$aws/events/x");
    let answer = poller.post(&json!([{ "channel": channel, "clientId": id, "data": {} }])).await;
    assert_eq!(answer[0]["successful"], false, "{answer}");
    // A will is refused with its CONNECT (MQTT 3.1.1 §3.2.2.3, code 5).
    let mut bare = Bare::connect(server.mqtt).await;
    let mut connect = b"\x10\x18\x00\x04MQTT\x04\x06\x00\x3c\x00\x01w\x00\x06$aws/x\x00\x01x".to_vec();
    connect[1] = u8::try_from(connect.len() - 2).unwrap();
    bare.send(&connect).await;
    assert_eq!(bare.receive(4).await, [0x20, 2, 0, 5]);
    server.publish("$aws/events/x", "of the broker");
    assert_eq!(reader.payload().await, "of the broker");
}

#[tokio::test]
async fn a_direct_message_waits_for_its_acknowledgement() {
    let server = unsigned().await;
    let mut bare = Bare::shake_hands(server.mqtt, "c").await;
    let target = "/connections/c/messages?topic=t&confirmation=true&timeout=20";
    let sent = tokio::spawn(post(server.http, target, "hi"));
    // PUBLISH at QoS 1 with the identifier 1.
    assert_eq!(bare.receive(9).await, b"\x32\x07\x00\x01t\x00\x01hi");
    assert!(!sent.is_finished());
    bare.send(&[0x40, 2, 0, 1]).await;
    assert_eq!(sent.await.unwrap().json()["message"], "OK");
    // A client that leaves instead is not waited for.
    let sent = tokio::spawn(post(server.http, target, "hi"));
    bare.receive(9).await;
    drop(bare);
    let answer = crate::support::within(sent).await.unwrap();
    assert_eq!((answer.status, kind(&answer)), (504, "GatewayTimeoutException"));
    let answer = post(server.http, target, "hi").await;
    assert_eq!((answer.status, kind(&answer)), (404, "ResourceNotFoundException"));
}

#[tokio::test]
async fn a_message_that_its_client_does_not_take_is_refused_at_once() {
    let server = unsigned().await;
    let mut bare = Bare::connect(server.mqtt).await;
    // CONNECT of version 5 with a maximum packet size of 20.
    bare.send(b"\x10\x13\x00\x04MQTT\x05\x02\x00\x3c\x05\x27\x00\x00\x00\x14\x00\x01c").await;
    assert_eq!(bare.receive(2).await[0], 0x20);
    let target = "/connections/c/messages?topic=t&confirmation=true&timeout=20";
    let answer = post(server.http, target, "x".repeat(100)).await;
    assert_eq!((answer.status, kind(&answer)), (400, "InvalidRequestException"));
}

#[tokio::test]
async fn a_session_that_waits_is_told_of() {
    let server = unsigned().await;
    let mut client =
        Client::connect_with(server.mqtt, "s", |options| _ = options.set_clean_session(false)).await;
    client.subscribe("a/#", QoS::AtLeastOnce).await;
    let one = get(server.http, "/connections/s").await.json();
    assert_eq!((&one["connected"], &one["cleanSession"]), (&json!(true), &json!(false)), "{one}");
    assert!(one["connectedSince"].is_u64() && one.get("sourceIp").is_none(), "{one}");
    client.kill();
    let one = crate::support::within(async {
        loop {
            let one = get(server.http, "/connections/s").await.json();
            if one["connected"] == false {
                break one;
            }
        }
    })
    .await;
    assert_eq!(one["disconnectReason"], "CONNECTION_LOST");
    let held = get(server.http, "/connections/s/subscriptions").await.json();
    assert_eq!(held, json!({ "subscriptions": [{ "topicFilter": "a/#", "qos": 1 }] }));
    let answer = request(server.http, "DELETE", "/connections/s", &[], "").await;
    assert_eq!((answer.status, kind(&answer)), (404, "ResourceNotFoundException"));
}

#[tokio::test]
async fn a_closed_connection_hears_of_it() {
    let server = unsigned().await;
    let mut client = Client::connect(server.mqtt, "c").await;
    let answer = request(server.http, "DELETE", "/connections/c?cleanSession=true", &[], "").await;
    assert_eq!((answer.status, answer.text()), (200, ""));
    client.ended().await;
}

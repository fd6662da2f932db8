use rumqttc::QoS;
use serde_json::{Value, json};

use crate::support::bayeux::Poller;
use crate::support::http::{get, post, request};
use crate::support::mqtt::Client;
use crate::{unsigned, with};

/// The next message of a thing: what is behind its name, and the document.
async fn next(client: &mut Client) -> (String, Value) {
    let message = client.message().await;
    let end = message.topic.strip_prefix("$aws/things/lamp/shadow/").expect("the lamp's").to_owned();
    (end, serde_json::from_slice(&message.payload).unwrap())
}

const UPDATE: &str = "$aws/things/lamp/shadow/update";

#[tokio::test]
async fn a_shadow_is_asked_by_mqtt_and_answered_to_whoever_listens() {
    let server = unsigned().await;
    let mut watcher = Client::connect(server.mqtt, "watcher").await;
    watcher.subscribe("$aws/things/lamp/shadow/#", QoS::AtLeastOnce).await;
    let device = Client::connect(server.mqtt, "device").await;
    let ask = async |topic: &str, payload: &str| device.publish(topic, QoS::AtLeastOnce, payload).await;
    ask("$aws/things/lamp/shadow/get", "").await;
    let (end, rejected) = next(&mut watcher).await;
    assert_eq!((&*end, &rejected["code"]), ("get/rejected", &json!(404)));
    ask(UPDATE, r#"{"state":{"desired":{"on":true}},"clientToken":"t"}"#).await;
    let (end, accepted) = next(&mut watcher).await;
    assert_eq!(
        (&*end, &accepted["version"], &accepted["clientToken"]),
        ("update/accepted", &json!(1), &json!("t"))
    );
    let (end, documents) = next(&mut watcher).await;
    assert_eq!(
        (&*end, &documents["current"]["state"]),
        ("update/documents", &json!({"desired":{"on":true}}))
    );
    let (end, delta) = next(&mut watcher).await;
    assert_eq!((&*end, &delta["state"]), ("update/delta", &json!({"on":true})));
    ask(UPDATE, r#"{"state":{"reported":{"on":true}},"version":7}"#).await;
    let (end, rejected) = next(&mut watcher).await;
    assert_eq!((&*end, &rejected["code"]), ("update/rejected", &json!(409)));
    ask(UPDATE, r#"{"state":{"reported":{"on":true}},"version":1}"#).await;
    assert_eq!(next(&mut watcher).await.0, "update/accepted");
    assert_eq!(next(&mut watcher).await.0, "update/documents");
    // Nothing differs any more, so what comes next is the answer to the next question.
    ask("$aws/things/lamp/shadow/get", "").await;
    let (end, document) = next(&mut watcher).await;
    assert_eq!((&*end, &document["version"]), ("get/accepted", &json!(2)));
    assert!(document["state"].get("delta").is_none(), "{document}");
    ask("$aws/things/lamp/shadow/delete", "").await;
    assert_eq!(next(&mut watcher).await.0, "delete/accepted");
}

#[tokio::test]
async fn answers_cannot_be_forged_and_requests_are_published_nowhere() {
    let server = unsigned().await;
    let mut watcher = Client::connect(server.mqtt, "watcher").await;
    watcher.subscribe("$aws/things/lamp/shadow/#", QoS::AtLeastOnce).await;
    let forger = Client::connect(server.mqtt, "forger").await;
    for end in ["update/accepted", "update/delta", "get/accepted", "else"] {
        forger.publish(&format!("$aws/things/lamp/shadow/{end}"), QoS::AtLeastOnce, "{}").await;
    }
    let answer = post(server.http, "/v1/publish/$aws/things/lamp/shadow/update", "{}").await;
    assert_eq!(answer.status, 403);
    let mut poller = Poller::handshake(server.http).await;
    let (id, channel) = (poller.client_id.clone(), format!("/{UPDATE}"));
    let answer = poller.post(&json!([{ "channel": channel, "clientId": id, "data": {} }])).await;
    assert_eq!(answer[0]["successful"], false, "{answer}");
    forger.publish(UPDATE, QoS::AtLeastOnce, r#"{"state":{"reported":{"x":1}}}"#).await;
    assert_eq!(next(&mut watcher).await.0, "update/accepted");
}

#[tokio::test]
async fn http_changes_the_same_shadow_and_publishes_it() {
    let server = unsigned().await;
    let mut watcher = Client::connect(server.mqtt, "watcher").await;
    watcher.subscribe("$aws/things/lamp/shadow/#", QoS::AtLeastOnce).await;
    let answer = post(server.http, "/things/lamp/shadow?name=s", r#"{"state":{"desired":{"on":1.0}}}"#).await;
    assert_eq!((answer.status, &answer.json()["version"]), (200, &json!(1)));
    for expected in ["name/s/update/accepted", "name/s/update/documents", "name/s/update/delta"] {
        assert_eq!(next(&mut watcher).await.0, expected);
    }
    let answer = get(server.http, "/things/lamp/shadow?name=s").await;
    assert!(answer.text().contains(r#""desired":{"on":1.0}"#), "{}", answer.text());
    for (method, target, body, status, kind) in [
        ("GET", "/things/lamp/shadow", "", 404, "ResourceNotFoundException"),
        ("POST", "/things/lamp/shadow?name=s", "{}", 400, "InvalidRequestException"),
        ("POST", "/things/lamp/shadow?name=s", r#"{"state":{},"version":9}"#, 409, "ConflictException"),
        ("GET", "/things/a%20b/shadow", "", 400, "InvalidRequestException"),
        ("GET", "/things/lamp/shadow?name=", "", 400, "InvalidRequestException"),
        ("PUT", "/things/lamp/shadow", "", 405, "MethodNotAllowedException"),
    ] {
        let answer = request(server.http, method, target, &[], body).await;
        let found = answer.header("x-amzn-errortype");
        assert_eq!((answer.status, found), (status, Some(kind)), "{method} {target} {body}");
    }
    let large = "x".repeat(9_000);
    assert_eq!(post(server.http, "/things/lamp/shadow", large).await.status, 413);
    let list = get(server.http, "/api/things/shadow/ListNamedShadowsForThing/lamp").await;
    assert_eq!(list.json()["results"], json!(["s"]));
    let gone = request(server.http, "DELETE", "/things/lamp/shadow?name=s", &[], "").await;
    assert_eq!((gone.status, &gone.json()["version"]), (200, &json!(1)));
    // What HTTP was refused was published nowhere.
    assert_eq!(next(&mut watcher).await.0, "name/s/delete/accepted");
}

#[tokio::test]
async fn documents_come_in_the_order_of_their_versions() {
    let server = unsigned().await;
    let mut watcher = Client::connect(server.mqtt, "watcher").await;
    watcher.subscribe("$aws/things/lamp/shadow/update/documents", QoS::AtLeastOnce).await;
    let updates = (0..40).map(|number| {
        let http = server.http;
        tokio::spawn(async move {
            post(http, "/things/lamp/shadow", format!(r#"{{"state":{{"reported":{{"n":{number}}}}}}}"#))
                .await
                .status
        })
    });
    for update in updates.collect::<Vec<_>>() {
        assert_eq!(update.await.unwrap(), 200);
    }
    for version in 1..=40 {
        assert_eq!(next(&mut watcher).await.1["current"]["version"], version);
    }
}

#[tokio::test]
async fn without_the_front_nobody_answers() {
    let server = with(|config| config.iot = false).await;
    assert_eq!(get(server.http, "/things/lamp/shadow").await.status, 404);
    let client = Client::connect(server.mqtt, "c").await;
    client.publish(UPDATE, QoS::AtLeastOnce, "{}").await;
    client.publish("a", QoS::AtLeastOnce, "the connection lives").await;
}

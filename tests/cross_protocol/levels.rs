//! A name or filter of thousands of levels is refused at every edge in its own words, and the server lives on.

use serde_json::json;

use crate::support::bayeux::Poller;
use crate::support::http::{get, post_json, request};
use crate::support::mqtt::{Bare, Client};
use crate::support::sse::EventStream;
use crate::support::{TestServer, eventually};

fn levels(segment: &str, count: usize) -> String {
    vec![segment; count].join("/")
}

fn string(text: &str) -> Vec<u8> {
    let mut out = u16::try_from(text.len()).expect("a short text").to_be_bytes().to_vec();
    out.extend_from_slice(text.as_bytes());
    out
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    loop {
        let more = rest > 127;
        out.push((rest % 128) as u8 | if more { 0x80 } else { 0 });
        rest /= 128;
        if !more {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

/// The next packet's first byte and body; all of them are short.
async fn answer(bare: &mut Bare) -> (u8, Vec<u8>) {
    let head = bare.receive(2).await;
    (head[0], bare.receive(usize::from(head[1])).await)
}

fn connect(level: u8, id: &str, will: Option<&str>) -> Vec<u8> {
    let name = if level == 3 { "MQIsdp" } else { "MQTT" };
    let mut body = string(name);
    body.extend_from_slice(&[level, if will.is_some() { 0x06 } else { 0x02 }, 0, 60]);
    let properties: &[u8] = if level == 5 { &[0] } else { &[] };
    body.extend_from_slice(properties);
    body.extend(string(id));
    if let Some(will) = will {
        body.extend_from_slice(properties);
        body.extend(string(will));
        body.extend(string("gone"));
    }
    packet(0x10, &body)
}

async fn connected(server: &TestServer, level: u8) -> Bare {
    let mut bare = Bare::connect(server.mqtt).await;
    bare.send(&connect(level, &format!("v{level}"), None)).await;
    let (first, body) = answer(&mut bare).await;
    assert_eq!((first, body[1]), (0x20, 0));
    bare
}

#[tokio::test]
async fn mqtt_refuses_a_filter_of_too_many_levels_in_suback() {
    let server = TestServer::start().await;
    for level in [3, 4, 5] {
        let mut bare = connected(&server, level).await;
        let refused = if level == 5 { 0x8f } else { 0x80 };
        for filter in [
            levels("+", 7_000),
            format!("$share/group/{}", levels("+", 7_000)),
            format!("sensor/{}/#", levels("+", 128)),
            levels("a", 129),
        ] {
            let properties: &[u8] = if level == 5 { &[0] } else { &[] };
            // The others of its packet are taken.
            let filters =
                [string("fine/+"), vec![0], string(&filter), vec![0], string("fine"), vec![0]].concat();
            bare.send(&packet(0x82, &[&[0, 1], properties, &filters].concat())).await;
            let (first, body) = answer(&mut bare).await;
            assert_eq!(
                (first, &body[body.len() - 3..]),
                (0x90, &[0, refused, 0][..]),
                "{level} {}",
                filter.len()
            );
        }
    }
    assert_eq!(server.broker.stats().refused_levels, 12);
    Client::connect(server.mqtt, "still served").await;
}

#[tokio::test]
async fn mqtt_does_not_publish_to_a_topic_of_too_many_levels() {
    let server = TestServer::start().await;
    let topic = levels("a", 9_000);
    for (level, qos, expected) in [
        (4, 0x02, &[0x40_u8, 0, 1][..]),
        (4, 0x04, &[0x50, 0, 1]),
        (5, 0x02, &[0x40, 0, 1, 0x90]),
        (5, 0x04, &[0x50, 0, 1, 0x90]),
        (5, 0, &[0xd0]),
    ] {
        let mut bare = connected(&server, level).await;
        let mut body = string(&topic);
        if qos != 0 {
            body.extend_from_slice(&[0, 1]);
        }
        if level == 5 {
            body.push(0);
        }
        body.extend_from_slice(b"x");
        bare.send(&packet(0x31 | qos, &body)).await;
        bare.send(&[0xc0, 0]).await;
        let (first, body) = answer(&mut bare).await;
        let said = [&[first], &body[..]].concat();
        assert!(said.starts_with(expected), "{level} {qos}: {said:?}");
    }
    let stats = server.broker.stats();
    assert_eq!((stats.refused_levels, stats.refused), (5, 5));
    let kept = server.broker.retained_matching(&fanwire::Filter::parse("a/#").expect("a filter"));
    assert!(kept.is_empty());
}

#[tokio::test]
async fn mqtt_refuses_a_will_on_a_topic_of_too_many_levels() {
    let server = TestServer::start().await;
    let mut bare = Bare::connect(server.mqtt).await;
    bare.send(&connect(5, "v5", Some(&levels("a", 9_000)))).await;
    let (first, body) = answer(&mut bare).await;
    assert_eq!((first, body[1]), (0x20, 0x90));
    let mut bare = Bare::connect(server.mqtt).await;
    bare.send(&connect(4, "v4", Some(&levels("a", 129)))).await;
    assert!(bare.rest().await.is_empty(), "version 3 has no code for it");
    assert_eq!(server.broker.stats().refused_levels, 2);
}

#[tokio::test]
async fn http_and_event_streams_answer_400_too_many_levels() {
    let server = TestServer::with(|config| config.connection.max_header_bytes = 64 << 10).await;
    let deep = levels("a", 8_000);
    let stars = levels("*", 8_000);
    let mut client = Client::connect(server.mqtt, "c").await;
    client.subscribe("x", rumqttc::QoS::AtMostOnce).await;
    let id = get(server.http, "/v1/connections").await.json()["connections"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    for (method, target) in [
        ("POST", format!("/v1/publish/{deep}")),
        ("PUT", format!("/v1/retained/{deep}")),
        ("GET", format!("/v1/retained/{deep}")),
        ("DELETE", format!("/v1/retained/{deep}")),
        ("GET", format!("/v1/history/{deep}")),
        ("GET", format!("/v1/history/{stars}")),
        ("GET", format!("/v1/history/{stars}?wait=1")),
        ("GET", format!("/v1/channels/{deep}")),
        ("GET", format!("/v1/presence/{deep}")),
        ("PUT", format!("/v1/connections/{id}/subscriptions/{stars}")),
        ("POST", format!("/v1/connections/{id}/messages?channel={deep}")),
        ("GET", format!("/sse/{stars}")),
        ("GET", format!("/sse/{deep}")),
        ("GET", format!("/sse?channel=fine&channel={stars}")),
        ("GET", format!("/sse/{stars}?last_event_id=earliest")),
    ] {
        let answer = request(server.http, method, &target, &[], "x").await;
        let short: String = target.chars().take(60).collect();
        assert_eq!((answer.status, &*answer.code()), (400, "too_many_levels"), "{method} {short}");
        assert!(answer.body.len() < 600 || target.contains("/v1/"), "{short}");
    }
    let item = json!([{"channel": deep, "data": 1}, {"channel": "fine", "data": 1}]).to_string();
    let answer = post_json(server.http, "/v1/publish", item).await;
    assert_eq!(answer.json()["results"][0]["error"]["code"], "too_many_levels", "{}", answer.text());
    assert!(server.broker.stats().refused_levels >= 16);
    // What is as deep as is allowed is served.
    let mut stream = EventStream::open(server.http, &format!("/sse/{}", levels("*", 128))).await;
    server.publish(&levels("a", 128), "deep enough");
    assert!(stream.data().await.contains("deep enough"));
}

#[tokio::test]
async fn bayeux_answers_400_too_many_levels() {
    let server = TestServer::start().await;
    let mut poller = Poller::handshake(server.http).await;
    let (id, deep) = (poller.client_id.clone(), format!("/{}", levels("a", 15_000)));
    let messages = json!([
        {"channel": deep, "clientId": id, "data": 1},
        {"channel": "/meta/subscribe", "clientId": id, "subscription": deep},
        {"channel": "/meta/subscribe", "clientId": id, "subscription": ["/fine", format!("{deep}/**")]},
    ]);
    let answer = poller.post(&messages).await;
    for reply in answer.as_array().expect("an array") {
        assert_eq!(reply["error"], "400:128:too_many_levels", "{}", reply["error"]);
    }
    assert_eq!(server.broker.stats().subscriptions, 0);
    eventually(|| server.broker.stats().refused_levels == 3).await;
}

//! Rules: messages of a filter go to a function.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanwire::Filter;
use fanwire::gateway::rules::Settings;
use rumqttc::QoS;
use serde_json::{Value, json};

use crate::backend::{Asked, Backend};
use crate::support::http::request;
use crate::support::mqtt::Client;
use crate::support::{TestServer, eventually};

impl Backend {
    async fn with_rule(&self, filter: &str, change: impl FnOnce(&mut Settings)) -> TestServer {
        let url = format!("http://{}/rule", self.address).parse().expect("a URL");
        let filter = Filter::parse(filter).expect("a filter");
        let mut rule = Settings::new("many", filter, url);
        rule.bounds.retry = vec![Duration::from_millis(20); 2];
        change(&mut rule);
        TestServer::with(|config| config.gateway.rules.push(rule)).await
    }
}

#[tokio::test]
async fn a_message_goes_as_it_is_and_a_refused_one_is_a_dead_letter() {
    let backend =
        Backend::start(
            |asked| if asked.body == json!(7) { (410, String::new()) } else { (202, String::new()) },
        );
    let backend = backend.await;
    let server = backend
        .with_rule("rule/one/#", |rule| {
            rule.is_lambda = true;
            rule.headers = vec![("x-topic".parse().expect("a name"), "on $topic".to_owned())];
        })
        .await;
    server.publish_json("elsewhere", "0");
    server.publish_json("rule/one/a", "7");
    server.publish_json("rule/one/a", "{\"b\": 1.0}");
    eventually(|| backend.asked().len() == 2).await;
    let asked = backend.asked();
    assert_eq!((&*asked[0].text, &*asked[1].text), ("7", "{\"b\": 1.0}"));
    for (field, value) in [
        ("x-topic", "on rule/one/a"),
        ("x-amz-invocation-type", "Event"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(asked[1].header(field), Some(value));
    }
    let letters = request(server.http, "GET", "/v1/dead-letters?hook=aws.rules.many", &[], "").await.json();
    assert_eq!(letters["letters"].as_array().map(Vec::len), Some(1), "{letters}");
    assert_eq!(
        (&letters["letters"][0]["event"], &letters["letters"][0]["cause"]),
        (&json!(7), &json!("rejected"))
    );
}

#[tokio::test]
async fn a_batch_closes_when_it_is_full_and_its_bad_message_is_found() {
    let has_bad = |body: &Value| body.as_array().is_some_and(|all| all.contains(&json!(13)));
    let backend =
        Backend::start(
            move |asked| if has_bad(&asked.body) { (500, String::new()) } else { (200, String::new()) },
        );
    let backend = backend.await;
    let server = backend
        .with_rule("rule/many/#", |rule| {
            rule.is_batch = true;
            (rule.bounds.batch, rule.bounds.linger) = (10, Duration::from_secs(2));
        })
        .await;
    for number in 0..40 {
        server.publish_json(if number % 2 == 0 { "rule/many/a" } else { "rule/many/b" }, &number.to_string());
    }
    let taken = || {
        let asked = backend.asked();
        let whole = asked.iter().filter(|asked| !has_bad(&asked.body));
        whole.flat_map(|asked| asked.body.as_array().cloned().unwrap_or_default()).collect::<Vec<_>>()
    };
    eventually(|| taken().len() == 39).await;
    let expected: Vec<_> = (0..40).filter(|number| *number != 13).map(|number| json!(number)).collect();
    assert_eq!(taken(), expected, "all but the bad one, in their order over both channels");
    assert!(backend.asked().iter().all(|asked| asked.body.as_array().is_some_and(|all| all.len() <= 10)));
    let letters =
        async || request(server.http, "GET", "/v1/dead-letters", &[], "").await.json()["letters"].clone();
    let letters = letters().await;
    assert_eq!((letters.as_array().map(Vec::len), &letters[0]["event"]), (Some(1), &json!(13)), "{letters}");
}

#[tokio::test]
async fn channels_go_apart_and_what_is_no_json_is_a_string() {
    let backend = Backend::willing().await;
    let server = backend
        .with_rule("rule/#", |rule| {
            (rule.is_batch, rule.across_topics) = (true, false);
            (rule.bounds.batch, rule.bounds.linger, rule.bounds.apart) =
                (10, Duration::from_millis(100), true);
            rule.headers = vec![("x-topic".parse().expect("a name"), "$topic".to_owned())];
        })
        .await;
    for number in 0..6 {
        server.publish(if number % 2 == 0 { "rule/a" } else { "rule/b" }, &format!("text {number}"));
    }
    eventually(|| {
        backend.asked().iter().map(|asked| asked.body.as_array().map_or(0, Vec::len)).sum::<usize>() == 6
    })
    .await;
    for (channel, first) in [("rule/a", 0), ("rule/b", 1)] {
        let all: Vec<Value> = backend
            .asked()
            .iter()
            .filter(|asked| asked.header("x-topic") == Some(channel))
            .flat_map(|asked| asked.body.as_array().cloned().unwrap_or_default())
            .collect();
        let expected: Vec<_> = (0..3).map(|at| json!(format!("text {}", first + 2 * at))).collect();
        assert_eq!(all, expected, "{channel}");
    }
}

/// A store keeps all channels but `$SYS`, and what it keeps is not published at once.
/// Its id has the slashes of its channel, and what is no JSON is text.
#[tokio::test]
async fn a_dead_message_of_a_rule_is_found_by_its_id_and_sent_again() {
    static TAKES: AtomicBool = AtomicBool::new(false);
    let answers = |_: &Asked| (if TAKES.load(Ordering::SeqCst) { 200 } else { 422 }, String::new());
    let backend = Backend::start(answers).await;
    let server = backend.with_rule("rule/#", |_| {}).await;
    server.publish("rule/one/a", "no \"JSON\"");
    let mut letters = json!(null);
    for _ in 0..1000 {
        letters = request(server.http, "GET", "/v1/dead-letters", &[], "").await.json()["letters"].clone();
        if letters.as_array().is_some_and(|letters| !letters.is_empty()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(letters[0]["event"], "no \"JSON\"");
    let id = letters[0]["id"].as_str().expect("an id");
    assert!(id.ends_with("/rule/one/a"), "{id}");
    let path = format!("/v1/dead-letters/{}", id.replace('/', "%2F"));
    assert_eq!(request(server.http, "GET", &path, &[], "").await.json(), letters[0]);
    TAKES.store(true, Ordering::SeqCst);
    assert_eq!(request(server.http, "POST", &format!("{path}/replay"), &[], "").await.status, 202);
    eventually(|| backend.asked().len() == 2).await;
    assert_eq!(backend.asked()[1].text, "no \"JSON\"");
}

#[tokio::test]
async fn a_dead_letter_is_retained_where_a_store_keeps_it_and_nobody_forges_one() {
    let folder = tempfile::tempdir().expect("a directory");
    let store = fanwire::store::Store::open(fanwire::store::Settings::new(folder.path())).expect("it opens");
    let backend = Backend::start(|_| (400, String::new())).await;
    let url = format!("http://{}/rule", backend.address).parse().expect("a URL");
    let rule = Settings::new("many", Filter::parse("rule/#").expect("a filter"), url);
    let server = TestServer::with(move |config| {
        config.gateway.rules.push(rule);
        config.store = Some(std::sync::Arc::new(store));
    })
    .await;
    let mut reader = Client::connect(server.mqtt, "reader").await;
    reader.subscribe("$dead/#", QoS::AtLeastOnce).await;
    let forger = Client::connect(server.mqtt, "forger").await;
    forger.client.publish("$dead/aws.rules.many", QoS::AtMostOnce, true, "forged").await.expect("queued");
    request(server.http, "POST", "/v1/publish/rule/a", &[], "7").await;
    let letter = reader.message().await;
    let shown: Value = serde_json::from_slice(&letter.payload).expect("JSON");
    assert_eq!((&*letter.topic, &shown["event"]), ("$dead/aws.rules.many", &json!(7)), "{shown}");
    let mut late = Client::connect(server.mqtt, "late").await;
    late.subscribe("$dead/#", QoS::AtLeastOnce).await;
    assert_eq!(late.message().await.payload, letter.payload, "it is retained");
}

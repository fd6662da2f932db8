//! Webhooks for operators: put, shown, deleted; dead letters listed and delivered anew.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::backend::{Backend, SECRET};
use crate::support::{TestServer, eventually, http};

async fn call(server: &TestServer, method: &str, target: &str, body: &Value) -> http::Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    http::request(server.http, method, target, &[("content-type", "application/json")], body).await
}

#[tokio::test]
async fn a_webhook_that_is_put_decides_and_hears_until_it_is_deleted() {
    let backend = Backend::start(|asked| match asked.body["data"]["channel"].as_str() {
        Some("no") => (403, String::new()),
        _ => (204, String::new()),
    })
    .await;
    let port = backend.address.port();
    let server = TestServer::with(|config| {
        config.gateway.addresses.allow.push("127.0.0.1".parse().expect("an address"));
        config.gateway.addresses.allow_ports.push(port);
    })
    .await;
    let none = json!(null);
    let hook = json!({"url": format!("http://127.0.0.1:{port}/"), "secret": SECRET,
        "events": ["connect", "publish", "disconnect"]});
    assert_eq!(http::post(server.http, "/v1/publish/no", "x").await.status, 200);
    let put = call(&server, "PUT", "/v1/webhooks/one", &hook).await;
    assert_eq!(put.status, 201, "{put:?}");
    assert!(!put.text().contains("whsec_"), "{put:?}");
    assert_eq!((put.json()["state"].as_str(), put.json()["id"].as_str()), (Some("open"), Some("one")));
    assert_eq!(call(&server, "PUT", "/v1/webhooks/one", &hook).await.status, 200);
    assert_eq!(http::post(server.http, "/v1/publish/no", "x").await.status, 403);
    crate::support::mqtt::Client::connect(server.mqtt, "one").await.kill();
    backend.wait_for("disconnect", 1).await;
    assert_eq!(backend.of("connect").len(), 1);
    let list = call(&server, "GET", "/v1/webhooks", &none).await.json();
    assert_eq!(list["webhooks"].as_array().map(Vec::len), Some(1));
    let metrics = http::get(server.http, "/metrics").await;
    assert!(
        metrics
            .text()
            .contains(r#"fanwire_webhook_requests_total{hook="one",type="publish",outcome="denied"} 1"#),
        "{}",
        metrics.text()
    );
    assert_eq!(call(&server, "DELETE", "/v1/webhooks/one", &none).await.status, 204);
    assert_eq!(call(&server, "DELETE", "/v1/webhooks/one", &none).await.status, 404);
    assert_eq!(http::post(server.http, "/v1/publish/no", "x").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn what_may_not_be_called_is_refused_when_it_is_put() {
    let server = TestServer::start().await;
    for url in [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://0x7f000001/",
        "http://[::ffff:7f00:1]/",
        "http://a.example:81/",
        "http://localhost/",
        "http://app.localhost./",
    ] {
        let hook = json!({"url": url, "secret": SECRET, "events": ["message"]});
        let refused = call(&server, "PUT", "/v1/webhooks/a", &hook).await;
        assert_eq!((refused.status, &*refused.code()), (400, "address_denied"), "{url}: {refused:?}");
        assert!(refused.text().contains("gateway.allow_"), "{refused:?}");
    }
    let hook = json!({"url": "http://a.example/", "secret": "whsec_c2hvcnQ=", "events": ["message"]});
    let refused = call(&server, "PUT", "/v1/webhooks/a", &hook).await;
    assert_eq!((refused.status, &*refused.code()), (400, "invalid_webhook"), "{refused:?}");
    server.stop().await;
}

#[tokio::test]
async fn dead_letters_are_listed_by_pages_and_delivered_anew_under_their_ids() {
    static TAKES: AtomicBool = AtomicBool::new(false);
    let backend =
        Backend::start(|_| (if TAKES.load(Ordering::SeqCst) { 200 } else { 422 }, String::new())).await;
    let server = backend.server(&["message"], json!({"channels": ["a"]})).await;
    (0..5).for_each(|number| _ = server.publish_json("a", &number.to_string()));
    backend.wait_for("message", 5).await;
    let none = json!(null);
    let mut all: Vec<Value> = Vec::new();
    for _ in 0..1000 {
        all = call(&server, "GET", "/v1/dead-letters?hook=test", &none).await.json()["letters"]
            .as_array()
            .cloned()
            .expect("a list");
        if all.len() == 5 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(all.len(), 5);
    assert_eq!(
        (&all[0]["cause"], &all[0]["attempts"], &all[0]["last"]["status"]),
        (&json!("rejected"), &json!(1), &json!(422))
    );
    assert_eq!(all[0]["event"]["data"]["data"], 0);
    let page = call(&server, "GET", "/v1/dead-letters?limit=3", &none).await.json();
    let next = page["next"].as_str().expect("there are more");
    let rest = call(&server, "GET", &format!("/v1/dead-letters?limit=3&cursor={next}"), &none).await.json();
    assert_eq!((rest["letters"].as_array().map(Vec::len), &rest["next"]), (Some(2), &none));
    assert_eq!(call(&server, "GET", "/v1/dead-letters?limit=0", &none).await.status, 400);
    let retained = call(&server, "GET", "/v1/retained/$dead/test", &none).await;
    assert!(retained.text().contains("rejected"), "{retained:?}");

    TAKES.store(true, Ordering::SeqCst);
    let id = all[0]["id"].as_str().expect("an id");
    assert_eq!(call(&server, "POST", &format!("/v1/dead-letters/{id}/replay"), &none).await.status, 202);
    eventually(|| backend.asked().len() == 6).await;
    let again = backend.asked().remove(5);
    assert_eq!((again.header("webhook-id"), &again.body["data"]["data"]), (Some(id), &json!(0)));
    assert_eq!(call(&server, "POST", &format!("/v1/dead-letters/{id}/replay"), &none).await.status, 404);
    let other = all[1]["id"].as_str().expect("an id");
    assert_eq!(call(&server, "GET", &format!("/v1/dead-letters/{other}"), &none).await.status, 200);
    assert_eq!(call(&server, "DELETE", &format!("/v1/dead-letters/{other}"), &none).await.status, 204);
    server.stop().await;
}

#[tokio::test]
async fn there_are_only_so_many_webhooks() {
    let server = TestServer::start().await;
    let hook = json!({"url": "https://example.com/", "secret": SECRET, "events": ["vacated"]});
    for number in 0..1000 {
        let put = call(&server, "PUT", &format!("/v1/webhooks/h{number}"), &hook).await;
        assert_eq!(put.status, 201, "{put:?}");
    }
    let more = call(&server, "PUT", "/v1/webhooks/more", &hook).await;
    assert_eq!((more.status, &*more.code()), (409, "too_many_webhooks"), "{more:?}");
    assert_eq!(call(&server, "PUT", "/v1/webhooks/h7", &hook).await.status, 200, "one of them, anew");
}

#[tokio::test]
async fn a_backend_is_told_of_the_states_of_sources() {
    let backend = Backend::start(|asked| match asked.head.split(' ').nth(1) {
        Some("/page") => (200, "1".to_owned()),
        Some("/gone") => (500, String::new()),
        _ => (204, String::new()),
    })
    .await;
    let hook = backend.hook(&["source"], json!({}));
    let port = backend.address.port();
    let server = TestServer::with(|config| {
        config.gateway.webhooks.push(hook);
        config.sources.addresses.allow.push("127.0.0.1".parse().expect("an address"));
        config.sources.addresses.allow_ports.push(port);
    })
    .await;
    let source = |path: &str| json!({"kind": "poll", "url": format!("http://127.0.0.1:{port}/{path}"), "channel": "feed", "interval": "1s"});
    assert_eq!(call(&server, "PUT", "/v1/sources/page", &source("page")).await.status, 201);
    let open = backend.wait_for("source", 1).await.remove(0);
    assert_eq!(
        open,
        json!({"source": "page", "kind": "poll", "channel": "feed", "state": "open", "attempts": 0,
            "received": open["received"], "error": null})
    );
    assert_eq!(call(&server, "POST", "/v1/sources/page/pause", &json!(null)).await.status, 200);
    assert_eq!(backend.wait_for("source", 2).await[1]["state"], "paused");
    assert_eq!(call(&server, "PUT", "/v1/sources/gone", &source("gone")).await.status, 201);
    let failed = backend.wait_for("source", 3).await.remove(2);
    assert_eq!((&failed["source"], &failed["state"]), (&json!("gone"), &json!("backoff")));
    assert_eq!(failed["error"]["condition"], "bad-status");
    // Each try that fails is no news.
    eventually(|| backend.asked().iter().filter(|asked| asked.head.contains("/gone")).count() >= 3).await;
    assert_eq!(backend.of("source").len(), 3);
    server.stop().await;
}

/// The description of the API is front-http's.
#[tokio::test]
async fn every_path_and_method_that_is_described_is_answered() {
    let server = TestServer::start().await;
    let description = http::get(server.http, "/v1/openapi.json").await.json();
    let paths = description["paths"].as_object().expect("paths");
    let own: Vec<_> = paths.iter().filter(|(_, item)| item["x-served-by"] == "gateway").collect();
    assert_eq!(own.len(), 15);
    for (path, item) in own {
        let sample = path.replace("{id}", "a");
        for method in ["GET", "PUT", "POST", "DELETE"] {
            let answer = http::request(server.http, method, &sample, &[], "").await;
            let is_described = item.get(method.to_lowercase()).is_some();
            assert_eq!(answer.status != 405, is_described, "{method} {path} {answer:?}");
        }
    }
    server.stop().await;
}

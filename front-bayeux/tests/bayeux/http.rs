use http_edge::OriginPolicy;
use serde_json::json;

use crate::support::{Http, Server, data, last, ms, quick};

#[tokio::test]
async fn bad_input_is_the_clients_fault() {
    let server = Server::start(quick()).await;
    let mut browser = server.browser().await;
    let deep = format!("[{{\"channel\":\"/a\",\"data\":{}{}}}]", "[".repeat(200_000), "]".repeat(200_000));
    for body in
        ["", " ", "{", "[", "5", "\"x\"", "null", "[1]", "[{}]x", "{}{}", "[[{}]]", "\u{feff}{}", &deep]
    {
        let answer = browser.post(body).await;
        assert_eq!(answer.status, 400, "{:.40}: {answer:?}", body);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{body:.40}");
    }
    assert_eq!(browser.post("[]").await.body, "[]");
    for (line, status) in [
        ("GET /cometd", 400),
        ("GET /cometd?jsonp=f", 400),
        ("PUT /cometd", 405),
        ("DELETE /cometd/x", 405),
        ("HEAD /cometd", 405),
    ] {
        let mut http = Http::open(server.address).await;
        http.write(format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
        // An answer to HEAD has a length but no body.
        if !line.starts_with("HEAD") {
            assert_eq!(http.read().await.status, status, "{line}");
        }
    }
    let answer = browser.exchange("POST /cometd", "Content-Type: image/png\r\n", "{}").await;
    assert_eq!(answer.status, 415);
}

#[tokio::test]
async fn large_requests_are_refused_while_they_are_read() {
    let mut config = quick();
    config.max_request_bytes = 1000;
    let server = Server::start(config).await;
    let mut browser = server.browser().await;
    assert_eq!(browser.post(&format!("[{}]", " ".repeat(998))).await.status, 200);
    assert_eq!(browser.post(&format!("[{}]", " ".repeat(999))).await.status, 413);
    let chunked = format!(
        "POST /cometd HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n{}\r\n",
        " ".repeat(2000)
    );
    let mut http = Http::open(server.address).await;
    http.write(chunked.as_bytes()).await;
    assert_eq!(http.read().await.status, 413);
}

#[tokio::test]
async fn sub_paths_and_single_objects_are_taken() {
    let server = Server::start(quick()).await;
    let mut browser = server.browser().await;
    let body = r#"{"channel":"/meta/handshake","supportedConnectionTypes":["long-polling"]}"#;
    for path in ["/cometd", "/cometd/", "/cometd/handshake", "/cometd/a/b?x=y"] {
        let answer = browser
            .exchange(&format!("POST {path}"), "Content-Type: application/json;charset=UTF-8\r\n", body)
            .await;
        assert_eq!(answer.messages()[0]["successful"], true, "{path}");
    }
}

#[tokio::test]
async fn forms_hold_one_or_more_messages() {
    let server = Server::start(quick()).await;
    let mut poller = server.poller().await;
    poller.subscribe("/a").await;
    let message = |number: u32| {
        let text = json!({"channel": "/a", "data": number, "clientId": poller.id}).to_string();
        form_urlencode(&text)
    };
    let array = form_urlencode(&json!([{"channel": "/a", "data": 3, "clientId": poller.id}]).to_string());
    let body = format!("x=y&message={}&message={}&message={array}", message(1), message(2));
    let mut browser = poller.browser.clone();
    let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
    let answer = browser.exchange("POST /cometd", kind, &body).await.messages();
    assert_eq!(answer.iter().filter(|reply| reply["successful"] == true).count(), 3);
    for (body, status) in [("x=y", 400), ("", 400), ("message=5", 400), ("message=%7B&message=%7D", 400)] {
        assert_eq!(browser.exchange("POST /cometd", kind, body).await.status, status, "{body}");
    }
}

fn form_urlencode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn callback_polling_answers_with_a_script() {
    let server = Server::start(quick()).await;
    let mut browser = server.browser().await;
    let handshake = r#"[{"channel":"/meta/handshake","supportedConnectionTypes":["callback-polling"]}]"#;
    let line = format!("GET /cometd/handshake?jsonp=cb_1&message={}", form_urlencode(handshake));
    let answer = browser.exchange(&line, "", "").await;
    assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let json = answer.body.strip_prefix("/**/cb_1(").and_then(|rest| rest.strip_suffix(");")).unwrap();
    let replies: Vec<serde_json::Value> = serde_json::from_str(json).unwrap();
    let id = replies[0]["clientId"].as_str().unwrap().to_owned();
    let mut call = async |message: serde_json::Value| {
        let line = format!("GET /cometd?message={}", form_urlencode(&message.to_string()));
        let answer = browser.exchange(&line, "", "").await;
        let json = answer.body.strip_prefix("/**/jsonpcallback(").and_then(|rest| rest.strip_suffix(");"));
        serde_json::from_str::<Vec<serde_json::Value>>(json.unwrap()).unwrap()
    };
    call(json!({"channel": "/meta/connect", "clientId": id})).await;
    call(json!({"channel": "/meta/subscribe", "clientId": id, "subscription": "/a"})).await;
    server.publish("a", "\"\u{2028}\"");
    server.broker.drained().await;
    let answer = call(json!({"channel": "/b", "clientId": id, "data": 1})).await;
    assert_eq!(answer.len(), 1, "events come with connects only");
    assert_eq!(data(&call(json!({"channel": "/meta/connect", "clientId": id})).await), ["\u{2028}"]);
    let answer = browser.exchange("GET /cometd?jsonp=alert(1)&message=%7B%7D", "", "").await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn origins_are_reflected_or_refused() {
    let server = Server::start(quick()).await;
    let mut browser = server.browser().await;
    let answer = browser.exchange("POST /cometd", "Origin: http://localhost:3000\r\n", "[]").await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:3000"));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    let preflight = "Origin: http://localhost:3000\r\nAccess-Control-Request-Method: POST\r\n";
    let answer = browser.exchange("OPTIONS /cometd/connect", preflight, "").await;
    assert_eq!(answer.status, 204);
    assert!(answer.header("access-control-allow-headers").unwrap().contains("Content-Type"));
    assert!(answer.header("access-control-max-age").is_some());

    let origins = OriginPolicy::List(vec!["http://good.example".into()]);
    let mut config = quick();
    config.origins = origins;
    let server = Server::start(config).await;
    let mut browser = server.browser().await;
    for (origin, status) in [("http://good.example", 200), ("http://bad.example", 403), ("null", 403)] {
        let answer = browser.exchange("POST /cometd", &format!("Origin: {origin}\r\n"), "[]").await;
        assert_eq!(answer.status, status, "{origin}");
    }
    let upgrade = "Origin: http://bad.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    assert_eq!(browser.exchange("GET /cometd", upgrade, "").await.status, 403);
}

#[tokio::test]
async fn the_answer_of_a_held_connect_is_for_its_page_and_its_callback() {
    let good = "http://good.example";
    // `Http` asks host x.
    for (origins, origin) in
        [(OriginPolicy::List(vec![good.into()]), good), (OriginPolicy::SameOrigin, "http://x")]
    {
        let server = Server::start({
            let mut config = quick();
            config.origins = origins;
            config
        })
        .await;
        let mut poller = server.poller().await;
        poller.subscribe("/a").await;
        let message = json!({"channel": "/meta/connect", "clientId": poller.id}).to_string();
        let line = format!("GET /cometd?jsonp=back&message={}", form_urlencode(&message));
        let headers = format!("Origin: {origin}\r\n");
        let publish = async {
            while server.front.stats().held_polls == 0 {
                tokio::time::sleep(ms(5)).await;
            }
            server.publish("a", "7");
        };
        let (answer, ()) = tokio::join!(poller.browser.exchange(&line, &headers, ""), publish);
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        assert!(answer.body.starts_with("/**/back([{\"channel\":\"/a\",\"data\":7}"), "{}", answer.body);
    }
}

#[tokio::test]
async fn pipelined_and_kept_alive_requests_are_answered_in_order() {
    let server = Server::start(quick()).await;
    let poller = server.poller().await;
    let mut http = Http::open(server.address).await;
    let publish = |id: u32| {
        let body = json!({"channel": "/a", "clientId": poller.id, "data": 1, "id": id}).to_string();
        poller.browser.request("POST /cometd", "", &body)
    };
    let all: String = (0..5).map(publish).collect();
    http.write(all.as_bytes()).await;
    for id in 0..5 {
        assert_eq!(last(&http.read().await.messages())["id"], id);
    }
    tokio::time::sleep(ms(20)).await;
    http.write(publish(9).as_bytes()).await;
    assert_eq!(last(&http.read().await.messages())["id"], 9);
}

#[tokio::test]
async fn transports_can_be_switched_off() {
    let mut config = quick();
    config.transports = vec![front_bayeux::Transport::LongPolling];
    let server = Server::start(config).await;
    let mut browser = server.browser().await;
    assert_eq!(browser.exchange("GET /cometd?message=%5B%5D", "", "").await.status, 400);
    let reply = browser.handshake(json!({})).await;
    assert_eq!(reply["supportedConnectionTypes"], json!(["long-polling"]));
}

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use broker_core::{Channel, Publish};
use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Answer, Functions, Server, eventually, ok, within};

/// Says what a message asks for.
async fn obliging() -> Functions {
    Functions::start(|call| async move {
        if call.kind() != "MESSAGE" {
            return ok();
        }
        let text = call.text();
        match text.split_once(':').unwrap_or((&text, "")) {
            ("status", body) => Answer::Json(json!({"statusCode": 500, "body": body})),
            ("empty", _) => Answer::Json(json!({"statusCode": 200, "body": ""})),
            ("base64", body) => {
                Answer::Json(json!({"statusCode": 200, "body": body, "isBase64Encoded": true}))
            }
            ("null", _) => Answer::Json(Value::Null),
            ("throw", _) => Answer::Raw(200, vec![("x-amz-function-error", "Unhandled")], "{}".into()),
            ("emulated", _) => Answer::Json(json!({"errorType": "E"})),
            ("500", _) => Answer::Raw(500, vec![], "{}".into()),
            ("junk", _) => Answer::Raw(200, vec![], "Task timed out".into()),
            ("cut", _) => Answer::Cut,
            ("slow", _) => {
                tokio::time::sleep(Duration::from_secs(5)).await;
                ok()
            }
            ("fanwire", what) => {
                let what: Value = serde_json::from_str(what).unwrap();
                Answer::Json(json!({"statusCode": 200, "body": "done", "fanwire": what}))
            }
            _ => Answer::Json(json!({"statusCode": 200, "body": format!("echo {text}")})),
        }
    })
    .await
}

#[tokio::test]
async fn a_message_takes_its_route_and_the_answer_comes_back() {
    let functions = obliging().await;
    let server = Server::start(&functions, json!({})).await;
    let mut client = server.open().await;
    let connect = functions.next().await.event();
    for (text, route) in [
        ("hello", "$default"),
        (r#"{"action":"other"}"#, "$default"),
        (r#"{"action":"mute"}"#, "mute"),
        (r#"{"action":"$connect"}"#, "$default"),
        (r#"{"action":"$disconnect"}"#, "$default"),
        ("", "$default"),
    ] {
        client.send(text).await;
        let event = functions.next().await.event();
        let context = &event["requestContext"];
        assert_eq!((&context["routeKey"], &event["body"]), (&json!(route), &json!(text)));
        assert_eq!(context["connectionId"], connect["requestContext"]["connectionId"]);
        assert_ne!(context["requestId"], connect["requestContext"]["requestId"]);
        assert!(event.get("headers").is_none());
        if route == "$default" {
            assert_eq!(client.text().await, format!("echo {text}"));
        }
    }
    for (text, answer) in [("status:no", "no"), ("empty", ""), ("null", ""), ("base64:AP8=", "\0")] {
        client.send(text).await;
        match answer {
            "" => {}
            "\0" => assert_eq!(client.next().await.unwrap(), Message::binary(vec![0, 255])),
            answer => assert_eq!(client.text().await, answer),
        }
    }
    within(client.socket.send(Message::binary(vec![0, 255]))).await.unwrap();
    let event = loop {
        let event = functions.next_of("MESSAGE").await.event();
        if event["isBase64Encoded"] == true {
            break event;
        }
    };
    assert_eq!((&event["body"], &event["requestContext"]["routeKey"]), (&json!("AP8="), &json!("$default")));
}

#[tokio::test]
async fn without_a_route_the_message_is_forbidden() {
    let functions = obliging().await;
    let routes = json!({"mute": {"integration": "main"}});
    let server = Server::start(&functions, json!({"routes": routes})).await;
    let mut client = server.open().await;
    client.send("hello").await;
    let error = client.json().await;
    assert_eq!(error["message"], "Forbidden");
    assert!(error["connectionId"].is_string() && error["requestId"].is_string());
    client.send(r#"{"action":"mute"}"#).await;
    let call = functions.next().await;
    assert_eq!(call.event()["requestContext"]["connectionId"], error["connectionId"]);
}

#[tokio::test]
async fn a_failure_is_told_with_the_events_id_and_the_connection_stays() {
    let functions = obliging().await;
    let changes = json!({"integrations": {"main": {"url": functions.url("/main"), "timeout": "300ms"}}});
    let server = Server::start(&functions, changes).await;
    let mut client = server.open().await;
    functions.next().await;
    for case in ["throw", "emulated", "500", "junk", "cut", "slow"] {
        client.send(case).await;
        let call = functions.next_of("MESSAGE").await.event();
        let error = client.json().await;
        let message = if case == "slow" { "Endpoint request timed out" } else { "Internal server error" };
        assert_eq!(error["message"], message, "{case}");
        assert_eq!(error["requestId"], call["requestContext"]["requestId"], "{case}");
        assert_eq!(error["connectionId"], call["requestContext"]["connectionId"], "{case}");
    }
    client.send("after").await;
    assert_eq!(client.text().await, "echo after");
}

#[tokio::test]
async fn messages_of_a_connection_go_one_after_the_other_and_connections_do_not_wait() {
    let gate = Arc::new(Semaphore::new(0));
    let (opened, most) = (Arc::clone(&gate), Arc::new(AtomicUsize::new(0)));
    let (under_way, seen) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&most));
    let functions = Functions::start(move |call| {
        let (gate, under_way, seen) = (Arc::clone(&opened), Arc::clone(&under_way), Arc::clone(&seen));
        async move {
            let text = if call.kind() == "MESSAGE" { call.text() } else { return ok() };
            if text != "free" {
                seen.fetch_max(under_way.fetch_add(1, SeqCst) + 1, SeqCst);
                gate.acquire().await.unwrap().forget();
                under_way.fetch_sub(1, SeqCst);
            }
            Answer::Json(json!({"statusCode": 200, "body": text}))
        }
    })
    .await;
    let server = Server::start(&functions, json!({})).await;
    let (mut client, mut other) = (server.open().await, server.open().await);
    for number in 0..20 {
        client.send(&number.to_string()).await;
    }
    other.send("free").await;
    assert_eq!(other.text().await, "free", "while the first waits");
    gate.add_permits(20);
    for number in 0..20 {
        assert_eq!(client.text().await, number.to_string());
    }
    assert_eq!(most.load(SeqCst), 1);
}

#[tokio::test]
async fn a_client_that_sends_too_fast_is_held_back_or_closed() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let functions = Functions::start(move |call| {
        let gate = Arc::clone(&opened);
        async move {
            if call.kind() == "MESSAGE" {
                gate.acquire().await.unwrap().forget();
            }
            ok()
        }
    })
    .await;
    let integrations = json!({"main": {"url": functions.url("/main"), "timeout": "20s"}});
    let with = |overflow: &str| json!({"integrations": integrations, "queue": {"max_messages": 4, "overflow": overflow}});
    // Closed: nine do not fit, and what was taken before is handled all the same.
    let server = Server::start(&functions, with("close")).await;
    let mut client = server.open().await;
    for number in 0..9 {
        client.send(&number.to_string()).await;
    }
    assert_eq!(client.closed().await, 1013);
    gate.add_permits(100);
    let mut heard = Vec::new();
    let end = loop {
        let call = functions.next().await;
        match &*call.kind() {
            "MESSAGE" => heard.push(call.text()),
            "DISCONNECT" => break call.event(),
            _ => {}
        }
    };
    assert_eq!(heard, ["0", "1", "2", "3", "4"]);
    assert_eq!(end["requestContext"]["disconnectStatusCode"], 1013);
    // Held back: all come, in order, and posts do not wait for functions.
    gate.forget_permits(100);
    let server = Server::start(&functions, with("pause")).await;
    let mut client = server.open().await;
    let id = functions.next_of("CONNECT").await.event()["requestContext"]["connectionId"].clone();
    let id = id.as_str().unwrap().to_owned();
    for number in 0..40 {
        client.send(&number.to_string()).await;
    }
    let listed = || server.broker.connections(None, 10).len();
    eventually(|| listed() == 1).await;
    let key = http_edge::parse_connection_id(&id).unwrap();
    let direct = Publish::new(Channel::parse("direct").unwrap(), "meanwhile");
    server.broker.send_to(key, direct).await.unwrap();
    assert_eq!(client.text().await, "meanwhile");
    gate.add_permits(100);
    for number in 0..40 {
        assert_eq!(functions.next_of("MESSAGE").await.text(), number.to_string());
    }
}

#[tokio::test]
async fn what_cannot_have_run_is_tried_again_and_nothing_else() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let functions = Functions::start(move |call| {
        let tries = Arc::clone(&counted);
        async move {
            match call.text().as_str() {
                "throttled" if tries.fetch_add(1, SeqCst) < 2 => Answer::Raw(429, vec![], "{}".into()),
                "cut" => {
                    tries.fetch_add(1, SeqCst);
                    Answer::Cut
                }
                text => Answer::Json(json!({"statusCode": 200, "body": text})),
            }
        }
    })
    .await;
    let server =
        Server::start(&functions, json!({"routes": {"$default": {"integration": "main", "response": true}}}))
            .await;
    let mut client = server.open().await;
    client.send("throttled").await;
    assert_eq!(client.text().await, "throttled");
    assert_eq!(tries.swap(0, SeqCst), 3);
    let ids: Vec<_> = [functions.next().await, functions.next().await, functions.next().await].to_vec();
    let ids: Vec<_> = ids.iter().map(|call| call.event()["requestContext"]["requestId"].clone()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "one event has one id");
    client.send("cut").await;
    assert_eq!(client.json().await["message"], "Internal server error");
    assert_eq!(tries.load(SeqCst), 1);
}

#[tokio::test]
async fn what_is_down_is_left_alone_and_one_call_decides() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let nobody = Functions::start(|_| async { ok() }).await;
    let changes = json!({
        "integrations": {"main": {"url": format!("http://{address}/"), "timeout": "2s"}},
        "routes": {"$default": {"integration": "main", "response": true}},
        "breaker": {"min_calls": 3, "open": "400ms", "max_open": "1s"},
    });
    let server = Server::start(&nobody, changes).await;
    let mut client = server.open().await;
    for _ in 0..5 {
        client.send("hello").await;
        assert_eq!(client.json().await["message"], "Internal server error");
    }
    let state = |server: &Server| {
        let mut out = Vec::new();
        front::Front::collect(&server.front, &mut out);
        let metric = out.into_iter().find(|metric| metric.name == "gateway_breaker_state").unwrap();
        metric.value
    };
    assert_eq!(state(&server), front::Value::Gauge(2));
    let _functions = Functions::on(TcpListener::bind(address).await.unwrap(), |_| async {
        Answer::Json(json!({"statusCode": 200, "body": "back"}))
    });
    within(async {
        loop {
            client.send("hello").await;
            if client.text().await == "back" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(state(&server), front::Value::Gauge(0));
}

#[tokio::test]
async fn an_answer_subscribes_publishes_and_closes() {
    let functions = obliging().await;
    let server = Server::start(&functions, json!({})).await;
    let (mut one, mut two) = (server.open().await, server.open().await);
    for client in [&mut one, &mut two] {
        client.send(r#"fanwire:{"subscribe":["room/*"]}"#).await;
        assert_eq!(client.text().await, "done");
    }
    one.send(r#"fanwire:{"publish":[{"channel":"room/1","data":{"a": 1}},{"channel":"room/2","text":"t"}]}"#)
        .await;
    assert_eq!(two.text().await, r#"{"a":1}"#);
    assert_eq!(two.text().await, "t");
    // Done before its body is sent: what it gets itself is there before the answer.
    for text in [r#"{"a":1}"#, "t", "done"] {
        assert_eq!(one.text().await, text);
    }
    // From any other protocol, too.
    let binary = Publish::new(Channel::parse("room/3").unwrap(), vec![0, 255]);
    server.broker.publish(binary).unwrap();
    assert_eq!(one.next().await.unwrap(), Message::binary(vec![0, 255]));
    one.send(r#"fanwire:{"unsubscribe":["room/*"]}"#).await;
    assert_eq!(one.text().await, "done");
    assert_eq!(server.broker.stats().subscriptions, 1);
    one.send(r#"fanwire:{"publish":[{"channel":"$SYS/x","text":"t"}]}"#).await;
    assert_eq!(one.json().await["message"], "Internal server error");
    one.send(r#"fanwire:{"close":{"code":4001,"reason":"bye"}}"#).await;
    assert_eq!(one.text().await, "done");
    assert_eq!(one.closed().await, 4001);
    let end = functions.next_of("DISCONNECT").await.event();
    assert_eq!(end["requestContext"]["disconnectStatusCode"], 4001);
    assert_eq!(end["requestContext"]["disconnectReason"], "bye");
}

#[tokio::test]
async fn an_http_backend_gets_the_message_itself() {
    let functions = Functions::start(|call| async move {
        let status = if call.body.is_empty() { 204 } else { 500 };
        Answer::Raw(status, vec![], format!("got {}", String::from_utf8_lossy(&call.body)))
    })
    .await;
    let headers =
        json!({"connectionId": "$context.connectionId", "x-who": "'static'", "x-route": "$context.routeKey"});
    let changes = json!({
        "integrations": {"web": {"kind": "http", "url": functions.url("/web"), "headers": headers}},
        "routes": {"$connect": {"integration": "web"}, "$default": {"integration": "web", "response": true}},
    });
    let server = Server::start(&functions, changes).await;
    let mut client = server.open().await;
    let connect = functions.next().await;
    assert_eq!((&*connect.path, &connect.headers["x-route"]), ("/web", &"$connect".parse().unwrap()));
    client.send("hello").await;
    assert_eq!(client.text().await, "got hello", "whatever the status");
    let call = functions.next().await;
    assert_eq!(call.headers["connectionid"], connect.headers["connectionid"]);
    assert_eq!(call.headers["x-who"], "static");
    assert_eq!(&call.body[..], b"hello");
}

#[tokio::test]
async fn a_backend_that_answers_5xx_is_heard_and_then_left_alone() {
    let functions = Functions::start(|_| async { Answer::Raw(503, vec![], "overloaded".to_owned()) }).await;
    let changes = json!({
        "integrations": {"web": {"kind": "http", "url": functions.url("/web")}},
        "routes": {"$default": {"integration": "web", "response": true}},
        "breaker": {"min_calls": 3, "open": "30s"},
    });
    let server = Server::start(&functions, changes).await;
    let mut client = server.open().await;
    for _ in 0..3 {
        client.send("hello").await;
        assert_eq!(client.text().await, "overloaded");
    }
    client.send("hello").await;
    assert_eq!(client.json().await["message"], "Internal server error");
    for _ in 0..3 {
        functions.next().await;
    }
    assert_eq!(functions.waiting(), 0, "it was not called");
}

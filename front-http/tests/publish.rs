//! Publishing over real sockets.

mod support;

use std::sync::Arc;

use broker_core::{Action, Anonymous, Filter, Principal, Rights, Rule};
use serde_json::json;
use support::Server;

#[tokio::test]
async fn one_post_reaches_an_event_stream() {
    let server = Server::start().await;
    let mut stream = server.stream("/sse/chat/room1").await;
    let answer = server.post("/v1/publish/chat/room1", "Content-Type: text/plain\r\n", "hello").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let json = answer.json();
    assert_eq!(json["channel"], "chat/room1");
    assert_eq!(json["receivers"], 1);
    assert_eq!(json["duplicate"], false);
    assert!(json["time"].as_str().unwrap().ends_with('Z'));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("x-request-id").unwrap().len(), 16);
    let id = json["id"].as_str().unwrap();
    assert_eq!(stream.event().await, format!("id: {id}\ndata: hello\n\n"));
}

#[tokio::test]
async fn json_is_kept_as_its_exact_text() {
    let server = Server::start().await;
    let mut raw = server.stream("/sse/a?format=raw").await;
    let mut json = server.stream("/sse/a?format=json").await;
    let text = r#"{"n":12345678901234567890,"x":1e400, "b":1,"a": "\ud800"}"#;
    let answer = server.items(format!(r#"{{"channel":"a","data":{text}}}"#)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(raw.event().await.ends_with(&format!("data: {text}\n\n")));
    assert!(json.event().await.contains(&format!("\"data\":{text},\"content_type\":\"application/json\"")));
    let answer = server.post("/v1/publish/a", "Content-Type: application/json\r\n", text).await;
    assert_eq!(answer.status, 200);
    assert!(json.event().await.contains(&format!("\"data\":{text}")));
}

#[tokio::test]
async fn a_large_payload_arrives_whole() {
    let server = Server::start().await;
    let mut stream = server.stream("/sse/a").await;
    for bytes in [2_047, 2_048, 70_000, 1_000_000] {
        let payload = "x".repeat(bytes);
        assert_eq!(server.post("/v1/publish/a", "", &payload).await.status, 200);
        let event = stream.event().await;
        assert!(event.ends_with(&format!("\ndata: {payload}\n\n")), "{bytes}");
    }
}

#[tokio::test]
async fn deep_json_is_an_error_where_it_is_parsed_and_bytes_where_it_is_not() {
    let server = Server::start().await;
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let answer = server.items(format!(r#"{{"channel":"a","data":{deep}}}"#)).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "json_too_deep"));
    let mut stream = server.stream("/sse/a?format=json").await;
    let answer = server.post("/v1/publish/a", "Content-Type: application/json\r\n", &deep).await;
    assert_eq!(answer.status, 200);
    assert!(stream.event().await.contains("\"text\":\"[[["));
    for depth in [511, 512, 513] {
        let data = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let answer = server.items(format!(r#"{{"channel":"a","data":{data}}}"#)).await;
        assert_eq!(answer.status, if depth <= 512 { 200 } else { 400 }, "{depth}");
    }
    let answer = server.items(&deep).await;
    assert_eq!(answer.json()["results"][0]["error"]["code"], "invalid_item", "{}", answer.body);
}

#[tokio::test]
async fn the_channel_is_the_decoded_rest_of_the_path() {
    let server = Server::start().await;
    for (path, channel) in [
        ("chat%2Froom1", "chat/room1"),
        ("caf%C3%A9", "café"),
        ("a+b", "a+b"),
        ("a//b", "a//b"),
        ("a%20b/", "a b/"),
    ] {
        let answer = server.post(&format!("/v1/publish/{path}"), "", "x").await;
        assert_eq!(answer.json()["channel"], channel, "{path}: {}", answer.body);
    }
    for path in ["*", "a/*/b", "a/**", "%23", "a%0Ab", "a%00", "%ff"] {
        let answer = server.post(&format!("/v1/publish/{path}"), "", "x").await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_channel"), "{path}");
    }
    let answer = server.post("/v1/publish/$SYS/x", "", "x").await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "reserved_channel"));
}

#[tokio::test]
async fn options_travel_with_the_message() {
    let server = Server::start().await;
    let mut stream = server.stream("/sse/a").await;
    server.post("/v1/publish/a?event=tick&retain=true", "", "1").await;
    assert!(stream.event().await.contains("\nevent: tick\ndata: 1\n\n"));
    server.post("/v1/publish/a", "X-EventSource-Event: tock\r\n", "2").await;
    assert!(stream.event().await.contains("\nevent: tock\ndata: 2\n\n"));
    assert_eq!(server.get("/v1/retained/a").await.json()["data"], 1);
    server.post("/v1/publish/a?ttl=0.2&retain=true", "", "3").await;
    assert_eq!(server.get("/v1/retained/a").await.json()["data"], 3);
    tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    assert_eq!(server.get("/v1/retained/a").await.code(), "not_retained");
    for wrong in ["ttl=x", "retain=perhaps", "event=a%0D%0Adata:x", "unknown=1", "exclude=!"] {
        let answer = server.post(&format!("/v1/publish/a?{wrong}"), "", "x").await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_parameter"), "{wrong}");
    }
}

#[tokio::test]
async fn one_connection_can_be_left_out() {
    let server = Server::start().await;
    let mut left_out = server.stream("/sse/a").await;
    let mut other = server.stream("/sse/a").await;
    let id =
        left_out.head.lines().find_map(|line| line.strip_prefix("x-connection-id: ")).unwrap().to_owned();
    server.post(&format!("/v1/publish/a?exclude={id}"), "", "1").await;
    server.items(format!(r#"{{"channel":"a","data":2,"exclude":"{id}"}}"#)).await;
    server.post("/v1/publish/a", "", "3").await;
    assert!(left_out.event().await.ends_with("data: 3\n\n"));
    assert!(other.event().await.ends_with("data: 1\n\n"));
}

#[tokio::test]
async fn curls_default_type_counts_as_none() {
    let server = Server::start().await;
    let mut stream = server.stream("/sse/a?format=json").await;
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    server.post("/v1/publish/a", form, r#"{"a":1}"#).await;
    assert!(stream.event().await.ends_with("\"data\":{\"a\":1}}\n\n"));
    assert_eq!(server.post("/v1/publish", form, r#"{"channel":"a","data":1}"#).await.status, 200);
}

#[tokio::test]
async fn one_bad_item_harms_only_itself() {
    let server = Server::start().await;
    let mut stream = server.stream("/sse/%23").await;
    let answer = server
        .items(
            r#"[{"channel":"a","data":1},{"channel":"*","data":2},{"chanel":"a","data":3},{"channel":"b","text":"t"},
            7,{"channel":"c","base64":"AP8="},{"channels":["d","e/#","f"],"data":null},{"channel":"g"}]"#,
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let json = answer.json();
    assert_eq!(json["errors"], 5);
    let results = json["results"].as_array().unwrap();
    assert_eq!(results.len(), 8);
    assert_eq!(results[0]["channel"], "a");
    assert_eq!(results[1]["error"]["code"], "invalid_channel");
    assert_eq!(results[1]["error"]["status"], 400);
    assert_eq!(results[2]["error"]["code"], "invalid_item");
    assert_eq!(results[6]["errors"], 1);
    assert_eq!(results[6]["results"][0]["channel"], "d");
    assert_eq!(results[7]["error"]["code"], "invalid_item");
    for expected in
        ["\"data\":1", "\"text\":\"t\"", "\"base64\":\"AP8=\"", "\"channel\":\"d\"", "\"channel\":\"f\""]
    {
        let event = stream.event().await;
        assert!(event.contains(expected), "{expected} in {event}");
    }
    assert_eq!(server.api.stats().failed_items, 5);
}

#[tokio::test]
async fn several_channels_answer_one_by_one() {
    let server = Server::start().await;
    let answer = server.items(r#"{"channels":["a","b"],"text":"x","retain":true}"#).await.json();
    assert_eq!(answer["errors"], 0);
    assert_eq!(answer["results"][1]["channel"], "b");
    assert_eq!(server.get("/v1/retained/b").await.json()["text"], "x");
    assert_eq!(server.items("[]").await.json(), json!({"errors": 0, "results": []}));
}

#[tokio::test]
async fn bad_bodies_are_named() {
    let server = Server::start().await;
    let thousand_one = format!("[{}1]", "1,".repeat(1_000));
    let many = format!(r#"{{"channels":[{}"x"],"data":1}}"#, "\"x\",".repeat(1_000));
    for (body, code) in [
        ("", "invalid_json"),
        ("{", "invalid_json"),
        ("{} {}", "invalid_json"),
        ("{}", "invalid_item"),
        ("7", "invalid_item"),
        (r#"{"channel":"a","dta":1}"#, "invalid_item"),
        (r#"{"channel":"a"}"#, "invalid_item"),
        (r#"{"data":1}"#, "invalid_item"),
        (r#"{"channel":"a","channels":["b"],"data":1}"#, "invalid_item"),
        (r#"{"channel":"a","data":1,"text":"b"}"#, "invalid_item"),
        (r#"{"channel":"a","data":1,"text":null}"#, "invalid_item"),
        (r#"{"channels":["a",1],"data":1}"#, "invalid_item"),
        (r#"{"channels":"a","data":1}"#, "invalid_json"),
        (r#"{"channel":"a","base64":"*"}"#, "invalid_item"),
        (r#"{"channel":"a","data":1,"ttl":-1}"#, "invalid_parameter"),
        (r#"{"channel":"a","data":1,"event":"a\nb"}"#, "invalid_parameter"),
        (r#"{"channel":"","data":1}"#, "invalid_channel"),
        (r#"{"channel":"$x","data":1}"#, "reserved_channel"),
        (&thousand_one, "too_many_items"),
        (&many, "too_many_items"),
    ] {
        let answer = server.items(body).await;
        assert_eq!(answer.code(), code, "{} for {}", answer.body, &body[..body.len().min(60)]);
    }
    let answer = server.post("/v1/publish", "Content-Type: text/plain\r\n", "{}").await;
    assert_eq!((answer.status, answer.code().as_str()), (415, "unsupported_media_type"));
}

#[tokio::test]
async fn bodies_are_bounded_while_they_are_read() {
    let server = Server::start().await;
    let answer = server.ask("POST /v1/publish/a", "Content-Length: 104857600\r\n", b"").await;
    assert_eq!(answer.status, 400, "two lengths are no request");
    let mut client = server.connect().await;
    client.send(b"POST /v1/publish/a HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n").await;
    let head = client.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    let mut client = server.connect().await;
    client.send(b"POST /v1/publish/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat();
    for _ in 0..100 {
        if tokio::io::AsyncWriteExt::write_all(&mut client.stream, &chunk).await.is_err() {
            break;
        }
    }
    let head = client.until("\r\n").await;
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    assert_eq!(server.post("/v1/publish/a", "", vec![b'x'; 4 << 20]).await.status, 200);
    let item = format!(r#"{{"channel":"a","text":"{}"}}"#, "x".repeat((4 << 20) + 1));
    assert_eq!(server.items(item).await.code(), "message_too_large");
}

#[tokio::test]
async fn a_repeat_with_the_same_key_publishes_once() {
    let server = Server::start().await;
    let key = "Idempotency-Key: order-1\r\n";
    let first = server.post("/v1/publish/a", key, "x").await.json();
    for _ in 0..2 {
        let again = server.post("/v1/publish/a", key, "x").await.json();
        assert_eq!((&again["id"], &again["duplicate"]), (&first["id"], &json!(true)));
        assert_eq!(again["time"], first["time"]);
    }
    let other = server.post("/v1/publish/a", key, "y").await;
    assert_eq!((other.status, other.code().as_str()), (409, "idempotency_mismatch"));
    let other = server.post("/v1/publish/a?event=e", key, "x").await;
    assert_eq!(other.code(), "idempotency_mismatch");
    assert_eq!(server.post("/v1/publish/b", key, "y").await.json()["duplicate"], false);
    let item = r#"{"channel":"c","data":1,"key":"k"}"#;
    let results = server.items(format!("[{item},{item}]")).await.json();
    assert_eq!(results["results"][0]["duplicate"], false);
    assert_eq!(results["results"][1]["duplicate"], true);
    assert_eq!(server.get("/v1/history/a").await.json()["messages"].as_array().unwrap().len(), 1);
    assert_eq!(
        server.post("/v1/publish/a", &format!("Idempotency-Key: {}\r\n", "k".repeat(129)), "x").await.code(),
        "invalid_parameter"
    );
}

#[tokio::test]
async fn the_key_of_a_request_stands_for_those_of_its_items() {
    let server = Server::start().await;
    let json = "Content-Type: application/json\r\nIdempotency-Key: invocation-7\r\n";
    let lines = "Content-Type: application/x-ndjson\r\nIdempotency-Key: invocation-8\r\n";
    let one = r#"{"channel":"a","data":1}"#;
    let array = r#"[{"channel":"a","data":1},{"channel":"a","data":2},{"channel":"a","data":2,"key":"own"}]"#;
    let ndjson = "{\"channel\":\"a\",\"data\":1}\n\n{\"channel\":\"a\",\"data\":1}\n";
    for (repeated, duplicates) in [("false", 0), ("true", 6)] {
        let first = server.post("/v1/publish", json, one).await.json();
        assert_eq!(first["duplicate"].to_string(), repeated);
        let answer = server.post("/v1/publish", json, array).await.json();
        assert_eq!(answer["errors"], 0, "{answer}");
        for result in answer["results"].as_array().unwrap() {
            assert_eq!(result["duplicate"].to_string(), repeated, "{answer}");
        }
        let answer = server.post("/v1/publish", lines, ndjson).await.body;
        assert_eq!(answer.matches(&format!("\"duplicate\":{repeated}")).count(), 2, "{answer}");
        assert_eq!(server.api.stats().duplicates, duplicates);
    }
    assert_eq!(server.get("/v1/history/a").await.json()["messages"].as_array().unwrap().len(), 6);
    let other = server.post("/v1/publish", json, r#"{"channel":"a","data":2}"#).await;
    assert_eq!(other.code(), "idempotency_mismatch");
    for wrong in ["", "caf\u{e9}"] {
        let headers = format!("Content-Type: application/json\r\nIdempotency-Key: {wrong}\r\n");
        assert_eq!(server.post("/v1/publish", &headers, one).await.code(), "invalid_parameter");
    }
}

#[tokio::test]
async fn a_body_in_an_unknown_coding_is_refused_rather_than_kept_unsaid() {
    let server = Server::start().await;
    for (encoding, status) in [("gzip", 400), ("br", 415), ("identity", 200)] {
        let answer = server.post("/v1/publish/a", &format!("Content-Encoding: {encoding}\r\n"), "x").await;
        assert_eq!(answer.status, status, "{encoding}");
    }
}

#[tokio::test]
async fn retries_at_the_same_instant_publish_once() {
    let server = Arc::new(Server::start().await);
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let server = Arc::clone(&server);
            tokio::spawn(
                async move { server.post("/v1/publish/a", "Idempotency-Key: k\r\n", "x").await.json() },
            )
        })
        .collect();
    let mut firsts = 0;
    for asked in asked {
        firsts += usize::from(asked.await.unwrap()["duplicate"] == false);
    }
    assert_eq!(firsts, 1);
    assert_eq!(server.get("/v1/history/a").await.json()["messages"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_full_memory_of_keys_refuses_new_ones_of_its_holder_alone() {
    let mut idempotency = broker_core::IdempotencyConfig::default();
    idempotency.max_keys_per_holder = 1;
    let mut core = broker_core::Config::default();
    core.idempotency = idempotency;
    let server = Server::with(core, front_http::Config::default(), Arc::new(broker_core::AllowAll)).await;
    assert_eq!(server.post("/v1/publish/a", "Idempotency-Key: 1\r\n", "x").await.status, 200);
    let full = server.post("/v1/publish/a", "Idempotency-Key: 2\r\n", "x").await;
    assert_eq!((full.status, full.code().as_str()), (503, "idempotency_full"));
    assert!(full.header("retry-after").is_some());
    assert_eq!(server.post("/v1/publish/a", "Idempotency-Key: 1\r\n", "x").await.json()["duplicate"], true);
    assert_eq!(server.post("/v1/publish/a", "", "x").await.status, 200);
    for (key, status) in [("3", 200), ("4", 503)] {
        let headers = format!("Idempotency-Key: {key}\r\n");
        let elsewhere = server.ask_from("127.0.0.2", "POST /v1/publish/a", &headers, b"x").await;
        assert_eq!(elsewhere.status, status, "{}", elsewhere.body);
    }
    // Whose a key is does not depend on where it comes from.
    let again = server.ask_from("127.0.0.2", "POST /v1/publish/a", "Idempotency-Key: 1\r\n", b"x").await;
    assert_eq!(again.json()["duplicate"], true);
}

/// One poll of a request's handler must not publish a million messages.
#[tokio::test]
async fn a_request_of_many_messages_lets_others_have_their_turn() {
    let broker = broker_core::Broker::new(broker_core::Config::default());
    let api = front_http::Front::new(
        broker.clone(),
        Arc::new(broker_core::AllowAll),
        front_http::Config::default(),
    );
    let channels: Vec<_> = (0..1_000).map(|at| format!("\"c{at}\"")).collect();
    let item = format!("{{\"channels\":[{}],\"data\":1}}", channels.join(","));
    let event = r#"{"specversion":"1.0","id":"1","source":"s","type":"t"}"#;
    let cases = [
        ("/v1/publish", "application/json", item.clone()),
        ("/v1/publish", "application/json", format!("[{0},{0}]", item)),
        (
            "/v1/publish",
            "application/json",
            format!("[{}]", vec![r#"{"channel":"a","data":1}"#; 1_000].join(",")),
        ),
        ("/v1/events", "application/cloudevents-batch+json", format!("[{}]", vec![event; 1_000].join(","))),
    ];
    for (target, kind, body) in cases {
        let request = http::Request::post(target)
            .header("content-type", kind)
            .body(http_edge::Body::full(body))
            .unwrap();
        let mut answer = Box::pin(api.handle(request));
        let (mut polls, mut most) = (0, 0);
        let response = std::future::poll_fn(|cx| {
            let before = api.stats().published + api.stats().duplicates;
            let answered = answer.as_mut().poll(cx);
            most = most.max(api.stats().published + api.stats().duplicates - before);
            polls += 1;
            answered
        })
        .await;
        assert_eq!(response.status(), 200);
        assert!(most <= 64 && polls >= 15, "{most} in one of {polls} polls of {target}");
    }
}

#[tokio::test]
async fn lines_are_answered_as_they_are_taken() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client
        .send(b"POST /v1/publish HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len()).into_bytes();
    client.send(&chunk("{\"channel\":\"a\",\"data\":1}\n{\"chan")).await;
    assert!(client.until("\r\n\r\n").await.contains("application/x-ndjson"));
    assert!(client.until("\n\r\n").await.contains("\"channel\":\"a\""));
    client.send(&chunk("nel\":\"*\",\"data\":1}\n\n  \n")).await;
    assert!(client.until("\n\r\n").await.contains("{\"error\":{\"status\":400,\"code\":\"invalid_channel\""));
    client.send(&chunk("{\"channels\":[\"b\",\"c\"],\"text\":\"t\"}\r\nnonsense")).await;
    assert!(client.until("\n\r\n").await.contains("{\"errors\":0,\"results\":[{\"channel\":\"b\""));
    client.send(b"0\r\n\r\n").await;
    assert!(
        client.until("0\r\n\r\n").await.contains("\"code\":\"invalid_json\""),
        "the last line needs no break"
    );
    assert_eq!(server.api.stats().published, 3);
}

#[tokio::test]
async fn many_lines_at_once_are_all_answered() {
    let server = Server::start().await;
    let lines = [b"\n".repeat(200), b"{\"channel\":\"a\",\"data\":1}\n".repeat(2_000)].concat();
    let answer = server.post("/v1/publish", "Content-Type: application/x-ndjson\r\n", lines).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body.matches("\"duplicate\":false").count(), 2_000);
    assert_eq!(server.api.stats().published, 2_000);
}

#[tokio::test]
async fn methods_and_paths_are_told() {
    let server = Server::start().await;
    for (line, status) in [
        ("GET /v1/publish/a", 405),
        ("DELETE /v1/publish", 405),
        ("POST /v1/history/a", 405),
        ("PATCH /v1/retained/a", 405),
        ("POST /healthz", 405),
        ("HEAD /v1/publish/a", 204),
        ("HEAD /v1/history/a", 200),
        ("HEAD /healthz", 200),
        ("OPTIONS /v1/publish/a", 204),
        ("OPTIONS /metrics", 204),
        ("GET /v1/nothing", 404),
        ("GET /", 404),
        ("GET /v1/history", 404),
        ("POST /v1/connections", 405),
        ("PUT /v1/connections/1", 405),
        ("GET /v1/connections/1/messages", 405),
        ("GET /v1/connections/1/subscriptions/a", 405),
        ("HEAD /v1/connections/1/messages", 204),
        ("HEAD /v1/connections", 200),
        ("HEAD /v1/presence/a", 200),
        ("OPTIONS /v1/connections/1/subscriptions/a", 204),
        ("POST /v1/publish?ttl=1", 400),
        ("GET /v1/openapi.json?x", 400),
    ] {
        let answer = server.ask(line, "", b"").await;
        assert_eq!(answer.status, status, "{line}: {}", answer.body);
        assert!(answer.header("x-request-id").is_some(), "{line}");
        assert_eq!(answer.header("allow").is_some(), matches!(status, 405 | 204), "{line}");
    }
    let answer = server.ask("GET /healthz", "X-Request-Id: abc-1\r\n", b"").await;
    assert_eq!(answer.header("x-request-id"), Some("abc-1"));
    assert_eq!(server.api.stats().published, 0);
}

#[tokio::test]
async fn pages_of_other_origins_may_not_publish() {
    let mut config = front_http::Config::default();
    config.origins = http_edge::OriginPolicy::SameOrigin;
    let server = Server::with(broker_core::Config::default(), config, Arc::new(broker_core::AllowAll)).await;
    let answer = server.post("/v1/publish/a", "Origin: https://evil.example\r\n", "x").await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "origin_not_allowed"));
    let answer = server.post("/v1/publish/a", "Origin: http://x\r\n", "x").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://x"));
    assert_eq!(answer.header("vary"), Some("Origin"));
}

#[tokio::test]
async fn rights_are_asked_for_each_channel() {
    let filter = |text| Filter::parse(text).unwrap();
    let rights = Rights::none()
        .allow(Rule::new([Action::Publish], filter("open/#")))
        .deny(Rule::new([Action::Publish], filter("open/closed")));
    let authenticator = Arc::new(Anonymous(Principal::anonymous(rights)));
    let server =
        Server::with(broker_core::Config::default(), front_http::Config::default(), authenticator).await;
    assert_eq!(server.post("/v1/publish/open/a", "", "x").await.status, 200);
    for channel in ["a", "open/closed"] {
        let answer = server.post(&format!("/v1/publish/{channel}"), "", "x").await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"));
    }
    let results = server.items(r#"{"channels":["open/a","b"],"data":1}"#).await.json();
    assert_eq!(results["results"][1]["error"]["status"], 403);
    for target in ["/v1/history/open/a", "/v1/retained/open/a", "/v1/channels/open/a"] {
        assert_eq!(server.get(target).await.code(), "forbidden", "{target}");
    }
    assert_eq!(server.get("/v1/channels").await.json()["channels"], json!([]));
    assert_eq!(server.api.stats().refused_rights, 5);
}

#[tokio::test]
async fn a_closed_broker_is_unavailable() {
    let server = Server::start().await;
    server.broker.close();
    let answer = server.post("/v1/publish/a", "", "x").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "shutting_down"));
    assert!(answer.header("retry-after").is_some());
}

use std::sync::Arc;
use std::time::Duration;

use broker_core::AllowAll;
use bytes::Bytes;
use gateway_aws::Sign;
use http::{HeaderValue, Request};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Answer, Functions, Server, eventually, ok};

const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn connect_has_the_request_with_the_spelling_of_its_header_fields() {
    let functions = Functions::start(|_| async { ok() }).await;
    let server = Server::start(&functions, json!({"stage_variables": {"table": "rooms"}})).await;
    let target = "/dev?a=1&b=x%20y&a=2";
    // Once in one piece, once in several.
    for pieces in [1, 3] {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: chat.example:8080\r\n{HANDSHAKE}HeaderAuth1: s\r\nX-many: 1\r\nX-many: 2\r\n\
             traceparent: 00-1-2-01\r\nUser-Agent: ws\r\n\r\n"
        );
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        for piece in request.as_bytes().chunks(request.len().div_ceil(pieces)) {
            stream.write_all(piece).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let call = functions.next().await;
        assert_eq!(call.path, "/main");
        assert_eq!(call.headers["traceparent"], "00-1-2-01");
        assert_eq!(call.headers["x-amz-invocation-type"], "RequestResponse");
        let event = call.event();
        assert_eq!(event["headers"]["HeaderAuth1"], "s", "{event}");
        assert_eq!(event["headers"]["X-many"], "2");
        assert_eq!(event["multiValueHeaders"]["X-many"], json!(["1", "2"]));
        assert_eq!(event["headers"]["Sec-WebSocket-Version"], "13");
        assert_eq!(event["queryStringParameters"], json!({"a": "2", "b": "x y"}));
        assert_eq!(event["stageVariables"], json!({"table": "rooms"}));
        let context = &event["requestContext"];
        assert_eq!((&context["routeKey"], &context["stage"]), (&json!("$connect"), &json!("dev")));
        assert_eq!(context["domainName"], "chat.example:8080");
        assert_eq!(context["identity"], json!({"sourceIp": "127.0.0.1", "userAgent": "ws"}));
        assert_eq!(context["requestId"], context["extendedRequestId"]);
        let end = {
            drop(stream);
            functions.next_of("DISCONNECT").await.event()
        };
        assert_eq!(end["requestContext"]["connectionId"], context["connectionId"]);
        assert_eq!(end["requestContext"]["disconnectStatusCode"], 1006);
        assert_eq!(end["headers"]["Host"], "chat.example:8080");
    }
}

#[tokio::test]
async fn what_the_function_says_decides() {
    let functions = Functions::start(|call| async move {
        match call.event()["queryStringParameters"]["case"].as_str().unwrap_or_default() {
            "403" => Answer::Json(json!({"statusCode": 403, "body": "secret"})),
            "302" => Answer::Json(json!({"statusCode": 302})),
            "throws" => {
                Answer::Raw(200, vec![("X-Amz-Function-Error", "Unhandled")], r#"{"errorType":"E"}"#.into())
            }
            "emulated" => Answer::Json(json!({"errorType": "E", "errorMessage": "boom"})),
            "junk" => Answer::Raw(200, vec![], "Task timed out after 3.00 seconds".into()),
            "500" => Answer::Raw(500, vec![], "{}".into()),
            "none" => Answer::Json(json!({"ok": true})),
            "text" => Answer::Json(json!({"statusCode": "200"})),
            "cut" => Answer::Cut,
            "slow" => {
                tokio::time::sleep(Duration::from_secs(5)).await;
                ok()
            }
            _ => ok(),
        }
    })
    .await;
    let changes = json!({"integrations": {"main": {"url": functions.url("/main"), "timeout": "300ms"}}});
    let server = Server::start(&functions, changes).await;
    for (case, status) in [
        ("403", 403),
        ("302", 302),
        ("throws", 502),
        ("emulated", 502),
        ("junk", 502),
        ("500", 502),
        ("none", 502),
        ("text", 502),
        ("cut", 502),
        ("slow", 504),
    ] {
        let refused = server.open_at(&format!("/dev?case={case}"), &[]).await;
        assert_eq!(refused.unwrap_err(), status, "{case}");
    }
    let (status, _, body) = server.ask("GET", "/dev?case=403", HANDSHAKE, b"").await;
    assert_eq!((status, &*body), (403, ""), "no body");
    let client = server.open_at("/dev?case=good", &[]).await.unwrap();
    drop(client);
    let end = functions.next_of("DISCONNECT").await.event();
    assert_eq!(end["requestContext"]["disconnectStatusCode"], 1006);
    eventually(|| server.broker.stats().subscribers == 0).await;
    assert_eq!(functions.waiting(), 0, "who was refused has no end");
}

#[tokio::test]
async fn what_is_no_handshake_is_told_before_anybody_is_asked() {
    let functions = Functions::start(|_| async { ok() }).await;
    let server = Server::start(&functions, json!({})).await;
    let long = format!("/dev?a={}", "x".repeat(4_096));
    for (target, headers, status) in
        [("/dev", "", 426), (&*long, HANDSHAKE, 414), ("/other", HANDSHAKE, 404), ("/dev/x", HANDSHAKE, 404)]
    {
        assert_eq!(server.ask("GET", target, headers, b"").await.0, status, "{target:.20}");
    }
    assert_eq!(functions.waiting(), 0);
}

fn policy(effect: &str, context: Value) -> Value {
    let statement = json!({"Effect": effect, "Action": "execute-api:Invoke",
        "Resource": "arn:aws:execute-api:us-east-1:000000000000:chat/dev/$connect"});
    json!({"principalId": "ann", "policyDocument": {"Version": "2012-10-17", "Statement": [statement]},
        "context": context})
}

async fn with_authorizer(cache: &str) -> (Functions, Server) {
    let functions = Functions::start(|call| async move {
        if call.path != "/who" {
            return ok();
        }
        match call.event()["queryStringParameters"]["token"].as_str().unwrap_or_default() {
            "deny" => Answer::Json(policy("Deny", json!({}))),
            "unauthorized" => Answer::Raw(
                200,
                vec![("X-Amz-Function-Error", "Unhandled")],
                r#"{"errorMessage":"Unauthorized","errorType":"Error"}"#.into(),
            ),
            "throws" => Answer::Json(json!({"errorMessage": "boom", "errorType": "Error"})),
            "nobody" => Answer::Json(json!({"policyDocument": {"Statement": []}})),
            "nested" => Answer::Json(policy("Allow", json!({"a": {}}))),
            "expired" => Answer::Json(policy("Allow", json!({"expiresAt": 1}))),
            _ => Answer::Json(policy("Allow", json!({"n": 42, "b": true, "s": "t"}))),
        }
    })
    .await;
    let changes = json!({
        "authorizers": {"who": {"url": functions.url("/who"), "cache": cache,
            "identity": ["route.request.querystring.token"]}},
        "routes": {"$connect": {"integration": "main", "authorizer": "who"},
            "$default": {"integration": "main", "response": true}},
    });
    let server = Server::start(&functions, changes).await;
    (functions, server)
}

#[tokio::test]
async fn an_authorizer_decides_first_and_its_context_is_text_in_every_event() {
    let (functions, server) = with_authorizer("0s").await;
    for (token, status) in [
        ("", 401),
        ("unauthorized", 401),
        ("expired", 401),
        ("deny", 403),
        ("throws", 500),
        ("nobody", 500),
        ("nested", 500),
    ] {
        let refused = server.open_at(&format!("/dev?token={token}"), &[]).await;
        assert_eq!(refused.unwrap_err(), status, "{token}");
    }
    assert_eq!(server.open_at("/dev", &[]).await.unwrap_err(), 401);
    while functions.waiting() > 0 {
        let call = functions.next().await;
        assert_eq!(call.path, "/who", "nobody came to $connect");
        assert_ne!(
            call.event()["queryStringParameters"]["token"],
            "",
            "nobody was asked without an identity"
        );
    }
    let mut client = server.open_at("/dev?token=good", &[]).await.unwrap();
    let asked = functions.next().await.event();
    assert_eq!(asked["type"], "REQUEST");
    assert_eq!(asked["methodArn"], "arn:aws:execute-api:us-east-1:000000000000:chat/dev/$connect");
    let authorizer = json!({"principalId": "ann", "n": "42", "b": "true", "s": "t"});
    assert_eq!(functions.next().await.event()["requestContext"]["authorizer"], authorizer);
    client.send("hello").await;
    assert_eq!(functions.next().await.event()["requestContext"]["authorizer"], authorizer);
    let connections = server.broker.connections(None, 10);
    let peer = connections.first().and_then(|(_, connection)| connection.peer()).expect("it is listed");
    assert_eq!((peer.principal.user(), peer.protocol, peer.transport), (Some("ann"), "aws", "websocket"));
}

#[tokio::test]
async fn answers_of_an_authorizer_are_kept_and_failures_are_not() {
    let (functions, server) = with_authorizer("1m").await;
    let asked = |functions: &Functions| {
        let functions = functions.clone();
        async move {
            let mut count = 0;
            while functions.waiting() > 0 {
                count += usize::from(functions.next().await.path == "/who");
            }
            count
        }
    };
    for _ in 0..3 {
        server.open_at("/dev?token=good", &[]).await.unwrap();
        assert_eq!(server.open_at("/dev?token=deny", &[]).await.unwrap_err(), 403);
        assert_eq!(server.open_at("/dev?token=throws", &[]).await.unwrap_err(), 500);
    }
    assert_eq!(asked(&functions).await, 1 + 1 + 3);
    server.open_at("/dev?token=other", &[]).await.unwrap();
    assert_eq!(asked(&functions).await, 1, "another identity is another question");
}

#[tokio::test]
async fn a_sub_protocol_is_answered_if_it_was_offered() {
    let functions = Functions::start(|_| async {
        Answer::Json(json!({"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "chat.v2"}}))
    })
    .await;
    let server = Server::start(&functions, json!({})).await;
    let offered = [("sec-websocket-protocol", "chat.v1, chat.v2")];
    let client = server.open_at("/dev", &offered).await.unwrap();
    assert_eq!(client.response.headers()["sec-websocket-protocol"], "chat.v2");
    let client = server.open_at("/dev", &[]).await.unwrap();
    assert!(!client.response.headers().contains_key("sec-websocket-protocol"));
}

#[tokio::test]
async fn a_client_that_leaves_meanwhile_is_told_of_if_it_was_let_in() {
    let functions = Functions::start(|call| async move {
        if call.kind() == "CONNECT" {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let status = if call.event()["queryStringParameters"]["in"] == "yes" { 200 } else { 403 };
            return Answer::Json(json!({"statusCode": status}));
        }
        ok()
    })
    .await;
    let server = Server::start(&functions, json!({})).await;
    for case in ["no", "yes"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = format!("GET /dev?in={case} HTTP/1.1\r\nHost: x\r\n{HANDSHAKE}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        functions.next_of("CONNECT").await;
        drop(stream);
    }
    let end = functions.next_of("DISCONNECT").await.event();
    assert_eq!(end["requestContext"]["disconnectStatusCode"], 1006);
    eventually(|| server.broker.stats().subscribers == 0).await;
    assert_eq!(functions.waiting(), 0);
}

/// As a signature does, it names what it is of.
#[derive(Debug)]
struct Signer;

impl Sign for Signer {
    fn sign(&self, request: &mut Request<Bytes>) {
        let of = format!("{} {} {}", request.method(), request.uri(), request.body().len());
        request.headers_mut().insert("authorization", HeaderValue::from_str(&of).unwrap());
    }
}

#[tokio::test]
async fn what_goes_to_the_invoke_api_is_signed_and_nothing_else() {
    let functions = Functions::start(|call| async move {
        match &*call.path {
            "/who" => {
                let statement = json!([{"Effect": "Allow", "Action": "*", "Resource": "*"}]);
                let policy = json!({"Version": "2012-10-17", "Statement": statement});
                Answer::Json(json!({"principalId": "ann", "policyDocument": policy}))
            }
            _ => ok(),
        }
    })
    .await;
    let (main, web, who) = (functions.url("/main"), functions.url("/web"), functions.url("/who"));
    let api = Server::api(
        &functions,
        json!({
            "integrations": {"main": {"kind": "lambda", "url": main}, "web": {"kind": "http", "url": web}},
            "authorizers": {"who": {"url": who}},
            "routes": {"$connect": {"integration": "main", "authorizer": "who"}, "$default": {"integration": "web"}},
        }),
    );
    let signs = |config: &mut gateway_aws::Config| config.apis[0].sign = Some(Arc::new(Signer));
    let server = Server::with(vec![api], signs, Arc::new(AllowAll)).await;
    let mut client = server.open().await;
    client.send("hello").await;
    for (path, url) in [("/who", Some(who)), ("/main", Some(main)), ("/web", None)] {
        let call = functions.next().await;
        let expected = url.map(|url| format!("POST {url} {}", call.body.len()));
        let said = call.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!((&*call.path, said), (path, expected));
    }
}

#[tokio::test]
async fn whoever_was_let_in_and_cannot_be_is_told_of_as_gone() {
    let answer = json!({"statusCode": 200, "fanwire": {"publish": [{"channel": "a\nb", "text": "x"}]}});
    let functions = Functions::start(move |call| {
        let answer = answer.clone();
        async move { if call.kind() == "CONNECT" { Answer::Json(answer) } else { ok() } }
    })
    .await;
    let server = Server::start(&functions, json!({})).await;
    assert_eq!(server.open_at("/dev", &[]).await.unwrap_err(), 502);
    let connect = functions.next().await.event();
    let end = functions.next_of("DISCONNECT").await.event();
    assert_eq!(end["requestContext"]["connectionId"], connect["requestContext"]["connectionId"]);
    assert_eq!(end["requestContext"]["disconnectStatusCode"], 1006);
}

#[tokio::test]
async fn names_of_events_can_stand_in_a_path() {
    let functions = Functions::start(|_| async { ok() }).await;
    let server = Server::start(&functions, json!({})).await;
    for _ in 0..50 {
        drop(server.open().await);
        let event = functions.next_of("CONNECT").await.event();
        let id = event["requestContext"]["requestId"].as_str().unwrap().to_owned();
        assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte)), "{id}");
    }
}

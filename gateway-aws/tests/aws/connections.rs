use std::sync::Arc;
use std::time::Duration;

use broker_core::{AllowAll, AuthError, Authenticated, Authenticator, Credentials, Principal, Rights};
use gateway_aws::{Exception, Verify};
use http::StatusCode;
use http::request::Parts;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Client, Functions, Server, eventually, ok};

/// One key may do everything, one nothing.
#[derive(Debug)]
struct Keys;

impl Authenticator for Keys {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Authenticated<'a> {
        Authenticated::now(match credentials.token {
            Some("manager") => Ok(Principal::anonymous(Rights::all())),
            Some("reader") => Ok(Principal::anonymous(Rights::none())),
            _ => Err(AuthError::Invalid("unknown".into())),
        })
    }
}

const MANAGER: &str = "Authorization: Bearer manager\r\n";

async fn server(functions: &Functions) -> Server {
    let api = |name: &str, path: &str| {
        json!({"name": name, "path": path, "route_selection": "$request.body.action",
            "integrations": {"main": {"url": functions.url("/main")}},
            "routes": {"$connect": {"integration": "main"}, "$disconnect": {"integration": "main"}}})
    };
    let signed = |config: &mut gateway_aws::Config| config.signatures = Some(Arc::new(Signed));
    Server::with(vec![api("chat", "/dev"), api("other", "/prod")], signed, Arc::new(Keys)).await
}

/// Everything is well signed for the API `chat`.
#[derive(Debug)]
struct Signed;

impl Verify for Signed {
    fn verify(&self, _: &Parts, body: &[u8], api: &str) -> Result<(), Exception> {
        match (body, api) {
            (b"forged", _) => Err(Exception::new(StatusCode::FORBIDDEN, "InvalidSignatureException", "no")),
            (_, "chat") => Ok(()),
            _ => Err(Exception::new(StatusCode::FORBIDDEN, "ForbiddenException", "no")),
        }
    }
}

async fn opened(server: &Server, functions: &Functions) -> (Client, String) {
    let client = server.open().await;
    let event = functions.next_of("CONNECT").await.event();
    let id = event["requestContext"]["connectionId"].as_str().unwrap().to_owned();
    assert!((1..=128).contains(&id.len()));
    (client, id)
}

fn kind(head: &str) -> &str {
    head.lines().find_map(|line| line.strip_prefix("x-amzn-errortype: ")).unwrap_or_default()
}

#[tokio::test]
async fn a_backend_sends_to_a_client_looks_at_it_and_closes_it() {
    let functions = Functions::start(|_| async { ok() }).await;
    let server = server(&functions).await;
    let (mut client, id) = opened(&server, &functions).await;
    let target = format!("/dev/@connections/{id}");
    for body in ["hello", "", "{\"a\":1}"] {
        let (status, head, _) = server.ask("POST", &target, MANAGER, body.as_bytes()).await;
        assert_eq!(status, 200, "{head}");
        assert!(head.contains("x-amzn-requestid: "), "{head}");
        assert_eq!(client.next().await.unwrap(), Message::text(body));
    }
    let encoded = format!("/dev/%40connections/{id}");
    let (status, _, body) = server.ask("GET", &encoded, MANAGER, b"").await;
    let shown: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &shown["identity"]["sourceIp"]), (200, &json!("127.0.0.1")));
    for name in ["connectedAt", "lastActiveAt"] {
        assert!(shown[name].as_str().is_some_and(|time| time.ends_with('Z')), "{shown}");
    }
    let (status, _, body) = server.ask("DELETE", &target, MANAGER, b"").await;
    assert_eq!((status, &*body), (204, ""));
    assert_eq!(client.closed().await, 1000);
    for method in ["POST", "GET", "DELETE"] {
        let (status, head, body) = server.ask(method, &target, MANAGER, b"").await;
        assert_eq!((status, kind(&head)), (410, "GoneException"), "{method}");
        assert!(serde_json::from_str::<Value>(&body).unwrap()["message"].is_string());
    }
    let end = functions.next_of("DISCONNECT").await.event();
    assert_eq!(end["requestContext"]["disconnectStatusCode"], 1000);
}

#[tokio::test]
async fn a_client_is_closed_with_a_code_of_the_backends_choice() {
    let functions = Functions::start(|_| async { ok() }).await;
    let server = server(&functions).await;
    let (mut client, id) = opened(&server, &functions).await;
    let close = |query: &str| format!("/dev/@connections/{id}?{query}");
    for wrong in ["code=1006", "code=x", "code=5000", "reason=%00"] {
        let (status, head, _) = server.ask("DELETE", &close(wrong), MANAGER, b"").await;
        assert_eq!((status, kind(&head)), (400, "BadRequestException"), "{wrong}");
    }
    assert_eq!(server.ask("DELETE", &close("code=4003&reason=no%20more"), MANAGER, b"").await.0, 204);
    assert_eq!(client.closed().await, 4003);
    let end = functions.next_of("DISCONNECT").await.event();
    assert_eq!(end["requestContext"]["disconnectReason"], "no more");
}

#[tokio::test]
async fn errors_are_named_where_sdks_look() {
    let functions = Functions::start(|_| async { ok() }).await;
    let server = server(&functions).await;
    let (_client, id) = opened(&server, &functions).await;
    let large = "x".repeat((128 << 10) + 1);
    let reader = "Authorization: Bearer reader\r\n";
    let signed = "Authorization: AWS4-HMAC-SHA256 Credential=x\r\n";
    for (method, target, headers, body, status, expected) in [
        ("POST", format!("/dev/@connections/{id}"), "", "x", 403, "MissingAuthenticationTokenException"),
        (
            "POST",
            format!("/dev/@connections/{id}"),
            "Authorization: Bearer x\r\n",
            "x",
            403,
            "UnrecognizedClientException",
        ),
        ("POST", format!("/dev/@connections/{id}"), reader, "x", 403, "ForbiddenException"),
        ("POST", format!("/dev/@connections/{id}"), signed, "x", 200, ""),
        ("POST", format!("/dev/@connections/{id}"), signed, "forged", 403, "InvalidSignatureException"),
        ("POST", format!("/prod/@connections/{id}"), signed, "x", 403, "ForbiddenException"),
        ("POST", format!("/prod/@connections/{id}"), MANAGER, "x", 410, "GoneException"),
        ("POST", format!("/stage/@connections/{id}"), MANAGER, "x", 403, "ForbiddenException"),
        ("POST", "/dev/@connections/nobody%3D".to_owned(), MANAGER, "x", 410, "GoneException"),
        ("POST", format!("/dev/@connections/{id}/x"), MANAGER, "x", 410, "GoneException"),
        ("PUT", format!("/dev/@connections/{id}"), MANAGER, "x", 405, "MethodNotAllowedException"),
        ("POST", format!("/dev/@connections/{id}"), MANAGER, &*large, 413, "PayloadTooLargeException"),
    ] {
        let (found, head, _) = server.ask(method, &target, headers, body.as_bytes()).await;
        assert_eq!((found, kind(&head)), (status, expected), "{method} {target} {headers}");
    }
}

#[tokio::test]
async fn where_signatures_are_ignored_anybody_may_send() {
    let functions = Functions::start(|_| async { ok() }).await;
    let api = json!({"name": "chat", "path": "/dev", "route_selection": "$request.body.action",
        "integrations": {"main": {"url": functions.url("/main")}},
        "routes": {"$connect": {"integration": "main"}}});
    let server = Server::with(vec![api], |config| config.signatures_ignored = true, Arc::new(AllowAll)).await;
    let (mut client, id) = opened(&server, &functions).await;
    for headers in ["", "Authorization: AWS4-HMAC-SHA256 junk\r\n"] {
        assert_eq!(server.ask("POST", &format!("/dev/@connections/{id}"), headers, b"hi").await.0, 200);
        assert_eq!(client.text().await, "hi");
    }
}

#[tokio::test]
async fn what_is_sent_during_connect_comes_first() {
    let functions = Functions::start(|call| async move {
        if call.kind() == "CONNECT" {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        ok()
    })
    .await;
    let server = server(&functions).await;
    let post = async {
        let event = functions.next_of("CONNECT").await.event();
        let id = event["requestContext"]["connectionId"].as_str().unwrap().to_owned();
        let target = format!("/dev/@connections/{id}");
        let mut statuses = Vec::new();
        for body in ["early", &"x".repeat(60 << 10), &"y".repeat(60 << 10)] {
            let (status, head, _) = server.ask("POST", &target, MANAGER, body.as_bytes()).await;
            statuses.push((status, kind(&head).to_owned()));
        }
        statuses
    };
    let (mut client, statuses) = tokio::join!(server.open(), post);
    assert_eq!(client.text().await, "early");
    assert_eq!(client.text().await.len(), 60 << 10);
    let full = (429, "LimitExceededException".to_owned());
    assert_eq!(statuses, [(200, String::new()), (200, String::new()), full]);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_said_at_once() {
    let functions = Functions::start(|_| async { ok() }).await;
    let server = server(&functions).await;
    let (_client, id) = opened(&server, &functions).await;
    let target = format!("/dev/@connections/{id}");
    let body = "x".repeat(128 << 10);
    let mut refused = None;
    for _ in 0..200 {
        let (status, head, _) = server.ask("POST", &target, MANAGER, body.as_bytes()).await;
        if status != 200 {
            refused = Some((status, kind(&head).to_owned()));
            break;
        }
    }
    assert_eq!(refused, Some((429, "LimitExceededException".to_owned())));
    eventually(|| server.broker.stats().subscribers == 1).await;
}

//! Nothing that a peer nests makes the process run out of stack. Every recursion there is, and its bound:
//!
//! | what | by | bound |
//! | --- | --- | --- |
//! | JSON bodies, items, events | `envelope::is_valid_json`, serde_json's `RawValue` | none needed: both go over the text without recursion; 512 levels are refused |
//! | Bayeux messages | `front-bayeux/src/codec/message.rs` | the same; `bayeux.max_depth` before anything is parsed |
//! | structs read from JSON: tokens, key sets, CloudEvents | serde_json | 128 levels, its own |
//! | TOML, also in environment variables | toml | 80 levels, its own |
//! | the configuration's own keys | `src/config/{load,fixed}.rs`, `collect` | as deep as the sections are |
//! | filters against channels and filters: tree, retained messages, rights | `broker-core` | none: loops over segments; names have at most `broker.max_channel_levels` (tests `depth`, `levels`) |
//!
//! `front-http/src/openapi.rs` and the load generator recurse over what they ship themselves.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use crate::support::bayeux::Socket;
use crate::support::http::{get, post_json, request};
use crate::support::process::{Process, run};
use crate::support::within;

const DEPTH: usize = 100_000;

fn arrays(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

fn objects(depth: usize) -> String {
    "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth)
}

#[tokio::test]
async fn json_of_any_depth_is_answered_at_every_door() {
    let server = Process::start(&[]).await;
    for deep in [arrays(DEPTH), objects(DEPTH), "[".repeat(DEPTH), "{\"a\":".repeat(DEPTH)] {
        let item = format!("{{\"channel\":\"a\",\"data\":{deep}}}");
        let unknown = format!("{{\"channel\":\"a\",\"nobody\":{deep}}}");
        let event = |data: &str| {
            format!("{{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\",{data}:{deep}}}")
        };
        let handshake = |field: &str| {
            format!(
                "[{{\"channel\":\"/meta/handshake\",\"version\":\"1.0\",\"supportedConnectionTypes\":[\"long-polling\"],{field}:{deep}}}]"
            )
        };
        let cases = [
            ("/v1/publish", "application/json", deep.clone()),
            ("/v1/publish", "application/json", item.clone()),
            ("/v1/publish", "application/json", unknown),
            ("/v1/publish", "application/json", format!("[{item},{item}]")),
            ("/v1/events", "application/cloudevents+json", deep.clone()),
            ("/v1/events", "application/cloudevents+json", event("\"data\"")),
            ("/v1/events", "application/cloudevents+json", event("\"extension\"")),
            ("/v1/events", "application/cloudevents-batch+json", format!("[{}]", event("\"data\""))),
            ("/cometd", "application/json", deep.clone()),
            ("/cometd", "application/json", handshake("\"ext\"")),
            ("/cometd", "application/json", handshake("\"advice\"")),
            ("/cometd", "application/json", handshake("\"nobody\"")),
            ("/cometd", "application/x-www-form-urlencoded", format!("message={}", handshake("\"ext\""))),
        ];
        for (target, content_type, body) in cases {
            let shown: String = body.chars().take(60).collect();
            let answer = request(server.http, "POST", target, &[("content-type", content_type)], body).await;
            // A batch is answered item by item.
            let refused = match answer.status {
                200 => answer.text().contains("\"error\":{\"status\":4"),
                status => matches!(status, 400 | 422),
            };
            assert!(refused, "{target} {content_type} {shown}: {answer:?}");
        }
        let lines = format!("{item}\n{item}\n");
        let answer =
            request(server.http, "POST", "/v1/publish", &[("content-type", "application/x-ndjson")], lines)
                .await;
        assert_eq!(answer.text().lines().filter(|line| line.contains("\"error\"")).count(), 2, "{answer:?}");

        let mut socket = Socket::handshake(server.http).await;
        within(socket.socket.send(Message::text(handshake("\"ext\"")))).await.expect("written");
        within(async { while let Some(Ok(_)) = socket.socket.next().await {} }).await;
    }
    // What is published as it is may be as deep as it likes, whoever reads it.
    let mut socket = Socket::handshake(server.http).await;
    socket.subscribe("/deep").await;
    let deep = arrays(DEPTH);
    assert_eq!(post_json(server.http, "/v1/publish/deep?retain=true", deep.clone()).await.status, 200);
    assert!(within(socket.frame_text()).await.is_some_and(|text| text.len() > DEPTH));
    for target in ["/v1/history/deep", "/v1/retained/deep", "/v1/channels", "/healthz"] {
        assert_eq!(get(server.http, target).await.status, 200, "{target}");
    }
}

#[tokio::test]
async fn tokens_and_key_sets_of_any_depth_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = "0123456789abcdef0123456789abcdef";
    let config = folder.path().join("fanwire.toml");
    let issuer = format!(
        "[[issuers]]\niss = \"i\"\naud = [\"f\"]\nalgorithms = [\"HS256\"]\nsecret = \"{secret}\"\n\
         rights = [{{ actions = [\"publish\"], channels = [\"**\"] }}]\n"
    );
    std::fs::write(&config, issuer).expect("written");
    let server = Process::start(&["--config", config.to_str().expect("UTF-8")]).await;
    // As deep as a head may be long.
    let claims =
        |depth: usize| URL_SAFE_NO_PAD.encode(format!("{{\"iss\":\"i\",\"rights\":{}}}", arrays(depth)));
    let header = URL_SAFE_NO_PAD.encode("{\"alg\":\"HS256\"}");
    let deep_header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"HS256\",\"x\":{}}}", arrays(5000)));
    for token in [format!("{header}.{}.AAAA", claims(5000)), format!("{deep_header}.{}.AAAA", claims(1))] {
        let bearer = format!("Bearer {token}");
        let answer = request(server.http, "POST", "/v1/publish/a", &[("authorization", &bearer)], "x").await;
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    assert_eq!(get(server.http, "/healthz").await.status, 200);
    drop(server);

    let keys = folder.path().join("keys.json");
    for set in [
        arrays(DEPTH),
        format!("{{\"keys\":{}}}", arrays(DEPTH)),
        format!("{{\"keys\":[{}]}}", objects(DEPTH)),
    ] {
        std::fs::write(&keys, set).expect("written");
        let issuer = format!(
            "[[issuers]]\niss = \"i\"\naud = [\"f\"]\nalgorithms = [\"RS256\"]\njwks_file = \"{}\"\n",
            keys.display()
        );
        std::fs::write(&config, issuer).expect("written");
        let (code, said) = run(&["check-config", config.to_str().expect("UTF-8")], &[]).await;
        assert_eq!(code, Some(2), "{said}");
    }
}

#[tokio::test]
async fn a_configuration_of_any_depth_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("fanwire.toml");
    let tables = "{a=".repeat(DEPTH) + "1" + &"}".repeat(DEPTH);
    let dotted = "a.".repeat(DEPTH) + "a = 1";
    let headers = format!("[{}a]", "a.".repeat(DEPTH));
    for text in [format!("keys = {}", arrays(DEPTH)), format!("keys = {tables}"), dotted, headers] {
        std::fs::write(&file, &text).expect("written");
        let (code, said) = run(&["check-config", file.to_str().expect("UTF-8")], &[]).await;
        assert_eq!(code, Some(2), "{:.20}: {said:.200}", text);
    }
    // A variable is at most 128 KiB.
    for text in [arrays(60_000), "{a=".repeat(40_000)] {
        let (code, said) = run(&[], &[("FANWIRE_KEYS", &text)]).await;
        assert_eq!(code, Some(2), "{said:.200}");
    }
}

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use broker_core::{AllowAll, CloseCause};
use futures_util::SinkExt;
use gateway::dead::Graveyard;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::support::{Answer, Functions, Server, eventually, ok, within};

#[tokio::test]
async fn an_end_says_how_the_client_left() {
    let functions = Functions::start(|_| async { ok() }).await;
    let server = Server::start(&functions, json!({})).await;
    for (frame, code, reason) in [
        (Some(CloseFrame { code: 4002.into(), reason: "enough".into() }), 4002, "enough"),
        (Some(CloseFrame { code: 1000.into(), reason: "".into() }), 1000, ""),
        (None, 1005, "Client-side close frame status not set"),
    ] {
        let mut client = server.open().await;
        within(client.socket.close(frame)).await.unwrap();
        client.closed().await;
        let context = functions.next_of("DISCONNECT").await.event()["requestContext"].clone();
        assert_eq!(
            (&context["disconnectStatusCode"], &context["disconnectReason"]),
            (&json!(code), &json!(reason))
        );
        assert_eq!(context["routeKey"], "$disconnect");
    }
    drop(server.open().await);
    let context = functions.next_of("DISCONNECT").await.event()["requestContext"].clone();
    assert_eq!(context["disconnectStatusCode"], 1006);
}

#[tokio::test]
async fn an_end_is_told_again_until_it_is_heard_and_after_all_messages() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let functions = Functions::start(move |call| {
        let tries = Arc::clone(&counted);
        async move {
            match &*call.kind() {
                "DISCONNECT" => match tries.fetch_add(1, SeqCst) {
                    0 => Answer::Raw(500, vec![], "{}".into()),
                    1 => Answer::Cut,
                    _ => Answer::Json(json!({"statusCode": 500})),
                },
                "MESSAGE" => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    ok()
                }
                _ => ok(),
            }
        }
    })
    .await;
    let server = Server::start(&functions, json!({})).await;
    let mut client = server.open().await;
    for number in 0..5 {
        client.send(&number.to_string()).await;
    }
    within(client.socket.close(None)).await.unwrap();
    let mut kinds = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..9 {
        let call = functions.next().await;
        kinds.push(call.kind());
        if call.kind() == "DISCONNECT" {
            ids.push(call.event()["requestContext"]["requestId"].clone());
        }
    }
    let expected = [&["CONNECT"; 1][..], &["MESSAGE"; 5], &["DISCONNECT"; 3]].concat();
    assert_eq!(kinds, expected);
    assert!(ids.iter().all(|id| *id == ids[0]), "one event has one id");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(functions.waiting(), 0, "any status is an answer");
}

#[tokio::test]
async fn an_end_that_nobody_hears_is_a_dead_letter_and_is_told_again_on_request() {
    let hears = Arc::new(AtomicBool::new(false));
    let functions = Functions::start({
        let hears = Arc::clone(&hears);
        move |call| {
            let fails = call.kind() == "DISCONNECT" && !hears.load(SeqCst);
            async move { if fails { Answer::Raw(500, vec![], "{}".into()) } else { ok() } }
        }
    })
    .await;
    let dead = Graveyard::default();
    let known = dead.clone();
    let api = Server::api(&functions, json!({}));
    let server = Server::with(vec![api], |config| config.dead = known, Arc::new(AllowAll)).await;
    drop(server.open().await);
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(functions.next_of("DISCONNECT").await.event());
    }
    let counted = || {
        let mut out = Vec::new();
        front::Front::collect(&server.front, &mut out);
        out.into_iter()
            .any(|metric| metric.name == "gateway_dead" && metric.value == front::Value::Counter(1))
    };
    eventually(counted).await;
    assert_eq!(functions.waiting(), 0);

    let owners = dead.owners();
    let letters = owners[0].dead_letters();
    eventually(|| !letters.is_empty()).await;
    assert_eq!((owners.len(), letters.owner(), letters.len()), (1, "aws:chat", 1));
    let id = told[0]["requestContext"]["requestId"].as_str().unwrap();
    let shown: Value = serde_json::from_slice(&letters.find(id).unwrap().json()).unwrap();
    assert_eq!((&shown["event"], &shown["attempts"]), (&told[0], &json!(4)), "{shown}");
    assert_eq!((&shown["cause"], &shown["last"]["status"]), (&json!("gave_up"), &json!(500)), "{shown}");

    hears.store(true, SeqCst);
    owners[0].replay(letters.take(id).unwrap().again());
    assert_eq!(functions.next_of("DISCONNECT").await.event(), told[0]);
}

#[tokio::test]
async fn idle_and_old_connections_go_away_and_pings_do_not_count() {
    let functions = Functions::start(|_| async { ok() }).await;
    for changes in [json!({"idle_timeout": "400ms"}), json!({"max_life": "400ms"})] {
        let is_idle = changes.get("idle_timeout").is_some();
        let server = Server::start(&functions, changes).await;
        let mut client = server.open().await;
        if is_idle {
            within(client.socket.send(Message::Ping(vec![1].into()))).await.unwrap();
        }
        assert_eq!(client.closed().await, 1001);
        let context = functions.next_of("DISCONNECT").await.event()["requestContext"].clone();
        assert_eq!(
            (&context["disconnectStatusCode"], &context["disconnectReason"]),
            (&json!(1001), &json!("Going away"))
        );
    }
}

#[tokio::test]
async fn what_breaks_a_bound_is_closed_by_its_code() {
    let functions = Functions::start(|_| async { ok() }).await;
    let changes = json!({"max_message_bytes": 1000, "max_frame_bytes": 500, "binary": "refuse"});
    let server = Server::start(&functions, changes).await;
    let cases = [
        (Message::text("x".repeat(1001)), 1009),
        (Message::text("x".repeat(501)), 1009),
        (Message::binary(vec![1]), 1003),
    ];
    for (message, code) in cases {
        let mut client = server.open().await;
        within(client.socket.send(message)).await.unwrap();
        assert_eq!(client.closed().await, code);
        let context = functions.next_of("DISCONNECT").await.event()["requestContext"].clone();
        assert_eq!(context["disconnectStatusCode"], code);
    }
}

#[tokio::test]
async fn an_operator_and_the_end_of_credentials_close_it() {
    let functions = Functions::start(|_| async { ok() }).await;
    let server = Server::start(&functions, json!({})).await;
    for (cause, code) in
        [(CloseCause::RightsChanged, 4401), (CloseCause::Administrative(Some("go".into())), 1000)]
    {
        let mut client = server.open().await;
        let listed = || server.broker.connections(None, 10);
        eventually(|| listed().len() == 1).await;
        listed()[0].1.close(&cause);
        assert_eq!(client.closed().await, code);
        let context = functions.next_of("DISCONNECT").await.event()["requestContext"].clone();
        assert_eq!(
            (&context["disconnectStatusCode"], &context["disconnectReason"]),
            (&json!(code), &json!(cause.text()))
        );
        eventually(|| listed().is_empty()).await;
    }
}

#[tokio::test]
async fn a_stop_tells_clients_and_functions_and_lets_nobody_in() {
    let functions = Functions::start(|_| async { ok() }).await;
    let server = Server::start(&functions, json!({})).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(server.open().await);
    }
    within(server.front.shutdown(Duration::from_secs(10))).await;
    let mut ends = 0;
    while functions.waiting() > 0 {
        let event = functions.next().await.event();
        if event["requestContext"]["eventType"] == "DISCONNECT" {
            assert_eq!(event["requestContext"]["disconnectStatusCode"], 1001);
            ends += 1;
        }
    }
    assert_eq!(ends, 20);
    for client in &mut clients {
        assert_eq!(client.closed().await, 1001);
    }
    assert_eq!(server.open_at("/dev", &[]).await.unwrap_err(), 503);
}

/// More than are told at a time, and while others go on.
#[tokio::test]
async fn each_of_many_clients_that_vanish_at_once_is_told_of_and_live_ones_go_on() {
    const CLIENTS: usize = 400;
    let functions = Functions::start(|call| async move {
        if call.kind() == "DISCONNECT" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Answer::Json(json!({"statusCode": 200, "body": call.text()}))
    })
    .await;
    let server = Server::start(&functions, json!({"max_in_flight": 16})).await;
    let mut live = server.open().await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(server.open().await);
    }
    let mut left = BTreeSet::new();
    for _ in 0..=CLIENTS {
        let id = functions.next_of("CONNECT").await.event()["requestContext"]["connectionId"].clone();
        left.insert(id.as_str().unwrap().to_owned());
    }
    drop(clients);
    for number in 0..20 {
        live.send(&format!("{number}")).await;
        assert_eq!(live.text().await, format!("{number}"));
    }
    while left.len() > 1 {
        let context = functions.next_of("DISCONNECT").await.event()["requestContext"].clone();
        assert_eq!(context["disconnectStatusCode"], 1006);
        assert!(left.remove(context["connectionId"].as_str().unwrap()), "once each");
    }
}

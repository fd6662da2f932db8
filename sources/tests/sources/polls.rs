//! Polls and long polls.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Life, Upstream, ok, status, within};

#[tokio::test]
async fn a_page_that_has_not_changed_is_published_once() {
    let upstream = Upstream::start(|number, _| match number {
        0 | 1 => ok("etag: \"a\"\r\ncontent-type: text/csv\r\n", "one"),
        2 => status("304 Not Modified"),
        _ => ok("etag: \"b\"\r\n", "two"),
    })
    .await;
    let life = Life::start(&[
        json!({"id": "p", "kind": "poll", "url": upstream.url, "channel": "a", "interval": "1s"}),
    ]);
    let mut heard = life.hear("a");
    let first = heard.next().await;
    assert_eq!(
        (&**first.payload(), first.content_type().map(|kind| kind.as_str())),
        (&b"one"[..], Some("text/csv"))
    );
    assert_eq!(heard.text().await, "two");
    let heads = upstream.heads();
    assert!(
        !heads[0].contains("if-none-match") && heads[1].contains("if-none-match: \"a\"\r\n"),
        "{heads:?}"
    );
}

#[tokio::test]
async fn what_has_changed_is_a_patch_that_applies_and_newcomers_begin_with_the_whole() {
    let upstream = Upstream::start(|number, _| {
        let items: Vec<Value> =
            (0..=number.min(6)).map(|n| json!({"n": n, "name": "a long name of it"})).collect();
        ok("", &json!({"at": number, "items": items}).to_string())
    })
    .await;
    let life = Life::start(&[
        json!({"id": "p", "kind": "poll", "url": upstream.url, "channel": "list", "interval": "1s",
        "select": "/items", "diff": true}),
    ]);
    let mut heard = life.hear("list");
    let mut document = Value::Null;
    for count in 0..3 {
        let message = heard.next().await;
        let value: Value = serde_json::from_slice(message.payload()).unwrap();
        if count == 0 {
            assert_eq!((message.event(), message.retain()), (Some("data"), true));
            document = value;
        } else {
            assert_eq!((message.event(), message.retain()), (Some("patch"), false), "{value}");
            let patch: json_patch::Patch = serde_json::from_value(value).unwrap();
            json_patch::patch(&mut document, &patch).unwrap();
        }
        assert_eq!(document.as_array().map(Vec::len), Some(count + 1));
        assert_eq!(document[count]["n"], count);
    }
    // A client that comes now finds what was retained, which is old: the next is the whole again.
    let _client = life.subscribes("list");
    let next = heard.next().await;
    assert_eq!((next.event(), next.retain()), (Some("data"), true));
    let whole: Value = serde_json::from_slice(next.payload()).unwrap();
    assert_eq!(whole.as_array().map(Vec::len), Some(4));
}

#[tokio::test]
async fn what_is_no_json_or_not_there_is_said() {
    let upstream =
        Upstream::start(|_, head| ok("", if head.starts_with("GET /text") { "text" } else { "{}" })).await;
    let source = |id: &str| json!({"id": id, "kind": "poll", "url": format!("{}/{id}", upstream.url), "channel": "a", "select": "/items"});
    let life = Life::start(&[source("text"), source("empty")]);
    within(async {
        while ["text", "empty"].iter().any(|id| life.sources.state_of(id).unwrap().error.is_none()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let said = |id: &str| life.sources.state_of(id).unwrap().error.unwrap().1;
    assert!(said("text").starts_with("no JSON: "), "{}", said("text"));
    assert_eq!(said("empty"), "\"/items\" of the answer is not there");
}

#[tokio::test]
async fn a_long_poll_follows_the_next_link_on_its_own_host() {
    let upstream = Upstream::start(|number, head| match number {
        0 => ok("link: </next?after=1>; rel=next\r\n", "one"),
        1 => ok("link: <http://localhost:9/x>; rel=next\r\n", "two"),
        _ => {
            assert!(head.starts_with("GET /next?after=1 "), "another host is not followed: {head}");
            if number == 2 { ok("", "three") } else { status("204 No Content") }
        }
    })
    .await;
    let life = Life::start(&[json!({"id": "l", "kind": "longpoll", "url": upstream.url, "channel": "a"})]);
    let mut heard = life.hear("a");
    for text in ["one", "two", "three"] {
        assert_eq!(heard.text().await, text);
    }
    // Answers without anything are not asked for in a circle.
    heard.nothing(Duration::from_millis(500)).await;
    assert!(upstream.heads().len() <= 5, "{}", upstream.heads().len());
}

#[tokio::test]
async fn who_says_five_times_that_there_is_nothing_is_left_alone_until_resumed() {
    let upstream =
        Upstream::start(|number, _| if number < 5 { status("404 Not Found") } else { ok("", "back") }).await;
    let life = Life::start(&[json!({"id": "p", "kind": "poll", "url": upstream.url, "channel": "a"})]);
    let mut heard = life.hear("a");
    tokio::time::timeout(Duration::from_secs(60), async {
        while life.sources.state_of("p").unwrap().phase != sources::Phase::Failed {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("left alone");
    let state = life.sources.state_of("p").unwrap();
    assert_eq!(state.error, Some((sources::Condition::BadStatus, "status 404".to_owned())));
    assert_eq!(upstream.heads().len(), 5);
    assert!(life.sources.resume("p"));
    assert_eq!(heard.text().await, "back");
}

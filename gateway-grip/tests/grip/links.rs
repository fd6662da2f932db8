//! Streams that go on at the links of their origin.

use serde_json::{Value, json};

use crate::holds::{answer, held};
use crate::streams::Reader;

const STREAM: &str = "grip-hold: stream\r\ncontent-type: text/plain\r\n";

fn item(id: &str, prev_id: &str) -> Value {
    json!({"channel": "a", "id": id, "prev-id": prev_id, "http-stream": {"content": format!("{id},")}})
}

#[tokio::test]
async fn bodies_of_links_are_joined_and_then_the_stream_is_live() {
    let (mut origin, server) = held(json!({})).await;
    let told = "content-type: text/plain\r\ngrip-link: </more?n=1>; rel=next\r\n";
    let mut reader = Reader::open(&server, &mut origin, told, "one,").await;
    assert_eq!(reader.chunk().await.unwrap(), "one,");
    let head = origin.answer(&answer("grip-link: <more?n=2>; rel=next\r\n", "two,")).await;
    assert!(head.starts_with("GET /more?n=1 ") && head.contains("grip-feature: status, link:next"), "{head}");
    assert_eq!(reader.chunk().await.unwrap(), "two,");
    let head = origin.answer(&answer(&format!("{STREAM}grip-channel: a\r\n"), "three,")).await;
    assert!(head.starts_with("GET /more?n=2 "), "{head}");
    assert_eq!(reader.chunk().await.unwrap(), "three,");
    server.items(json!([item("1", "")])).await;
    assert_eq!(reader.chunk().await.unwrap(), "1,");
}

#[tokio::test]
async fn a_hint_has_the_link_asked_and_nothing_comes_twice() {
    let (mut origin, server) = held(json!({"channel_prefix": "p/"})).await;
    let told = format!("{STREAM}grip-channel: a\r\ngrip-link: </next>; rel=next; timeout=3600\r\n");
    let mut reader = Reader::open(&server, &mut origin, &told, "own,").await;
    assert_eq!(reader.chunk().await.unwrap(), "own,");
    let publish = |item: Value| {
        let mut item = item;
        item["channel"] = json!("p/a");
        server.items(json!([item]))
    };
    publish(item("1", "")).await;
    publish(item("2", "1")).await;
    assert_eq!(reader.chunk().await.unwrap(), "1,");
    assert_eq!(reader.chunk().await.unwrap(), "2,");
    publish(json!({"http-stream": {"action": "hint"}})).await;
    let mut asked = origin.accept().await;
    let head = asked.head().await;
    assert!(head.contains("grip-last: a; last-id=2\r\n"), "{head}");
    // The origin knows of the first alone, and meanwhile there is another.
    publish(item("3", "2")).await;
    let told = format!("{STREAM}grip-channel: a; prev-id=1\r\ngrip-link: </next>; rel=next\r\n");
    asked.send(&answer(&told, "link,")).await;
    assert_eq!(reader.chunk().await.unwrap(), "link,");
    assert_eq!(reader.chunk().await.unwrap(), "3,");
    publish(item("4", "3")).await;
    assert_eq!(reader.chunk().await.unwrap(), "4,");
    // Everybody's at once.
    let recover = "POST /grip/recover/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    assert!(server.ask(recover).await.ends_with("Recovering\n"));
    let head = origin.answer(&answer("", "end")).await;
    assert!(head.contains("grip-last: a; last-id=4\r\n"), "{head}");
    assert_eq!(reader.chunk().await.unwrap(), "end");
    assert_eq!(reader.chunk().await, None, "an answer without a hold and a link is the end");
}

#[tokio::test]
async fn what_the_log_does_not_have_the_link_is_asked_for() {
    let (mut origin, server) = held(json!({})).await;
    server.items(json!([item("5", "")])).await;
    let told = format!("{STREAM}grip-channel: a; prev-id=2\r\ngrip-link: </next>; rel=next\r\n");
    let mut reader = Reader::open(&server, &mut origin, &told, "own,").await;
    assert_eq!(reader.chunk().await.unwrap(), "own,");
    let told = format!("{STREAM}grip-channel: a; prev-id=5\r\n");
    let head = origin.answer(&answer(&told, "3,4,5,")).await;
    assert!(head.contains("grip-last: a; last-id=2\r\n"), "{head}");
    assert_eq!(reader.chunk().await.unwrap(), "3,4,5,");
    server.items(json!([item("6", "5")])).await;
    assert_eq!(reader.chunk().await.unwrap(), "6,");
}

#[tokio::test]
async fn equal_requests_are_one_and_a_quiet_stream_asks_by_itself() {
    let (mut origin, server) = held(json!({})).await;
    let told = format!("{STREAM}grip-channel: a\r\ngrip-link: </next>; rel=next; timeout=1\r\n");
    let mut readers = Vec::new();
    for _ in 0..3 {
        readers.push(Reader::open(&server, &mut origin, &told, "own,").await);
    }
    let mut asked = origin.accept().await;
    asked.head().await;
    // All of them are at the link by now, or ask it later, and then alike.
    server.holding(3).await;
    let last = format!("{STREAM}grip-channel: a\r\n");
    asked.send(&answer(&last, "again,")).await;
    let mut requests = 1;
    for reader in &mut readers {
        assert_eq!(reader.chunk().await.unwrap(), "own,");
        let answering = async {
            loop {
                origin.answer(&answer(&last, "again,")).await;
                requests += 1;
            }
        };
        tokio::select! {
            got = reader.chunk() => assert_eq!(got.unwrap(), "again,"),
            () = answering => {}
        }
    }
    assert!(requests <= 3, "{requests}");
}

#[tokio::test]
async fn a_link_is_tried_again_and_an_origin_hears_that_a_client_is_gone() {
    let (mut origin, server) = held(json!({"debug": true})).await;
    let told = "grip-link: </next>; rel=next\r\ngrip-link: </gone?x>; rel=gone\r\n";
    let mut reader = Reader::open(&server, &mut origin, told, "own,").await;
    assert_eq!(reader.chunk().await.unwrap(), "own,");
    origin.answer("HTTP/1.1 503 Later\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    origin.answer(&answer(&format!("{STREAM}grip-channel: a\r\n"), "two,")).await;
    assert_eq!(reader.chunk().await.unwrap(), "two,");
    drop(reader);
    let head = origin.answer("HTTP/1.1 204 Good\r\nconnection: close\r\n\r\n").await;
    assert!(head.starts_with("POST /gone?x "), "{head}");
    let wrong = answer("grip-link: <http://elsewhere.example/>; rel=next\r\n", "");
    let (got, _) = tokio::join!(server.get("/"), async { origin.answer(&wrong).await });
    assert!(got.starts_with("HTTP/1.1 502 ") && got.contains("of another host"), "{got}");
}

#[tokio::test]
async fn an_origin_that_has_just_been_asked_may_name_what_was_never_published() {
    let (mut origin, server) = held(json!({})).await;
    let told = format!("{STREAM}grip-channel: a\r\ngrip-link: </next>; rel=next; timeout=3600\r\n");
    let mut reader = Reader::open(&server, &mut origin, &told, "own,").await;
    assert_eq!(reader.chunk().await.unwrap(), "own,");
    server.items(json!([item("1", "")])).await;
    assert_eq!(reader.chunk().await.unwrap(), "1,");
    server.items(json!([{"channel": "a", "http-stream": {"action": "hint"}}])).await;
    // Its process ended before it could publish this.
    let told =
        format!("{STREAM}grip-channel: a; prev-id=2\r\ngrip-link: </next>; rel=next; timeout=3600\r\n");
    origin.answer(&answer(&told, "2,")).await;
    assert_eq!(reader.chunk().await.unwrap(), "2,");
    server
        .items(json!([{"channel": "a", "id": "3", "no-seq": true, "http-stream": {"content": "3,"}}]))
        .await;
    assert_eq!(reader.chunk().await.unwrap(), "3,");
    assert!(origin.is_alone(), "it is believed, and not asked again and again");
}

#[tokio::test]
async fn what_never_came_the_link_is_asked_for_before_what_comes_behind_it() {
    let (mut origin, server) = held(json!({})).await;
    let told = format!("{STREAM}grip-channel: a\r\ngrip-link: </next>; rel=next; timeout=3600\r\n");
    let mut linked = Reader::open(&server, &mut origin, &told, "own,").await;
    let mut plain = Reader::open(&server, &mut origin, &format!("{STREAM}grip-channel: a\r\n"), "own,").await;
    server.items(json!([item("1", "")])).await;
    for reader in [&mut linked, &mut plain] {
        assert_eq!(reader.chunk().await.unwrap(), "own,");
        assert_eq!(reader.chunk().await.unwrap(), "1,");
    }
    // The second is lost on its way; five seconds later nobody waits for it any more.
    server.items(json!([item("3", "2"), item("4", "3")])).await;
    let mut asked = origin.accept().await;
    let head = asked.head().await;
    assert!(head.contains("grip-last: a; last-id=1\r\n"), "{head}");
    assert_eq!(plain.chunk().await.unwrap(), "3,", "it has no link, and is not kept waiting");
    assert_eq!(plain.chunk().await.unwrap(), "4,");
    server.items(json!([item("5", "4")])).await;
    let told =
        format!("{STREAM}grip-channel: a; prev-id=3\r\ngrip-link: </next>; rel=next; timeout=3600\r\n");
    asked.send(&answer(&told, "2,3,")).await;
    for expected in ["2,3,", "4,", "5,"] {
        assert_eq!(linked.chunk().await.unwrap(), expected);
    }
    server.items(json!([item("6", "5")])).await;
    assert_eq!(linked.chunk().await.unwrap(), "6,");
    assert!(origin.is_alone(), "once");
}

#[tokio::test]
async fn what_comes_behind_an_item_that_never_came_is_not_left_out() {
    let (mut origin, server) = held(json!({})).await;
    let told = format!("{STREAM}grip-channel: a\r\ngrip-link: </next>; rel=next; timeout=3600\r\n");
    let mut reader = Reader::open(&server, &mut origin, &told, "own,").await;
    assert_eq!(reader.chunk().await.unwrap(), "own,");
    server.items(json!([item("1", "")])).await;
    assert_eq!(reader.chunk().await.unwrap(), "1,");
    server.items(json!([item("3", "2"), item("4", "3")])).await;
    // Its origin has only what is missing, as it does not know of the rest yet.
    let told =
        format!("{STREAM}grip-channel: a; prev-id=2\r\ngrip-link: </next>; rel=next; timeout=3600\r\n");
    origin.answer(&answer(&told, "2,")).await;
    for expected in ["2,", "3,", "4,"] {
        assert_eq!(reader.chunk().await.unwrap(), expected);
    }
    // So it is for whoever comes behind that item, without a link too.
    let told = format!("{STREAM}grip-channel: a; prev-id=2\r\n");
    let mut other = Reader::open(&server, &mut origin, &told, "other,").await;
    for expected in ["other,", "3,", "4,"] {
        assert_eq!(other.chunk().await.unwrap(), expected);
    }
    assert!(origin.is_alone(), "nobody is asked again");
}

#[tokio::test]
async fn a_link_that_is_answered_with_a_response_that_waits_ends_the_stream_without_it() {
    let (mut origin, server) = held(json!({})).await;
    let told = format!("{STREAM}grip-channel: a\r\ngrip-link: </next>; rel=next; timeout=3600\r\n");
    let mut reader = Reader::open(&server, &mut origin, &told, "own,").await;
    assert_eq!(reader.chunk().await.unwrap(), "own,");
    server.items(json!([{"channel": "a", "http-stream": {"action": "hint"}}])).await;
    origin.answer(&answer("grip-hold: response\r\ngrip-channel: a\r\n", "no")).await;
    assert_eq!(reader.chunk().await, None);
}

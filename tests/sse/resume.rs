use crate::support::sse::EventStream;
use crate::support::{TestServer, within};

#[tokio::test]
async fn a_reconnect_with_the_last_id_loses_and_repeats_nothing() {
    let server = TestServer::start().await;
    let mut stream = EventStream::open(server.http, "/sse/a").await;
    server.wait_for_subscriptions(1).await;
    for n in 0..10 {
        server.publish("a", &n.to_string());
    }
    let mut last = String::new();
    for _ in 0..5 {
        last = stream.next().await.expect("an event").id;
    }
    drop(stream);
    for n in 10..20 {
        server.publish("a", &n.to_string());
        server.publish("other", "not for it");
    }
    let mut again =
        EventStream::open_with(server.http, "/sse/a", &format!("last-event-id: {last}\r\n")).await;
    for n in 5..20 {
        assert_eq!(again.data().await, n.to_string());
    }
    server.publish("a", "live");
    assert_eq!(again.data().await, "live");
}

#[tokio::test]
async fn a_position_that_is_gone_is_told_before_what_is_left() {
    let server = TestServer::with(|config| config.broker.log.max_bytes = 64 << 10).await;
    let first = server.publish("a", "first").id.expect("recorded");
    for _ in 0..200 {
        server.publish("a", &"x".repeat(1000));
    }
    let mut stream = EventStream::open(server.http, &format!("/sse/a?last_event_id={first}")).await;
    let gap = stream.next().await.expect("an event");
    assert_eq!(gap.event, "gap", "{gap:?}");
    assert!(gap.data.contains(&format!(r#""requested":"{first}""#)), "{gap:?}");
    assert_eq!(stream.next().await.expect("an event").event, "");
}

#[tokio::test]
async fn an_id_of_another_life_is_a_gap_too() {
    let old = TestServer::start().await;
    let id = old.publish("a", "x").id.expect("recorded");
    old.stop().await;
    let new = TestServer::start().await;
    new.publish("a", "after the restart");
    let mut stream = EventStream::open(new.http, &format!("/sse/a?last_event_id={id}")).await;
    assert_eq!(stream.next().await.expect("an event").event, "gap");
    assert_eq!(stream.data().await, "after the restart");
}

#[tokio::test]
async fn every_filter_of_a_stream_is_told_of_a_gap_and_the_last_one_moves_the_id() {
    let server = TestServer::start().await;
    let mut stream =
        EventStream::open(server.http, "/sse?channel=a&channel=b/*&last_event_id=elsewhere-7").await;
    for channel in ["a", "b/*"] {
        let gap = stream.next().await.expect("an event");
        let told: serde_json::Value = serde_json::from_str(&gap.data).expect("JSON");
        let members: Vec<_> = told.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(members, ["channel", "first", "next", "requested"], "sorted by the parser: {}", gap.data);
        assert_eq!(
            (told["channel"].as_str(), told["requested"].as_str()),
            (Some(channel), Some("elsewhere-7"))
        );
        assert!(told["first"].is_string() && told["next"].is_null(), "{}", gap.data);
        let id = if channel == "a" { "" } else { told["first"].as_str().expect("an id") };
        assert_eq!((gap.event.as_str(), gap.id.as_str()), ("gap", id));
    }
    server.publish("b/1", "live");
    assert!(stream.data().await.contains(r#""text":"live""#));
}

#[tokio::test]
async fn an_id_that_was_never_given_is_a_gap_and_what_is_kept_comes_once() {
    let server = TestServer::start().await;
    let id = server.publish("a", "one").id.expect("recorded");
    let ahead = format!("{}-{}", id.to_string().split_once('-').expect("an epoch").0, id.offset() + 1_000);
    for unknown in
        [ahead.as_str(), "zz9-1", "x", "k3-", "-1", "99999999999999999999-1", "a-99999999999999999999"]
    {
        let mut stream =
            EventStream::open_with(server.http, "/sse/a", &format!("last-event-id: {unknown}\r\n")).await;
        let gap = stream.next().await.expect("an event");
        assert_eq!(gap.event, "gap", "{unknown}");
        assert!(gap.data.contains(&format!(r#""requested":"{unknown}""#)), "{}", gap.data);
        assert_eq!(stream.data().await, "one", "{unknown}");
    }
}

#[tokio::test]
async fn a_reader_that_takes_ids_as_they_come_misses_nothing_before_its_first_event() {
    let server = TestServer::start().await;
    server.publish("a", "before");
    let mut stream = EventStream::open(server.http, "/sse/a").await;
    let position = within(async {
        // No event yet, but the opening has come.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(300), stream.next()).await;
        stream.last_id().to_owned()
    })
    .await;
    drop(stream);
    server.publish("a", "missed");
    let mut again =
        EventStream::open_with(server.http, "/sse/a", &format!("last-event-id: {position}\r\n")).await;
    assert_eq!(again.data().await, "missed");
}

/// A browser takes an id at the end of its block, which the opening position has none of; it can ask where to begin.
#[tokio::test]
async fn a_stream_that_begins_with_an_id_of_the_history_misses_nothing_before_its_first_event() {
    let server = TestServer::start().await;
    server.publish("a", "before");
    let history = crate::support::http::get(server.http, "/v1/history/a?limit=1&order=desc").await.json();
    let target = format!("/sse/a?last_event_id={}", history["last"].as_str().expect("an id"));
    drop(EventStream::open(server.http, &target).await);
    server.publish("a", "missed");
    assert_eq!(EventStream::open(server.http, &target).await.data().await, "missed");
}

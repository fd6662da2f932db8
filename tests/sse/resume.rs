use crate::support::TestServer;
use crate::support::sse::EventStream;

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

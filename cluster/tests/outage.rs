//! What happens while NATS is away, and when it is back.

#[allow(unreachable_pub, dead_code, reason = "of the tests alone")]
mod support;

use std::time::Duration;

use broker_core::Filter;

use self::support::{Nats, Node, next, settings, soon};

#[tokio::test]
async fn nodes_go_on_alone_and_are_one_again_when_nats_is_back() {
    let Some(mut nats) = Nats::start(&[]) else { return };
    let (here, there) = (Node::start(&nats, "n1").await, Node::start(&nats, "n2").await);
    let (mut own, mut other) = (here.subscribe("a/*").await, there.subscribe("a/*").await);
    for round in 0..2 {
        here.publish("a/b", "before");
        assert_eq!(
            (next(&mut own).await, next(&mut other).await),
            ("a/b before".into(), "a/b before".into())
        );
        let before = here.cluster.stats();
        nats.kill();
        here.until(|stats| !stats.connected && stats.disconnects > before.disconnects).await;
        there.until(|stats| !stats.connected).await;
        // A subscriber is answered, and gets what this node has.
        let new = Filter::parse("a/b").unwrap();
        let mut meanwhile = there.broker.subscribe(new.clone()).unwrap();
        soon(there.broker.settled(&new)).await.unwrap();
        here.publish("a/b", "alone");
        there.publish("a/b", "alone too");
        assert_eq!(next(&mut own).await, "a/b alone");
        assert_eq!(next(&mut other).await, "a/b alone too");
        assert_eq!(next(&mut meanwhile).await, "a/b alone too");
        assert!(here.cluster.stats().unsent_away > before.unsent_away, "what stayed here is counted");
        assert!(there.cluster.stats().unsettled > 0);
        nats.restart();
        here.until(|stats| stats.connected).await;
        there.until(|stats| stats.connected).await;
        soon(there.broker.settled(&new)).await.unwrap();
        here.publish("a/b", &format!("after {round}"));
        for stream in [&mut own, &mut other, &mut meanwhile] {
            assert_eq!(next(stream).await, format!("a/b after {round}"));
        }
    }
}

#[tokio::test]
async fn a_node_that_begins_without_nats_joins_when_it_comes() {
    let Some(mut nats) = Nats::start(&[]) else { return };
    nats.kill();
    let (here, there) = (Node::start(&nats, "n1").await, Node::start(&nats, "n2").await);
    assert!(!here.cluster.is_connected());
    let mut own = here.subscribe("a").await;
    let mut other = there.subscribe("a").await;
    here.publish("a", "alone");
    assert_eq!(next(&mut own).await, "a alone");
    nats.restart();
    there.until(|stats| stats.connected).await;
    here.until(|stats| stats.connected && stats.nodes == 2).await;
    soon(there.broker.settled(&Filter::parse("a").unwrap())).await.unwrap();
    here.publish("a", "together");
    assert_eq!(next(&mut other).await, "a together");
}

/// A server that is frozen keeps its connections: only that it does not answer shows it.
#[tokio::test]
async fn a_server_that_does_not_answer_is_away() {
    let Some(mut nats) = Nats::start(&[]) else { return };
    let mut few = settings(&nats, "n1");
    (few.max_waiting_messages, few.max_waiting_bytes) = (100, 1 << 20);
    few.settle_timeout = Duration::from_millis(50);
    let (here, there) = (Node::with(few).await, Node::start(&nats, "n2").await);
    let mut other = there.subscribe("a").await;
    here.until(|stats| stats.connected).await;
    nats.freeze();
    let filter = Filter::parse("b").unwrap();
    let mut own = here.broker.subscribe(filter.clone()).unwrap();
    soon(here.broker.settled(&filter)).await.unwrap();
    assert!(here.cluster.stats().unsettled > 0, "it was answered, though NATS did not");
    here.until(|stats| !stats.connected).await;
    let text = "x".repeat(10_000);
    for _ in 0..1_000 {
        here.publish("b", &text);
    }
    here.broker.handed_over().await;
    assert_eq!(next(&mut own).await.len(), 2 + text.len());
    let stats = here.cluster.stats();
    assert!(stats.waiting <= 100 && stats.waiting_bytes <= 1 << 20, "{stats:?}");
    assert!(stats.unsent_full + stats.unsent_away > 0, "{stats:?}");
    nats.thaw();
    here.until(|stats| stats.connected).await;
    there.until(|stats| stats.connected).await;
    soon(async {
        loop {
            here.publish("a", "back");
            if tokio::time::timeout(Duration::from_millis(100), next(&mut other)).await.is_ok() {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn who_leaves_is_not_counted_any_more() {
    let Some(nats) = Nats::start(&[]) else { return };
    let (here, there) = (Node::start(&nats, "n1").await, Node::start(&nats, "n2").await);
    here.until(|stats| stats.nodes == 2).await;
    there.publish("a", "x");
    soon(there.broker.drained()).await;
    assert_eq!(there.cluster.stats().waiting, 0, "what was taken is on its way");
    soon(there.cluster.leave()).await;
    here.until(|stats| stats.nodes == 1).await;
}

//! Durable channels over a real NATS server: what was acknowledged is there, once, in one order, on every node.

#[allow(unreachable_pub, dead_code, reason = "of the tests alone")]
mod support;

use std::time::Duration;

use broker_core::{
    After, Config, Event, Filter, HistoryQuery, IdempotencyKey, MessageId, Order, Position, Publish,
    PublishError, PublishOnceError, StartFrom, SubscribeOptions, Subscription,
};
use cluster::{Cluster, JoinError, Settings};

use self::support::{Nats, Node, config, keeping, message, next, settings, soon, take};

async fn start(nats: &Nats, name: &str) -> Node {
    Node::of(keeping(nats, name), config()).await
}

/// With so many messages in memory that nearly all of the past is NATS'.
async fn start_small(nats: &Nats, name: &str) -> Node {
    let mut config: Config = config();
    config.log.max_bytes = 8 << 10;
    Node::of(keeping(nats, name), config).await
}

async fn store(node: &Node, channel: &str, text: &str) -> MessageId {
    soon(node.broker.submit(message(channel, text))).await.expect("it is stored").id.expect("an id")
}

async fn past(node: &Node, filter: &str, query: HistoryQuery) -> Vec<String> {
    let filter = Filter::parse(filter).unwrap();
    let history = soon(node.broker.read_history(&filter, query)).await.expect("it can be read");
    assert!(!history.gap);
    history.messages.iter().map(|message| String::from_utf8_lossy(message.payload()).into_owned()).collect()
}

fn all() -> HistoryQuery {
    let mut query = HistoryQuery::default();
    query.limit = 100_000;
    query
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn follow(node: &Node, filter: &str, after: After) -> Subscription {
    let mut options = SubscribeOptions::default();
    options.from = StartFrom::Log(after);
    node.broker.subscribe_with(&[Filter::parse(filter).unwrap()], options).unwrap()
}

/// Until what one has comes to the other too.
async fn in_step(one: &Node, other: &Node) {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while one.broker.kept_head() != other.broker.kept_head() {
        assert!(std::time::Instant::now() < end, "nodes do not come together");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_is_published_on_one_node_is_stored_and_comes_to_all() {
    let Some(nats) = Nats::keeping() else { return };
    let (here, there) = (start(&nats, "n1").await, start(&nats, "n2").await);
    let (mut own, mut other) = (here.subscribe("a/*").await, there.subscribe("a/*").await);
    let receipt = soon(here.broker.submit(message("a/b", "x"))).await.unwrap();
    assert_eq!(receipt.receivers, 1, "of its own node");
    let mut ids = vec![receipt.id.unwrap()];
    ids.push(store(&there, "a/c", "y").await);
    for stream in [&mut own, &mut other] {
        for (id, text) in ids.iter().zip(["x", "y"]) {
            let Some(Event::Message(message)) = soon(stream.next()).await else { panic!("no message") };
            assert_eq!((message.id(), &message.payload()[..]), (Some(*id), text.as_bytes()));
        }
    }
    assert!(ids[0].epoch() == ids[1].epoch() && ids[0].offset() < ids[1].offset(), "{ids:?}");
    // The memory's namespaces go their own way, and reach the other node too.
    let mut memory = there.subscribe("memory/a").await;
    here.publish("memory/a", "m");
    assert_eq!(next(&mut memory).await, "memory/a m");
    let stats = here.cluster.stats();
    assert_eq!(
        (stats.kept_sent, stats.kept_received, stats.sent, stats.kept_waiting),
        (1, 2, 1, 0),
        "{stats:?}"
    );
}

#[tokio::test]
async fn who_publishes_may_leave_itself_out() {
    let Some(nats) = Nats::keeping() else { return };
    let here = start(&nats, "n1").await;
    let mut own = here.subscribe("a").await;
    let key = own.subscriber().key();
    soon(here.broker.submit(message("a", "to others").exclude(key))).await.unwrap();
    store(&here, "a", "to all").await;
    assert_eq!(next(&mut own).await, "a to all");
}

#[tokio::test]
async fn who_resumes_on_another_node_misses_nothing() {
    const ALL: usize = 300;
    let Some(nats) = Nats::keeping() else { return };
    let (here, there) = (start_small(&nats, "n1").await, start_small(&nats, "n2").await);
    let mut ids = Vec::new();
    for number in 0..ALL {
        ids.push(store(&here, "a/b", &number.to_string()).await);
        if number % 3 == 0 {
            store(&there, "a/other", "x").await;
        }
    }
    in_step(&here, &there).await;
    // From what is in no memory any more, and from what is.
    for from in [0, 10, ALL - 2] {
        let mut stream = follow(&there, "a/b", After::Id(ids[from]));
        let expected: Vec<_> = numbers(from + 1..ALL).iter().map(|number| format!("a/b {number}")).collect();
        assert_eq!(take(&mut stream, ALL - from - 1).await, expected, "after {from}");
        store(&here, "a/b", "live").await;
        assert_eq!(next(&mut stream).await, "a/b live");
    }
    // A node that comes later has all of it, too.
    let late = start_small(&nats, "n3").await;
    let mut stream = follow(&late, "a/*", After::Id(ids[100]));
    let got = take(&mut stream, ALL - 101).await;
    assert!(got.iter().any(|text| text == "a/other x"));
    let own: Vec<_> = got.iter().filter_map(|text| text.strip_prefix("a/b ")).collect();
    assert_eq!(own, numbers(101..101 + own.len()));
}

#[tokio::test]
async fn history_is_the_same_on_every_node() {
    const ALL: usize = 700;
    let Some(nats) = Nats::keeping() else { return };
    let (here, there) = (start_small(&nats, "n1").await, start_small(&nats, "n2").await);
    let mut waiting = Vec::new();
    for number in 0..ALL {
        waiting.push(here.broker.submit(message("a/b", &number.to_string())));
        if number % 10 == 0 {
            waiting.push(here.broker.submit(message("seldom", &number.to_string())));
        }
    }
    let mut ids = Vec::new();
    for answer in waiting {
        ids.push(soon(answer).await.unwrap().id.unwrap());
    }
    in_step(&here, &there).await;
    let late = start_small(&nats, "n3").await;
    for node in [&here, &there, &late] {
        assert_eq!(past(node, "a/b", all()).await, numbers(0..ALL));
        assert_eq!(past(node, "*/b", all()).await.len(), ALL);
        assert_eq!(past(node, "#", all()).await.len(), ALL + ALL / 10);
        assert_eq!(past(node, "nobody", all()).await, [""; 0]);
        let mut newest = HistoryQuery::default();
        (newest.order, newest.limit) = (Order::Newest, 25);
        let expected: Vec<_> = numbers(ALL - 25..ALL).into_iter().rev().collect();
        assert_eq!(past(node, "a/b", newest).await, expected);
        newest.limit = 1_000;
        assert_eq!(past(node, "seldom", newest).await.len(), ALL / 10);
        let mut page = HistoryQuery::default();
        (page.after, page.limit) = (Some(Position::from(ids[1])), 10);
        let first = past(node, "a/b", page).await;
        assert_eq!(first.len(), 10);
        assert!(first.iter().is_sorted_by_key(|text| text.parse::<usize>().unwrap()));
    }
}

#[tokio::test]
async fn what_is_retained_is_there_after_all_nodes_were_away() {
    let Some(mut nats) = Nats::keeping() else { return };
    {
        let (here, there) = (start(&nats, "n1").await, start(&nats, "n2").await);
        for (channel, text) in
            [("r/a", "old"), ("r/a", "new"), ("r/b", "x"), ("r/b", ""), ("r/c", "x"), ("r/d", "y")]
        {
            soon(here.broker.submit(message(channel, text).retain(true))).await.unwrap();
        }
        store(&here, "r/a", "not retained").await;
        let c = broker_core::Channel::parse("r/c").unwrap();
        in_step(&here, &there).await;
        assert_eq!(soon(there.broker.clear_retained(&c)).await, Ok(true));
        assert_eq!(soon(there.broker.clear_retained(&c)).await, Ok(false));
        let mut options = SubscribeOptions::default();
        options.from = StartFrom::Retained;
        let mut stream = there.broker.subscribe_with(&[Filter::parse("r/*").unwrap()], options).unwrap();
        let mut retained = take(&mut stream, 2).await;
        retained.sort();
        assert_eq!(retained, ["r/a new", "r/d y"]);
    }
    for round in 0..2 {
        let node = start(&nats, "n1").await;
        let retained = node.broker.retained_matching(&Filter::parse("#").unwrap());
        let mut texts: Vec<_> =
            retained.iter().map(|one| format!("{} {:?}", one.channel(), one.payload())).collect();
        texts.sort();
        assert_eq!(texts, ["r/a b\"new\"", "r/d b\"y\""], "{round}");
        nats.kill();
        nats.restart();
    }
}

#[tokio::test]
async fn a_key_makes_one_message_on_all_nodes() {
    let Some(nats) = Nats::keeping() else { return };
    let (here, there) = (start(&nats, "n1").await, start(&nats, "n2").await);
    let mut stream = there.subscribe("a").await;
    let key = IdempotencyKey::new("k");
    let first = soon(here.broker.submit_once(message("a", "x"), &key)).await.unwrap();
    for node in [&there, &here] {
        let again = soon(node.broker.submit_once(message("a", "x"), &key)).await.unwrap();
        assert_eq!(
            (again.duplicate, again.receipt.id, again.receipt.time_ms),
            (true, first.receipt.id, first.receipt.time_ms)
        );
        let other = soon(node.broker.submit_once(message("a", "y"), &key)).await;
        assert_eq!(other, Err(PublishOnceError::Conflict));
    }
    assert!(!first.duplicate);
    store(&there, "a", "last").await;
    in_step(&there, &here).await;
    assert_eq!((next(&mut stream).await, next(&mut stream).await), ("a x".to_owned(), "a last".to_owned()));
    assert_eq!(past(&here, "a", all()).await, ["x", "last"]);
}

#[tokio::test]
async fn names_that_are_too_long_for_a_subject_are_refused() {
    let Some(nats) = Nats::keeping() else { return };
    let here = start(&nats, "n1").await;
    let refused = soon(here.broker.submit(message(&"x".repeat(3_000), "x"))).await.unwrap_err();
    assert!(matches!(refused.error, PublishError::ChannelTooLong { .. }), "{refused:?}");
    let large = Publish::new(broker_core::Channel::parse("a").unwrap(), vec![0; 2 << 20]);
    let refused = soon(here.broker.submit(large)).await.unwrap_err();
    assert!(matches!(refused.error, PublishError::TooLarge { .. }), "{refused:?}");
    store(&here, "a.b/*/ü", "x").await;
    assert_eq!(past(&here, "#", all()).await, ["x"]);
}

#[tokio::test]
async fn a_server_that_is_too_old_to_keep_is_refused_and_serves_memory() {
    let Some(nats) = Nats::old() else { return };
    let mut wanted = keeping(&nats, "n1");
    wanted.allow_unsafe = true;
    let error = Cluster::join(wanted).await.unwrap_err();
    assert!(matches!(error, JoinError::TooOldToKeep { .. }), "{error}");
    assert!(error.to_string().contains("durable channels need 2.12.0 or newer"), "{error}");
    let (here, there) = (Node::start(&nats, "n1").await, Node::start(&nats, "n2").await);
    let mut stream = there.subscribe("a").await;
    here.publish("a", "x");
    assert_eq!(next(&mut stream).await, "a x");
}

#[tokio::test]
async fn fewer_copies_than_are_wanted_are_refused() {
    let Some(nats) = Nats::keeping() else { return };
    let mut wanted: Settings = keeping(&nats, "n1");
    wanted.replicas = 3;
    let error = Cluster::join(wanted.clone()).await.unwrap_err();
    assert!(matches!(error, JoinError::TooFewReplicas { found: 1, wanted: 3 }), "{error}");
    wanted.allow_unsafe = true;
    let here = Node::of(wanted.clone(), config()).await;
    store(&here, "a", "x").await;
    // Also of streams that are there already.
    wanted.allow_unsafe = false;
    let error = Cluster::join(wanted).await.unwrap_err();
    assert!(matches!(error, JoinError::TooFewReplicas { found: 1, wanted: 3 }), "{error}");
}

#[tokio::test]
async fn without_jetstream_there_are_no_durable_channels() {
    let Some(nats) = Nats::start(&[]) else { return };
    if Nats::keeping().is_none() {
        return;
    }
    let error = Cluster::join(keeping(&nats, "n1")).await.unwrap_err();
    assert!(matches!(error, JoinError::NoStream(_)), "{error}");
    assert!(!settings(&nats, "n1").keeps_any(), "nothing is kept unless it is said");
}

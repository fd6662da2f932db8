//! Streams that somebody deletes while nodes run: nobody takes another one for them, and it is told.

#[allow(unreachable_pub, dead_code, reason = "of the tests alone")]
mod support;

use broker_core::{
    After, Claim, Event, Fence, Filter, HistoryQuery, MessageId, Owner, Position, PublishError, RecordError,
    Refused, SessionRecord, StartFrom, SubscribeOptions,
};
use cluster::{Standing, State};

use self::support::{Nats, Node, config, keeping, message, soon};

async fn start(nats: &Nats, name: &str) -> Node {
    Node::of(keeping(nats, name), config()).await
}

async fn delete(nats: &Nats, stream: &str) {
    let client = async_nats::connect(nats.url()).await.unwrap();
    async_nats::jetstream::new(client).delete_stream(stream).await.unwrap();
}

async fn store(node: &Node, channel: &str, text: &str) -> MessageId {
    soon(node.broker.submit(message(channel, text))).await.expect("it is stored").id.expect("an id")
}

fn retained(node: &Node) -> Vec<String> {
    let retained = node.broker.retained_matching(&Filter::parse("#").unwrap());
    let mut texts: Vec<_> =
        retained.iter().map(|one| format!("{} {:?}", one.channel(), one.payload())).collect();
    texts.sort();
    texts
}

fn is_refused(refused: &Refused) -> bool {
    matches!(refused.error, PublishError::Unavailable { .. } | PublishError::Unknown)
}

/// From the first message after it is gone on, nothing is acknowledged that nobody has.
#[tokio::test]
async fn a_stream_that_is_deleted_is_told_and_nothing_is_taken_any_more() {
    let Some(nats) = Nats::keeping() else { return };
    let node = start(&nats, "n1").await;
    store(&node, "a", "1").await;
    assert_eq!(node.cluster.stats().state(), State::Ready);
    delete(&nats, "fw_H0").await;
    // It waits as long as NATS may only have forgotten it for a moment.
    let error = soon(node.broker.submit(message("a", "2"))).await.expect_err("nobody has it");
    assert!(is_refused(&error), "{error:?}");
    let stats = node.cluster.stats();
    assert_eq!((stats.state(), stats.streams.unwrap().0), (State::Degraded, Standing::Lost));
    assert!(stats.linked && !stats.connected && !node.cluster.is_connected());
    let error = soon(node.broker.submit(message("a", "3"))).await.expect_err("at once");
    assert!(is_refused(&error), "{error:?}");
    // What is in memory goes on.
    node.publish("memory/a", "x");
}

#[tokio::test]
async fn a_stream_that_is_made_anew_is_not_taken_for_the_one_that_was() {
    let Some(nats) = Nats::keeping() else { return };
    let (one, two) = (start(&nats, "n1").await, start(&nats, "n2").await);
    soon(one.broker.submit(message("early", "of before").retain(true))).await.unwrap();
    let mut last = store(&one, "a", "0").await;
    for number in 1..20 {
        last = store(&one, "a", &number.to_string()).await;
    }
    soon(one.broker.submit(message("kept", "of before").retain(true))).await.unwrap();
    delete(&nats, "fw_H0").await;
    // A node that is started makes it anew: those that were there see by themselves that it is another one.
    let new = start(&nats, "n3").await;
    assert_eq!(retained(&new), [""; 0], "it was of the stream that is gone");
    let mut taken = Vec::new();
    for node in [&one, &two] {
        // Whatever was acknowledged has been delivered.
        if let Ok(receipt) = soon(node.broker.submit(message("a", "late"))).await {
            taken.push(receipt);
        }
        node.until(|stats| stats.streams.unwrap().0 == Standing::Lost).await;
        let error = soon(node.broker.submit(message("a", "later"))).await.expect_err("it is lost");
        assert!(is_refused(&error), "{error:?}");
    }
    assert!(taken.is_empty(), "{taken:?}");
    // Who comes with an id of before is told so.
    assert_ne!(new.broker.kept_head().map(MessageId::epoch), Some(last.epoch()));
    let mut options = SubscribeOptions::default();
    options.from = StartFrom::Log(After::Position(Position::from(last)));
    let mut stream = new.broker.subscribe_with(&[Filter::parse("a").unwrap()], options).unwrap();
    let first = soon(stream.next()).await;
    assert!(matches!(first, Some(Event::Gap { .. })), "{first:?}");
    let mut query = HistoryQuery::default();
    query.after = Some(Position::from(last));
    let history = soon(new.broker.read_history(&Filter::parse("a").unwrap(), query)).await;
    assert!(history.is_ok_and(|history| history.gap));
    // What is retained from now on is there for those that start later, with the ids of the new one.
    soon(new.broker.submit(message("kept", "of now").retain(true))).await.unwrap();
    for number in 0..5 {
        store(&new, "b", &number.to_string()).await;
    }
    drop((one, two));
    assert_eq!(retained(&start(&nats, "n4").await), ["kept b\"of now\""]);
}

#[tokio::test]
async fn the_stream_of_retained_messages_is_made_anew_and_its_loss_is_told() {
    let Some(nats) = Nats::keeping() else { return };
    let (one, two) = (start(&nats, "n1").await, start(&nats, "n2").await);
    soon(one.broker.submit(message("kept", "x").retain(true))).await.unwrap();
    delete(&nats, "fw_RET0").await;
    for node in [&one, &two] {
        node.until(|stats| stats.streams == Some((Standing::There, Standing::Lost))).await;
        assert_eq!(node.cluster.stats().state(), State::Degraded);
        store(node, "a", "goes on").await;
    }
    let fresh = start(&nats, "n3").await;
    assert_eq!(fresh.cluster.stats().state(), State::Ready);
    assert_eq!(retained(&fresh), ["kept b\"x\""], "the other stream has it still");
}

async fn session(node: &Node, name: &str) -> Fence {
    let fence = soon(node.broker.claim_session(name, Claim::Resume)).await.unwrap().fence;
    record(node, name, fence, "as it was").await.unwrap();
    fence
}

async fn record(node: &Node, name: &str, fence: Fence, state: &'static str) -> Result<(), RecordError> {
    soon(node.broker.record_session(name, fence, Some(SessionRecord::new(state, None)))).await
}

/// What whoever claims it now finds: who had it, and what was recorded.
async fn found(node: &Node, name: &str) -> (Owner, Option<String>) {
    let claimed = soon(node.broker.claim_session(name, Claim::Resume)).await.unwrap();
    let state = claimed.record.map(|record| String::from_utf8_lossy(&record.state).into_owned());
    (claimed.owner, state)
}

async fn is_ready(node: &Node) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(40);
    while !node.cluster.is_ready() {
        assert!(std::time::Instant::now() < end, "{:?}", node.cluster.stats());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_of_sessions_is_made_anew_with_those_that_nodes_have() {
    let Some(nats) = Nats::keeping() else { return };
    let (one, two) = (start(&nats, "n1").await, start(&nats, "n2").await);
    let fence = session(&one, "ann").await;
    session(&two, "bob").await;
    let gone = start(&nats, "n3").await;
    session(&gone, "lost").await;
    gone.cluster.leave().await;
    drop(gone);
    // One that has moved, of which its first node has heard nothing.
    let before = session(&one, "moved").await;
    session(&two, "moved").await;
    session(&one, "ended").await;
    delete(&nats, "fw_S0").await;
    for node in [&one, &two] {
        node.until(|_| !node.cluster.is_ready()).await;
        assert_eq!(node.cluster.stats().state(), State::Degraded);
        soon(node.broker.claim_session("new", Claim::Resume)).await.expect_err("nobody knows whose it is");
    }
    soon(one.broker.claim_session("ended", Claim::End)).await.expect("it wants none");
    // What changes meanwhile is written when there is a stream again.
    record(&one, "ann", fence, "as it is").await.unwrap();
    for node in [&one, &two] {
        is_ready(node).await;
        assert_eq!(node.cluster.stats().sessions, Some(Standing::Lost));
    }
    assert_eq!(found(&two, "ann").await, (Owner::Another, Some("as it is".to_owned())));
    assert_eq!(record(&one, "ann", fence, "late").await, Err(RecordError::Fenced));
    assert_eq!(found(&one, "bob").await, (Owner::Another, Some("as it was".to_owned())));
    assert_eq!(record(&one, "moved", before, "late").await, Err(RecordError::Fenced));
    assert_eq!(found(&one, "moved").await, (Owner::Another, Some("as it was".to_owned())));
    assert_eq!(found(&two, "ended").await, (Owner::This, None));
    assert_eq!(found(&one, "lost").await, (Owner::This, None));
    assert_eq!(start(&nats, "n4").await.cluster.stats().state(), State::Ready);
}

/// Whoever makes it may know nothing of it, and be asked for a session first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_makes_it_anew_and_waits_for_the_others() {
    let Some(nats) = Nats::keeping() else { return };
    let one = start(&nats, "n1").await;
    for number in 0..300 {
        session(&one, &number.to_string()).await;
    }
    // So that the streams are not of one time.
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    delete(&nats, "fw_S0").await;
    let two = start(&nats, "n2").await;
    soon(two.broker.claim_session("7", Claim::Resume)).await.expect_err("it may be there");
    // Nor does the first one take the new one for that which it knows, if it is asked before it has looked.
    let known = soon(one.broker.claim_session("not yet", Claim::Resume)).await;
    assert!(known.is_err() || one.cluster.stats().sessions == Some(Standing::Lost), "{known:?}");
    is_ready(&one).await;
    is_ready(&two).await;
    for name in ["0", "7", "299"] {
        assert_eq!(found(&two, name).await, (Owner::Another, Some("as it was".to_owned())), "{name}");
    }
}

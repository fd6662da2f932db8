//! Sessions that outlive their nodes: claimed, recorded, lost and ended over several nodes.

#[allow(unreachable_pub, dead_code, reason = "of the tests alone")]
mod support;

use std::time::{Duration, Instant};

use broker_core::{
    Claim, Claimed, Ends, Fence, MessageId, Owner, PublishError, RecordError, SessionRecord, Taken, unix_ms,
};

use self::support::{Nats, Node, config, keeping, message, next, soon, take};

/// Longer than anything takes that works, with what a node is waited for.
const LATE: Duration = Duration::from_secs(40);

impl Node {
    async fn keeping(nats: &Nats, name: &str) -> Self {
        Self::of(keeping(nats, name), config()).await
    }

    async fn claim(&self, session: &str, claim: Claim) -> Claimed {
        soon(self.broker.claim_session(session, claim)).await.unwrap()
    }

    async fn record(
        &self,
        session: &str,
        fence: Fence,
        record: Option<SessionRecord>,
    ) -> Result<(), RecordError> {
        soon(self.broker.record_session(session, fence, record)).await
    }

    /// Without a word.
    fn die(self) {
        self.broker.close();
    }

    /// Until it has heard of another one.
    async fn hears_of_others(&self) {
        self.until(|stats| stats.nodes > 1).await;
    }
}

fn record(state: &'static str, position: Option<MessageId>) -> SessionRecord {
    SessionRecord::new(state, position)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_on_at_another_node_and_its_old_owner_is_fenced() {
    let Some(nats) = Nats::keeping() else { return };
    let (one, two) = (Node::keeping(&nats, "n1").await, Node::keeping(&nats, "n2").await);
    one.hears_of_others().await;
    two.hears_of_others().await;
    let mut seen = one.subscribe("orders").await;
    let first = one.claim("ann", Claim::Resume).await;
    assert_eq!((first.record, first.owner), (None, Owner::This));
    soon(one.broker.submit(message("orders", "1"))).await.unwrap();
    assert_eq!(next(&mut seen).await, "orders 1");
    let position = one.broker.kept_head().unwrap();
    assert_eq!(one.record("ann", first.fence, Some(record("a", Some(position)))).await, Ok(()));
    assert_eq!(two.claim("ann", Claim::Look).await.owner, Owner::Another);

    let second = two.claim("ann", Claim::Resume).await;
    assert_eq!((second.owner, second.fence > first.fence), (Owner::Another, true));
    assert_eq!(second.record, Some(record("a", Some(position))));
    let head = two.broker.kept_head().unwrap();
    assert!(head.offset() >= position.offset(), "it has all that the session has been given");
    assert_eq!(one.record("ann", first.fence, Some(record("late", None))).await, Err(RecordError::Fenced));
    let taken = Taken { session: "ann".into(), fence: first.fence, number: 1 };
    let refused = soon(one.broker.submit_taken(message("orders", "late"), taken.clone())).await;
    assert_eq!(refused.unwrap_err().error, PublishError::Fenced);
    assert_eq!(soon(one.broker.free_taken(taken)).await, Err(RecordError::Fenced));
    assert_eq!(
        one.record("ann", first.fence, None).await,
        Err(RecordError::Fenced),
        "it is not the old owner's to end"
    );
    assert_eq!(two.record("ann", second.fence, Some(record("b", None))).await, Ok(()));

    // Whoever ends it is told what another node has recorded.
    let looked = one.claim("ann", Claim::Look).await;
    assert_eq!((looked.record, looked.owner), (Some(record("b", None)), Owner::Another));
    assert_eq!(one.claim("ann", Claim::End).await.ended, Some(record("b", None)));
    assert_eq!(two.record("ann", second.fence, Some(record("late", None))).await, Err(RecordError::Fenced));
    assert_eq!(two.claim("ann", Claim::Resume).await.record, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_claim_one_session_at_once_one_has_it() {
    let Some(nats) = Nats::keeping() else { return };
    let nodes = [Node::keeping(&nats, "n1").await, Node::keeping(&nats, "n2").await];
    for round in 0..20 {
        let session = format!("s{}", round / 2);
        let claims = nodes.iter().flat_map(|node| std::iter::repeat_n(node, 5)).map(|node| {
            let broker = node.broker.clone();
            let session = session.clone();
            tokio::spawn(async move {
                let claimed = broker.claim_session(&session, Claim::Resume).await.ok()?;
                let state = claimed.fence.0.to_string();
                let recorded =
                    broker.record_session(&session, claimed.fence, Some(SessionRecord::new(state, None)));
                recorded.await.ok().map(|()| claimed.fence)
            })
        });
        let mut won = Vec::new();
        for claim in claims.collect::<Vec<_>>() {
            won.extend(soon(claim).await.unwrap());
        }
        let found = nodes[0].claim(&session, Claim::Look).await.record.expect("somebody has it").state;
        let owner = won.iter().max().expect("one was let in");
        let mut still = 0;
        for fence in &won {
            for node in &nodes {
                still += usize::from(node.record(&session, *fence, Some(record("mine", None))).await.is_ok());
            }
        }
        assert_eq!((&found[..], still), (owner.0.to_string().as_bytes(), 1), "{won:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_of_a_node_that_died_stands_for_what_is_in_the_stream() {
    let Some(nats) = Nats::keeping() else { return };
    let (one, two) = (Node::keeping(&nats, "n1").await, Node::keeping(&nats, "n2").await);
    let mut seen = two.subscribe("orders").await;
    let claimed = one.claim("ann", Claim::Resume).await;
    assert_eq!(one.record("ann", claimed.fence, Some(record("a", None))).await, Ok(()));
    let taken = |number| Taken { session: "ann".into(), fence: claimed.fence, number };
    for number in 1..=3 {
        soon(one.broker.submit_taken(message("orders", &number.to_string()), taken(number))).await.unwrap();
    }
    assert_eq!(soon(one.broker.free_taken(taken(2))).await, Ok(()));
    assert_eq!(take(&mut seen, 3).await, ["orders 1", "orders 2", "orders 3"]);
    // What is still on its way when another node has the session is there once, or never.
    let on_its_way: Vec<_> = (4..20)
        .map(|number| one.broker.submit_taken(message("orders", &number.to_string()), taken(number)))
        .collect();
    let again = two.claim("ann", Claim::Resume).await;
    let mut known: Vec<u16> = again.taken.clone();
    known.sort_unstable();
    assert_eq!(known[..2], [1, 3]);
    for (number, answer) in (4..20).zip(on_its_way) {
        // What its publisher was told is true, or nothing.
        let answer = tokio::time::timeout(LATE, answer).await.unwrap();
        assert!(answer.is_err() || known.contains(&number), "{number} is nowhere");
    }
    // Whoever claims it next knows the same, though nothing has been recorded since.
    let again = one.claim("ann", Claim::Resume).await;
    let again = (two.claim("ann", Claim::Resume).await, again.taken);
    for taken in [&again.0.taken, &again.1] {
        let mut taken = taken.clone();
        taken.sort_unstable();
        assert_eq!(taken, known);
    }
    let again = again.0;
    // The client says again what it was not answered.
    for number in (4..20).filter(|number| !known.contains(number)) {
        let taken = Taken { session: "ann".into(), fence: again.fence, number };
        soon(two.broker.submit_taken(message("orders", &number.to_string()), taken)).await.unwrap();
    }
    let mut all = take(&mut seen, 16).await;
    all.sort_by_key(|text| text.trim_start_matches("orders ").parse::<u32>().unwrap());
    assert_eq!(all, (4..20).map(|number| format!("orders {number}")).collect::<Vec<_>>());
    soon(two.broker.submit(message("orders", "end"))).await.unwrap();
    assert_eq!(next(&mut seen).await, "orders end", "nothing comes twice");
    one.die();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_client_is_away_ends_by_itself() {
    let Some(nats) = Nats::keeping() else { return };
    let one = Node::keeping(&nats, "n1").await;
    for (name, ends) in [("short", Ends::At(unix_ms() + 1_000)), ("long", Ends::At(unix_ms() + 600_000))] {
        let claimed = one.claim(name, Claim::Resume).await;
        assert_eq!(one.record(name, claimed.fence, Some(record("a", None).ending(ends))).await, Ok(()));
    }
    one.die();
    let two = Node::keeping(&nats, "n2").await;
    let end = Instant::now() + LATE;
    while two.claim("short", Claim::Look).await.record.is_some() {
        assert!(Instant::now() < end, "it does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(two.claim("long", Claim::Resume).await.record.map(|record| record.state), Some("a".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_that_is_gone_has_left_one_other_is_told() {
    let Some(nats) = Nats::keeping() else { return };
    let one = Node::keeping(&nats, "n1").await;
    let short = Ends::After(Duration::from_millis(1));
    for (name, ends, will) in [
        ("will", Ends::After(Duration::from_secs(600)), Some(short)),
        ("over", short, None),
        ("stays", Ends::Never, None),
    ] {
        let claimed = one.claim(name, Claim::Resume).await;
        let record = record("a", None).ending(ends).with_will(will);
        assert_eq!(one.record(name, claimed.fence, Some(record)).await, Ok(()));
    }
    let others = [Node::keeping(&nats, "n2").await, Node::keeping(&nats, "n3").await];
    for node in &others {
        node.hears_of_others().await;
    }
    assert_eq!(others[0].claim("will", Claim::Left).await, Claimed::default(), "its owner sees to it");
    one.die();
    let end = Instant::now() + LATE;
    let mut told = Vec::new();
    while told.is_empty() {
        assert!(Instant::now() < end, "nobody is told");
        tokio::time::sleep(Duration::from_millis(50)).await;
        for node in &others {
            told.extend(node.broker.left_wills().into_iter().map(|(name, at_ms)| (node, name, at_ms)));
        }
    }
    let (node, name, at_ms) = &told[0];
    assert!(told.len() == 1 && &**name == "will" && *at_ms <= unix_ms() + 1_000, "{name} {at_ms}");
    let left = node.claim("will", Claim::Left).await;
    assert_eq!(left.record.as_ref().map(|record| &record.state[..]), Some(&b"a"[..]));
    let seen_to = left.record.map(|record| record.with_will(None));
    assert_eq!(node.record("will", left.fence, seen_to).await, Ok(()));
    for node in &others {
        assert_eq!(node.claim("will", Claim::Left).await, Claimed::default(), "it is seen to");
        assert!(node.claim("will", Claim::Look).await.record.is_some());
        assert!(node.claim("stays", Claim::Look).await.record.is_some());
    }
    let end = Instant::now() + LATE;
    while others[0].claim("over", Claim::Look).await.record.is_some() {
        assert!(Instant::now() < end, "it does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

//! The cases of sessions, what stands in their records, and notes.

use super::*;

impl Life {
    /// Claims until it is answered.
    async fn claim(&self, session: &str, claim: Claim) -> Claimed {
        for _ in 0..1_000 {
            match soon(self.broker.claim_session(session, claim)).await {
                Ok(claimed) => return claimed,
                Err(_) => tokio::time::sleep(Duration::from_micros(100)).await,
            }
        }
        panic!("it is never answered");
    }

    /// Records until it is known what came of it: the same again does no harm.
    async fn record(
        &self,
        session: &str,
        fence: Fence,
        record: Option<&SessionRecord>,
    ) -> Result<(), RecordError> {
        let mut is_repeated = false;
        for _ in 0..1_000 {
            match soon(self.broker.record_session(session, fence, record.cloned())).await {
                Err(RecordError::Unavailable(_)) => tokio::time::sleep(Duration::from_micros(100)).await,
                Err(RecordError::Unknown) => is_repeated = true,
                // Its end was written before, and only not answered.
                Err(RecordError::Fenced) if is_repeated && record.is_none() => return Ok(()),
                known => return known,
            }
        }
        panic!("it is never taken");
    }
}

fn record(state: &'static str) -> SessionRecord {
    SessionRecord::new(state, Some(MessageId::new(7, 9)))
}

/// Whoever had it before records nothing any more, and neither does whoever ended it.
pub async fn a_session_belongs_to_its_last_claim(ground: On) {
    let life = Life::on(&ground);
    let first = life.claim("ann", Claim::Resume).await;
    assert_eq!(first.record, None);
    assert_eq!(life.record("ann", first.fence, Some(&record("one"))).await, Ok(()));
    let other = life.claim("bob", Claim::Resume).await;
    assert_eq!(other.record, None);
    let second = life.claim("ann", Claim::Resume).await;
    assert_eq!((second.fence > first.fence, second.record), (true, Some(record("one"))));
    assert_eq!(life.record("ann", first.fence, Some(&record("late"))).await, Err(RecordError::Fenced));
    assert_eq!(life.record("ann", first.fence, None).await, Err(RecordError::Fenced));
    assert_eq!(life.record("ann", second.fence, Some(&record("two"))).await, Ok(()));
    let clean = life.claim("ann", Claim::Clean).await;
    assert_eq!((clean.fence > second.fence, clean.record), (true, None));
    assert_eq!(life.claim("ann", Claim::Resume).await.record, None);
    let last = life.claim("ann", Claim::Resume).await;
    assert_eq!(life.record("ann", last.fence, Some(&record("three"))).await, Ok(()));
    assert_eq!(life.claim("ann", Claim::End).await, Claimed::default());
    assert_eq!(life.record("ann", last.fence, Some(&record("late"))).await, Err(RecordError::Fenced));
    let after = life.claim("ann", Claim::Resume).await;
    assert_eq!((after.fence > last.fence, after.record), (true, None));
    assert_eq!(life.record("ann", after.fence, Some(&record("four"))).await, Ok(()));
    assert_eq!(life.record("ann", after.fence, None).await, Ok(()));
    assert_eq!(life.claim("ann", Claim::Resume).await.record, None);
    life.end().await;
}

/// And it finds what is recorded, if anything is.
pub async fn whoever_only_looks_takes_nothing(ground: On) {
    let life = Life::on(&ground);
    assert_eq!(life.claim("ann", Claim::Look).await, Claimed::default());
    let owner = life.claim("ann", Claim::Resume).await;
    assert_eq!(life.record("ann", owner.fence, Some(&record("one"))).await, Ok(()));
    let looked = life.claim("ann", Claim::Look).await;
    assert_eq!((looked.fence, looked.record), (Fence::default(), Some(record("one"))));
    assert_eq!(life.record("ann", owner.fence, Some(&record("two"))).await, Ok(()));
    assert_eq!(life.claim("ann", Claim::Look).await.record, Some(record("two")));
    life.end().await;
}

/// With its position; what was ended does not come back, and fences go on.
pub async fn a_session_outlives_a_life(ground: On) {
    let life = Life::on(&ground);
    let mut fences = Vec::new();
    for name in ["ann", "bob", "cid"] {
        let claimed = life.claim(name, Claim::Clean).await;
        fences.push(claimed.fence);
        assert_eq!(life.record(name, claimed.fence, Some(&record("old"))).await, Ok(()));
        assert_eq!(life.record(name, claimed.fence, Some(&record("new"))).await, Ok(()));
        if name == "cid" {
            assert_eq!(life.record(name, claimed.fence, None).await, Ok(()));
        }
    }
    life.claim("bob", Claim::End).await;
    life.end().await;
    let life = Life::on(&ground);
    for (name, expected) in [("ann", Some(record("new"))), ("bob", None), ("cid", None)] {
        let claimed = life.claim(name, Claim::Resume).await;
        assert!(fences.iter().all(|earlier| claimed.fence > *earlier), "{claimed:?}");
        assert_eq!(claimed.record, expected, "{name}");
    }
    assert_eq!(
        life.record("ann", fences[0], Some(&record("late"))).await,
        Err(RecordError::Fenced),
        "of the life before"
    );
    life.end().await;
}

/// By the clock, and those whose clients were there when the life ended, from the next one on.
pub async fn a_session_ends_in_its_time(ground: On) {
    let life = Life::on(&ground);
    let (soon_over, long) = (Duration::from_millis(1), Duration::from_secs(600));
    let all = [
        ("never", Ends::Never, true),
        ("over", Ends::At(unix_ms() + 1), false),
        ("later", Ends::At(unix_ms() + 600_000), true),
        ("was here", Ends::After(soon_over), false),
        ("was here, for long", Ends::After(long), true),
    ];
    for (name, ends, _) in all {
        let claimed = life.claim(name, Claim::Resume).await;
        assert_eq!(life.record(name, claimed.fence, Some(&record(name).ending(ends))).await, Ok(()));
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    for (name, here) in [("over", false), ("was here", true)] {
        assert_eq!(life.claim(name, Claim::Resume).await.record.is_some(), here, "{name}");
    }
    life.end().await;
    let life = Life::on(&ground);
    tokio::time::sleep(Duration::from_millis(20)).await;
    // Where ends are looked for at times, it is now and then.
    for (name, _, stays) in all {
        let mut claimed = life.claim(name, Claim::Resume).await;
        for _ in 0..100 {
            if claimed.record.is_some() == stays {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            claimed = life.claim(name, Claim::Resume).await;
        }
        assert_eq!(claimed.record.is_some(), stays, "{name}");
    }
    life.end().await;
}

/// Of many records that are on their way the last one counts, and a claim waits for them.
pub async fn a_session_is_recorded_in_the_order_of_its_owner(ground: On) {
    const ALL: u64 = 100;
    let life = Life::on(&ground);
    let claimed = life.claim("ann", Claim::Resume).await;
    let answers: Vec<_> = (1..=ALL)
        .map(|n| {
            let record = SessionRecord::new(n.to_string(), Some(MessageId::new(7, n)));
            (n, life.broker.record_session("ann", claimed.fence, Some(record)))
        })
        .collect();
    let again = life.claim("ann", Claim::Resume).await;
    let mut last = 0;
    for (n, answer) in answers {
        match soon(answer).await {
            Ok(()) => last = n,
            Err(RecordError::Unavailable(_) | RecordError::Unknown) if ground.is_unreliable() => {}
            other => panic!("{other:?} of {n}"),
        }
    }
    let found = again.record.and_then(|record| record.position).map_or(0, MessageId::offset);
    assert!(found >= last && (found == ALL || ground.is_unreliable()), "{found}, not {last}");
    life.end().await;
}

impl Life {
    /// Publishes under a session's number as its client does: what is not answered is asked about by another claim.
    async fn take(&self, session: &str, number: u16) -> Claimed {
        for _ in 0..1_000 {
            let claimed = self.claim(session, Claim::Resume).await;
            if claimed.taken.contains(&number) {
                return claimed;
            }
            // One that is recorded nowhere has no numbers either.
            _ = self.record(session, claimed.fence, Some(&record("here"))).await;
            let taken = Taken { session: session.into(), fence: claimed.fence, number };
            if soon(self.broker.submit_taken(publish("a", number), taken)).await.is_ok() {
                return claimed;
            }
        }
        panic!("it is never taken");
    }

    /// Frees a number until it is known that it is free.
    async fn free(&self, session: &str, fence: Fence, number: u16) -> Result<(), RecordError> {
        for _ in 0..1_000 {
            let taken = Taken { session: session.into(), fence, number };
            match soon(self.broker.free_taken(taken)).await {
                Err(RecordError::Unavailable(_) | RecordError::Unknown) => {
                    tokio::time::sleep(Duration::from_micros(100)).await;
                }
                known => return known,
            }
        }
        panic!("it is never answered");
    }
}

/// With its message: over claims and lives, and with the session's end it is gone.
pub async fn a_number_is_known_to_the_next_claim_until_it_is_freed(ground: On) {
    const ALL: std::ops::RangeInclusive<u16> = 1..=20;
    let life = Life::on(&ground);
    for number in ALL {
        life.take("ann", number).await;
    }
    life.take("bob", 1).await;
    life.end().await;
    let life = Life::on(&ground);
    let mut claimed = life.claim("ann", Claim::Resume).await;
    claimed.taken.sort_unstable();
    assert_eq!(claimed.taken, ALL.collect::<Vec<_>>());
    for number in ALL.filter(|number| *number != 7) {
        assert_eq!(life.free("ann", claimed.fence, number).await, Ok(()));
        assert_eq!(life.free("ann", claimed.fence, number).await, Ok(()), "it is free already");
    }
    life.end().await;
    let life = Life::on(&ground);
    assert_eq!(life.claim("ann", Claim::Resume).await.taken, [7]);
    let once = life.history("a", None, 1_000, Order::Oldest).await;
    assert_eq!(once.len(), 21, "each is published once: {once:?}");
    assert_eq!(life.claim("ann", Claim::Clean).await.taken, [0; 0]);
    assert_eq!(life.claim("ann", Claim::Resume).await.taken, [0; 0]);
    let bob = life.claim("bob", Claim::Resume).await;
    assert_eq!(bob.taken, [1]);
    assert_eq!(life.record("bob", bob.fence, None).await, Ok(()));
    life.end().await;
    let life = Life::on(&ground);
    for name in ["ann", "bob"] {
        assert_eq!(life.claim(name, Claim::Resume).await.taken, [0; 0], "{name}");
    }
    life.end().await;
}

/// Its client says the same again elsewhere.
pub async fn whoever_lost_its_session_publishes_nothing_under_a_number(ground: On) {
    let life = Life::on(&ground);
    let old = life.take("ann", 1).await;
    let new = life.claim("ann", Claim::Resume).await;
    assert!(new.fence > old.fence);
    for number in 2..40 {
        let taken = Taken { session: "ann".into(), fence: old.fence, number };
        let result = soon(life.broker.submit_taken(publish("a", "late"), taken)).await;
        let error = result.expect_err("it has no session").error;
        assert!(error == PublishError::Fenced || ground.is_unreliable(), "{error:?}");
    }
    assert_eq!(life.free("ann", old.fence, 1).await, Err(RecordError::Fenced));
    assert_eq!(life.history("a", None, 10, Order::Oldest).await, ["1"]);
    assert_eq!(life.claim("ann", Claim::Resume).await.taken, [1]);
    // Where nobody keeps messages a number means nothing.
    let taken = Taken { session: "ann".into(), fence: old.fence, number: 9 };
    assert!(soon(life.broker.submit_taken(publish(&format!("{MEMORY}/a"), "x"), taken)).await.is_ok());
    life.end().await;
}

/// Named in the next life until it is seen to, however long its session is over.
pub async fn a_will_outlives_a_life_and_its_session(ground: On) {
    let life = Life::on(&ground);
    assert_eq!(life.broker.wills(), []);
    let (long, over) = (Ends::After(Duration::from_secs(600)), Ends::At(unix_ms() + 1));
    for (name, ends, will) in [
        ("here", long, Some(Ends::After(Duration::from_secs(60)))),
        ("away", over, Some(over)),
        ("none", over, None),
    ] {
        let claimed = life.claim(name, Claim::Resume).await;
        let record = record("will").ending(ends).with_will(will);
        assert_eq!(life.record(name, claimed.fence, Some(&record)).await, Ok(()), "{name}");
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    life.end().await;
    let began_ms = unix_ms();
    let life = Life::on(&ground);
    // Where ends are looked for at times, it is by then.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let mut wills = life.broker.wills();
    wills.sort();
    assert_eq!(wills.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["away", "here"]);
    assert!(wills[0].1 <= began_ms && wills[1].1 >= began_ms + 59_000, "{wills:?} {began_ms}");
    assert_eq!(life.claim("none", Claim::Resume).await.record, None);
    let away = life.claim("away", Claim::Resume).await;
    assert_eq!(away.record.map(|record| record.state), Some("will".into()));
    assert_eq!(life.record("away", away.fence, None).await, Ok(()));
    let here = life.claim("here", Claim::Resume).await;
    assert_eq!(life.record("here", here.fence, Some(&record("seen to").ending(long))).await, Ok(()));
    life.end().await;
    let life = Life::on(&ground);
    assert_eq!(life.broker.wills(), []);
    assert_eq!(life.claim("away", Claim::Resume).await.record, None);
    assert!(life.claim("here", Claim::Resume).await.record.is_some());
    life.end().await;
}

/// The last word on each name, in the room where it was said.
pub async fn notes_outlive_a_crash(ground: On) {
    let life = Life::on(&ground);
    let (one, other) = (life.broker.notes("one"), life.broker.notes("other"));
    assert_eq!(one.load(), Ok(Vec::new()));
    for number in 0..1_000 {
        one.put(&number.to_string(), "old");
    }
    settled(&one).await;
    for number in 0..1_000 {
        match number % 10 {
            0 => one.put(&number.to_string(), number.to_string()),
            _ => one.remove(&number.to_string()),
        }
    }
    other.put("0", vec![0, 255]);
    other.put("gone", "1");
    other.remove("gone");
    settled(&one).await;
    settled(&other).await;
    life.crash();

    let life = Life::on(&ground);
    let found = life.broker.notes("one").load().expect("it can be read");
    let mut found: Vec<_> = found.into_iter().map(|(name, text)| (name, text_of(&text))).collect();
    found.sort_unstable_by_key(|(name, _)| name.parse::<u32>().ok());
    let expected = (0..100).map(|n| (n * 10).to_string()).map(|n| (n.clone().into(), n));
    assert_eq!(found, expected.collect::<Vec<_>>());
    let other = life.broker.notes("other").load().expect("it can be read");
    assert!(matches!(&other[..], [(name, text)] if &**name == "0" && text[..] == [0, 255]), "{other:?}");
    assert_eq!(life.broker.notes("on").load(), Ok(Vec::new()), "another room's name begins so");
    life.end().await;
}

async fn settled(notes: &broker_core::Notes) {
    for _ in 0..10_000 {
        if soon(notes.settled()).await.is_ok() {
            return;
        }
    }
    panic!("nothing is ever safe");
}

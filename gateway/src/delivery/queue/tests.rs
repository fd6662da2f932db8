use super::*;

fn event(order: &str, id: impl ToString, made: Instant) -> Event {
    Event { id: id.to_string(), order: order.into(), body: Bytes::from_static(b"{}"), made }
}

fn ids(attempt: &Attempt) -> Vec<&str> {
    attempt.events.iter().map(|event| event.id.as_str()).collect()
}

fn failure(status: u16) -> Failure {
    Failure::new(Some(status), "")
}

fn delivered() -> Outcome {
    Outcome::Delivered { failed: Vec::new() }
}

fn sent(queue: &mut Queue, now: Instant) -> Attempt {
    queue.poll(now).0.expect("something to send")
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn one_order_goes_one_by_one_and_others_beside_it() {
    let now = Instant::now();
    let mut queue = Queue::new(Bounds::default(), 1);
    for (order, id) in [("a", 1), ("a", 2), ("b", 3)] {
        assert!(queue.push(event(order, id, now)).is_empty());
    }
    let (first, second) = (sent(&mut queue, now), sent(&mut queue, now));
    assert_eq!((ids(&first), ids(&second)), (vec!["1"], vec!["3"]));
    assert!(queue.poll(now).0.is_none(), "2 waits for 1");
    assert!(queue.handle(now, first.number, delivered()).is_empty());
    assert_eq!(ids(&sent(&mut queue, now)), ["2"]);
    assert_eq!(queue.len(), 2);
}

#[test]
fn what_fails_holds_up_its_own_order_and_is_tried_again_until_it_is_given_up() {
    let start = Instant::now();
    let bounds = Bounds { max_age: Duration::from_secs(100_000), ..Bounds::default() };
    let mut queue = Queue::new(bounds, 1);
    queue.push(event("bad", 1, start));
    queue.push(event("bad", 2, start));
    queue.push(event("good", 3, start));
    let mut now = start;
    let mut attempts = 0;
    let dead = loop {
        let attempt = sent(&mut queue, now);
        let outcome = if attempt.events[0].id == "1" {
            attempts += 1;
            Outcome::Failed(failure(503), None)
        } else {
            assert_eq!((ids(&attempt), now), (vec!["3"], start));
            delivered()
        };
        let dead = queue.handle(now, attempt.number, outcome);
        if !dead.is_empty() {
            break dead;
        }
        now = now.max(queue.poll_timeout().expect("another try"));
    };
    assert_eq!((attempts, dead.len(), dead[0].attempts), (8, 1, 8));
    assert_eq!((dead[0].cause, dead[0].event.id.as_str()), (Cause::GaveUp, "1"));
    assert_eq!(dead[0].last, Some(failure(503)));
    assert_eq!(ids(&sent(&mut queue, now)), ["2"], "who waited behind it goes on");
}

#[test]
fn what_a_receiver_refuses_is_dead_at_once_and_410_closes_the_queue() {
    let now = Instant::now();
    let mut queue = Queue::new(Bounds::default(), 1);
    (1..=3).for_each(|id| assert!(queue.push(event("a", id, now)).is_empty()));
    let first = sent(&mut queue, now);
    let dead = queue.handle(now, first.number, Outcome::Rejected(failure(400)));
    assert_eq!((dead[0].cause, dead[0].attempts), (Cause::Rejected, 1));
    let second = sent(&mut queue, now);
    assert_eq!(queue.handle(now, second.number, Outcome::Gone(failure(410)))[0].cause, Cause::Rejected);
    assert!(queue.is_closed() && queue.poll(now).0.is_none());
    assert!(queue.poll_timeout().is_some_and(|at| at >= now + queue.bounds.max_age));
    queue.reopen();
    assert_eq!(ids(&sent(&mut queue, now)), ["3"]);
}

#[test]
fn nothing_stale_is_sent_and_the_oldest_make_room() {
    let start = Instant::now();
    let mut queue = Queue::new(Bounds { max_events: 3, ..Bounds::default() }, 1);
    queue.push(event("flying", 0, start));
    let flying = sent(&mut queue, start);
    queue.push(event("a", 1, start));
    queue.push(event("a", 2, start + SECOND));
    let dead = queue.push(event("b", 3, start + SECOND * 2));
    assert_eq!((dead.len(), dead[0].event.id.as_str(), dead[0].cause), (1, "1", Cause::Overflow));
    assert_eq!(queue.oldest(), Some(start + SECOND));
    let late = start + Duration::from_secs(301);
    let (attempt, dead) = queue.poll(late);
    assert_eq!((dead.len(), dead[0].event.id.as_str(), dead[0].cause), (1, "2", Cause::Expired));
    assert_eq!(ids(&attempt.expect("3 is young enough")), ["3"]);
    assert!(queue.handle(late, flying.number, delivered()).is_empty());
    assert_eq!(queue.len(), 1);
}

#[test]
fn a_batch_that_fails_twice_is_halved_until_the_bad_event_is_alone() {
    let mut now = Instant::now();
    let mut queue = Queue::new(Bounds { batch: 16, ..Bounds::default() }, 1);
    (0..16).for_each(|id| assert!(queue.push(event(&format!("{}", id % 4), id, now)).is_empty()));
    assert!(queue.poll(now).0.is_none(), "it waits for company");
    let (mut arrived, mut dead, mut requests) = (Vec::new(), Vec::new(), 0);
    while !queue.is_empty() {
        now = now.max(queue.poll_timeout().expect("something to do"));
        let Some(attempt) = queue.poll(now).0 else { continue };
        requests += 1;
        let is_bad = ids(&attempt).contains(&"6");
        if !is_bad {
            arrived.extend(ids(&attempt).iter().map(|id| id.parse::<u32>().unwrap()));
        }
        let outcome = if is_bad { Outcome::Rejected(failure(422)) } else { delivered() };
        dead.extend(queue.handle(now, attempt.number, outcome));
    }
    assert_eq!((dead.len(), dead[0].event.id.as_str(), dead[0].cause), (1, "6", Cause::Rejected));
    for order in 0..4 {
        let of: Vec<_> = arrived.iter().filter(|id| *id % 4 == order).collect();
        assert!(of.is_sorted(), "{of:?}");
    }
    arrived.sort_unstable();
    assert_eq!(arrived, (0..16).filter(|id| *id != 6).collect::<Vec<_>>());
    assert!(requests < 16, "{requests}");
}

/// One channel's hundred events, of which any one may be bad.
#[test]
fn the_bad_one_of_a_hundred_is_found_in_few_calls_and_the_rest_arrives_in_order() {
    for bad in 0..100 {
        let mut now = Instant::now();
        let mut queue = Queue::new(Bounds { batch: 100, ..Bounds::default() }, 1);
        (0..100).for_each(|id| assert!(queue.push(event("a", id, now)).is_empty()));
        let (mut arrived, mut dead, mut calls) = (Vec::new(), Vec::new(), 0);
        while !queue.is_empty() {
            now = now.max(queue.poll_timeout().expect("something to do"));
            let Some(attempt) = queue.poll(now).0 else { continue };
            calls += 1;
            let is_bad = ids(&attempt).contains(&bad.to_string().as_str());
            let outcome = if is_bad { Outcome::Rejected(failure(422)) } else { delivered() };
            if !is_bad {
                arrived.extend(ids(&attempt).iter().map(|id| id.parse::<u32>().unwrap()));
            }
            dead.extend(queue.handle(now, attempt.number, outcome));
        }
        assert_eq!((dead.len(), dead[0].event.id.clone()), (1, bad.to_string()));
        assert_eq!(arrived, (0..100).filter(|id| *id != bad).collect::<Vec<_>>());
        assert!(calls <= 15, "{bad}: {calls}");
        assert!(queue.suspects.is_empty());
    }
}

/// One channel's hundred events, of which one makes the receiver fail, as a handler that throws does.
#[test]
fn the_one_that_always_fails_is_given_up_once_it_is_alone_and_others_were_taken() {
    for bad in 1..100 {
        let mut now = Instant::now();
        let start = now;
        let mut queue = Queue::new(Bounds { batch: 100, ..Bounds::default() }, 1);
        (0..100).for_each(|id| assert!(queue.push(event("a", id, now)).is_empty()));
        let (mut arrived, mut dead, mut calls) = (Vec::new(), Vec::new(), 0);
        while !queue.is_empty() {
            now = now.max(queue.poll_timeout().expect("something to do"));
            let Some(attempt) = queue.poll(now).0 else { continue };
            calls += 1;
            let is_bad = ids(&attempt).contains(&bad.to_string().as_str());
            let outcome = if is_bad { Outcome::Failed(failure(500), None) } else { delivered() };
            if !is_bad {
                arrived.extend(ids(&attempt).iter().map(|id| id.parse::<u32>().unwrap()));
            }
            dead.extend(queue.handle(now, attempt.number, outcome));
        }
        let ended: Vec<_> = dead.iter().map(|dead| (dead.event.id.clone(), dead.cause)).collect();
        assert_eq!(ended, [(bad.to_string(), Cause::GaveUp)]);
        assert_eq!(arrived, (0..100).filter(|id| *id != bad).collect::<Vec<_>>());
        assert!(calls <= 15 && now < start + SECOND * 3, "{bad}: {calls} in {:?}", now - start);
        assert!(queue.suspects.is_empty());
    }
}

#[test]
fn a_receiver_that_is_down_makes_nothing_a_dead_letter() {
    let start = Instant::now();
    let mut now = start;
    let mut queue = Queue::new(Bounds { batch: 16, ..Bounds::default() }, 1);
    (0..16).for_each(|id| assert!(queue.push(event("a", id, start)).is_empty()));
    let mut arrived = Vec::new();
    while !queue.is_empty() {
        now = now.max(queue.poll_timeout().expect("something to do"));
        let Some(attempt) = queue.poll(now).0 else { continue };
        let outcome = if now < start + SECOND * 20 {
            Outcome::Failed(failure(500), None)
        } else {
            arrived.extend(ids(&attempt).iter().map(|id| id.parse::<u32>().unwrap()));
            delivered()
        };
        assert!(queue.handle(now, attempt.number, outcome).is_empty());
    }
    assert_eq!(arrived, (0..16).collect::<Vec<_>>());
}

#[test]
fn a_receiver_that_names_what_failed_saves_the_halving() {
    let start = Instant::now();
    let mut queue = Queue::new(Bounds { batch: 10, ..Bounds::default() }, 1);
    (0..10).for_each(|id| assert!(queue.push(event(&format!("{}", id % 2), id, start)).is_empty()));
    let now = start + SECOND;
    let attempt = sent(&mut queue, now);
    assert_eq!(attempt.events.len(), 10);
    assert!(queue.handle(now, attempt.number, Outcome::Delivered { failed: vec!["4".into()] }).is_empty());
    assert_eq!(queue.len(), 1);
    let later = queue.poll_timeout().unwrap();
    assert!(later > now);
    let again = sent(&mut queue, later);
    assert_eq!(ids(&again), ["4"]);
    // What it names twice is given up: it would say so for ever.
    let dead = queue.handle(later, again.number, Outcome::Delivered { failed: vec!["4".into()] });
    assert_eq!(
        dead.iter().map(|dead| (&*dead.event.id, dead.cause, dead.attempts)).collect::<Vec<_>>(),
        [("4", Cause::GaveUp, 2)]
    );
    assert!(queue.is_empty());
}

/// Whatever the receiver does, each event ends once, and what arrives of one order arrives in order.
#[test]
fn every_event_ends_once_and_in_order() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let batch = random.usize(1..8);
        let bounds = Bounds { batch, max_in_flight: random.usize(1..4), max_events: 40, ..Bounds::default() };
        let mut queue = Queue::new(bounds, seed);
        let (mut now, mut made, mut flying) = (Instant::now(), 0_u32, Vec::new());
        let mut ended: HashMap<u32, Option<Cause>> = HashMap::new();
        let mut newest: HashMap<Arc<str>, u32> = HashMap::new();
        let end = |dead: Vec<Dead>, ended: &mut HashMap<u32, Option<Cause>>| {
            for one in dead {
                assert!(ended.insert(one.event.id.parse().unwrap(), Some(one.cause)).is_none());
            }
        };
        for step in 0.. {
            if step < 300 && random.bool() {
                let order = format!("{}", random.u8(0..6));
                end(queue.push(event(&order, made, now)), &mut ended);
                made += 1;
            }
            let (attempt, dead) = queue.poll(now);
            end(dead, &mut ended);
            if let Some(attempt) = attempt {
                assert!(attempt.events.len() <= batch && flying.len() < 4);
                flying.push(attempt);
            } else if flying.is_empty() && step >= 300 {
                let Some(at) = queue.poll_timeout() else { break };
                now = now.max(at);
            }
            if !flying.is_empty() && random.bool() {
                let attempt: Attempt = flying.swap_remove(random.usize(..flying.len()));
                let outcome = match random.u8(0..10) {
                    0 => Outcome::Rejected(failure(400)),
                    1 => Outcome::Failed(failure(500), Some(SECOND * random.u32(0..100))),
                    2 => Outcome::Unreachable(Failure::new(None, "")),
                    _ => delivered(),
                };
                if outcome == delivered() {
                    for event in &attempt.events {
                        let id: u32 = event.id.parse().unwrap();
                        assert!(ended.insert(id, None).is_none());
                        let before = newest.insert(Arc::clone(&event.order), id);
                        assert!(before < Some(id), "{before:?} before {id}");
                    }
                }
                end(queue.handle(now, attempt.number, outcome), &mut ended);
                now += SECOND * random.u32(0..3);
            }
        }
        assert_eq!((ended.len(), queue.len(), queue.bytes()), (made as usize, 0, 0));
        assert!(queue.lines.is_empty() && queue.ages.is_empty() && queue.due.is_empty());
        assert!(queue.suspects.is_empty(), "{:?}", queue.suspects);
    }
}

#[test]
fn a_sweep_takes_what_is_too_old_and_leaves_what_is_being_sent() {
    let start = Instant::now();
    let mut queue = Queue::new(Bounds { max_age: SECOND * 10, ..Bounds::default() }, 1);
    queue.push(event("sent", 1, start));
    assert_eq!(ids(&sent(&mut queue, start)), ["1"]);
    for (order, id, made) in
        [("old", 2, start), ("old", 3, start + SECOND * 9), ("new", 4, start + SECOND * 9)]
    {
        queue.push(event(order, id, made));
    }
    assert!(queue.sweep(start + SECOND * 9).is_empty());
    let dead = queue.sweep(start + SECOND * 10);
    let dead: Vec<_> = dead.iter().map(|dead| (dead.event.id.as_str(), dead.cause)).collect();
    assert_eq!(dead, [("2", Cause::Expired)]);
    assert_eq!(queue.len(), 3);
}

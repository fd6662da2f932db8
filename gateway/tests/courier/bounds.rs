//! A queue at its bounds, in front of a backend that is away and comes back.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use bytes::Bytes;
use gateway::delivery::{Bounds, Cause, Event};

use crate::server::{start_at, status};
use crate::{courier, drained, nobody};

/// What the documentation says of a webhook's queue.
const MAX_EVENTS: usize = 100_000;
const MAX_BYTES: usize = 64 << 20;

const ORDERS: usize = 10;

/// Memory of this process, in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Has `count` events wait for a backend that is away until all of them wait. Nothing that was taken is lost, but for those
/// that had to make room, which are the oldest; `held` is how many are left then.
async fn waits_and_arrives(count: usize, body: &'static [u8], held: std::ops::RangeInclusive<usize>) {
    let address = nobody().await;
    let mut bounds = Bounds::default();
    bounds.batch = 100;
    let (courier, lines) = courier(address, bounds);
    // What is there once, whatever waits.
    courier.push(Event::new("first", "first", Bytes::from_static(b"{}"), Instant::now()));
    let before = resident();
    for id in 0..count {
        let body = Bytes::copy_from_slice(body);
        courier.push(Event::new(id.to_string(), format!("{}", id % ORDERS), body, Instant::now()));
    }
    let load = courier.load();
    assert!(held.contains(&load.events) && load.bytes <= MAX_BYTES, "{load:?}");
    // The debug allocator of the system rounds up and keeps what has grown; twice the budget is none.
    let grown = resident().saturating_sub(before);
    assert!(grown < MAX_BYTES * 3 / 2, "{grown} bytes for {load:?}");
    {
        let dead = lines.dead.lock();
        assert_eq!(dead.len(), count + 1 - load.events, "counted");
        assert!(dead.iter().all(|(_, cause)| *cause == Cause::Overflow));
    }

    let (_, came) = start_at(address, |_, _| status(204)).await;
    drained(&courier).await;
    let dead: HashSet<String> = lines.dead.lock().iter().map(|(id, _)| id.clone()).collect();
    assert_eq!(dead.len(), count + 1 - load.events, "nothing more is given up");
    let mut arrived = HashSet::new();
    let mut newest = HashMap::new();
    for id in came.lock().iter().flat_map(|came| came.body.lines()) {
        assert!(arrived.insert(id.to_owned()) && !dead.contains(id), "{id} once");
        if let Ok(number) = id.parse::<usize>() {
            let before = newest.insert(number % ORDERS, number);
            assert!(before.is_none_or(|before| before < number), "{number} behind {before:?}");
        }
    }
    assert_eq!(arrived.len(), load.events);
    // The oldest have made room; a few were being sent when they would have been the next.
    let room = count - load.events;
    let late = dead.iter().filter(|id| id.parse().is_ok_and(|id: usize| id > room + 200));
    assert_eq!(late.count(), 0, "{room}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_events_wait_for_a_backend_and_arrive_in_order() {
    waits_and_arrives(MAX_EVENTS + 500, b"{}", MAX_EVENTS..=MAX_EVENTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_events_wait_up_to_the_bytes_of_the_queue() {
    const BODY: [u8; 2_000] = [b'1'; 2_000];
    let fit = MAX_BYTES / (BODY.len() + 256 + 5);
    waits_and_arrives(fit + 3_000, &BODY, fit - 10..=fit + 10).await;
}

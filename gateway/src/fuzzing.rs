//! What the fuzzers of `fuzz/` call. Their corpus runs as an ordinary test as well, so that what a fuzzer has found once is
//! looked at on every run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::delivery::{Attempt, Bounds, Dead, Event, Failure, Outcome, Queue};
use crate::webhook::answer::{self, MAX_CONTEXT_BYTES, Verdict};

/// A status, two bytes, and an answer to a decision. What is for the client is one short line, and nothing that is no
/// decision lets anybody in.
pub fn webhook_answer(bytes: &[u8]) {
    let Some((status, body)) = bytes.split_first_chunk() else { return };
    let status = u16::from_be_bytes(*status) % 600;
    match answer::read(status, body) {
        Ok(Verdict::Deny(reason)) => {
            assert!((200..300).contains(&status) || (400..500).contains(&status));
            let reason = reason.unwrap_or_default();
            assert!(reason.chars().count() <= 120 && !reason.chars().any(char::is_control));
        }
        Ok(Verdict::Allow(granted)) => {
            assert!((200..300).contains(&status));
            let is_json = |text: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();
            let context = granted.context.unwrap_or_else(|| "{}".into());
            assert!(context.len() <= MAX_CONTEXT_BYTES && is_json(&context));
            assert!(granted.reply.is_none_or(|reply| is_json(&reply)));
            assert!(status != 204 || granted.user.is_none() && granted.rights.is_none());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// What happens to a queue, a byte each: events come, time goes on, attempts end somehow. Each event ends once, delivered
/// or as a dead letter; those of one order are sent in their order, one request at a time; the bounds hold.
pub fn delivery(bytes: &[u8]) {
    let Some(([shape, more], bytes)) = bytes.split_first_chunk::<2>() else { return };
    let bounds = Bounds {
        max_events: 8 + usize::from(shape & 7),
        batch: 1 + usize::from(shape >> 3 & 7),
        apart: shape & 64 != 0,
        max_in_flight: 1 + usize::from(more & 3),
        max_age: Duration::from_secs(30),
        retry: vec![Duration::from_secs(1); usize::from(more >> 2 & 3)],
        ..Bounds::default()
    };
    let mut queue = Queue::new(bounds.clone(), 1);
    let mut run = Run { bounds, now: Instant::now(), ..Run::new() };
    for byte in bytes.iter().take(512) {
        run.step(&mut queue, *byte);
    }
    // All that is left is delivered, or has grown too old.
    for _ in 0..4_000 {
        while let Some(attempt) = run.flights.pop_first() {
            run.end(&mut queue, attempt.1, 0);
        }
        if queue.is_empty() {
            break;
        }
        queue.reopen();
        run.poll(&mut queue);
        run.now += Duration::from_millis(500);
    }
    assert_eq!((queue.len(), queue.bytes()), (0, 0));
    assert_eq!(run.ended.len() as u64, run.made, "each ends");
}

struct Run {
    bounds: Bounds,
    now: Instant,
    made: u64,
    ended: BTreeSet<String>,
    flights: BTreeMap<u64, Attempt>,
    /// Orders of which events are under way.
    busy: BTreeSet<String>,
}

impl Run {
    fn new() -> Self {
        Self {
            bounds: Bounds::default(),
            now: Instant::now(),
            made: 0,
            ended: BTreeSet::new(),
            flights: BTreeMap::new(),
            busy: BTreeSet::new(),
        }
    }

    fn step(&mut self, queue: &mut Queue, byte: u8) {
        match byte & 3 {
            0 => {
                let id = format!("{:08}", self.made);
                self.made += 1;
                let order = (byte >> 2 & 3).to_string();
                let dead = queue.push(Event::new(id, order, "{}", self.now));
                self.bury(dead);
            }
            1 => self.poll(queue),
            2 => self.now += Duration::from_millis(u64::from(byte >> 2) * 100),
            _ => {
                if let Some((_, attempt)) = self.flights.pop_first() {
                    self.end(queue, attempt, byte >> 2);
                }
            }
        }
        assert!(queue.len() <= self.bounds.max_events + self.bounds.max_in_flight * self.bounds.batch);
    }

    fn poll(&mut self, queue: &mut Queue) {
        let (attempt, dead) = queue.poll(self.now);
        self.bury(dead);
        let Some(attempt) = attempt else { return };
        assert!((1..=self.bounds.batch).contains(&attempt.events.len()));
        let mut orders: BTreeMap<String, String> = BTreeMap::new();
        for event in &attempt.events {
            assert!(!self.ended.contains(&event.id), "what has ended is not sent");
            let before = orders.insert(event.order.to_string(), event.id.clone());
            assert!(before.is_none_or(|before| before < event.id), "in their order");
        }
        assert!(!self.bounds.apart || orders.len() == 1);
        for order in orders.into_keys() {
            assert!(self.busy.insert(order), "one request at a time");
        }
        self.flights.insert(attempt.number, attempt);
        assert!(self.flights.len() <= self.bounds.max_in_flight);
    }

    fn end(&mut self, queue: &mut Queue, attempt: Attempt, how: u8) {
        for event in &attempt.events {
            self.busy.remove(&*event.order);
        }
        let failure = || Failure::new(Some(500), "status 500");
        let named = attempt.events.first().map(|event| event.id.clone());
        let outcome = match how % 7 {
            0 => Outcome::Delivered { failed: Vec::new() },
            1 => Outcome::Delivered { failed: named.into_iter().collect() },
            2 => Outcome::Rejected(failure()),
            3 => Outcome::Failed(failure(), None),
            4 => Outcome::Failed(failure(), Some(Duration::from_secs(u64::from(how)))),
            5 => Outcome::Unreachable(failure()),
            _ => Outcome::Gone(failure()),
        };
        if let Outcome::Delivered { failed } = &outcome {
            let done = attempt.events.iter().filter(|event| !failed.contains(&event.id));
            for event in done {
                assert!(self.ended.insert(event.id.clone()), "it ends once");
            }
        }
        let dead = queue.handle(self.now, attempt.number, outcome);
        self.bury(dead);
    }

    fn bury(&mut self, dead: Vec<Dead>) {
        for dead in dead {
            assert!(self.ended.insert(dead.event.id.clone()), "it ends once");
        }
    }
}

#[cfg(test)]
mod tests {
    fn replay(name: &str, target: fn(&[u8])) {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            target(&std::fs::read(entry.unwrap().path()).unwrap());
            seen += 1;
        }
        assert!(seen >= 3);
    }

    #[test]
    fn the_corpus_finds_nothing() {
        replay("webhook_answers", super::webhook_answer);
        replay("webhook_delivery", super::delivery);
    }

    #[test]
    fn chance_finds_nothing() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..2_000 {
            let bytes: Vec<u8> = (0..random.usize(2..300)).map(|_| random.u8(..)).collect();
            super::delivery(&bytes);
            super::webhook_answer(&bytes);
        }
    }
}

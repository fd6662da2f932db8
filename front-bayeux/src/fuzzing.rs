//! Entry points for fuzzers: whatever the bytes are, nothing panics and the invariants hold.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::codec::channel::{self, Grammar};
use crate::codec::event;
use crate::codec::message::{self, Bounds, parse_batch};
use crate::config::{Config, Extensions, QueueFull, Transport};
use crate::protocol::timesync::Timesync;
use crate::protocol::{
    ConnectAnswer, ConnectRequest, ConnectStep, Delivered, End, Held, Options, Push, Session, SessionTiming,
    handshake,
};

/// The parser, and everything that reads a field of what it found.
pub fn messages(bytes: &[u8]) {
    let bounds = Bounds { max_depth: 64, max_messages: 1000 };
    if let Some(levels) = bytes.first().filter(|first| first.is_multiple_of(16)) {
        deep(*levels, bounds);
    }
    let Ok(messages) = parse_batch(bytes, bounds) else { return };
    // What is taken is JSON, and as many messages as it says.
    let items: usize = match serde_json::from_slice::<Vec<&RawValue>>(bytes) {
        Ok(items) => items.len(),
        Err(_) => serde_json::from_slice::<&RawValue>(bytes).map(|_| 1).expect("JSON"),
    };
    assert_eq!(messages.len(), items);
    let transports = [Transport::WebSocket, Transport::LongPolling];
    for message in &messages {
        let _ = handshake::negotiate(message, &transports, &Extensions::default());
        let _ = (handshake::token(message), handshake::user(message));
        let fields = [
            message.channel,
            message.client_id,
            message.id,
            message.subscription,
            message.ext,
            message.advice,
            message.connection_type,
            message.version,
            message.connection_types,
        ];
        for raw in fields.into_iter().flatten() {
            let _ = (message::integer(raw), message::boolean(raw), message::field(raw, "ack"));
            let _ = message::fields(raw, 100);
            let _ = Timesync::read(raw, Instant::now(), 1).and_then(|sync| sync.answer(Instant::now()));
            for name in message::strings(raw, 1000).unwrap_or_default() {
                names(&name);
            }
        }
        if let Some(data) = message.data {
            let mut out = Vec::new();
            event::put_with_replay_id(&mut out, data.get().as_bytes(), 7);
            serde_json::from_slice::<&RawValue>(&out).expect("still JSON");
        }
    }
}

/// As many levels as the first byte says, of JSON and of a channel.
fn deep(levels: u8, bounds: Bounds) {
    let levels = usize::from(levels) * 100;
    let message = format!("{{\"channel\":\"/a\",\"data\":{}1{}}}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(parse_batch(message.as_bytes(), bounds).is_ok(), levels < bounds.max_depth, "{levels}");
    names(&("/a".repeat(levels) + "/*"));
}

/// What is legal strictly is legal leniently, and a channel is a pattern.
fn names(name: &str) {
    let (strict, lenient) = (channel::parse(name, Grammar::Strict), channel::parse(name, Grammar::Lenient));
    assert!(strict.is_err() || strict == lenient, "{name}");
    assert!(strict.is_err() || channel::parse_pattern(name, Grammar::Strict).is_ok(), "{name}");
    let pattern = channel::parse_pattern(name, Grammar::Strict);
    assert!(pattern.is_err() || pattern == channel::parse_pattern(name, Grammar::Lenient), "{name}");
}

const MAX_QUEUE: usize = 20;

/// The state machine, with connects, deliveries, connections that break and time as input: the first byte chooses the
/// kind of session, then each two bytes are a step. A client never gets an event twice or out of order; with the ack
/// extension it gets every one that was taken, as long as the session lives and nothing is dropped.
pub fn session(bytes: &[u8]) {
    let Some((kind, steps)) = bytes.split_first() else { return };
    let mut life = Life::new(*kind);
    for step in steps.chunks(2) {
        life.step(step.first().copied().unwrap_or_default(), step.get(1).copied().unwrap_or_default());
        life.check();
    }
    life.end();
}

struct Life {
    now: Instant,
    session: Session,
    acks: bool,
    policy: QueueFull,
    /// Events that were taken; each is its number.
    sent: u32,
    /// The next one that the client may get.
    next: u32,
    /// Some may be missing by right.
    holes: bool,
    acked: u64,
    held: Option<u64>,
    requests: u32,
    /// Whether one is bound.
    socket: bool,
    /// Pushed, and perhaps not yet at the client.
    wire: VecDeque<Bytes>,
}

impl Life {
    fn new(kind: u8) -> Self {
        let policy = match kind >> 1 & 3 {
            0 => QueueFull::Disconnect,
            1 => QueueFull::DropNewest,
            2 => QueueFull::DropOldest,
            _ => QueueFull::Clear,
        };
        let mut config = Config { max_queue_messages: MAX_QUEUE, ..Config::default() };
        config.long_polling.meta_connect_deliver_only = Some(kind & 8 != 0);
        config.max_processing = (kind & 16 != 0).then_some(Duration::from_secs(5));
        config.extensions.activity =
            (kind & 32 != 0).then_some((crate::config::Activity::ClientAndServer, Duration::from_secs(20)));
        let now = Instant::now();
        let mut session = Session::new(now, Arc::new(Options::new(&config)), Transport::LongPolling);
        let acks = kind & 1 == 0;
        if acks {
            session.enable_ack();
        }
        let holes = !acks || matches!(policy, QueueFull::DropOldest | QueueFull::Clear);
        Self {
            now,
            session,
            acks,
            policy,
            sent: 0,
            next: 0,
            holes,
            acked: 0,
            held: None,
            requests: 0,
            socket: false,
            wire: VecDeque::new(),
        }
    }

    fn step(&mut self, step: u8, detail: u8) {
        let arrives = detail & 0x80 != 0;
        match step {
            0..80 => self.deliver(step, detail),
            80..130 => {
                let transport = if detail & 1 == 0 { Transport::LongPolling } else { Transport::WebSocket };
                // As the transports do: a socket is bound before its connect, and left for a poll.
                match transport {
                    Transport::WebSocket => self.bind(),
                    _ => self.lose_socket(usize::MAX),
                }
                let request = ConnectRequest {
                    id: None,
                    transport,
                    timeout: (detail & 2 == 0).then_some(Duration::from_secs(u64::from(detail >> 4 & 3))),
                    interval: (detail & 4 == 0).then_some(Duration::from_secs(1)),
                    has_advice: detail & 6 != 6,
                    ack: (self.acks || detail & 8 == 0).then_some(self.acked),
                    timesync: None,
                    alone: detail & 0x40 == 0,
                    stamped: false,
                };
                match self.session.handle_connect(self.now, request) {
                    ConnectStep::Answer(answer) => self.take(*answer, arrives),
                    ConnectStep::Hold { token, .. } => self.held = Some(token),
                }
            }
            130..160 => {
                if let Some(token) = self.held
                    && let Held::Answer(answer) = self.session.poll_connect(self.now, token)
                {
                    self.held = None;
                    self.take(*answer, arrives);
                }
            }
            160..170 => {
                if let Some(token) = self.held.take() {
                    self.session.drop_connect(self.now, token);
                }
            }
            170..180 => {
                if let Some(token) = self.held {
                    let wait = arrives.then_some(Duration::from_secs(2));
                    if let Some(answer) = self.session.refuse_hold(self.now, token, wait) {
                        self.held = None;
                        self.take(answer, detail & 1 == 0);
                    }
                }
            }
            180..195 => self.bind(),
            195..205 => self.lose_socket(usize::from(detail)),
            205..215 => {
                self.session.begin_request(self.now);
                self.requests += 1;
            }
            215..225 if self.requests > 0 => {
                self.requests -= 1;
                // A reply carries what no socket will.
                let events = if self.socket { Vec::new() } else { self.session.poll_events(self.now) };
                self.session.end_request(self.now);
                assert!(events.is_empty() || !self.acks, "acknowledged events come with connects only");
                self.receive(events, arrives);
            }
            225..245 => {
                self.now += Duration::from_millis(100 * u64::from(detail));
                self.session.handle_timeout(self.now);
            }
            245..250 => {
                let max_interval = Duration::from_secs(u64::from(detail));
                let timing = SessionTiming { max_interval: Some(max_interval), ..SessionTiming::default() };
                self.session.set_timing(self.now, timing);
            }
            250..253 => self.session.finish(self.now, End::Kicked),
            _ => {}
        }
        let pushed = self.session.poll_push(self.now);
        assert!(pushed.is_empty() || !self.acks);
        self.wire.extend(pushed);
        // An outbox is bounded too; a client that reads makes room.
        while self.wire.len() > MAX_QUEUE {
            let read = self.wire.pop_front().into_iter().collect();
            self.receive(read, true);
        }
    }

    fn bind(&mut self) {
        self.socket = true;
        self.session.set_push(Push::On);
    }

    fn deliver(&mut self, step: u8, detail: u8) {
        let event = Bytes::copy_from_slice(&self.sent.to_be_bytes());
        let lazy = (step & 1 == 0).then_some(Duration::from_secs(1));
        let expires_at = (detail & 7 == 7).then(|| {
            self.holes = true;
            self.now + Duration::from_secs(2)
        });
        let mut delivered = self.session.handle_delivery(self.now, event, lazy, expires_at);
        let mut taken = true;
        if let Delivered::Full(event) = delivered {
            delivered = self.session.overflow(self.now, event, expires_at, self.policy);
            taken = self.policy != QueueFull::DropNewest;
        }
        match delivered {
            Delivered::Queued | Delivered::Due => self.sent += u32::from(taken),
            Delivered::Full(_) => panic!("somebody decided"),
            Delivered::Overflow | Delivered::Ignored => assert!(self.session.end().is_some()),
        }
    }

    /// The socket breaks; `kept` of what was pushed had reached the client.
    fn lose_socket(&mut self, kept: usize) {
        let arrived: Vec<Bytes> = self.wire.drain(..self.wire.len().min(kept)).collect();
        self.receive(arrived, true);
        let lost = self.wire.drain(..).collect();
        self.session.take_back(lost);
        if std::mem::take(&mut self.socket) {
            self.session.drop_socket(self.now);
        }
    }

    fn take(&mut self, answer: ConnectAnswer, arrives: bool) {
        // On one socket what was pushed comes before.
        let pushed: Vec<Bytes> = self.wire.drain(..).collect();
        self.receive(pushed, true);
        if arrives {
            self.acked = answer.ack.unwrap_or(self.acked);
        }
        self.receive(answer.events, arrives);
    }

    fn receive(&mut self, events: Vec<Bytes>, arrives: bool) {
        for event in events.into_iter().filter(|_| arrives) {
            let number = <[u8; 4]>::try_from(&event[..]).map(u32::from_be_bytes).expect("one of ours");
            assert!(
                number == self.next || (self.holes && number > self.next),
                "{number} after {}",
                self.next
            );
            self.next = number + 1;
        }
        assert!(self.next <= self.sent);
    }

    fn check(&self) {
        let (waiting, _) = self.session.waiting();
        assert!(waiting <= 2 * MAX_QUEUE + 1, "{waiting}");
        if self.session.end().is_some() {
            assert_eq!(waiting, 0);
        }
    }

    /// Left alone, the session ends, and is never asked to look at the same moment for ever.
    fn end(mut self) {
        for _ in 0..self.requests {
            self.session.end_request(self.now);
        }
        for _ in 0..1000 {
            let Some(at) = self.session.poll_timeout() else {
                // Only a held connect keeps it; its connection breaks.
                let token = self.session.held().expect("something keeps it");
                self.session.drop_connect(self.now, token);
                continue;
            };
            if self.session.end().is_some() {
                return;
            }
            self.now = self.now.max(at);
            self.session.handle_timeout(self.now);
            // Whoever is woken writes.
            let _ = self.session.poll_push(self.now);
            if let Some(token) = self.session.held() {
                let _ = self.session.poll_connect(self.now, token);
            }
        }
        panic!("it does not end");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_fine(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            super::messages(&bytes);
            super::session(&bytes);
        }
    }

    /// What fuzzers found worth keeping, and what once went wrong.
    #[test]
    fn the_corpus_is_fine() {
        for (name, run) in [("messages", super::messages as fn(&[u8])), ("session", super::session)] {
            let folder = format!("{}/../fuzz/corpus/bayeux_{name}", env!("CARGO_MANIFEST_DIR"));
            let files: Vec<_> = std::fs::read_dir(&folder).expect(&folder).flatten().collect();
            assert!(files.len() >= 20, "{folder}");
            for file in files {
                run(&std::fs::read(file.path()).unwrap());
            }
        }
    }
}

//! What all connections have in common.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use broker_core::{Broker, Encoding, LeaveReason, SubscriberKey};
use dashmap::DashMap;
use http_edge::websocket::{Closes, Pings, Terms};

use crate::member::{Close, Member};

/// How often a silent client is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// A client that says nothing for so long, asked twice, is not there.
const DEAD_AFTER: Duration = Duration::from_secs(75);

/// By which rules connections of one route are held.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rules {
    /// What the route is called in logs.
    pub route: String,
    /// Most events of one request. Default 100.
    pub max_events: usize,
    /// Longest message of a client, in bytes; a longer one ends the connection with 1009. Default 1 MiB.
    pub max_message_bytes: usize,
    /// Longest answer of an origin, in bytes. Default 1 MiB.
    pub max_answer_bytes: usize,
    /// What stands before the name of each channel that the origin names.
    pub channel_prefix: String,
    /// Channels that each connection is on from the start, behind that prefix.
    pub subscribe: Vec<String>,
    /// Whether the origin gets pings and pongs of the client, each of which is a request. Pings are answered all the same,
    /// and pongs without content are not passed on, as the broker's own pings have none. Default no.
    pub forward_pings: bool,
    /// How long a client that closes waits for its origin's code; then it gets its own back. Default 5 s: clients give up
    /// after 10 s and more.
    pub close_timeout: Duration,
}

impl Rules {
    /// The defaults, for a route of this name.
    pub fn new(route: impl Into<String>) -> Self {
        Self {
            route: route.into(),
            max_events: grip::exchange::MAX_EVENTS,
            max_message_bytes: 1 << 20,
            max_answer_bytes: 1 << 20,
            channel_prefix: String::new(),
            subscribe: Vec::new(),
            forward_pings: false,
            close_timeout: Duration::from_secs(5),
        }
    }
}

/// What is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections that are open.
    pub open: u64,
    /// Handshakes that the origin has answered with something else.
    pub refused: u64,
    /// Requests that an origin has answered as it should.
    pub answered: u64,
    /// Requests that were tried again, as nobody had read them.
    pub retried: u64,
    /// Requests without an answer, or with one that is none.
    pub failed: u64,
    /// Events of clients that origins were given.
    pub events: u64,
    /// Texts of origins that were for nobody: neither messages nor control.
    pub unsorted: u64,
    /// Messages that filters have kept from a client.
    pub filtered: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) open: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) answered: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) events: AtomicU64,
    pub(crate) unsorted: AtomicU64,
    pub(crate) filtered: AtomicU64,
}

/// All connections of one broker. Clones are handles to the same.
#[derive(Clone)]
pub struct Hub(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) broker: Broker,
    pub(crate) members: DashMap<SubscriberKey, Arc<Member>>,
    /// A message as a frame, plain and compressed.
    pub(crate) encodings: [Encoding; 2],
    /// What there is to know of a message before it is sent.
    pub(crate) traits: Encoding,
    pub(crate) terms: Terms,
    /// The same, where pings are heard of.
    pub(crate) terms_with_pings: Terms,
    pub(crate) counted: Counted,
    pub(crate) is_closing: AtomicBool,
    /// Connections of whose end an origin is still to be told.
    pub(crate) telling: AtomicU64,
}

impl Hub {
    /// Connections of `broker`; unfinished messages count in `intake`.
    pub fn new(broker: Broker, intake: link::Intake) -> Self {
        let mut terms = Terms::default();
        terms.patience.ping_interval = Some(PING_INTERVAL);
        terms.patience.idle_timeout = Some(DEAD_AFTER);
        terms.intake = intake;
        terms.closes = Closes::Told;
        let mut terms_with_pings = terms.clone();
        terms_with_pings.pings = Pings::Told;
        Self(Arc::new(Inner {
            encodings: [broker.register_encoding(), broker.register_encoding()],
            traits: broker.register_encoding(),
            broker,
            members: DashMap::new(),
            terms,
            terms_with_pings,
            counted: Counted::default(),
            is_closing: AtomicBool::new(false),
            telling: AtomicU64::new(0),
        }))
    }

    /// What was counted so far.
    pub fn stats(&self) -> Stats {
        let counted = &self.0.counted;
        Stats {
            open: counted.open.load(Relaxed),
            refused: counted.refused.load(Relaxed),
            answered: counted.answered.load(Relaxed),
            retried: counted.retried.load(Relaxed),
            failed: counted.failed.load(Relaxed),
            events: counted.events.load(Relaxed),
            unsorted: counted.unsorted.load(Relaxed),
            filtered: counted.filtered.load(Relaxed),
        }
    }

    /// Closes all connections with 1012 and lets nobody in any more. Resolves when origins were told of all of them, or
    /// after `window`.
    pub async fn shut_down(&self, window: Duration) {
        const STEP: Duration = Duration::from_millis(10);
        self.0.is_closing.store(true, Relaxed);
        let until = Instant::now() + window;
        let all: Vec<_> = self.0.members.iter().map(|member| Arc::clone(&member)).collect();
        for member in all {
            member.close_with(Close::restart());
        }
        let is_quiet = || self.0.members.is_empty() && self.0.telling.load(Relaxed) == 0;
        while !is_quiet() && Instant::now() < until {
            tokio::time::sleep(STEP).await;
        }
    }
}

impl Close {
    /// The server stops, and comes back.
    pub(crate) fn restart() -> Self {
        Self::new(Some(1012), "the server restarts", LeaveReason::Shutdown)
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("connections", &self.0.members.len()).finish_non_exhaustive()
    }
}

//! All clients that are held.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use broker_core::{Broker, LeaveReason, SubscriberKey};
use dashmap::DashMap;
use front::Metric;
use grip::instruct::Hold;
use tokio::time::{Instant, sleep, sleep_until};

use super::form::Slots;
use super::held::Held;
use super::links::Links;
use crate::desk::Desk;

/// All of them. Clones are handles to the same.
#[derive(Clone)]
pub(crate) struct Holds(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) broker: Broker,
    /// Who knows the ids of channels.
    pub(crate) desk: Arc<Desk>,
    pub(crate) members: DashMap<SubscriberKey, Weak<Held>>,
    /// Made with the first hold: what nobody uses shall cost messages nothing.
    slots: OnceLock<Slots>,
    responses: AtomicU64,
    streams: AtomicU64,
    pub(crate) links: Links,
    pub(crate) gaps: Gaps,
    pub(crate) filtered: Filtered,
}

/// By what gaps were filled.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    /// The log had what was missing.
    pub(crate) log: AtomicU64,
    /// The next link was asked for it.
    pub(crate) link: AtomicU64,
    /// Nothing: the client was let go, to come back.
    pub(crate) closed: AtomicU64,
}

/// Why messages did not reach clients.
#[derive(Debug, Default)]
pub(crate) struct Filtered {
    by: [AtomicU64; REASONS.len()],
}

/// Reasons, for a metric.
pub(crate) const REASONS: [&str; 9] = [
    "skip-self",
    "skip-users",
    "require-sub",
    "http-check",
    "http-modify",
    "error",
    "content",
    "patch",
    "overflow",
];

impl Filtered {
    pub(crate) fn count(&self, reason: &str) {
        let at = REASONS.iter().position(|known| *known == reason).unwrap_or(5);
        if let Some(counter) = self.by.get(at) {
            counter.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.into_iter().zip(&self.by).map(|(reason, counter)| (reason, counter.load(Relaxed)))
    }
}

impl Inner {
    pub(crate) fn slots(&self) -> Slots {
        let broker = &self.broker;
        *self.slots.get_or_init(|| Slots {
            traits: broker.register_encoding(),
            forms: std::array::from_fn(|_| broker.register_encoding()),
        })
    }

    pub(crate) fn gauge(&self, mode: Hold) -> &AtomicU64 {
        match mode {
            Hold::Response => &self.responses,
            Hold::Stream => &self.streams,
        }
    }
}

impl Holds {
    pub(crate) fn new(broker: Broker, desk: Arc<Desk>) -> Self {
        Self(Arc::new(Inner {
            broker,
            desk,
            members: DashMap::new(),
            slots: OnceLock::new(),
            responses: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            links: Links::default(),
            gaps: Gaps::default(),
            filtered: Filtered::default(),
        }))
    }

    /// Has the links of all streams asked, a few at a time.
    pub(crate) async fn recover(&self) {
        const AT_A_TIME: usize = 100;
        const PAUSE: Duration = Duration::from_millis(100);
        let all: Vec<_> = self.0.members.iter().map(|member| Weak::clone(&member)).collect();
        for some in all.chunks(AT_A_TIME) {
            for held in some.iter().filter_map(Weak::upgrade) {
                held.want_link();
            }
            sleep(PAUSE).await;
        }
    }

    /// Lets all go, evenly across `window`.
    pub(crate) async fn shut_down(&self, window: Duration) {
        const STEP: Duration = Duration::from_millis(20);
        let all: Vec<_> = self.0.members.iter().filter_map(|member| member.upgrade()).collect();
        let started = Instant::now();
        let count = all.len();
        for (at, held) in all.into_iter().enumerate() {
            let due = started + window.mul_f64(at as f64 / count as f64);
            // Many are due within one tick of the timer.
            if due > Instant::now() + STEP {
                sleep_until(due).await;
            }
            held.end(LeaveReason::Shutdown);
        }
        while !self.0.members.is_empty() && started.elapsed() < window {
            sleep(STEP).await;
        }
    }
}

impl Holds {
    /// What is counted of them.
    pub(crate) fn collect(&self, out: &mut Vec<Metric>) {
        let number = |counter: &AtomicU64| counter.load(Relaxed);
        let inner = &self.0;
        for (mode, gauge) in [("response", &inner.responses), ("stream", &inner.streams)] {
            let about = "Clients of HTTP that are held as origins say";
            out.push(Metric::gauge("grip_holds", about, number(gauge)).with("mode", mode));
        }
        let gaps = &inner.gaps;
        for (served, counter) in [("log", &gaps.log), ("link", &gaps.link), ("closed", &gaps.closed)] {
            let about = "Holds that began with something missing, and by what they got it";
            out.push(Metric::counter("grip_gaps", about, number(counter)).with("served", served));
        }
        let links = &inner.links.counted;
        for (outcome, counter) in [
            ("answered", &links.answered),
            ("shared", &links.shared),
            ("retried", &links.retried),
            ("failed", &links.failed),
        ] {
            let about = "Requests to next links of streams";
            out.push(Metric::counter("grip_links", about, number(counter)).with("outcome", outcome));
        }
        for (reason, number) in inner.filtered.each() {
            let about = "Messages that clients of HTTP which are held did not get";
            out.push(Metric::counter("grip_filtered", about, number).with("reason", reason));
        }
    }
}

impl fmt::Debug for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holds").field("open", &self.0.members.len()).finish_non_exhaustive()
    }
}

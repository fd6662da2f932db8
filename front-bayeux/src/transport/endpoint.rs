//! What requests and connections work with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use broker_core::Outbox;
use dashmap::DashMap;
use http_edge::websocket::Terms;
use websocket::Patience;

use crate::config::{Config, WebSocketConfig};
use crate::dispatch::Dispatch;
use crate::sessions::Sessions;
use crate::stats::Counters;

/// See the module.
pub(crate) struct Endpoint {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) dispatch: Dispatch,
    pub(crate) sockets: Sockets,
    /// What all WebSockets have in common.
    pub(super) terms: Terms,
}

/// The open WebSockets, with a session or without.
#[derive(Default)]
pub(crate) struct Sockets {
    opened: AtomicU64,
    outboxes: DashMap<u64, Arc<Outbox>>,
}

impl Endpoint {
    pub(crate) fn new(sessions: Arc<Sessions>, dispatch: Dispatch) -> Self {
        let config = sessions.config();
        let WebSocketConfig { ping_interval, idle_timeout, .. } = config.websocket;
        let mut patience = Patience::default();
        patience.ping_interval = ping_interval;
        patience.idle_timeout = Some(idle_timeout);
        let mut terms = Terms::default();
        terms.patience = patience;
        terms.intake = config.intake.clone();
        Self { sessions, dispatch, sockets: Sockets::default(), terms }
    }

    pub(crate) fn config(&self) -> &Config {
        self.sessions.config()
    }

    pub(crate) fn counters(&self) -> &Counters {
        self.sessions.counters()
    }
}

impl Sockets {
    /// A number that no other socket of the front has.
    pub(super) fn number(&self) -> u64 {
        self.opened.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn insert(&self, number: u64, outbox: Arc<Outbox>) {
        self.outboxes.insert(number, outbox);
    }

    pub(super) fn remove(&self, number: u64) {
        self.outboxes.remove(&number);
    }

    /// Wakes the tasks of all.
    pub(crate) fn notify_all(&self) {
        // Copied out, so that no shard is locked while tasks are woken.
        let outboxes: Vec<Arc<Outbox>> = self.outboxes.iter().map(|outbox| Arc::clone(&outbox)).collect();
        for outbox in outboxes {
            outbox.notify();
        }
    }
}

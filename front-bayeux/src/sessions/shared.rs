//! What every session of a front works with.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use broker_core::Broker;
use parking_lot::RwLock;

use super::encodings::Encodings;
use crate::config::Config;
use crate::hooks::listener::Listener;
use crate::protocol::Options;
use crate::stats::Counters;

/// See the module.
pub(crate) struct Shared {
    pub(crate) config: Config,
    /// The state machines' part of the configuration.
    pub(crate) options: Arc<Options>,
    pub(crate) encodings: Encodings,
    pub(crate) counters: Counters,
    started: Instant,
    /// Calls to services that wait for their handlers.
    pub(crate) service_calls: AtomicUsize,
    listener: RwLock<Option<Arc<dyn Listener>>>,
}

impl Shared {
    pub(super) fn new(broker: &Broker, config: Config) -> Self {
        Self {
            options: Arc::new(Options::new(&config)),
            encodings: Encodings::register(broker),
            counters: Counters::default(),
            started: Instant::now(),
            service_calls: AtomicUsize::new(0),
            listener: RwLock::default(),
            config,
        }
    }

    /// The listener, copied out so that no lock is held while it runs.
    pub(crate) fn listener(&self) -> Option<Arc<dyn Listener>> {
        self.listener.read().clone()
    }

    /// It replaces the one before; whether it is the first.
    pub(super) fn set_listener(&self, listener: impl Listener) -> bool {
        self.listener.write().replace(Arc::new(listener)).is_none()
    }

    pub(crate) fn tell(&self, what: impl FnOnce(&dyn Listener)) {
        if let Some(listener) = self.listener() {
            what(&*listener);
        }
    }

    /// For how long there has been a front.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// An instant in milliseconds since the front's start.
    pub(super) fn millis(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

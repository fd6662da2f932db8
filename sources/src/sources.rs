//! All sources of a broker.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use broker_core::{Broker, Interest, Lifecycle, SubscriberKey};
use gateway::address::{Addresses, Denied};
use parking_lot::RwLock;
use tokio::task::AbortHandle;

use crate::ask::Clients;
use crate::keep::keep;
use crate::request::Requests;
use crate::settings::{Goal, Settings};
use crate::source::{Source, Upstream};
use crate::state::State;

/// Most sources of a broker.
const MAX_SOURCES: usize = 10_000;

/// Which sources there are, and which addresses those that are put later may be at.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Config {
    /// Those of the configuration, whose URLs are trusted.
    pub sources: Vec<Settings>,
    /// Where URLs of others may lead.
    pub addresses: Addresses,
}

/// Why a source is not put.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// Its address may not be connected to.
    #[error("{0}")]
    Address(Denied),
    /// There are as many as may be.
    #[error("{MAX_SOURCES} sources are the most")]
    TooMany,
}

/// The sources of a broker, and its single requests. A clone is the same.
#[derive(Clone, Debug)]
pub struct Sources(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    broker: Broker,
    clients: Clients,
    addresses: Addresses,
    list: RwLock<BTreeMap<String, Kept>>,
    requests: Requests,
}

#[derive(Debug)]
struct Kept {
    source: Arc<Source>,
    task: AbortHandle,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Hears who subscribes: a newcomer finds the whole, not what has changed since.
#[derive(Debug)]
struct Newcomers(Weak<Inner>);

impl Lifecycle for Newcomers {
    fn subscribed(&self, _: SubscriberKey, subscription: Interest<'_>) {
        let Some(inner) = self.0.upgrade() else { return };
        for kept in inner.list.read().values() {
            let settings = kept.source.settings();
            if let Goal::Channel(channel) = &settings.goal
                && settings.diff
                && subscription.filter.matches(channel)
            {
                kept.source.note_newcomer();
            }
        }
    }
}

impl Sources {
    /// Those of a configuration. They begin when this is called within a runtime of tokio, and end with the broker.
    pub fn start(broker: &Broker, config: Config) -> Self {
        let clients = Clients::new(config.addresses.clone());
        let sources = Self(Arc::new(Inner {
            requests: Requests::new(broker.clone(), clients.clone()),
            broker: broker.clone(),
            clients,
            addresses: config.addresses,
            list: RwLock::default(),
        }));
        broker.hear(Arc::new(Newcomers(Arc::downgrade(&sources.0))));
        for settings in config.sources {
            sources.keep(settings, true);
        }
        sources
    }

    /// Puts one, in the place of another of the same id. Whether it is a new one.
    ///
    /// # Errors
    /// See [`PutError`]: what is there stays.
    pub fn put(&self, settings: Settings) -> Result<bool, PutError> {
        self.0.addresses.judge_url(&settings.url).map_err(PutError::Address)?;
        let is_new = {
            let list = self.0.list.read();
            let is_new = !list.contains_key(&settings.id);
            if is_new && list.len() >= MAX_SOURCES {
                return Err(PutError::TooMany);
            }
            is_new
        };
        self.keep(settings, false);
        Ok(is_new)
    }

    fn keep(&self, settings: Settings, is_trusted: bool) {
        let id = settings.id.clone();
        let source = Arc::new(Source::new(settings, is_trusted));
        let (broker, clients) = (self.0.broker.clone(), self.0.clients.clone());
        let task = tokio::spawn(keep(Arc::clone(&source), broker, clients)).abort_handle();
        self.0.list.write().insert(id, Kept { source, task });
    }

    /// Takes one away. False if there is none.
    pub fn remove(&self, id: &str) -> bool {
        self.0.list.write().remove(id).is_some()
    }

    /// How one is; `None` if there is none.
    pub fn state_of(&self, id: &str) -> Option<State> {
        self.find(id).map(|source| source.state())
    }

    /// Lets one rest. False if there is none.
    pub fn pause(&self, id: &str) -> bool {
        self.find(id).map(|source| source.pause()).is_some()
    }

    /// Has one go on, also where it was left alone. False if there is none.
    pub fn resume(&self, id: &str) -> bool {
        self.find(id).map(|source| source.resume()).is_some()
    }

    /// Sends a message to a WebSocket. False if it is none that is open, or if as many wait for it as may.
    pub fn send(&self, id: &str, message: Upstream) -> bool {
        let upstream = self.find(id).and_then(|source| source.upstream());
        upstream.is_some_and(|upstream| upstream.try_send(message).is_ok())
    }

    /// All of them end.
    pub fn stop(&self) {
        self.0.list.write().clear();
    }

    pub(crate) fn find(&self, id: &str) -> Option<Arc<Source>> {
        self.0.list.read().get(id).map(|kept| Arc::clone(&kept.source))
    }

    pub(crate) fn list(&self) -> Vec<Arc<Source>> {
        self.0.list.read().values().map(|kept| Arc::clone(&kept.source)).collect()
    }

    pub(crate) fn requests(&self) -> &Requests {
        &self.0.requests
    }
}

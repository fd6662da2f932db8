//! All sources of a broker.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use broker_core::{Broker, Interest, Lifecycle, SubscriberKey, Unavailable};
use gateway::address::{Addresses, Denied};
use gateway::register::Register;
use gateway::webhook::Webhooks;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;

use crate::ask::Clients;
use crate::keep::keep;
use crate::positions::Positions;
use crate::request::Requests;
use crate::settings::{Goal, Settings, Written, Wrong};
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
    /// Who is told of their states (the event `source`). Default nobody.
    pub webhooks: Option<Webhooks>,
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
    /// Something that is said about it cannot be meant.
    #[error(transparent)]
    Wrong(#[from] Wrong),
}

/// The sources of a broker, and its single requests. A clone is the same.
#[derive(Clone, Debug)]
pub struct Sources(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    broker: Broker,
    clients: Clients,
    addresses: Addresses,
    webhooks: Option<Webhooks>,
    list: RwLock<BTreeMap<String, Kept>>,
    /// What the configuration says, whatever became of it.
    of_file: Mutex<BTreeMap<String, Settings>>,
    /// Those that were put over HTTP.
    register: Register,
    positions: Arc<Positions>,
    requests: Requests,
}

#[derive(Debug)]
struct Kept {
    source: Arc<Source>,
    task: AbortHandle,
    /// As it was put, if it is to be there after a restart.
    written: Option<Written>,
}

/// Where a source comes from.
enum Origin {
    /// The configuration: its URL is trusted.
    File,
    /// It was put; with what was said, if it is to be there after a restart.
    Put(Option<Written>),
    /// It is kept from an earlier life, and was paused.
    Resting(Written),
}

/// What somebody wants of a source.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Rest,
    GoOn,
}

/// A source in the register.
#[derive(Serialize, Deserialize)]
struct Noted {
    source: Written,
    is_paused: bool,
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
    /// Those of a configuration, and those that an earlier life of the broker's engine has [kept](Self::put_to_stay). They
    /// begin when this is called within a runtime of tokio, and end with the broker.
    pub fn start(broker: &Broker, config: Config) -> Self {
        let clients = Clients::new(config.addresses.clone());
        let (register, kept) = Register::open::<Noted>(broker, "sources");
        let sources = Self(Arc::new(Inner {
            requests: Requests::new(broker.clone(), clients.clone()),
            broker: broker.clone(),
            clients,
            addresses: config.addresses,
            webhooks: config.webhooks,
            list: RwLock::default(),
            of_file: Mutex::default(),
            register,
            positions: Arc::new(Positions::open(broker)),
        }));
        broker.hear(Arc::new(Newcomers(Arc::downgrade(&sources.0))));
        sources.set(config.sources);
        for Noted { source, is_paused } in kept {
            let origin =
                if is_paused { Origin::Resting(source.clone()) } else { Origin::Put(Some(source.clone())) };
            match source.settings() {
                Ok(settings) => sources.keep(settings, origin),
                Err(error) => {
                    tracing::warn!(source = source.id(), %error, "a source that was put over HTTP is left out");
                }
            }
        }
        sources
    }

    /// The configuration says this from now on. What it has said before goes on, or stays deleted; what is changed begins
    /// anew, what is left out ends, and one that was put in the place of one of it stays.
    pub fn set(&self, of_file: Vec<Settings>) {
        // Nobody puts or deletes one meanwhile.
        let _entries = self.0.register.entries();
        let now: BTreeMap<_, _> =
            of_file.into_iter().map(|settings| (settings.id.clone(), settings)).collect();
        let before = std::mem::replace(&mut *self.0.of_file.lock(), now.clone());
        let is_of_file = |id: &str| self.find(id).is_none_or(|source| source.is_trusted);
        for id in before.keys().filter(|id| !now.contains_key(*id) && is_of_file(id)) {
            self.0.list.write().remove(id);
        }
        for (id, settings) in now {
            if before.get(&id) != Some(&settings) && is_of_file(&id) {
                self.keep(settings, Origin::File);
            }
        }
    }

    /// Puts one, in the place of another of the same id. Whether it is a new one. It ends with the broker.
    ///
    /// # Errors
    /// See [`PutError`]: what is there stays.
    pub fn put(&self, settings: Settings) -> Result<bool, PutError> {
        let mut entries = self.0.register.entries();
        let is_new = self.judge(&settings)?;
        entries.remove(&settings.id);
        self.keep(settings, Origin::Put(None));
        Ok(is_new)
    }

    /// As [`put`](Self::put), and where the broker has an engine it is there again when that is opened the next time, secrets
    /// included: see [`kept`](Self::kept). Paused it stays paused.
    ///
    /// # Errors
    /// See [`PutError`]: what is there stays.
    pub fn put_to_stay(&self, written: &Written) -> Result<bool, PutError> {
        let settings = written.settings()?;
        let mut entries = self.0.register.entries();
        let is_new = self.judge(&settings)?;
        self.keep(settings, Origin::Put(Some(written.clone())));
        entries.put(written.id(), &Noted { source: written.clone(), is_paused: false });
        Ok(is_new)
    }

    /// Resolves once what was put to stay, taken away, paused and resumed, outlives a crash; at once where nothing does.
    ///
    /// # Errors
    /// The engine takes nothing now. It is tried again all the same.
    pub async fn kept(&self) -> Result<(), Unavailable> {
        self.0.register.settled().await
    }

    /// Whether it would be a new one.
    fn judge(&self, settings: &Settings) -> Result<bool, PutError> {
        self.0.addresses.judge_url(&settings.url).map_err(PutError::Address)?;
        let list = self.0.list.read();
        let is_new = !list.contains_key(&settings.id);
        if is_new && list.len() >= MAX_SOURCES { Err(PutError::TooMany) } else { Ok(is_new) }
    }

    fn keep(&self, settings: Settings, origin: Origin) {
        let id = settings.id.clone();
        let source = Arc::new(Source::new(settings, matches!(origin, Origin::File), self.0.webhooks.clone()));
        let written = match origin {
            Origin::File => None,
            Origin::Put(written) => written,
            Origin::Resting(written) => {
                source.pause();
                Some(written)
            }
        };
        let (broker, clients) = (self.0.broker.clone(), self.0.clients.clone());
        let positions = Arc::clone(&self.0.positions);
        let task = tokio::spawn(keep(Arc::clone(&source), broker, clients, positions)).abort_handle();
        self.0.list.write().insert(id, Kept { source, task, written });
    }

    /// Takes one away. False if there is none.
    pub fn remove(&self, id: &str) -> bool {
        let mut entries = self.0.register.entries();
        let is_there = self.0.list.write().remove(id).is_some();
        if is_there {
            entries.remove(id);
            self.0.positions.forget(id);
        }
        is_there
    }

    /// How one is; `None` if there is none.
    pub fn state_of(&self, id: &str) -> Option<State> {
        self.find(id).map(|source| source.state())
    }

    /// Lets one rest. False if there is none.
    pub fn pause(&self, id: &str) -> bool {
        self.wish(id, Wish::Rest)
    }

    /// Has one go on, also where it was left alone. False if there is none.
    pub fn resume(&self, id: &str) -> bool {
        self.wish(id, Wish::GoOn)
    }

    pub(crate) fn wish(&self, id: &str, wish: Wish) -> bool {
        let mut entries = self.0.register.entries();
        let list = self.0.list.read();
        let Some(kept) = list.get(id) else { return false };
        match wish {
            Wish::Rest => kept.source.pause(),
            Wish::GoOn => kept.source.resume(),
        }
        if let Some(written) = &kept.written {
            entries.put(id, &Noted { source: written.clone(), is_paused: wish == Wish::Rest });
        }
        true
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

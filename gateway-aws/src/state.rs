//! What all connections of the front have in common.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use broker_core::{Authenticator, Broker, Encoding, SubscriberKey};
use dashmap::DashMap;
use gateway::client::Caller;
use gateway::dead::Owner;
use http_edge::websocket::Terms;

use crate::api::ApiState;
use crate::config::Config;
use crate::ending::Ends;
use crate::member::Member;

/// How often a silent client is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// A client that says nothing for so long, asked twice, is not there.
const DEAD_AFTER: Duration = Duration::from_secs(75);

pub(crate) struct Shared {
    pub(crate) broker: Broker,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) config: Config,
    pub(crate) apis: Vec<Arc<ApiState>>,
    /// Connections by their id, from the moment on in which functions hear of it.
    pub(crate) members: DashMap<SubscriberKey, Arc<Member>>,
    /// A message as a frame, plain and compressed.
    pub(crate) encodings: [Encoding; 2],
    /// What all WebSockets have in common.
    pub(crate) terms: Terms,
    pub(crate) is_closing: AtomicBool,
    /// Connections of which something is still to be told.
    pub(crate) telling: AtomicU64,
    /// The APIs as whose events may be dead: they are known for as long as these are here.
    _ends: Vec<Arc<dyn Owner>>,
}

impl Shared {
    pub(crate) fn new(broker: Broker, authenticator: Arc<dyn Authenticator>, config: Config) -> Self {
        // What stands in the configuration may lead anywhere.
        let caller = Caller::new(None);
        let mut terms = Terms::default();
        terms.patience.ping_interval = Some(PING_INTERVAL);
        terms.patience.idle_timeout = Some(DEAD_AFTER);
        terms.intake = config.intake.clone();
        let apis: Vec<_> =
            config.apis.iter().map(|api| Arc::new(ApiState::new(api.clone(), &caller, &broker))).collect();
        let ends = apis.iter().map(|state| {
            let owner = Arc::new(Ends { state: Arc::clone(state), broker: broker.clone() }) as Arc<dyn Owner>;
            config.dead.enter(&owner);
            owner
        });
        Self {
            _ends: ends.collect(),
            encodings: [broker.register_encoding(), broker.register_encoding()],
            broker,
            authenticator,
            config,
            apis,
            members: DashMap::new(),
            terms,
            is_closing: AtomicBool::new(false),
            telling: AtomicU64::new(0),
        }
    }

    /// All connections; copied out, so that no shard is locked while something is done with them.
    pub(crate) fn all(&self) -> Vec<Arc<Member>> {
        self.members.iter().map(|member| Arc::clone(&member)).collect()
    }

    /// Whether nobody is here and nothing is to be told.
    pub(crate) fn is_quiet(&self) -> bool {
        self.members.is_empty() && self.telling.load(Relaxed) == 0
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("connections", &self.members.len()).finish_non_exhaustive()
    }
}

//! One API at work: whom it calls, and what is counted of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::client::Target;
use crate::config::{Api, Authorizer, Config};
use crate::policy::Grant;

/// Most answers of an authorizer that are kept.
const MAX_CACHED: usize = 10_000;

/// One API at work.
pub(crate) struct ApiState {
    pub(crate) api: Api,
    pub(crate) integrations: BTreeMap<String, Arc<Target>>,
    pub(crate) authorizers: BTreeMap<String, (Arc<Target>, Cache)>,
    /// Ends of connections that are told at a time: live traffic goes first.
    pub(crate) ends: Semaphore,
    pub(crate) connections: AtomicU64,
    /// Messages that wait for those before them.
    pub(crate) queued: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Ends of connections that nobody could be told.
    pub(crate) dead: AtomicU64,
}

/// Answers of an authorizer that are kept, by all that the client said of its identity.
#[derive(Default)]
pub(crate) struct Cache(Mutex<HashMap<Vec<String>, Kept>>);

/// Until when, and what was answered.
type Kept = (Instant, Arc<Grant>);

impl Cache {
    pub(crate) fn find(&self, identity: &[String], now: Instant) -> Option<Arc<Grant>> {
        let kept = self.0.lock();
        kept.get(identity).filter(|(until, _)| *until > now).map(|(_, grant)| Arc::clone(grant))
    }

    pub(crate) fn keep(
        &self,
        identity: Vec<String>,
        grant: &Arc<Grant>,
        now: Instant,
        authorizer: &Authorizer,
    ) {
        let mut kept = self.0.lock();
        if kept.len() >= MAX_CACHED && !kept.contains_key(&identity) {
            kept.retain(|_, (until, _)| *until > now);
        }
        // Full of answers that still count: the next one is asked for again.
        if kept.len() < MAX_CACHED || kept.contains_key(&identity) {
            kept.insert(identity, (now + authorizer.cache, Arc::clone(grant)));
        }
    }
}

impl ApiState {
    pub(crate) fn new(api: Api, client: &outgoing::Client) -> Self {
        let turns = Arc::new(Semaphore::new(api.max_in_flight));
        let target = |url: &http::Uri, timeout| {
            Arc::new(Target::new(client.clone(), url.clone(), timeout, api.breaker, Arc::clone(&turns)))
        };
        let integrations = api
            .integrations
            .iter()
            .map(|(name, one)| (name.clone(), target(&one.url, one.timeout)))
            .collect();
        let authorizers = api
            .authorizers
            .iter()
            .map(|(name, one)| (name.clone(), (target(&one.url, one.timeout), Cache::default())))
            .collect();
        let ends = Semaphore::new((api.max_in_flight / 4).max(1));
        Self {
            integrations,
            authorizers,
            ends,
            api,
            connections: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            dead: AtomicU64::new(0),
        }
    }

    /// What authorizers are asked about.
    pub(crate) fn arn(&self, config: &Config) -> String {
        let Config { region, account, .. } = config;
        format!("arn:aws:execute-api:{region}:{account}:{}/{}/$connect", self.api.name, self.api.stage)
    }
}

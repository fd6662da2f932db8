//! One API at work: whom it calls, and what is counted of it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use broker_core::Broker;
use gateway::client::Caller;
use gateway::dead::DeadLetters;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::answer::{Failure, Reply};
use crate::client::Target;
use crate::config::{Api, Authorizer, Config, Kind};
use crate::pace::Pace;
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
    /// How fast they are told.
    pub(crate) pace: Pace,
    pub(crate) connections: AtomicU64,
    /// Messages that wait for those before them.
    pub(crate) queued: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Ends of connections that nobody could be told.
    pub(crate) dead: AtomicU64,
    pub(crate) dead_letters: DeadLetters,
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

    /// Forgets what was said of somebody.
    pub(crate) fn forget(&self, principal_id: &str) {
        self.0.lock().retain(|_, (_, grant)| grant.principal_id != principal_id);
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

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState").field("name", &self.api.name).finish_non_exhaustive()
    }
}

impl ApiState {
    pub(crate) fn new(api: Api, caller: &Caller, broker: &Broker) -> Self {
        let turns = Arc::new(Semaphore::new(api.max_in_flight));
        let target = |url: &http::Uri, timeout, is_lambda: bool| {
            let target = Target::new(caller.clone(), url.clone(), timeout, api.breaker, Arc::clone(&turns));
            Arc::new(target.signed(api.sign.clone().filter(|_| is_lambda)))
        };
        let integrations = api
            .integrations
            .iter()
            .map(|(name, one)| {
                let is_lambda = matches!(one.kind, Kind::Lambda);
                (name.clone(), target(&one.url, one.timeout, is_lambda))
            })
            .collect();
        let authorizers = api
            .authorizers
            .iter()
            .map(|(name, one)| (name.clone(), (target(&one.url, one.timeout, true), Cache::default())))
            .collect();
        let ends = Semaphore::new((api.max_in_flight / 4).max(1));
        Self {
            integrations,
            authorizers,
            ends,
            pace: Pace::new(),
            dead_letters: DeadLetters::of(broker, &format!("aws:{}", api.name)),
            api,
            connections: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            dead: AtomicU64::new(0),
        }
    }

    /// Logs a call of a function: what it was about, and what came of it.
    pub(crate) fn log_call(
        &self,
        connection: &str,
        request: &str,
        route: &str,
        outcome: &Result<Reply, Failure>,
        took: Duration,
    ) {
        let (gateway, route) = (&self.api.name, front::shortened(route));
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        match outcome {
            Ok(reply) => tracing::info!(
                target: "fanwire::gateway", gateway, connection, request, route, status = reply.status,
                millis, "a function was called"
            ),
            Err(failure) => tracing::warn!(
                target: "fanwire::gateway", gateway, connection, request, route,
                outcome = failure.name(), error = %failure, millis, "a function was called in vain"
            ),
        }
    }

    /// What authorizers are asked about.
    pub(crate) fn arn(&self, config: &Config) -> String {
        let Config { region, account, .. } = config;
        format!("arn:aws:execute-api:{region}:{account}:{}/{}/$connect", self.api.name, self.api.stage)
    }
}

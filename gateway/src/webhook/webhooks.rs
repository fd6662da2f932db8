//! All webhooks of a broker: who is asked, and who is told.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use broker_core::{
    Authenticator, Broker, Client, Lifecycle, Policy, Principal, SubscriberKey, Unavailable, unix_ms,
};
use front::{Metric, MetricSource};
use http_edge::connection_id;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::asked::{Asked, Doorman};
use super::event::{Kind, Members, Told, event};
use super::hook::Hook;
use super::listening::known_of;
use super::messages;
use super::nodes::InCluster;
use super::occupancy::Occupancy;
use super::settings::{Settings, Written, Wrong};
use super::visit::{Known, Visit};
use crate::address::{Addresses, Denied as Denial};
use crate::client::Caller;
use crate::dead::{Graveyard, Owner};
use crate::kept::Kept;
use crate::register::Register;
use crate::rules::Rule;

/// Most webhooks at a time, for those that do not stand in the configuration.
const MAX_HOOKS: usize = 1_000;

/// How long the last of what is to outlive the server may take to be written.
const LAST_NOTES: Duration = Duration::from_secs(2);

/// Why a webhook is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// It is certain that its URL may not be connected to.
    #[error(transparent)]
    Address(#[from] Denial),
    /// There are 1,000 already.
    #[error("there are {MAX_HOOKS} webhooks, and no more are taken")]
    TooMany,
    /// Something that is said about it cannot be meant.
    #[error(transparent)]
    Wrong(#[from] Wrong),
}

/// What is configured of all this.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Gateway {
    /// The webhooks of the configuration.
    pub webhooks: Vec<Settings>,
    /// Functions that get the messages of filters.
    pub rules: Vec<crate::rules::Settings>,
    /// Which addresses may be connected to for URLs that come from elsewhere.
    pub addresses: Addresses,
    /// Who has dead letters besides these.
    pub dead: Graveyard,
}

/// All webhooks of a broker. A clone is a handle to the same.
#[derive(Clone)]
pub struct Webhooks(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) broker: Broker,
    hooks: RwLock<Arc<[Arc<Hook>]>>,
    /// What the configuration says.
    of_file: Mutex<Vec<Settings>>,
    /// Those that were put over HTTP.
    register: Register,
    rules: Vec<Arc<Rule>>,
    /// Whoever else has dead letters.
    dead: Graveyard,
    /// Calls whatever the configuration names, and what comes from elsewhere as `addresses` permit.
    trusted: Caller,
    judged: Caller,
    addresses: Addresses,
    /// Who is asked before.
    pub(super) policy: Option<Arc<dyn Policy>>,
    /// Whether the broker tells of its clients.
    listens: AtomicBool,
    /// Whether somebody decides about connections.
    pub(super) decides: AtomicBool,
    pub(super) visits: Mutex<HashMap<SubscriberKey, Arc<Visit>>>,
    pub(super) occupancy: Mutex<Occupancy>,
    pub(super) occupancy_changed: Notify,
    /// What other nodes have, if there are any.
    pub(super) cluster: OnceLock<InCluster>,
}

impl Webhooks {
    /// Starts those that are configured, and those that an earlier life of the broker's engine has
    /// [kept](Self::put_to_stay), on the current tokio runtime: they are told that the broker has started, and of
    /// all that it does from now on. They decide after `policy`, as the policy of the broker; about connections, those
    /// ask that were given [`Webhooks::authenticator`]. Without a webhook nothing of this happens.
    pub fn start(broker: &Broker, gateway: &Gateway, policy: Option<Arc<dyn Policy>>) -> Self {
        // What stands in the configuration may lead anywhere.
        let trusted = Caller::new(None);
        let rule = |settings: &crate::rules::Settings| {
            Arc::new(Rule::start(settings.clone(), trusted.clone(), broker))
        };
        let rules = gateway.rules.iter().map(rule).collect();
        let (register, kept) = Register::open::<Written>(broker, "webhooks");
        let inner = Arc::new(Inner {
            broker: broker.clone(),
            hooks: RwLock::new(Arc::new([])),
            of_file: Mutex::new(gateway.webhooks.clone()),
            register,
            trusted,
            judged: Caller::new(Some(gateway.addresses.clone())),
            addresses: gateway.addresses.clone(),
            rules,
            dead: gateway.dead.clone(),
            decides: AtomicBool::new(policy.is_some()),
            listens: AtomicBool::new(false),
            policy,
            visits: Mutex::default(),
            occupancy: Mutex::default(),
            occupancy_changed: Notify::new(),
            cluster: OnceLock::new(),
        });
        if inner.policy.is_some() {
            inner.decide();
        }
        for settings in &gateway.webhooks {
            inner.enter(settings.clone(), &inner.trusted);
        }
        inner.enter_again(&kept);
        let epoch = broker.head().to_string();
        let epoch = epoch.rsplit_once('-').map_or(&*epoch, |(epoch, _)| epoch);
        let told = event(Kind::Started, unix_ms(), |data| {
            data.text("epoch", epoch);
        });
        inner.notify(Kind::Started, "broker", &told, |_| true);
        Self(inner)
    }

    /// Who says as whom clients come: `authenticator`, and then the webhooks, once there is one.
    pub fn authenticator(&self, authenticator: Arc<dyn Authenticator>) -> Arc<dyn Authenticator> {
        Arc::new(Doorman { authenticator, asked: Asked(Arc::clone(&self.0)) })
    }

    /// The configuration says this from now on. A webhook of which it says what it said before goes on; one of which it says
    /// something else gets what waits for it, and what is asked and sent already ends as it is; one that it leaves out is
    /// gone, with what waits for it. One that was put in the place of one of it stays, and so does its deletion until
    /// something else is said of it.
    pub fn set(&self, of_file: Vec<Settings>) {
        // Nobody puts or deletes one meanwhile.
        let entries = self.0.register.entries();
        let before = std::mem::replace(&mut *self.0.of_file.lock(), of_file.clone());
        let of_before = |id: &str| before.iter().find(|settings| settings.id == id);
        let is_put = |id: &str| {
            let known = self.0.hooks().iter().find(|hook| hook.settings().id == id).cloned();
            known.is_some_and(|hook| of_before(id) != Some(hook.settings()))
        };
        let left_out = |id: &str| of_file.iter().all(|settings| settings.id != id);
        for id in before.iter().map(|settings| &settings.id).filter(|id| left_out(id) && !is_put(id)) {
            if let Some(gone) = self.0.take(id) {
                tokio::spawn(async move { gone.kept().clear().await });
            }
        }
        for settings in &of_file {
            if of_before(&settings.id) != Some(settings) && !is_put(&settings.id) {
                self.0.enter(settings.clone(), &self.0.trusted);
            }
        }
        // The first that names an event decides it: those of the configuration in its order, then the others.
        let mut hooks = self.0.hooks.write();
        let mut list = hooks.to_vec();
        let place = |hook: &Arc<Hook>| of_file.iter().position(|settings| settings.id == hook.settings().id);
        list.sort_by_key(|hook| place(hook).unwrap_or(usize::MAX));
        *hooks = list.into();
        drop((hooks, entries));
    }

    /// Adds a webhook that does not stand in the configuration, or saves one anew: then what waited for it goes on, and a
    /// backend that wanted nothing more is told again. Whether it is a new one. It ends with the broker.
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn put(&self, settings: Settings) -> Result<bool, PutError> {
        let mut entries = self.0.register.entries();
        let (id, is_new) = (settings.id.clone(), self.0.put(settings)?);
        entries.remove(&id);
        Ok(is_new)
    }

    /// As [`put`](Self::put), and where the broker has an engine it is there again when that is opened the next time, secrets
    /// included: see [`kept`](Self::kept). Files of secrets are none here.
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn put_to_stay(&self, written: &Written) -> Result<bool, PutError> {
        let settings = written.settings(None)?;
        let mut entries = self.0.register.entries();
        let is_new = self.0.put(settings)?;
        entries.put(written.id(), written);
        Ok(is_new)
    }

    /// Resolves once what was put to stay, and taken out, outlives a crash; at once where nothing does.
    ///
    /// # Errors
    /// The engine takes nothing now. It is tried again all the same.
    pub async fn kept(&self) -> Result<(), Unavailable> {
        self.0.register.settled().await
    }

    /// Takes one out, with what waits for it; false if there is none.
    pub fn remove(&self, id: &str) -> bool {
        let Some(hook) = self.take_out(id) else { return false };
        tokio::spawn(async move { hook.kept().clear().await });
        true
    }

    /// The same, but for what is kept of it over a crash.
    pub(super) fn take_out(&self, id: &str) -> Option<Arc<Hook>> {
        let mut entries = self.0.register.entries();
        let gone = self.0.take(id)?;
        entries.remove(id);
        Some(gone)
    }

    /// Tells those that want to hear of sources that the one with this id is in another state; `data` writes the event's.
    pub fn tell_of_source(&self, id: &str, data: impl FnOnce(&mut Members<'_>)) {
        if self.0.wants(Kind::Source) {
            let told = event(Kind::Source, unix_ms(), data);
            self.0.notify(Kind::Source, &format!("source:{id}"), &told, |_| true);
        }
    }

    /// The rules of the configuration.
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.0.rules
    }

    /// Whoever has dead letters: webhooks, rules, and who else is known.
    pub fn owners(&self) -> Vec<Arc<dyn Owner>> {
        let hooks = self.list();
        let hooks = hooks.iter().map(|hook| Arc::clone(hook) as Arc<dyn Owner>);
        let rules = self.0.rules.iter().map(|rule| Arc::clone(rule) as Arc<dyn Owner>);
        hooks.chain(rules).chain(self.0.dead.owners()).collect()
    }

    /// The webhooks as they are.
    pub fn list(&self) -> Arc<[Arc<Hook>]> {
        self.0.hooks()
    }

    /// The broker stops: all channels are vacated. Resolves when everything was told, or `within` a time.
    pub async fn finish(&self, within: Duration) {
        let vacated = self.0.occupancy.lock().end();
        for channel in vacated {
            if !self.0.is_occupied_elsewhere(&channel) {
                self.0.tell_of_channel(Kind::Vacated, &channel, 0);
            }
        }
        self.0.take_leave();
        let hooks = self.list();
        let all = async {
            for hook in hooks.iter() {
                hook.drained().await;
            }
            for rule in &self.0.rules {
                rule.drained().await;
            }
        };
        if tokio::time::timeout(within, all).await.is_err() {
            let left: usize = hooks.iter().map(|hook| hook.load().events).sum();
            tracing::warn!(left, "not all events were told to webhooks in time");
        }
        let written = async {
            for hook in hooks.iter() {
                hook.kept().settled().await;
            }
            for rule in &self.0.rules {
                rule.kept().settled().await;
            }
        };
        _ = tokio::time::timeout(LAST_NOTES, written).await;
    }
}

impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list().iter()).finish()
    }
}

impl Inner {
    /// One that does not stand in the configuration.
    fn put(self: &Arc<Self>, settings: Settings) -> Result<bool, PutError> {
        self.addresses.judge_url(&settings.url)?;
        let hooks = self.hooks();
        if hooks.len() >= MAX_HOOKS && hooks.iter().all(|hook| hook.settings().id != settings.id) {
            return Err(PutError::TooMany);
        }
        Ok(self.enter(settings, &self.judged))
    }

    /// Those that an earlier life has kept. One whose address may not be connected to any more is there all the same: what
    /// it decides is not open to everybody for that.
    fn enter_again(self: &Arc<Self>, kept: &[Written]) {
        for written in kept {
            match written.settings(None) {
                Ok(settings) => _ = self.enter(settings, &self.judged),
                Err(error) => {
                    tracing::warn!(hook = written.id(), %error, "a webhook that was put over HTTP is left out");
                }
            }
        }
    }

    /// One is no more, and nothing that waits for it is told.
    fn take(&self, id: &str) -> Option<Arc<Hook>> {
        let mut hooks = self.hooks.write();
        let gone = hooks.iter().find(|hook| hook.settings().id == id).cloned()?;
        *hooks = hooks.iter().filter(|hook| hook.settings().id != id).cloned().collect();
        drop(hooks);
        gone.let_go();
        Some(gone)
    }

    /// A webhook from now on, in the place of one with its id; whether it is a new one.
    fn enter(self: &Arc<Self>, settings: Settings, caller: &Caller) -> bool {
        let (id, decides) = (settings.id.clone(), settings.events.iter().any(|kind| kind.is_decision()));
        let known = self.hooks().iter().find(|hook| hook.settings().id == id).map(|hook| hook.kept().clone());
        let kept = known.unwrap_or_else(|| Kept::of(&self.broker, &id));
        let hook = Arc::new(Hook::start(settings, caller.clone(), self.broker.clone(), kept));
        let replaced = {
            let mut hooks = self.hooks.write();
            let at = hooks.iter().position(|hook| hook.settings().id == id);
            let mut list = hooks.to_vec();
            let replaced = match at.and_then(|at| list.get_mut(at)) {
                Some(place) => Some(std::mem::replace(place, Arc::clone(&hook))),
                None => {
                    list.push(Arc::clone(&hook));
                    None
                }
            };
            *hooks = list.into();
            replaced
        };
        messages::tell(&self.broker, &hook);
        if !self.listens.swap(true, Ordering::AcqRel) {
            self.broker.hear(Arc::clone(self) as Arc<dyn Lifecycle>);
            tokio::spawn(Arc::clone(self).tell_vacated());
        }
        if decides {
            self.decide();
        }
        if let Some(replaced) = &replaced {
            replaced.hand_over(&hook);
        }
        replaced.is_none()
    }

    /// Fronts ask from now on.
    fn decide(self: &Arc<Self>) {
        self.decides.store(true, Ordering::Release);
        // It may be there already.
        self.broker.set_policy(Arc::new(Asked(Arc::clone(self))));
    }

    pub(super) fn hooks(&self) -> Arc<[Arc<Hook>]> {
        Arc::clone(&self.hooks.read())
    }

    /// Whether any hook wants events of this kind.
    pub(super) fn wants(&self, kind: Kind) -> bool {
        self.hooks.read().iter().any(|hook| hook.settings().wants(kind))
    }

    /// Tells all hooks that want it.
    pub(super) fn notify(&self, kind: Kind, order: &str, told: &Told, concerns: impl Fn(&Hook) -> bool) {
        for hook in self.hooks().iter().filter(|hook| hook.settings().wants(kind) && concerns(hook)) {
            hook.tell(order, told.clone());
        }
    }

    /// The first hook that wants to decide this.
    pub(super) fn decider(&self, kind: Kind, concerns: impl Fn(&Settings) -> bool) -> Option<Arc<Hook>> {
        let hooks = self.hooks.read();
        hooks.iter().find(|hook| hook.settings().wants(kind) && concerns(hook.settings())).cloned()
    }

    /// The connection of a client. One that came before there was a webhook begins with its first question.
    pub(super) fn visit(&self, client: &Client<'_>) -> Arc<Visit> {
        if let Some(visit) = visit_of(client.principal) {
            return visit;
        }
        let known = || Known {
            connection: client.key.map(connection_id).unwrap_or_default(),
            remote: client.remote,
            ..known_of(client.principal)
        };
        let new = || Arc::new(Visit::new(client.protocol, known(), Vec::new()));
        match client.key {
            Some(key) => Arc::clone(self.visits.lock().entry(key).or_insert_with(new)),
            None => new(),
        }
    }
}

/// The connection that a principal was let in on.
pub(super) fn visit_of(principal: &Principal) -> Option<Arc<Visit>> {
    let note = principal.welcome()?.note.clone()?;
    note.downcast().ok()
}

impl MetricSource for Webhooks {
    fn collect(&self, out: &mut Vec<Metric>) {
        let mut durations = Vec::new();
        for hook in self.list().iter() {
            let (id, load, counted) = (&hook.settings().id, hook.load(), hook.counted());
            for (kind, outcome, count) in counted.requests {
                let help = "Requests to webhooks, by event and how they ended";
                let metric = Metric::counter("webhook_requests", help, count).with("hook", id.clone());
                out.push(metric.with("type", kind).with("outcome", outcome));
            }
            for (cause, count) in counted.dead {
                let help = "Events that were not delivered to webhooks, by cause";
                let metric = Metric::counter("webhook_dead", help, count).with("hook", id.clone());
                out.push(metric.with("cause", cause));
            }
            durations.push((id.clone(), load, counted.breaker, counted.took));
        }
        for (id, load, ..) in &durations {
            let help = "Events that wait for webhooks or are being sent";
            out.push(Metric::gauge("webhook_queue", help, load.events as u64).with("hook", id.clone()));
        }
        for (id, load, ..) in &durations {
            let help = "How long the oldest event has waited for its webhook";
            let oldest = load.oldest.as_secs_f64();
            out.push(Metric::seconds("webhook_oldest_seconds", help, oldest).with("hook", id.clone()));
        }
        for (id, _, breaker, _) in &durations {
            let help = "Whether a webhook's host is called: 0 yes, 1 one call to try, 2 not for a while";
            out.push(Metric::gauge("webhook_breaker_state", help, breaker.number()).with("hook", id.clone()));
        }
        for rule in self.rules() {
            rule.measure(out);
        }
        for (id, _, _, took) in durations {
            let help = "How long requests to webhooks took";
            out.push(Metric::histogram("webhook_seconds", help, took).with("hook", id));
        }
    }
}

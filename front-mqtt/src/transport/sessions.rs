//! Which client has which session; takeover.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use broker_core::{Outbox, Principal, Subscriber};
use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::goodbye::goodbye;
use super::keeping::Claimed;
use crate::codec::Reason;
use crate::config::ClientIdScope;
use crate::protocol::{
    Absent, Caller, Detached, End, Holder, Kept, Negotiated, PendingWill, Remains, Session, State, Target,
    TimerKey, Will, is_another, owner,
};

/// A session with its place in the broker.
pub(crate) struct Hosted {
    pub(crate) session: Arc<Session>,
    pub(crate) subscriber: Subscriber,
    /// Bytes that came over the present connection.
    pub(crate) received_bytes: AtomicU64,
}

impl Hosted {
    /// Ends the present connection, if there is one, and tells the client why.
    pub(crate) fn kick(&self, reason: Reason, why: Option<&str>) {
        let mut state = self.session.lock();
        if reason == Reason::ServerShuttingDown {
            state.will = None;
        }
        if let Some(online) = &mut state.online {
            online.caller.kicked.get_or_insert(reason);
            online.outbox.send_last(goodbye(self.session.config(), online, reason, why));
        }
    }
}

impl Hosted {
    /// The client of this connection has shown again who it is: the lane is told whose rights count. False where that
    /// changes nothing: another connection has the session, or it would be another user's.
    pub(crate) fn renew_rights(&self, connection: u32, principal: &Principal) -> bool {
        let Some(state) = self.session.lock_as(connection) else { return false };
        let scope = self.session.config().client_id_scope;
        if state.principal.as_ref().is_some_and(|held| is_another(scope, held, principal)) {
            return false;
        }
        self.subscriber.set_rights(principal);
        true
    }
}

/// Sessions by [`session_key`](crate::protocol::session_key), whatever the transport and version.
#[derive(Default)]
pub(crate) struct Sessions {
    by_key: DashMap<Arc<str>, Arc<Hosted>>,
    absent: Absent,
}

/// A client that was let in.
pub(crate) struct Arriving<'a> {
    /// Its session, if it has none yet.
    pub(crate) candidate: &'a Arc<Hosted>,
    /// What its session is found by.
    pub(crate) key: &'a Arc<str>,
    /// Where its frames go.
    pub(crate) outbox: &'a Arc<Outbox>,
    pub(crate) terms: &'a Negotiated,
    pub(crate) will: Option<Box<PendingWill>>,
    pub(crate) principal: &'a Principal,
    pub(crate) caller: &'a Caller,
    pub(crate) now_ms: u64,
    /// What an engine has given it.
    pub(crate) kept: Option<Claimed>,
}

/// What came of a CONNECT; the CONNACK is sent.
pub(crate) struct Entered {
    pub(crate) hosted: Arc<Hosted>,
    /// The connection's number in the session.
    pub(crate) connection: u32,
    /// It was known from an earlier life of the server alone.
    pub(crate) is_restored: bool,
    pub(crate) aftermath: Aftermath,
}

/// What others left when this client came; to be done once no session is locked.
#[derive(Default)]
pub(crate) struct Aftermath {
    pub(crate) ended: Vec<(Arc<Hosted>, Remains)>,
    pub(crate) wills: Vec<Will>,
    pub(crate) timers: Vec<TimerKey>,
    /// Subscriptions that the new principal may not have.
    pub(crate) revoked: Vec<(Target, u32)>,
}

impl State {
    /// The session is one whose messages an engine keeps; whether it was one before.
    fn keep(&mut self, key: &Arc<str>, mut claimed: Claimed) -> bool {
        claimed.settle();
        let mut kept = Kept::new(key.clone(), claimed.fence, claimed.head, claimed.news.clone());
        kept.renew(claimed.fence, &claimed.taken);
        self.set_kept(kept);
        claimed.record.take().is_some_and(|(record, position)| {
            self.restore(&record, position);
            true
        })
    }
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn get(&self, key: &str) -> Option<Arc<Hosted>> {
        self.by_key.get(key).map(|entry| entry.value().clone())
    }

    /// A session by its client identifier alone: that of nobody in particular, or else one of a user. Goes over all.
    pub(crate) fn find(&self, client_id: &str) -> Option<Arc<Hosted>> {
        self.get(client_id).or_else(|| {
            let named = self.by_key.iter().find(|entry| entry.value().session.client_id() == client_id)?;
            Some(named.value().clone())
        })
    }

    pub(crate) fn all(&self) -> Vec<Arc<Hosted>> {
        self.those(|_| true)
    }

    /// Those of whose keys this is true.
    pub(crate) fn those(&self, is_one: impl Fn(&str) -> bool) -> Vec<Arc<Hosted>> {
        let found = self.by_key.iter().filter(|entry| is_one(entry.key()));
        found.map(|entry| entry.value().clone()).collect()
    }

    /// Forgets an ended session, unless the client has another one already.
    pub(crate) fn remove(&self, hosted: &Arc<Hosted>) {
        self.by_key.remove_if(hosted.session.key(), |_, known| Arc::ptr_eq(known, hosted));
    }

    /// The session's client is away, unless it is back already.
    pub(crate) fn note_absent(&self, hosted: &Hosted, connection: u32, holder: Holder) {
        let mut state = hosted.session.lock();
        if state.connection == connection && state.online.is_none() && !state.ended {
            state.away.get_or_insert_default().counted = Some(self.absent.count(holder));
        }
    }

    /// Whether one more session may be left behind by this client, should it go.
    fn has_place_for(&self, arriving: &Arriving<'_>) -> bool {
        let config = arriving.candidate.session.config();
        let holder = Holder::of(arriving.principal, arriving.caller.remote);
        self.by_key.len() < config.max_sessions
            && (arriving.terms.session_expiry_secs == 0
                || holder.is_none_or(|holder| self.absent.admits(&holder, config)))
    }

    /// Gives the client its session: the one it has, taken from another connection if need be, or
    /// `candidate`. CONNACK and what waited are sent through `outbox` before anything else can be.
    ///
    /// # Errors
    /// There is no place for another session, or another user has one of this name.
    pub(crate) fn enter(
        &self,
        mut arriving: Arriving<'_>,
        connack: impl Fn(bool) -> Bytes,
    ) -> Result<Entered, Reason> {
        let mut aftermath = Aftermath::default();
        let (will, mut is_restored) = (arriving.will.take(), false);
        let Arriving { candidate, key, outbox, terms, principal, caller, now_ms, .. } = arriving;
        let config = candidate.session.config();
        loop {
            let existing = self.get(key);
            let is_new = existing.is_none();
            let hosted = match existing {
                Some(hosted) => hosted,
                // One that replaces its own old session takes no place.
                None if aftermath.ended.is_empty() && !self.has_place_for(&arriving) => {
                    return Err(Reason::QuotaExceeded);
                }
                None => candidate.clone(),
            };
            // Locked before others can find it, so that nobody takes it over half made.
            let mut state = hosted.session.lock();
            if is_new {
                hosted.session.name(key.clone());
                match self.by_key.entry(key.clone()) {
                    Entry::Occupied(_) => continue,
                    Entry::Vacant(place) => _ = place.insert(hosted.clone()),
                }
                state.key = Some(hosted.subscriber.key());
                hosted.subscriber.register_connection(&hosted);
                if let Some(mut claimed) = arriving.kept.take() {
                    if !aftermath.ended.is_empty() {
                        // What is recorded is of the one that is over.
                        claimed.forget();
                    }
                    is_restored = state.keep(key, claimed);
                    if is_restored {
                        aftermath.revoked = state.revoke(principal);
                    }
                }
            } else {
                if state.ended {
                    drop(state);
                    self.remove(&hosted);
                    continue;
                }
                let has_another_owner =
                    state.principal.as_ref().is_some_and(|held| owner(held) != owner(principal));
                if config.client_id_scope == ClientIdScope::Exclusive && has_another_owner {
                    return Err(Reason::ClientIdentifierNotValid);
                }
                aftermath.timers.extend(state.away.take().and_then(|away| away.timer));
                let mut remains = None;
                if let Some(online) = &state.online {
                    online.outbox.send_last(goodbye(config, online, Reason::SessionTakenOver, None));
                    match state
                        .handle_disconnected(hosted.session.shared(), End::Closed(Reason::SessionTakenOver))
                    {
                        Detached::Ended(left) => remains = Some(left),
                        Detached::Stays { will, .. } => aftermath.wills.extend(will),
                    }
                }
                if terms.clean_start && remains.is_none() {
                    remains = Some(state.handle_ended());
                }
                if let Some(remains) = remains {
                    drop(state);
                    self.remove(&hosted);
                    aftermath.ended.push((hosted, remains));
                    continue;
                }
                // What the last connection left in flight was not sent on this one.
                if let Some(outbound) = &mut state.outbound {
                    outbound.restart();
                }
                aftermath.revoked = state.revoke(principal);
                if let Some(mut claimed) = arriving.kept.take() {
                    claimed.settle();
                    match state.kept_mut() {
                        Some(kept) => kept.renew(claimed.fence, &claimed.taken),
                        None => _ = state.keep(key, claimed),
                    }
                }
            }
            // A delayed will that still waits here is cancelled by the resumption (MQTT 5.0 §3.1.3.2.2).
            state.will = will;
            state.expiry_secs = terms.session_expiry_secs;
            state.principal = Some(principal.clone());
            // Under the session's lock, so that the lane hears of its connections in their order; first of the rights, so that
            // it never knows this connection with another's. Till then the session asks by itself (`Wire::redirect_as`).
            hosted.subscriber.set_rights(principal);
            if !is_new {
                hosted.subscriber.adopt_outbox(outbox);
            }
            let online = terms.online(config, outbox.clone(), caller);
            state.handle_connected(config, now_ms, online, &connack(!is_new || is_restored), &mut { outbox });
            let connection = state.connection;
            state.note_change();
            drop(state);
            return Ok(Entered { hosted, connection, is_restored, aftermath });
        }
    }
}

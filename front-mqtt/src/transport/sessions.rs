//! Which client has which session; takeover.

use std::sync::Arc;

use broker_core::{Outbox, Principal, Subscriber};
use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::goodbye::goodbye;
use crate::codec::Reason;
use crate::protocol::{
    Caller, Detached, End, Negotiated, PendingWill, Remains, Session, Target, TimerKey, Will,
};

/// A session with its place in the broker.
pub(crate) struct Hosted {
    pub(crate) session: Arc<Session>,
    pub(crate) subscriber: Subscriber,
}

impl Hosted {
    /// Ends the present connection, if there is one, and tells the client why.
    pub(crate) fn kick(&self, reason: Reason, why: Option<&str>) {
        let mut state = self.session.lock();
        if reason == Reason::ServerShuttingDown {
            state.will = None;
        }
        if let Some(online) = &state.online {
            online.outbox.send_last(goodbye(self.session.config(), online, reason, why));
        }
    }
}

/// Sessions by client identifier, whatever the transport and version.
#[derive(Default)]
pub(crate) struct Sessions(DashMap<Arc<str>, Arc<Hosted>>);

/// A client that was let in.
pub(crate) struct Arriving<'a> {
    /// Its session, if it has none yet.
    pub(crate) candidate: &'a Arc<Hosted>,
    /// Where its frames go.
    pub(crate) outbox: &'a Arc<Outbox>,
    pub(crate) terms: &'a Negotiated,
    pub(crate) will: Option<Box<PendingWill>>,
    pub(crate) principal: &'a Principal,
    pub(crate) caller: &'a Caller,
    pub(crate) now_ms: u64,
}

/// What came of a CONNECT; the CONNACK is sent.
pub(crate) struct Entered {
    pub(crate) hosted: Arc<Hosted>,
    /// The connection's number in the session.
    pub(crate) connection: u32,
    pub(crate) aftermath: Aftermath,
}

/// What others left when this client came; to be done once no session is locked.
#[derive(Default)]
pub(crate) struct Aftermath {
    pub(crate) ended: Vec<(Arc<Hosted>, Remains)>,
    pub(crate) wills: Vec<Will>,
    pub(crate) timers: Vec<TimerKey>,
    /// Subscriptions that the new principal may not have.
    pub(crate) revoked: Vec<(Target, Box<str>, u32)>,
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, client_id: &str) -> Option<Arc<Hosted>> {
        self.0.get(client_id).map(|entry| entry.value().clone())
    }

    pub(crate) fn all(&self) -> Vec<Arc<Hosted>> {
        self.0.iter().map(|entry| entry.value().clone()).collect()
    }

    /// Forgets an ended session, unless the client has another one already.
    pub(crate) fn remove(&self, hosted: &Arc<Hosted>) {
        self.0.remove_if(hosted.session.client_id(), |_, known| Arc::ptr_eq(known, hosted));
    }

    /// Gives the client its session: the one it has, taken from another connection if need be, or
    /// `candidate`. CONNACK and what waited are sent through `outbox` before anything else can be.
    ///
    /// # Errors
    /// There are `max_sessions`.
    pub(crate) fn enter(
        &self,
        arriving: Arriving<'_>,
        connack: impl Fn(bool) -> Bytes,
    ) -> Result<Entered, Reason> {
        let Arriving { candidate, outbox, terms, mut will, principal, caller, now_ms } = arriving;
        let config = candidate.session.config();
        let mut aftermath = Aftermath::default();
        loop {
            let existing = self.0.get(&terms.client_id).map(|entry| entry.value().clone());
            let is_new = existing.is_none();
            let hosted = match existing {
                Some(hosted) => hosted,
                None if self.0.len() >= config.max_sessions => return Err(Reason::QuotaExceeded),
                None => candidate.clone(),
            };
            // Locked before others can find it, so that nobody takes it over half made.
            let mut state = hosted.session.lock();
            if is_new {
                hosted.session.name(terms.client_id.clone());
                match self.0.entry(terms.client_id.clone()) {
                    Entry::Occupied(_) => continue,
                    Entry::Vacant(place) => _ = place.insert(hosted.clone()),
                }
                state.key = Some(hosted.subscriber.key());
                hosted.subscriber.register_connection(&hosted);
            } else {
                if state.ended {
                    drop(state);
                    self.remove(&hosted);
                    continue;
                }
                aftermath.timers.extend(state.timer.take().map(|key| *key));
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
            }
            // A delayed will that still waits here is cancelled by the resumption (MQTT 5.0 §3.1.3.2.2).
            state.will = will.take();
            state.expiry_secs = terms.session_expiry_secs;
            state.principal = Some(principal.clone());
            let online = terms.online(config, outbox.clone(), caller);
            state.handle_connected(config, now_ms, online, &connack(!is_new), &mut { outbox });
            let connection = state.connection;
            drop(state);
            return Ok(Entered { hosted, connection, aftermath });
        }
    }
}

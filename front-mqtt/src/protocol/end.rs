//! The end of a connection and of a session, and the will.

use std::sync::Arc;
use std::time::Duration;

use broker_core::{Fence, Principal, Publish};

use super::absent::Holder;
use super::kept_will;
use super::outbound::Outgoing;
use super::session::{Session, Shared, State};
use crate::codec::Reason;

/// How a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// The client said goodbye: its will is thrown away.
    Goodbye,
    /// The client said goodbye and asked for its will (MQTT 5.0 §3.14.2.1, code 0x04), or the connection was
    /// lost.
    Lost,
    /// The server closed it for this reason.
    Closed(Reason),
}

/// What is published if the connection ends without a goodbye (MQTT 5.0 §3.1.2.5).
#[derive(Clone, Debug)]
pub(crate) struct PendingWill {
    pub(crate) publish: Publish,
    pub(crate) delay_secs: u32,
    /// When it is published, in milliseconds since 1970, once its client is away.
    pub(crate) due_ms: u64,
    /// What it is told apart by from all others that are recorded.
    pub(crate) nonce: u128,
}

/// A will whose time has come.
#[derive(Clone, Debug)]
pub(crate) struct Will {
    pub(crate) publish: Publish,
    /// In whose name; its rights may be others by now.
    pub(crate) principal: Principal,
    /// Under which it is published once, whatever becomes of the server; `None`: nobody keeps it.
    pub(crate) key: Option<String>,
    /// The session that left it, whose it is as long as its node has it.
    pub(crate) session: Option<Arc<str>>,
}

/// What is left to do after a connection.
#[derive(Debug)]
pub(crate) enum Detached {
    /// The session ended with it.
    Ended(Remains),
    /// The session stays.
    Stays {
        /// To be published now.
        will: Option<Will>,
        /// When the delayed will is due.
        will_after: Option<Duration>,
        /// Who left it behind.
        holder: Option<Holder>,
        /// When the session ends; `None` is never.
        ends_after: Option<Duration>,
    },
}

/// What a session leaves behind.
#[derive(Debug, Default)]
pub(crate) struct Remains {
    /// To be published now.
    pub(crate) will: Option<Will>,
    /// Messages of shared subscriptions the client has not taken responsibility for, with the subscription's
    /// filter: they go to another member.
    pub(crate) orphans: Vec<(Box<str>, Outgoing)>,
    /// The shared subscriptions it held, and their tags.
    pub(crate) shared: Vec<(Box<str>, u32)>,
    /// With what whoever keeps it is told that it is over.
    pub(crate) fence: Option<Fence>,
}

impl Session {
    /// The connection with this number is over. `None`: another one has taken the session, which saw to it.
    pub(crate) fn handle_disconnected(&self, connection: u32, end: End) -> Option<Detached> {
        let mut state = self.lock_as(connection)?;
        Some(state.handle_disconnected(self.shared(), end))
    }

    /// The delayed will's time has come, unless the client was back first.
    pub(crate) fn take_due_will(&self) -> Option<Will> {
        let mut state = self.lock();
        if state.online.is_some() {
            return None;
        }
        state.note_change();
        state.take_will()
    }

    /// The session's time is over, unless the client was back first.
    pub(crate) fn handle_expired(&self) -> Option<Remains> {
        let mut state = self.lock();
        if state.online.is_some() || state.ended { None } else { Some(state.handle_ended()) }
    }
}

impl State {
    /// The present connection is over.
    pub(crate) fn handle_disconnected(&mut self, shared: &Shared, end: End) -> Detached {
        let online = self.online.take();
        // What the lane sent without asking was counted where it went.
        self.sent += online.as_ref().map_or(0, |online| online.outbox.passed().shared);
        let remote = online.and_then(|online| online.caller.remote);
        self.backlog = None;
        if let Some(membership) = &mut self.membership {
            membership.disconnect();
        }
        if self.extra.is_some() {
            self.close_kept();
            self.unpark_offline(shared);
        }
        // A server that shuts down may keep its wills for after its restart (MQTT 5.0 §3.1.2.5); this one
        // forgets them rather than announce the death of every client.
        if matches!(end, End::Goodbye | End::Closed(Reason::ServerShuttingDown)) {
            self.will = None;
        }
        if self.expiry_secs == 0 {
            return Detached::Ended(self.handle_ended());
        }
        let session = secs(self.expiry_secs);
        let delay = self.will.as_ref().map(|will| will.delay_secs);
        let (mut will, mut will_after) = (None, None);
        match delay {
            None => {}
            Some(0) => will = self.take_will(),
            Some(delay) => {
                let delay = Duration::from_secs(u64::from(delay));
                will_after = Some(session.map_or(delay, |session| delay.min(session)));
            }
        }
        let holder = self.principal.as_ref().and_then(|principal| Holder::of(principal, remote));
        Detached::Stays { will, will_after, holder, ends_after: session }
    }

    /// The will, in the name of the last connection.
    fn take_will(&mut self) -> Option<Will> {
        let PendingWill { publish, nonce, .. } = *self.will.take()?;
        let key = self.kept().map(|_| kept_will::key(nonce));
        let session = self.kept().map(|kept| kept.key().clone());
        self.principal.clone().map(|principal| Will { publish, principal, key, session })
    }

    /// The session is over: nothing is kept.
    pub(crate) fn handle_ended(&mut self) -> Remains {
        self.ended = true;
        self.online = None;
        self.away = None;
        self.taken = None;
        if let Some(membership) = &mut self.membership {
            membership.end();
        }
        let mut remains = Remains {
            will: self.take_will(),
            orphans: Vec::new(),
            shared: self
                .subscriptions
                .iter()
                .filter(|held| held.shared)
                .map(|held| (held.filter.clone(), held.tag))
                .collect(),
            fence: self.kept().map(|kept| kept.fence),
        };
        for orphan in self.outbound.take().into_iter().flat_map(|outbound| outbound.undelivered()) {
            let filter = orphan.shared.and_then(|tag| self.subscriptions.by_tag(tag));
            if let Some(subscription) = filter {
                remains.orphans.push((subscription.filter.clone(), orphan));
            }
        }
        self.subscriptions = Default::default();
        remains
    }
}

/// `u32::MAX` seconds are for ever (MQTT 5.0 §3.1.2.11.2).
fn secs(expiry: u32) -> Option<Duration> {
    (expiry != u32::MAX).then(|| Duration::from_secs(u64::from(expiry)))
}

//! An open stream as operators see it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use broker_core::{
    Account, CloseCause, Connection, Details, Encryption, Filter, ForcedError, GRANTED_TAG, LeaveReason,
    Left, Peer, Principal, Queued, Start, Subscribed, Subscriber, unix_ms,
};

use super::registry::retry_within;
use crate::codec::event;
use crate::front::{RECONNECT_SOON, Shared};

/// A stream's subscriber, and what is kept of its request. There is one for every idle connection.
pub(crate) struct Attached {
    pub(crate) subscriber: Subscriber,
    pub(crate) front: Arc<Shared>,
    principal: Principal,
    transport: &'static str,
    since_ms: u64,
    last_active_ms: AtomicU64,
    remote: Option<IpAddr>,
    encryption: Option<Encryption>,
    user_agent: Option<Box<str>>,
}

/// Of the request that opened a stream.
pub(crate) struct Origin {
    pub(crate) principal: Principal,
    pub(crate) transport: &'static str,
    pub(crate) remote: Option<IpAddr>,
    pub(crate) encryption: Option<Encryption>,
    pub(crate) user_agent: Option<Box<str>>,
}

impl Attached {
    pub(crate) fn new(subscriber: Subscriber, front: Arc<Shared>, origin: Origin) -> Self {
        let Origin { principal, transport, remote, encryption, user_agent } = origin;
        let now_ms = unix_ms();
        Attached {
            subscriber,
            front,
            principal,
            transport,
            since_ms: now_ms,
            last_active_ms: AtomicU64::new(now_ms),
            remote,
            encryption,
            user_agent,
        }
    }

    /// What it is subscribed to without having asked.
    pub(crate) fn welcome(&self) -> &[Filter] {
        self.principal.welcome().map_or(&[], |welcome| &welcome.subscribe)
    }

    /// The client has left, and is not coming back to this stream. The first reason counts.
    pub(crate) fn leave(&self, why: LeaveReason) {
        let outbox = self.subscriber.outbox();
        let passed = outbox.passed();
        let mut account = Account::default();
        account.was_here = true;
        account.protocol = "sse";
        account.principal = Some(&self.principal);
        account.remote = self.remote;
        account.lasted = Some(Duration::from_millis(unix_ms().saturating_sub(self.since_ms)));
        account.sent_messages = Some(passed.shared);
        account.received_messages = Some(0);
        account.sent_bytes = Some(passed.bytes);
        account.received_bytes = Some(0);
        account.dropped = outbox.dropped();
        self.subscriber.leave(Left::for_good(why), &account);
    }

    /// The client has taken all that was sent so far: the only sign of life that a stream gives.
    pub(crate) fn note_alive(&self) {
        self.last_active_ms.store(unix_ms(), Relaxed);
    }
}

impl Connection for Attached {
    fn peer(&self) -> Option<Peer> {
        let open = self.subscriber.outbox().closed().is_none();
        open.then(|| Peer::new(self.principal.clone(), "sse", self.transport, self.since_ms))
    }

    fn details(&self) -> Details {
        let mut given = Details::default();
        given.last_active_ms = self.last_active_ms.load(Relaxed);
        given.remote = self.remote;
        given.encryption = self.encryption;
        given.user_agent = self.user_agent.as_deref().map(str::to_owned);
        given.subscriptions = self.subscriber.subscriptions().iter().map(Filter::to_string).collect();
        given.dropped = self.subscriber.outbox().dropped();
        given
    }

    fn queued(&self) -> Queued {
        self.subscriber.outbox().queued()
    }

    fn close(&self, why: &CloseCause) {
        self.leave(why.into());
        self.subscriber.outbox().send_last(event::last(why.text(), retry_within(RECONNECT_SOON)));
    }

    fn subscribe(&self, filter: &Filter) -> Result<Subscribed, ForcedError> {
        let held = self.subscriber.subscriptions();
        if held.contains(filter) {
            return Ok(Subscribed::THERE);
        }
        let max = self.front.config.max_filters;
        if held.len() >= max {
            return Err(ForcedError::TooMany { max });
        }
        Ok(self.subscriber.subscribe(filter, GRANTED_TAG, Start::Live)?)
    }

    fn unsubscribe(&self, filter: &Filter) -> bool {
        self.subscriber.unsubscribe_all(filter)
    }
}

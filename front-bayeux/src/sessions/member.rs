//! One session as requests find it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use broker_core::{
    Action, Encryption, Filter, GRANTED_TAG, Principal, Start, SubscribeError, Subscriber, unix_ms,
};
use parking_lot::Mutex;

use super::Sessions;
use super::mailbox::Mailbox;
use super::rate::RateLimit;
use super::replays::Replays;
use super::socket::Socket;
use super::subscriptions::Subscriptions;
use crate::codec::id::ClientId;
use crate::config::Config;

/// Sessions need not tell their live subscriptions apart: each event is sent once, whatever matched. But the core must
/// know which of them are granted beside the client's rights ([`GRANTED_TAG`]).
const LIVE: u32 = 0;

/// Whether a subscription's tag says that it never had a past to replay.
pub(super) fn is_live(tag: u32) -> bool {
    matches!(tag, LIVE | GRANTED_TAG)
}

/// See the module.
pub(crate) struct Member {
    pub(super) sessions: Weak<Sessions>,
    pub(crate) id: ClientId,
    pub(crate) mailbox: Arc<Mailbox>,
    /// Shared with the socket it was born on, whose outbox it is.
    pub(crate) subscriber: Arc<Subscriber>,
    pub(crate) principal: Principal,
    /// The cookie of its handshake's browser.
    pub(crate) browser: Option<Box<str>>,
    pub(crate) address: Option<IpAddr>,
    pub(super) encryption: Option<Encryption>,
    pub(super) user_agent: Option<Box<str>>,
    pub(super) since_ms: u64,
    pub(super) last_active_ms: AtomicU64,
    /// What it is subscribed to.
    subscriptions: Mutex<Subscriptions>,
    replay_tags: AtomicU32,
    pub(super) replays: Replays,
    /// Whether its subscriptions may name a position in the log.
    pub(crate) replay: bool,
    /// Whether it gets its own messages.
    pub(crate) echo: AtomicBool,
    /// Channels that it brings into being.
    pub(crate) new_channels: RateLimit,
    /// Calls to services that wait for their handlers.
    pub(crate) service_calls: AtomicUsize,
    detached: AtomicBool,
    /// Why an operator ended it.
    reason: OnceLock<Box<str>>,
}

/// Who shook hands, and from where.
pub(crate) struct Origin<'a> {
    pub(crate) principal: Principal,
    /// The cookie of its handshake's browser.
    pub(crate) browser: Option<&'a str>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) encryption: Option<Encryption>,
    pub(crate) user_agent: Option<&'a str>,
    /// Whether its subscriptions may name a position in the log.
    pub(crate) replay: bool,
}

impl Member {
    pub(super) fn new(
        sessions: Weak<Sessions>,
        id: ClientId,
        mailbox: Arc<Mailbox>,
        subscriber: Arc<Subscriber>,
        origin: Origin<'_>,
        config: &Config,
    ) -> Self {
        let now_ms = unix_ms();
        Self {
            sessions,
            id,
            mailbox,
            subscriber,
            principal: origin.principal,
            browser: origin.browser.map(Box::from),
            address: origin.address,
            encryption: origin.encryption,
            user_agent: origin.user_agent.map(Box::from),
            since_ms: now_ms,
            last_active_ms: AtomicU64::new(now_ms),
            subscriptions: Mutex::default(),
            replay_tags: AtomicU32::new(LIVE),
            replays: Replays::default(),
            replay: origin.replay,
            echo: AtomicBool::new(config.broadcast_to_publisher),
            new_channels: RateLimit::default(),
            service_calls: AtomicUsize::new(0),
            detached: AtomicBool::new(false),
            reason: OnceLock::new(),
        }
    }

    /// Notes what the client is to be told when the session ends; the first reason counts.
    pub(super) fn explain(&self, reason: &str) {
        _ = self.reason.set(reason.into());
    }

    /// Why it ended, if somebody said so.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.reason.get().map(|reason| &**reason)
    }

    /// Its client said something.
    pub(crate) fn note_alive(&self) {
        self.last_active_ms.store(unix_ms(), Ordering::Relaxed);
    }

    /// Its events go to this socket from now on.
    pub(crate) fn bind(&self, now: Instant, socket: &Socket) {
        let mut socket = socket.clone();
        socket.own = Arc::ptr_eq(&self.subscriber.outbox(), &socket.outbox);
        self.mailbox.bind(now, socket);
    }

    /// Takes its subscriptions out of the broker. Not left to the drop: a socket may still hold the
    /// subscriber for its outbox.
    pub(super) fn detach(&self) {
        if !self.detached.swap(true, Ordering::Relaxed) {
            let subscriptions = std::mem::take(&mut *self.subscriptions.lock());
            for (filter, tag) in subscriptions.iter() {
                self.subscriber.unsubscribe(filter, tag);
            }
        }
    }

    pub(crate) fn subscription_count(&self) -> usize {
        self.subscriptions.lock().len()
    }

    /// What it is subscribed to.
    pub(super) fn filters(&self) -> Vec<Filter> {
        self.subscriptions(|filter, _| Some(filter.clone()))
    }

    /// What `pick` makes of each subscription and its tag.
    pub(super) fn subscriptions<T>(&self, mut pick: impl FnMut(&Filter, u32) -> Option<T>) -> Vec<T> {
        self.subscriptions.lock().iter().filter_map(|(filter, tag)| pick(filter, tag)).collect()
    }

    pub(super) fn is_subscribed(&self, filter: &Filter) -> bool {
        self.subscriptions.lock().tag_of(filter).is_some()
    }

    /// Whether this very subscription still stands.
    /// Whether it is one of these.
    pub(super) fn is_of(&self, sessions: &Weak<Sessions>) -> bool {
        Weak::ptr_eq(&self.sessions, sessions)
    }

    pub(super) fn holds(&self, filter: &Filter, tag: u32) -> bool {
        self.subscriptions.lock().tag_of(filter) == Some(tag)
    }

    /// Notes a subscription, before the broker knows of it; false if it is there already.
    pub(super) fn note(&self, filter: &Filter, tag: u32) -> bool {
        self.subscriptions.lock().insert(filter, tag)
    }

    /// A tag for a subscription that is replayed: the lane passes over live messages by tag.
    pub(super) fn replay_tag(&self, filter: &Filter) -> u32 {
        let next = self.replay_tags.fetch_add(1, Ordering::Relaxed).wrapping_add(1) % GRANTED_TAG;
        self.first_tag(filter) + next.max(LIVE + 1)
    }

    /// Where tags begin for `filter`: whoever subscribes the client has decided that it may be, its rights or not.
    fn first_tag(&self, filter: &Filter) -> u32 {
        if self.principal.allows_filter(Action::Subscribe, filter) { LIVE } else { GRANTED_TAG }
    }

    /// Subscribes to messages from now on; false if it was subscribed already.
    pub(crate) fn subscribe_live(&self, filter: &Filter, start: Start) -> Result<bool, SubscribeError> {
        // Noted first: a repeated subscription would bring the retained messages again, and a replay that begins just
        // now must know of it.
        let tag = self.first_tag(filter);
        if !self.note(filter, tag) {
            return Ok(false);
        }
        let subscribed = if self.replay {
            self.subscribe_beside_replays(filter, tag, start)
        } else {
            self.subscriber.subscribe(filter, tag, start).map(drop)
        };
        if let Err(error) = subscribed {
            self.unsubscribe(filter);
            return Err(error);
        }
        Ok(true)
    }

    /// Subscribes, so that replays of the same session know from where on it brings what they would bring.
    fn subscribe_beside_replays(
        &self,
        filter: &Filter,
        tag: u32,
        start: Start,
    ) -> Result<(), SubscribeError> {
        let beside = self.mailbox.with(|state| {
            state.duplicates().map(|duplicates| {
                duplicates.begins(filter);
                duplicates.tag()
            })
        });
        let subscribed = self.subscriber.subscribe_at_head(filter, tag, start);
        let since = subscribed.as_ref().ok().map(|(_, position)| *position);
        if let Some(since) = since {
            self.replays.note_live(filter, since);
        }
        self.mailbox.with(|state| {
            let Some(duplicates) = state.duplicates() else { return };
            match since {
                Some(since) if beside == Some(duplicates.tag()) => {
                    let since = duplicates.since(&since);
                    duplicates.begun(filter, since);
                }
                Some(since) => {
                    let since = duplicates.since(&since);
                    duplicates.add_live(filter.clone(), since);
                }
                None => {}
            }
        });
        if let Some(replay) = beside {
            self.settle(replay);
        }
        subscribed.map(drop)
    }

    /// Ends one subscription; false if there is none.
    pub(crate) fn unsubscribe(&self, filter: &Filter) -> bool {
        let Some(tag) = self.subscriptions.lock().remove(filter) else { return false };
        let beside = self.mailbox.with(|state| {
            state.duplicates().map(|duplicates| {
                duplicates.ends(filter);
                duplicates.tag()
            })
        });
        self.subscriber.unsubscribe(filter, tag);
        if let Some(replay) = beside {
            self.settle(replay);
        }
        if self.replay && is_live(tag) {
            self.replays.forget_live(filter);
        }
        if !is_live(tag) {
            // Its replay looks whether it is still wanted.
            self.mailbox.woken().notify_waiters();
        }
        true
    }

    /// A subscription has begun or ended beside the replay of this tag.
    fn settle(&self, replay: u32) {
        let Some(sessions) = self.sessions.upgrade() else { return };
        let stand = sessions.broker.position();
        self.mailbox.with(|state| {
            // Another one may run by now.
            if let Some(duplicates) = state.duplicates().filter(|duplicates| duplicates.tag() == replay) {
                let head = duplicates.head(&stand);
                duplicates.settle(head);
            }
        });
    }
}

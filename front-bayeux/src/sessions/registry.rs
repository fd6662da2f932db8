//! The sessions, and how many connects each browser holds.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use broker_core::{Filter, Principal, Subscriber, unix_ms};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::codec::id::ClientId;
use crate::front::Shared;
use crate::sessions::mailbox::Mailbox;
use crate::sessions::rate::RateLimit;
use crate::sessions::replay::Replays;
use crate::sessions::subscriptions::Subscriptions;

/// One session as requests find it.
pub(crate) struct Member {
    pub(crate) front: Weak<Shared>,
    pub(crate) id: ClientId,
    pub(crate) mailbox: Arc<Mailbox>,
    /// Shared with the socket it was born on, whose outbox it is.
    pub(crate) subscriber: Arc<Subscriber>,
    pub(crate) principal: Principal,
    /// The cookie of its handshake's browser.
    pub(crate) browser: Option<Box<str>>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) user_agent: Option<Box<str>>,
    pub(crate) since_ms: u64,
    pub(crate) last_active_ms: AtomicU64,
    /// What it is subscribed to.
    subscriptions: Mutex<Subscriptions>,
    replay_tags: AtomicU32,
    pub(crate) replays: Replays,
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
    pub(crate) user_agent: Option<&'a str>,
    pub(crate) replay: bool,
}

/// How much of a client's `User-Agent` is kept, in bytes.
const MAX_USER_AGENT: usize = 128;

impl Member {
    /// Notes what the client is to be told when the session ends; the first reason counts.
    pub(crate) fn explain(&self, reason: &str) {
        _ = self.reason.set(reason.into());
    }

    /// Why it ended, if somebody said so.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.reason.get().map(|reason| &**reason)
    }

    pub(crate) fn new(
        front: Weak<Shared>,
        id: ClientId,
        mailbox: Arc<Mailbox>,
        subscriber: Arc<Subscriber>,
        origin: Origin<'_>,
    ) -> Self {
        let now_ms = unix_ms();
        let shortened = |name: &str| Box::from(name.get(..MAX_USER_AGENT).unwrap_or(name));
        Self {
            front,
            id,
            mailbox,
            subscriber,
            principal: origin.principal,
            browser: origin.browser.map(Box::from),
            address: origin.address,
            user_agent: origin.user_agent.map(shortened),
            since_ms: now_ms,
            last_active_ms: AtomicU64::new(now_ms),
            subscriptions: Mutex::default(),
            replay_tags: AtomicU32::new(TAG),
            replays: Replays::default(),
            replay: origin.replay,
            echo: AtomicBool::new(true),
            new_channels: RateLimit::default(),
            service_calls: AtomicUsize::new(0),
            detached: AtomicBool::new(false),
            reason: OnceLock::new(),
        }
    }

    /// Its client said something.
    pub(crate) fn note_alive(&self) {
        self.last_active_ms.store(unix_ms(), Ordering::Relaxed);
    }

    /// Takes its subscriptions out of the broker. Not left to the drop: a socket may still hold the
    /// subscriber for its outbox.
    pub(crate) fn detach(&self) {
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
    pub(crate) fn filters(&self) -> Vec<Filter> {
        self.subscriptions(|filter, _| Some(filter.clone()))
    }

    /// What `pick` makes of each subscription and its tag.
    pub(crate) fn subscriptions<T>(&self, mut pick: impl FnMut(&Filter, u32) -> Option<T>) -> Vec<T> {
        self.subscriptions.lock().iter().filter_map(|(filter, tag)| pick(filter, tag)).collect()
    }

    pub(crate) fn is_subscribed(&self, filter: &Filter) -> bool {
        self.subscriptions.lock().tag_of(filter).is_some()
    }

    /// Whether this very subscription still stands.
    pub(crate) fn holds(&self, filter: &Filter, tag: u32) -> bool {
        self.subscriptions.lock().tag_of(filter) == Some(tag)
    }

    /// Notes a subscription, before the broker knows of it; false if it is there already.
    pub(crate) fn note(&self, filter: &Filter, tag: u32) -> bool {
        self.subscriptions.lock().insert(filter, tag)
    }

    /// A tag for a subscription that is replayed: the lane passes over live messages by tag.
    pub(crate) fn replay_tag(&self) -> u32 {
        self.replay_tags.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(TAG + 1)
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
        if self.replay && tag == TAG {
            self.replays.forget_live(filter);
        }
        if tag != TAG {
            // Its replay looks whether it is still wanted.
            self.mailbox.woken().notify_waiters();
        }
        true
    }

    /// A subscription has begun or ended beside the replay of this tag.
    pub(crate) fn settle(&self, replay: u32) {
        let Some(front) = self.front.upgrade() else { return };
        let head = front.broker.head().offset();
        self.mailbox.with(|state| {
            // Another one may run by now.
            if let Some(duplicates) = state.duplicates().filter(|duplicates| duplicates.tag() == replay) {
                duplicates.settle(head);
            }
        });
    }
}

/// Sessions need not tell their live subscriptions apart: each event is sent once, whatever matched.
pub(crate) const TAG: u32 = 0;

/// No room for another session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

/// All sessions of a front.
#[derive(Default)]
pub(crate) struct Registry {
    members: DashMap<ClientId, Arc<Member>>,
    addresses: DashMap<IpAddr, usize>,
    browsers: DashMap<Box<str>, SmallVec<[(ClientId, u64); 1]>>,
}

/// Bounds of the registry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity {
    pub(crate) max_sessions: usize,
    pub(crate) max_per_address: usize,
}

impl Registry {
    /// Claims a place for a session of this address, before anything is made for it; [`insert`](Self::insert)
    /// uses the place, [`release`](Self::release) gives it back.
    pub(crate) fn reserve(&self, address: Option<IpAddr>, capacity: Capacity) -> Result<(), TooMany> {
        if self.members.len() >= capacity.max_sessions {
            return Err(TooMany);
        }
        let Some(address) = address else { return Ok(()) };
        let mut count = self.addresses.entry(address).or_insert(0);
        if *count >= capacity.max_per_address {
            return Err(TooMany);
        }
        *count += 1;
        Ok(())
    }

    pub(crate) fn release(&self, address: Option<IpAddr>) {
        let Some(address) = address else { return };
        if let MapEntry::Occupied(mut count) = self.addresses.entry(address) {
            *count.get_mut() = count.get().saturating_sub(1);
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    pub(crate) fn insert(&self, member: Arc<Member>) {
        self.members.insert(member.id, member);
    }

    pub(crate) fn find(&self, id: &ClientId) -> Option<Arc<Member>> {
        self.members.get(id).map(|member| Arc::clone(&member))
    }

    /// False if it was gone already.
    pub(crate) fn remove(&self, id: &ClientId) -> bool {
        let Some((_, member)) = self.members.remove(id) else { return false };
        self.release(member.address);
        member.detach();
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Those whose time has come, copied out so that no shard is locked while they are handled.
    pub(crate) fn due(&self, now: Instant) -> Vec<Arc<Member>> {
        let due = |member: &Arc<Member>| member.mailbox.needs_sweep(now).then(|| Arc::clone(member));
        self.members.iter().filter_map(|member| due(&member)).collect()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Member>> {
        self.members.iter().map(|member| Arc::clone(&member)).collect()
    }

    /// Counts a held connect of a browser; false if it holds `max` of other sessions already. A newer
    /// connect of the same session takes the place of the older.
    pub(crate) fn hold(&self, browser: &str, id: ClientId, token: u64, max: usize) -> bool {
        let mut held = self.browsers.entry(browser.into()).or_default();
        if let Some(known) = held.iter_mut().find(|(known, _)| *known == id) {
            known.1 = token;
            return true;
        }
        if held.len() >= max {
            if held.is_empty() {
                let key = held.key().clone();
                drop(held);
                self.browsers.remove_if(&key, |_, held| held.is_empty());
            }
            return false;
        }
        held.push((id, token));
        true
    }

    /// The connect `token` is held no longer.
    pub(crate) fn let_go(&self, browser: &str, id: ClientId, token: u64) {
        if let MapEntry::Occupied(mut held) = self.browsers.entry(browser.into()) {
            held.get_mut().retain(|known| *known != (id, token));
            if held.get().is_empty() {
                held.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_holds_as_many_sessions_as_it_may() {
        let registry = Registry::default();
        let [a, b] = [(); 2].map(|()| ClientId::random().unwrap());
        assert!(registry.hold("x", a, 1, 1) && !registry.hold("x", b, 1, 1) && registry.hold("y", b, 1, 1));
        assert!(registry.hold("x", a, 2, 1), "the same session again");
        registry.let_go("x", a, 1);
        assert!(!registry.hold("x", b, 1, 1), "the newer connect is still held");
        registry.let_go("x", a, 2);
        assert!(registry.hold("x", b, 1, 1));
        assert!(!registry.hold("z", a, 1, 0) && registry.browsers.len() == 2);
    }

    #[test]
    fn addresses_are_counted() {
        let registry = Registry::default();
        let capacity = Capacity { max_sessions: 10, max_per_address: 1 };
        let address = Some(IpAddr::from([127, 0, 0, 1]));
        assert_eq!(registry.reserve(address, capacity), Ok(()));
        assert_eq!(registry.reserve(address, capacity), Err(TooMany));
        assert_eq!(registry.reserve(None, capacity), Ok(()));
        registry.release(address);
        assert!(registry.addresses.is_empty());
        assert_eq!(registry.reserve(address, capacity), Ok(()));
    }
}

//! The one message a channel keeps for later subscribers.
//!
//! Names lie in an order by segments ([`order`]), so that wildcards go through neighbours, a page at a time and from
//! where they were; [`scan`] does so for many filters of one subscriber.
//! *Absent*: a tree, so nothing here depends on how deep names are.

mod order;
mod scan;

use std::collections::{BTreeSet, btree_set};
use std::ops::Bound;
use std::sync::Arc;

use ahash::{AHashMap, RandomState};
use parking_lot::RwLock;

use self::order::{Cursor, Name, Verdict, judge};
pub(crate) use self::scan::{Page, Scan};
use crate::channel::Channel;
use crate::filter::Filter;
use crate::message::Message;

/// Names looked at while the store is locked for one page. Publishers with retained messages wait meanwhile.
pub(crate) const PAGE_STEPS: usize = 512;

/// Expired messages taken out in one go.
pub(crate) const SWEEP_MESSAGES: usize = 256;

/// Parts of the table by name: growing or shrinking one is soon done.
const SHARDS: usize = 64;

#[derive(Debug)]
pub(crate) struct Retained {
    store: RwLock<Store>,
    max_messages: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Store {
    shards: Vec<AHashMap<Arc<str>, Arc<Message>>>,
    hasher: RandomState,
    order: BTreeSet<Name>,
    /// Those that have an end, by their end.
    expiring: BTreeSet<(u64, Arc<str>)>,
    messages: usize,
    bytes: usize,
}

/// How much a page may hold and look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) messages: usize,
    /// Weight; the first message of a page may have any.
    pub(crate) bytes: usize,
    pub(crate) steps: usize,
}

impl Default for Limits {
    /// As much as may be done in one go.
    fn default() -> Self {
        Self { messages: PAGE_STEPS, bytes: usize::MAX, steps: PAGE_STEPS }
    }
}

/// What somebody who goes through the store has found.
#[derive(Debug, Default)]
struct Found {
    messages: Vec<Arc<Message>>,
    bytes: usize,
}

/// Somebody's way through what matches one filter.
#[derive(Debug)]
pub(crate) struct Walk<'f> {
    filter: &'f Filter,
    cursor: Cursor,
    limit: usize,
    found: Found,
}

impl<'f> Walk<'f> {
    /// Up to `limit` messages after the channel `after`, whether that one keeps a message or not.
    pub(crate) fn new(filter: &'f Filter, after: Option<&Channel>, limit: usize) -> Self {
        let cursor = after.map_or(Cursor::Start, |channel| Cursor::After(Name(Arc::clone(channel.shared()))));
        Self { filter, cursor, limit, found: Found::default() }
    }

    pub(crate) fn into_messages(self) -> Vec<Arc<Message>> {
        self.found.messages
    }
}

impl Retained {
    pub(crate) fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self { store: RwLock::new(Store::new()), max_messages, max_bytes }
    }

    /// Whether a message of this weight may come in; the bound that says no.
    pub(crate) fn admits(&self, channel: &Channel, weight: usize) -> Result<(), usize> {
        let store = self.store.read();
        let old = store.find(channel.as_str()).map(|message| held(message));
        if store.bytes - old.unwrap_or(0) + weight + PLACE > self.max_bytes {
            return Err(self.max_bytes);
        }
        if old.is_none() && store.messages >= self.max_messages {
            return Err(self.max_messages);
        }
        Ok(())
    }

    /// Keeps `message` for its channel; the one it replaces is returned to be freed outside the caller's locks.
    pub(crate) fn set(&self, message: Arc<Message>) -> Option<Arc<Message>> {
        self.store.write().set(message)
    }

    /// As [`set`](Self::set), unless its channel keeps one that was published then or later: then that message is given back.
    pub(crate) fn set_newer(&self, message: Arc<Message>, now_ms: u64) -> Result<(), Arc<Message>> {
        let mut store = self.store.write();
        let held = store.find(message.channel().as_str()).filter(|held| !held.is_expired(now_ms));
        if held.is_some_and(|held| held.time_ms() >= message.time_ms()) {
            return Err(message);
        }
        let old = store.set(message);
        drop(store);
        drop(old);
        Ok(())
    }

    /// Forgets a channel's message.
    pub(crate) fn clear(&self, channel: &Channel) -> Option<Arc<Message>> {
        self.store.write().take(channel.shared())
    }

    pub(crate) fn find(&self, channel: &Channel, now_ms: u64) -> Option<Arc<Message>> {
        let store = self.store.read();
        store.find(channel.as_str()).filter(|message| !message.is_expired(now_ms)).cloned()
    }

    /// Leaves out those that are no longer the ones their channels keep.
    pub(crate) fn keep_current(&self, messages: &mut Vec<(Arc<Message>, u32)>) {
        let store = self.store.read();
        messages.retain(|(message, _)| {
            store.find(message.channel().as_str()).is_some_and(|now| Arc::ptr_eq(now, message))
        });
    }

    /// All that match, in the order of their names. The store is not locked for longer than a page takes.
    pub(crate) fn matching(&self, filter: &Filter, now_ms: u64) -> Vec<Arc<Message>> {
        if let Some(channel) = filter.as_literal() {
            return self.find(channel, now_ms).into_iter().collect();
        }
        let (mut found, mut cursor) = (Found::default(), Cursor::Start);
        let wanted = |message: &Message| !message.is_expired(now_ms);
        while {
            let limits = Limits { messages: usize::MAX, bytes: usize::MAX, steps: PAGE_STEPS };
            !self.go_on(filter, &mut cursor, limits, wanted, &mut found).is_over
        } {}
        found.messages
    }

    /// Goes on for somebody who wants up to `limit` messages; false once there are so many, or no more.
    pub(crate) fn walk(&self, walk: &mut Walk<'_>, now_ms: u64) -> bool {
        let Walk { filter, cursor, limit, found } = walk;
        let wanted = |message: &Message| !message.is_expired(now_ms);
        let limits = Limits { messages: *limit, bytes: usize::MAX, steps: PAGE_STEPS };
        let progress = self.go_on(filter, cursor, limits, wanted, found);
        !progress.is_over && found.messages.len() < *limit
    }

    /// Goes on from `cursor` with what matches `filter` and is `wanted`, up to the bounds.
    fn go_on(
        &self,
        filter: &Filter,
        cursor: &mut Cursor,
        limits: Limits,
        wanted: impl Fn(&Message) -> bool,
        found: &mut Found,
    ) -> Progress {
        let store = self.store.read();
        let mut steps = 0;
        'seek: loop {
            for name in store.after(cursor) {
                if steps >= limits.steps {
                    *cursor = Cursor::At(name.clone());
                    return Progress { steps, is_over: false };
                }
                steps += 1;
                match judge(filter, &name.0) {
                    Verdict::Next => {}
                    Verdict::Over => return Progress { steps, is_over: true },
                    Verdict::Seek(to) => {
                        *cursor = Cursor::At(Name(to.into()));
                        continue 'seek;
                    }
                    Verdict::Match => {
                        let Some(message) = store.find(&name.0).filter(|message| wanted(message)) else {
                            continue;
                        };
                        let is_full = found.messages.len() >= limits.messages
                            || !found.messages.is_empty() && found.bytes + message.weight() > limits.bytes;
                        if is_full {
                            *cursor = Cursor::At(name.clone());
                            return Progress { steps, is_over: false };
                        }
                        found.bytes += message.weight();
                        found.messages.push(Arc::clone(message));
                    }
                }
            }
            return Progress { steps, is_over: true };
        }
    }

    /// The next messages in order, whatever they are.
    fn next_messages(&self, cursor: &mut Cursor, count: usize) -> Vec<Arc<Message>> {
        let store = self.store.read();
        let names: Vec<&Name> = store.after(cursor).take(count).collect();
        let messages = names.iter().filter_map(|name| store.find(&name.0)).cloned().collect();
        if let Some(last) = names.last() {
            *cursor = Cursor::After((*last).clone());
        }
        messages
    }

    /// Takes out what is over, at most [`SWEEP_MESSAGES`]: to be freed outside every lock. Looks at nothing else.
    pub(crate) fn sweep(&self, now_ms: u64) -> Vec<Arc<Message>> {
        let is_over = |store: &Store| store.expiring.first().is_some_and(|(end, _)| *end <= now_ms);
        if !is_over(&self.store.read()) {
            return Vec::new();
        }
        let mut store = self.store.write();
        let mut over = Vec::new();
        while over.len() < SWEEP_MESSAGES && is_over(&store) {
            let Some((_, name)) = store.expiring.pop_first() else { break };
            over.extend(store.take(&name));
        }
        over
    }

    /// Number and bytes.
    pub(crate) fn usage(&self) -> (usize, usize) {
        let store = self.store.read();
        (store.messages, store.bytes)
    }
}

/// What came of going on.
struct Progress {
    steps: usize,
    /// Nothing that matches is left.
    is_over: bool,
}

/// What a message's places in the tables weigh.
const PLACE: usize = 96;

/// What a message weighs in here.
fn held(message: &Message) -> usize {
    message.weight() + PLACE
}

impl Store {
    /// Keeps it for its channel; the one it replaces.
    fn set(&mut self, message: Arc<Message>) -> Option<Arc<Message>> {
        let name = Arc::clone(message.channel().shared());
        self.messages += 1;
        self.bytes += held(&message);
        if let Some(end) = message.expires_at_ms() {
            self.expiring.insert((end, Arc::clone(&name)));
        }
        let shard = self.shard(&name);
        // The key stays the one that the order has, which the messages that follow share if they can.
        let old = match self.shards.get_mut(shard)?.get_mut(&*name) {
            Some(place) => Some(std::mem::replace(place, message)),
            None => {
                self.shards.get_mut(shard)?.insert(Arc::clone(&name), message);
                self.order.insert(Name(name));
                None
            }
        };
        if let Some(old) = &old {
            self.count_out(old);
        }
        old
    }

    fn new() -> Self {
        let shards = (0..SHARDS).map(|_| AHashMap::new()).collect();
        Self {
            shards,
            hasher: RandomState::new(),
            order: BTreeSet::new(),
            expiring: BTreeSet::new(),
            messages: 0,
            bytes: 0,
        }
    }

    fn shard(&self, name: &str) -> usize {
        self.hasher.hash_one(name) as usize % SHARDS
    }

    fn find(&self, name: &str) -> Option<&Arc<Message>> {
        self.shards.get(self.shard(name))?.get(name)
    }

    fn take(&mut self, name: &Arc<str>) -> Option<Arc<Message>> {
        let shard = self.shard(name);
        let shard = self.shards.get_mut(shard)?;
        let message = shard.remove(&**name)?;
        let room = shard.len() * 2;
        if shard.capacity() > 64 && room * 2 < shard.capacity() {
            shard.shrink_to(room);
        }
        self.order.remove(&Name(Arc::clone(name)));
        self.count_out(&message);
        Some(message)
    }

    fn count_out(&mut self, message: &Message) {
        self.messages -= 1;
        self.bytes -= held(message);
        if let Some(end) = message.expires_at_ms() {
            // The message that came in its place may end at the same time.
            let name = message.channel().shared();
            let next = self.find(name).and_then(|next| next.expires_at_ms());
            if next != Some(end) {
                self.expiring.remove(&(end, Arc::clone(name)));
            }
        }
    }

    fn after<'s>(&'s self, cursor: &Cursor) -> btree_set::Range<'s, Name> {
        let from = match cursor {
            Cursor::Start => Bound::Unbounded,
            Cursor::At(name) => Bound::Included(name),
            Cursor::After(name) => Bound::Excluded(name),
        };
        self.order.range::<Name, _>((from, Bound::Unbounded))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Publish;

    pub(super) fn message(channel: &str, ttl_ms: Option<u64>) -> Arc<Message> {
        let mut publish = Publish::new(Channel::parse(channel).unwrap(), "x");
        if let Some(ttl) = ttl_ms {
            publish = publish.ttl(Duration::from_millis(ttl));
        }
        Arc::new(publish.into_message(0, 1_000))
    }

    #[test]
    fn wildcards_find_what_the_filter_matches() {
        let retained = Retained::new(100, 1 << 20);
        let names = [
            "a", "a/b", "a/b/c", "a/", "/", "b/b", "$SYS/x", "$SYS", "x/y/z", "a!", "a!/b", "a/b!", "a\u{1}",
            "A/b", "b",
        ];
        for name in names {
            retained.set(message(name, None));
        }
        for text in [
            "#", "**", "*", "*/*", "a/#", "a/**", "a/*", "*/b", "*/b/#", "$SYS/#", "$SYS/*", "a", "nope/#",
            "*/*/z", "*/*/*", "a/*/c", "*/y/#",
        ] {
            let filter = Filter::parse(text).unwrap();
            let mut found: Vec<String> =
                retained.matching(&filter, 0).iter().map(|message| message.channel().to_string()).collect();
            let mut expected: Vec<String> = names
                .iter()
                .filter(|name| filter.matches(&Channel::parse(name).unwrap()))
                .map(ToString::to_string)
                .collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn pages_follow_one_another_whatever_was_the_last() {
        let retained = Retained::new(10_000, 1 << 30);
        for number in 0..1_000 {
            retained.set(message(&format!("a/{number:03}"), None));
            retained.set(message(&format!("b/{number:03}"), None));
        }
        let filter = Filter::parse("b/*").unwrap();
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let mut walk = Walk::new(&filter, after.as_ref(), 300);
            while retained.walk(&mut walk, 0) {}
            let page = walk.into_messages();
            all.extend(page.iter().map(|message| message.channel().to_string()));
            after = page.last().map(|message| message.channel().clone());
            if page.len() < 300 {
                break;
            }
            // The next page begins behind it all the same.
            retained.clear(after.as_ref().unwrap());
        }
        assert_eq!(all, (0..1_000).map(|number| format!("b/{number:03}")).collect::<Vec<_>>());
    }

    #[test]
    fn budgets_count_what_is_there() {
        let retained = Retained::new(2, 1 << 20);
        retained.set(message("a", None));
        retained.set(message("b", Some(10)));
        let channel = |text: &str| Channel::parse(text).unwrap();
        assert_eq!(retained.admits(&channel("c"), 1), Err(2));
        assert_eq!(retained.admits(&channel("a"), 1), Ok(()));
        assert_eq!(retained.admits(&channel("a"), 2 << 20), Err(1 << 20));
        assert!(retained.find(&channel("b"), 1_010).is_none());
        retained.sweep(1_010);
        assert_eq!(retained.usage().0, 1);
        retained.clear(&channel("a"));
        assert_eq!(retained.usage(), (0, 0));
        assert!(retained.store.read().order.is_empty());
    }

    #[test]
    fn the_sweep_looks_at_what_can_expire_and_takes_a_batch() {
        let retained = Retained::new(10_000, 1 << 30);
        for number in 0..1_000 {
            retained.set(message(&format!("stays/{number}"), None));
            retained.set(message(&format!("goes/{number}"), Some(10)));
        }
        // One is renewed, one is renewed with the same end, one stays for good.
        retained.set(message("goes/1", Some(20)));
        retained.set(message("goes/2", Some(10)));
        retained.set(message("goes/3", None));
        assert_eq!(retained.store.read().expiring.len(), 999);
        assert!(retained.sweep(1_009).is_empty());
        let mut batches = Vec::new();
        loop {
            let over = retained.sweep(1_010).len();
            batches.push(over);
            if over < SWEEP_MESSAGES {
                break;
            }
        }
        assert_eq!(batches, [256, 256, 256, 230]);
        assert_eq!(retained.usage().0, 1_002);
        assert_eq!(retained.sweep(1_020).len(), 1);
        assert!(retained.store.read().expiring.is_empty());
    }
}

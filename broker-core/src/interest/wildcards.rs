//! The subscriptions with wildcards of all subscribers.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::lists::{Hits, Lists};
use super::trie::{Change, Trie, Value};
use crate::channel::Channel;
use crate::filter::Filter;

/// Subscriptions with wildcards. While there are none, a publisher pays one relaxed load.
#[derive(Debug, Default)]
pub(crate) struct Wildcards {
    trie: RwLock<Trie<Lists>>,
    /// Changes with every edit: a publisher that matched before it took the log's lock sees that it must match again.
    version: AtomicU64,
    filters: AtomicUsize,
    bytes: AtomicUsize,
}

impl Value for Lists {
    fn is_empty(&self) -> bool {
        Lists::is_empty(self)
    }
}

impl Wildcards {
    /// Number of distinct filters; 0 means that nothing needs matching.
    pub(crate) fn filters(&self) -> usize {
        self.filters.load(Ordering::Relaxed)
    }

    /// Bytes that the tree holds, its lists aside.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Adds what `channel` hits; the number of subscriptions.
    pub(crate) fn collect(&self, channel: &Channel, hits: &mut Hits) -> u64 {
        let mut count = 0;
        self.visit(channel, &mut |lists| count += lists.collect(hits));
        count
    }

    /// As [`collect`](Self::collect), without a member of each group.
    pub(crate) fn collect_ungrouped(&self, channel: &Channel, hits: &mut Hits) -> u64 {
        let mut count = 0;
        self.visit(channel, &mut |lists| count += lists.collect_ungrouped(hits));
        count
    }

    /// Calls `visit` with the lists of every pattern that `channel` matches.
    #[inline]
    pub(crate) fn visit(&self, channel: &Channel, visit: &mut impl FnMut(&Lists)) {
        self.trie.read().visit(channel, visit);
    }

    /// Shows the lists of one filter, if there are any.
    pub(crate) fn look<T>(&self, filter: &Filter, look: impl FnOnce(&Lists) -> T) -> Option<T> {
        self.trie.read().get(filter).map(look)
    }

    /// Runs `edit` on the lists of one filter.
    pub(crate) fn edit<T>(&self, filter: &Filter, edit: impl FnOnce(&mut Lists) -> T) -> T {
        let mut trie = self.trie.write();
        let (result, change) = trie.edit(filter, edit);
        match change {
            Change::Added => _ = self.filters.fetch_add(1, Ordering::Relaxed),
            Change::Removed => _ = self.filters.fetch_sub(1, Ordering::Relaxed),
            Change::Kept => {}
        }
        self.bytes.store(trie.bytes(), Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Release);
        result
    }
}

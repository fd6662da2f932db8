//! Channels in use: an entry lives while it has a subscriber or something in the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::RandomState;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::lists::Lists;
use crate::channel::Channel;

/// Shards of the map: more than the threads that publish at once, so that they seldom meet.
const SHARDS: usize = 128;

/// One channel. Whoever holds its guard holds the channel's lock: that is where the order of its messages is made.
#[derive(Debug, Default)]
pub(crate) struct ChannelEntry {
    pub(crate) lists: Lists,
    /// The channel's newest recorded offset; 0 = none.
    pub(crate) last: u64,
}

#[derive(Debug)]
pub(crate) struct Registry {
    map: DashMap<Arc<str>, ChannelEntry, RandomState>,
    channels: AtomicUsize,
    max_channels: usize,
}

/// A channel's place in the map, there or not; its shard is locked while this lives.
pub(crate) type Place<'a> = Entry<'a, Arc<str>, ChannelEntry>;

impl Registry {
    pub(crate) fn new(max_channels: usize) -> Self {
        let map = DashMap::with_hasher_and_shard_amount(RandomState::new(), SHARDS);
        Self { map, channels: AtomicUsize::new(0), max_channels }
    }

    pub(crate) fn place(&self, channel: &Channel) -> Place<'_> {
        self.map.entry(Arc::clone(channel.shared()))
    }

    /// Counts a channel in that is about to be inserted; the bound if there are too many.
    pub(crate) fn admit(&self) -> Result<(), usize> {
        if self.channels.fetch_add(1, Ordering::Relaxed) >= self.max_channels {
            self.channels.fetch_sub(1, Ordering::Relaxed);
            return Err(self.max_channels);
        }
        Ok(())
    }

    /// Whether this channel may be there; the bound if there are too many.
    pub(crate) fn has_room_for(&self, channel: &Channel) -> Result<(), usize> {
        let has_room = self.len() < self.max_channels || self.map.contains_key(channel.as_str());
        if has_room { Ok(()) } else { Err(self.max_channels) }
    }

    /// Counts a channel in, whatever the bound: a message of it is kept already.
    pub(crate) fn count_in(&self) {
        self.channels.fetch_add(1, Ordering::Relaxed);
    }

    /// The channel's newest recorded offset, if it is known.
    pub(crate) fn last(&self, channel: &Channel) -> Option<u64> {
        self.map.get(channel.as_str()).map(|entry| entry.last)
    }

    /// Runs `edit` on a channel that exists, and removes it if nothing is left.
    pub(crate) fn edit<T>(
        &self,
        channel: &Channel,
        evicted_through: u64,
        edit: impl FnOnce(&mut Lists) -> T,
    ) -> Option<T> {
        let Entry::Occupied(mut place) = self.place(channel) else { return None };
        let result = edit(&mut place.get_mut().lists);
        let entry = place.get();
        if entry.lists.is_empty() && entry.last <= evicted_through {
            place.remove();
            self.channels.fetch_sub(1, Ordering::Relaxed);
        }
        Some(result)
    }

    /// Forgets a channel whose message at `offset` left the log, if that was its last and nobody is subscribed.
    pub(crate) fn forget(&self, channel: &Channel, offset: u64) {
        let gone =
            self.map.remove_if(channel.as_str(), |_, entry| entry.lists.is_empty() && entry.last <= offset);
        if gone.is_some() {
            self.channels.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Returns once every guard that is held now has been let go of.
    pub(crate) fn wait_for_guards(&self) {
        // Counts what each shard has, under its lock.
        _ = self.map.len();
    }

    pub(crate) fn len(&self) -> usize {
        self.channels.load(Ordering::Relaxed)
    }

    /// Subscriptions on one channel, and its newest offset.
    pub(crate) fn look(&self, channel: &Channel) -> Option<(usize, u64)> {
        self.map.get(channel.as_str()).map(|entry| (entry.lists.len(), entry.last))
    }

    /// Shows the lists of one channel, if it has an entry.
    pub(crate) fn visit(&self, channel: &Channel, visit: impl FnOnce(&Lists)) {
        if let Some(entry) = self.map.get(channel.as_str()) {
            visit(&entry.lists);
        }
    }

    /// The names with a prefix that come after `after`, in order, at most `limit`. Copies names out: no guard is held
    /// when it returns.
    pub(crate) fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<(Channel, usize)> {
        let mut names: std::collections::BTreeMap<Arc<str>, usize> = std::collections::BTreeMap::new();
        for entry in &self.map {
            let name = entry.key();
            if !name.starts_with(prefix) || after.is_some_and(|after| **name <= *after) {
                continue;
            }
            names.insert(Arc::clone(name), entry.lists.len());
            if names.len() > limit {
                names.pop_last();
            }
        }
        names.into_iter().map(|(name, subscribers)| (Channel::from_shared(name), subscribers)).collect()
    }
}

//! Who holds how many of the remembered keys, and whose go first.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::config::IdempotencyConfig;

/// Keys by their holder, oldest first.
#[derive(Debug)]
pub(super) struct Ledger {
    bounds: IdempotencyConfig,
    holders: HashMap<u128, Holder>,
    /// Holders by the bytes of their keys.
    by_weight: BTreeSet<(usize, u128)>,
    /// Holders by the time of their oldest key.
    by_age: BTreeSet<(Instant, u128)>,
    keys: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Holder {
    bytes: usize,
    keys: VecDeque<Held>,
}

/// One remembered key.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) name: Arc<[u8]>,
    pub(super) since: Instant,
}

/// What a key takes beside its name: map entries here and there, its place in its holder's order, shared headers.
const KEY_OVERHEAD: usize = 256;

/// What a holder takes beside its keys.
const HOLDER_OVERHEAD: usize = 384;

/// Keys that are forgotten on the way at most, so that nobody pays for all that were left behind.
const STEP: usize = 8;

impl Ledger {
    pub(super) fn new(bounds: IdempotencyConfig) -> Self {
        Ledger {
            bounds,
            holders: HashMap::new(),
            by_weight: BTreeSet::new(),
            by_age: BTreeSet::new(),
            keys: 0,
            bytes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.keys
    }

    /// Whether a holder may have one more key. Those whose time is over leave its budget first, and are in `forgotten`.
    pub(super) fn has_room(
        &mut self,
        holder: u128,
        name: &[u8],
        now: Instant,
        forgotten: &mut Vec<Held>,
    ) -> bool {
        let weight = name.len() + KEY_OVERHEAD;
        loop {
            let Some(held) = self.holders.get(&holder) else { return true };
            if held.keys.len() < self.bounds.max_keys_per_holder
                && held.bytes + weight <= self.bounds.max_bytes_per_holder
            {
                return true;
            }
            if !held.keys.front().is_some_and(|oldest| self.is_over(oldest.since, now)) {
                return false;
            }
            forgotten.extend(self.pop(holder));
        }
    }

    /// Notes a key. What had to go for it is in `forgotten`: keys whose time is over, and at the bounds of all holders
    /// the oldest of whoever holds most. The count of those is returned.
    pub(super) fn add(&mut self, holder: u128, key: Held, now: Instant, forgotten: &mut Vec<Held>) -> usize {
        let weight = key.name.len() + KEY_OVERHEAD;
        self.change(holder, |holder| {
            holder.bytes += weight;
            holder.keys.push_back(key);
        });
        self.keys += 1;
        self.bytes += weight;
        for _ in 0..STEP {
            let Some((since, oldest)) = self.by_age.first().copied() else { break };
            if !self.is_over(since, now) {
                break;
            }
            forgotten.extend(self.pop(oldest));
        }
        let mut early = 0;
        while self.keys > self.bounds.max_keys
            || self.bytes + self.holders.len() * HOLDER_OVERHEAD > self.bounds.max_bytes
        {
            let Some((_, largest)) = self.by_weight.last().copied() else { break };
            forgotten.extend(self.pop(largest));
            early += 1;
        }
        early
    }

    fn is_over(&self, since: Instant, now: Instant) -> bool {
        now.saturating_duration_since(since) >= self.bounds.window
    }

    /// Takes a holder's oldest key out.
    fn pop(&mut self, holder: u128) -> Option<Held> {
        let mut oldest = None;
        self.change(holder, |holder| {
            oldest = holder.keys.pop_front();
            holder.bytes -= oldest.as_ref().map_or(0, |key| key.name.len() + KEY_OVERHEAD);
        });
        let key = oldest?;
        self.keys -= 1;
        self.bytes -= key.name.len() + KEY_OVERHEAD;
        Some(key)
    }

    /// Keeps a holder's places in both orders; one without keys is no holder.
    fn change(&mut self, id: u128, change: impl FnOnce(&mut Holder)) {
        let holder = self.holders.entry(id).or_default();
        self.by_weight.remove(&(holder.bytes, id));
        if let Some(oldest) = holder.keys.front() {
            self.by_age.remove(&(oldest.since, id));
        }
        change(holder);
        match holder.keys.front() {
            Some(oldest) => {
                self.by_age.insert((oldest.since, id));
                self.by_weight.insert((holder.bytes, id));
                if holder.keys.capacity() > 4 * holder.keys.len().max(16) {
                    holder.keys.shrink_to(2 * holder.keys.len());
                }
            }
            None => {
                self.holders.remove(&id);
            }
        }
    }
}

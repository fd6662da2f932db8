//! Publishes that may be repeated: a function that timed out is run again with the same input.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use broker_core::Receipt;
use parking_lot::{Mutex, MutexGuard};

use crate::error::Error;

/// Receipts by (principal, channel, key), for a while.
pub(crate) struct Idempotency {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    /// A second, independent hasher: together they tell bodies apart by 128 bits.
    second: RandomState,
    window: Duration,
    max_keys: usize,
    max_bytes: usize,
    keys: AtomicUsize,
    bytes: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    entries: HashMap<Arc<[u8]>, Entry>,
    /// In order of time, as all are kept equally long.
    order: VecDeque<(Instant, Arc<[u8]>)>,
}

struct Entry {
    fingerprint: u128,
    receipt: Receipt,
}

/// What a publish with a key came to.
pub(crate) enum Outcome {
    First(Receipt),
    Repeated(Receipt),
}

/// A map entry, its place in the order and two shared headers, in bytes.
const OVERHEAD: usize = 192;

impl Idempotency {
    pub(crate) fn new(window: Duration, max_keys: usize, max_bytes: usize) -> Self {
        Idempotency {
            shards: (0..64).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            second: RandomState::new(),
            window,
            max_keys,
            max_bytes,
            keys: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// 128 bits of everything that makes a message.
    pub(crate) fn fingerprint(&self, parts: &impl std::hash::Hash) -> u128 {
        u128::from(self.hasher.hash_one(parts)) << 64 | u128::from(self.second.hash_one(parts))
    }

    /// Publishes unless the key was used within the window. The shard stays locked meanwhile, so that a second one at the
    /// same instant waits for the first result; `publish` never blocks. A failure is not remembered.
    pub(crate) fn once(
        &self,
        now: Instant,
        key: &[&str],
        fingerprint: u128,
        publish: impl FnOnce() -> Result<Receipt, Error>,
    ) -> Result<Outcome, Error> {
        let mut name = Vec::with_capacity(key.iter().map(|part| part.len() + 4).sum());
        for part in key {
            // Lengths keep ("a", "bc") and ("ab", "c") apart.
            name.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            name.extend_from_slice(part.as_bytes());
        }
        let at = (self.hasher.hash_one(&name) as usize) % self.shards.len();
        let Some(shard) = self.shards.get(at) else { return Err(Error::IdempotencyFull) };
        let weight = name.len() + OVERHEAD;
        let mut shard = shard.lock();
        self.forget_old(&mut shard, now);
        if !self.has_room(weight) && !shard.entries.contains_key(&name[..]) {
            // Old keys of other shards may hold the room. One shard is locked at a time.
            let here = MutexGuard::mutex(&shard);
            drop(shard);
            for shard in &self.shards {
                self.forget_old(&mut shard.lock(), now);
            }
            shard = here.lock();
        }
        if let Some(entry) = shard.entries.get(&name[..]) {
            return if entry.fingerprint == fingerprint {
                Ok(Outcome::Repeated(entry.receipt))
            } else {
                Err(Error::IdempotencyMismatch)
            };
        }
        if !self.has_room(weight) {
            return Err(Error::IdempotencyFull);
        }
        let receipt = publish()?;
        let name: Arc<[u8]> = name.into();
        self.keys.fetch_add(1, Relaxed);
        self.bytes.fetch_add(weight, Relaxed);
        shard.entries.insert(Arc::clone(&name), Entry { fingerprint, receipt });
        shard.order.push_back((now, name));
        Ok(Outcome::First(receipt))
    }

    fn has_room(&self, weight: usize) -> bool {
        self.keys.load(Relaxed) < self.max_keys && self.bytes.load(Relaxed) + weight <= self.max_bytes
    }

    /// Keys remembered now, or forgotten without anybody having looked.
    pub(crate) fn len(&self) -> usize {
        self.keys.load(Relaxed)
    }

    fn forget_old(&self, shard: &mut Shard, now: Instant) {
        while let Some((since, _)) = shard.order.front()
            && now.duration_since(*since) >= self.window
            && let Some((_, name)) = shard.order.pop_front()
        {
            shard.entries.remove(&name);
            self.keys.fetch_sub(1, Relaxed);
            self.bytes.fetch_sub(name.len() + OVERHEAD, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker_core::{MessageId, PublishError};

    fn receipt(offset: u64) -> Receipt {
        Receipt { id: Some(MessageId { epoch: 1, offset }), time_ms: 0, receivers: 0 }
    }

    fn offset(outcome: Result<Outcome, Error>) -> (u64, bool) {
        match outcome {
            Ok(Outcome::First(receipt)) => (receipt.id.unwrap().offset, false),
            Ok(Outcome::Repeated(receipt)) => (receipt.id.unwrap().offset, true),
            Err(error) => panic!("{error}"),
        }
    }

    const WINDOW: Duration = Duration::from_secs(300);

    #[test]
    fn a_key_is_remembered_for_the_window_and_per_channel() {
        let keys = Idempotency::new(WINDOW, 10, 1 << 20);
        let start = Instant::now();
        let once = |now, key: &[&str], offset| keys.once(now, key, 7, || Ok(receipt(offset)));
        assert_eq!(offset(once(start, &["u", "c", "k"], 1)), (1, false));
        assert_eq!(offset(once(start + WINDOW / 2, &["u", "c", "k"], 2)), (1, true));
        assert_eq!(offset(once(start, &["u", "d", "k"], 3)), (3, false));
        assert_eq!(offset(once(start, &["v", "c", "k"], 4)), (4, false));
        assert_eq!(offset(once(start, &["u", "ck", ""], 5)), (5, false));
        assert_eq!(offset(once(start + WINDOW, &["u", "c", "k"], 6)), (6, false));
    }

    #[test]
    fn another_message_under_the_key_is_a_conflict() {
        let keys = Idempotency::new(WINDOW, 10, 1 << 20);
        let now = Instant::now();
        let (one, two) = (keys.fingerprint(&("a", 1)), keys.fingerprint(&("a", 2)));
        assert_ne!(one, two);
        keys.once(now, &["k"], one, || Ok(receipt(1))).ok().unwrap();
        assert!(matches!(keys.once(now, &["k"], two, || Ok(receipt(2))), Err(Error::IdempotencyMismatch)));
    }

    #[test]
    fn a_failure_claims_nothing() {
        let keys = Idempotency::new(WINDOW, 10, 1 << 20);
        let now = Instant::now();
        assert!(keys.once(now, &["k"], 1, || Err(PublishError::Closed.into())).is_err());
        assert_eq!(offset(keys.once(now, &["k"], 2, || Ok(receipt(2)))), (2, false));
    }

    #[test]
    fn at_the_bound_nothing_is_forgotten_early() {
        for keys in [Idempotency::new(WINDOW, 2, 1 << 20), Idempotency::new(WINDOW, 100, 2 * (OVERHEAD + 5))]
        {
            let now = Instant::now();
            for name in ["a", "b"] {
                keys.once(now, &[name], 1, || Ok(receipt(1))).ok().unwrap();
            }
            assert!(matches!(keys.once(now, &["c"], 1, || Ok(receipt(1))), Err(Error::IdempotencyFull)));
            assert_eq!(offset(keys.once(now, &["a"], 1, || Ok(receipt(9)))), (1, true));
            let later = now + WINDOW;
            assert_eq!(offset(keys.once(later, &["c"], 1, || Ok(receipt(2)))), (2, false), "room again");
            assert_eq!(offset(keys.once(later, &["d"], 1, || Ok(receipt(3)))), (3, false));
        }
    }

    #[test]
    fn two_at_the_same_instant_publish_once() {
        let keys = Arc::new(Idempotency::new(WINDOW, 10, 1 << 20));
        let published = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (keys, published) = (Arc::clone(&keys), Arc::clone(&published));
                std::thread::spawn(move || {
                    let publish = || Ok(receipt(published.fetch_add(1, Relaxed) as u64 + 1));
                    offset(keys.once(Instant::now(), &["k"], 1, publish)).0
                })
            })
            .collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 1));
        assert_eq!(published.load(Relaxed), 1);
    }
}

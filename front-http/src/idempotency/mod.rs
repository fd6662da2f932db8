//! Publishes that may be repeated: a function that timed out is run again with the same input.

mod ledger;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use broker_core::Receipt;
use parking_lot::Mutex;

use self::ledger::{Held, Ledger};
use crate::error::Error;

/// Receipts by (principal, channel, key), for a while.
///
/// Who holds them is another question than whose they are: a function that is run again elsewhere comes from another address, with the
/// same key. A holder is a principal at an address, has a budget of its own, and at the bounds of all it is the one who holds
/// most that loses its oldest: nobody can fill the memory for everybody.
pub(crate) struct Idempotency {
    shards: Box<[Mutex<Shard>]>,
    /// Locked within a shard, or alone.
    ledger: Mutex<Ledger>,
    hasher: RandomState,
    /// A second, independent hasher: together they tell bodies apart by 128 bits.
    second: RandomState,
    window: Duration,
    /// Keys forgotten before their time.
    early: AtomicU64,
}

/// How much is remembered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) max_keys: usize,
    pub(crate) max_bytes: usize,
    pub(crate) max_holder_keys: usize,
    pub(crate) max_holder_bytes: usize,
}

type Shard = HashMap<Arc<[u8]>, Entry>;

struct Entry {
    fingerprint: u128,
    since: Instant,
    receipt: Receipt,
}

/// What a publish with a key came to.
pub(crate) enum Outcome {
    First(Receipt),
    Repeated(Receipt),
}

/// A key as a request gives it.
pub(crate) struct Key<'a> {
    pub(crate) user: &'a str,
    pub(crate) address: Option<IpAddr>,
    pub(crate) channel: &'a str,
    pub(crate) key: &'a str,
}

impl Idempotency {
    pub(crate) fn new(window: Duration, bounds: Bounds) -> Self {
        Idempotency {
            shards: (0..64).map(|_| Mutex::default()).collect(),
            ledger: Mutex::new(Ledger::new(window, bounds)),
            hasher: RandomState::new(),
            second: RandomState::new(),
            window,
            early: AtomicU64::new(0),
        }
    }

    /// 128 bits of everything that makes a message.
    pub(crate) fn fingerprint(&self, parts: &impl Hash) -> u128 {
        u128::from(self.hasher.hash_one(parts)) << 64 | u128::from(self.second.hash_one(parts))
    }

    /// Publishes unless the key was used within the window. The shard stays locked meanwhile, so that a second one at the
    /// same instant waits for the first result; `publish` never blocks. A failure is not remembered.
    pub(crate) fn once(
        &self,
        now: Instant,
        key: &Key<'_>,
        fingerprint: u128,
        publish: impl FnOnce() -> Result<Receipt, Error>,
    ) -> Result<Outcome, Error> {
        let name = name_of(key);
        let holder = self.fingerprint(&(key.user, key.address.map(network)));
        let mut forgotten = Vec::new();
        let outcome = self.publish_as(now, name, holder, fingerprint, publish, &mut forgotten);
        // One shard is locked at a time.
        for Held { name, since } in forgotten {
            let Some(shard) = self.shard(&name) else { continue };
            let mut shard = shard.lock();
            // It may have been used again since.
            if shard.get(&name).is_some_and(|entry| entry.since == since) {
                shard.remove(&name);
            }
        }
        outcome
    }

    fn publish_as(
        &self,
        now: Instant,
        name: Arc<[u8]>,
        holder: u128,
        fingerprint: u128,
        publish: impl FnOnce() -> Result<Receipt, Error>,
        forgotten: &mut Vec<Held>,
    ) -> Result<Outcome, Error> {
        let Some(shard) = self.shard(&name) else { return Err(Error::IdempotencyFull) };
        let mut shard = shard.lock();
        let known = shard.get(&name);
        if let Some(entry) = known.filter(|entry| now.saturating_duration_since(entry.since) < self.window) {
            return if entry.fingerprint == fingerprint {
                Ok(Outcome::Repeated(entry.receipt))
            } else {
                Err(Error::IdempotencyMismatch)
            };
        }
        if !self.ledger.lock().has_room(holder, &name, now, forgotten) {
            return Err(Error::IdempotencyFull);
        }
        let receipt = publish()?;
        // One under this name whose time is over stays in its holder's order until its turn comes.
        shard.insert(Arc::clone(&name), Entry { fingerprint, since: now, receipt });
        let early = self.ledger.lock().add(holder, Held { name, since: now }, now, forgotten);
        if early > 0 {
            self.early.fetch_add(early as u64, Relaxed);
        }
        Ok(Outcome::First(receipt))
    }

    fn shard(&self, name: &[u8]) -> Option<&Mutex<Shard>> {
        self.shards.get(self.hasher.hash_one(name) as usize % self.shards.len())
    }

    /// Keys remembered now, or forgotten without anybody having looked.
    pub(crate) fn len(&self) -> usize {
        self.ledger.lock().len()
    }

    /// Keys forgotten before their time so far.
    pub(crate) fn forgotten_early(&self) -> u64 {
        self.early.load(Relaxed)
    }
}

fn name_of(key: &Key<'_>) -> Arc<[u8]> {
    let parts = [key.user, key.channel, key.key];
    let mut name = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
    for part in parts {
        // Lengths keep ("a", "bc") and ("ab", "c") apart.
        name.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    name.into()
}

/// An address as far as somebody is behind it: who has one of IPv6 has the 64 bits below, too.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker_core::{MessageId, PublishError};
    use std::sync::atomic::AtomicUsize;

    fn receipt(offset: u64) -> Receipt {
        Receipt { id: Some(MessageId::new(1, offset)), time_ms: 0, receivers: 0 }
    }

    fn offset(outcome: Result<Outcome, Error>) -> (u64, bool) {
        match outcome {
            Ok(Outcome::First(receipt)) => (receipt.id.unwrap().offset(), false),
            Ok(Outcome::Repeated(receipt)) => (receipt.id.unwrap().offset(), true),
            Err(error) => panic!("{error}"),
        }
    }

    const WINDOW: Duration = Duration::from_secs(300);
    const WIDE: Bounds =
        Bounds { max_keys: 1_000, max_bytes: 1 << 20, max_holder_keys: 1_000, max_holder_bytes: 1 << 20 };

    fn key<'a>(user: &'a str, channel: &'a str, key: &'a str) -> Key<'a> {
        Key { user, address: None, channel, key }
    }

    fn from<'a>(address: &str, name: &'a str) -> Key<'a> {
        Key { user: "", address: Some(address.parse().unwrap()), channel: "c", key: name }
    }

    fn entries(keys: &Idempotency) -> usize {
        keys.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    #[test]
    fn a_key_is_remembered_for_the_window_and_per_channel() {
        let keys = Idempotency::new(WINDOW, WIDE);
        let start = Instant::now();
        let once = |now, name, offset| keys.once(now, &name, 7, || Ok(receipt(offset)));
        assert_eq!(offset(once(start, key("u", "c", "k"), 1)), (1, false));
        assert_eq!(offset(once(start + WINDOW / 2, key("u", "c", "k"), 2)), (1, true));
        assert_eq!(offset(once(start, key("u", "d", "k"), 3)), (3, false));
        assert_eq!(offset(once(start, key("v", "c", "k"), 4)), (4, false));
        assert_eq!(offset(once(start, key("u", "ck", ""), 5)), (5, false));
        assert_eq!(offset(once(start + WINDOW, key("u", "c", "k"), 6)), (6, false));
        assert_eq!(offset(once(start + WINDOW, key("u", "c", "k"), 7)), (6, true));
    }

    #[test]
    fn a_key_is_the_same_from_wherever_it_comes() {
        let keys = Idempotency::new(WINDOW, WIDE);
        let now = Instant::now();
        assert_eq!(offset(keys.once(now, &from("10.0.0.1", "k"), 7, || Ok(receipt(1)))), (1, false));
        assert_eq!(offset(keys.once(now, &from("10.0.0.2", "k"), 7, || Ok(receipt(2)))), (1, true));
    }

    #[test]
    fn another_message_under_the_key_is_a_conflict() {
        let keys = Idempotency::new(WINDOW, WIDE);
        let now = Instant::now();
        let (one, two) = (keys.fingerprint(&("a", 1)), keys.fingerprint(&("a", 2)));
        assert_ne!(one, two);
        keys.once(now, &key("", "", "k"), one, || Ok(receipt(1))).ok().unwrap();
        let other = keys.once(now, &key("", "", "k"), two, || Ok(receipt(2)));
        assert!(matches!(other, Err(Error::IdempotencyMismatch)));
    }

    #[test]
    fn a_failure_claims_nothing() {
        let keys = Idempotency::new(WINDOW, WIDE);
        let now = Instant::now();
        assert!(keys.once(now, &key("", "", "k"), 1, || Err(PublishError::Closed.into())).is_err());
        assert_eq!(offset(keys.once(now, &key("", "", "k"), 2, || Ok(receipt(2)))), (2, false));
        assert_eq!((keys.len(), entries(&keys)), (1, 1));
    }

    #[test]
    fn one_holder_fills_its_own_budget_and_nobody_elses() {
        for bounds in
            [Bounds { max_holder_keys: 2, ..WIDE }, Bounds { max_holder_bytes: 2 * (256 + 14), ..WIDE }]
        {
            let keys = Idempotency::new(WINDOW, bounds);
            let now = Instant::now();
            for name in ["a", "b"] {
                keys.once(now, &from("10.0.0.1", name), 1, || Ok(receipt(1))).ok().unwrap();
            }
            let full = keys.once(now, &from("10.0.0.1", "c"), 1, || Ok(receipt(1)));
            assert!(matches!(full, Err(Error::IdempotencyFull)), "nothing of its own is forgotten early");
            assert_eq!(offset(keys.once(now, &from("10.0.0.1", "a"), 1, || Ok(receipt(9)))), (1, true));
            for other in ["10.0.0.2", "2001:db8::1"] {
                assert_eq!(offset(keys.once(now, &from(other, other), 1, || Ok(receipt(2)))), (2, false));
            }
            let user = Key { user: "ann", ..from("10.0.0.1", "c") };
            assert_eq!(offset(keys.once(now, &user, 1, || Ok(receipt(3)))), (3, false), "another principal");
            let later = now + WINDOW;
            for name in ["c", "d"] {
                assert_eq!(
                    offset(keys.once(later, &from("10.0.0.1", name), 1, || Ok(receipt(4)))),
                    (4, false),
                    "room again"
                );
            }
            assert_eq!(keys.forgotten_early(), 0);
        }
    }

    #[test]
    fn at_the_bound_of_all_whoever_holds_most_loses_its_oldest() {
        let bounds = Bounds { max_keys: 10, max_holder_keys: 8, ..WIDE };
        let keys = Idempotency::new(WINDOW, bounds);
        let now = Instant::now();
        for name in ["0", "1", "2", "3", "4", "5", "6", "7"] {
            keys.once(now, &from("2001:db8::1", name), 1, || Ok(receipt(1))).ok().unwrap();
        }
        let full = keys.once(now, &from("2001:db8::2", "8"), 1, || Ok(receipt(1)));
        assert!(
            matches!(full, Err(Error::IdempotencyFull)),
            "its neighbour in the same network is the same holder"
        );
        for at in 0..5 {
            let address = format!("10.0.0.{at}");
            assert_eq!(offset(keys.once(now, &from(&address, &address), 1, || Ok(receipt(2)))), (2, false));
            assert!(keys.len() <= 10);
        }
        assert_eq!((keys.len(), entries(&keys), keys.forgotten_early()), (10, 10, 3));
        for at in 0..5 {
            let address = format!("10.0.0.{at}");
            assert_eq!(offset(keys.once(now, &from(&address, &address), 1, || Ok(receipt(3)))), (2, true));
        }
        assert_eq!(offset(keys.once(now, &from("2001:db8::1", "3"), 1, || Ok(receipt(3)))), (1, true));
        assert_eq!(
            offset(keys.once(now, &from("10.0.0.9", "0"), 1, || Ok(receipt(3)))),
            (3, false),
            "forgotten"
        );
    }

    #[test]
    fn many_small_holders_are_bounded_by_what_they_take() {
        let bounds = Bounds { max_bytes: 100 * (256 + 384 + 20), ..WIDE };
        let keys = Idempotency::new(WINDOW, bounds);
        let now = Instant::now();
        for at in 0..500_u32 {
            let address = std::net::Ipv4Addr::from_bits(at);
            keys.once(now, &from(&address.to_string(), &at.to_string()), 1, || Ok(receipt(1))).ok().unwrap();
        }
        assert!((90..=110).contains(&keys.len()), "{}", keys.len());
        assert_eq!(entries(&keys), keys.len());
    }

    #[test]
    fn what_is_over_is_forgotten_as_others_come() {
        let keys = Idempotency::new(WINDOW, WIDE);
        let now = Instant::now();
        for at in 0..100 {
            keys.once(now, &key("", "c", &at.to_string()), 1, || Ok(receipt(1))).ok().unwrap();
        }
        for at in 0..20 {
            keys.once(now + WINDOW, &key("new", "c", &at.to_string()), 1, || Ok(receipt(2))).ok().unwrap();
        }
        assert_eq!((keys.len(), entries(&keys)), (20, 20));
    }

    #[test]
    fn two_at_the_same_instant_publish_once() {
        let keys = Arc::new(Idempotency::new(WINDOW, WIDE));
        let published = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (keys, published) = (Arc::clone(&keys), Arc::clone(&published));
                std::thread::spawn(move || {
                    let publish = || Ok(receipt(published.fetch_add(1, Relaxed) as u64 + 1));
                    offset(keys.once(Instant::now(), &key("", "", "k"), 1, publish)).0
                })
            })
            .collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 1));
        assert_eq!(published.load(Relaxed), 1);
    }
}

//! Publishes that may be repeated: a function that timed out is run again with the same input.

mod key;
mod ledger;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::ledger::{Held, Ledger};
use crate::config::IdempotencyConfig;
use crate::error::{PublishError, PublishOnceError};
use crate::message::{KeyedReceipt, Publish, Receipt};

pub use self::key::{IdempotencyKey, KeptKey};

/// Receipts by (user, channel, key), for a while, in memory. An engine that keeps the messages keeps their keys too,
/// with each message: those do not come here.
///
/// Who holds them is another question than whose they are: a function that is run again elsewhere comes from another
/// address, with the same key. A holder is a user at an address, has a budget of its own, and at the bounds of all it
/// is the one who holds most that loses its oldest: nobody can fill the memory for everybody.
pub(crate) struct Idempotency {
    shards: Box<[Mutex<Shard>]>,
    /// Locked within a shard, or alone.
    ledger: Mutex<Ledger>,
    hasher: RandomState,
    /// A second, independent hasher: together they tell publishes apart by 128 bits.
    second: RandomState,
    window: Duration,
    /// Keys forgotten before their time.
    early: AtomicU64,
}

type Shard = HashMap<Arc<[u8]>, Entry>;

struct Entry {
    fingerprint: u128,
    since: Instant,
    receipt: Receipt,
}

/// A keyed publish as it is remembered.
pub(crate) struct Claim {
    /// User, channel and key.
    name: Arc<[u8]>,
    /// Against whose budget it counts.
    holder: u128,
    /// Everything that makes the message: another one under the same name is a conflict.
    fingerprint: u128,
}

impl Idempotency {
    pub(crate) fn new(config: IdempotencyConfig) -> Self {
        Idempotency {
            shards: (0..64).map(|_| Mutex::default()).collect(),
            ledger: Mutex::new(Ledger::new(config)),
            hasher: RandomState::new(),
            second: RandomState::new(),
            window: config.window,
            early: AtomicU64::new(0),
        }
    }

    /// What `publish` is known by under `key`.
    pub(crate) fn claim(&self, key: &IdempotencyKey<'_>, publish: &Publish) -> Claim {
        Claim {
            name: key.name_on(publish.channel().as_str()).into(),
            holder: self.fingerprint(&key.holder()),
            fingerprint: self.fingerprint(publish),
        }
    }

    fn fingerprint(&self, value: &impl Hash) -> u128 {
        u128::from(self.hasher.hash_one(value)) << 64 | u128::from(self.second.hash_one(value))
    }

    /// Publishes unless the name was used within the window. The shard stays locked meanwhile, so that a second one at
    /// the same instant waits for the first result; `publish` never blocks. A failure is not remembered.
    pub(crate) fn once(
        &self,
        now: Instant,
        claim: Claim,
        publish: impl FnOnce() -> Result<Receipt, PublishError>,
    ) -> Result<KeyedReceipt, PublishOnceError> {
        let mut forgotten = Vec::new();
        let outcome = self.publish_as(now, claim, publish, &mut forgotten);
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
        claim: Claim,
        publish: impl FnOnce() -> Result<Receipt, PublishError>,
        forgotten: &mut Vec<Held>,
    ) -> Result<KeyedReceipt, PublishOnceError> {
        let Claim { name, holder, fingerprint } = claim;
        let Some(shard) = self.shard(&name) else { return Err(PublishOnceError::Full) };
        let mut shard = shard.lock();
        let known = shard.get(&name);
        if let Some(entry) = known.filter(|entry| now.saturating_duration_since(entry.since) < self.window) {
            return if entry.fingerprint == fingerprint {
                Ok(KeyedReceipt { receipt: entry.receipt, duplicate: true })
            } else {
                Err(PublishOnceError::Conflict)
            };
        }
        if !self.ledger.lock().has_room(holder, &name, now, forgotten) {
            return Err(PublishOnceError::Full);
        }
        let receipt = publish()?;
        // One under this name whose time is over stays in its holder's order until its turn comes.
        shard.insert(Arc::clone(&name), Entry { fingerprint, since: now, receipt });
        let early = self.ledger.lock().add(holder, Held { name, since: now }, now, forgotten);
        if early > 0 {
            self.early.fetch_add(early as u64, Relaxed);
        }
        Ok(KeyedReceipt { receipt, duplicate: false })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Channel;
    use crate::message::MessageId;
    use std::sync::atomic::AtomicUsize;

    fn receipt(offset: u64) -> Receipt {
        Receipt { id: Some(MessageId::new(1, offset)), time_ms: 0, receivers: 0 }
    }

    fn offset(outcome: Result<KeyedReceipt, PublishOnceError>) -> (u64, bool) {
        match outcome {
            Ok(KeyedReceipt { receipt, duplicate }) => (receipt.id.unwrap().offset(), duplicate),
            Err(error) => panic!("{error}"),
        }
    }

    const WINDOW: Duration = Duration::from_secs(300);
    const WIDE: IdempotencyConfig = IdempotencyConfig {
        window: WINDOW,
        max_keys: 1_000,
        max_bytes: 1 << 20,
        max_keys_per_holder: 1_000,
        max_bytes_per_holder: 1 << 20,
    };

    /// A key and the channel that it is used on.
    type Named<'a> = (IdempotencyKey<'a>, &'a str);

    fn key<'a>(user: &'a str, channel: &'a str, text: &'a str) -> Named<'a> {
        (IdempotencyKey { user, ..IdempotencyKey::new(text) }, channel)
    }

    fn from<'a>(address: &str, text: &'a str) -> Named<'a> {
        (IdempotencyKey { address: Some(address.parse().unwrap()), ..IdempotencyKey::new(text) }, "c")
    }

    /// Publishes `payload` under a key, which is answered as `published` says.
    fn once(
        keys: &Idempotency,
        now: Instant,
        (key, channel): &Named<'_>,
        payload: u64,
        published: impl FnOnce() -> Result<Receipt, PublishError>,
    ) -> Result<KeyedReceipt, PublishOnceError> {
        let publish = Publish::new(Channel::parse(channel).unwrap(), payload.to_string());
        keys.once(now, keys.claim(key, &publish), published)
    }

    fn entries(keys: &Idempotency) -> usize {
        keys.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    #[test]
    fn a_key_is_remembered_for_the_window_and_per_channel() {
        let keys = Idempotency::new(WIDE);
        let start = Instant::now();
        let once = |now, name: Named<'_>, offset| once(&keys, now, &name, 7, || Ok(receipt(offset)));
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
        let keys = Idempotency::new(WIDE);
        let now = Instant::now();
        assert_eq!(offset(once(&keys, now, &from("10.0.0.1", "k"), 7, || Ok(receipt(1)))), (1, false));
        assert_eq!(offset(once(&keys, now, &from("10.0.0.2", "k"), 7, || Ok(receipt(2)))), (1, true));
    }

    #[test]
    fn another_message_under_the_key_is_a_conflict() {
        let keys = Idempotency::new(WIDE);
        let now = Instant::now();
        once(&keys, now, &key("", "c", "k"), 1, || Ok(receipt(1))).ok().unwrap();
        let other = once(&keys, now, &key("", "c", "k"), 2, || Ok(receipt(2)));
        assert_eq!(other, Err(PublishOnceError::Conflict));
        let publish = || Publish::new(Channel::parse("c").unwrap(), "1");
        for other in [
            publish().retain(true),
            publish().event("e"),
            publish().json(),
            publish().ttl(WINDOW),
            publish().qos(crate::message::Qos::AtMostOnce),
        ] {
            assert_ne!(keys.fingerprint(&publish()), keys.fingerprint(&other), "{other:?}");
        }
    }

    #[test]
    fn a_failure_claims_nothing() {
        let keys = Idempotency::new(WIDE);
        let now = Instant::now();
        assert!(once(&keys, now, &key("", "c", "k"), 1, || Err(PublishError::Closed)).is_err());
        assert_eq!(offset(once(&keys, now, &key("", "c", "k"), 2, || Ok(receipt(2)))), (2, false));
        assert_eq!((keys.len(), entries(&keys)), (1, 1));
    }

    #[test]
    fn one_holder_fills_its_own_budget_and_nobody_elses() {
        for bounds in [
            IdempotencyConfig { max_keys_per_holder: 2, ..WIDE },
            IdempotencyConfig { max_bytes_per_holder: 2 * (256 + 14), ..WIDE },
        ] {
            let keys = Idempotency::new(bounds);
            let now = Instant::now();
            for name in ["a", "b"] {
                once(&keys, now, &from("10.0.0.1", name), 1, || Ok(receipt(1))).ok().unwrap();
            }
            let full = once(&keys, now, &from("10.0.0.1", "c"), 1, || Ok(receipt(1)));
            assert!(matches!(full, Err(PublishOnceError::Full)), "nothing of its own is forgotten early");
            assert_eq!(offset(once(&keys, now, &from("10.0.0.1", "a"), 1, || Ok(receipt(9)))), (1, true));
            for other in ["10.0.0.2", "2001:db8::1"] {
                assert_eq!(offset(once(&keys, now, &from(other, other), 1, || Ok(receipt(2)))), (2, false));
            }
            let (key, channel) = from("10.0.0.1", "c");
            let user = (IdempotencyKey { user: "ann", ..key }, channel);
            assert_eq!(
                offset(once(&keys, now, &user, 1, || Ok(receipt(3)))),
                (3, false),
                "another principal"
            );
            let later = now + WINDOW;
            for name in ["c", "d"] {
                assert_eq!(
                    offset(once(&keys, later, &from("10.0.0.1", name), 1, || Ok(receipt(4)))),
                    (4, false),
                    "room again"
                );
            }
            assert_eq!(keys.forgotten_early(), 0);
        }
    }

    #[test]
    fn at_the_bound_of_all_whoever_holds_most_loses_its_oldest() {
        let bounds = IdempotencyConfig { max_keys: 10, max_keys_per_holder: 8, ..WIDE };
        let keys = Idempotency::new(bounds);
        let now = Instant::now();
        for name in ["0", "1", "2", "3", "4", "5", "6", "7"] {
            once(&keys, now, &from("2001:db8::1", name), 1, || Ok(receipt(1))).ok().unwrap();
        }
        let full = once(&keys, now, &from("2001:db8::2", "8"), 1, || Ok(receipt(1)));
        assert!(
            matches!(full, Err(PublishOnceError::Full)),
            "its neighbour in the same network is the same holder"
        );
        for at in 0..5 {
            let address = format!("10.0.0.{at}");
            assert_eq!(offset(once(&keys, now, &from(&address, &address), 1, || Ok(receipt(2)))), (2, false));
            assert!(keys.len() <= 10);
        }
        assert_eq!((keys.len(), entries(&keys), keys.forgotten_early()), (10, 10, 3));
        for at in 0..5 {
            let address = format!("10.0.0.{at}");
            assert_eq!(offset(once(&keys, now, &from(&address, &address), 1, || Ok(receipt(3)))), (2, true));
        }
        assert_eq!(offset(once(&keys, now, &from("2001:db8::1", "3"), 1, || Ok(receipt(3)))), (1, true));
        assert_eq!(
            offset(once(&keys, now, &from("10.0.0.9", "0"), 1, || Ok(receipt(3)))),
            (3, false),
            "forgotten"
        );
    }

    #[test]
    fn many_small_holders_are_bounded_by_what_they_take() {
        let bounds = IdempotencyConfig { max_bytes: 100 * (256 + 384 + 20), ..WIDE };
        let keys = Idempotency::new(bounds);
        let now = Instant::now();
        for at in 0..500_u32 {
            let address = std::net::Ipv4Addr::from_bits(at);
            once(&keys, now, &from(&address.to_string(), &at.to_string()), 1, || Ok(receipt(1)))
                .ok()
                .unwrap();
        }
        assert!((90..=110).contains(&keys.len()), "{}", keys.len());
        assert_eq!(entries(&keys), keys.len());
    }

    #[test]
    fn what_is_over_is_forgotten_as_others_come() {
        let keys = Idempotency::new(WIDE);
        let now = Instant::now();
        for at in 0..100 {
            once(&keys, now, &key("", "c", &at.to_string()), 1, || Ok(receipt(1))).ok().unwrap();
        }
        for at in 0..20 {
            once(&keys, now + WINDOW, &key("new", "c", &at.to_string()), 1, || Ok(receipt(2))).ok().unwrap();
        }
        assert_eq!((keys.len(), entries(&keys)), (20, 20));
    }

    #[test]
    fn two_at_the_same_instant_publish_once() {
        let keys = Arc::new(Idempotency::new(WIDE));
        let published = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (keys, published) = (Arc::clone(&keys), Arc::clone(&published));
                std::thread::spawn(move || {
                    let publish = || Ok(receipt(published.fetch_add(1, Relaxed) as u64 + 1));
                    offset(once(&keys, Instant::now(), &key("", "c", "k"), 1, publish)).0
                })
            })
            .collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 1));
        assert_eq!(published.load(Relaxed), 1);
    }
}

//! How often somebody may act: the generic cell rate algorithm, by `governor`.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use broker_core::{Network, Throttle};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use parking_lot::{Mutex, RwLock};

/// Actions per second on the average, and how many may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Rate {
    /// Actions per second.
    pub per_second: NonZeroU32,
    /// Actions that may come at once after a quiet time. A batch larger than it never passes.
    pub burst: NonZeroU32,
}

impl Rate {
    /// So often, and so many at once.
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self { per_second, burst }
    }

    fn quota(self) -> Quota {
        Quota::per_second(self.per_second).allow_burst(self.burst)
    }
}

/// Longest time that is told to wait where no time would help.
const NEVER: Duration = Duration::from_secs(3600);

/// So many seconds of a rate may other nodes have used in advance; beyond that it is forgotten, so that nobody is kept out
/// for longer.
const MAX_DEBT_SECS: u64 = 60;

/// Takes as much of a debt out of what is allowed now as there is; what is left of it.
fn pay(mut debt: u64, rate: Rate, take: impl Fn(NonZeroU32) -> bool) -> u64 {
    let mut part = rate.burst.get();
    while debt > 0 && part > 0 {
        let most = u32::try_from(debt).unwrap_or(u32::MAX).min(part);
        match NonZeroU32::new(most) {
            Some(most) if take(most) => debt -= u64::from(most.get()),
            _ => part = most / 2,
        }
    }
    debt
}

/// How long it takes until a debt is paid and one more is allowed.
fn wait_for(debt: u64, rate: Rate) -> Duration {
    Duration::from_secs_f64((debt + 1) as f64 / f64::from(rate.per_second.get()))
}

fn more_debt(before: u64, count: u32, rate: Rate) -> u64 {
    let most = MAX_DEBT_SECS * u64::from(rate.per_second.get());
    before.saturating_add(count.into()).min(most.max(rate.burst.get().into()))
}

/// The rate of one key or user. All its connections share it, also across a change of the configuration.
#[derive(Debug)]
pub(super) struct OwnRate {
    current: RwLock<(Rate, Arc<DefaultDirectRateLimiter>)>,
    /// Taken since this was asked last.
    used: AtomicU32,
    /// Taken on other nodes, and not out of this rate yet.
    debt: AtomicU64,
}

impl OwnRate {
    pub(super) fn new(rate: Rate) -> Self {
        let current = RwLock::new((rate, Arc::new(RateLimiter::direct(rate.quota()))));
        Self { current, used: AtomicU32::new(0), debt: AtomicU64::new(0) }
    }

    /// What was taken since this was asked last.
    pub(super) fn take_used(&self) -> u32 {
        self.settle();
        self.used.swap(0, Relaxed)
    }

    /// Other nodes have taken so much.
    pub(super) fn used_elsewhere(&self, count: u32) {
        let rate = self.current.read().0;
        _ = self.debt.fetch_update(Relaxed, Relaxed, |before| Some(more_debt(before, count, rate)));
        self.settle();
    }

    /// Takes what others have taken out of what is allowed now; how long that lasts, if it is not enough.
    fn settle(&self) -> Option<Duration> {
        // Whoever asks meanwhile is asked for nothing: one too many, at most.
        let debt = self.debt.swap(0, Relaxed);
        if debt == 0 {
            return None;
        }
        let (rate, limiter) = self.current.read().clone();
        let left = pay(debt, rate, |part| matches!(limiter.check_n(part), Ok(Ok(()))));
        self.debt.fetch_add(left, Relaxed);
        (left > 0).then(|| wait_for(left, rate))
    }

    /// Goes on with another rate; the same one keeps what was used of it.
    pub(super) fn set(&self, rate: Rate) {
        let mut own = self.current.write();
        if own.0 != rate {
            *own = (rate, Arc::new(RateLimiter::direct(rate.quota())));
        }
    }
}

impl Throttle for OwnRate {
    fn admit(&self, count: u32) -> Result<(), Duration> {
        let limiter = Arc::clone(&self.current.read().1);
        let Some(count) = NonZeroU32::new(count) else { return Ok(()) };
        if self.debt.load(Relaxed) > 0
            && let Some(wait) = self.settle()
        {
            return Err(wait);
        }
        match limiter.check_n(count) {
            Ok(Ok(())) => {
                self.used.fetch_add(count.get(), Relaxed);
                Ok(())
            }
            Ok(Err(until)) => Err(until.wait_time_from(DefaultClock::default().now())),
            Err(_) => Err(NEVER),
        }
    }
}

/// The same rate for each of many, by their hash: what is not kept cannot be filled with long names.
#[derive(Debug)]
pub(super) struct SharedRates {
    rate: Rate,
    limiter: DefaultKeyedRateLimiter<u64>,
    hasher: RandomState,
    /// Whether somebody asks what was taken.
    is_told: AtomicBool,
    used: Mutex<HashMap<Arc<str>, u32>>,
    /// What others have taken on other nodes and is not taken here yet; and how many there are, to be seen without the lock.
    debts: Mutex<HashMap<u64, u64>>,
    in_debt: AtomicUsize,
}

/// Users of one issuer who are told of at a time, and who may be in debt; others are counted by each node alone.
const MAX_TOLD: usize = 16_384;

/// A longer name is not told.
const MAX_NAME_BYTES: usize = 1_024;

/// Entries beyond which those that are full again are forgotten.
const KEPT: usize = 100_000;

impl SharedRates {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            rate,
            limiter: RateLimiter::dashmap(rate.quota()),
            hasher: RandomState::new(),
            is_told: AtomicBool::new(false),
            used: Mutex::default(),
            debts: Mutex::default(),
            in_debt: AtomicUsize::new(0),
        }
    }

    /// What users have taken since this was asked last; the first time begins to count.
    pub(super) fn take_used(&self) -> HashMap<Arc<str>, u32> {
        self.is_told.store(true, Relaxed);
        let mut debts = self.debts.lock();
        debts.retain(|whose, debt| {
            *debt = self.pay(*whose, *debt);
            *debt > 0
        });
        self.in_debt.store(debts.len(), Relaxed);
        drop(debts);
        std::mem::take(&mut self.used.lock())
    }

    /// A user has taken so much on another node.
    pub(super) fn used_elsewhere(&self, user: &str, count: u32) {
        let whose = self.hasher.hash_one(user);
        let mut debts = self.debts.lock();
        let before = debts.get(&whose).copied().unwrap_or(0);
        let left = self.pay(whose, more_debt(before, count, self.rate));
        if left == 0 {
            debts.remove(&whose);
        } else if before > 0 || debts.len() < MAX_TOLD {
            debts.insert(whose, left);
        }
        self.in_debt.store(debts.len(), Relaxed);
    }

    fn pay(&self, whose: u64, debt: u64) -> u64 {
        pay(debt, self.rate, |part| matches!(self.limiter.check_key_n(&whose, part), Ok(Ok(()))))
    }

    /// What keeps a user waiting because of other nodes.
    fn check_debt(&self, whose: u64) -> Result<(), Duration> {
        if self.in_debt.load(Relaxed) == 0 {
            return Ok(());
        }
        let mut debts = self.debts.lock();
        let Some(debt) = debts.get_mut(&whose) else { return Ok(()) };
        *debt = self.pay(whose, *debt);
        if *debt > 0 {
            return Err(wait_for(*debt, self.rate));
        }
        debts.remove(&whose);
        self.in_debt.store(debts.len(), Relaxed);
        Ok(())
    }

    fn admit_user(&self, user: &Arc<str>, count: u32) -> Result<(), Duration> {
        self.check_debt(self.hasher.hash_one(&**user))?;
        self.admit(&**user, count)?;
        if self.is_told.load(Relaxed) && user.len() <= MAX_NAME_BYTES {
            let mut used = self.used.lock();
            if let Some(used) = used.get_mut(user) {
                *used = used.saturating_add(count);
            } else if used.len() < MAX_TOLD {
                used.insert(Arc::clone(user), count);
            }
        }
        Ok(())
    }

    fn admit(&self, whose: impl Hash, count: u32) -> Result<(), Duration> {
        let Some(count) = NonZeroU32::new(count) else { return Ok(()) };
        // Each sweep is paid for by the thousand that came before it.
        if self.limiter.len() > KEPT && fastrand::u16(..) < 64 {
            self.limiter.retain_recent();
        }
        match self.limiter.check_key_n(&self.hasher.hash_one(whose), count) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(until)) => Err(until.wait_time_from(DefaultClock::default().now())),
            Err(_) => Err(NEVER),
        }
    }
}

/// One of many users of an issuer.
#[derive(Debug)]
pub(super) struct UserRate {
    pub(super) rates: Arc<SharedRates>,
    pub(super) user: Arc<str>,
}

impl Throttle for UserRate {
    fn admit(&self, count: u32) -> Result<(), Duration> {
        self.rates.admit_user(&self.user, count)
    }
}

/// What somebody has used of a rate on one node: what others are told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsedRate {
    /// Whose rate it is.
    pub of: RateOf,
    /// The key's id, or the user's name.
    pub name: Arc<str>,
    /// So many actions.
    pub count: u32,
}

impl UsedRate {
    /// So many of this one's.
    pub fn new(of: RateOf, name: &str, count: u32) -> Self {
        Self { of, name: name.into(), count }
    }
}

/// Whose rate it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RateOf {
    /// A key's.
    Key,
    /// A user's with a password.
    User,
    /// That of a user of this issuer; `None`: of the one that has no name.
    Issued(Option<Arc<str>>),
}

/// The same rate for each address, by its network. What it holds is bounded: full ones are forgotten beyond 100,000.
#[derive(Debug)]
pub struct AddressRates(SharedRates);

impl AddressRates {
    /// Nobody has used anything of it yet.
    pub fn new(rate: Rate) -> Self {
        Self(SharedRates::new(rate))
    }

    /// Takes one request of this address.
    ///
    /// # Errors
    /// It has used up its rate; it may send one after this time.
    pub fn admit(&self, network: Network) -> Result<(), Duration> {
        self.0.admit(network, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate { per_second: per_second.try_into().unwrap(), burst: burst.try_into().unwrap() }
    }

    #[test]
    fn a_burst_passes_and_then_the_wait_is_told() {
        let own = OwnRate::new(rate(1, 3));
        assert_eq!((0..3).filter(|_| own.admit(1).is_ok()).count(), 3);
        let wait = own.admit(1).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(own.admit(4), Err(NEVER), "a burst larger than the limit never passes");
        own.set(rate(1, 3));
        assert!(own.admit(1).is_err(), "the same rate is not refilled by a reload");
        own.set(rate(5, 5));
        assert!(own.admit(5).is_ok());
    }

    #[test]
    fn what_other_nodes_admit_is_taken_out_of_ones_own() {
        let own = OwnRate::new(rate(1, 10));
        assert!(own.admit(4).is_ok());
        assert_eq!((own.take_used(), own.take_used()), (4, 0));
        own.used_elsewhere(5);
        assert_eq!((0..10).filter(|_| own.admit(1).is_ok()).count(), 1, "four here, five there, and one");
        assert_eq!(own.take_used(), 1, "what others took is not told to them again");
        own.used_elsewhere(20);
        let wait = own.admit(1).unwrap_err();
        assert!(wait > Duration::from_secs(10) && wait < Duration::from_secs(30), "{wait:?}");
        for _ in 0..100 {
            own.used_elsewhere(u32::MAX);
        }
        assert!(own.admit(1).unwrap_err() <= Duration::from_secs(MAX_DEBT_SECS + 1), "nobody waits for ever");
    }

    #[test]
    fn each_user_of_an_issuer_has_what_the_other_nodes_have_left() {
        let rates = Arc::new(SharedRates::new(rate(1, 10)));
        let user = |name: &str| UserRate { rates: Arc::clone(&rates), user: name.into() };
        assert!(user("ann").admit(3).is_ok());
        assert!(rates.take_used().is_empty(), "nobody had asked before");
        assert!(user("ann").admit(1).is_ok() && user("bob").admit(2).is_ok());
        assert!(user(&"x".repeat(MAX_NAME_BYTES + 1)).admit(1).is_ok());
        let mut used: Vec<_> = rates.take_used().into_iter().collect();
        used.sort();
        assert_eq!(used, [("ann".into(), 1), ("bob".into(), 2)]);
        rates.used_elsewhere("ann", 30);
        assert!(user("ann").admit(1).unwrap_err() > Duration::from_secs(20));
        assert!(user("bob").admit(8).is_ok(), "another one has nothing to do with it");
        rates.used_elsewhere("carol", 10);
        assert!(user("carol").admit(1).is_err());
        assert_eq!(rates.in_debt.load(Relaxed), 1, "what is paid is no debt");
        for number in 0..2 * MAX_TOLD {
            rates.used_elsewhere(&number.to_string(), 20);
        }
        assert_eq!(rates.debts.lock().len(), MAX_TOLD);
    }
}

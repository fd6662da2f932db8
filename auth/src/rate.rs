//! How often somebody may act: the generic cell rate algorithm, by `governor`.

use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{Network, Throttle};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use parking_lot::RwLock;

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

/// The rate of one key or user. All its connections share it, also across a change of the configuration.
#[derive(Debug)]
pub(super) struct OwnRate(RwLock<(Rate, Arc<DefaultDirectRateLimiter>)>);

impl OwnRate {
    pub(super) fn new(rate: Rate) -> Self {
        Self(RwLock::new((rate, Arc::new(RateLimiter::direct(rate.quota())))))
    }

    /// Goes on with another rate; the same one keeps what was used of it.
    pub(super) fn set(&self, rate: Rate) {
        let mut own = self.0.write();
        if own.0 != rate {
            *own = (rate, Arc::new(RateLimiter::direct(rate.quota())));
        }
    }
}

impl Throttle for OwnRate {
    fn admit(&self, count: u32) -> Result<(), Duration> {
        let limiter = Arc::clone(&self.0.read().1);
        let Some(count) = NonZeroU32::new(count) else { return Ok(()) };
        match limiter.check_n(count) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(until)) => Err(until.wait_time_from(DefaultClock::default().now())),
            Err(_) => Err(NEVER),
        }
    }
}

/// The same rate for each of many, by their hash: what is not kept cannot be filled with long names.
#[derive(Debug)]
pub(super) struct SharedRates {
    limiter: DefaultKeyedRateLimiter<u64>,
    hasher: RandomState,
}

/// Entries beyond which those that are full again are forgotten.
const KEPT: usize = 100_000;

impl SharedRates {
    pub(super) fn new(rate: Rate) -> Self {
        Self { limiter: RateLimiter::dashmap(rate.quota()), hasher: RandomState::new() }
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
        self.rates.admit(&self.user, count)
    }
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
}

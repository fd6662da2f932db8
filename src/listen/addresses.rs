//! What one address may take of the listeners.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
#[cfg(feature = "auth")]
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use broker_core::Network;
use front::{Metric, MetricSource};
use parking_lot::Mutex;
#[cfg(feature = "auth")]
use parking_lot::RwLock;

/// Connections and requests of each address. Clones are handles to the same counts.
///
/// Not limited unless it is configured: behind a proxy, or in an office, one address is many clients. IPv6 counts by
/// /64, which is what one host has.
#[derive(Clone, Debug)]
pub struct AddressLimits(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max_connections: Option<usize>,
    open: Mutex<HashMap<Network, usize>>,
    #[cfg(feature = "auth")]
    rate: RwLock<Option<(auth::Rate, Arc<crate::auth::AddressRates>)>>,
    /// Whether there is a rate: without one no request waits for a lock.
    #[cfg(feature = "auth")]
    has_rate: AtomicBool,
    refused_connections: AtomicU64,
    refused_requests: AtomicU64,
}

/// One connection's place among those of its address; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    network: Network,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.shared.open.lock();
        if let Some(count) = open.get_mut(&self.network) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.network);
            }
        }
    }
}

/// There are as many connections of this address as may be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl AddressLimits {
    pub(crate) fn new(max_connections: Option<usize>) -> Self {
        Self(Arc::new(Shared {
            max_connections,
            open: Mutex::default(),
            #[cfg(feature = "auth")]
            rate: RwLock::default(),
            #[cfg(feature = "auth")]
            has_rate: AtomicBool::new(false),
            refused_connections: AtomicU64::new(0),
            refused_requests: AtomicU64::new(0),
        }))
    }

    /// Sets how many requests each address may send; `None` does not count them. The same rate keeps its counts.
    #[cfg(feature = "auth")]
    pub fn set_rate(&self, rate: Option<auth::Rate>) {
        let mut current = self.0.rate.write();
        self.0.has_rate.store(rate.is_some(), Relaxed);
        if current.as_ref().map(|(rate, _)| *rate) != rate {
            *current = rate.map(|rate| (rate, Arc::new(auth::AddressRates::new(rate))));
        }
    }

    /// A place for a connection; `None` where they are not counted.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<Option<Place>, TooMany> {
        let Some(max) = self.0.max_connections else { return Ok(None) };
        let network = Network::of(address);
        let mut open = self.0.open.lock();
        let count = open.entry(network).or_insert(0);
        if *count >= max {
            self.0.refused_connections.fetch_add(1, Relaxed);
            return Err(TooMany);
        }
        *count += 1;
        Ok(Some(Place { shared: Arc::clone(&self.0), network }))
    }

    /// Takes one request of this address, or says how long it has to wait.
    pub(crate) fn admit(&self, address: IpAddr) -> Result<(), Duration> {
        #[cfg(feature = "auth")]
        if self.0.has_rate.load(Relaxed) {
            let rates = self.0.rate.read().as_ref().map(|(_, rates)| Arc::clone(rates));
            if let Some(rates) = rates {
                return rates.admit(Network::of(address)).inspect_err(|_| {
                    self.0.refused_requests.fetch_add(1, Relaxed);
                });
            }
        }
        let _ = address;
        Ok(())
    }
}

impl MetricSource for AddressLimits {
    fn collect(&self, out: &mut Vec<Metric>) {
        out.extend([
            Metric::counter(
                "refused_address_connections",
                "Connections refused because their address had too many",
                self.0.refused_connections.load(Relaxed),
            ),
            Metric::counter(
                "refused_address_requests",
                "Requests and MQTT connections refused because their address made too many",
                self.0.refused_requests.load(Relaxed),
            ),
        ]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_given_back() {
        let limits = AddressLimits::new(Some(1));
        let place = limits.enter(address("192.0.2.1")).unwrap();
        assert_eq!(limits.enter(address("192.0.2.1")).unwrap_err(), TooMany);
        assert!(limits.enter(address("::ffff:192.0.2.1")).is_err());
        assert!(limits.enter(address("192.0.2.2")).is_ok());
        drop(place);
        assert!(limits.enter(address("192.0.2.1")).is_ok());
        assert!(limits.0.open.lock().is_empty());
        assert!(AddressLimits::new(None).enter(address("192.0.2.1")).unwrap().is_none());
    }

    #[cfg(feature = "auth")]
    #[test]
    fn each_address_has_a_rate_of_its_own_and_a_host_has_one_network() {
        let one = std::num::NonZeroU32::MIN;
        let limits = AddressLimits::new(None);
        assert!((0..10).all(|_| limits.admit(address("192.0.2.1")).is_ok()), "not limited by default");
        let rate = Some(auth::Rate::new(one, one));
        limits.set_rate(rate);
        assert!(limits.admit(address("192.0.2.1")).is_ok() && limits.admit(address("192.0.2.2")).is_ok());
        limits.set_rate(rate);
        assert!(limits.admit(address("192.0.2.1")).is_err());
        assert!(
            limits.admit(address("2001:db8::1")).is_ok() && limits.admit(address("2001:db8::2")).is_err()
        );
    }
}

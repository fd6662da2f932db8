//! Who of a lane's subscribers has lost messages: told at most once a minute each.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use parking_lot::Mutex;

use crate::key::SubscriberKey;

/// Time from one telling of a subscriber to the next.
const EVERY: Duration = Duration::from_secs(60);
/// Subscribers that are remembered for that; further ones are told of when one of these is a minute old.
const MAX_TOLD: usize = 1_024;
/// Losses of one batch that are noted by subscriber.
const MAX_NOTED: usize = 1_024;

/// What was thrown away in the batch that runs, by slot. Nothing is touched while nothing is lost.
#[derive(Debug, Default)]
pub(crate) struct Drops {
    any: AtomicBool,
    noted: Mutex<Vec<(u32, u64)>>,
}

impl Drops {
    /// Messages of the subscriber in `slot` were thrown away.
    #[cold]
    pub(super) fn note(&self, slot: u32, count: u64) {
        let mut noted = self.noted.lock();
        let of_slot = noted.last_mut().filter(|(last, _)| *last == slot);
        if let Some((_, sum)) = of_slot {
            *sum += count;
        } else if noted.len() < MAX_NOTED {
            noted.push((slot, count));
        }
        self.any.store(true, Relaxed);
    }

    pub(super) fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    pub(super) fn take(&self) -> Vec<(u32, u64)> {
        self.any.store(false, Relaxed);
        std::mem::take(&mut *self.noted.lock())
    }
}

/// Of whom was told when, and what they have lost since.
#[derive(Debug, Default)]
pub(super) struct Told(AHashMap<SubscriberKey, (Instant, u64)>);

impl Told {
    /// How many losses are to be told of now.
    pub(super) fn admit(&mut self, key: SubscriberKey, lost: u64, now: Instant) -> Option<u64> {
        let is_old = |at: Instant| now.saturating_duration_since(at) >= EVERY;
        if let Some((at, since)) = self.0.get_mut(&key) {
            *since += lost;
            if !is_old(*at) {
                return None;
            }
            *at = now;
            return Some(std::mem::take(since));
        }
        if self.0.len() >= MAX_TOLD {
            self.0.retain(|_, (at, _)| !is_old(*at));
        }
        if self.0.len() >= MAX_TOLD {
            return None;
        }
        self.0.insert(key, (now, 0));
        Some(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slot: u32) -> SubscriberKey {
        SubscriberKey { lane: 0, slot, generation: 0 }
    }

    #[test]
    fn a_subscriber_is_told_of_once_a_minute_with_all_that_it_lost() {
        let mut told = Told::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let said: Vec<_> = [0, 1, 59, 61, 62, 300].map(|second| told.admit(key(1), 2, at(second))).into();
        assert_eq!(said, [Some(2), None, None, Some(6), None, Some(4)]);
        assert_eq!(told.admit(key(2), 1, at(300)), Some(1));
    }

    #[test]
    fn what_is_remembered_has_a_bound_and_old_ones_make_room() {
        let mut told = Told::default();
        let start = Instant::now();
        let said = (0..2 * MAX_TOLD as u32).filter(|slot| told.admit(key(*slot), 1, start).is_some()).count();
        assert_eq!(said, MAX_TOLD);
        assert_eq!(told.admit(key(u32::MAX), 1, start + EVERY), Some(1));
        assert_eq!(told.0.len(), 1);
    }

    #[test]
    fn losses_of_a_batch_are_summed_and_taken_once() {
        let drops = Drops::default();
        assert!(!drops.any());
        for (slot, count) in [(1, 1), (1, 2), (2, 1)] {
            drops.note(slot, count);
        }
        assert!(drops.any());
        assert_eq!(drops.take(), [(1, 3), (2, 1)]);
        assert!(!drops.any() && drops.take().is_empty());
    }
}

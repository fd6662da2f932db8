//! Who of a lane's subscribers has lost messages in the batch that runs.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

/// Subscribers that are remembered to have been told of; further ones are told of when one of these is a minute old.
pub(super) const MAX_TOLD: usize = 1_024;
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

#[cfg(test)]
mod tests {
    use super::*;

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

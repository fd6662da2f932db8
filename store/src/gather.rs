//! Whether a batch waits a moment for those whose last publish was answered just now.
//!
//! Publishers that each wait for an answer before the next publish fall into two halves: one waits for the flush, the
//! other for its turn, and each flush answers half of what it could. Where they come back much faster than a flush takes,
//! a short wait puts them all into one batch. Where they do not, waiting costs more than it brings: then it is not tried
//! for a while, twice as long each time.

use std::time::Duration;

/// A commit that is faster than this did not wait for a disk.
const MIN_FLUSH: Duration = Duration::from_micros(200);
/// What part of the last flush is waited for at most.
const PART: u32 = 4;
/// Whatever a flush takes.
const MAX_WAIT: Duration = Duration::from_millis(1);
/// Batches that are not waited for after so many tries that brought nothing, as a power of two.
const MAX_MISSES: u32 = 8;

/// How far a batch is to be filled, and how long that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) ops: usize,
    pub(crate) wait: Duration,
}

impl Wanted {
    /// Whatever there is.
    pub(crate) const NOTHING: Self = Self { ops: 0, wait: Duration::ZERO };
}

#[derive(Default)]
pub(crate) struct Gather {
    misses: u32,
    /// Batches that are not waited for from now on.
    rest: u32,
}

impl Gather {
    /// What to wait for once `answered` were told and `waiting` wait already, after a flush of this length. The wait begins
    /// with the first that is there.
    pub(crate) fn next(&mut self, answered: usize, waiting: usize, flush: Duration) -> Wanted {
        if answered == 0 || answered + waiting < 2 || flush < MIN_FLUSH {
            return Wanted::NOTHING;
        }
        if self.rest > 0 {
            self.rest -= 1;
            return Wanted::NOTHING;
        }
        Wanted { ops: answered + waiting, wait: (flush / PART).min(MAX_WAIT) }
    }

    /// What came of it.
    pub(crate) fn note(&mut self, wanted: Wanted, taken: usize) {
        if wanted == Wanted::NOTHING {
            return;
        }
        // Some of them may have gone.
        if taken * 4 >= wanted.ops * 3 {
            self.misses = 0;
        } else {
            self.misses = (self.misses + 1).min(MAX_MISSES);
            self.rest = 1 << self.misses;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLUSH: Duration = Duration::from_micros(800);

    #[test]
    fn a_lone_publisher_never_waits() {
        let mut gather = Gather::default();
        assert_eq!(gather.next(1, 0, FLUSH), Wanted::NOTHING);
        assert_eq!(gather.next(0, 5, FLUSH), Wanted::NOTHING, "nobody was answered, so nobody comes back");
        assert_eq!(gather.next(32, 32, Duration::from_micros(20)), Wanted::NOTHING, "nothing to save");
    }

    #[test]
    fn two_halves_become_one_batch_and_stay_one() {
        let mut gather = Gather::default();
        let first = gather.next(32, 32, FLUSH);
        assert_eq!(first, Wanted { ops: 64, wait: FLUSH / 4 });
        gather.note(first, 64);
        let next = gather.next(64, 0, FLUSH);
        assert_eq!(next.ops, 64);
        gather.note(next, 48);
        assert_eq!(gather.next(48, 16, Duration::from_secs(1)), Wanted { ops: 64, wait: MAX_WAIT });
    }

    #[test]
    fn who_does_not_come_back_is_waited_for_ever_less_often() {
        let mut gather = Gather::default();
        let mut rests = Vec::new();
        for _ in 0..10 {
            let wanted = gather.next(32, 32, FLUSH);
            assert_ne!(wanted, Wanted::NOTHING);
            gather.note(wanted, 47);
            let rest = std::iter::from_fn(|| (gather.rest > 0).then(|| gather.next(32, 32, FLUSH)));
            let rest: Vec<_> = rest.collect();
            assert!(rest.iter().all(|wanted| *wanted == Wanted::NOTHING));
            rests.push(rest.len());
        }
        assert_eq!(rests, [2, 4, 8, 16, 32, 64, 128, 256, 256, 256]);
        // One that was well forgets it.
        let wanted = gather.next(32, 32, FLUSH);
        gather.note(wanted, 64);
        assert_ne!(gather.next(32, 32, FLUSH), Wanted::NOTHING);
    }
}

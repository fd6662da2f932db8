//! Things that happen again and again, and are told seldom.

use std::hash::Hash;
use std::time::{Duration, Instant};

use ahash::AHashMap;

/// Lets each of many things be told of at most once in [`EVERY`](Self::EVERY), then with how often it has happened
/// since. It remembers a bounded number of them: while none of those is old enough to be forgotten, further ones find
/// no room, which costs a comparison.
#[derive(Debug)]
pub struct Sparing<K> {
    known: AHashMap<K, Known>,
    max: usize,
    /// Until then nothing can be forgotten: the oldest was told of too lately.
    full_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    told_at: Instant,
    /// Not told since.
    held_back: u64,
}

/// What is to be done about something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// It is told of: so often did it happen that was not told, this time included.
    Now(u64),
    /// It was told of a moment ago; this time is counted for the next.
    HoldBack,
    /// Too many things are remembered; this one is not.
    NoRoom,
}

impl<K: Eq + Hash> Sparing<K> {
    /// Time from one telling of a thing to the next.
    pub const EVERY: Duration = Duration::from_secs(60);

    /// Remembers at most `max` things.
    pub fn new(max: usize) -> Self {
        Self { known: AHashMap::new(), max, full_until: None }
    }

    /// It has happened `times` times more.
    pub fn note(&mut self, what: K, times: u64, now: Instant) -> Telling {
        if let Some(known) = self.known.get_mut(&what) {
            known.held_back += times;
            if !is_old(known.told_at, now) {
                return Telling::HoldBack;
            }
            known.told_at = now;
            return Telling::Now(std::mem::take(&mut known.held_back));
        }
        if self.known.len() >= self.max && !self.make_room(now) {
            return Telling::NoRoom;
        }
        self.known.insert(what, Known { told_at: now, held_back: 0 });
        Telling::Now(times)
    }

    /// Forgets what is old. Looks at all only when that may help.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.full_until.is_some_and(|until| now < until) {
            return false;
        }
        self.known.retain(|_, known| !is_old(known.told_at, now));
        // Those that are told of again meanwhile are younger than that: it is early at worst.
        let oldest = self.known.values().map(|known| known.told_at).min();
        self.full_until = oldest.map(|at| at + Self::EVERY);
        self.known.len() < self.max
    }
}

fn is_old(told_at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(told_at) >= Sparing::<()>::EVERY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_told_of_once_a_minute_with_all_that_was_held_back() {
        let mut sparing = Sparing::new(10);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let said: Vec<_> = [0, 1, 59, 61, 62, 300].map(|second| sparing.note("a", 2, at(second))).into();
        let told = |times| Telling::Now(times);
        assert_eq!(
            said,
            [told(2), Telling::HoldBack, Telling::HoldBack, told(6), Telling::HoldBack, told(4)]
        );
        assert_eq!(sparing.note("b", 1, at(300)), Telling::Now(1));
    }

    #[test]
    fn what_is_remembered_has_a_bound_and_old_things_make_room() {
        let mut sparing = Sparing::new(100);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let told = |turn| matches!(turn, Telling::Now(_));
        assert_eq!((0..200).filter(|n| told(sparing.note(*n, 1, start))).count(), 100);
        assert_eq!(sparing.note(500, 1, at(59)), Telling::NoRoom);
        assert_eq!(sparing.note(0, 1, at(60)), Telling::Now(1), "it is known");
        assert_eq!(sparing.note(500, 1, at(60)), Telling::Now(1), "the others are old");
        assert_eq!(sparing.known.len(), 2);
    }

    /// A lane asks for each of thousands of slow readers, again and again.
    #[test]
    fn while_there_is_no_room_nobody_looks_for_it() {
        let mut sparing = Sparing::new(100);
        let start = Instant::now();
        (0..100).for_each(|n| _ = sparing.note(n, 1, start));
        assert_eq!(sparing.full_until, None, "nobody has looked");
        assert_eq!(sparing.note(100, 1, start), Telling::NoRoom);
        assert_eq!(sparing.full_until, Some(start + Sparing::<i32>::EVERY));
    }
}

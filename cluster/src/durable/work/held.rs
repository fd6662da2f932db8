//! What a node holds of a group's work: frames that are with members, and what is known of those that were.

use std::collections::VecDeque;
use std::time::Duration;

use ahash::{AHashMap, AHashSet};
use async_nats::Subject;
use broker_core::Gap;

use super::place::Looked;
use crate::durable::frame;

/// Frames that are remembered which are finished, or of which a part is.
const MAX_REMEMBERED: usize = 4_096;

/// Places of messages in a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Places([u64; 4]);

impl Places {
    fn bit(&mut self, place: usize) -> Option<(&mut u64, u64)> {
        Some((self.0.get_mut(place / 64)?, 1 << (place % 64)))
    }

    pub(super) fn insert(&mut self, place: usize) {
        if let Some((bits, bit)) = self.bit(place) {
            *bits |= bit;
        }
    }

    /// Whether it was there.
    fn remove(&mut self, place: usize) -> bool {
        self.bit(place).is_some_and(|(bits, bit)| {
            let was_there = *bits & bit != 0;
            *bits &= !bit;
            was_there
        })
    }

    pub(super) fn has(mut self, place: usize) -> bool {
        self.remove(place)
    }

    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }

    fn and(self, other: Self) -> Self {
        let mut all = self;
        all.0.iter_mut().zip(other.0).for_each(|(bits, others)| *bits |= others);
        all
    }
}

/// What is finished of a frame that was given back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Partly {
    pub(super) consumer: Box<str>,
    pub(super) sequence: u64,
    pub(super) done: Places,
}

impl Partly {
    pub(crate) fn write(&self) -> Vec<u8> {
        let numbers = [self.sequence].into_iter().chain(self.done.0);
        let mut out: Vec<u8> = numbers.flat_map(u64::to_be_bytes).collect();
        out.extend_from_slice(self.consumer.as_bytes());
        out
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut number = || {
            let (head, behind) = rest.split_first_chunk()?;
            rest = behind;
            Some(u64::from_be_bytes(*head))
        };
        let (sequence, done) = (number()?, Places([number()?, number()?, number()?, number()?]));
        Some(Self { consumer: std::str::from_utf8(rest).ok()?.into(), sequence, done })
    }
}

pub(super) struct State {
    /// By their sequences: what is with members here.
    pub(super) held: AHashMap<u64, Held>,
    /// Frames that were finished here lately, should they come once more.
    pub(super) finished: Recent,
    /// The same of frames of which a part was, here or elsewhere.
    pub(super) partly: AHashMap<u64, Places>,
    partly_order: VecDeque<u64>,
    /// Where the stream stood when the work was opened.
    pub(super) head: u64,
    /// Where the consumer would begin anew.
    pub(super) from: u64,
    pub(super) lasts: Duration,
    /// What is known of where the group is.
    pub(super) looked: Looked,
    /// What it has missed, until that is asked.
    pub(super) missed: Option<Gap>,
}

/// A frame that is with members here.
pub(super) struct Held {
    pub(super) reply: Subject,
    pub(super) left: Places,
    pub(super) done: Places,
    pub(super) is_given_back: bool,
}

#[derive(Default)]
pub(super) struct Recent {
    order: VecDeque<u64>,
    pub(super) all: AHashSet<u64>,
}

impl Recent {
    pub(super) fn insert(&mut self, sequence: u64) {
        if self.all.insert(sequence) {
            self.order.push_back(sequence);
        }
        if self.order.len() > MAX_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }
}

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    GivenBack(Places),
}

impl State {
    pub(super) fn new(head: u64, from: u64, lasts: Duration) -> Self {
        Self {
            held: AHashMap::new(),
            finished: Recent::default(),
            partly: AHashMap::new(),
            partly_order: VecDeque::new(),
            head,
            from,
            lasts,
            looked: Looked::default(),
            missed: None,
        }
    }

    pub(super) fn remember_part(&mut self, sequence: u64, done: Places) {
        let before = self.partly.insert(sequence, done);
        match before {
            Some(before) => _ = self.partly.insert(sequence, done.and(before)),
            None => self.partly_order.push_back(sequence),
        }
        if self.partly_order.len() > MAX_REMEMBERED
            && let Some(oldest) = self.partly_order.pop_front()
        {
            self.partly.remove(&oldest);
        }
    }

    /// A message is finished, or given back; what became of its frame, where that was the last of it.
    pub(super) fn settle(&mut self, offset: u64, is_done: bool) -> Option<(Subject, Outcome)> {
        let (sequence, place) = (frame::sequence(offset), frame::place(offset));
        let held = self.held.get_mut(&sequence)?;
        if !held.left.remove(place) {
            return None;
        }
        if is_done {
            held.done.insert(place);
        }
        held.is_given_back |= !is_done;
        if !held.left.is_empty() {
            return None;
        }
        let Held { reply, done, is_given_back, .. } = self.held.remove(&sequence)?;
        if is_given_back {
            if !done.is_empty() {
                self.remember_part(sequence, done);
            }
            return Some((reply, Outcome::GivenBack(done)));
        }
        self.finished.insert(sequence);
        Some((reply, Outcome::Done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(state: &mut State, sequence: u64, places: &[usize]) {
        let mut left = Places::default();
        places.iter().for_each(|place| left.insert(*place));
        let reply = Subject::from(sequence.to_string());
        state.held.insert(sequence, Held { reply, left, done: Places::default(), is_given_back: false });
    }

    fn state() -> State {
        State::new(0, 1, Duration::ZERO)
    }

    #[test]
    fn a_frame_is_finished_with_the_last_of_its_messages() {
        let mut state = state();
        held(&mut state, 7, &[0, 63, 64, 255]);
        for place in [63, 255, 0] {
            assert_eq!(state.settle(frame::offset(7, place), true), None);
            assert_eq!(state.settle(frame::offset(7, place), true), None, "once");
        }
        let end = state.settle(frame::offset(7, 64), true);
        assert_eq!(end, Some((Subject::from("7"), Outcome::Done)));
        assert!(state.finished.all.contains(&7) && state.held.is_empty());
        assert_eq!(state.settle(frame::offset(7, 64), false), None, "it is not held");
    }

    #[test]
    fn what_is_finished_of_a_frame_that_is_given_back_is_remembered() {
        let mut state = state();
        held(&mut state, 7, &[0, 1, 2]);
        assert_eq!(state.settle(frame::offset(7, 1), true), None);
        assert_eq!(state.settle(frame::offset(7, 0), false), None);
        let Some((_, Outcome::GivenBack(done))) = state.settle(frame::offset(7, 2), true) else {
            panic!("it is not given back")
        };
        assert!(!done.has(0) && done.has(1) && done.has(2) && !state.finished.all.contains(&7));
        assert_eq!(state.partly.get(&7), Some(&done));
        let told = Partly { consumer: "share-a".into(), sequence: 7, done };
        assert_eq!(Partly::read(&told.write()), Some(told));
        assert_eq!(Partly::read(&[0; 39]), None);
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let mut state = state();
        for sequence in 0..2 * MAX_REMEMBERED as u64 {
            state.finished.insert(sequence);
            state.remember_part(sequence, Places([1, 0, 0, 0]));
        }
        assert_eq!((state.finished.all.len(), state.partly.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
        assert!(!state.finished.all.contains(&0) && state.partly.contains_key(&(MAX_REMEMBERED as u64)));
    }
}

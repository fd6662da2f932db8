//! Which nodes there are, by what they say of themselves.

use std::time::{Duration, Instant};

use ahash::AHashMap;

/// How often a node says that it is there.
pub(crate) const HELLO_EVERY: Duration = Duration::from_secs(2);

/// Without a word for so long a node is not there any more.
const SILENCE: Duration = Duration::from_secs(7);

/// More than this are not remembered; they work all the same.
const MAX_NODES: usize = 1_024;

/// Lives of other nodes.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    known: AHashMap<u64, (Box<str>, Instant)>,
}

/// What is to be told of a node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    Nothing,
    /// It was not known.
    Came,
    /// The same, and it is called like this one.
    SameName,
}

impl Peers {
    /// A node says that it is there, to the one called `own`.
    pub(crate) fn hear(&mut self, life: u64, name: &str, own: &str, now: Instant) -> News {
        if let Some((_, last)) = self.known.get_mut(&life) {
            *last = now;
            return News::Nothing;
        }
        if self.known.len() >= MAX_NODES {
            return News::Nothing;
        }
        self.known.insert(life, (name.into(), now));
        if name == own { News::SameName } else { News::Came }
    }

    /// A node leaves; what it was called.
    pub(crate) fn leave(&mut self, life: u64) -> Option<Box<str>> {
        self.known.remove(&life).map(|(name, _)| name)
    }

    /// Those that are gone without a word.
    pub(crate) fn forget_silent(&mut self, now: Instant) -> Vec<Box<str>> {
        let mut gone = Vec::new();
        self.known.retain(|_, (name, last)| {
            let is_there = now.saturating_duration_since(*last) < SILENCE;
            if !is_there {
                gone.push(std::mem::take(name));
            }
            is_there
        });
        gone
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_come_leave_and_are_missed() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        assert_eq!(peers.hear(1, "n2", "n1", now), News::Came);
        assert_eq!(peers.hear(1, "n2", "n1", now), News::Nothing);
        assert_eq!(peers.hear(2, "n1", "n1", now), News::SameName);
        assert_eq!(peers.len(), 2);
        assert_eq!(peers.leave(2).as_deref(), Some("n1"));
        assert_eq!(peers.leave(2), None);
        assert_eq!(peers.hear(3, "n3", "n1", now + SILENCE / 2), News::Came);
        assert_eq!(peers.forget_silent(now + SILENCE), [Box::from("n2")]);
        assert_eq!(peers.len(), 1);
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        for life in 0..MAX_NODES as u64 + 10 {
            peers.hear(life, "n", "own", now);
        }
        assert_eq!(peers.len(), MAX_NODES);
    }
}

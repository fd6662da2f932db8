//! Which nodes there are, by what they say of themselves.

use std::time::{Duration, Instant};

use ahash::AHashMap;

use crate::desk::Peer;

/// How often a node says that it is there.
pub(crate) const HELLO_EVERY: Duration = Duration::from_secs(2);

/// Without a word for so long a node is not there any more.
const SILENCE: Duration = Duration::from_secs(7);

/// More than this are not remembered; they work all the same.
const MAX_NODES: usize = 1_024;

/// Lives of other nodes.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    known: AHashMap<u64, (Peer, Instant)>,
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
        self.known.insert(life, (Peer::new(life, name), now));
        if name == own { News::SameName } else { News::Came }
    }

    /// A node leaves.
    pub(crate) fn leave(&mut self, life: u64) -> Option<Peer> {
        self.known.remove(&life).map(|(peer, _)| peer)
    }

    pub(crate) fn find(&self, life: u64) -> Option<Peer> {
        self.known.get(&life).map(|(peer, _)| peer.clone())
    }

    pub(crate) fn all(&self) -> Vec<Peer> {
        self.known.values().map(|(peer, _)| peer.clone()).collect()
    }

    /// Those that are gone without a word.
    pub(crate) fn forget_silent(&mut self, now: Instant) -> Vec<Peer> {
        let is_silent = |last: &Instant| now.saturating_duration_since(*last) >= SILENCE;
        self.known.extract_if(|_, (_, last)| is_silent(last)).map(|(_, (peer, _))| peer).collect()
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
        assert_eq!(peers.leave(2).as_ref().map(|peer| &*peer.name), Some("n1"));
        assert_eq!(peers.leave(2), None);
        assert_eq!(peers.hear(3, "n3", "n1", now + SILENCE / 2), News::Came);
        assert_eq!(peers.forget_silent(now + SILENCE), [Peer::new(1, "n2")]);
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

//! Which nodes there are, by what they say of themselves.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ahash::AHashMap;

use crate::desk::Peer;

/// How often a node says that it is there.
pub(crate) const HELLO_EVERY: Duration = Duration::from_secs(2);

/// Without a word for so long a node is not there any more.
const SILENCE: Duration = Duration::from_secs(7);

/// More than this are not remembered; they work all the same.
const MAX_NODES: usize = 1_024;

/// Nodes that are gone, which are remembered for who looks for them: so many, and so long.
const MAX_GONE: usize = 64;
const GONE_FOR: Duration = Duration::from_secs(3600);

/// Lives of other nodes.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    known: AHashMap<u64, (Peer, Instant)>,
    /// Those that are gone, with when they were heard last, the newest behind.
    gone: VecDeque<(Peer, Instant)>,
}

/// Another node, and when it was heard last.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Heard {
    /// Which one.
    pub peer: Peer,
    /// How long ago it was heard last.
    pub ago: Duration,
    /// Whether it is not counted any more: it has left, or was silent for too long.
    pub is_gone: bool,
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
        // Back, or in its next life.
        self.gone.retain(|(peer, _)| *peer.name != *name);
        if name == own { News::SameName } else { News::Came }
    }

    /// A node leaves.
    pub(crate) fn leave(&mut self, life: u64) -> Option<Peer> {
        let (peer, last) = self.known.remove(&life)?;
        self.remember(peer.clone(), last);
        Some(peer)
    }

    fn remember(&mut self, peer: Peer, last: Instant) {
        if self.gone.len() >= MAX_GONE {
            self.gone.pop_front();
        }
        self.gone.push_back((peer, last));
    }

    /// All that were heard of lately, and those that are gone.
    pub(crate) fn heard(&self, now: Instant) -> Vec<Heard> {
        let heard = |(peer, last): &(Peer, Instant), is_gone| Heard {
            peer: peer.clone(),
            ago: now.saturating_duration_since(*last),
            is_gone,
        };
        let known = self.known.values().map(|one| heard(one, false));
        let gone = self.gone.iter().map(|one| heard(one, true));
        known.chain(gone.filter(|one| one.ago < GONE_FOR)).collect()
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
        let silent = self.known.extract_if(|_, (_, last)| is_silent(last));
        let silent: Vec<_> = silent.map(|(_, one)| one).collect();
        for (peer, last) in &silent {
            self.remember(peer.clone(), *last);
        }
        silent.into_iter().map(|(peer, _)| peer).collect()
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
    fn who_is_gone_is_remembered_until_it_comes_again() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        peers.hear(1, "n2", "n1", now);
        peers.hear(2, "n3", "n1", now);
        peers.leave(1);
        peers.forget_silent(now + SILENCE);
        let heard = |peers: &Peers, now| {
            let line = |one: Heard| format!("{} {} {}", one.peer.name, one.ago.as_secs(), one.is_gone);
            peers.heard(now).into_iter().map(line).collect::<Vec<_>>()
        };
        let later = now + 2 * SILENCE;
        assert_eq!(heard(&peers, later), ["n2 14 true", "n3 14 true"]);
        peers.hear(3, "n2", "n1", later);
        assert_eq!(heard(&peers, later), ["n2 0 false", "n3 14 true"]);
        assert_eq!(
            heard(&peers, now + GONE_FOR),
            [format!("n2 {} false", (GONE_FOR - 2 * SILENCE).as_secs())]
        );
        for life in 10..300 {
            peers.hear(life, &life.to_string(), "n1", now);
            peers.leave(life);
        }
        assert_eq!(heard(&peers, later).len(), MAX_GONE + 1);
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

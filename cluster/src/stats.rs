//! What a node counts of its cluster.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How a stream of JetStream is, as far as this node knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// It is there, and is the one that it was.
    There,
    /// Nobody says anything of it.
    #[default]
    Silent,
    /// It is gone, or another one: what was in it is lost.
    Lost,
}

impl Standing {
    const ALL: [Standing; 3] = [Self::Silent, Self::There, Self::Lost];

    pub(crate) fn code(self) -> u8 {
        Self::ALL.iter().position(|one| *one == self).map_or(0, |at| at as u8)
    }

    pub(crate) fn from_code(code: u8) -> Self {
        Self::ALL.get(usize::from(code)).copied().unwrap_or_default()
    }
}

/// How a node is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// NATS answers, and the streams of durable channels are there.
    Ready,
    /// NATS answers, and something of durable channels is lost, or nobody answers for it.
    Degraded,
    /// NATS does not answer: this node is alone.
    Down,
}

/// What a node counts of its cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Whether NATS answers.
    pub linked: bool,
    /// Whether it does, and the stream of durable channels is not lost: what is published here goes to the other nodes.
    pub connected: bool,
    /// Nodes that were heard of lately, this one among them.
    pub nodes: u64,
    /// How often the connection was lost.
    pub disconnects: u64,
    /// How long the server took for its newest answer.
    pub round_trip: Duration,
    /// Filters that are asked of NATS.
    pub filters: u64,
    /// Whether there are so many that this node takes all messages.
    pub takes_all: bool,
    /// Messages that were given to NATS.
    pub sent: u64,
    /// Bytes of those.
    pub sent_bytes: u64,
    /// Messages that wait to be given to NATS.
    pub waiting: u64,
    /// Bytes of those.
    pub waiting_bytes: u64,
    /// Messages that stayed here because NATS was away.
    pub unsent_away: u64,
    /// Because too much waited already.
    pub unsent_full: u64,
    /// Because they were larger than the server takes.
    pub unsent_large: u64,
    /// Messages of other nodes that were published here.
    pub received: u64,
    /// Bytes of those.
    pub received_bytes: u64,
    /// Messages that had come already, by another filter.
    pub repeats: u64,
    /// Messages of other nodes that this one did not take: over a bound of its own, or busy for too long.
    pub refused: u64,
    /// Times at which more came than this node read: of each, one message or more is lost.
    pub overruns: u64,
    /// What no node of this version sends.
    pub unreadable: u64,
    /// Messages of other nodes for groups that a member here got.
    pub shared: u64,
    /// Questions of other nodes: who is connected, who is there.
    pub questions: u64,
    /// Answers of other nodes that did not come in time.
    pub silent: u64,
    /// Subscribers that were told that they are subscribed before it was known that others' messages reach them.
    pub unsettled: u64,
    /// The stream of durable channels and that of what is retained there; `None` where all is in memory.
    pub streams: Option<(Standing, Standing)>,
    /// The stream of what is recorded of sessions; `None` where all is in memory.
    pub sessions: Option<Standing>,
    /// Publishes to durable channels that are not answered yet.
    pub kept_waiting: u64,
    /// Bytes of those.
    pub kept_waiting_bytes: u64,
    /// Frames of durable messages that this node has put into the stream.
    pub kept_sent: u64,
    /// Times at which one was sent again, or waited for NATS.
    pub kept_retries: u64,
    /// Publishes to durable channels, or frames of them, that were not stored: NATS was away, refused them or had no answer.
    pub kept_refused: u64,
    /// Durable messages that came, of all nodes.
    pub kept_received: u64,
    /// Bytes of their payloads.
    pub kept_received_bytes: u64,
    /// Frames that had come already.
    pub kept_repeats: u64,
    /// Times at which something was missing of what came, and read from the stream.
    pub kept_holes: u64,
    /// Frames that were read so.
    pub kept_filled: u64,
    /// Sessions that clients took from other nodes which did not say in time that they had recorded them.
    pub takeovers_unrecorded: u64,
    /// Groups with members here that share durable messages.
    pub groups: u64,
    /// Times at which there was no place for one more of those in the cluster.
    pub groups_refused: u64,
    /// Durable messages of groups that this node was given for its members.
    pub group_messages: u64,
    /// Frames of those that it gave back, as a member was gone before it was done.
    pub groups_returned: u64,
}

impl Stats {
    /// How the node is.
    pub fn state(&self) -> State {
        let is_whole = self.streams.is_none_or(|both| both == (Standing::There, Standing::There))
            && self.sessions.is_none_or(|one| one == Standing::There);
        match (self.linked, is_whole) {
            (false, _) => State::Down,
            (true, false) => State::Degraded,
            (true, true) => State::Ready,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) disconnects: AtomicU64,
    pub(crate) round_trip_us: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) unsent_away: AtomicU64,
    pub(crate) unsent_full: AtomicU64,
    pub(crate) unsent_large: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) repeats: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) overruns: AtomicU64,
    pub(crate) unreadable: AtomicU64,
    pub(crate) unsettled: AtomicU64,
    pub(crate) shared: AtomicU64,
    pub(crate) questions: AtomicU64,
    pub(crate) silent: AtomicU64,
    pub(crate) kept_sent: AtomicU64,
    pub(crate) kept_retries: AtomicU64,
    pub(crate) kept_refused: AtomicU64,
    pub(crate) kept_received: AtomicU64,
    pub(crate) kept_received_bytes: AtomicU64,
    pub(crate) kept_repeats: AtomicU64,
    pub(crate) kept_holes: AtomicU64,
    pub(crate) kept_filled: AtomicU64,
    pub(crate) takeovers_unrecorded: AtomicU64,
    pub(crate) groups_refused: AtomicU64,
    pub(crate) group_messages: AtomicU64,
    pub(crate) groups_returned: AtomicU64,
}

impl Counters {
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            disconnects: self.disconnects.load(Relaxed),
            round_trip: Duration::from_micros(self.round_trip_us.load(Relaxed)),
            sent: self.sent.load(Relaxed),
            sent_bytes: self.sent_bytes.load(Relaxed),
            unsent_away: self.unsent_away.load(Relaxed),
            unsent_full: self.unsent_full.load(Relaxed),
            unsent_large: self.unsent_large.load(Relaxed),
            received: self.received.load(Relaxed),
            received_bytes: self.received_bytes.load(Relaxed),
            repeats: self.repeats.load(Relaxed),
            refused: self.refused.load(Relaxed),
            overruns: self.overruns.load(Relaxed),
            unreadable: self.unreadable.load(Relaxed),
            unsettled: self.unsettled.load(Relaxed),
            shared: self.shared.load(Relaxed),
            questions: self.questions.load(Relaxed),
            silent: self.silent.load(Relaxed),
            kept_sent: self.kept_sent.load(Relaxed),
            kept_retries: self.kept_retries.load(Relaxed),
            kept_refused: self.kept_refused.load(Relaxed),
            kept_received: self.kept_received.load(Relaxed),
            kept_received_bytes: self.kept_received_bytes.load(Relaxed),
            kept_repeats: self.kept_repeats.load(Relaxed),
            kept_holes: self.kept_holes.load(Relaxed),
            kept_filled: self.kept_filled.load(Relaxed),
            takeovers_unrecorded: self.takeovers_unrecorded.load(Relaxed),
            groups_refused: self.groups_refused.load(Relaxed),
            group_messages: self.group_messages.load(Relaxed),
            groups_returned: self.groups_returned.load(Relaxed),
            ..Stats::default()
        }
    }
}

pub(crate) fn one_more(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_degraded_or_down() {
        let all = Standing::ALL;
        assert_eq!(all.map(|one| Standing::from_code(one.code())), all);
        let state = |linked, streams| Stats { linked, streams, ..Stats::default() }.state();
        assert_eq!((state(true, None), state(false, None)), (State::Ready, State::Down));
        let both = (Standing::There, Standing::There);
        assert_eq!((state(true, Some(both)), state(false, Some(both))), (State::Ready, State::Down));
        for one in [Standing::Silent, Standing::Lost] {
            assert_eq!(state(true, Some((one, Standing::There))), State::Degraded);
            assert_eq!(state(true, Some((Standing::There, one))), State::Degraded);
            let stats = Stats { linked: true, streams: Some(both), sessions: Some(one), ..Stats::default() };
            assert_eq!(stats.state(), State::Degraded);
        }
    }
}

//! The subscribers of one process, and what each of them has received.

use std::collections::HashMap;
use std::ops::Range;

use super::Plan;
use super::publishers::Publishers;
use crate::dialect::Event;
use crate::engine::Observer;
use crate::measure::completion::Completions;
use crate::measure::sequence::{Arrival, Sequences};
use crate::measure::stamp::Stamp;
use crate::measure::tally::Tally;
use crate::sys::clock::now_ns;

/// Reasons kept for the report.
const MAX_REASONS: usize = 8;

struct Listener {
    channel: u32,
    stalled: bool,
    broken: bool,
    sequences: Sequences,
}

/// Counts, checks and completes deliveries; knows nothing of sockets.
pub(super) struct Crowd {
    listeners: Vec<Listener>,
    publishers: Range<usize>,
    completions: Completions,
    completed: Vec<Stamp>,
    answered: Vec<usize>,
    accepted: u64,
    events: u64,
    tally: Tally,
    reasons: Vec<String>,
}

impl Crowd {
    /// `parts[c]`: how many other processes report channel `c`'s messages as complete to this one.
    pub(super) fn new(plan: &Plan, mut parts: Vec<u32>) -> Self {
        parts.resize(plan.channels as usize, 0);
        let listeners: Vec<Listener> = plan
            .mine()
            .map(|number| Listener {
                channel: plan.channel_of(number),
                stalled: plan.is_stalled(number),
                broken: false,
                sequences: Sequences::default(),
            })
            .collect();
        for listener in listeners.iter().filter(|listener| !listener.stalled) {
            parts[listener.channel as usize] += 1;
        }
        Self {
            listeners,
            publishers: 0..0,
            completions: Completions::new(parts),
            completed: Vec::new(),
            answered: Vec::new(),
            accepted: 0,
            events: 0,
            tally: Tally::default(),
            reasons: Vec::new(),
        }
    }

    pub(super) fn expect_publishers(&mut self, connections: Range<usize>) {
        self.publishers = connections;
    }

    /// Messages that have reached everybody since the last call.
    pub(super) fn take_completed(&mut self) -> Vec<Stamp> {
        std::mem::take(&mut self.completed)
    }

    /// A number that moves with every event, for noticing silence.
    pub(super) fn progress(&self) -> u64 {
        self.events
    }

    /// Publishes answered with success so far.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    pub(super) fn reasons(&self) -> &[String] {
        &self.reasons
    }

    pub(super) fn reset(&mut self) {
        self.tally = Tally::default();
    }

    /// What was counted, and as lost what has not come of `sent` (series and count).
    pub(super) fn tally(&self, sent: &[(u64, u32)]) -> Tally {
        let mut by_channel: HashMap<u32, Vec<(u64, u32)>> = HashMap::new();
        for (series, count) in sent {
            by_channel.entry(*series as u32).or_default().push((*series, *count));
        }
        let mut tally = self.tally.clone();
        for listener in self.listeners.iter().filter(|listener| !listener.stalled) {
            for (series, count) in by_channel.get(&listener.channel).into_iter().flatten() {
                tally.faults.lost += u64::from(listener.sequences.unseen_tail(*series, *count));
            }
        }
        tally
    }

    pub(super) fn remote_completed(&mut self, stamp: &Stamp) {
        self.events += 1;
        if self.completions.arrived(stamp) {
            self.completed.push(*stamp);
        }
    }

    pub(super) fn give_back_windows(&mut self, publishers: &mut Publishers) {
        for connection in self.answered.drain(..) {
            publishers.answered(connection);
        }
    }

    fn delivered(&mut self, connection: usize, payload: &[u8]) {
        let Some(listener) = self.listeners.get_mut(connection) else { return };
        let stamp = match Stamp::read(payload) {
            Some(stamp) if stamp.channel == listener.channel => stamp,
            _ => {
                self.tally.faults.foreign += 1;
                return;
            }
        };
        match listener.sequences.check(stamp.series(), stamp.sequence) {
            Arrival::InOrder => {}
            Arrival::AfterGap(gap) => self.tally.faults.lost += u64::from(gap),
            Arrival::Late => {
                self.tally.faults.lost = self.tally.faults.lost.saturating_sub(1);
                self.tally.faults.reordered += 1;
            }
            Arrival::Duplicate => {
                self.tally.faults.duplicate += 1;
                return;
            }
        }
        self.tally.record(now_ns().saturating_sub(stamp.sent_ns));
        if self.completions.arrived(&stamp) {
            self.completed.push(stamp);
        }
    }
}

impl Observer for Crowd {
    fn event(&mut self, connection: usize, event: Event<'_>) {
        self.events += 1;
        match event {
            Event::Ready => {}
            Event::Payload(payload) => self.delivered(connection, payload),
            Event::Accepted => {
                self.accepted += 1;
                self.answered.push(connection);
            }
            Event::Refused(status) => {
                self.tally.faults.refused += 1;
                self.answered.push(connection);
                if self.reasons.len() < MAX_REASONS {
                    self.reasons.push(format!("publish refused: {status}"));
                }
            }
        }
    }

    fn broken(&mut self, connection: usize, reason: &str) {
        self.events += 1;
        match self.listeners.get_mut(connection) {
            // Cutting off who does not read is the server's right.
            Some(listener) if listener.stalled || listener.broken => {}
            Some(listener) => {
                listener.broken = true;
                self.tally.faults.broken += 1;
                self.completions.leave(listener.channel);
            }
            None => self.tally.faults.broken += 1,
        }
        if self.reasons.len() < MAX_REASONS {
            self.reasons.push(reason.to_owned());
        }
    }
}

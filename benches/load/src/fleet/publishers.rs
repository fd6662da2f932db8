//! Who publishes the next message, on which channel, with which number.

use std::collections::VecDeque;

use crate::measure::stamp::Stamp;

/// A message that may go out now.
pub(super) struct Next {
    pub(super) connection: usize,
    pub(super) stamp: Stamp,
}

#[derive(Default)]
struct Publisher {
    connection: usize,
    /// Publishes it may still send before an answer.
    free: usize,
    queue: VecDeque<Stamp>,
}

/// Publishing connections and the sequence numbers they have used.
#[derive(Default)]
pub(super) struct Publishers {
    first: usize,
    publishers: Vec<Publisher>,
    channels: u32,
    queued: u64,
    /// Next number per publisher and channel: index `publisher * channels + channel`.
    next: Vec<u32>,
    /// Publishers with something queued and room to send it; may name one twice.
    sendable: VecDeque<usize>,
}

impl Publishers {
    /// Connections `first` and following, one per window.
    pub(super) fn new(first: usize, windows: impl Iterator<Item = usize>, channels: u32) -> Self {
        let publishers: Vec<Publisher> = windows
            .enumerate()
            .map(|(index, free)| Publisher { connection: first + index, free, queue: VecDeque::new() })
            .collect();
        let next = vec![0; publishers.len() * channels as usize];
        Self { first, publishers, channels, queued: 0, next, sendable: VecDeque::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.publishers.len()
    }

    /// Takes the next message in turn: channels and publishers round robin, a channel always by the same few.
    pub(super) fn queue(&mut self, due_ns: u64) {
        let (publishers, channels) = (self.publishers.len() as u64, u64::from(self.channels));
        if publishers == 0 || channels == 0 {
            return;
        }
        let (publisher, channel) = if channels >= publishers {
            let channel = self.queued % channels;
            (channel % publishers, channel)
        } else {
            let publisher = self.queued % publishers;
            (publisher, publisher % channels)
        };
        self.queued += 1;
        let sequence = &mut self.next[(publisher * channels + channel) as usize];
        let stamp = Stamp {
            publisher: publisher as u16,
            channel: channel as u32,
            sequence: *sequence,
            sent_ns: due_ns,
        };
        *sequence += 1;
        self.publishers[publisher as usize].queue.push_back(stamp);
        self.sendable.push_back(publisher as usize);
    }

    /// The answer to one publish on `connection` has come.
    pub(super) fn answered(&mut self, connection: usize) {
        let index = connection.wrapping_sub(self.first);
        if let Some(publisher) = self.publishers.get_mut(index) {
            publisher.free += 1;
            self.sendable.push_back(index);
        }
    }

    pub(super) fn next_to_send(&mut self) -> Option<Next> {
        while let Some(index) = self.sendable.pop_front() {
            let publisher = &mut self.publishers[index];
            if publisher.free == 0 {
                continue;
            }
            if let Some(stamp) = publisher.queue.pop_front() {
                publisher.free -= 1;
                return Some(Next { connection: publisher.connection, stamp });
            }
        }
        None
    }

    /// How many messages were taken per series.
    pub(super) fn sent(&self) -> Vec<(u64, u32)> {
        let channels = self.channels.max(1) as usize;
        let series = |index: usize| ((index / channels) as u64) << 32 | (index % channels) as u64;
        let used = self.next.iter().enumerate().filter(|(_, count)| **count > 0);
        used.map(|(index, count)| (series(index), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_round_robin_within_each_publishers_window() {
        let mut publishers = Publishers::new(100, [1, 1].into_iter(), 4);
        for due in 0..6 {
            publishers.queue(due);
        }
        let mut sent = Vec::new();
        while let Some(next) = publishers.next_to_send() {
            sent.push((next.connection, next.stamp.channel, next.stamp.sequence));
        }
        assert_eq!(sent, [(100, 0, 0), (101, 1, 0)]);
        publishers.answered(100);
        let next = publishers.next_to_send().map(|next| (next.connection, next.stamp.channel));
        assert_eq!(next, Some((100, 2)));
        assert!(publishers.next_to_send().is_none());
        assert_eq!(publishers.sent(), [(0, 2), (2, 1), (1 << 32 | 1, 2), (1 << 32 | 3, 1)]);
    }
}

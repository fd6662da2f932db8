//! When a message has reached everybody: the closed loop's signal to publish the next.

use super::stamp::Stamp;

#[derive(Clone, Debug)]
struct InFlight {
    series: u64,
    sequence: u32,
    missing: u32,
}

/// Messages on their way, per channel.
#[derive(Debug)]
pub(crate) struct Completions {
    /// Arrivals that complete one message of a channel.
    parts: Vec<u32>,
    in_flight: Vec<Vec<InFlight>>,
}

impl Completions {
    /// `parts[c]`: how often `arrived` is called for one message of channel `c`, 0 for a channel nobody here hears.
    pub(crate) fn new(parts: Vec<u32>) -> Self {
        Self { in_flight: vec![Vec::new(); parts.len()], parts }
    }

    /// A subscriber of `channel` is gone: later messages need one part less.
    pub(crate) fn leave(&mut self, channel: u32) {
        if let Some(parts) = self.parts.get_mut(channel as usize) {
            *parts = parts.saturating_sub(1);
        }
    }

    /// One more subscriber, or one more process of subscribers, has this message; true when it was the last.
    pub(crate) fn arrived(&mut self, stamp: &Stamp) -> bool {
        let channel = stamp.channel as usize;
        let (Some(&parts), Some(waiting)) = (self.parts.get(channel), self.in_flight.get_mut(channel)) else {
            return false;
        };
        let series = stamp.series();
        let place =
            waiting.iter().position(|message| message.series == series && message.sequence == stamp.sequence);
        let place = place.unwrap_or_else(|| {
            waiting.push(InFlight { series, sequence: stamp.sequence, missing: parts });
            waiting.len() - 1
        });
        let message = &mut waiting[place];
        message.missing = message.missing.saturating_sub(1);
        let complete = message.missing == 0;
        if complete {
            waiting.swap_remove(place);
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_completes_with_its_last_part_only() {
        let mut completions = Completions::new(vec![2, 0, 1]);
        let stamp = |channel, sequence| Stamp { publisher: 3, channel, sequence, sent_ns: 0 };
        for (channel, sequence, complete) in
            [(0, 0, false), (0, 1, false), (2, 0, true), (0, 1, true), (0, 0, true), (7, 0, false)]
        {
            assert_eq!(completions.arrived(&stamp(channel, sequence)), complete, "{channel}/{sequence}");
        }
    }

    #[test]
    fn nobody_waits_for_a_subscriber_that_left() {
        let mut completions = Completions::new(vec![2]);
        completions.leave(0);
        assert!(completions.arrived(&Stamp { publisher: 0, channel: 0, sequence: 0, sent_ns: 0 }));
    }
}

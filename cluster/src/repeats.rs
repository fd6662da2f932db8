//! Which messages have come already: where two filters of this node match, NATS brings a message once for each.

use ahash::{AHashMap, RandomState};
use broker_core::Channel;

use crate::frame::Origin;

/// The newest number of each node on each channel. What a node publishes on a channel comes in rising order by every
/// way, so all that is not newer has come. It remembers the channels that were in use last, in two generations; of a
/// longer memory there is no use, as copies come close after each other.
#[derive(Debug)]
pub(crate) struct Repeats {
    hasher: RandomState,
    young: AHashMap<u64, u64>,
    old: AHashMap<u64, u64>,
    max: usize,
}

impl Repeats {
    /// Remembers `max` channels at least, and twice as many at most.
    pub(crate) fn new(max: usize) -> Self {
        Self { hasher: RandomState::new(), young: AHashMap::new(), old: AHashMap::new(), max: max.max(1) }
    }

    /// Whether it is new; then it is remembered.
    pub(crate) fn is_new(&mut self, origin: Origin, channel: &Channel) -> bool {
        let key = self.hasher.hash_one((origin.life, channel.as_str()));
        if let Some(newest) = self.young.get_mut(&key) {
            let is_new = origin.number > *newest;
            *newest = (*newest).max(origin.number);
            return is_new;
        }
        let before = self.old.get(&key).copied().unwrap_or(0);
        if self.young.len() >= self.max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, before.max(origin.number));
        origin.number > before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_new_once_for_each_node_and_channel() {
        let mut repeats = Repeats::new(8);
        let (a, b) = (Channel::parse("a").unwrap(), Channel::parse("b").unwrap());
        for (life, number, channel, is_new) in [
            (1, 5, &a, true),
            (1, 5, &a, false),
            (1, 4, &a, false),
            (1, 4, &b, true),
            (2, 4, &a, true),
            (1, 6, &a, true),
        ] {
            assert_eq!(
                repeats.is_new(Origin { life, number }, channel),
                is_new,
                "{life} {number} {channel:?}"
            );
        }
    }

    #[test]
    fn its_memory_is_bounded_and_keeps_what_is_in_use() {
        let mut repeats = Repeats::new(4);
        let often = Channel::parse("often").unwrap();
        for number in 1..100 {
            let seldom = Channel::parse(&format!("c{number}")).unwrap();
            assert!(repeats.is_new(Origin { life: 1, number }, &seldom));
            assert!(repeats.is_new(Origin { life: 1, number }, &often));
            assert!(!repeats.is_new(Origin { life: 1, number }, &often));
            assert!(repeats.young.len() + repeats.old.len() <= 8);
        }
    }
}

//! Whether channels have subscribers, as backends were told: a `vacated` for each `occupied`, and none for who comes
//! back at once.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use broker_core::Channel;

/// How long a channel without subscribers is waited for.
pub(super) const RETURN: Duration = Duration::from_secs(3);

/// The channels that backends were told to be occupied. Reads no clock; how many subscribers a channel has is what the
/// core counts, asked by whoever calls this at that moment.
#[derive(Debug, Default)]
pub(super) struct Occupancy {
    /// Occupied; since when without a subscriber, if it is.
    channels: HashMap<Channel, Option<(Instant, u64)>>,
    waiting: BTreeMap<(Instant, u64), Channel>,
    next: u64,
}

impl Occupancy {
    /// A channel has so many subscribers now; whether it is to be told that it is occupied.
    pub(super) fn handle_count(&mut self, now: Instant, channel: &Channel, subscribers: usize) -> bool {
        let Some(empty) = self.channels.get_mut(channel) else {
            if subscribers > 0 {
                self.channels.insert(channel.clone(), None);
            }
            return subscribers > 0;
        };
        match (subscribers, *empty) {
            (0, None) => {
                let place = (now + RETURN, self.next);
                self.next += 1;
                *empty = Some(place);
                self.waiting.insert(place, channel.clone());
            }
            (1.., Some(place)) => {
                *empty = None;
                self.waiting.remove(&place);
            }
            _ => {}
        }
        false
    }

    /// The next channel that nobody came back to; it is vacant from now on. `subscribers` is asked once more.
    pub(super) fn poll_vacated(
        &mut self,
        now: Instant,
        subscribers: impl Fn(&Channel) -> usize,
    ) -> Option<Channel> {
        while self.poll_timeout().is_some_and(|at| at <= now) {
            let (_, channel) = self.waiting.pop_first()?;
            if subscribers(&channel) == 0 {
                self.channels.remove(&channel);
                return Some(channel);
            }
            self.channels.insert(channel, None);
        }
        None
    }

    /// When to ask again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }

    /// All that backends were told to be occupied, which are vacant from now on: the broker stops.
    pub(super) fn end(&mut self) -> Vec<Channel> {
        self.waiting.clear();
        std::mem::take(&mut self.channels).into_keys().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody(_: &Channel) -> usize {
        0
    }

    fn channel(name: &str) -> Channel {
        Channel::parse(name).unwrap()
    }

    #[test]
    fn who_comes_back_within_three_seconds_was_never_gone() {
        let (start, a) = (Instant::now(), channel("a"));
        let mut occupancy = Occupancy::default();
        assert!(!occupancy.handle_count(start, &a, 0));
        assert!(occupancy.handle_count(start, &a, 1));
        assert!(!occupancy.handle_count(start, &a, 2));
        assert!(!occupancy.handle_count(start, &a, 0));
        assert_eq!(occupancy.poll_timeout(), Some(start + RETURN));
        assert_eq!(occupancy.poll_vacated(start + RETURN - Duration::from_millis(1), nobody), None);
        assert!(!occupancy.handle_count(start, &a, 1), "it is back");
        assert_eq!(occupancy.poll_vacated(start + RETURN * 2, nobody), None);
        occupancy.handle_count(start, &a, 0);
        occupancy.handle_count(start + RETURN, &a, 0);
        assert_eq!(occupancy.poll_vacated(start + RETURN, nobody), Some(a.clone()));
        assert_eq!((occupancy.poll_vacated(start + RETURN, nobody), occupancy.poll_timeout()), (None, None));
        assert!(occupancy.handle_count(start, &a, 1));
    }

    #[test]
    fn changes_alternate_whatever_happens() {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut now, mut occupancy) = (Instant::now(), Occupancy::default());
        let mut told: HashMap<Channel, bool> = HashMap::new();
        for _ in 0..20_000 {
            let name = channel(&random.u8(0..5).to_string());
            if occupancy.handle_count(now, &name, random.usize(0..3)) {
                assert!(!told.insert(name, true).unwrap_or(false));
            }
            now += Duration::from_millis(random.u64(0..1000));
            while let Some(gone) = occupancy.poll_vacated(now, nobody) {
                assert_eq!(told.insert(gone, false), Some(true));
            }
        }
        for gone in occupancy.end() {
            assert_eq!(told.insert(gone, false), Some(true));
        }
        assert!(told.values().all(|occupied| !occupied));
    }
}

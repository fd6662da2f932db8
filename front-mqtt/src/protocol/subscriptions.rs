//! A session's subscriptions, found by tag on each delivery and by filter on SUBSCRIBE and UNSUBSCRIBE.

use std::collections::HashMap;

use broker_core::{GRANTED_TAG, Qos};

use super::record::Held;
use crate::codec::{FilterOptions, RetainHandling};

/// One subscription of a session.
#[derive(Debug, Clone, Eq, PartialEq)]
pub(crate) struct Subscription {
    /// As the client wrote it, `$share/GROUP/` included.
    pub(crate) filter: Box<str>,
    /// The session's number for it, never used again.
    pub(crate) tag: u32,
    /// The client's number for it; 0 is none.
    pub(crate) id: u32,
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) shared: bool,
    /// It was removed, and its place will be closed with others'.
    gone: bool,
}

/// Sorted by the [`number`]s of their tags: they only grow, so appending keeps the order.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    list: Vec<Subscription>,
    next_tag: u32,
    /// How many of the list are gone. To close each place at once would cost a client that ends ten thousand
    /// subscriptions in one packet ten thousand moves of the whole list.
    gone: u32,
    /// Filter → tag, once there are so many that looking through the list would take long.
    #[expect(clippy::box_collection, reason = "few sessions have one, and all have the place for it")]
    by_filter: Option<Box<HashMap<Box<str>, u32>>>,
}

/// From this many subscriptions on filters are found through a map.
const INDEX_FROM: usize = 32;

/// Whether a SUBSCRIBE made or replaced a subscription.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Placed {
    New(u32),
    Replaced(u32),
}

impl Subscriptions {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.list.iter().filter(|held| !held.gone)
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len() - self.gone as usize
    }

    pub(crate) fn by_tag(&self, tag: u32) -> Option<&Subscription> {
        self.position(tag).and_then(|index| self.list.get(index)).filter(|held| !held.gone)
    }

    fn position(&self, tag: u32) -> Option<usize> {
        self.list.binary_search_by_key(&number(tag), |subscription| number(subscription.tag)).ok()
    }

    pub(crate) fn tag_of(&self, filter: &str) -> Option<u32> {
        match &self.by_filter {
            Some(index) => index.get(filter).copied(),
            None => self.list.iter().find(|held| *held.filter == *filter).map(|held| held.tag),
        }
    }

    /// Adds the subscription or replaces all of it but its tag (MQTT 5.0 §3.8.4). `None`: `max` are held,
    /// or the tags are used up.
    pub(crate) fn place(
        &mut self,
        filter: &str,
        options: &FilterOptions,
        id: u32,
        shared: bool,
        max: usize,
    ) -> Option<Placed> {
        self.place_from(0, filter, options, id, shared, max)
    }

    fn place_from(
        &mut self,
        first_tag: u32,
        filter: &str,
        options: &FilterOptions,
        id: u32,
        shared: bool,
        max: usize,
    ) -> Option<Placed> {
        if let Some(tag) = self.tag_of(filter) {
            if let Some(held) = self.position(tag).and_then(|index| self.list.get_mut(index)) {
                held.id = id;
                held.qos = options.qos;
                held.no_local = options.no_local;
                held.retain_as_published = options.retain_as_published;
            }
            return Some(Placed::Replaced(tag));
        }
        if self.len() >= max || self.next_tag >= GRANTED_TAG {
            return None;
        }
        let tag = first_tag + self.next_tag;
        self.next_tag += 1;
        if self.list.is_empty() {
            // Most clients hold one or two; a vector's first growth would take four.
            self.list.reserve_exact(1);
        }
        self.list.push(Subscription {
            filter: filter.into(),
            tag,
            id,
            qos: options.qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            shared,
            gone: false,
        });
        match &mut self.by_filter {
            Some(index) => {
                index.insert(filter.into(), tag);
            }
            None if self.list.len() >= INDEX_FROM => {
                let index = self.list.iter().map(|held| (held.filter.clone(), held.tag)).collect();
                self.by_filter = Some(Box::new(index));
            }
            None => {}
        }
        Some(Placed::New(tag))
    }

    /// Adds a subscription the client did not ask for; it keeps its tag, and with it what it grants, if the client asks
    /// for the same later. `None` as for [`Subscriptions::place`].
    pub(crate) fn place_forced(&mut self, filter: &str, options: &FilterOptions, max: usize) -> Option<u32> {
        let placed = self.place_from(GRANTED_TAG, filter, options, 0, false, max)?;
        let (Placed::New(tag) | Placed::Replaced(tag)) = placed;
        Some(tag)
    }

    /// Adds one that the session had before; its tag.
    pub(super) fn restore(&mut self, held: &Held) -> u32 {
        let options = FilterOptions {
            qos: held.qos,
            no_local: held.no_local,
            retain_as_published: held.retain_as_published,
            retain_handling: RetainHandling::DoNotSend,
        };
        match self.place(&held.filter, &options, held.id, held.shared, usize::MAX) {
            Some(Placed::New(tag) | Placed::Replaced(tag)) => tag,
            None => 0,
        }
    }

    pub(crate) fn remove(&mut self, filter: &str) -> Option<Subscription> {
        let index = self.position(self.tag_of(filter)?)?;
        let Some(map) = &mut self.by_filter else { return Some(self.list.remove(index)) };
        map.remove(filter);
        let held = self.list.get_mut(index)?;
        let removed = Subscription { filter: std::mem::take(&mut held.filter), ..held.clone() };
        held.gone = true;
        self.gone += 1;
        if self.gone as usize * 2 > self.list.len() {
            self.list.retain(|held| !held.gone);
            self.list.shrink_to(2 * self.list.len());
            self.gone = 0;
        }
        Some(removed)
    }
}

/// The number in a tag: those that are granted beside the rights and all others are numbered in one row.
fn number(tag: u32) -> u32 {
    tag % GRANTED_TAG
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: FilterOptions = FilterOptions {
        qos: Qos::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };

    #[test]
    fn subscriptions_are_found_by_filter_and_tag_at_any_number() {
        let mut held = Subscriptions::default();
        for n in 0..100u32 {
            let filter = format!("a/{n}");
            assert_eq!(held.place(&filter, &OPTIONS, n, false, 100), Some(Placed::New(n)));
        }
        assert_eq!(held.place("one too many", &OPTIONS, 0, false, 100), None);
        for n in (0..100).step_by(3) {
            assert_eq!(held.remove(&format!("a/{n}")).map(|gone| gone.tag), Some(n));
            assert_eq!(held.remove(&format!("a/{n}")), None);
        }
        for n in 0..100 {
            let there = n % 3 != 0;
            assert_eq!(held.by_tag(n).is_some(), there, "{n}");
            assert_eq!(held.tag_of(&format!("a/{n}")).is_some(), there, "{n}");
        }
        assert_eq!(
            held.place("a/0", &OPTIONS, 0, false, 100),
            Some(Placed::New(100)),
            "tags are not used again"
        );
    }

    #[test]
    fn what_is_removed_one_by_one_leaves_no_more_places_than_are_held() {
        let mut held = Subscriptions::default();
        for n in 0..1000u32 {
            held.place(&format!("a/{n}"), &OPTIONS, n, false, 1000);
        }
        for n in 0..1000u32 {
            assert_eq!(
                held.remove(&format!("a/{n}")).map(|gone| (gone.tag, gone.filter)),
                Some((n, format!("a/{n}").into()))
            );
            assert_eq!(held.len(), 999 - n as usize);
            assert_eq!(held.iter().count(), held.len());
            assert!(held.list.len() <= 2 * held.len() + 1, "{} of {}", held.len(), held.list.len());
        }
        for n in 0..100u32 {
            assert!(held.place("b", &OPTIONS, n, false, 1).is_some());
            assert_eq!(held.place("one too many", &OPTIONS, n, false, 1), None);
            assert!(held.remove("b").is_some());
        }
        assert!(held.list.len() <= 1);
    }

    #[test]
    fn forced_ones_are_told_by_their_tags_and_found_like_others() {
        let mut held = Subscriptions::default();
        assert_eq!(held.place("a", &OPTIONS, 0, false, 4), Some(Placed::New(0)));
        assert_eq!(held.place_forced("b", &OPTIONS, 4), Some(GRANTED_TAG + 1));
        assert_eq!(held.place("c", &OPTIONS, 0, false, 4), Some(Placed::New(2)));
        assert_eq!(held.place_forced("d", &OPTIONS, 4), Some(GRANTED_TAG + 3));
        assert_eq!(held.place("b", &OPTIONS, 0, false, 4), Some(Placed::Replaced(GRANTED_TAG + 1)));
        assert_eq!(held.place_forced("e", &OPTIONS, 4), None);
        for (tag, filter) in [(0, "a"), (GRANTED_TAG + 1, "b"), (2, "c"), (GRANTED_TAG + 3, "d")] {
            assert_eq!(held.by_tag(tag).map(|held| &*held.filter), Some(filter));
        }
        assert_eq!(held.remove("b").map(|gone| gone.tag), Some(GRANTED_TAG + 1));
        assert!(held.by_tag(GRANTED_TAG + 1).is_none() && held.by_tag(2).is_some());
    }

    #[test]
    fn the_same_filter_replaces_options_and_keeps_its_tag() {
        let mut held = Subscriptions::default();
        held.place("a", &OPTIONS, 7, false, 9);
        let options = FilterOptions { qos: Qos::AtMostOnce, no_local: true, ..OPTIONS };
        assert_eq!(held.place("a", &options, 0, false, 9), Some(Placed::Replaced(0)));
        let now = held.by_tag(0).unwrap();
        assert_eq!((now.qos, now.no_local, now.id), (Qos::AtMostOnce, true, 0));
        assert_eq!(held.iter().count(), 1);
    }
}

//! Which filters somebody is subscribed to here, and what NATS knows of them: no IO.

use std::time::{Duration, Instant};

use ahash::AHashMap;
use broker_core::Filter;

/// How long a filter is kept that nobody wants: who comes back soon finds it.
pub(crate) const LINGER: Duration = Duration::from_secs(3);

/// What is asked of NATS: a filter, or all there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asked {
    Filter(Filter),
    Everything,
}

/// The filters of this node.
#[derive(Debug)]
pub(crate) struct Interests {
    known: AHashMap<Asked, Interest>,
    max: usize,
}

#[derive(Debug)]
struct Interest {
    /// Subscriptions.
    wanted: u64,
    stage: Stage,
    /// When the last of them ended.
    idle_since: Option<Instant>,
}

/// How far NATS is with a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It is to be asked.
    Asked,
    /// What others publish comes.
    Settled,
}

impl Interests {
    pub(crate) fn new(max: usize) -> Self {
        Self { known: AHashMap::new(), max }
    }

    /// One more subscription: what is to be asked of NATS for it, if it is something new.
    pub(crate) fn add(&mut self, filter: &Filter) -> Option<Asked> {
        let asked = self.asked_for(filter);
        let interest = self.known.get_mut(&asked);
        if let Some(interest) = interest {
            interest.wanted += 1;
            interest.idle_since = None;
            return None;
        }
        self.known.insert(asked.clone(), Interest { wanted: 1, stage: Stage::Asked, idle_since: None });
        Some(asked)
    }

    /// One subscription less.
    pub(crate) fn remove(&mut self, filter: &Filter, now: Instant) {
        // It may have come while there was no room, and be counted with everything, though there is room now.
        let own = Asked::Filter(filter.clone());
        let asked =
            if self.known.get(&own).is_some_and(|own| own.wanted > 0) { own } else { Asked::Everything };
        if let Some(interest) = self.known.get_mut(&asked) {
            interest.wanted = interest.wanted.saturating_sub(1);
            if interest.wanted == 0 {
                interest.idle_since = Some(now);
            }
        }
    }

    fn asked_for(&self, filter: &Filter) -> Asked {
        let own = Asked::Filter(filter.clone());
        let others = self.known.len() - usize::from(self.takes_all());
        if others < self.max || self.known.contains_key(&own) { own } else { Asked::Everything }
    }

    /// What nobody has wanted for a while; it is forgotten.
    pub(crate) fn sweep(&mut self, now: Instant) -> Vec<Asked> {
        let is_over = |interest: &Interest| {
            let idle = interest.idle_since.map(|since| now.saturating_duration_since(since));
            // What is not settled yet is on its way there.
            interest.stage == Stage::Settled && idle.is_some_and(|idle| idle >= LINGER)
        };
        let over: Vec<Asked> =
            self.known.iter().filter(|(_, one)| is_over(one)).map(|(asked, _)| asked.clone()).collect();
        for asked in &over {
            self.known.remove(asked);
        }
        over
    }

    pub(crate) fn settle(&mut self, asked: &Asked) {
        if let Some(interest) = self.known.get_mut(asked) {
            interest.stage = Stage::Settled;
        }
    }

    /// Whether what others publish reaches a subscriber to `filter`.
    pub(crate) fn is_settled(&self, filter: &Filter) -> bool {
        let stage = |asked: &Asked| self.known.get(asked).map(|interest| interest.stage);
        match stage(&Asked::Filter(filter.clone())) {
            Some(stage) => stage == Stage::Settled || self.everything_is_settled(),
            // Nobody is subscribed, or all who are count with everything.
            None => stage(&Asked::Everything).is_none_or(|stage| stage == Stage::Settled),
        }
    }

    fn everything_is_settled(&self) -> bool {
        self.known.get(&Asked::Everything).is_some_and(|all| all.stage == Stage::Settled)
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    pub(crate) fn takes_all(&self) -> bool {
        self.known.contains_key(&Asked::Everything)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Filter {
        Filter::parse(text).unwrap()
    }

    fn own(text: &str) -> Asked {
        Asked::Filter(filter(text))
    }

    #[test]
    fn a_filter_is_asked_once_however_many_want_it_and_lingers() {
        let (mut interests, now) = (Interests::new(8), Instant::now());
        let a = filter("a/*");
        assert_eq!(interests.add(&a), Some(own("a/*")));
        assert_eq!(interests.add(&a), None);
        assert!(!interests.is_settled(&a));
        interests.settle(&own("a/*"));
        assert!(interests.is_settled(&a));
        interests.remove(&a, now);
        assert!(interests.sweep(now + LINGER).is_empty(), "one still wants it");
        interests.remove(&a, now);
        assert!(interests.sweep(now + LINGER / 2).is_empty());
        assert_eq!(interests.add(&a), None, "it is still there");
        interests.remove(&a, now);
        assert_eq!(interests.sweep(now + LINGER), [own("a/*")]);
        assert_eq!(interests.len(), 0);
        assert_eq!(interests.add(&a), Some(own("a/*")));
        assert!(!interests.is_settled(&a), "it is asked anew");
    }

    #[test]
    fn what_is_on_its_way_is_not_given_up() {
        let (mut interests, now) = (Interests::new(8), Instant::now());
        interests.add(&filter("a"));
        interests.remove(&filter("a"), now);
        assert!(interests.sweep(now + LINGER).is_empty());
        interests.settle(&own("a"));
        assert_eq!(interests.sweep(now + LINGER), [own("a")]);
    }

    #[test]
    fn beyond_the_bound_everything_is_asked_for_until_nobody_needs_it() {
        let (mut interests, now) = (Interests::new(2), Instant::now());
        for text in ["a", "b"] {
            assert_eq!(interests.add(&filter(text)), Some(own(text)));
        }
        assert_eq!(interests.add(&filter("c")), Some(Asked::Everything));
        assert_eq!(interests.add(&filter("d")), None);
        assert_eq!(interests.add(&filter("a")), None);
        assert!(interests.takes_all() && !interests.is_settled(&filter("c")));
        interests.settle(&Asked::Everything);
        assert!(interests.is_settled(&filter("c")) && interests.is_settled(&filter("a")));
        assert_eq!(interests.len(), 3);
        // One that came while there was no room and one that comes when there is room are counted apart.
        interests.settle(&own("b"));
        interests.remove(&filter("b"), now);
        assert_eq!(interests.sweep(now + LINGER), [own("b")]);
        assert_eq!(interests.add(&filter("c")), Some(own("c")));
        for text in ["c", "c", "d"] {
            interests.remove(&filter(text), now);
        }
        interests.settle(&own("c"));
        let mut over = interests.sweep(now + LINGER);
        over.sort_by_key(|asked| *asked == Asked::Everything);
        assert_eq!(over, [own("c"), Asked::Everything]);
        assert_eq!(interests.len(), 1);
    }
}

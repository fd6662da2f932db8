//! What one session is subscribed to, each with its tag.

use std::collections::HashMap;

use broker_core::Filter;
use smallvec::SmallVec;

/// From so many on they are found by their hash; most sessions have one or two.
const MANY: usize = 32;

/// See the module.
#[derive(Debug)]
#[expect(clippy::box_collection, reason = "most sessions have few, and should not pay for many")]
pub(crate) enum Subscriptions {
    Few(SmallVec<[(Filter, u32); 1]>),
    Many(Box<HashMap<Filter, u32, ahash::RandomState>>),
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self::Few(SmallVec::new())
    }
}

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    pub(crate) fn tag_of(&self, filter: &Filter) -> Option<u32> {
        match self {
            Self::Few(few) => few.iter().find(|(known, _)| known == filter).map(|(_, tag)| *tag),
            Self::Many(many) => many.get(filter).copied(),
        }
    }

    /// False if it is there already, whatever its tag.
    pub(crate) fn insert(&mut self, filter: &Filter, tag: u32) -> bool {
        if self.tag_of(filter).is_some() {
            return false;
        }
        match self {
            Self::Few(few) if few.len() < MANY => few.push((filter.clone(), tag)),
            Self::Few(few) => {
                let mut many: HashMap<_, _, _> = std::mem::take(few).into_iter().collect();
                many.insert(filter.clone(), tag);
                *self = Self::Many(Box::new(many));
            }
            Self::Many(many) => _ = many.insert(filter.clone(), tag),
        }
        true
    }

    /// Its tag, if it was there.
    pub(crate) fn remove(&mut self, filter: &Filter) -> Option<u32> {
        match self {
            Self::Few(few) => {
                let at = few.iter().position(|(known, _)| known == filter)?;
                Some(few.swap_remove(at).1)
            }
            Self::Many(many) => many.remove(filter),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Filter, u32)> {
        let (few, many) = match self {
            Self::Few(few) => (Some(few), None),
            Self::Many(many) => (None, Some(many)),
        };
        let few = few.into_iter().flatten().map(|(filter, tag)| (filter, *tag));
        few.chain(many.into_iter().flat_map(|many| many.iter()).map(|(filter, tag)| (filter, *tag)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_are_the_same_to_their_session() {
        let filters: Vec<Filter> = (0..100).map(|n| Filter::parse(&format!("a/{n}")).unwrap()).collect();
        let mut subscriptions = Subscriptions::default();
        for (tag, filter) in (0..).zip(&filters) {
            assert!(subscriptions.insert(filter, tag) && !subscriptions.insert(filter, 7));
            assert_eq!((subscriptions.len(), subscriptions.tag_of(filter)), (tag as usize + 1, Some(tag)));
        }
        let mut tags: Vec<u32> = subscriptions.iter().map(|(_, tag)| tag).collect();
        tags.sort_unstable();
        assert!(tags.into_iter().eq(0..100));
        for (tag, filter) in (0..).zip(&filters) {
            assert_eq!((subscriptions.remove(filter), subscriptions.remove(filter)), (Some(tag), None));
        }
        assert_eq!(subscriptions.len(), 0);
    }
}

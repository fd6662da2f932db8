//! The trie of subscriptions with wildcards.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ahash::AHashMap;
use parking_lot::RwLock;

use crate::channel::Channel;
use crate::filter::Segment;
use crate::lists::{Hits, Lists};

/// Subscriptions with wildcards, by segment. While there are none, a publisher pays one relaxed load.
#[derive(Debug, Default)]
pub(crate) struct Wildcards {
    root: RwLock<Node>,
    /// Changes with every addition: a publisher that matched before it took the log's lock sees that it must match
    /// again.
    version: AtomicU64,
    filters: AtomicUsize,
}

#[derive(Debug, Default)]
struct Node {
    children: AHashMap<Box<str>, Node>,
    one: Option<Box<Node>>,
    here: Lists,
    rest_one_or_more: Lists,
    rest_zero_or_more: Lists,
}

impl Wildcards {
    /// Number of distinct filters; 0 means that nothing needs matching.
    pub(crate) fn filters(&self) -> usize {
        self.filters.load(Ordering::Relaxed)
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Adds what `channel` hits; the number of subscriptions.
    pub(crate) fn collect(&self, channel: &Channel, hits: &mut Hits) -> u64 {
        let root = self.root.read();
        let name = channel.as_str();
        let (first, rest) = match name.split_once('/') {
            Some((first, rest)) => (first, Some(rest)),
            None => (name, None),
        };
        if channel.is_reserved() {
            // Wildcards in the first segment do not match the broker's own channels (MQTT 5.0 §4.7.2).
            return root.children.get(first).map_or(0, |node| node.collect(rest, hits));
        }
        root.collect(Some(name), hits)
    }

    /// Runs `edit` on the lists of one pattern. The caller says what changed by its return value.
    pub(crate) fn edit<T>(&self, pattern: &[Segment], edit: impl FnOnce(&mut Lists) -> T) -> T {
        let mut root = self.root.write();
        let (result, change) = root.edit(pattern, edit);
        match change {
            Change::Added => _ = self.filters.fetch_add(1, Ordering::Relaxed),
            Change::Removed => _ = self.filters.fetch_sub(1, Ordering::Relaxed),
            Change::Kept => {}
        }
        self.version.fetch_add(1, Ordering::Release);
        result
    }
}

enum Change {
    Added,
    Removed,
    Kept,
}

impl Node {
    fn collect(&self, rest: Option<&str>, hits: &mut Hits) -> u64 {
        let mut count = self.rest_zero_or_more.collect(hits);
        let Some(rest) = rest else {
            return count + self.here.collect(hits);
        };
        count += self.rest_one_or_more.collect(hits);
        let (segment, rest) = match rest.split_once('/') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (rest, None),
        };
        if let Some(child) = self.children.get(segment) {
            count += child.collect(rest, hits);
        }
        if let Some(one) = &self.one {
            count += one.collect(rest, hits);
        }
        count
    }

    fn edit<T>(&mut self, pattern: &[Segment], edit: impl FnOnce(&mut Lists) -> T) -> (T, Change) {
        let lists = match pattern.split_first() {
            None => &mut self.here,
            Some((Segment::RestOneOrMore, _)) => &mut self.rest_one_or_more,
            Some((Segment::RestZeroOrMore, _)) => &mut self.rest_zero_or_more,
            Some((Segment::One, rest)) => {
                let one = self.one.get_or_insert_default();
                let result = one.edit(rest, edit);
                if one.is_empty() {
                    self.one = None;
                }
                return result;
            }
            Some((Segment::Literal(text), rest)) => {
                let child = self.children.entry(text.clone()).or_default();
                let result = child.edit(rest, edit);
                if child.is_empty() {
                    self.children.remove(text);
                    if self.children.is_empty() {
                        self.children = AHashMap::default();
                    }
                }
                return result;
            }
        };
        let before = lists.is_empty();
        let result = edit(lists);
        let change = match (before, lists.is_empty()) {
            (true, false) => Change::Added,
            (false, true) => Change::Removed,
            _ => Change::Kept,
        };
        (result, change)
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.one.is_none()
            && self.here.is_empty()
            && self.rest_one_or_more.is_empty()
            && self.rest_zero_or_more.is_empty()
    }
}

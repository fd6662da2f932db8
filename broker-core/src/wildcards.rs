//! The trie of subscriptions with wildcards.
//!
//! A channel's segments are looked up once in a table of names; the trie itself branches on their numbers. Matching
//! visits many nodes for one channel, so a node is small and comparing a segment there is comparing a number.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ahash::AHashMap;
use parking_lot::RwLock;
use smallvec::SmallVec;

use crate::channel::Channel;
use crate::filter::Segment;
use crate::lists::{Hits, Lists};

/// Subscriptions with wildcards. While there are none, a publisher pays one relaxed load.
#[derive(Debug, Default)]
pub(crate) struct Wildcards {
    trie: RwLock<Trie>,
    /// Changes with every edit: a publisher that matched before it took the log's lock sees that it must match again.
    version: AtomicU64,
    filters: AtomicUsize,
}

#[derive(Debug, Default)]
struct Trie {
    names: Names,
    root: Node,
}

/// The number of a segment's text.
type Name = u32;

/// Numbers for the texts that some filter uses.
#[derive(Debug, Default)]
struct Names {
    /// With the number of uses.
    numbers: AHashMap<Box<str>, (Name, u32)>,
    free: Vec<Name>,
}

/// One place in the trie: what is subscribed to exactly here, and what lies below.
#[derive(Debug, Default)]
struct Node {
    here: Lists,
    children: HashMap<Name, Node, BuildHasherDefault<NameHasher>>,
    one: Option<Box<Node>>,
    rest: Option<Box<Rest>>,
}

/// Subscriptions to everything below a node.
#[derive(Debug, Default)]
struct Rest {
    one_or_more: Lists,
    zero_or_more: Lists,
}

/// Spreads the numbers, which are small and dense, over a table's bits.
#[derive(Debug, Default)]
struct NameHasher(u64);

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, name: u32) {
        self.0 = (self.0 ^ u64::from(name)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A channel's segments; `None` where no filter uses the text.
type Path = SmallVec<[Option<Name>; 12]>;

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
        let mut count = 0;
        self.visit(channel, &mut |lists| count += lists.collect(hits));
        count
    }

    /// Calls `visit` with the lists of every pattern that `channel` matches.
    #[inline]
    pub(crate) fn visit(&self, channel: &Channel, visit: &mut impl FnMut(&Lists)) {
        let trie = self.trie.read();
        let path: Path = channel.segments().map(|segment| trie.names.find(segment)).collect();
        if !channel.is_reserved() {
            return trie.root.visit(&path, visit);
        }
        // Wildcards in the first segment do not match the broker's own channels (MQTT 5.0 §4.7.2).
        let Some((Some(first), rest)) = path.split_first() else { return };
        if let Some(node) = trie.root.children.get(first) {
            node.visit(rest, visit);
        }
    }

    /// Runs `edit` on the lists of one pattern.
    pub(crate) fn edit<T>(&self, pattern: &[Segment], edit: impl FnOnce(&mut Lists) -> T) -> T {
        let mut trie = self.trie.write();
        let Trie { names, root } = &mut *trie;
        let (result, change) = root.edit(pattern, names, edit);
        match change {
            Change::Added => _ = self.filters.fetch_add(1, Ordering::Relaxed),
            Change::Removed => _ = self.filters.fetch_sub(1, Ordering::Relaxed),
            Change::Kept => {}
        }
        self.version.fetch_add(1, Ordering::Release);
        result
    }
}

impl Names {
    fn find(&self, text: &str) -> Option<Name> {
        self.numbers.get(text).map(|(name, _)| *name)
    }

    /// The text's number, for one more use.
    fn use_once(&mut self, text: &str) -> Name {
        if let Some((name, uses)) = self.numbers.get_mut(text) {
            *uses += 1;
            return *name;
        }
        let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        let name = self.free.pop().unwrap_or(next);
        self.numbers.insert(text.into(), (name, 1));
        name
    }

    fn drop_use(&mut self, text: &str) {
        if let Some((name, uses)) = self.numbers.get_mut(text) {
            *uses -= 1;
            if *uses == 0 {
                self.free.push(*name);
                self.numbers.remove(text);
            }
        }
    }
}

enum Change {
    Added,
    Removed,
    Kept,
}

impl Node {
    fn visit(&self, path: &[Option<Name>], visit: &mut impl FnMut(&Lists)) {
        if let Some(rest) = &self.rest {
            visit(&rest.zero_or_more);
            if !path.is_empty() {
                visit(&rest.one_or_more);
            }
        }
        let Some((name, path)) = path.split_first() else {
            return visit(&self.here);
        };
        if let Some(child) = name.as_ref().and_then(|name| self.children.get(name)) {
            child.visit(path, visit);
        }
        if let Some(one) = &self.one {
            one.visit(path, visit);
        }
    }

    fn edit<T>(
        &mut self,
        pattern: &[Segment],
        names: &mut Names,
        edit: impl FnOnce(&mut Lists) -> T,
    ) -> (T, Change) {
        let Some((segment, below)) = pattern.split_first() else { return edit_lists(&mut self.here, edit) };
        match segment {
            Segment::RestOneOrMore | Segment::RestZeroOrMore => {
                let rest = self.rest.get_or_insert_default();
                let lists = match segment {
                    Segment::RestOneOrMore => &mut rest.one_or_more,
                    _ => &mut rest.zero_or_more,
                };
                let result = edit_lists(lists, edit);
                self.rest.take_if(|rest| rest.one_or_more.is_empty() && rest.zero_or_more.is_empty());
                result
            }
            Segment::One => {
                let result = self.one.get_or_insert_default().edit(below, names, edit);
                self.one.take_if(|one| one.is_empty());
                result
            }
            Segment::Literal(text) => {
                let known = names.find(text).filter(|name| self.children.contains_key(name));
                let name = known.unwrap_or_else(|| names.use_once(text));
                let child = self.children.entry(name).or_default();
                let result = child.edit(below, names, edit);
                if child.is_empty() {
                    self.children.remove(&name);
                    names.drop_use(text);
                    if self.children.is_empty() {
                        self.children = HashMap::default();
                    }
                }
                result
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.one.is_none() && self.rest.is_none() && self.here.is_empty()
    }
}

fn edit_lists<T>(lists: &mut Lists, edit: impl FnOnce(&mut Lists) -> T) -> (T, Change) {
    let before = lists.is_empty();
    let result = edit(lists);
    let change = match (before, lists.is_empty()) {
        (true, false) => Change::Added,
        (false, true) => Change::Removed,
        _ => Change::Kept,
    };
    (result, change)
}

//! A tree of patterns: values found by every channel that their pattern matches.
//!
//! A channel's segments are looked up once in a table of names; the tree itself compares numbers. A chain of segments
//! without a branch is one node (its `run`), so a filter of a thousand levels is about as many nodes as one of three.
//! Nodes lie in one vector and name each other by their place: whatever depth a peer chooses, nothing here recurses,
//! neither matching nor dropping.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use ahash::{AHashMap, RandomState};
use smallvec::SmallVec;

use crate::channel::Channel;
use crate::filter::{Filter, SegmentRef, Wild};

/// What is kept for a pattern.
pub(crate) trait Value: Default {
    /// Whether it need not be kept.
    fn is_empty(&self) -> bool;
}

#[derive(Debug)]
pub(crate) struct Trie<V> {
    names: Names,
    /// The first is the root. It has no run and never goes.
    nodes: Vec<Node<V>>,
    free: Vec<NodeId>,
    /// The literal branches of all nodes.
    edges: HashMap<(NodeId, Name), NodeId, EdgeState>,
    /// Bytes of runs, and boxes, outside the vector.
    outside: usize,
}

/// The number of a segment's text.
type Name = u32;

/// `*` in a run, and the way to a node.
const ONE: Name = u32::MAX - 1;
/// A segment that no pattern uses.
const UNKNOWN: Name = u32::MAX;

type NodeId = u32;

const ROOT: NodeId = 0;
/// No node: the root is nobody's child.
const NONE: NodeId = ROOT;

/// One place in the tree: what is kept exactly here, and what lies below.
#[derive(Debug)]
struct Node<V> {
    /// Segments between the one that led here and this place.
    run: SmallVec<[Name; 4]>,
    here: V,
    rest: Option<Box<Rest<V>>>,
    parent: NodeId,
    /// The segment that leads here from the parent.
    via: Name,
    /// The branch of `*`.
    one: NodeId,
    /// Literal branches.
    branches: u32,
    /// Their names, XORed: while there is one branch, this is its name.
    branch_names: Name,
}

/// What is kept for everything below a node.
#[derive(Debug, Default)]
struct Rest<V> {
    one_or_more: V,
    zero_or_more: V,
}

/// Where a pattern ends.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Here,
    OneOrMore,
    ZeroOrMore,
}

/// Segments as numbers.
type Path = SmallVec<[Name; 12]>;

impl<V: Value> Default for Trie<V> {
    fn default() -> Self {
        let edges = HashMap::with_hasher(EdgeState::default());
        Self {
            names: Names::default(),
            nodes: vec![Node::new(NONE, ONE)],
            free: Vec::new(),
            edges,
            outside: 0,
        }
    }
}

impl<V: Value> Trie<V> {
    /// Calls `visit` with the value of every pattern that `channel` matches.
    #[inline]
    pub(crate) fn visit(&self, channel: &Channel, visit: &mut impl FnMut(&V)) {
        let path: Path = channel.segments().map(|segment| self.names.find(segment)).collect();
        let mut stack: SmallVec<[(NodeId, u32); 32]> = SmallVec::new();
        if channel.is_reserved() {
            // Wildcards in the first segment do not match the broker's own channels (MQTT 5.0 §4.7.2).
            let first = path.first().and_then(|first| self.edges.get(&(ROOT, *first)));
            stack.extend(first.map(|node| (*node, 1)));
        } else {
            stack.push((ROOT, 0));
        }
        while let Some((id, at)) = stack.pop() {
            let Some(node) = self.nodes.get(id as usize) else { continue };
            let Some(left) = node.follow(path.get(at as usize..).unwrap_or_default()) else { continue };
            if let Some(rest) = &node.rest {
                visit(&rest.zero_or_more);
                if !left.is_empty() {
                    visit(&rest.one_or_more);
                }
            }
            let Some(name) = left.first() else {
                visit(&node.here);
                continue;
            };
            let below = (path.len() - left.len() + 1) as u32;
            if node.one != NONE {
                stack.push((node.one, below));
            }
            if node.branches > 0
                && *name != UNKNOWN
                && let Some(branch) = self.edges.get(&(id, *name))
            {
                stack.push((*branch, below));
            }
        }
    }

    /// The value of one pattern, if there is one.
    pub(crate) fn get(&self, filter: &Filter) -> Option<&V> {
        let (path, end) = self.path(filter);
        self.locate(&path).and_then(|id| self.value(id, end))
    }

    /// Runs `edit` on the value of one pattern, made for it if there is none and gone afterwards if it is empty. What
    /// became of the number of values.
    pub(crate) fn edit<T>(&mut self, filter: &Filter, edit: impl FnOnce(&mut V) -> T) -> (T, Change) {
        let (path, end) = self.path(filter);
        let found =
            self.locate(&path).filter(|id| self.value(*id, end).is_some_and(|value| !value.is_empty()));
        if let Some(id) = found
            && let Some(value) = self.value_mut(id, end)
        {
            let result = edit(value);
            if !value.is_empty() {
                return (result, Change::Kept);
            }
            self.vacate(id, end);
            self.names.drop_uses(filter);
            self.prune(id);
            self.compact();
            return (result, Change::Removed);
        }
        let mut value = V::default();
        let result = edit(&mut value);
        if value.is_empty() {
            return (result, Change::Kept);
        }
        let path = self.names.use_all(filter);
        let id = self.place(&path);
        if end != End::Here
            && let Some(node) = self.nodes.get_mut(id as usize)
            && node.rest.is_none()
        {
            self.outside += size_of::<Rest<V>>();
            node.rest = Some(Box::default());
        }
        if let Some(place) = self.value_mut(id, end) {
            *place = value;
        }
        (result, Change::Added)
    }

    /// Bytes that it holds, those of the values' own boxes aside.
    pub(crate) fn bytes(&self) -> usize {
        // A table keeps an eighth of its places free, and has a byte beside each. What a vector may grow into was never
        // touched, and takes no memory yet.
        let edge = size_of::<((NodeId, Name), NodeId)>() + 1;
        self.nodes.len() * size_of::<Node<V>>()
            + self.free.capacity() * size_of::<NodeId>()
            + self.edges.capacity() * edge * 8 / 7
            + self.outside
            + self.names.bytes()
    }

    /// The numbers of a filter's segments, and its end.
    fn path(&self, filter: &Filter) -> (Path, End) {
        let (mut path, mut end) = (Path::new(), End::Here);
        for segment in filter.segments() {
            match segment {
                SegmentRef::Literal(text) => path.push(self.names.find(text)),
                SegmentRef::Wild(Wild::One) => path.push(ONE),
                SegmentRef::Wild(Wild::OneOrMore) => end = End::OneOrMore,
                SegmentRef::Wild(Wild::ZeroOrMore) => end = End::ZeroOrMore,
            }
        }
        (path, end)
    }

    /// The node of exactly this path.
    fn locate(&self, path: &[Name]) -> Option<NodeId> {
        let (mut id, mut left) = (ROOT, path);
        loop {
            left = left.strip_prefix(self.nodes.get(id as usize)?.run.as_slice())?;
            let Some((name, below)) = left.split_first() else { return Some(id) };
            id = self.child(id, *name)?;
            left = below;
        }
    }

    fn child(&self, id: NodeId, name: Name) -> Option<NodeId> {
        match name {
            ONE => self.nodes.get(id as usize).map(|node| node.one).filter(|one| *one != NONE),
            name => self.edges.get(&(id, name)).copied(),
        }
    }

    fn value(&self, id: NodeId, end: End) -> Option<&V> {
        let node = self.nodes.get(id as usize)?;
        match end {
            End::Here => Some(&node.here),
            End::OneOrMore => node.rest.as_ref().map(|rest| &rest.one_or_more),
            End::ZeroOrMore => node.rest.as_ref().map(|rest| &rest.zero_or_more),
        }
    }

    fn value_mut(&mut self, id: NodeId, end: End) -> Option<&mut V> {
        let node = self.nodes.get_mut(id as usize)?;
        match end {
            End::Here => Some(&mut node.here),
            End::OneOrMore => node.rest.as_mut().map(|rest| &mut rest.one_or_more),
            End::ZeroOrMore => node.rest.as_mut().map(|rest| &mut rest.zero_or_more),
        }
    }

    /// Gives back what an empty value held.
    fn vacate(&mut self, id: NodeId, end: End) {
        let Some(node) = self.nodes.get_mut(id as usize) else { return };
        match end {
            End::Here => node.here = V::default(),
            _ => {
                let is_empty =
                    |rest: &mut Box<Rest<V>>| rest.one_or_more.is_empty() && rest.zero_or_more.is_empty();
                if node.rest.take_if(is_empty).is_some() {
                    self.outside -= size_of::<Rest<V>>();
                }
            }
        }
    }

    /// The node of this path, made if there is none.
    fn place(&mut self, path: &[Name]) -> NodeId {
        let (mut id, mut left) = (ROOT, path);
        loop {
            let Some(node) = self.nodes.get(id as usize) else { return id };
            let same = node.run.iter().zip(left).take_while(|(one, other)| one == other).count();
            if same < node.run.len() {
                id = self.split(id, same);
            }
            left = left.get(same..).unwrap_or_default();
            let Some((name, below)) = left.split_first() else { return id };
            left = below;
            match self.child(id, *name) {
                Some(child) => id = child,
                None => {
                    let leaf = self.add(id, *name);
                    self.set_run(leaf, below.into());
                    self.link(id, *name, leaf);
                    return leaf;
                }
            }
        }
    }

    /// Makes a node of its own of the first `at` segments of a run.
    fn split(&mut self, id: NodeId, at: usize) -> NodeId {
        let Some(node) = self.nodes.get(id as usize) else { return id };
        let (parent, via, run) = (node.parent, node.via, node.run.clone());
        let (head, tail) = run.split_at(at.min(run.len()));
        let Some((name, tail)) = tail.split_first() else { return id };
        let middle = self.add(parent, via);
        self.set_run(middle, head.into());
        self.set_run(id, tail.into());
        self.link(parent, via, middle);
        self.link(middle, *name, id);
        middle
    }

    /// Takes a node out that nothing is kept at, if the tree does not need it.
    fn prune(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(id as usize) else { return };
        if id == ROOT || !node.is_vacant() {
            return;
        }
        if node.branches == 0 && node.one == NONE {
            let (parent, via) = (node.parent, node.via);
            self.unlink(parent, via);
            self.release(id);
            self.join(parent);
        } else {
            self.join(id);
        }
    }

    /// Puts a vacant node with one child and that child together. The child keeps its place: its own children know it.
    fn join(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(id as usize) else { return };
        if id == ROOT || !node.is_vacant() || node.branches + u32::from(node.one != NONE) != 1 {
            return;
        }
        let name = if node.one != NONE { ONE } else { node.branch_names };
        let (parent, via, mut run) = (node.parent, node.via, node.run.clone());
        let Some(child) = self.child(id, name) else { return };
        run.push(name);
        run.extend(self.nodes.get(child as usize).into_iter().flat_map(|child| child.run.iter().copied()));
        self.edges.remove(&(id, name));
        self.release(id);
        self.set_run(child, run);
        self.link(parent, via, child);
    }

    fn link(&mut self, parent: NodeId, via: Name, id: NodeId) {
        let is_new = via != ONE && self.edges.insert((parent, via), id).is_none();
        if let Some(node) = self.nodes.get_mut(parent as usize) {
            if via == ONE {
                node.one = id;
            } else if is_new {
                node.branches += 1;
                node.branch_names ^= via;
            }
        }
        if let Some(node) = self.nodes.get_mut(id as usize) {
            (node.parent, node.via) = (parent, via);
        }
    }

    fn unlink(&mut self, parent: NodeId, via: Name) {
        let was_there = via != ONE && self.edges.remove(&(parent, via)).is_some();
        if let Some(node) = self.nodes.get_mut(parent as usize) {
            if via == ONE {
                node.one = NONE;
            } else if was_there {
                node.branches -= 1;
                node.branch_names ^= via;
            }
        }
    }

    fn add(&mut self, parent: NodeId, via: Name) -> NodeId {
        let node = Node::new(parent, via);
        match self.free.pop() {
            Some(id) => {
                if let Some(place) = self.nodes.get_mut(id as usize) {
                    *place = node;
                }
                id
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
            }
        }
    }

    fn release(&mut self, id: NodeId) {
        self.set_run(id, SmallVec::new());
        if let Some(node) = self.nodes.get_mut(id as usize) {
            *node = Node::new(NONE, UNKNOWN);
            self.free.push(id);
        }
    }

    fn set_run(&mut self, id: NodeId, mut run: SmallVec<[Name; 4]>) {
        run.shrink_to_fit();
        let outside =
            |run: &SmallVec<[Name; 4]>| if run.spilled() { run.capacity() * size_of::<Name>() } else { 0 };
        if let Some(node) = self.nodes.get_mut(id as usize) {
            self.outside = self.outside + outside(&run) - outside(&node.run);
            node.run = run;
        }
    }

    /// Gives memory back once three quarters of the nodes are free.
    fn compact(&mut self) {
        if self.nodes.len() < 64 || self.free.len() * 4 < self.nodes.len() * 3 {
            return;
        }
        let mut places = vec![0; self.nodes.len()];
        for free in self.free.drain(..) {
            if let Some(place) = places.get_mut(free as usize) {
                *place = NodeId::MAX;
            }
        }
        let mut next = 0;
        for place in places.iter_mut().filter(|place| **place != NodeId::MAX) {
            *place = next;
            next += 1;
        }
        let moved = |id: NodeId| places.get(id as usize).copied().unwrap_or(NONE);
        let nodes = std::mem::take(&mut self.nodes).into_iter().zip(&places);
        self.nodes = Vec::with_capacity(next as usize * 2);
        self.nodes.extend(nodes.filter(|(_, place)| **place != NodeId::MAX).map(|(mut node, _)| {
            (node.parent, node.one) = (moved(node.parent), moved(node.one));
            node
        }));
        let edges = std::mem::replace(&mut self.edges, HashMap::with_hasher(EdgeState::default()));
        self.edges.extend(edges.into_iter().map(|((from, name), to)| ((moved(from), name), moved(to))));
        self.free = Vec::new();
        self.names.shrink();
    }
}

impl<V: Value> Node<V> {
    fn new(parent: NodeId, via: Name) -> Self {
        Self {
            run: SmallVec::new(),
            here: V::default(),
            rest: None,
            parent,
            via,
            one: NONE,
            branches: 0,
            branch_names: 0,
        }
    }

    /// What is left of a path behind this node's run; `None` if it leads elsewhere.
    #[inline]
    fn follow<'p>(&self, path: &'p [Name]) -> Option<&'p [Name]> {
        if self.run.is_empty() {
            return Some(path);
        }
        let (head, left) = path.split_at_checked(self.run.len())?;
        self.run.iter().zip(head).all(|(run, name)| run == name || *run == ONE).then_some(left)
    }

    fn is_vacant(&self) -> bool {
        self.here.is_empty() && self.rest.is_none()
    }
}

/// What an edit did to the number of values.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Change {
    Added,
    Removed,
    Kept,
}

/// Numbers for the texts that some pattern uses.
#[derive(Debug, Default)]
struct Names {
    /// With the number of uses.
    numbers: AHashMap<Box<str>, (Name, u32)>,
    free: Vec<Name>,
    text_bytes: usize,
}

impl Names {
    fn find(&self, text: &str) -> Name {
        self.numbers.get(text).map_or(UNKNOWN, |(name, _)| *name)
    }

    /// The numbers of a filter's segments, for one more use.
    fn use_all(&mut self, filter: &Filter) -> Path {
        let mut path = Path::new();
        for segment in filter.segments() {
            match segment {
                SegmentRef::Literal(text) => path.push(self.use_once(text)),
                SegmentRef::Wild(Wild::One) => path.push(ONE),
                SegmentRef::Wild(_) => {}
            }
        }
        path
    }

    fn use_once(&mut self, text: &str) -> Name {
        if let Some((name, uses)) = self.numbers.get_mut(text) {
            *uses += 1;
            return *name;
        }
        let next = u32::try_from(self.numbers.len()).unwrap_or(UNKNOWN);
        let name = self.free.pop().unwrap_or(next);
        self.text_bytes += text.len();
        self.numbers.insert(text.into(), (name, 1));
        name
    }

    fn drop_uses(&mut self, filter: &Filter) {
        for segment in filter.segments() {
            if let SegmentRef::Literal(text) = segment
                && let Some((name, uses)) = self.numbers.get_mut(text)
            {
                *uses -= 1;
                if *uses == 0 {
                    self.free.push(*name);
                    self.numbers.remove(text);
                    self.text_bytes -= text.len();
                }
            }
        }
        if self.numbers.is_empty() {
            *self = Self::default();
        }
    }

    fn shrink(&mut self) {
        self.numbers.shrink_to_fit();
        self.free.shrink_to_fit();
    }

    fn bytes(&self) -> usize {
        let place = size_of::<(Box<str>, (Name, u32))>() + 1;
        self.numbers.capacity() * place * 8 / 7
            + self.free.capacity() * size_of::<Name>()
            + self.text_bytes
            + self.numbers.len() * size_of::<usize>()
    }
}

/// Hashes two small numbers with one multiplication. Its key is drawn at random: peers choose which numbers meet.
#[derive(Debug, Clone)]
struct EdgeState {
    mask: u64,
    factor: u64,
}

impl Default for EdgeState {
    fn default() -> Self {
        let random = RandomState::new();
        Self { mask: random.hash_one(0), factor: random.hash_one(1) | 1 }
    }
}

impl BuildHasher for EdgeState {
    type Hasher = EdgeHasher;

    fn build_hasher(&self) -> EdgeHasher {
        EdgeHasher { state: self.mask, factor: self.factor }
    }
}

#[derive(Debug)]
struct EdgeHasher {
    state: u64,
    factor: u64,
}

impl Hasher for EdgeHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    #[inline]
    fn write_u32(&mut self, number: u32) {
        self.state = self.state.rotate_left(32) ^ u64::from(number);
    }

    #[inline]
    fn finish(&self) -> u64 {
        let product = u128::from(self.state) * u128::from(self.factor);
        (product >> 64) as u64 ^ product as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Value for Vec<u32> {
        fn is_empty(&self) -> bool {
            self.is_empty()
        }
    }

    fn filter(text: &str) -> Filter {
        Filter::parse(text).unwrap()
    }

    fn add(trie: &mut Trie<Vec<u32>>, text: &str, number: u32) -> Change {
        trie.edit(&filter(text), |values| values.push(number)).1
    }

    fn remove(trie: &mut Trie<Vec<u32>>, text: &str) -> Change {
        trie.edit(&filter(text), |values| values.clear()).1
    }

    fn found(trie: &Trie<Vec<u32>>, channel: &str) -> Vec<u32> {
        let mut found = Vec::new();
        trie.visit(&Channel::parse(channel).unwrap(), &mut |values| found.extend(values));
        found.sort_unstable();
        found
    }

    #[test]
    fn a_chain_without_branches_is_one_node() {
        let mut trie = Trie::default();
        assert_eq!(add(&mut trie, "a/b/c/d/e/*", 1), Change::Added);
        assert_eq!(trie.nodes.len(), 2);
        assert_eq!(add(&mut trie, "a/b/x/*", 2), Change::Added);
        assert_eq!(add(&mut trie, "a/b/#", 3), Change::Added);
        assert_eq!(trie.nodes.len(), 4);
        assert_eq!(found(&trie, "a/b/c/d/e/f"), [1, 3]);
        assert_eq!(found(&trie, "a/b/x/y"), [2, 3]);
        assert_eq!(found(&trie, "a/b"), [3]);
        assert_eq!(remove(&mut trie, "a/b/#"), Change::Removed);
        assert_eq!(remove(&mut trie, "a/b/x/*"), Change::Removed);
        assert_eq!(trie.nodes.len() - trie.free.len(), 2, "joined again");
        assert_eq!(found(&trie, "a/b/c/d/e/f"), [1]);
        assert_eq!(remove(&mut trie, "a/b/c/d/e/*"), Change::Removed);
        assert_eq!(remove(&mut trie, "a/b/c/d/e/*"), Change::Kept);
        assert_eq!((trie.nodes.len() - trie.free.len(), trie.edges.len(), trie.outside), (1, 0, 0));
        assert!(trie.names.numbers.is_empty());
    }

    #[test]
    fn what_is_taken_out_gives_its_memory_back() {
        let mut trie = Trie::default();
        let empty = trie.bytes();
        for number in 0..5_000 {
            add(&mut trie, &format!("{number}/*/x/{number}/y/{number}/**"), number);
        }
        let full = trie.bytes();
        for number in 0..5_000 {
            remove(&mut trie, &format!("{number}/*/x/{number}/y/{number}/**"));
            assert_eq!(found(&trie, "4999/a/x/4999/y/4999/z").len(), usize::from(number < 4_999));
        }
        assert!(trie.bytes() < empty + full / 20, "{empty} {full} {}", trie.bytes());
    }

    #[test]
    fn no_depth_needs_stack() {
        let deepest = std::thread::Builder::new().stack_size(64 << 10);
        let work = || {
            let mut trie = Trie::default();
            let levels = 10_000;
            // Each prefix of the deepest is a filter of its own, so that there is a node for each level.
            for level in (1..=levels).rev().step_by(40) {
                add(&mut trie, &vec!["*"; level].join("/"), 1);
            }
            let channel = vec!["a"; levels].join("/");
            assert_eq!(found(&trie, &channel), [1]);
            assert!(format!("{trie:?}").len() > levels);
            drop(trie);
        };
        deepest.spawn(work).unwrap().join().unwrap();
    }
}

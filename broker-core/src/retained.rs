//! The one message a channel keeps for later subscribers, in a tree of segments so that wildcards find them.

use std::sync::Arc;

use ahash::AHashMap;
use parking_lot::RwLock;

use crate::channel::Channel;
use crate::filter::{Filter, Segment};
use crate::message::Message;

#[derive(Debug)]
pub(crate) struct Retained {
    tree: RwLock<Tree>,
    max_messages: usize,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Tree {
    root: Node,
    messages: usize,
    bytes: usize,
    /// How many of them have an end.
    expiring: usize,
}

#[derive(Debug, Default)]
struct Node {
    children: AHashMap<Box<str>, Node>,
    message: Option<Arc<Message>>,
}

impl Retained {
    pub(crate) fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self { tree: RwLock::default(), max_messages, max_bytes }
    }

    /// Whether a message of this weight may come in; the bound that says no.
    pub(crate) fn admits(&self, channel: &Channel, weight: usize) -> Result<(), usize> {
        let tree = self.tree.read();
        let old = tree.root.find(channel).map(|message| message.weight());
        if tree.bytes - old.unwrap_or(0) + weight > self.max_bytes {
            return Err(self.max_bytes);
        }
        if old.is_none() && tree.messages >= self.max_messages {
            return Err(self.max_messages);
        }
        Ok(())
    }

    /// Keeps `message` for its channel; the one it replaces is returned to be freed outside the caller's locks.
    pub(crate) fn set(&self, message: Arc<Message>) -> Option<Arc<Message>> {
        let mut tree = self.tree.write();
        let tree = &mut *tree;
        let channel = message.channel().clone();
        let mut node = &mut tree.root;
        for segment in channel.segments() {
            if !node.children.contains_key(segment) {
                node.children.insert(segment.into(), Node::default());
            }
            node = node.children.get_mut(segment)?;
        }
        tree.bytes += message.weight();
        tree.messages += 1;
        tree.expiring += usize::from(message.expires_at_ms().is_some());
        let old = node.message.replace(message);
        if let Some(old) = &old {
            tree.count_out(old);
        }
        old
    }

    /// Forgets a channel's message.
    pub(crate) fn clear(&self, channel: &Channel) -> Option<Arc<Message>> {
        let mut tree = self.tree.write();
        let segments: Vec<&str> = channel.segments().collect();
        let old = tree.root.take(&segments)?;
        tree.count_out(&old);
        Some(old)
    }

    pub(crate) fn find(&self, channel: &Channel, now_ms: u64) -> Option<Arc<Message>> {
        self.tree.read().root.find(channel).filter(|message| !message.is_expired(now_ms)).cloned()
    }

    /// All that match, in no particular order.
    pub(crate) fn matching(&self, filter: &Filter, now_ms: u64) -> Vec<Arc<Message>> {
        if let Some(channel) = filter.as_literal() {
            return self.find(channel, now_ms).into_iter().collect();
        }
        let mut found = Vec::new();
        if let Some(pattern) = filter.pattern() {
            self.tree.read().root.matching(pattern, Depth::First, now_ms, &mut found);
        }
        found
    }

    /// Forgets those whose time is over; nothing to do while none has an end.
    pub(crate) fn sweep(&self, now_ms: u64) {
        if self.tree.read().expiring == 0 {
            return;
        }
        let mut over = Vec::new();
        self.tree.read().root.expired(now_ms, &mut over);
        for message in over {
            let mut tree = self.tree.write();
            let segments: Vec<&str> = message.channel().segments().collect();
            // It may have been replaced since.
            let same = tree.root.find(message.channel()).is_some_and(|now| Arc::ptr_eq(now, &message));
            if let Some(old) = same.then(|| tree.root.take(&segments)).flatten() {
                tree.count_out(&old);
            }
        }
    }

    /// Number and bytes.
    pub(crate) fn usage(&self) -> (usize, usize) {
        let tree = self.tree.read();
        (tree.messages, tree.bytes)
    }
}

impl Tree {
    fn count_out(&mut self, message: &Message) {
        self.messages -= 1;
        self.bytes -= message.weight();
        self.expiring -= usize::from(message.expires_at_ms().is_some());
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Depth {
    First,
    Below,
}

impl Node {
    fn find(&self, channel: &Channel) -> Option<&Arc<Message>> {
        let mut node = self;
        for segment in channel.segments() {
            node = node.children.get(segment)?;
        }
        node.message.as_ref()
    }

    fn take(&mut self, segments: &[&str]) -> Option<Arc<Message>> {
        let Some((first, rest)) = segments.split_first() else { return self.message.take() };
        let child = self.children.get_mut(*first)?;
        let taken = child.take(rest);
        if child.message.is_none() && child.children.is_empty() {
            self.children.remove(*first);
        }
        taken
    }

    fn matching(&self, pattern: &[Segment], depth: Depth, now_ms: u64, found: &mut Vec<Arc<Message>>) {
        let Some((segment, rest)) = pattern.split_first() else {
            found.extend(self.message.iter().filter(|message| !message.is_expired(now_ms)).cloned());
            return;
        };
        if let Segment::Literal(text) = segment {
            if let Some(child) = self.children.get(text) {
                child.matching(rest, Depth::Below, now_ms, found);
            }
            return;
        }
        if *segment == Segment::RestZeroOrMore {
            found.extend(self.message.iter().filter(|message| !message.is_expired(now_ms)).cloned());
        }
        for (name, child) in &self.children {
            // Wildcards in the first segment do not match the broker's own channels (MQTT 5.0 §4.7.2).
            if depth == Depth::First && name.starts_with('$') {
                continue;
            }
            match segment {
                Segment::One => child.matching(rest, Depth::Below, now_ms, found),
                _ => child.matching(&[Segment::RestZeroOrMore], Depth::Below, now_ms, found),
            }
        }
    }

    fn expired(&self, now_ms: u64, over: &mut Vec<Arc<Message>>) {
        over.extend(self.message.iter().filter(|message| message.is_expired(now_ms)).cloned());
        for child in self.children.values() {
            child.expired(now_ms, over);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Publish;

    fn message(channel: &str, ttl_ms: Option<u64>) -> Arc<Message> {
        let mut publish = Publish::new(Channel::parse(channel).unwrap(), "x");
        if let Some(ttl) = ttl_ms {
            publish = publish.ttl(Duration::from_millis(ttl));
        }
        Arc::new(publish.into_message(0, 1_000))
    }

    #[test]
    fn wildcards_find_what_the_filter_matches() {
        let retained = Retained::new(100, 1 << 20);
        let names = ["a", "a/b", "a/b/c", "a/", "/", "b/b", "$SYS/x", "$SYS", "x/y/z"];
        for name in names {
            retained.set(message(name, None));
        }
        for text in
            ["#", "**", "*", "*/*", "a/#", "a/**", "a/*", "*/b", "*/b/#", "$SYS/#", "$SYS/*", "a", "nope/#"]
        {
            let filter = Filter::parse(text).unwrap();
            let mut found: Vec<String> =
                retained.matching(&filter, 0).iter().map(|message| message.channel().to_string()).collect();
            let mut expected: Vec<String> = names
                .iter()
                .filter(|name| filter.matches(&Channel::parse(name).unwrap()))
                .map(ToString::to_string)
                .collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn budgets_count_what_is_there() {
        let retained = Retained::new(2, 1 << 20);
        retained.set(message("a", None));
        retained.set(message("b", Some(10)));
        let channel = |text: &str| Channel::parse(text).unwrap();
        assert_eq!(retained.admits(&channel("c"), 1), Err(2));
        assert_eq!(retained.admits(&channel("a"), 1), Ok(()));
        assert_eq!(retained.admits(&channel("a"), 2 << 20), Err(1 << 20));
        assert!(retained.find(&channel("b"), 1_010).is_none());
        retained.sweep(1_010);
        assert_eq!(retained.usage().0, 1);
        retained.clear(&channel("a"));
        assert_eq!(retained.usage(), (0, 0));
        assert!(retained.tree.read().root.children.is_empty());
    }
}

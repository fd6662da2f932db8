//! Groups of subscribers that share messages, here and on other nodes: no IO.

use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use broker_core::{Channel, Filter};

/// Groups of other nodes that are remembered, over all of them; one more is not shared with this node.
const MAX_REMOTE: usize = 65_536;

/// A group, by its name and filter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GroupId(pub(crate) Arc<(Box<str>, Filter)>);

impl GroupId {
    pub(crate) fn new(name: &str, filter: &Filter) -> Self {
        Self(Arc::new((name.into(), filter.clone())))
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.0
    }

    pub(crate) fn filter(&self) -> &Filter {
        &self.0.1
    }
}

/// Which groups have members where.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// Members here.
    local: AHashMap<GroupId, usize>,
    remote: AHashMap<u64, AHashSet<GroupId>>,
    /// How many other nodes have members.
    elsewhere: AHashMap<GroupId, usize>,
}

impl Groups {
    /// A member joins here; whether it is the first.
    pub(crate) fn join(&mut self, id: &GroupId) -> bool {
        let members = self.local.entry(id.clone()).or_default();
        *members += 1;
        *members == 1
    }

    /// A member leaves here; whether it was the last.
    pub(crate) fn leave(&mut self, id: &GroupId) -> bool {
        let Some(members) = self.local.get_mut(id) else { return false };
        *members = members.saturating_sub(1);
        let is_over = *members == 0;
        if is_over {
            self.local.remove(id);
        }
        is_over
    }

    pub(crate) fn has_local(&self, id: &GroupId) -> bool {
        self.local.contains_key(id)
    }

    pub(crate) fn local(&self) -> Vec<GroupId> {
        self.local.keys().cloned().collect()
    }

    /// Another node has members, or has none any more.
    pub(crate) fn hear(&mut self, life: u64, id: GroupId, has_members: bool) {
        if !has_members {
            if self.remote.get_mut(&life).is_some_and(|groups| groups.remove(&id)) {
                self.count_out(&id);
            }
            return;
        }
        let known: usize = self.remote.values().map(|groups| groups.len()).sum();
        if known < MAX_REMOTE && self.remote.entry(life).or_default().insert(id.clone()) {
            *self.elsewhere.entry(id).or_default() += 1;
        }
    }

    /// What another node had is forgotten.
    pub(crate) fn forget(&mut self, life: u64) {
        for id in self.remote.remove(&life).into_iter().flatten() {
            self.count_out(&id);
        }
    }

    fn count_out(&mut self, id: &GroupId) {
        if let Some(nodes) = self.elsewhere.get_mut(id) {
            *nodes = nodes.saturating_sub(1);
            if *nodes == 0 {
                self.elsewhere.remove(id);
            }
        }
    }

    /// The groups that want a message of this node on a channel and have no member here.
    pub(crate) fn wanting<'g>(&'g self, channel: &Channel) -> impl Iterator<Item = &'g GroupId> {
        let wants = move |id: &&GroupId| id.filter().matches(channel) && !self.local.contains_key(*id);
        self.elsewhere.keys().filter(wants)
    }
}

/// What nodes tell each other of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// What was told before counts no more.
    Reset,
    Has(GroupId),
    HasNot(GroupId),
}

impl Word {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let (code, id) = match self {
            Word::Reset => return out.push(0),
            Word::Has(id) => (1, id),
            Word::HasNot(id) => (2, id),
        };
        out.push(code);
        for text in [id.name(), &id.filter().to_string()] {
            out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
    }

    /// The first one, and the rest; `None` for what no node of this version tells.
    pub(crate) fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let text = |bytes: &'_ [u8]| -> Option<(String, usize)> {
            let length = usize::try_from(u32::from_be_bytes(*bytes.first_chunk::<4>()?)).ok()?;
            let text = bytes.get(4..length.checked_add(4)?)?;
            Some((std::str::from_utf8(text).ok()?.to_owned(), length + 4))
        };
        let (code, rest) = bytes.split_first()?;
        if *code == 0 {
            return Some((Word::Reset, rest));
        }
        let (name, taken) = text(rest)?;
        let rest = rest.get(taken..)?;
        let (filter, taken) = text(rest)?;
        let id = GroupId::new(&name, &Filter::parse(&filter).ok()?);
        let word = match code {
            1 => Word::Has(id),
            2 => Word::HasNot(id),
            _ => return None,
        };
        Some((word, rest.get(taken..)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str, filter: &str) -> GroupId {
        GroupId::new(name, &Filter::parse(filter).unwrap())
    }

    fn wanting(groups: &Groups, channel: &str) -> Vec<String> {
        let channel = Channel::parse(channel).unwrap();
        let mut names: Vec<String> = groups.wanting(&channel).map(|id| id.name().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_group_elsewhere_wants_a_message_unless_it_has_a_member_here() {
        let mut groups = Groups::default();
        groups.hear(1, id("a", "jobs/*"), true);
        groups.hear(1, id("b", "jobs/#"), true);
        groups.hear(2, id("a", "jobs/*"), true);
        groups.hear(2, id("a", "jobs/*"), true);
        assert_eq!(wanting(&groups, "jobs/1"), ["a", "b"]);
        assert_eq!(wanting(&groups, "jobs"), ["b"]);
        assert!(groups.join(&id("a", "jobs/*")) && !groups.join(&id("a", "jobs/*")));
        assert_eq!(wanting(&groups, "jobs/1"), ["b"]);
        assert!(!groups.leave(&id("a", "jobs/*")) && groups.leave(&id("a", "jobs/*")));
        assert!(!groups.leave(&id("a", "jobs/*")) && groups.local().is_empty());
        groups.forget(1);
        assert_eq!(wanting(&groups, "jobs/1"), ["a"]);
        groups.hear(2, id("a", "jobs/*"), false);
        groups.hear(2, id("a", "jobs/*"), false);
        assert_eq!(wanting(&groups, "jobs/1"), [""; 0]);
        assert!(groups.elsewhere.is_empty());
    }

    #[test]
    fn what_is_told_is_read() {
        let words = [Word::Reset, Word::Has(id("g", "a/*/**")), Word::HasNot(id("ü", "/"))];
        let mut bytes = Vec::new();
        words.iter().for_each(|word| word.write(&mut bytes));
        let mut rest = &bytes[..];
        for word in &words {
            let (read, behind) = Word::read(rest).unwrap();
            assert_eq!(read, *word);
            rest = behind;
        }
        assert!(rest.is_empty());
        let mut cut = Vec::new();
        words[1].write(&mut cut);
        for length in 0..cut.len() {
            assert_eq!(Word::read(&cut[..length]), None, "{length}");
        }
    }
}

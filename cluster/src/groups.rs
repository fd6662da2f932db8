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

/// Groups whose change here is remembered one by one; of more, all are looked at.
const MAX_CHANGED: usize = 4_096;

/// Which groups have members where.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// Members here.
    local: AHashMap<GroupId, usize>,
    /// Those that have got their first member here, or have lost their last, since that was asked for.
    changed: AHashSet<GroupId>,
    remote: AHashMap<u64, Remote>,
    elsewhere: Elsewhere,
}

/// The groups of another node.
#[derive(Debug, Default)]
struct Remote {
    groups: AHashSet<GroupId>,
    /// Those that it has not named yet in the list that it is telling.
    unnamed: AHashSet<GroupId>,
}

/// Groups, and how many other nodes have members of each.
type Counted = AHashMap<GroupId, usize>;

/// All groups of other nodes, so that a message finds those that want it without a look at the others.
#[derive(Debug, Default)]
struct Elsewhere {
    of_channel: AHashMap<Channel, Counted>,
    /// Of filters with wildcards, by their first level.
    of_namespace: AHashMap<Box<str>, Counted>,
    /// Of those that begin with a wildcard.
    of_all: Counted,
}

impl Groups {
    /// A member joins here; whether it is the first.
    pub(crate) fn join(&mut self, id: &GroupId) -> bool {
        let members = self.local.entry(id.clone()).or_default();
        *members += 1;
        let is_first = *members == 1;
        if is_first {
            self.note_changed(id);
        }
        is_first
    }

    /// A member leaves here; whether it was the last.
    pub(crate) fn leave(&mut self, id: &GroupId) -> bool {
        let Some(members) = self.local.get_mut(id) else { return false };
        *members = members.saturating_sub(1);
        let is_over = *members == 0;
        if is_over {
            self.local.remove(id);
            self.note_changed(id);
        }
        is_over
    }

    /// However fast members come and leave, no more is remembered than this.
    fn note_changed(&mut self, id: &GroupId) {
        if self.changed.len() <= MAX_CHANGED {
            self.changed.insert(id.clone());
        }
    }

    /// The groups for which something may have changed here since this was last asked; `None`: for any.
    pub(crate) fn take_changed(&mut self) -> Option<AHashSet<GroupId>> {
        let changed = std::mem::take(&mut self.changed);
        (changed.len() <= MAX_CHANGED).then_some(changed)
    }

    pub(crate) fn has_local(&self, id: &GroupId) -> bool {
        self.local.contains_key(id)
    }

    /// Whether a group has members here, or on a node that has told of it.
    pub(crate) fn is_known(&self, id: &GroupId) -> bool {
        self.has_local(id) || self.remote.values().any(|remote| remote.groups.contains(id))
    }

    pub(crate) fn local(&self) -> Vec<GroupId> {
        self.local.keys().cloned().collect()
    }

    /// Another node tells something.
    pub(crate) fn hear(&mut self, life: u64, word: Word) {
        match word {
            Word::Begin => {
                if let Some(remote) = self.remote.get_mut(&life) {
                    remote.unnamed.clone_from(&remote.groups);
                }
            }
            Word::Has(id) => {
                let known: usize = self.remote.values().map(|remote| remote.groups.len()).sum();
                let remote = self.remote.entry(life).or_default();
                remote.unnamed.remove(&id);
                if known < MAX_REMOTE && remote.groups.insert(id.clone()) {
                    *self.elsewhere.place(&id).entry(id).or_default() += 1;
                }
            }
            Word::HasNot(id) => self.remove(life, &id),
            Word::End => {
                let unnamed = self.remote.get_mut(&life).map(|remote| std::mem::take(&mut remote.unnamed));
                for id in unnamed.into_iter().flatten() {
                    self.remove(life, &id);
                }
            }
        }
    }

    fn remove(&mut self, life: u64, id: &GroupId) {
        if self.remote.get_mut(&life).is_some_and(|remote| {
            remote.unnamed.remove(id);
            remote.groups.remove(id)
        }) {
            self.elsewhere.count_out(id);
        }
    }

    /// What another node had is forgotten.
    pub(crate) fn forget(&mut self, life: u64) {
        for id in self.remote.remove(&life).into_iter().flat_map(|remote| remote.groups) {
            self.elsewhere.count_out(&id);
        }
    }

    /// The groups that want a message of this node on a channel and have no member here.
    pub(crate) fn wanting<'g>(&'g self, channel: &'g Channel) -> impl Iterator<Item = &'g GroupId> {
        self.elsewhere.wanting(channel).filter(|id| !self.local.contains_key(*id))
    }
}

impl Elsewhere {
    fn place(&mut self, id: &GroupId) -> &mut Counted {
        match (id.filter().as_literal(), id.filter().namespace()) {
            (Some(channel), _) => self.of_channel.entry(channel.clone()).or_default(),
            (None, Some(namespace)) => self.of_namespace.entry(namespace.into()).or_default(),
            (None, None) => &mut self.of_all,
        }
    }

    fn count_out(&mut self, id: &GroupId) {
        let counted = self.place(id);
        if let Some(nodes) = counted.get_mut(id) {
            *nodes = nodes.saturating_sub(1);
            if *nodes == 0 {
                counted.remove(id);
            }
        }
        if counted.is_empty() {
            match (id.filter().as_literal(), id.filter().namespace()) {
                (Some(channel), _) => _ = self.of_channel.remove(channel),
                (None, Some(namespace)) => _ = self.of_namespace.remove(namespace),
                (None, None) => {}
            }
        }
    }

    fn wanting<'g>(&'g self, channel: &'g Channel) -> impl Iterator<Item = &'g GroupId> {
        let exact = self.of_channel.get(channel).into_iter().flat_map(|counted| counted.keys());
        let wild = self.of_namespace.get(channel.namespace()).into_iter().chain([&self.of_all]);
        exact.chain(wild.flat_map(|counted| counted.keys()).filter(|id| id.filter().matches(channel)))
    }
}

/// What nodes tell each other of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// A list of all groups begins: those that it does not name have no members any more when it ends. Till then they count,
    /// as no message may miss them meanwhile.
    Begin,
    Has(GroupId),
    HasNot(GroupId),
    End,
}

impl Word {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let (code, id) = match self {
            Word::Begin => return out.push(0),
            Word::End => return out.push(3),
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
        match code {
            0 => return Some((Word::Begin, rest)),
            3 => return Some((Word::End, rest)),
            _ => {}
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

    fn has(name: &str, filter: &str) -> Word {
        Word::Has(id(name, filter))
    }

    #[test]
    fn a_group_elsewhere_wants_a_message_unless_it_has_a_member_here() {
        let mut groups = Groups::default();
        groups.hear(1, has("a", "jobs/*"));
        groups.hear(1, has("b", "jobs/#"));
        groups.hear(2, has("a", "jobs/*"));
        groups.hear(2, has("a", "jobs/*"));
        assert_eq!(wanting(&groups, "jobs/1"), ["a", "b"]);
        assert_eq!(wanting(&groups, "jobs"), ["b"]);
        assert!(groups.join(&id("a", "jobs/*")) && !groups.join(&id("a", "jobs/*")));
        assert_eq!(wanting(&groups, "jobs/1"), ["b"]);
        assert!(!groups.leave(&id("a", "jobs/*")) && groups.leave(&id("a", "jobs/*")));
        assert!(!groups.leave(&id("a", "jobs/*")) && groups.local().is_empty());
        groups.forget(1);
        assert_eq!(wanting(&groups, "jobs/1"), ["a"]);
        groups.hear(2, Word::HasNot(id("a", "jobs/*")));
        groups.hear(2, Word::HasNot(id("a", "jobs/*")));
        assert_eq!(wanting(&groups, "jobs/1"), [""; 0]);
        assert!(groups.elsewhere.of_namespace.is_empty());
    }

    #[test]
    fn what_has_changed_here_is_known_however_much_it_is() {
        let mut groups = Groups::default();
        groups.join(&id("a", "jobs"));
        groups.join(&id("a", "jobs"));
        groups.leave(&id("a", "jobs"));
        let changed = |groups: &mut Groups| groups.take_changed().map(|changed| changed.len());
        assert_eq!((changed(&mut groups), changed(&mut groups)), (Some(1), Some(0)));
        for number in 0..3 * MAX_CHANGED {
            groups.join(&id(&number.to_string(), "jobs"));
            groups.leave(&id(&number.to_string(), "jobs"));
        }
        assert!(groups.changed.len() <= MAX_CHANGED + 1);
        assert_eq!((changed(&mut groups), changed(&mut groups)), (None, Some(0)));
    }

    #[test]
    fn a_message_finds_the_groups_of_its_channel_and_of_wildcards() {
        let mut groups = Groups::default();
        for (name, filter) in [("a", "jobs/1"), ("b", "jobs/2"), ("c", "*/1"), ("d", "**"), ("e", "jobs/**")]
        {
            groups.hear(1, has(name, filter));
        }
        assert_eq!(wanting(&groups, "jobs/1"), ["a", "c", "d", "e"]);
        assert_eq!(wanting(&groups, "jobs/2"), ["b", "d", "e"]);
        assert_eq!(wanting(&groups, "other/1"), ["c", "d"]);
        assert_eq!(wanting(&groups, "$own/1"), [""; 0], "wildcards at the beginning are not for those");
        groups.forget(1);
        let Elsewhere { of_channel, of_namespace, of_all } = &groups.elsewhere;
        assert!(of_channel.is_empty() && of_namespace.is_empty() && of_all.is_empty());
    }

    #[test]
    fn while_a_node_names_its_groups_anew_none_is_missed() {
        let mut groups = Groups::default();
        groups.hear(1, has("a", "jobs"));
        groups.hear(1, has("b", "jobs"));
        groups.hear(1, Word::Begin);
        assert_eq!(wanting(&groups, "jobs"), ["a", "b"]);
        groups.hear(1, has("b", "jobs"));
        groups.hear(1, has("c", "jobs"));
        assert_eq!(wanting(&groups, "jobs"), ["a", "b", "c"]);
        groups.hear(1, Word::End);
        assert_eq!(wanting(&groups, "jobs"), ["b", "c"]);
        groups.hear(1, Word::End);
        assert_eq!(wanting(&groups, "jobs"), ["b", "c"], "an end without a beginning is none");
    }

    #[test]
    fn what_is_told_is_read() {
        let words = [Word::Begin, Word::Has(id("g", "a/*/**")), Word::HasNot(id("ü", "/")), Word::End];
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

//! Channels and filters as NATS writes them.
//!
//! ```text
//! fw.m.v.chat.room1      a message on the channel `chat/room1`
//! fw.m.r.chat.room1      one that is retained there: all nodes take these, whoever is subscribed
//! fw.m.*.chat.*          what a subscriber of `chat/*` asks for
//! fw.h.0.v.chat.room1    one that lies in a stream, shard 0; fw.h.0.r.… if it is retained there
//! fw.o.0.v.chat.room1    the same when it is stored: all nodes take these
//! fw.s.0.6a1f…           what is recorded of a session, by a hash of its name
//! fw.s.0.g.share-6a1f…   how far the consumer of a group is
//! fw.g.workers.jobs=2F=2A one for the group `workers` on `jobs/*`
//! fw.c.hello             which nodes there are; what else is below `fw.c` is in `control/`
//! ```
//!
//! A level is one token: letters, digits, `_` and `-` stay, each other byte is `=` and two hexadecimal digits, and an
//! empty level is `=`. So no name holds what NATS gives a meaning to, and two names are never one.

use std::fmt::Write as _;

use broker_core::{Channel, Filter, Segment};
use sha2::{Digest as _, Sha256};
use smallvec::SmallVec;

/// The longest subject that is used: a line of the protocol may have 4 KiB.
pub(crate) const MAX_BYTES: usize = 2_048;

/// Whether all nodes take a message, or those alone that have somebody for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Wanted,
    All,
}

/// The subjects of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Subjects {
    prefix: Box<str>,
}

impl Subjects {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// Where a message on a channel is published. What is longer than a subject may be goes to all nodes: its channel is in
    /// the message.
    pub(crate) fn of_channel(&self, channel: &Channel, reach: Reach) -> String {
        let kind = if reach == Reach::All { 'r' } else { 'v' };
        let subject = below(format!("{}.m.{kind}", self.prefix), channel);
        if subject.len() > MAX_BYTES { format!("{}.m.r.=long", self.prefix) } else { subject }
    }

    /// What to subscribe to for a filter; nothing where [all nodes](Self::for_all) get it anyway.
    pub(crate) fn of_filter(&self, filter: &Filter) -> SmallVec<[String; 2]> {
        matching(format!("{}.m.*", self.prefix), filter)
    }

    /// Where a message is put into the stream of kept ones. `None`: its channel's name is too long for a subject.
    pub(crate) fn of_kept(&self, channel: &Channel, reach: Reach) -> Option<String> {
        let kind = if reach == Reach::All { 'r' } else { 'v' };
        let subject = below(format!("{}.h.0.{kind}", self.prefix), channel);
        (subject.len() <= MAX_BYTES).then_some(subject)
    }

    /// What lies in that stream for a filter.
    pub(crate) fn kept_of_filter(&self, filter: &Filter) -> SmallVec<[String; 2]> {
        matching(format!("{}.h.0.*", self.prefix), filter)
    }

    /// All that lies in that stream.
    pub(crate) fn kept(&self) -> String {
        format!("{}.h.0.>", self.prefix)
    }

    /// All of that which is retained.
    pub(crate) fn kept_retained(&self) -> String {
        format!("{}.h.0.r.>", self.prefix)
    }

    /// Where what is stored comes out.
    pub(crate) fn stored(&self) -> String {
        format!("{}.o.0.>", self.prefix)
    }

    /// The stream of kept messages.
    pub(crate) fn stream(&self) -> String {
        format!("{}_H0", self.prefix)
    }

    /// The stream of what is retained of those.
    pub(crate) fn retained_stream(&self) -> String {
        format!("{}_RET0", self.prefix)
    }

    /// The stream of sessions' records.
    pub(crate) fn session_stream(&self) -> String {
        format!("{}_S0", self.prefix)
    }

    /// All that lies in it.
    pub(crate) fn sessions(&self) -> String {
        format!("{}.s.0.>", self.prefix)
    }

    /// Where a session is recorded. Its name is in the record.
    pub(crate) fn of_session(&self, name: &str) -> String {
        let mut subject = format!("{}.s.0.", self.prefix);
        for byte in Sha256::digest(name).iter().take(16) {
            // Into a `String`, which never fails.
            _ = write!(subject, "{byte:02x}");
        }
        subject
    }

    /// Where it is noted how far a group's consumer is.
    pub(crate) fn of_place(&self, consumer: &str) -> String {
        format!("{}.s.0.g.{consumer}", self.prefix)
    }

    /// Where the group of this name on a filter gets its messages, if that is not too long.
    pub(crate) fn of_group(&self, name: &str, filter: &Filter) -> Option<String> {
        let mut subject = format!("{}.g.", self.prefix);
        put_level(&mut subject, name);
        subject.push('.');
        put_level(&mut subject, &filter.to_string());
        (subject.len() <= MAX_BYTES).then_some(subject)
    }

    /// All messages on all channels.
    pub(crate) fn everything(&self) -> String {
        format!("{}.m.*.>", self.prefix)
    }

    /// What every node takes.
    pub(crate) fn for_all(&self) -> String {
        format!("{}.m.r.>", self.prefix)
    }

    /// Where nodes say that they are there.
    pub(crate) fn hello(&self) -> String {
        format!("{}.c.hello", self.prefix)
    }

    /// Where all nodes are asked.
    pub(crate) fn questions(&self) -> String {
        format!("{}.c.q", self.prefix)
    }

    /// Where one node is asked.
    pub(crate) fn questions_to(&self, life: u64) -> String {
        format!("{}.c.q.{life:x}", self.prefix)
    }

    /// Where one node is answered.
    pub(crate) fn answers_to(&self, life: u64) -> String {
        format!("{}.c.a.{life:x}", self.prefix)
    }

    /// Where all nodes are told something.
    pub(crate) fn notices(&self) -> String {
        format!("{}.c.n", self.prefix)
    }

    /// Where one node is told something.
    pub(crate) fn notices_to(&self, life: u64) -> String {
        format!("{}.c.n.{life:x}", self.prefix)
    }

    /// Where nobody listens: that the server says so shows that it is there, and that it has done all before.
    pub(crate) fn nobody(&self) -> String {
        format!("{}.c.nobody", self.prefix)
    }
}

/// Whether a text may be the prefix of subjects.
pub(crate) fn is_prefix(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn below(mut subject: String, channel: &Channel) -> String {
    for level in channel.as_str().split('/') {
        subject.push('.');
        put_level(&mut subject, level);
    }
    subject
}

/// What matches a filter, below what all of it begins with; nothing that is longer than a subject may be.
fn matching(mut subject: String, filter: &Filter) -> SmallVec<[String; 2]> {
    let mut subjects = SmallVec::<[String; 2]>::new();
    for part in filter.parts() {
        match part {
            Segment::Literal(level) => {
                subject.push('.');
                put_level(&mut subject, &level);
            }
            Segment::One => subject.push_str(".*"),
            Segment::RestOneOrMore => subject.push_str(".>"),
            Segment::RestZeroOrMore => {
                // `>` is one token at least, and `a/#` also matches `a`. A name has one level at least.
                if filter.levels() > 1 {
                    subjects.push(subject.clone());
                }
                subject.push_str(".>");
            }
        }
    }
    subjects.push(subject);
    subjects.retain(|subject| subject.len() <= MAX_BYTES);
    subjects
}

fn put_level(subject: &mut String, level: &str) {
    if level.is_empty() {
        subject.push('=');
    }
    for byte in level.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
            subject.push(char::from(byte));
        } else {
            // Into a `String`, which never fails.
            _ = write!(subject, "={byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects() -> Subjects {
        Subjects::new("fw")
    }

    fn channel(name: &str) -> String {
        subjects().of_channel(&Channel::parse(name).unwrap(), Reach::Wanted)
    }

    fn filter(text: &str) -> Vec<String> {
        subjects().of_filter(&Filter::parse(text).unwrap()).into_vec()
    }

    #[test]
    fn each_name_has_a_subject_of_its_own() {
        for (name, subject) in [
            ("a/b", "fw.m.v.a.b"),
            ("/a", "fw.m.v.=.a"),
            ("a/", "fw.m.v.a.="),
            ("a//b", "fw.m.v.a.=.b"),
            ("a.b", "fw.m.v.a=2Eb"),
            ("a b/*/>", "fw.m.v.a=20b.=2A.=3E"),
            ("=", "fw.m.v.=3D"),
            ("ü", "fw.m.v.=C3=BC"),
            ("$x/_-9", "fw.m.v.=24x._-9"),
        ] {
            assert_eq!(channel(name), subject);
        }
        let retained = subjects().of_channel(&Channel::parse("a").unwrap(), Reach::All);
        assert_eq!(retained, "fw.m.r.a");
    }

    #[test]
    fn wildcards_become_those_of_nats() {
        for (text, expected) in [
            ("a/b", &["fw.m.*.a.b"][..]),
            ("*/b", &["fw.m.*.*.b"]),
            ("a/**", &["fw.m.*.a.>"]),
            ("a/#", &["fw.m.*.a", "fw.m.*.a.>"]),
            ("#", &["fw.m.*.>"]),
            ("**", &["fw.m.*.>"]),
            ("*/#", &["fw.m.*.*", "fw.m.*.*.>"]),
        ] {
            assert_eq!(filter(text), expected, "{text}");
        }
    }

    /// As NATS matches, of which the tests need no server.
    fn nats_matches(pattern: &str, subject: &str) -> bool {
        let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
        loop {
            match (pattern.next(), subject.next()) {
                (Some(">"), Some(_)) | (None, None) => return true,
                (Some("*"), Some(_)) => {}
                (Some(one), Some(other)) if one == other => {}
                _ => return false,
            }
        }
    }

    #[test]
    fn what_a_filter_matches_its_subjects_match() {
        let names = ["a", "a/b", "a/b/c", "/a", "a/", "a//b", "b", "a.b", "a/*", "a/+", "ü/b", "a b"];
        let filters =
            ["a", "a/b", "*", "**", "#", "a/*", "a/**", "a/#", "*/b", "*/#", "a/*/c", "/a", "/#", "a//b"];
        for text in filters {
            let filter = Filter::parse(text).unwrap();
            for reach in [Reach::Wanted, Reach::All] {
                for name in names {
                    let name = Channel::parse(name).unwrap();
                    let subject = subjects().of_channel(&name, reach);
                    let asked = subjects().of_filter(&filter);
                    let is_brought = asked.iter().any(|pattern| nats_matches(pattern, &subject));
                    assert_eq!(is_brought, filter.matches(&name), "{text} {name:?} {subject}");
                }
            }
        }
    }

    #[test]
    fn what_is_too_long_for_a_subject_goes_to_all() {
        let long = "x".repeat(3_000);
        assert_eq!(channel(&long), "fw.m.r.=long");
        assert_eq!(filter(&long), Vec::<String>::new());
        assert!(nats_matches(&subjects().for_all(), &channel(&long)));
    }

    #[test]
    fn a_prefix_is_one_token() {
        for (text, is) in
            [("fw", true), ("a-b_9", true), ("", false), ("a.b", false), ("a*", false), ("a b", false)]
        {
            assert_eq!(is_prefix(text), is, "{text}");
        }
    }
}

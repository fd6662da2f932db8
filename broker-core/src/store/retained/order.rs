//! The order of retained messages, in which all channels below one another lie together, and how a filter goes through
//! it.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::filter::{Filter, SegmentRef, Wild};

/// A channel's name in an order by segments: `/` comes before every other character, so that `a/b` follows `a` and
/// comes before `a!`. A wildcard then wants runs of neighbours, and what lies between them is passed over in one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(pub(super) Arc<str>);

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        let (one, other) = (self.0.as_bytes(), other.0.as_bytes());
        let differ = one.iter().zip(other).find(|(one, other)| one != other);
        // No name holds U+0000, so it can stand for the slash.
        let rank = |byte: u8| if byte == b'/' { 0 } else { byte };
        differ.map_or(one.len().cmp(&other.len()), |(one, other)| rank(*one).cmp(&rank(*other)))
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// How far somebody has come in the order.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Cursor {
    #[default]
    Start,
    /// This name has not been looked at.
    At(Name),
    /// This one has.
    After(Name),
}

impl Cursor {
    /// Whether the name has been passed.
    pub(super) fn has_passed(&self, name: &Name) -> bool {
        match self {
            Cursor::Start => false,
            Cursor::At(at) => name < at,
            Cursor::After(after) => name <= after,
        }
    }
}

/// What a name means to somebody who looks for matches.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Match,
    /// No match; perhaps the next one.
    Next,
    /// No match before this name.
    Seek(String),
    /// No match from here on.
    Over,
}

/// Whether `name` matches, and if not, where the next match can be.
pub(super) fn judge(filter: &Filter, name: &str) -> Verdict {
    // Wildcards in the first segment do not match the broker's own channels (MQTT 5.0 §4.7.2).
    if filter.is_wild_first() && name.starts_with('$') {
        return Verdict::Seek("%".to_owned());
    }
    // Where the next segment begins, behind a slash; `None` behind the last one.
    let mut next = Some(0);
    // Where the segment ends that the last `*` took: behind all below it, another one may fit.
    let mut star = None;
    for segment in filter.segments() {
        let here = next.and_then(|begin| name.get(begin..).map(|rest| (begin, rest)));
        let found = here.map(|(begin, rest)| {
            let text = rest.split('/').next().unwrap_or_default();
            (begin, text, begin + text.len())
        });
        match (segment, found) {
            (SegmentRef::Wild(Wild::ZeroOrMore), _) | (SegmentRef::Wild(Wild::OneOrMore), Some(_)) => {
                return Verdict::Match;
            }
            (SegmentRef::Wild(_), None) => return Verdict::Next,
            (SegmentRef::Wild(_), Some((_, _, end))) => {
                star = Some(end);
                next = (end < name.len()).then_some(end + 1);
            }
            (SegmentRef::Literal(text), None) => return Verdict::Seek(format!("{name}/{text}")),
            (SegmentRef::Literal(text), Some((begin, here, end))) => match here.cmp(text) {
                Ordering::Equal => next = (end < name.len()).then_some(end + 1),
                Ordering::Less => {
                    return Verdict::Seek(format!("{}{text}", name.get(..begin).unwrap_or_default()));
                }
                Ordering::Greater => return star.map_or(Verdict::Over, |end| behind(name, end)),
            },
        }
    }
    match next {
        None => Verdict::Match,
        Some(begin) => behind(name, begin - 1),
    }
}

/// The first name behind all that lie below the first `end` bytes of `name`.
fn behind(name: &str, end: usize) -> Verdict {
    Verdict::Seek(format!("{}\u{1}", name.get(..end).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_channel_follows_it() {
        let mut names =
            ["ab", "a!", "a/b", "a", "a/", "a/b/c", "a0", "a\u{1}", "b", "/a"].map(|name| Name(name.into()));
        names.sort();
        let sorted = names.each_ref().map(|name| &*name.0);
        assert_eq!(sorted, ["/a", "a", "a/", "a/b", "a/b/c", "a\u{1}", "a!", "a0", "ab", "b"]);
    }

    #[test]
    fn what_cannot_match_is_passed_over_in_one_step() {
        let seek = |text: &str| Verdict::Seek(text.to_owned());
        for (filter, name, expected) in [
            ("a/*", "A", seek("a")),
            ("a/*", "a", Verdict::Next),
            ("a/*", "a/b", Verdict::Match),
            ("a/*", "a/", Verdict::Match),
            ("a/*", "a/b/c", seek("a/b\u{1}")),
            ("a/*", "b", Verdict::Over),
            ("*/b", "x", seek("x/b")),
            ("*/b", "x/a/y", seek("x/b")),
            ("*/b", "x/c", seek("x\u{1}")),
            ("*/*/b", "x/y/c", seek("x/y\u{1}")),
            ("a/#", "a", Verdict::Match),
            ("a/**", "a", Verdict::Next),
            ("a/**", "a/b/c", Verdict::Match),
            ("a/**", "b", Verdict::Over),
            ("#", "$SYS/x", seek("%")),
            ("$SYS/#", "$SYS/x", Verdict::Match),
        ] {
            assert_eq!(judge(&Filter::parse(filter).unwrap(), name), expected, "{filter} {name}");
        }
    }
}

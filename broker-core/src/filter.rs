//! What a subscription holds: a channel, or a pattern of segments.

use std::fmt;
use std::sync::Arc;

use crate::channel::{Channel, ChannelError, levels};

/// One segment of a [`Filter`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Exactly this text.
    Literal(Box<str>),
    /// Any one segment, an empty one too (MQTT `+`, text form `*`).
    One,
    /// The rest, at least one segment (Bayeux `**`, text form `**`); last only.
    RestOneOrMore,
    /// The rest, possibly none: `a/#` also matches `a` (MQTT `#`, text form `#`); last only.
    RestZeroOrMore,
}

/// Which channels a subscription wants. A filter without wildcards is a [literal](Filter::as_literal) one and costs no
/// matching at all.
///
/// # Text form
/// Used by HTTP, the command line, the configuration and rights: `*` is one segment, `**` in last place one or more,
/// `#` in last place zero or more; `+` is a literal. A wildcard in the first segment does not match channels that start
/// with `$` (MQTT 5.0 §4.7.2).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Filter(Repr);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Repr {
    Literal(Channel),
    /// The text form with U+0000 before each wildcard: no name holds that, so `*` as a name stays what it is, and a
    /// filter of thousands of levels weighs what its text does.
    Pattern(Arc<str>),
}

/// Why something is not a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// The literal text is not a channel name.
    #[error(transparent)]
    Name(#[from] ChannelError),
    /// `**` or `#` stands before the last segment.
    #[error("`{wildcard}` must be the last segment of the filter, it is number {position}")]
    RestNotLast {
        /// The wildcard in its text form.
        wildcard: &'static str,
        /// Its place, from 1.
        position: usize,
    },
}

impl Filter {
    /// Builds a filter from segments, as a front does from its own syntax.
    ///
    /// # Errors
    /// No segment at all, a *rest* wildcard before the end, or literal text that is no channel name.
    pub fn new(segments: impl IntoIterator<Item = Segment>) -> Result<Self, FilterError> {
        let (mut text, mut levels, mut wildcards) = (String::new(), 0, 0);
        let mut rest: Option<FilterError> = None;
        for segment in segments {
            if let Some(error) = rest {
                return Err(error);
            }
            if levels > 0 {
                text.push('/');
            }
            levels += 1;
            match &segment {
                Segment::Literal(literal) => {
                    if let Some(at) = literal.bytes().position(|byte| byte == 0) {
                        return Err(ChannelError::Nul { at }.into());
                    }
                    text.push_str(literal);
                    continue;
                }
                Segment::One => {}
                Segment::RestOneOrMore | Segment::RestZeroOrMore => {
                    rest = Some(FilterError::RestNotLast { wildcard: segment.wildcard(), position: levels });
                }
            }
            wildcards += 1;
            text.push(MARK);
            text.push_str(segment.wildcard());
        }
        if levels == 0 {
            return Err(ChannelError::Empty.into());
        }
        if wildcards == 0 {
            return Ok(Self(Repr::Literal(Channel::parse(&text)?)));
        }
        let bytes = text.len() - wildcards;
        if bytes > Channel::MAX_BYTES {
            return Err(ChannelError::TooLong { bytes, max: Channel::MAX_BYTES }.into());
        }
        Ok(Self(Repr::Pattern(text.into())))
    }

    /// The filter that matches this one channel.
    pub fn literal(channel: Channel) -> Self {
        Self(Repr::Literal(channel))
    }

    /// Parses the [text form](Filter#text-form).
    ///
    /// # Errors
    /// As [`Filter::new`]; `**` or `#` before the last segment is refused rather than taken literally.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Err(ChannelError::Empty.into());
        }
        Self::new(text.split('/').map(|segment| match segment {
            "*" => Segment::One,
            "**" => Segment::RestOneOrMore,
            "#" => Segment::RestZeroOrMore,
            text => Segment::Literal(text.into()),
        }))
    }

    /// The one channel this filter matches, if it has no wildcard.
    pub fn as_literal(&self) -> Option<&Channel> {
        match &self.0 {
            Repr::Literal(channel) => Some(channel),
            Repr::Pattern(_) => None,
        }
    }

    /// The first level, if it is not a wildcard: then all that it matches is in that namespace.
    pub fn namespace(&self) -> Option<&str> {
        match self.segments().next() {
            Some(SegmentRef::Literal(text)) => Some(text),
            _ => None,
        }
    }

    /// Levels: segments, wildcards among them.
    pub fn levels(&self) -> usize {
        match &self.0 {
            Repr::Literal(channel) => channel.levels(),
            Repr::Pattern(text) => levels(text),
        }
    }

    /// The same with `**` in place of a `#` at its end: what it matches but for the channel above. `None` without one.
    pub fn below(&self) -> Option<Filter> {
        let Repr::Pattern(text) = &self.0 else { return None };
        let above = text.strip_suffix("\0#")?;
        // One byte longer, which only the longest of names cannot be.
        let bytes = above.bytes().filter(|byte| *byte != 0).count() + 2;
        (bytes <= Channel::MAX_BYTES).then(|| Self(Repr::Pattern(format!("{above}\0**").into())))
    }

    /// Length of the text that is held.
    pub(crate) fn text_bytes(&self) -> usize {
        match &self.0 {
            Repr::Literal(channel) => channel.as_str().len(),
            Repr::Pattern(text) => text.len(),
        }
    }

    /// Whether a message on `channel` is wanted.
    pub fn matches(&self, channel: &Channel) -> bool {
        match &self.0 {
            Repr::Literal(literal) => literal == channel,
            Repr::Pattern(text) => {
                !(self.is_wild_first() && channel.is_reserved())
                    && matches(text.as_bytes(), channel.as_str().as_bytes())
            }
        }
    }

    /// Whether a wildcard comes first, which the broker's own channels are never matched by (MQTT 5.0 §4.7.2).
    pub(crate) fn is_wild_first(&self) -> bool {
        matches!(&self.0, Repr::Pattern(text) if text.starts_with(MARK))
    }

    /// Whether every channel that `other` matches is matched by `self`: what a right on `self` allows.
    pub fn covers(&self, other: &Filter) -> bool {
        // `*/x` does not match `$a/x`, so it cannot stand for a literal `$` name.
        !(self.is_wild_first() && other.names_reserved()) && covers(self.segments(), other.segments())
    }

    /// Whether some channel is matched by both.
    pub fn overlaps(&self, other: &Filter) -> bool {
        let reserved = |wild: &Filter, literal: &Filter| wild.is_wild_first() && literal.names_reserved();
        !reserved(self, other) && !reserved(other, self) && overlaps(self.segments(), other.segments())
    }

    /// Whether its first segment is the name of one of the broker's own channels.
    fn names_reserved(&self) -> bool {
        match &self.0 {
            Repr::Literal(channel) => channel.is_reserved(),
            Repr::Pattern(text) => text.starts_with('$'),
        }
    }

    /// Its segments in order, for whoever writes them in another syntax. [`Filter::new`] makes the same filter of them.
    pub fn parts(&self) -> impl Iterator<Item = Segment> {
        self.segments().map(|segment| match segment {
            SegmentRef::Literal(text) => Segment::Literal(text.into()),
            SegmentRef::Wild(Wild::One) => Segment::One,
            SegmentRef::Wild(Wild::OneOrMore) => Segment::RestOneOrMore,
            SegmentRef::Wild(Wild::ZeroOrMore) => Segment::RestZeroOrMore,
        })
    }

    /// Its segments in order.
    pub(crate) fn segments(&self) -> impl Iterator<Item = SegmentRef<'_>> {
        let (text, is_pattern) = match &self.0 {
            Repr::Literal(channel) => (channel.as_str(), false),
            Repr::Pattern(text) => (&**text, true),
        };
        text.split('/').map(move |segment| match segment {
            "\0*" if is_pattern => SegmentRef::Wild(Wild::One),
            "\0**" if is_pattern => SegmentRef::Wild(Wild::OneOrMore),
            "\0#" if is_pattern => SegmentRef::Wild(Wild::ZeroOrMore),
            text => SegmentRef::Literal(text),
        })
    }
}

/// Marks a wildcard in the text of a pattern.
const MARK: char = '\0';

/// A [`Segment`] of a filter that exists.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum SegmentRef<'a> {
    Literal(&'a str),
    Wild(Wild),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wild {
    One,
    OneOrMore,
    ZeroOrMore,
}

impl Segment {
    /// The text form of a wildcard.
    fn wildcard(&self) -> &'static str {
        match self {
            Segment::Literal(_) => "",
            Segment::One => "*",
            Segment::RestOneOrMore => "**",
            Segment::RestZeroOrMore => "#",
        }
    }
}

/// Goes through a pattern and a name side by side: replays ask this of every message.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut pattern, mut name) = (pattern, name);
    loop {
        match (pattern, name) {
            // A segment begins here, if an empty one.
            ([0, rest @ ..], _) => match rest {
                b"#" | b"**" => return true,
                _ => {
                    pattern = rest.get(1..).unwrap_or_default();
                    let end = name.iter().position(|byte| *byte == b'/').unwrap_or(name.len());
                    name = name.get(end..).unwrap_or_default();
                }
            },
            ([one, pattern_rest @ ..], [other, name_rest @ ..]) if one == other => {
                (pattern, name) = (pattern_rest, name_rest);
            }
            ([], []) | (b"/\0#", []) => return true,
            _ => return false,
        }
    }
}

fn covers<'a>(
    mut mine: impl Iterator<Item = SegmentRef<'a>>,
    mut theirs: impl Iterator<Item = SegmentRef<'a>>,
) -> bool {
    use SegmentRef::{Literal, Wild as W};
    loop {
        let is_covered = match (mine.next(), theirs.next()) {
            (None, theirs) => return theirs.is_none(),
            (Some(W(Wild::ZeroOrMore)), _) => return true,
            (Some(W(Wild::OneOrMore)), theirs) => {
                return theirs.is_some_and(|theirs| theirs != W(Wild::ZeroOrMore));
            }
            (Some(W(Wild::One)), theirs) => matches!(theirs, Some(Literal(_) | W(Wild::One))),
            (Some(Literal(a)), theirs) => matches!(theirs, Some(Literal(b)) if a == b),
        };
        if !is_covered {
            return false;
        }
    }
}

fn overlaps<'a>(
    mut mine: impl Iterator<Item = SegmentRef<'a>>,
    mut theirs: impl Iterator<Item = SegmentRef<'a>>,
) -> bool {
    use SegmentRef::{Literal, Wild as W};
    loop {
        match (mine.next(), theirs.next()) {
            (None, None) => return true,
            // The other side may need at least one more segment, which `#` gives.
            (Some(W(Wild::ZeroOrMore)), _) | (_, Some(W(Wild::ZeroOrMore))) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(W(Wild::OneOrMore)), Some(_)) | (Some(_), Some(W(Wild::OneOrMore))) => return true,
            (Some(Literal(a)), Some(Literal(b))) if a != b => return false,
            (Some(_), Some(_)) => {}
        }
    }
}

impl std::str::FromStr for Filter {
    type Err = FilterError;

    /// See [`Filter::parse`].
    fn from_str(text: &str) -> Result<Self, FilterError> {
        Self::parse(text)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Literal(channel) => fmt::Display::fmt(channel, f),
            // Without the marks it is the text form.
            Repr::Pattern(text) => text.split(MARK).try_for_each(|part| f.write_str(part)),
        }
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter({self})")
    }
}

impl From<Channel> for Filter {
    fn from(channel: Channel) -> Self {
        Self::literal(channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Filter {
        Filter::parse(text).unwrap()
    }

    #[test]
    fn matching_follows_the_wildcards() {
        for (text, channel, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a", false),
            ("a/b", "A/b", false),
            ("a/*", "a/b", true),
            ("a/*", "a/", true),
            ("a/*", "a", false),
            ("a/*", "a/b/c", false),
            ("*/b", "a/b", true),
            ("a/*/c", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**", "a/b", true),
            ("a/**", "a/b/c", true),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/#", "ab", false),
            ("#", "a/b", true),
            ("#", "$SYS/x", false),
            ("*/x", "$SYS/x", false),
            ("**", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("+", "a", false),
            ("+", "+", true),
            ("*", "/", false),
            ("*/*", "/", true),
            ("é/*", "é/x", true),
        ] {
            let channel = Channel::parse(channel).unwrap();
            assert_eq!(filter(text).matches(&channel), expected, "{text} {channel}");
        }
    }

    #[test]
    fn a_rest_wildcard_must_be_last() {
        let error = Filter::parse("a/#/c").unwrap_err();
        assert_eq!(error, FilterError::RestNotLast { wildcard: "#", position: 2 });
        assert!(Filter::parse("**/a").is_err());
        assert!(Filter::parse("").is_err());
        assert!(Filter::parse("a\0").is_err());
    }

    #[test]
    fn text_without_wildcards_is_a_literal_filter() {
        assert_eq!(filter("a//b").as_literal().map(Channel::as_str), Some("a//b"));
        assert!(filter("a/*").as_literal().is_none());
    }

    #[test]
    fn a_filter_covers_what_it_fully_contains() {
        for (wide, narrow, expected) in [
            ("#", "a/b", true),
            ("#", "**", true),
            ("**", "#", false),
            ("#", "$SYS/x", false),
            ("a/#", "a", true),
            ("a/#", "a/**", true),
            ("a/**", "a/#", false),
            ("a/**", "a", false),
            ("a/**", "a/*", true),
            ("a/*", "a/**", false),
            ("a/*", "a/b", true),
            ("a/b", "a/*", false),
            ("a/*/c", "a/b/c", true),
            ("a/*", "a/*/c", false),
            ("a", "a", true),
        ] {
            assert_eq!(filter(wide).covers(&filter(narrow)), expected, "{wide} covers {narrow}");
        }
    }

    #[test]
    fn filters_overlap_when_one_channel_fits_both() {
        for (one, other, expected) in [
            ("a/*", "*/b", true),
            ("a/#", "a", true),
            ("a/**", "a", false),
            ("a/**", "a/#", true),
            ("a/b", "a/c", false),
            ("#", "$SYS/#", false),
            ("$SYS/*", "$SYS/x", true),
            ("a/*/c", "a/b/*", true),
            ("a/*", "a/b/c", false),
        ] {
            assert_eq!(filter(one).overlaps(&filter(other)), expected, "{one} overlaps {other}");
            assert_eq!(filter(other).overlaps(&filter(one)), expected, "{other} overlaps {one}");
        }
    }
}

//! What a subscription holds: a channel, or a pattern of segments.

use std::fmt;
use std::sync::Arc;

use crate::channel::{Channel, ChannelError};

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
    Pattern(Arc<[Segment]>),
}

/// Why something is not a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
        let segments: Vec<Segment> = segments.into_iter().collect();
        if segments.is_empty() {
            return Err(ChannelError::Empty.into());
        }
        let mut bytes = segments.len() - 1;
        for (index, segment) in segments.iter().enumerate() {
            bytes += match segment {
                Segment::Literal(text) => {
                    if let Some(at) = text.bytes().position(|byte| byte == 0) {
                        return Err(ChannelError::Nul { at }.into());
                    }
                    text.len()
                }
                Segment::One => 1,
                Segment::RestOneOrMore | Segment::RestZeroOrMore if index + 1 < segments.len() => {
                    return Err(FilterError::RestNotLast {
                        wildcard: segment.wildcard(),
                        position: index + 1,
                    });
                }
                Segment::RestOneOrMore => 2,
                Segment::RestZeroOrMore => 1,
            };
        }
        if bytes > Channel::MAX_BYTES {
            return Err(ChannelError::TooLong { bytes, max: Channel::MAX_BYTES }.into());
        }
        let literal: Option<Vec<&str>> = segments
            .iter()
            .map(|segment| if let Segment::Literal(text) = segment { Some(&**text) } else { None })
            .collect();
        if let Some(literal) = literal {
            return Ok(Self(Repr::Literal(Channel::parse(&literal.join("/"))?)));
        }
        Ok(Self(Repr::Pattern(segments.into())))
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

    /// The same with `**` in place of a `#` at its end: what it matches but for the channel above. `None` without one.
    pub(crate) fn below(&self) -> Option<Filter> {
        let mut segments = self.pattern()?.to_vec();
        let last = segments.last_mut().filter(|last| **last == Segment::RestZeroOrMore)?;
        *last = Segment::RestOneOrMore;
        // One byte longer, which only the longest of names cannot be.
        Filter::new(segments).ok()
    }

    /// The segments of a filter with wildcards; `None` for a literal one.
    pub(crate) fn pattern(&self) -> Option<&[Segment]> {
        match &self.0 {
            Repr::Literal(_) => None,
            Repr::Pattern(segments) => Some(segments),
        }
    }

    /// Whether a message on `channel` is wanted.
    pub fn matches(&self, channel: &Channel) -> bool {
        match &self.0 {
            Repr::Literal(literal) => literal == channel,
            Repr::Pattern(segments) => {
                let wild_first = !matches!(segments.first(), Some(Segment::Literal(_)));
                !(wild_first && channel.is_reserved()) && matches(segments, channel.as_str())
            }
        }
    }

    /// Whether every channel that `other` matches is matched by `self`: what a right on `self` allows.
    pub fn covers(&self, other: &Filter) -> bool {
        let (mine, theirs) = (self.segments(), other.segments());
        // `*/x` does not match `$a/x`, so it cannot stand for a literal `$` name.
        if let (Some(SegmentRef::Wild(_)), Some(SegmentRef::Literal(first))) = (mine.first(), theirs.first())
            && first.starts_with('$')
        {
            return false;
        }
        covers(&mine, &theirs)
    }

    /// Whether some channel is matched by both.
    pub fn overlaps(&self, other: &Filter) -> bool {
        let (mine, theirs) = (self.segments(), other.segments());
        let reserved = |wild: &[SegmentRef<'_>], literal: &[SegmentRef<'_>]| {
            matches!(wild.first(), Some(SegmentRef::Wild(_)))
                && matches!(literal.first(), Some(SegmentRef::Literal(first)) if first.starts_with('$'))
        };
        !reserved(&mine, &theirs) && !reserved(&theirs, &mine) && overlaps(&mine, &theirs)
    }

    fn segments(&self) -> Vec<SegmentRef<'_>> {
        match &self.0 {
            Repr::Literal(channel) => channel.segments().map(SegmentRef::Literal).collect(),
            Repr::Pattern(segments) => segments
                .iter()
                .map(|segment| match segment {
                    Segment::Literal(text) => SegmentRef::Literal(text),
                    Segment::One => SegmentRef::Wild(Wild::One),
                    Segment::RestOneOrMore => SegmentRef::Wild(Wild::OneOrMore),
                    Segment::RestZeroOrMore => SegmentRef::Wild(Wild::ZeroOrMore),
                })
                .collect(),
        }
    }
}

#[derive(Clone, Copy)]
enum SegmentRef<'a> {
    Literal(&'a str),
    Wild(Wild),
}

#[derive(Clone, Copy, PartialEq)]
enum Wild {
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

fn matches(segments: &[Segment], channel: &str) -> bool {
    let mut names = channel.split('/');
    for segment in segments {
        match segment {
            Segment::RestZeroOrMore => return true,
            Segment::RestOneOrMore => return names.next().is_some(),
            Segment::One => {
                if names.next().is_none() {
                    return false;
                }
            }
            Segment::Literal(text) => {
                if names.next() != Some(text) {
                    return false;
                }
            }
        }
    }
    names.next().is_none()
}

fn covers(mine: &[SegmentRef<'_>], theirs: &[SegmentRef<'_>]) -> bool {
    use SegmentRef::{Literal, Wild as W};
    match (mine.split_first(), theirs.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((W(Wild::ZeroOrMore), _)), _) => true,
        (Some((W(Wild::OneOrMore), _)), None | Some((W(Wild::ZeroOrMore), _))) => false,
        (Some((W(Wild::OneOrMore), _)), Some(_)) => true,
        (Some(_), None) => false,
        (Some((W(Wild::One), mine)), Some((Literal(_) | W(Wild::One), theirs))) => covers(mine, theirs),
        (Some((Literal(a), mine)), Some((Literal(b), theirs))) => a == b && covers(mine, theirs),
        (Some(_), Some(_)) => false,
    }
}

fn overlaps(mine: &[SegmentRef<'_>], theirs: &[SegmentRef<'_>]) -> bool {
    use SegmentRef::{Literal, Wild as W};
    match (mine.split_first(), theirs.split_first()) {
        (None, None) => true,
        (Some((W(Wild::ZeroOrMore), _)), _) | (_, Some((W(Wild::ZeroOrMore), _))) => {
            // The other side may need at least one more segment, which `#` gives.
            true
        }
        (None, Some(_)) | (Some(_), None) => false,
        (Some((W(Wild::OneOrMore), _)), Some(_)) | (Some(_), Some((W(Wild::OneOrMore), _))) => true,
        (Some((Literal(a), mine)), Some((Literal(b), theirs))) => a == b && overlaps(mine, theirs),
        (Some((_, mine)), Some((_, theirs))) => overlaps(mine, theirs),
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
            Repr::Pattern(segments) => {
                for (index, segment) in segments.iter().enumerate() {
                    if index > 0 {
                        f.write_str("/")?;
                    }
                    match segment {
                        Segment::Literal(text) => f.write_str(text)?,
                        wildcard => f.write_str(wildcard.wildcard())?,
                    }
                }
                Ok(())
            }
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

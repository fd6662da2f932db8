//! Bayeux channel names and the broker's (Bayeux 1.0, "Channels").
//!
//! `/a/b` is the broker's channel `a/b`. `/meta/**` and `/service/**` have no counterpart there.

use broker_core::{Channel, Filter, Segment};

/// How strictly names are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Grammar {
    /// Letters, digits and `- _ ! ~ ( ) $ @` (Bayeux 1.0, "Channels").
    Strict,
    /// Also `.`, space, `#`, `+`, `{` and `}`, which CometD Java lets through.
    Lenient,
}

/// A channel of the protocol itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meta {
    Handshake,
    Connect,
    Subscribe,
    Unsubscribe,
    Disconnect,
}

/// Where a message is addressed to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Meta(Meta),
    /// Below `/meta/`, but nothing the protocol knows.
    UnknownMeta,
    /// Below `/service/`.
    Service,
    Broadcast(Channel),
}

/// A name that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadName;

/// Reads the channel of a message. Wildcards are not channels.
pub(crate) fn parse(name: &str, grammar: Grammar) -> Result<Target, BadName> {
    let meta = match name {
        "/meta/handshake" => Meta::Handshake,
        "/meta/connect" => Meta::Connect,
        "/meta/subscribe" => Meta::Subscribe,
        "/meta/unsubscribe" => Meta::Unsubscribe,
        "/meta/disconnect" => Meta::Disconnect,
        _ => {
            let path = segments(name)?;
            let mut first = None;
            for segment in path.split('/') {
                check(segment, grammar)?;
                first.get_or_insert(segment);
            }
            return match first {
                Some("meta") => Ok(Target::UnknownMeta),
                Some("service") => Ok(Target::Service),
                _ => Channel::parse(path).map(Target::Broadcast).map_err(|_| BadName),
            };
        }
    };
    Ok(Target::Meta(meta))
}

/// What a subscription names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Below `/meta/`, which is never subscribed to.
    Meta,
    /// Below `/service/`: accepted, recorded nowhere.
    Service,
    Broadcast(Filter),
}

/// Reads the name of a subscription: a channel, or `*` (one segment) or `**` (one or more) as its
/// last segment.
pub(crate) fn parse_pattern(name: &str, grammar: Grammar) -> Result<Pattern, BadName> {
    let path = segments(name)?;
    let (head, last) = path.rsplit_once('/').map_or((None, path), |(head, last)| (Some(head), last));
    for segment in head.into_iter().flat_map(|head| head.split('/')) {
        check(segment, grammar)?;
    }
    let wild = match last {
        "*" => Some(Segment::One),
        "**" => Some(Segment::RestOneOrMore),
        _ => {
            check(last, grammar)?;
            None
        }
    };
    match path.split('/').next() {
        Some("meta") => return Ok(Pattern::Meta),
        Some("service") => return Ok(Pattern::Service),
        _ => {}
    }
    let Some(wild) = wild else {
        return Channel::parse(path)
            .map(|channel| Pattern::Broadcast(Filter::literal(channel)))
            .map_err(|_| BadName);
    };
    let literals =
        head.into_iter().flat_map(|head| head.split('/')).map(|text| Segment::Literal(text.into()));
    Filter::new(literals.chain([wild])).map(Pattern::Broadcast).map_err(|_| BadName)
}

/// The Bayeux name of a broker channel; `None` for one that Bayeux cannot express: empty segments,
/// segments that would be wildcards, and the two trees that are not for broadcast.
pub(crate) fn is_expressible(channel: &Channel) -> bool {
    !matches!(channel.namespace(), "meta" | "service")
        && channel.segments().all(|segment| !matches!(segment, "" | "*" | "**"))
}

fn segments(name: &str) -> Result<&str, BadName> {
    match name.strip_prefix('/') {
        Some(path) if !path.is_empty() && name.len() <= Channel::MAX_BYTES => Ok(path),
        _ => Err(BadName),
    }
}

fn check(segment: &str, grammar: Grammar) -> Result<(), BadName> {
    let legal = |byte: u8| match byte {
        b'-' | b'_' | b'!' | b'~' | b'(' | b')' | b'$' | b'@' => true,
        b'.' | b' ' | b'#' | b'+' | b'{' | b'}' => grammar == Grammar::Lenient,
        _ => byte.is_ascii_alphanumeric(),
    };
    if !segment.is_empty() && segment.bytes().all(legal) { Ok(()) } else { Err(BadName) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_follow_the_grammar() {
        let cases = [
            ("/a", true, true),
            ("/a/b/c", true, true),
            ("/A-_!~()$@9", true, true),
            ("/__proto__", true, true),
            ("/foo.bar", false, true),
            ("/foo bar", false, true),
            ("/a#b/c+d/{e}", false, true),
            ("", false, false),
            ("foo", false, false),
            ("/", false, false),
            ("//x", false, false),
            ("/x/", false, false),
            ("/x//y", false, false),
            ("/a/*", false, false),
            ("/a/**", false, false),
            ("/grüße", false, false),
            ("/a\n", false, false),
            ("/a\u{0}b", false, false),
            ("/a%b", false, false),
        ];
        for (name, strict, lenient) in cases {
            assert_eq!(parse(name, Grammar::Strict).is_ok(), strict, "{name:?}");
            assert_eq!(parse(name, Grammar::Lenient).is_ok(), lenient, "{name:?}, lenient");
        }
        assert!(parse(&format!("/{}", "x".repeat(70_000)), Grammar::Strict).is_err());
    }

    #[test]
    fn targets_are_told_apart() {
        let channel = |text| Target::Broadcast(Channel::parse(text).unwrap());
        let cases = [
            ("/meta/handshake", Target::Meta(Meta::Handshake)),
            ("/meta/connect", Target::Meta(Meta::Connect)),
            ("/meta", Target::UnknownMeta),
            ("/meta/connect/x", Target::UnknownMeta),
            ("/metadata", channel("metadata")),
            ("/service", Target::Service),
            ("/service/echo", Target::Service),
            ("/services/echo", channel("services/echo")),
            ("/a/meta", channel("a/meta")),
        ];
        for (name, target) in cases {
            assert_eq!(parse(name, Grammar::Strict), Ok(target), "{name}");
        }
    }

    #[test]
    fn patterns_match_like_the_standard() {
        let names = ["/a", "/a/b", "/a/b/c", "/a/b/c/d", "/x"];
        let cases: [(&str, &[&str]); 6] = [
            ("/a/b/c", &["/a/b/c"]),
            ("/a/b/*", &["/a/b/c"]),
            ("/a/b/**", &["/a/b/c", "/a/b/c/d"]),
            ("/a/**", &["/a/b", "/a/b/c", "/a/b/c/d"]),
            ("/*", &["/a", "/x"]),
            ("/**", &["/a", "/a/b", "/a/b/c", "/a/b/c/d", "/x"]),
        ];
        for (pattern, expected) in cases {
            let Ok(Pattern::Broadcast(filter)) = parse_pattern(pattern, Grammar::Strict) else {
                panic!("{pattern}");
            };
            let matched: Vec<&str> = names
                .into_iter()
                .filter(|name| filter.matches(&Channel::parse(&name[1..]).unwrap()))
                .collect();
            assert_eq!(matched, expected, "{pattern}");
        }
    }

    #[test]
    fn wildcards_stand_last_and_alone() {
        for name in ["/a/*/b", "/a/**/b", "/a/b*", "/a/*b", "/a/***", "/*/", "*", "**", "/ä/*", "/a.b/*"] {
            assert_eq!(parse_pattern(name, Grammar::Strict), Err(BadName), "{name}");
        }
        let cases = [
            ("/meta/**", Pattern::Meta),
            ("/meta/connect", Pattern::Meta),
            ("/service/x", Pattern::Service),
            ("/service/*", Pattern::Service),
        ];
        for (name, expected) in cases {
            assert_eq!(parse_pattern(name, Grammar::Strict), Ok(expected), "{name}");
        }
    }

    #[test]
    fn other_protocols_channels_may_not_exist_here() {
        let cases = [
            ("a/b", true),
            ("grüße/x y", true),
            ("$SYS/x", true),
            ("a//b", false),
            ("/a", false),
            ("a/", false),
            ("a/*", false),
            ("**/a", false),
            ("service/x", false),
            ("meta", false),
        ];
        for (name, expected) in cases {
            assert_eq!(is_expressible(&Channel::parse(name).unwrap()), expected, "{name}");
        }
    }
}

//! The name a message is published to.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Where events are that nobody took: for who may manage every channel.
pub(crate) const DEAD: &str = "$dead";

/// A concrete channel name such as `chat/room1`: segments joined by `/`.
///
/// Any UTF-8 is legal, empty segments and control characters included, because MQTT topics are channels as they are;
/// a front whose protocol cannot express a name refuses it at its own edge.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

/// Why a text is not a channel name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The name has no characters.
    #[error("a channel name must not be empty")]
    Empty,
    /// The name is longer than [`Channel::MAX_BYTES`].
    #[error("the channel name has {bytes} bytes, {max} are allowed")]
    TooLong {
        /// Length of the refused name.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The name holds U+0000, which no protocol here can carry.
    #[error("the channel name holds NUL at byte {at}")]
    Nul {
        /// Byte position of the first one.
        at: usize,
    },
}

/// Which characters the names may hold that messages are published to, by whatever protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelCharacters {
    /// No control characters (U+0000 to U+001F, U+007F to U+009F) and no non-characters (U+FDD0 to U+FDEF, and the last
    /// two of each plane): MQTT advises against them (MQTT 5.0 §1.5.4), and a client that takes the advice, as
    /// libmosquitto does, closes its connection whenever one comes.
    #[default]
    Strict,
    /// Whatever [`Channel::parse`] takes.
    Any,
}

impl ChannelCharacters {
    /// The first character of `text` that is not let through, and where.
    pub fn refused_in(self, text: &str) -> Option<(usize, char)> {
        if self == Self::Any {
            return None;
        }
        // Without a branch in the loop, which is on the way of every publish.
        let is_plain = text.bytes().fold(true, |plain, byte| plain & (byte.wrapping_sub(0x20) < 0x5F));
        if is_plain { None } else { text.char_indices().find(|(_, character)| is_unwise(*character)) }
    }
}

fn is_unwise(character: char) -> bool {
    let code = u32::from(character);
    character.is_control() || matches!(code, 0xFDD0..=0xFDEF) || code & 0xFFFE == 0xFFFE
}

impl Channel {
    /// The longest name in bytes: what MQTT's two-byte string length can carry (MQTT 5.0 §1.5.4).
    pub const MAX_BYTES: usize = 65_535;

    /// Checks and takes a name.
    ///
    /// # Errors
    /// Empty, longer than [`Channel::MAX_BYTES`], or with U+0000 inside.
    pub fn parse(name: &str) -> Result<Self, ChannelError> {
        if name.is_empty() {
            return Err(ChannelError::Empty);
        }
        if name.len() > Self::MAX_BYTES {
            return Err(ChannelError::TooLong { bytes: name.len(), max: Self::MAX_BYTES });
        }
        if let Some(at) = name.bytes().position(|byte| byte == 0) {
            return Err(ChannelError::Nul { at });
        }
        Ok(Self(Arc::from(name)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments, at least one; `a//b` has an empty one in the middle.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Levels: how many segments it has.
    pub fn levels(&self) -> usize {
        levels(&self.0)
    }

    /// The first segment: where configuration differs by kind of channel.
    pub fn namespace(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// Whether the name starts with `$`: the broker's own channels, which a wildcard in the first segment never matches
    /// (MQTT 5.0 §4.7.2).
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('$')
    }

    /// Whether only the broker itself publishes here: `$SYS/…`, where it tells about itself, `$aws/…`, where it tells of
    /// clients and things, and `$dead/…`, where events are that nobody took. No rights reach it.
    pub fn is_the_brokers_own(&self) -> bool {
        self.is_reserved() && matches!(self.namespace(), "$SYS" | "$aws" | DEAD)
    }

    /// The shared text, for maps that are keyed by it.
    pub(crate) fn shared(&self) -> &Arc<str> {
        &self.0
    }

    pub(crate) fn from_shared(name: Arc<str>) -> Self {
        Self(name)
    }
}

/// How many segments a text has.
pub(crate) fn levels(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'/').count() + 1
}

/// The levels of a name that has more than `max`. A name that is too short for so many is not looked at.
pub(crate) fn levels_beyond(text: &str, max: usize) -> Option<usize> {
    if text.len() < max {
        return None;
    }
    Some(levels(text)).filter(|levels| *levels > max)
}

impl FromStr for Channel {
    type Err = ChannelError;

    fn from_str(name: &str) -> Result<Self, ChannelError> {
        Self::parse(name)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for Channel {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_names_have_no_control_characters_and_no_non_characters() {
        let strict = ChannelCharacters::Strict;
        let refused = (0..=0x10_FFFF).filter_map(char::from_u32).filter(|character| {
            let name = format!("a/é{character}");
            let found = strict.refused_in(&name);
            assert_eq!(ChannelCharacters::Any.refused_in(&name), None);
            assert!(found.is_none_or(|found| found == (4, *character)));
            found.is_some()
        });
        // 32 and 33 control characters, 32 non-characters in a row and two of each of the 17 planes.
        assert_eq!(refused.count(), 32 + 33 + 32 + 2 * 17);
        for name in
            ["a", "chat/room 1", "~", "é/\u{1F4A1}", "\u{FFFD}", "\u{A0}", "\u{FEFF}", "\u{FDCF}\u{FDF0}"]
        {
            assert_eq!(strict.refused_in(name), None, "{name:?}");
        }
    }

    #[test]
    fn a_name_is_any_text_without_nul_up_to_the_bound() {
        for name in ["a", "/", "a//b", "/a", "a/", "é/x", "a b\n", "+", "#", "$SYS/x", "__proto__"] {
            assert_eq!(Channel::parse(name).map(|c| c.to_string()), Ok(name.to_string()));
        }
        assert_eq!(Channel::parse(""), Err(ChannelError::Empty));
        assert_eq!(Channel::parse("a\0b"), Err(ChannelError::Nul { at: 1 }));
        assert!(Channel::parse(&"x".repeat(65_535)).is_ok());
        let long = Channel::parse(&"x".repeat(65_536));
        assert_eq!(long, Err(ChannelError::TooLong { bytes: 65_536, max: 65_535 }));
    }
}

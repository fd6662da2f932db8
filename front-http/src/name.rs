//! Channels and filters in the text form, as they stand in addresses and JSON.

use std::borrow::Cow;

use broker_core::{Channel, ChannelError, Filter, FilterError};
use http_edge::BadEncoding;

use crate::error::Error;

/// The text of a path segment's rest, percent-decoded once: `%2F` is the same as `/`.
pub(crate) fn decode(encoded: &str) -> Result<Cow<'_, str>, Error> {
    http_edge::percent_decode(encoded).map_err(|error| Error::Inexpressible {
        name: encoded.to_owned(),
        why: match error {
            BadEncoding::NotUtf8 => "is not UTF-8 once it is percent-decoded",
            BadEncoding::Percent => "has a `%` without two hexadecimal digits behind it",
        },
    })
}

/// A channel that HTTP may name. The core takes more: a segment that the text form reads as a wildcard could never be
/// subscribed to by its name here, and control characters break logs and listings.
pub(crate) fn channel(text: &str) -> Result<Channel, Error> {
    let channel = Channel::parse(text)?;
    // Nearly all names are of these alone, and need no look at their segments.
    if text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b':'))
    {
        return Ok(channel);
    }
    let inexpressible = |why| Err(Error::Inexpressible { name: text.to_owned(), why });
    if channel.segments().any(|segment| matches!(segment, "*" | "**" | "#")) {
        return inexpressible("has a segment that stands for a wildcard");
    }
    if text.chars().any(char::is_control) {
        return inexpressible("holds a control character");
    }
    Ok(channel)
}

/// A channel that may be published to: one that is not the broker's own.
pub(crate) fn target(text: &str) -> Result<Channel, Error> {
    let channel = channel(text)?;
    if channel.is_reserved() { Err(Error::Reserved(channel)) } else { Ok(channel) }
}

/// A filter in the text form.
pub(crate) fn filter(text: &str) -> Result<Filter, Error> {
    Filter::parse(text).map_err(|error| match error {
        // No name at all is the same mistake wherever one belongs.
        FilterError::Name(ChannelError::Empty) => Error::Channel(ChannelError::Empty),
        error => Error::Filter { text: text.to_owned(), error },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_names_what_it_could_also_subscribe_to() {
        for text in ["a", "chat/room1", "a//b", "a/", "a+b", "+", "a*", "#a", "é", " "] {
            assert!(target(text).is_ok(), "{text:?}");
        }
        for text in ["", "*", "a/*", "a/*/b", "a/**", "a/#", "#", "a\nb", "a\u{7f}", "a\0"] {
            assert!(target(text).is_err(), "{text:?}");
        }
        assert!(matches!(target("$SYS/x"), Err(Error::Reserved(_))));
        assert!(channel("$SYS/x").is_ok(), "it may be read");
    }

    #[test]
    fn an_encoded_slash_is_a_slash() {
        assert_eq!(decode("chat%2Froom1/%E2%82%AC").unwrap(), "chat/room1/€");
        for wrong in ["%ff", "%zz", "a%2"] {
            assert!(matches!(decode(wrong), Err(Error::Inexpressible { .. })), "{wrong}");
        }
    }
}

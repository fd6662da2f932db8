//! Channels and filters in the text form, as they stand in addresses and JSON.

use broker_core::{Channel, ChannelError, Filter, FilterError};

use crate::error::Error;

/// A channel in the text form. The core takes more: a segment that the text form reads as a wildcard could never be
/// subscribed to by its name, and control characters break logs and listings.
///
/// # Errors
/// [`Error::Channel`], [`Error::Inexpressible`].
pub fn channel(text: &str) -> Result<Channel, Error> {
    let channel = Channel::parse(text)?;
    // Nearly all names are of these alone, and need no look at their segments.
    if text.bytes().all(|byte| PLAIN[usize::from(byte)]) {
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

/// The bytes of names that have nothing to look at.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < plain.len() {
        let this = byte as u8;
        plain[byte] = this.is_ascii_alphanumeric() || matches!(this, b'/' | b'-' | b'_' | b'.' | b':');
        byte += 1;
    }
    plain
};

/// A channel that may be published to: one that is not the broker's own.
///
/// # Errors
/// As [`channel`], and [`Error::Reserved`].
pub fn target(text: &str) -> Result<Channel, Error> {
    let channel = channel(text)?;
    if channel.is_reserved() { Err(Error::Reserved(channel)) } else { Ok(channel) }
}

/// A filter in the text form.
///
/// # Errors
/// [`Error::Filter`], or [`Error::Channel`] where there is no name at all.
pub fn filter(text: &str) -> Result<Filter, Error> {
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
    fn a_name_is_one_that_could_also_be_subscribed_to() {
        for text in ["a", "chat/room1", "a//b", "a/", "a+b", "+", "a*", "#a", "é", " "] {
            assert!(target(text).is_ok(), "{text:?}");
        }
        for text in ["", "*", "a/*", "a/*/b", "a/**", "a/#", "#", "a\nb", "a\u{7f}", "a\0"] {
            assert!(target(text).is_err(), "{text:?}");
        }
        assert!(matches!(target("$SYS/x"), Err(Error::Reserved(_))));
        assert!(channel("$SYS/x").is_ok(), "it may be read");
    }
}

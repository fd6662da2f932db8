//! Where a recorded message stands.

use std::fmt;
use std::str::FromStr;

/// The place of a recorded message in the broker's one order: `<epoch>-<offset>`, opaque to clients.
///
/// The epoch is base36 in lower case, the offset decimal. Ids of different epochs cannot be compared: the past of the
/// older one is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId {
    epoch: u64,
    offset: u64,
}

/// A text that is not a message id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a message id is <epoch>-<offset>, such as k3-18")]
pub struct MessageIdError;

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(std::str::from_utf8(text).unwrap_or_default()))
    }
}

impl MessageId {
    /// The id of a position in one life of a log.
    pub const fn new(epoch: u64, offset: u64) -> Self {
        Self { epoch, offset }
    }

    /// Which life of the log; changes when the past is gone.
    pub const fn epoch(self) -> u64 {
        self.epoch
    }

    /// Position in that life, from 1; 0 stands for *before the first*.
    pub const fn offset(self) -> u64 {
        self.offset
    }

    /// Thirteen digits of base36, a dash, twenty decimal ones.
    const MAX_TEXT_BYTES: usize = 34;

    /// Appends the text, for hot paths: [`ToString`] costs an allocation and several times the work.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        self.with_text(|text| out.extend_from_slice(text));
    }

    fn with_text<T>(&self, then: impl FnOnce(&[u8]) -> T) -> T {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        /// Writes `rest` in front of `at`; where it begins. The base is a constant, as dividing by a variable takes
        /// several times as long.
        fn write<const BASE: u64>(mut rest: u64, text: &mut [u8], mut at: usize) -> usize {
            loop {
                at -= 1;
                text[at] = DIGITS[(rest % BASE) as usize];
                rest /= BASE;
                if rest == 0 {
                    return at;
                }
            }
        }
        let mut text = [b'-'; Self::MAX_TEXT_BYTES];
        let offset = write::<10>(self.offset, &mut text, Self::MAX_TEXT_BYTES);
        // The dash between the two is there already.
        let epoch = write::<36>(self.epoch, &mut text, offset - 1);
        then(&text[epoch..])
    }
}

impl FromStr for MessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        let (epoch, offset) = text.split_once('-').ok_or(MessageIdError)?;
        // `from_str_radix` takes signs and upper case, an id has neither.
        let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
        if !plain(epoch) || !plain(offset) {
            return Err(MessageIdError);
        }
        Ok(Self {
            epoch: u64::from_str_radix(epoch, 36).map_err(|_| MessageIdError)?,
            offset: offset.parse().map_err(|_| MessageIdError)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        for (epoch, offset, text) in
            [(723, 18, "k3-18"), (0, 0, "0-0"), (u64::MAX, u64::MAX, "3w5e11264sgsf-18446744073709551615")]
        {
            let id = MessageId { epoch, offset };
            assert_eq!(id.to_string(), text);
            let mut out = b"<".to_vec();
            id.write_to(&mut out);
            assert_eq!(out, [b"<", text.as_bytes()].concat());
            assert_eq!(text.parse(), Ok(id));
        }
        for text in
            ["", "-", "k3", "k3-", "-3", "K3-1", "k3-+1", "k3-1a", "k3-1-1", "k 3-1", "zzzzzzzzzzzzzzz-1"]
        {
            assert_eq!(text.parse::<MessageId>(), Err(MessageIdError), "{text}");
        }
    }
}

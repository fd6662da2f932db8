//! The start of every payload: publisher, channel, sequence number and send time in fixed-width hex.
//!
//! Plain characters only, so that a payload is at once text, one SSE line and, in quotes, a JSON string.

/// Smallest payload that holds a stamp.
pub(crate) const STAMP_BYTES: usize = 2 + 4 + 8 + 8 + 16;

const FILL: u8 = b'.';

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) publisher: u16,
    pub(crate) channel: u32,
    /// Counts this publisher's messages on this channel from 0.
    pub(crate) sequence: u32,
    /// When the message was due, `CLOCK_MONOTONIC` nanoseconds.
    pub(crate) sent_ns: u64,
}

impl Stamp {
    /// Replaces `payload` by this stamp, filled up to `bytes`.
    pub(crate) fn write(&self, payload: &mut Vec<u8>, bytes: usize) {
        payload.clear();
        payload.extend_from_slice(b"fw");
        push_hex(payload, u64::from(self.publisher), 4);
        push_hex(payload, u64::from(self.channel), 8);
        push_hex(payload, u64::from(self.sequence), 8);
        push_hex(payload, self.sent_ns, 16);
        payload.resize(bytes.max(STAMP_BYTES), FILL);
    }

    /// Reads the stamp a payload starts with; none if it is not one of ours.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let hex = payload.strip_prefix(b"fw")?;
        Some(Self {
            publisher: read_hex(hex.get(..4)?)? as u16,
            channel: read_hex(hex.get(4..12)?)? as u32,
            sequence: read_hex(hex.get(12..20)?)? as u32,
            sent_ns: read_hex(hex.get(20..36)?)?,
        })
    }

    /// The publisher and channel whose sequence this counts in.
    pub(crate) fn series(&self) -> u64 {
        u64::from(self.publisher) << 32 | u64::from(self.channel)
    }
}

fn push_hex(out: &mut Vec<u8>, value: u64, digits: u32) {
    for place in (0..digits).rev() {
        let digit = (value >> (place * 4) & 0xf) as u8;
        out.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
    }
}

fn read_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_reads_back_whatever_its_values() {
        for stamp in [
            Stamp { publisher: 0, channel: 0, sequence: 0, sent_ns: 0 },
            Stamp { publisher: u16::MAX, channel: u32::MAX, sequence: u32::MAX, sent_ns: u64::MAX },
            Stamp { publisher: 15, channel: 999, sequence: 77, sent_ns: 123_456_789_012 },
        ] {
            let mut payload = b"old".to_vec();
            stamp.write(&mut payload, 64);
            assert_eq!(payload.len(), 64);
            assert_eq!(Stamp::read(&payload), Some(stamp));
        }
    }

    #[test]
    fn foreign_or_short_payloads_have_no_stamp() {
        for payload in [&b""[..], b"fw", b"hello", b"fwzzzz000000000000000000000000000000000000"] {
            assert_eq!(Stamp::read(payload), None);
        }
    }
}

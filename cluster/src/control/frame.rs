//! What nodes ask and tell each other, as it is sent.
//!
//! ```text
//! version 1 | kind | life of the node, 8 bytes | number, 8 bytes | bytes of the service's name, 1 byte | name | body
//! ```
//!
//! A question and its answers have one number.

use bytes::Bytes;

/// Another number is of another version, which is passed over and counted.
const VERSION: u8 = 1;

const HEAD_BYTES: usize = 19;

/// The longest name of a service.
pub(crate) const MAX_NAME_BYTES: usize = 32;

/// What a frame adds to its body at most.
pub(crate) const MAX_OVERHEAD: usize = HEAD_BYTES + MAX_NAME_BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Question,
    Answer,
    /// There is no answer: no such service, too much to do, or it would be too large.
    Cannot,
    /// Nobody is to answer.
    Notice,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    /// Of the node that sent it.
    pub(crate) life: u64,
    pub(crate) number: u64,
    pub(crate) service: Bytes,
    pub(crate) body: Bytes,
}

const KINDS: [(u8, Kind); 4] = [(1, Kind::Question), (2, Kind::Answer), (3, Kind::Cannot), (4, Kind::Notice)];

pub(crate) fn write(kind: Kind, life: u64, number: u64, service: &str, body: &[u8]) -> Bytes {
    let code = KINDS.iter().find(|(_, one)| *one == kind).map_or(0, |(code, _)| *code);
    let name = service.as_bytes();
    let name = name.get(..MAX_NAME_BYTES).unwrap_or(name);
    let mut frame = Vec::with_capacity(HEAD_BYTES + name.len() + body.len());
    frame.extend_from_slice(&[VERSION, code]);
    frame.extend_from_slice(&life.to_be_bytes());
    frame.extend_from_slice(&number.to_be_bytes());
    frame.push(u8::try_from(name.len()).unwrap_or(0));
    frame.extend_from_slice(name);
    frame.extend_from_slice(body);
    frame.into()
}

/// `None` for what no node of this version sends.
pub(crate) fn read(frame: &Bytes) -> Option<Frame> {
    let ([version, code], rest) = frame.split_first_chunk::<2>()?;
    let (life, rest) = rest.split_first_chunk::<8>()?;
    let (number, rest) = rest.split_first_chunk::<8>()?;
    let (name_bytes, rest) = rest.split_first()?;
    let name_bytes = usize::from(*name_bytes);
    if *version != VERSION || name_bytes > MAX_NAME_BYTES || rest.len() < name_bytes {
        return None;
    }
    let (_, kind) = KINDS.iter().find(|(known, _)| known == code)?;
    Some(Frame {
        kind: *kind,
        life: u64::from_be_bytes(*life),
        number: u64::from_be_bytes(*number),
        service: frame.slice(HEAD_BYTES..HEAD_BYTES + name_bytes),
        body: frame.slice(HEAD_BYTES + name_bytes..),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_read() {
        for (_, kind) in KINDS {
            let frame = read(&write(kind, 7, u64::MAX, "api", b"body")).unwrap();
            let expected =
                Frame { kind, life: 7, number: u64::MAX, service: "api".into(), body: "body".into() };
            assert_eq!(frame, expected);
        }
        assert_eq!(read(&write(Kind::Notice, 1, 0, "", b"")).unwrap().body, Bytes::new());
    }

    #[test]
    fn what_nobody_sends_is_not_read() {
        let whole = write(Kind::Question, 7, 1, "api", b"");
        for length in 0..whole.len() {
            assert_eq!(read(&whole.slice(..length)), None, "{length}");
        }
        for (at, byte) in [(0, 2), (1, 0), (1, 9), (18, 33), (18, 255)] {
            let mut other = whole.to_vec();
            other[at] = byte;
            assert_eq!(read(&other.into()), None, "{at} {byte}");
        }
    }
}

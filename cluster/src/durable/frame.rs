//! What lies in the stream: a frame for each message of it, with one message of ours or several of one channel.
//!
//! ```text
//! version 1 | kind | life of the node, 8 bytes | number, 8 bytes | rest
//! messages  rest: for each its length in 4 bytes and its record
//! keyed     rest: fingerprint, 16 bytes | time, 8 bytes | record
//! clear     rest: the channel
//! ```
//!
//! A message's offset is the stream's sequence and, in the lowest eight bits, its place in the frame.

use broker_core::{Accepted, Channel, RecordDamaged};

const VERSION: u8 = 1;

const MESSAGES: u8 = 1;
const KEYED: u8 = 2;
const CLEAR: u8 = 3;

const PLACE_BITS: u32 = 8;

/// The most messages of a frame.
pub(crate) const MAX_MESSAGES: usize = 1 << PLACE_BITS;

/// Who sent a frame, and which one of its own it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) life: u64,
    pub(crate) number: u64,
}

impl Origin {
    /// What the stream knows it by, so that it has it once.
    pub(crate) fn name(self) -> String {
        format!("{:x}-{}", self.life, self.number)
    }
}

/// What a key's message is known by: of all that makes it, and not of when it came.
pub(crate) type Print = [u8; 16];

/// A frame in the place of one that is never to come.
pub(crate) fn nothing(origin: Origin) -> Vec<u8> {
    head(MESSAGES, origin)
}

/// What a frame says.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) origin: Origin,
    pub(crate) content: Content,
}

#[derive(Debug)]
pub(crate) enum Content {
    /// Messages, with their offsets; without those whose time is over.
    Messages(Vec<Accepted>),
    /// None, in the place of a message that is never to come.
    Nothing,
    /// The same, of one that has a key, and when that was published.
    Keyed(Print, u64, Option<Accepted>),
    /// The channel's retained message is forgotten.
    Clear(Channel),
}

impl Content {
    /// All messages that are left.
    pub(crate) fn into_messages(self) -> Vec<Accepted> {
        match self {
            Self::Messages(messages) => messages,
            Self::Keyed(_, _, message) => message.into_iter().collect(),
            Self::Clear(_) | Self::Nothing => Vec::new(),
        }
    }
}

/// The offset of the message at a place of the frame with this sequence.
pub(crate) fn offset(sequence: u64, place: usize) -> u64 {
    sequence << PLACE_BITS | (place as u64 & (MAX_MESSAGES as u64 - 1))
}

/// The offset up to which all of the frame with this sequence is.
pub(crate) fn end_of(sequence: u64) -> u64 {
    offset(sequence, MAX_MESSAGES - 1)
}

/// The sequence of the frame that an offset is in.
pub(crate) fn sequence(offset: u64) -> u64 {
    offset >> PLACE_BITS
}

/// The place of an offset in its frame.
pub(crate) fn place(offset: u64) -> usize {
    (offset & (MAX_MESSAGES as u64 - 1)) as usize
}

fn head(kind: u8, origin: Origin) -> Vec<u8> {
    let mut frame = vec![VERSION, kind];
    frame.extend_from_slice(&origin.life.to_be_bytes());
    frame.extend_from_slice(&origin.number.to_be_bytes());
    frame
}

/// A frame of messages, by their records.
pub(crate) fn messages<'r>(origin: Origin, records: impl Iterator<Item = &'r [u8]>) -> Vec<u8> {
    let mut frame = head(MESSAGES, origin);
    for record in records {
        // A frame is bounded far below this.
        frame.extend_from_slice(&u32::try_from(record.len()).unwrap_or(u32::MAX).to_be_bytes());
        frame.extend_from_slice(record);
    }
    frame
}

/// A frame of a message with a key.
pub(crate) fn keyed(origin: Origin, print: &Print, time_ms: u64, record: &[u8]) -> Vec<u8> {
    let mut frame = head(KEYED, origin);
    frame.extend_from_slice(print);
    frame.extend_from_slice(&time_ms.to_be_bytes());
    frame.extend_from_slice(record);
    frame
}

/// A frame that has a retained message forgotten.
pub(crate) fn clear(origin: Origin, channel: &Channel) -> Vec<u8> {
    let mut frame = head(CLEAR, origin);
    frame.extend_from_slice(channel.as_str().as_bytes());
    frame
}

/// Reads the frame with this sequence.
pub(crate) fn read(frame: &[u8], sequence: u64) -> Result<Frame, RecordDamaged> {
    let ([version, kind], rest) = frame.split_first_chunk::<2>().ok_or(RecordDamaged)?;
    let (life, rest) = take_u64(rest)?;
    let (number, mut rest) = take_u64(rest)?;
    if *version != VERSION {
        return Err(RecordDamaged);
    }
    let content = match *kind {
        MESSAGES if rest.is_empty() => Content::Nothing,
        MESSAGES => {
            let mut messages = Vec::new();
            let mut place = 0;
            while !rest.is_empty() && place < MAX_MESSAGES {
                let (length, behind) = rest.split_first_chunk::<4>().ok_or(RecordDamaged)?;
                let length = u32::from_be_bytes(*length) as usize;
                let (record, behind) = behind.split_at_checked(length).ok_or(RecordDamaged)?;
                messages.extend(Accepted::read_from(record, offset(sequence, place))?);
                (rest, place) = (behind, place + 1);
            }
            if !rest.is_empty() {
                return Err(RecordDamaged);
            }
            Content::Messages(messages)
        }
        KEYED => {
            let (print, rest) = rest.split_first_chunk().ok_or(RecordDamaged)?;
            let (time_ms, record) = take_u64(rest)?;
            Content::Keyed(*print, time_ms, Accepted::read_from(record, offset(sequence, 0))?)
        }
        CLEAR => {
            let channel = std::str::from_utf8(rest).map_err(|_| RecordDamaged)?;
            Content::Clear(Channel::parse(channel).map_err(|_| RecordDamaged)?)
        }
        _ => return Err(RecordDamaged),
    };
    Ok(Frame { origin: Origin { life, number }, content })
}

fn take_u64(bytes: &[u8]) -> Result<(u64, &[u8]), RecordDamaged> {
    let (number, rest) = bytes.split_first_chunk::<8>().ok_or(RecordDamaged)?;
    Ok((u64::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use broker_core::{Publish, unix_ms};

    use super::*;

    const ORIGIN: Origin = Origin { life: u64::MAX - 1, number: 3 };

    fn record(text: &str, ttl: Option<Duration>) -> Vec<u8> {
        let mut publish = Publish::new(Channel::parse("a/b").unwrap(), text.to_owned());
        if let Some(ttl) = ttl {
            publish = publish.ttl(ttl);
        }
        let mut record = Vec::new();
        Accepted::new(publish, 0, unix_ms()).write_to(&mut record);
        record
    }

    fn texts(content: Content) -> Vec<(u64, String)> {
        let text = |one: Accepted| String::from_utf8_lossy(one.publish.payload()).into_owned();
        content.into_messages().into_iter().map(|one| (one.offset, text(one))).collect()
    }

    #[test]
    fn frames_read_back_with_the_places_of_their_messages() {
        let records = [record("x", None), record("over", Some(Duration::ZERO)), record("", None)];
        let frame = messages(ORIGIN, records.iter().map(Vec::as_slice));
        let read_back = read(&frame, 7).unwrap();
        assert_eq!(read_back.origin, ORIGIN);
        assert_eq!(texts(read_back.content), [(7 << 8, "x".to_owned()), (7 << 8 | 2, String::new())]);

        let frame = keyed(ORIGIN, &[9; 16], 17, &record("k", None));
        let Content::Keyed(print, 17, Some(message)) = read(&frame, 1).unwrap().content else { panic!() };
        assert_eq!((print, message.offset, &message.publish.payload()[..]), ([9; 16], 1 << 8, &b"k"[..]));
        let frame = keyed(ORIGIN, &[9; 16], 17, &record("k", Some(Duration::ZERO)));
        assert!(matches!(read(&frame, 1).unwrap().content, Content::Keyed(_, 17, None)));

        assert!(matches!(read(&nothing(ORIGIN), 1).unwrap().content, Content::Nothing));
        let a = Channel::parse("a").unwrap();
        let Content::Clear(channel) = read(&clear(ORIGIN, &a), 1).unwrap().content else { panic!() };
        assert_eq!(channel, a);
    }

    #[test]
    fn what_nobody_sends_is_an_error() {
        let whole = messages(ORIGIN, [record("x", None)].iter().map(Vec::as_slice));
        for length in (0..whole.len()).filter(|length| *length != 18) {
            assert!(read(&whole[..length], 1).is_err(), "{length}");
        }
        for (at, byte) in [(0, 2), (1, 0), (1, 9)] {
            let mut other = whole.clone();
            other[at] = byte;
            assert!(read(&other, 1).is_err(), "{at}");
        }
        let many = vec![record("", None); MAX_MESSAGES + 1];
        assert!(read(&messages(ORIGIN, many.iter().map(Vec::as_slice)), 1).is_err());
        let whole = keyed(ORIGIN, &[9; 16], 17, &record("x", None));
        assert!(read(&whole[..40], 1).is_err());
        assert!(read(&clear(ORIGIN, &Channel::parse("a").unwrap())[..18], 1).is_err(), "no name");
    }

    #[test]
    fn offsets_rise_with_sequences_and_places() {
        let offsets = [offset(0, 0), offset(1, 0), offset(1, 255), offset(2, 0), offset(1 << 50, 3)];
        assert!(offsets.is_sorted_by(|one, other| one < other));
        assert_eq!((sequence(offset(9, 4)), place(offset(9, 4)), end_of(1)), (9, 4, offset(1, 255)));
    }
}

//! What lies in the stream of sessions: for each its newest row, in which stands who has it and what its front has recorded.
//!
//! ```text
//! version 1 | bits | life of the node, 8 bytes | fence, 8 bytes | name | marks | [ends | will | position | state]
//! bits      1: there is a record, 2: it has a will, 4: it has a position, 8: its node was gone when this was written
//! ends      kind, 1 byte | milliseconds, 8 bytes; so is a will
//! position  epoch, 8 bytes | offset, 8 bytes
//! marks     how many, 4 bytes | each: number, 2 bytes | 0, or 1 and life, frame, place, 8 bytes each, channel
//! ```
//!
//! Texts have their length before them, in 4 bytes; the state is the rest.

use std::time::Duration;

use broker_core::{Ends, MessageId, SessionRecord};

const VERSION: u8 = 1;

const HAS_RECORD: u8 = 1;
const HAS_WILL: u8 = 2;
const HAS_POSITION: u8 = 4;
const IS_LEFT: u8 = 8;

/// A session as it is known to all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Of the node that has it.
    pub(crate) life: u64,
    /// Of the claim.
    pub(crate) fence: u64,
    pub(crate) name: Box<str>,
    /// `None`: its owner has recorded nothing yet.
    pub(crate) record: Option<SessionRecord>,
    /// Numbers that stand for messages.
    pub(crate) marks: Vec<Mark>,
    /// Its node was gone when another one wrote this. Should it only have been away, it has the session still.
    pub(crate) is_left: bool,
}

/// A number that stands for a message until it is freed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) number: u16,
    /// The message may not be in the stream: whoever wants to know looks for it.
    pub(crate) begun: Option<Begun>,
}

/// A message that is about to be put into the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    /// Of the node that puts it there, and which of its frames it is.
    pub(crate) life: u64,
    pub(crate) frame: u64,
    /// A sequence that is not behind it.
    pub(crate) from: u64,
    pub(crate) channel: Box<str>,
}

impl Row {
    pub(crate) fn write(&self) -> Vec<u8> {
        let bit = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let record = self.record.as_ref();
        let bits = bit(record.is_some(), HAS_RECORD)
            | bit(record.is_some_and(|record| record.will.is_some()), HAS_WILL)
            | bit(record.is_some_and(|record| record.position.is_some()), HAS_POSITION)
            | bit(self.is_left, IS_LEFT);
        let mut out = vec![VERSION, bits];
        put(&mut out, self.life);
        put(&mut out, self.fence);
        put_text(&mut out, &self.name);
        put_length(&mut out, self.marks.len());
        for mark in &self.marks {
            out.extend_from_slice(&mark.number.to_be_bytes());
            out.push(u8::from(mark.begun.is_some()));
            if let Some(begun) = &mark.begun {
                [begun.life, begun.frame, begun.from].into_iter().for_each(|number| put(&mut out, number));
                put_text(&mut out, &begun.channel);
            }
        }
        let Some(record) = record else { return out };
        put_ends(&mut out, record.ends);
        if let Some(will) = record.will {
            put_ends(&mut out, will);
        }
        if let Some(position) = record.position {
            put(&mut out, position.epoch());
            put(&mut out, position.offset());
        }
        out.extend_from_slice(&record.state);
        out
    }

    /// `None`: it is damaged, or of another version.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut input = Input(bytes);
        let [version, bits] = input.take()?;
        if version != VERSION {
            return None;
        }
        let (life, fence, name) = (input.number()?, input.number()?, input.text()?);
        let mut marks = Vec::new();
        for _ in 0..input.length()? {
            let number = u16::from_be_bytes(input.take()?);
            let [is_begun] = input.take()?;
            let begun = match is_begun {
                0 => None,
                1 => Some(Begun {
                    life: input.number()?,
                    frame: input.number()?,
                    from: input.number()?,
                    channel: input.text()?,
                }),
                _ => return None,
            };
            marks.push(Mark { number, begun });
        }
        let record = if bits & HAS_RECORD == 0 {
            if !input.0.is_empty() {
                return None;
            }
            None
        } else {
            let ends = input.ends()?;
            let will = if bits & HAS_WILL == 0 { None } else { Some(input.ends()?) };
            let position = if bits & HAS_POSITION == 0 {
                None
            } else {
                Some(MessageId::new(input.number()?, input.number()?))
            };
            Some(SessionRecord::new(input.0.to_vec(), position).ending(ends).with_will(will))
        };
        Some(Self { life, fence, name, record, marks, is_left: bits & IS_LEFT != 0 })
    }
}

fn put(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_be_bytes());
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_ends(out: &mut Vec<u8>, ends: Ends) {
    let (kind, when) = match ends {
        Ends::At(at_ms) => (1, at_ms),
        Ends::After(after) => (2, u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        _ => (0, 0),
    };
    out.push(kind);
    put(out, when);
}

struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_be_bytes(self.take()?)).ok()
    }

    fn text(&mut self) -> Option<Box<str>> {
        let length = self.length()?;
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(head).ok().map(Box::from)
    }

    fn ends(&mut self) -> Option<Ends> {
        let [kind] = self.take()?;
        let when = self.number()?;
        match kind {
            0 => Some(Ends::Never),
            1 => Some(Ends::At(when)),
            2 => Some(Ends::After(Duration::from_millis(when))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let position = Some(MessageId::new(7, 9));
        let records = [
            None,
            Some(SessionRecord::new("", None)),
            Some(SessionRecord::new(vec![0, 255], position).ending(Ends::At(5))),
            Some(
                SessionRecord::new("s", position)
                    .ending(Ends::After(Duration::from_millis(8)))
                    .with_will(Some(Ends::At(6))),
            ),
        ];
        let begun = Begun { life: u64::MAX, frame: 1, from: 2, channel: "a/ü".into() };
        let marks = vec![Mark { number: 0, begun: None }, Mark { number: u16::MAX, begun: Some(begun) }];
        for record in records {
            for marks in [Vec::new(), marks.clone()] {
                let is_left = marks.is_empty();
                let row =
                    Row { life: 3, fence: 4, name: "ann\0ü".into(), record: record.clone(), marks, is_left };
                let bytes = row.write();
                assert_eq!(Row::read(&bytes).as_ref(), Some(&row));
                let end = bytes.len() - row.record.as_ref().map_or(0, |record| record.state.len());
                for length in 0..end {
                    assert_eq!(Row::read(&bytes[..length]), None, "{length}");
                }
                let mut other = bytes;
                other[0] = 2;
                assert_eq!(Row::read(&other), None);
            }
        }
    }
}

//! What one node sends the others.
//!
//! ```text
//! version 1 | kind | life of the node, 8 bytes | number, 8 bytes | a message's record, a channel or a node's name
//! ```

use broker_core::{Accepted, Channel, Message, Publish};

/// Another number is of another version, which is passed over and counted.
const VERSION: u8 = 1;

const HEAD_BYTES: usize = 18;

/// Who sent something, and its place among all that it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Drawn when a node starts.
    pub(crate) life: u64,
    /// From 1, without holes over all channels.
    pub(crate) number: u64,
}

/// What was sent.
#[derive(Debug)]
pub(crate) enum Content {
    /// A message, published there at a time in milliseconds since 1970.
    Message(Box<Publish>, u64),
    /// A message whose time is over.
    Expired,
    /// The channel's retained message is forgotten.
    Forget(Channel),
    /// The node is there.
    Hello(Box<str>),
    /// The node has left.
    Bye,
}

/// Bytes that no node of this version sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

const MESSAGE: u8 = 1;
const FORGET: u8 = 2;
const HELLO: u8 = 3;
const BYE: u8 = 4;

fn head(kind: u8, origin: Origin, room: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD_BYTES + room);
    frame.extend_from_slice(&[VERSION, kind]);
    frame.extend_from_slice(&origin.life.to_be_bytes());
    frame.extend_from_slice(&origin.number.to_be_bytes());
    frame
}

pub(crate) fn message(origin: Origin, message: &Message) -> Vec<u8> {
    let mut frame = head(MESSAGE, origin, message.weight());
    Accepted::write_relayed(message, &mut frame);
    frame
}

pub(crate) fn forget(origin: Origin, channel: &Channel) -> Vec<u8> {
    let mut frame = head(FORGET, origin, channel.as_str().len());
    frame.extend_from_slice(channel.as_str().as_bytes());
    frame
}

pub(crate) fn hello(life: u64, name: &str) -> Vec<u8> {
    let mut frame = head(HELLO, Origin { life, number: 0 }, name.len());
    frame.extend_from_slice(name.as_bytes());
    frame
}

pub(crate) fn bye(life: u64) -> Vec<u8> {
    head(BYE, Origin { life, number: 0 }, 0)
}

pub(crate) fn read(frame: &[u8]) -> Result<(Origin, Content), Unreadable> {
    let ([version, kind], rest) = frame.split_first_chunk::<2>().ok_or(Unreadable)?;
    let (life, rest) = rest.split_first_chunk::<8>().ok_or(Unreadable)?;
    let (number, rest) = rest.split_first_chunk::<8>().ok_or(Unreadable)?;
    if *version != VERSION {
        return Err(Unreadable);
    }
    let text = || std::str::from_utf8(rest).map_err(|_| Unreadable);
    let content = match *kind {
        MESSAGE => match Accepted::read_relayed(rest).map_err(|_| Unreadable)? {
            Some((publish, time_ms)) => Content::Message(Box::new(publish), time_ms),
            None => Content::Expired,
        },
        FORGET => Content::Forget(Channel::parse(text()?).map_err(|_| Unreadable)?),
        HELLO => Content::Hello(text()?.into()),
        BYE => Content::Bye,
        _ => return Err(Unreadable),
    };
    Ok((Origin { life: u64::from_be_bytes(*life), number: u64::from_be_bytes(*number) }, content))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ORIGIN: Origin = Origin { life: u64::MAX - 1, number: 3 };

    fn sent(publish: Publish) -> Vec<u8> {
        message(ORIGIN, &Accepted::new(publish, 0, 17).into_message(1))
    }

    #[test]
    fn what_is_sent_is_read() {
        let a = Channel::parse("a/b").unwrap();
        let (origin, content) = read(&sent(Publish::new(a.clone(), "x").json().retain(true))).unwrap();
        assert_eq!(origin, ORIGIN);
        let Content::Message(publish, 17) = content else { panic!("{content:?}") };
        assert_eq!((publish.channel(), &publish.payload()[..], publish.is_retained()), (&a, &b"x"[..], true));
        let expired = read(&sent(Publish::new(a.clone(), "x").ttl(Duration::ZERO))).unwrap().1;
        assert!(matches!(expired, Content::Expired));
        let (origin, content) = read(&forget(ORIGIN, &a)).unwrap();
        assert!(origin == ORIGIN && matches!(content, Content::Forget(channel) if channel == a));
        assert!(matches!(read(&hello(1, "n1")).unwrap().1, Content::Hello(name) if &*name == "n1"));
        assert!(matches!(read(&bye(1)).unwrap(), (Origin { life: 1, .. }, Content::Bye)));
    }

    #[test]
    fn what_nobody_sends_is_an_error() {
        let whole = sent(Publish::new(Channel::parse("a").unwrap(), "payload"));
        for length in 0..whole.len() - b"payload".len() {
            assert_eq!(read(&whole[..length]).err(), Some(Unreadable), "{length}");
        }
        for (at, byte) in [(0, 2), (1, 0), (1, 9)] {
            let mut other = whole.clone();
            other[at] = byte;
            assert_eq!(read(&other).err(), Some(Unreadable), "{at}");
        }
        let mut no_name = forget(ORIGIN, &Channel::parse("a").unwrap());
        no_name.pop();
        assert_eq!(read(&no_name).err(), Some(Unreadable));
    }
}

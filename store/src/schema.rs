//! How things are written. Integers are big-endian, so that keys lie in the order of their numbers.
//!
//! | keyspace | key | value |
//! | --- | --- | --- |
//! | `meta` | `schema`, `epoch`, `secret`, `head`, `fence` | of the whole store |
//! | | `g` group's name | its number, the newest offset that was dropped of it |
//! | | `b` group `·` bucket | when it was begun, its offsets, messages and bytes, how it is written, up to where `i` rows tell of it |
//! | | `k` generation | when it was begun |
//! | | `l` offset | in a backup: up to this one, offsets were given that it does not know |
//! | `h.<group>.<bucket>` | `b` first offset | a [block](crate::block) of messages, each with its CRC-32 |
//! | | `i` channel's hash `·` offset | where the channel's messages [are](crate::index), from that one on |
//! | the same, of schema 2 | `b` first offset | a block that does not say whose its messages are |
//! | | `i` channel's hash `·` run's first offset | which of the run are the channel's, and in which blocks |
//! | the same, of schema 1 | `m` offset | CRC-32, record of the message |
//! | | `c` channel's hash `·` offset | nothing |
//! | `retained` | channel | CRC-32, offset, record |
//! | `sessions` | session's name | CRC-32, when it ends, its position, record |
//! | `taken` | session's name, its number for a message that it may repeat | nothing |
//! | `notes` | room, NUL, note's name | CRC-32, what it says |
//! | `keys.<generation>` | hash of user, channel and key | fingerprint, offset, time, receivers |

use sha2::{Digest as _, Sha256};

/// What this version writes. It reads 2 as well, whose batches have a row for each channel, and 1, in whose buckets each
/// message has two rows of its own.
pub(crate) const SCHEMA: u32 = 3;

/// Offsets are said to be used in blocks: after a crash the rest of a block is skipped, and none is given twice.
pub(crate) const BLOCK: u64 = 1 << 16;

pub(crate) const META: &str = "meta";
pub(crate) const RETAINED: &str = "retained";
pub(crate) const SESSIONS: &str = "sessions";
pub(crate) const TAKEN: &str = "taken";
pub(crate) const NOTES: &str = "notes";

/// What texts are hashed with, so that nobody outside can choose hashes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) [u8; 32]);

impl Secret {
    /// A hash over several texts, whose lengths keep ("a", "bc") and ("ab", "c") apart.
    pub(crate) fn hash<const N: usize>(&self, texts: &[&[u8]]) -> [u8; N] {
        const { assert!(N <= 32) };
        let mut sha = Sha256::new();
        sha.update(self.0);
        for text in texts {
            sha.update((text.len() as u64).to_be_bytes());
            sha.update(text);
        }
        let all: [u8; 32] = sha.finalize().into();
        let mut hash = [0; N];
        hash.copy_from_slice(&all[..N]);
        hash
    }

    /// What a channel's messages are found by.
    pub(crate) fn channel(&self, channel: &str) -> [u8; 8] {
        self.hash(&[b"channel", channel.as_bytes()])
    }
}

pub(crate) fn block_key(first: u64) -> [u8; 9] {
    let mut key = message_key(first);
    key[0] = b'b';
    key
}

pub(crate) fn index_key(channel: [u8; 8], first: u64) -> [u8; 17] {
    let mut key = channel_key(channel, first);
    key[0] = b'i';
    key
}

pub(crate) fn message_key(offset: u64) -> [u8; 9] {
    let mut key = [b'm'; 9];
    key[1..].copy_from_slice(&offset.to_be_bytes());
    key
}

pub(crate) fn channel_key(channel: [u8; 8], offset: u64) -> [u8; 17] {
    let mut key = [b'c'; 17];
    key[1..9].copy_from_slice(&channel);
    key[9..].copy_from_slice(&offset.to_be_bytes());
    key
}

/// The offset at a key's end.
pub(crate) fn offset_of(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

pub(crate) fn group_key(name: &str) -> Vec<u8> {
    [b"g", name.as_bytes()].concat()
}

pub(crate) fn bucket_key(group: u32, number: u64) -> [u8; 13] {
    let mut key = [b'b'; 13];
    key[1..5].copy_from_slice(&group.to_be_bytes());
    key[5..].copy_from_slice(&number.to_be_bytes());
    key
}

pub(crate) fn bucket_name(group: u32, number: u64) -> String {
    format!("h.{group}.{number}")
}

pub(crate) fn generation_key(number: u64) -> [u8; 9] {
    let mut key = [b'k'; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

pub(crate) fn generation_name(number: u64) -> String {
    format!("keys.{number}")
}

pub(crate) fn lost_key(offset: u64) -> [u8; 9] {
    let mut key = [b'l'; 9];
    key[1..].copy_from_slice(&offset.to_be_bytes());
    key
}

/// A session's number for a message. `None`: no session has a name of that length.
pub(crate) fn taken_key(session: &str, number: u16) -> Option<Vec<u8>> {
    // Its length comes first, so that no name looks like the beginning of another.
    let length = u16::try_from(session.len()).ok()?;
    Some([&length.to_be_bytes(), session.as_bytes(), &number.to_be_bytes()].concat())
}

pub(crate) fn read_taken_key(key: &[u8]) -> Option<(&str, u16)> {
    let (length, rest) = key.split_first_chunk()?;
    let (name, number) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((std::str::from_utf8(name).ok()?, u16::from_be_bytes(number.try_into().ok()?)))
}

/// What the names of a room's notes follow. No room has a NUL in its name.
pub(crate) fn room_key(room: &str) -> Vec<u8> {
    [room.as_bytes(), &[0]].concat()
}

pub(crate) fn note_key(room: &str, name: &str) -> Vec<u8> {
    [room.as_bytes(), &[0], name.as_bytes()].concat()
}

/// Several numbers in a row.
pub(crate) fn numbers<const N: usize>(numbers: [u64; N]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

pub(crate) fn read_numbers<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let mut numbers = [0; N];
    let mut chunks = bytes.chunks_exact(8);
    for number in &mut numbers {
        *number = u64::from_be_bytes(chunks.next()?.try_into().ok()?);
    }
    (bytes.len() == 8 * N).then_some(numbers)
}

/// Puts a sum before what follows.
pub(crate) fn seal(bytes: &[u8]) -> Vec<u8> {
    sealed(bytes.len(), |out| out.extend_from_slice(bytes))
}

/// The same of what `write` appends, about so many bytes.
pub(crate) fn sealed(about: usize, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(about + SUM_BYTES);
    out.extend_from_slice(&[0; SUM_BYTES]);
    write(&mut out);
    if let Some((sum, bytes)) = out.split_first_chunk_mut() {
        *sum = crc32fast::hash(bytes).to_be_bytes();
    }
    out
}

/// How much of what is sealed is its sum.
pub(crate) const SUM_BYTES: usize = 4;

/// What was sealed, if it is whole.
pub(crate) fn unseal(sealed: &[u8]) -> Option<&[u8]> {
    let (sum, bytes) = sealed.split_first_chunk::<SUM_BYTES>()?;
    (crc32fast::hash(bytes) == u32::from_be_bytes(*sum)).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lie_in_the_order_of_offsets() {
        let offsets = [0, 1, 255, 256, u64::MAX];
        assert!(offsets.map(message_key).is_sorted());
        assert!(offsets.map(|offset| channel_key([7; 8], offset)).is_sorted());
        assert_eq!(offsets.map(|offset| offset_of(&message_key(offset)).unwrap()), offsets);
        assert!(offsets.map(|number| bucket_key(3, number)).is_sorted());
        assert!(offsets.map(block_key).is_sorted() && offsets.map(|run| index_key([7; 8], run)).is_sorted());
    }

    #[test]
    fn what_was_damaged_is_not_read() {
        let sealed = seal(b"whole");
        assert_eq!(unseal(&sealed), Some(&b"whole"[..]));
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(unseal(&damaged), None);
        }
        assert_eq!((unseal(b""), unseal(b"abc")), (None, None));
        assert_eq!(
            (read_numbers::<2>(&numbers([1, 2])), read_numbers::<3>(&numbers([1, 2]))),
            (Some([1, 2]), None)
        );
    }

    #[test]
    fn numbers_of_sessions_are_read_as_they_were_written() {
        for (session, number) in [("", 1), ("a", 0x6162), ("aab", 0), ("\0", u16::MAX)] {
            let key = taken_key(session, number).unwrap();
            assert_eq!(read_taken_key(&key), Some((session, number)));
            assert_eq!(read_taken_key(&key[..key.len() - 1]), None);
        }
        assert_eq!(taken_key(&"a".repeat(65_536), 1), None);
    }

    #[test]
    fn hashes_keep_texts_apart() {
        let secret = Secret([9; 32]);
        assert_ne!(secret.hash::<16>(&[b"a", b"bc"]), secret.hash::<16>(&[b"ab", b"c"]));
        assert_ne!(secret.channel("a"), Secret([8; 32]).channel("a"));
    }
}

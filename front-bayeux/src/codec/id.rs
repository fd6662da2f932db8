//! Random names that a client must not be able to guess.

use std::fmt;

/// A session's name and its key: whoever knows it (and holds the browser cookie) is the session.
///
/// 160 random bits, written as 32 lower-case letters and digits (Bayeux 1.0, "clientId").
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientId([u8; 20]);

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

impl ClientId {
    /// A new one from the system's random source.
    ///
    /// # Errors
    /// The system has none; nothing can be trusted then.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 20];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// Reads what a client sent; anything that this server did not write names no session.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 20];
        let (groups, rest) = text.as_bytes().as_chunks::<8>();
        if groups.len() != 4 || !rest.is_empty() {
            return None;
        }
        for (group, out) in groups.iter().zip(bytes.as_chunks_mut::<5>().0) {
            let mut bits = 0_u64;
            for &letter in group {
                let value = match letter {
                    b'a'..=b'z' => letter - b'a',
                    b'2'..=b'7' => letter - b'2' + 26,
                    _ => return None,
                };
                bits = bits << 5 | u64::from(value);
            }
            let [_, _, _, five @ ..] = bits.to_be_bytes();
            *out = five;
        }
        Some(Self(bytes))
    }

    fn letters(&self) -> [u8; 32] {
        let mut out = [0; 32];
        for (group, out) in self.0.as_chunks::<5>().0.iter().zip(out.as_chunks_mut::<8>().0) {
            let [a, b, c, d, e] = *group;
            let mut bits = u64::from_be_bytes([0, 0, 0, a, b, c, d, e]);
            for letter in out.iter_mut().rev() {
                *letter = ALPHABET.get((bits & 31) as usize).copied().unwrap_or(b'a');
                bits >>= 5;
            }
        }
        out
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.letters()).unwrap_or_default())
    }
}

/// Only the beginning: the whole is a credential and must not reach a log.
impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, ..] = self.0;
        write!(f, "ClientId({a:02x}{b:02x}{c:02x}…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_alphanumeric_and_come_back() {
        for _ in 0..100 {
            let id = ClientId::random().unwrap();
            let text = id.to_string();
            assert!(text.len() == 32 && text.bytes().all(|b| b.is_ascii_alphanumeric()), "{text}");
            assert_eq!(ClientId::parse(&text), Some(id));
        }
    }

    #[test]
    fn what_we_did_not_write_is_nobody() {
        for text in
            ["", "x", "constructor", &"a".repeat(31), &"a".repeat(33), &"A".repeat(32), &"1".repeat(32)]
        {
            assert_eq!(ClientId::parse(text), None, "{text}");
        }
        assert_eq!(ClientId::parse(&"é".repeat(16)), None);
    }
}

//! Keys: random secrets for backends and devices.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broker_core::RightsTemplate;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::Rate;

/// What every secret begins with, so that a scanner of repositories and logs knows one.
const PREFIX: &str = "fw_";
const SECRET_BYTES: usize = 32;

/// A key as it is configured. Its principal's user is the key's id.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Key {
    /// Its name: in listings, as `{user}`, and for a reload to find it.
    pub id: Arc<str>,
    /// The secret's hash.
    pub hash: KeyHash,
    /// What it may do.
    pub rights: RightsTemplate,
    /// Web pages that may use it, by their origin; `None`: those of [`Access::allowed_origins`](super::Access).
    pub origins: Option<Vec<String>>,
    /// How often all that use it may act together; `None`: no limit.
    pub rate: Option<Rate>,
}

impl Key {
    /// For pages of the usual origins, as often as one likes.
    pub fn new(id: impl Into<Arc<str>>, hash: KeyHash, rights: RightsTemplate) -> Self {
        Self { id: id.into(), hash, rights, origins: None, rate: None }
    }
}

/// SHA-256 of a key's secret, written `sha256:` and 64 hexadecimal digits.
///
/// A fast hash is right here, where it would be wrong for passwords: a secret is 256 random bits, so there is nothing
/// to guess that a slow hash would make slower, and each request may present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Of this secret.
    pub fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Compares without telling by its time how much was equal.
    pub(super) fn equals(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// Where to look: a part of the hash of what was presented tells nothing about a secret.
    pub(super) fn index(&self) -> u64 {
        self.0.iter().take(8).fold(0, |index, byte| (index << 8) | u64::from(*byte))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a key's hash was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not `sha256:` and 64 hexadecimal digits; `fanwire key new` makes one")]
pub struct KeyHashError;

impl FromStr for KeyHash {
    type Err = KeyHashError;

    fn from_str(text: &str) -> Result<Self, KeyHashError> {
        let digits = text.strip_prefix("sha256:").filter(|digits| digits.len() == 64).ok_or(KeyHashError)?;
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| KeyHashError)?;
            if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(KeyHashError);
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| KeyHashError)?;
        }
        Ok(Self(hash))
    }
}

/// A secret that was just made, and its hash for the configuration.
#[non_exhaustive]
pub struct NewKey {
    /// What the client gets: `fw_` and 32 random bytes in base64url. It cannot be had again.
    pub secret: String,
    /// What the configuration gets.
    pub hash: KeyHash,
}

impl NewKey {
    /// Draws a secret from the system's random numbers.
    ///
    /// # Errors
    /// The system gives none.
    pub fn generate() -> std::io::Result<Self> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes).map_err(std::io::Error::from)?;
        let mut secret = PREFIX.to_owned();
        // Writing to a string does not fail.
        let _ = secret.write_str(&URL_SAFE_NO_PAD.encode(bytes));
        let hash = KeyHash::of(secret.as_bytes());
        Ok(Self { secret, hash })
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("hash", &self.hash).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_as_it_was_written() {
        let new = NewKey::generate().unwrap();
        assert!(new.secret.starts_with(PREFIX) && new.secret.len() == 46, "{}", new.secret.len());
        assert_eq!(new.hash.to_string().parse(), Ok(new.hash));
        assert!(new.hash.equals(&KeyHash::of(new.secret.as_bytes())));
        assert!(!new.hash.equals(&KeyHash::of(b"")));
        assert!(!format!("{new:?}").contains(&new.secret));
        // As `printf %s abc | sha256sum` prints it.
        let known = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(KeyHash::of(b"abc").to_string(), known);
        let upper = known.to_uppercase().replace("SHA256", "sha256");
        assert_eq!(upper.parse(), Ok(KeyHash::of(b"abc")));
        for wrong in ["", "sha256:", "ba78", &known[7..], &known[..70], &known.replace('a', "+")] {
            assert_eq!(wrong.parse::<KeyHash>(), Err(KeyHashError), "{wrong}");
        }
    }
}

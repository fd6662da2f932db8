//! Standard Webhooks 1.0: `webhook-id`, `webhook-timestamp`, `webhook-signature`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// What stands before the key in a secret.
const PREFIX: &str = "whsec_";

/// A shared secret: 24 to 64 bytes, written `whsec_` and their base64. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Shortest key, in bytes.
    pub const MIN_BYTES: usize = 24;
    /// Longest key, in bytes.
    pub const MAX_BYTES: usize = 64;

    /// Reads `whsec_…`; white space around it does not count, as a file's last line has an end.
    ///
    /// # Errors
    /// [`SecretError`] says what is wrong, and nothing of the secret.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(SecretError::Prefix)?;
        let key = STANDARD.decode(encoded).map_err(|_| SecretError::Base64)?;
        if !(Self::MIN_BYTES..=Self::MAX_BYTES).contains(&key.len()) {
            return Err(SecretError::Length(key.len()));
        }
        Ok(Self(key))
    }

    /// `v1,` and the base64 of the HMAC-SHA256 over the id, the time and the body, with a full stop between them.
    fn signature(&self, id: &str, unix_secs: u64, body: &[u8]) -> Option<String> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(unix_secs.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a text is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// It does not begin as one.
    #[error("a secret begins with `{PREFIX}`")]
    Prefix,
    /// What follows is no base64.
    #[error("a secret is `{PREFIX}` and base64")]
    Base64,
    /// The key is too short or too long.
    #[error("a secret has {min} to {max} bytes, and this one has {0}", min = Secret::MIN_BYTES, max = Secret::MAX_BYTES)]
    Length(usize),
}

/// The secrets of one receiver: one, or several while they are replaced. Each signs, and the receiver accepts any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets(Vec<Secret>);

impl Secrets {
    /// These, in this order.
    pub fn new(secrets: impl IntoIterator<Item = Secret>) -> Self {
        Self(secrets.into_iter().collect())
    }

    /// The value of `webhook-signature` for one attempt: a signature of each secret, with spaces between them. Empty
    /// without a secret. `id` is the same on every attempt, `unix_secs` is the time of this one.
    pub fn sign(&self, id: &str, unix_secs: u64, body: &[u8]) -> String {
        let all: Vec<_> = self.0.iter().filter_map(|secret| secret.signature(id, unix_secs, body)).collect();
        all.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    #[test]
    fn a_known_message_has_its_known_signature() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let (id, time, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        let known = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(Secrets::new([secret.clone()]).sign(id, time, body), known);
        assert_ne!(Secrets::new([secret.clone()]).sign(id, time + 1, body), known);
        let other = Secret::parse(&format!("whsec_{}", STANDARD.encode([7; 32]))).unwrap();
        let both = Secrets::new([other, secret]).sign(id, time, body);
        assert_eq!(both.split(' ').count(), 2);
        assert!(both.ends_with(known));
    }

    #[test]
    fn what_is_no_secret_is_refused_without_showing_it() {
        let of = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        assert_eq!(Secret::parse("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), Err(SecretError::Prefix));
        assert_eq!(Secret::parse("whsec_not base64"), Err(SecretError::Base64));
        assert_eq!(Secret::parse(&of(23)), Err(SecretError::Length(23)));
        assert_eq!(Secret::parse(&of(65)), Err(SecretError::Length(65)));
        assert!(Secret::parse(&of(24)).is_ok() && Secret::parse(&format!(" {}\n", of(64))).is_ok());
        assert_eq!(format!("{:?}", Secret::parse(&of(24)).unwrap()), "Secret(…)");
    }
}

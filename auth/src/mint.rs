//! Making signed tokens: for tests, for devices that get theirs by hand, and for services in Rust.

use std::time::Duration;

use broker_core::{Action, Pattern, unix_ms};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde::Serialize;

use crate::issuer::Algorithm;
use crate::jwks::MIN_SECRET_BYTES;

/// What a token will say. Everything but the time is optional; an issuer may ask for `iss` and `aud`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct NewToken {
    /// Who issues it.
    pub iss: Option<String>,
    /// The user.
    pub sub: Option<String>,
    /// Whom it is for.
    pub aud: Vec<String>,
    /// Which of the issuer's keys signs.
    pub kid: Option<String>,
    /// How long it holds, from now on.
    pub lifetime: Duration,
    /// What it allows; empty: what the issuer's configuration says.
    pub rights: Vec<(Vec<Action>, Vec<Pattern>)>,
}

/// What a token is signed with.
pub struct SigningKey {
    algorithm: Algorithm,
    key: EncodingKey,
}

/// Why no token could be made.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct MintError(String);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A secret for HS256.
    ///
    /// # Errors
    /// It is shorter than 32 bytes (RFC 7518 §3.2).
    pub fn secret(secret: &[u8]) -> Result<Self, MintError> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err(MintError(format!("HS256 needs at least {MIN_SECRET_BYTES} bytes (RFC 7518 §3.2)")));
        }
        Ok(Self { algorithm: Algorithm::Hs256, key: EncodingKey::from_secret(secret) })
    }

    /// A private key in PEM form: RSA for RS256, a P-256 key (`PRIVATE KEY`) for ES256, an Ed25519 key for EdDSA.
    ///
    /// # Errors
    /// It is none of these.
    pub fn pem(pem: &[u8]) -> Result<Self, MintError> {
        let kinds = [
            (Algorithm::Rs256, EncodingKey::from_rsa_pem(pem)),
            (Algorithm::Es256, EncodingKey::from_ec_pem(pem)),
            (Algorithm::EdDsa, EncodingKey::from_ed_pem(pem)),
        ];
        let found = kinds.into_iter().find_map(|(algorithm, key)| Some(Self { algorithm, key: key.ok()? }));
        found.ok_or_else(|| MintError("not a PEM private key for RS256, ES256 or EdDSA".to_owned()))
    }

    /// The algorithm that its tokens name.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    aud: &'a [String],
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rights: Vec<Rule<'a>>,
}

#[derive(Serialize)]
struct Rule<'a> {
    actions: Vec<&'static str>,
    channels: Vec<&'a str>,
}

impl NewToken {
    /// The signed token.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn sign(&self, key: &SigningKey) -> Result<String, MintError> {
        // As in checking: the backend is ours, whatever another crate has switched on.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let now = unix_ms() / 1000;
        let claims = Claims {
            iss: self.iss.as_deref(),
            sub: self.sub.as_deref(),
            aud: &self.aud,
            iat: now,
            exp: now.saturating_add(self.lifetime.as_secs()),
            rights: self
                .rights
                .iter()
                .map(|(actions, channels)| Rule {
                    actions: actions.iter().map(|action| action.name()).collect(),
                    channels: channels.iter().map(Pattern::as_str).collect(),
                })
                .collect(),
        };
        let mut header = Header::new(key.algorithm.checked());
        header.kid.clone_from(&self.kid);
        encode(&header, &claims, &key.key).map_err(|error| MintError(error.to_string()))
    }
}

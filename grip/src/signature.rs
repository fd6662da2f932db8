//! Signatures: `Grip-Sig` on what an origin is asked, and tokens by which it publishes. Both are JSON Web Tokens with an
//! issuer and an end (RFC 7519).

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};

use crate::key::Key;

/// The longest that a signature of ours holds.
pub const MAX_LIFE: Duration = Duration::from_secs(3600);
/// Longest token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// How far the clocks of two machines may be apart.
const LEEWAY_SECS: u64 = 5;

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    exp: u64,
}

#[derive(Deserialize)]
struct Claimed {
    iss: Option<String>,
    exp: Option<f64>,
}

/// A key that is none for its purpose.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(&'static str);

/// Why somebody is not who the token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It is no token, or one of another kind.
    #[error("it is not a token that is taken here")]
    NoToken,
    /// Nobody with this key has signed it.
    #[error("its signature does not match")]
    Signature,
    /// Somebody else issues it.
    #[error("another issuer is meant")]
    Issuer,
    /// It has no end.
    #[error("it has no `exp`")]
    NoEnd,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
}

/// Signs.
pub struct Signer {
    iss: String,
    algorithm: Algorithm,
    key: EncodingKey,
}

/// Checks what others have signed.
pub struct Verifier {
    iss: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("iss", &self.iss)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier")
            .field("iss", &self.iss)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

fn install() {
    // Somebody else's crate may have switched another backend on; ours stays the one that is used.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}

impl Signer {
    /// In the name of `iss`: a secret signs with HS256, a private key in PEM form with ES256 (P-256) or RS256. That may be
    /// PKCS #8, or as `openssl ecparam -genkey` and `openssl genrsa` write it.
    ///
    /// # Errors
    /// The PEM form is of no such private key.
    pub fn new(iss: &str, key: &Key) -> Result<Self, KeyError> {
        install();
        let (algorithm, key) = match key {
            Key::Secret(secret) => (Algorithm::HS256, EncodingKey::from_secret(secret)),
            Key::Pem(pem) => {
                let kinds = [
                    (Algorithm::ES256, EncodingKey::from_ec_pem(pem.as_bytes()).ok()),
                    (Algorithm::ES256, of_curve_alone(pem).map(|der| EncodingKey::from_ec_der(&der))),
                    (Algorithm::RS256, EncodingKey::from_rsa_pem(pem.as_bytes()).ok()),
                ];
                let found = kinds.into_iter().find_map(|(algorithm, key)| Some((algorithm, key?)));
                found.ok_or(KeyError("not a private key in PEM form for ES256 or RS256"))?
            }
        };
        let signer = Self { iss: iss.to_owned(), algorithm, key };
        // A key of another curve is read and cannot sign.
        signer.sign(0, MAX_LIFE).ok_or(KeyError("the private key cannot sign for ES256 or RS256"))?;
        Ok(signer)
    }

    /// A token that holds from `now`, in seconds since 1970, for `life` or [`MAX_LIFE`]; `None` if the key does not sign,
    /// which [`Signer::new`] has tried.
    pub fn sign(&self, now: u64, life: Duration) -> Option<String> {
        let exp = now.saturating_add(life.min(MAX_LIFE).as_secs());
        encode(&Header::new(self.algorithm), &Claims { iss: &self.iss, exp }, &self.key).ok()
    }
}

/// A private key of P-256 that says nothing but itself (RFC 5915, `EC PRIVATE KEY`) in what the library reads, PKCS #8;
/// `None` if the text has none, or one that is encrypted. What stands before it, the curve's name usually, is passed over.
fn of_curve_alone(pem: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    // Version 0; an elliptic curve's key (1.2.840.10045.2.1), of prime256v1 (1.2.840.10045.3.1.7).
    const BEFORE: &[u8] = &[
        0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
        0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
    ];
    let (_, text) = pem.split_once("-----BEGIN EC PRIVATE KEY-----")?;
    let (text, _) = text.split_once("-----END EC PRIVATE KEY-----")?;
    let text: String = text.split_whitespace().collect();
    let key = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    let whole = [BEFORE, &tagged(0x04, &key)?].concat();
    tagged(0x30, &whole)
}

/// An element of DER. `None`: it is longer than any key.
fn tagged(tag: u8, content: &[u8]) -> Option<Vec<u8>> {
    let [high, low] = u16::try_from(content.len()).ok()?.to_be_bytes();
    let head: &[u8] = match (high, low) {
        (0, ..0x80) => &[tag, low],
        (0, _) => &[tag, 0x81, low],
        _ => &[tag, 0x82, high, low],
    };
    Some([head, content].concat())
}

impl Verifier {
    /// Of tokens that `iss` issues, or anybody who has the key: a secret for HS256, a public key in PEM form for ES256 or
    /// RS256.
    ///
    /// # Errors
    /// The PEM form is of no such public key.
    pub fn new(iss: Option<&str>, key: &Key) -> Result<Self, KeyError> {
        install();
        let (algorithm, key) = match key {
            Key::Secret(secret) => (Algorithm::HS256, DecodingKey::from_secret(secret)),
            Key::Pem(pem) => {
                let kinds = [
                    (Algorithm::ES256, DecodingKey::from_ec_pem(pem.as_bytes())),
                    (Algorithm::RS256, DecodingKey::from_rsa_pem(pem.as_bytes())),
                ];
                let found = kinds.into_iter().find_map(|(algorithm, key)| Some((algorithm, key.ok()?)));
                found.ok_or(KeyError("not a public key in PEM form for ES256 or RS256"))?
            }
        };
        Ok(Self { iss: iss.map(str::to_owned), algorithm, key })
    }

    /// Whose tokens these are.
    pub fn iss(&self) -> Option<&str> {
        self.iss.as_deref()
    }

    /// Whether the token is signed by this key, by its algorithm and no other, for this issuer, and holds at `now`, in
    /// seconds since 1970, or a few seconds before. Its end, in the same seconds.
    ///
    /// # Errors
    /// [`Refused`]; nothing of the token is believed then.
    pub fn verify(&self, token: &str, now: u64) -> Result<u64, Refused> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Refused::NoToken);
        }
        let header = decode_header(token).map_err(|_| Refused::NoToken)?;
        if header.alg != self.algorithm || header.crit.is_some_and(|crit| !crit.is_empty()) {
            return Err(Refused::NoToken);
        }
        let mut validation = Validation::new(self.algorithm);
        validation.required_spec_claims.clear();
        // By the time that is given, below.
        validation.validate_exp = false;
        validation.validate_aud = false;
        let claims =
            decode::<Claimed>(token, &self.key, &validation).map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::InvalidSignature => Refused::Signature,
                _ => Refused::NoToken,
            })?;
        let claims = claims.claims;
        if self.iss.is_some() && claims.iss != self.iss {
            return Err(Refused::Issuer);
        }
        let exp = claims.exp.ok_or(Refused::NoEnd)?;
        let end = (exp.max(0.0) as u64).saturating_add(LEEWAY_SECS);
        if end <= now { Err(Refused::Expired) } else { Ok(end) }
    }
}

/// The issuer that a token names, to find out whose key to try; nothing of it is to be believed.
pub fn claimed_issuer(token: &str) -> Option<String> {
    use base64::Engine as _;
    let claims = token.split('.').nth(1).filter(|_| token.len() <= MAX_TOKEN_BYTES)?;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).ok()?;
    serde_json::from_slice::<Claimed>(&claims).ok()?.iss
}

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;

    use super::*;

    const NOW: u64 = 1_800_000_000;
    /// `{"iss":"app","exp":1800003600}`, signed by another library with the secret `changeme`.
    const SIGNED: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJhcHAiLCJleHAiOjE4MDAwMDM2MDB9.fnDJ70_3PeLuIJ-tQR2QFunFfQiq1IcB5cCQYmUk6hk";

    fn secret() -> Key {
        Key::parse("changeme").unwrap()
    }

    #[test]
    fn a_signature_is_what_others_would_have_made() {
        let signer = Signer::new("app", &secret()).unwrap();
        assert_eq!(signer.sign(NOW, Duration::from_secs(7200)).unwrap(), SIGNED, "an hour and no more");
    }

    #[test]
    fn a_token_holds_until_its_end() {
        let verifier = Verifier::new(Some("app"), &secret()).unwrap();
        assert_eq!(verifier.verify(SIGNED, NOW), Ok(NOW + 3605));
        assert_eq!(verifier.verify(SIGNED, NOW + 3604), Ok(NOW + 3605));
        assert_eq!(verifier.verify(SIGNED, NOW + 3605), Err(Refused::Expired));
        assert_eq!(Verifier::new(None, &secret()).unwrap().verify(SIGNED, NOW), Ok(NOW + 3605));
    }

    #[test]
    fn what_is_not_signed_by_the_key_for_the_issuer_is_refused() {
        let verifier = Verifier::new(Some("app"), &secret()).unwrap();
        let foreign = Verifier::new(Some("app"), &Key::parse("another").unwrap()).unwrap();
        assert_eq!(foreign.verify(SIGNED, NOW), Err(Refused::Signature));
        let other = Verifier::new(Some("other"), &secret()).unwrap();
        assert_eq!(other.verify(SIGNED, NOW), Err(Refused::Issuer));
        let none = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJhcHAiLCJleHAiOjE4MDAwMDM2MDB9.";
        assert_eq!(verifier.verify(none, NOW), Err(Refused::NoToken));
        let endless = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJhcHAifQ.Mb2luAj_mS8L6MWoQw91bZvJgOFmaibFgyHwRXjFPMU";
        assert_eq!(verifier.verify(endless, NOW), Err(Refused::NoEnd));
        let critical = "eyJhbGciOiJIUzI1NiIsImNyaXQiOlsieCJdLCJ4IjoxfQ.eyJpc3MiOiJhcHAiLCJleHAiOjE4MDAwMDM2MDB9.rSeIfvgsVYb4BBbhxG9uDLbNoC_6oK-N3SxeZHv3yCA";
        assert_eq!(verifier.verify(critical, NOW), Err(Refused::NoToken));
        for text in ["", "a.b.c", &SIGNED[1..], &"a".repeat(20_000)] {
            assert_eq!(verifier.verify(text, NOW), Err(Refused::NoToken), "{text}");
        }
        assert_eq!(claimed_issuer(SIGNED).as_deref(), Some("app"));
        assert_eq!(claimed_issuer("a.b.c"), None);
    }

    #[test]
    fn private_keys_sign_and_public_keys_verify() {
        for (kind, name) in [(&rcgen::PKCS_ECDSA_P256_SHA256, "ES256"), (&rcgen::PKCS_RSA_SHA256, "RS256")] {
            let pair = KeyPair::generate_for(kind).unwrap();
            let signer = Signer::new("fanwire", &Key::parse(&pair.serialize_pem()).unwrap()).unwrap();
            assert_eq!(format!("{:?}", signer.algorithm), name);
            let token = signer.sign(NOW, Duration::from_secs(60)).unwrap();
            let public = Key::parse(&pair.public_key_pem()).unwrap();
            let verifier = Verifier::new(Some("fanwire"), &public).unwrap();
            assert_eq!(verifier.verify(&token, NOW), Ok(NOW + 65));
            // A public key is no secret to sign with.
            let Key::Pem(text) = &public else { unreachable!() };
            let forged = Signer::new("fanwire", &Key::Secret(text.clone().into_bytes())).unwrap();
            let forged = forged.sign(NOW, Duration::from_secs(60)).unwrap();
            assert_eq!(verifier.verify(&forged, NOW), Err(Refused::NoToken));
            assert!(Signer::new("fanwire", &public).is_err());
        }
        let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        assert!(Signer::new("x", &Key::Pem(other.serialize_pem())).is_err(), "another curve");
        assert!(Signer::new("x", &Key::Pem("-----BEGIN X-----".into())).is_err());
    }

    /// As `openssl ecparam -genkey -name prime256v1` writes it, and its public key by `openssl ec -pubout`.
    const OF_OPENSSL: &str = "-----BEGIN EC PARAMETERS-----
BggqhkjOPQMBBw==
-----END EC PARAMETERS-----
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIGYG0IFJwiq6vuGJ8y4UsERvaTv71EpZT4PHULZgILJEoAoGCCqGSM49
AwEHoUQDQgAE36Njf2sk3vHhk8PB8uEpVocqT6gzBDbqmjTSUkHgcCHllRh079lf
JRtcSYnEa2YbOO581Va67tX39/tnaWJOuw==
-----END EC PRIVATE KEY-----\n";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE36Njf2sk3vHhk8PB8uEpVocqT6gz
BDbqmjTSUkHgcCHllRh079lfJRtcSYnEa2YbOO581Va67tX39/tnaWJOuw==
-----END PUBLIC KEY-----\n";

    #[test]
    fn a_private_key_as_openssl_writes_it_signs() {
        let (_, alone) = OF_OPENSSL.split_once("-----END EC PARAMETERS-----").unwrap();
        let verifier = Verifier::new(None, &Key::parse(PUBLIC).unwrap()).unwrap();
        for text in [OF_OPENSSL, alone, &OF_OPENSSL.replace('\n', "\r\n")] {
            let signer = Signer::new("fanwire", &Key::parse(text).unwrap()).unwrap();
            let token = signer.sign(NOW, Duration::from_secs(60)).unwrap();
            assert_eq!(verifier.verify(&token, NOW), Ok(NOW + 65));
        }
        let encrypted = OF_OPENSSL.replace("MHcC", "Proc-Type: 4,ENCRYPTED\n\nMHcC");
        for text in
            [&encrypted, &OF_OPENSSL.replace("MHcC", "MHcD"), &OF_OPENSSL.replace("-----END EC PRIVATE", "")]
        {
            assert!(Signer::new("x", &Key::parse(text).unwrap()).is_err(), "{text}");
        }
    }
}

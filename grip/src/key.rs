//! Keys as they are written in configurations and in the address `GRIP_URL`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

use crate::error::{Malformed, Problem};

/// Most bytes of a key as it is written.
const MAX_KEY_BYTES: usize = 16 << 10;

/// What signatures are made with, or checked with.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Key {
    /// A secret that both sides know, for HS256.
    Secret(Vec<u8>),
    /// A key in PEM form, for ES256 or RS256.
    Pem(String),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret(…)",
            Self::Pem(_) => "Pem(…)",
        })
    }
}

impl Key {
    /// `base64:…` is a secret in base64, a text that begins as PEM does is that, and anything else is a secret as it
    /// stands there.
    ///
    /// # Errors
    /// It is empty or too long, or what follows `base64:` is not base64.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if text.len() > MAX_KEY_BYTES {
            return Err(Problem::TooLong(MAX_KEY_BYTES));
        }
        let secret = match text.strip_prefix("base64:") {
            Some(encoded) => STANDARD.decode(encoded.trim()).map_err(|_| Problem::Base64)?,
            None if text.trim_start().starts_with("-----BEGIN ") => {
                return Ok(Self::Pem(text.trim().to_owned()));
            }
            None => text.as_bytes().to_vec(),
        };
        if secret.is_empty() { Err(Problem::Empty) } else { Ok(Self::Secret(secret)) }
    }

    /// The secret, or the text in PEM form.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Secret(secret) => secret,
            Self::Pem(text) => text.as_bytes(),
        }
    }
}

/// Where and by what key to publish, in one text: `https://host/path?iss=app&key=base64:…&verify-iss=…&verify-key=…`,
/// which libraries read from `GRIP_URL`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GripUrl {
    /// The address without what follows, and without a slash at its end; libraries add `/publish/`.
    pub control_uri: String,
    /// Who signs requests to publish.
    pub iss: Option<String>,
    /// What they are signed with; without `iss` it is sent as it is.
    pub key: Option<Key>,
    /// Who signs requests to the origin.
    pub verify_iss: Option<String>,
    /// What those are checked with.
    pub verify_key: Option<Key>,
}

impl GripUrl {
    /// Reads one.
    ///
    /// # Errors
    /// It is not an address of `http` or `https`, or a key in it is none.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let (base, query) = text.trim().split_once('?').unwrap_or((text.trim(), ""));
        let rest = base.strip_prefix("http://").or_else(|| base.strip_prefix("https://"));
        if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')) {
            return Err(Malformed::new("GRIP_URL", Problem::Link(crate::json::shortened(base))));
        }
        let control_uri = base.trim_end_matches('/').to_owned();
        let mut url = Self { control_uri, iss: None, key: None, verify_iss: None, verify_key: None };
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            // Not as a form: base64 in it has `+` of its own, which some do not escape.
            let value = percent_decode_str(value).decode_utf8();
            let value = value.map_err(|_| Malformed::new(name.to_owned(), Problem::Utf8))?;
            let key = || Key::parse(&value).map_err(|problem| Malformed::new(name.to_owned(), problem));
            match name {
                "iss" => url.iss = Some(value.into_owned()),
                "key" => url.key = Some(key()?),
                "verify-iss" => url.verify_iss = Some(value.into_owned()),
                "verify-key" => url.verify_key = Some(key()?),
                _ => {}
            }
        }
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_in_three_ways() {
        assert_eq!(Key::parse("base64:aGk+"), Ok(Key::Secret(b"hi>".to_vec())));
        assert_eq!(Key::parse("changeme"), Ok(Key::Secret(b"changeme".to_vec())));
        let pem = "-----BEGIN PUBLIC KEY-----\nAA\n-----END PUBLIC KEY-----";
        assert_eq!(Key::parse(&format!("\n{pem}\n")), Ok(Key::Pem(pem.to_owned())));
        assert_eq!(Key::parse(""), Err(Problem::Empty));
        assert_eq!(Key::parse("base64:"), Err(Problem::Empty));
        assert_eq!(Key::parse("base64:?"), Err(Problem::Base64));
        assert_eq!(Key::parse(&"a".repeat(16385)), Err(Problem::TooLong(16384)));
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Key::parse("changeme").unwrap()), "Secret(…)");
    }

    #[test]
    fn an_address_has_a_key_in_it() {
        let url = GripUrl::parse(
            "http://localhost:5561/grip/?iss=app&key=base64:aGk%2b&verify-iss=fanwire&verify-key=base64:aGk+",
        );
        let url = url.unwrap();
        assert_eq!(url.control_uri, "http://localhost:5561/grip");
        assert_eq!(url.iss.as_deref(), Some("app"));
        assert_eq!(url.key, Some(Key::Secret(b"hi>".to_vec())));
        assert_eq!((url.verify_iss.as_deref(), url.verify_key), (Some("fanwire"), url.key));
        assert_eq!(GripUrl::parse("https://h?key=TOKEN").unwrap().control_uri, "https://h");
        for (text, why) in [
            ("ftp://h", r#"GRIP_URL: "ftp://h" is not a link"#),
            ("http:///x", r#"GRIP_URL: "http:///x" is not a link"#),
            ("http://h?key=base64:?", "key: is not base64"),
            ("http://h?iss=%ff", "iss: is not UTF-8"),
        ] {
            assert_eq!(GripUrl::parse(text).unwrap_err().to_string(), why);
        }
    }
}

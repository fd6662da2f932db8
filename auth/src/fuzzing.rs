//! What the fuzzer of `fuzz/` calls. Its corpus runs as an ordinary test as well, so that what a fuzzer has found once
//! is looked at on every run.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broker_core::{Authenticator as _, Credentials, RightsTemplate, unix_ms};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::{Access, Algorithm, BuiltIn, Issuer, Key, KeyHash, KeySource};

const SECRET: &[u8; 32] = b"a secret of thirty-two bytes....";
const KEY: &str = "a key that a backend has";

/// A token as it came; claims that its issuer has signed; a set of keys. Nobody is let in whose token was not signed,
/// or whose time is over, and whoever is has the name that was signed.
pub fn tokens(bytes: &[u8]) {
    let _ = crate::jwks::any_keys(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(user) = let_in(text) {
        let signed = text
            .rsplit_once('.')
            .filter(|(of, signature)| URL_SAFE_NO_PAD.encode(hmac(of.as_bytes())) == *signature);
        assert!(text == KEY || signed.is_some(), "{user:?} by {text}");
    }
    for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"none"}"#, r#"{"alg":"HS256","kid":"a","typ":"at+jwt"}"#] {
        let of = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(bytes));
        let token = format!("{of}.{}", URL_SAFE_NO_PAD.encode(hmac(of.as_bytes())));
        let Some(user) = let_in(&token) else { continue };
        assert!(header.contains("HS256"));
        let claims: Map<String, Value> = serde_json::from_slice(bytes).expect("they were read");
        let sub = claims.get("sub").and_then(Value::as_str).filter(|sub| !sub.is_empty());
        assert_eq!(user.as_deref(), sub);
        let now = unix_ms() as f64 / 1000.0;
        let number = |name: &str| claims.get(name).and_then(Value::as_f64);
        // Ours may be five seconds behind its own.
        assert!(number("exp").expect("it must be there") > now - 10.0);
        assert!(number("nbf").is_none_or(|nbf| nbf < now + 10.0));
        // Any other signature is none.
        let broken = format!("{of}.{}", URL_SAFE_NO_PAD.encode(hmac(b"something else")));
        assert!(let_in(&broken).is_none());
    }
}

/// Who somebody with this token is, if anybody; `None` in it where nobody is named.
fn let_in(token: &str) -> Option<Option<String>> {
    static ANSWERS: OnceLock<BuiltIn> = OnceLock::new();
    let answers = ANSWERS.get_or_init(|| {
        let keys = KeySource::Secret(SECRET.to_vec());
        let issuer = Issuer { algorithms: vec![Algorithm::Hs256], keys, ..Issuer::default() };
        let key = Key {
            id: "backend".into(),
            hash: KeyHash::of(KEY.as_bytes()),
            rights: RightsTemplate::default(),
            origins: None,
            rate: None,
        };
        let access = Access { issuers: vec![issuer], keys: vec![key], ..Access::default() };
        BuiltIn::with(access).expect("nothing is wrong with it")
    });
    let mut credentials = Credentials::default();
    credentials.token = Some(token);
    let asked = std::pin::pin!(answers.authenticate(credentials));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match Future::poll(asked, &mut context) {
        std::task::Poll::Ready(answer) => answer.ok().map(|principal| principal.user().map(str::to_owned)),
        std::task::Poll::Pending => panic!("nobody else is asked"),
    }
}

/// RFC 2104.
fn hmac(text: &[u8]) -> [u8; 32] {
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(SECRET).for_each(|(place, secret)| *place ^= secret);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    #[test]
    fn a_signed_token_is_let_in_and_the_paper_is_right() {
        let claims = r#"{"sub":"ann","exp":99999999999}"#;
        let of = format!(
            "{}.{}",
            super::URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#),
            super::URL_SAFE_NO_PAD.encode(claims)
        );
        let token = format!("{of}.{}", super::URL_SAFE_NO_PAD.encode(super::hmac(of.as_bytes())));
        assert_eq!(super::let_in(&token), Some(Some("ann".to_owned())));
        assert_eq!(super::let_in(super::KEY), Some(Some("backend".to_owned())));
        assert_eq!(super::let_in("another"), None);
    }

    #[test]
    fn the_corpus_of_tokens_holds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/auth_tokens");
        let mut files: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 5, "{folder}");
        for file in files {
            println!("{}", file.display());
            super::tokens(&std::fs::read(&file).unwrap());
        }
    }
}

//! Signs requests of our own, as SDKs do.

use std::fmt;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Request};
use sha2::{Digest as _, Sha256};

use super::authorization::{ALGORITHM, TERMINATOR};
use super::canonical::{canonical_path, canonical_request, normalized_path};
use super::time;
use super::verify::{hex, hmac, signing_key};
use crate::config::Key;

const DATE: HeaderName = HeaderName::from_static("x-amz-date");

/// What is signed: whom the request is for and when it was made. The hash of the body is signed with them.
const SIGNED: &str = "host;x-amz-date";

/// Signs requests with one key, for one region.
#[derive(Clone)]
pub struct Signer {
    region: String,
    access_key: String,
    secret: Box<[u8]>,
}

impl Signer {
    /// For `region`, with this key.
    pub fn new(region: impl Into<String>, key: &Key) -> Self {
        Self {
            region: region.into(),
            access_key: key.access_key.clone(),
            secret: key.secret.as_bytes().into(),
        }
    }

    /// Adds `x-amz-date` and `Authorization` to a request for `service`, with a whole URL, whose host is sent as it stands
    /// there. `now` is in seconds since 1970. Whatever is changed of its method, URL or body later spoils it.
    pub fn sign(&self, service: &str, request: &mut Request<Bytes>, now: i64) {
        let date = time::written(now);
        let day = date.get(..8).unwrap_or_default();
        let Ok(value) = HeaderValue::from_str(&date) else { return };
        request.headers_mut().insert(DATE, value);
        let body_hash = hex(&Sha256::digest(request.body()));
        let (parts, body) = std::mem::take(request).into_parts();
        let path = canonical_path(&normalized_path(parts.uri.path()));
        let canonical = canonical_request(&parts, &path, SIGNED, &body_hash);
        *request = Request::from_parts(parts, body);
        // Without a host it cannot be sent either.
        let Ok(canonical) = canonical else { return };
        let Self { region, access_key, secret } = self;
        let scope = format!("{day}/{region}/{service}/{TERMINATOR}");
        let to_sign = format!("{ALGORITHM}\n{date}\n{scope}\n{}", hex(&Sha256::digest(&canonical)));
        let signature = hex(&hmac(&signing_key(secret, day, region, service), to_sign.as_bytes()));
        let value = format!(
            "{ALGORITHM} Credential={access_key}/{scope}, SignedHeaders={SIGNED}, Signature={signature}"
        );
        if let Ok(mut value) = HeaderValue::from_str(&value) {
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sigv4::Verifier;

    #[test]
    fn what_is_signed_here_is_verified_there_and_nothing_else() {
        let key = Key::new("AKIDFANWIRECHECK", "not-a-secret/+=");
        let (signer, now) = (Signer::new("us-east-1", &key), 1_795_989_300);
        let verifier = Verifier::new("us-east-1", Duration::from_secs(300), &[key]);
        for url in [
            "http://127.0.0.1:9000/2015-03-31/functions/chat/invocations",
            "https://lambda.us-east-1.amazonaws.com/2015-03-31/functions/arn%3Aaws%3Alambda/invocations?b=2&a=1",
            "https://a.example",
        ] {
            let mut request = Request::post(url).body(Bytes::from_static(b"{}")).unwrap();
            signer.sign("lambda", &mut request, now);
            assert_eq!(request.headers()["x-amz-date"], "20261129T215500Z");
            let (parts, body) = request.into_parts();
            let verified = |body: &[u8], at| verifier.verify("lambda", &parts, body, at).is_ok();
            assert!(verified(&body, now), "{url}");
            assert!(!verified(b"[]", now) && !verified(&body, now + 301), "{url}");
            assert!(verifier.verify("execute-api", &parts, &body, now).is_err());
        }
        assert!(!format!("{signer:?}").contains("not-a-secret"));
    }
}

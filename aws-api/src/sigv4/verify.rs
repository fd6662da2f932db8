//! Whose signature a request bears.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use broker_core::Principal;
use hmac::{Hmac, Mac as _};
use http::HeaderName;
use http::header::AUTHORIZATION;
use http::request::Parts;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::authorization::{ALGORITHM, Authorization, TERMINATOR};
use super::canonical::{canonical_path, canonical_request, normalized_path};
use super::time;
use crate::config::Key;
use crate::error::AwsError;

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const BODY_HASH: HeaderName = HeaderName::from_static("x-amz-content-sha256");

/// The largest header that is looked into, in bytes; SDKs need below a thousand.
const MAX_AUTHORIZATION_BYTES: usize = 8 * 1024;

/// Verifies requests for one region.
pub struct Verifier {
    region: String,
    skew: Duration,
    keys: HashMap<Box<str>, Arc<AccessKey>>,
    /// What is signed with for an unknown key, so that it takes as long as a known one.
    decoy: Box<[u8]>,
}

/// A key that requests are signed with.
pub struct AccessKey {
    secret: Box<[u8]>,
    principal: Principal,
    gateways: Vec<String>,
}

impl AccessKey {
    fn of(key: &Key) -> Self {
        let rights = key.rights.for_user(Some(&key.access_key));
        Self {
            secret: key.secret.as_bytes().into(),
            principal: Principal::new(Some(&key.access_key), Arc::new(rights)),
            gateways: key.gateways.clone(),
        }
    }

    /// As whom it acts: the user is the key's id.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Whether it may use the `@connections` of the gateway with this name.
    pub fn may_use_gateway(&self, name: &str) -> bool {
        self.gateways.iter().any(|allowed| allowed == "*" || allowed == name)
    }
}

impl Verifier {
    /// Of requests for `region` by these keys, whose clocks may differ from ours by `skew`.
    pub fn new(region: impl Into<String>, skew: Duration, keys: &[Key]) -> Self {
        let keys =
            keys.iter().map(|key| (key.access_key.clone().into(), Arc::new(AccessKey::of(key)))).collect();
        let decoy = (0..40).map(|_| fastrand::u8(..)).collect();
        Self { region: region.into(), skew, keys, decoy }
    }

    /// The key that a request names, whoever has signed it: where signatures are not looked at.
    pub fn named(&self, parts: &Parts) -> Option<&Arc<AccessKey>> {
        let value = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
        self.keys.get(Authorization::parse(value).ok()?.access_key)
    }

    /// Reads what is said of the signature, before the body is there.
    ///
    /// # Errors
    /// `MissingAuthenticationTokenException`, `IncompleteSignatureException`.
    pub fn read<'p>(&self, parts: &'p Parts) -> Result<Authorization<'p>, AwsError> {
        let mut values = parts.headers.get_all(AUTHORIZATION).iter();
        let value = match (values.next(), values.next()) {
            (Some(value), None) => value,
            (None, _) => {
                return Err(AwsError::not_signed("the request is not signed in its header Authorization"));
            }
            _ => return Err(AwsError::incomplete_signature("Authorization stands there twice")),
        };
        let value = value.to_str().ok().filter(|value| value.len() <= MAX_AUTHORIZATION_BYTES);
        Authorization::parse(
            value.ok_or_else(|| AwsError::incomplete_signature("Authorization is not ASCII, or too long"))?,
        )
    }

    /// Whose request it is, signed for `service`, with its whole body. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// As [`read`](Self::read); `UnrecognizedClientException`, `InvalidSignatureException`.
    pub fn verify(
        &self,
        service: &str,
        parts: &Parts,
        body: &[u8],
        now: i64,
    ) -> Result<Arc<AccessKey>, AwsError> {
        let authorization = self.read(parts)?;
        let date = parts.headers.get(DATE).and_then(|date| date.to_str().ok()).and_then(|date| {
            // Bytes that are no such time are no ASCII digits either, so the cut is between characters.
            time::parse(date).map(|time| (date, time))
        });
        let (date, time) =
            date.ok_or_else(|| AwsError::incomplete_signature("x-amz-date is needed, as 20261129T215500Z"))?;
        let known = self.keys.get(authorization.access_key);
        let secret = known.map_or(&self.decoy, |key| &key.secret);
        let is_signed = self.is_signed(secret, &authorization, parts, date, body);
        let refuse = |message: String| Err(AwsError::wrong_signature(message));
        let Some(known) = known else {
            return Err(AwsError::unknown_key("the access key of the request is not known here"));
        };
        if !date.starts_with(authorization.day) || authorization.day.len() != 8 {
            return refuse("the day in Credential is not that of x-amz-date".to_owned());
        }
        if authorization.region != self.region || authorization.service != service {
            let region = &self.region;
            return refuse(format!(
                "Credential should be scoped to region {region:?} and service {service:?}"
            ));
        }
        if now.abs_diff(time) > self.skew.as_secs() {
            return refuse(format!(
                "x-amz-date is further from this server's time than {} s",
                self.skew.as_secs()
            ));
        }
        if is_signed? {
            return Ok(Arc::clone(known));
        }
        refuse("the signature does not match that of the request as it came here".to_owned())
    }

    fn is_signed(
        &self,
        secret: &[u8],
        authorization: &Authorization<'_>,
        parts: &Parts,
        date: &str,
        body: &[u8],
    ) -> Result<bool, AwsError> {
        if !authorization.signed_headers.split(';').any(|name| name == "host") {
            return Err(AwsError::wrong_signature("`host` has to be among the signed header fields"));
        }
        let body_hash = hex(&Sha256::digest(body));
        if let Some(said) = parts.headers.get(BODY_HASH)
            && said.as_bytes() != body_hash.as_bytes()
        {
            let message =
                "x-amz-content-sha256 is not the hash of the body; unsigned and chunked ones are not taken";
            return Err(AwsError::wrong_signature(message));
        }
        let Authorization { day, region, service, signed_headers, signature, .. } = authorization;
        let scope = format!("{day}/{region}/{service}/{TERMINATOR}");
        let key = signing_key(secret, day, region, service);
        let path = parts.uri.path();
        let normalized = normalized_path(path);
        let mut is_signed = false;
        // Who signs by hand leaves the path as it is.
        for path in [Some(&*normalized), (normalized != path).then_some(path)].into_iter().flatten() {
            let canonical = canonical_request(parts, &canonical_path(path), signed_headers, &body_hash)?;
            let to_sign = format!("{ALGORITHM}\n{date}\n{scope}\n{}", hex(&Sha256::digest(&canonical)));
            is_signed |= bool::from(hmac(&key, to_sign.as_bytes()).ct_eq(signature));
        }
        Ok(is_signed)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("region", &self.region).field("keys", &self.keys.len()).finish()
    }
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey").field("principal", &self.principal).finish_non_exhaustive()
    }
}

/// A key for one day, region and service.
pub(super) fn signing_key(secret: &[u8], day: &str, region: &str, service: &str) -> [u8; 32] {
    let key = hmac(&[b"AWS4", secret].concat(), day.as_bytes());
    let key = hmac(&key, region.as_bytes());
    let key = hmac(&key, service.as_bytes());
    hmac(&key, TERMINATOR.as_bytes())
}

pub(super) fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(text);
    mac.finalize().into_bytes().into()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| DIGITS.get(usize::from(digit)).copied().map_or('0', char::from)).collect()
}

#[cfg(test)]
#[path = "vectors.rs"]
mod tests;

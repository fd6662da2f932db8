//! The keys of `[aws]`: requests to a gateway's `@connections` are signed with them, and those to its functions.

use aws_api::sigv4::{Signer, Verifier};
use broker_core::unix_ms;
use bytes::Bytes;
use gateway_aws::{Exception, Sign, Verify};
use http::request::Parts;
use http::{Request, StatusCode};

/// What requests to `@connections` are signed for.
const SERVICE: &str = "execute-api";

/// The keys of `[aws]`.
#[derive(Debug)]
pub(crate) struct Keys(Verifier);

impl Keys {
    pub(crate) fn new(aws: &aws_api::Config) -> Self {
        Self(Verifier::new(aws.region.clone(), aws.clock_skew, &aws.keys))
    }
}

impl Verify for Keys {
    fn verify(&self, parts: &Parts, body: &[u8], api: &str) -> Result<(), Exception> {
        let now = now();
        let key = self.0.verify(SERVICE, parts, body, now);
        let key = key.map_err(|error| Exception::new(error.status, error.kind, error.message))?;
        if key.may_use_gateway(api) {
            return Ok(());
        }
        let message = "the key may not use the connections of this API";
        Err(Exception::new(StatusCode::FORBIDDEN, "ForbiddenException", message))
    }
}

/// Signs requests to Lambda's Invoke API with one of the keys.
#[derive(Debug)]
pub(crate) struct Lambda(Signer);

impl Lambda {
    /// With this access key, if it is known.
    pub(crate) fn with(aws: &aws_api::Config, access_key: &str) -> Option<Self> {
        let key = aws.keys.iter().find(|key| key.access_key == access_key)?;
        Some(Self(Signer::new(aws.region.clone(), key)))
    }
}

impl Sign for Lambda {
    fn sign(&self, request: &mut Request<Bytes>) {
        self.0.sign("lambda", request, now());
    }
}

/// Seconds since 1970.
fn now() -> i64 {
    i64::try_from(unix_ms() / 1_000).unwrap_or(i64::MAX)
}

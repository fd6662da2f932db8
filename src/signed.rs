//! Requests to a gateway's `@connections` that are signed with the keys of `[aws]`.

use aws_api::sigv4::Verifier;
use broker_core::unix_ms;
use gateway_aws::{Exception, Verify};
use http::StatusCode;
use http::request::Parts;

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
        let now = i64::try_from(unix_ms() / 1_000).unwrap_or(i64::MAX);
        let key = self.0.verify(SERVICE, parts, body, now);
        let key = key.map_err(|error| Exception::new(error.status, error.kind, error.message))?;
        if key.may_use_gateway(api) {
            return Ok(());
        }
        let message = "the key may not use the connections of this API";
        Err(Exception::new(StatusCode::FORBIDDEN, "ForbiddenException", message))
    }
}

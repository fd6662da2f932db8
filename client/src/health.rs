//! `fanwire health`: whether a server lives, for whoever watches it with an exit code.

use std::time::Duration;

use bytes::Bytes;
use http::Method;

use crate::Health;
use crate::endpoint::Endpoint;
use crate::failure::Failure;

/// More would say nothing more.
const MAX_BYTES: usize = 4096;
/// Container engines ask again in seconds.
const LIMIT: Duration = Duration::from_secs(2);

pub(crate) async fn run(arguments: Health) -> Result<(), Failure> {
    let endpoint = Endpoint::new(&arguments.server)?;
    let path = if arguments.ready { "/readyz" } else { "/healthz" };
    let request = endpoint
        .request(Method::GET, path)
        .body(Bytes::new())
        .map_err(|error| Failure::Arguments(error.to_string()))?;
    let answer = endpoint
        .client
        .fetch(request, MAX_BYTES, LIMIT)
        .await
        .map_err(|error| endpoint.unreachable(&error))?;
    if answer.status().is_success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(answer.body()).trim().to_owned();
    Err(endpoint.foreign(format!("{}: {text}", answer.status())))
}

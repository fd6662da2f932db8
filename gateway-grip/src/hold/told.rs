//! The answer of an origin, as far as it instructs.

use std::time::Duration;

use bytes::Bytes;
use grip::instruct::{self, Instruction, MAX_DOCUMENT_BYTES, document, in_headers, is_document};
use http::{HeaderMap, StatusCode};

use crate::config::Route;
use crate::forward;

/// An answer that instructs.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) instruction: Instruction,
    /// What the client gets.
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Initial,
}

/// What the origin sends itself.
#[derive(Debug)]
pub(crate) enum Initial {
    Whole(Bytes),
    Streamed(outgoing::Body),
}

impl Initial {
    /// All of it.
    pub(crate) async fn collect(self, within: Duration) -> Result<Bytes, String> {
        match self {
            Self::Whole(bytes) => Ok(bytes),
            Self::Streamed(body) => {
                body.collect(MAX_DOCUMENT_BYTES, within).await.map_err(|error| error.to_string())
            }
        }
    }
}

/// Whether an answer says more than it is.
pub(crate) fn instructs(headers: &HeaderMap) -> bool {
    is_document(headers) || headers.keys().any(|name| name.as_str().starts_with("grip-"))
}

/// Reads what an answer instructs.
///
/// # Errors
/// What is wrong with it.
pub(crate) async fn read(route: &Route, answer: http::Response<outgoing::Body>) -> Result<Told, String> {
    let (head, body) = answer.into_parts();
    let (mut instruction, body) = if is_document(&head.headers) {
        let body =
            body.collect(MAX_DOCUMENT_BYTES, route.timeout).await.map_err(|error| error.to_string())?;
        let told = document(head.status.as_u16(), &head.headers, &body).map_err(|error| error.to_string())?;
        (told, None)
    } else {
        let told = in_headers(&head.headers).map_err(|error| error.to_string())?;
        (told.unwrap_or_default(), Some(body))
    };
    if instruction.hold.is_some() && instruction.channels.is_empty() {
        return Err("the client is to be held, and on no channel".to_owned());
    }
    let (mut headers, body) = match (instruction.response.take(), body) {
        (Some(response), _) => (response.headers, Initial::Whole(response.body)),
        (None, Some(body)) => (head.headers, Initial::Streamed(body)),
        (None, None) => (HeaderMap::new(), Initial::Whole(Bytes::new())),
    };
    instruct::strip(&mut headers);
    instruction.expose(&mut headers);
    let headers = forward::answer(&headers, route);
    Ok(Told { status: instruction.status.unwrap_or(head.status), instruction, headers, body })
}

//! The answer of an origin, as far as it instructs.

use std::time::Duration;

use bytes::Bytes;
use grip::instruct::{self, Instruction, MAX_DOCUMENT_BYTES, document, in_headers, is_document};
use http::{HeaderMap, StatusCode};

use crate::config::Route;
use crate::cors;
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

/// Reads what an answer to a request with the fields `asked` instructs.
///
/// # Errors
/// What is wrong with it.
pub(crate) async fn read(
    route: &Route,
    asked: &HeaderMap,
    answer: http::Response<outgoing::Body>,
) -> Result<Told, String> {
    let (head, body) = answer.into_parts();
    let body = if is_document(&head.headers) {
        let body = body.collect(MAX_DOCUMENT_BYTES, route.timeout).await;
        Initial::Whole(body.map_err(|error| error.to_string())?)
    } else {
        Initial::Streamed(body)
    };
    of(route, asked, head.status, head.headers, body)
}

/// The same of an answer whose body is there, if it is a document.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn of(
    route: &Route,
    asked: &HeaderMap,
    status: StatusCode,
    headers: HeaderMap,
    body: Initial,
) -> Result<Told, String> {
    let (mut instruction, body) = match body {
        Initial::Whole(body) if is_document(&headers) => {
            let told = document(status.as_u16(), &headers, &body).map_err(|error| error.to_string())?;
            (told, None)
        }
        body => {
            let told = in_headers(&headers).map_err(|error| error.to_string())?;
            (told.unwrap_or_default(), Some(body))
        }
    };
    if instruction.hold.is_some() && instruction.channels.is_empty() {
        return Err("the client is to be held, and on no channel".to_owned());
    }
    let (mut headers, body) = match (instruction.response.take(), body) {
        (Some(response), _) => (response.headers, Initial::Whole(response.body)),
        (None, Some(body)) => (headers, body),
        (None, None) => (HeaderMap::new(), Initial::Whole(Bytes::new())),
    };
    instruct::strip(&mut headers);
    instruction.expose(&mut headers);
    let mut headers = forward::answer(&headers, route);
    cors::allow(route, asked, &mut headers);
    Ok(Told { status: instruction.status.unwrap_or(status), instruction, headers, body })
}

//! Whose request it is, who signs our own, and errors as SDKs of AWS look for them.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{HeaderName, Request, StatusCode};
use http_edge::{Body, Response};
use serde::Serialize;

/// Who answers for requests that are signed.
pub trait Verify: fmt::Debug + Send + Sync + 'static {
    /// Whether the request is signed by somebody who may use `@connections` of this API.
    ///
    /// # Errors
    /// What the request is answered with instead.
    fn verify(&self, parts: &Parts, body: &[u8], api: &str) -> Result<(), Exception>;
}

/// Who signs requests to functions, where whoever runs them wants that.
pub trait Sign: fmt::Debug + Send + Sync + 'static {
    /// Adds to a request, which is whole, what says whose it is. Done anew for each attempt.
    fn sign(&self, request: &mut Request<Bytes>);
}

/// An error as SDKs of AWS look for it: `kind` is what they make an exception of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {message}")]
#[non_exhaustive]
pub struct Exception {
    /// The HTTP status.
    pub status: StatusCode,
    /// The name of the exception, e.g. `GoneException`.
    pub kind: &'static str,
    /// For people.
    pub message: Cow<'static, str>,
}

impl Exception {
    /// An error with this name.
    pub fn new(status: StatusCode, kind: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, kind, message: message.into() }
    }

    pub(crate) fn gone() -> Self {
        Self::new(StatusCode::GONE, "GoneException", "the connection is not there any more")
    }

    pub(crate) fn forbidden(message: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "ForbiddenException", message)
    }

    pub(crate) fn response(&self) -> Response {
        const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
        #[derive(Serialize)]
        struct Document<'a> {
            message: &'a str,
        }
        // A text in a struct is always JSON.
        let body = serde_json::to_vec(&Document { message: &self.message }).unwrap_or_default();
        let mut response = json(self.status, body);
        let headers = response.headers_mut();
        headers.insert(ERROR_TYPE, HeaderValue::from_static(self.kind));
        match self.status {
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(header::ALLOW, HeaderValue::from_static("POST, GET, DELETE"));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

pub(crate) fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = http::Response::new(Body::full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

//! The answers that resources have in common.

use http::{HeaderValue, StatusCode, header};
use http_edge::{Body, Response};
use serde_json::Value;

/// 200 with a JSON document.
pub(super) fn json(document: &Value) -> Response {
    let mut response = http::Response::new(Body::full(document.to_string()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// 200: done, and nothing to say of it.
pub(super) fn done() -> Response {
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = StatusCode::OK;
    response
}

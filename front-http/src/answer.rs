//! The answers that resources have in common.

use http::{HeaderValue, StatusCode, header};
use http_edge::{Body, Response};

/// 200 with a JSON document that no cache keeps.
pub(crate) fn json(document: Vec<u8>) -> Response {
    let mut response = json_document(document);
    response.headers_mut().insert(header::CACHE_CONTROL, const { HeaderValue::from_static("no-store") });
    response
}

/// 200 with a JSON document. An answer to a POST or PUT is not kept by caches anyway (RFC 9110 §9.3.3).
pub(crate) fn json_document(document: Vec<u8>) -> Response {
    let mut response = http::Response::new(Body::full(document));
    let headers = response.headers_mut();
    // This one, the request's id, and what pages need.
    headers.reserve(4);
    headers.insert(header::CONTENT_TYPE, const { HeaderValue::from_static("application/json") });
    response
}

/// 204: done, and nothing to say of it.
pub(crate) fn no_content() -> Response {
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

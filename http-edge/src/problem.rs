//! Errors as RFC 9457 `application/problem+json`.

use std::borrow::Cow;
use std::time::Duration;

use broker_core::AuthError;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::request::{ACCEPTED_CODINGS, Body, BodyError, Corrupt, Response, UnknownCoding};

/// An error answer with a `code` that clients may rely on; `detail` is for people and may change.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Problem {
    /// The HTTP status of the answer.
    pub status: StatusCode,
    /// Stable, lower case with underscores, e.g. `invalid_channel`.
    pub code: &'static str,
    /// What went wrong with this request, and with which value.
    pub detail: Cow<'static, str>,
    /// When to try again; sent as `Retry-After` in whole seconds, rounded up.
    pub retry_after: Option<Duration>,
    /// The methods that would have been accepted, e.g. `GET, HEAD, OPTIONS`; sent as `Allow`.
    pub allow: Option<&'static str>,
    /// Whether another content coding would have been accepted; those that are stand in `Accept-Encoding`.
    pub is_about_coding: bool,
}

/// The members of the JSON object (RFC 9457 §3.1 and the extension `code`).
#[derive(Serialize)]
struct Members<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'a str,
    status: u16,
    code: &'static str,
    detail: &'a str,
}

impl Problem {
    /// A problem without `Retry-After` and `Allow`.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Problem {
            status,
            code,
            detail: detail.into(),
            retry_after: None,
            allow: None,
            is_about_coding: false,
        }
    }

    /// Tells the client when the same request may succeed.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// 405 that names the methods `allow`.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let detail = format!("this resource answers {allow}");
        Problem {
            allow: Some(allow),
            ..Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
        }
    }

    /// 403: who asks is known, and may not.
    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Problem::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 400: what came is no request of HTTP, or one that its rules forbid; the connection ends with it.
    pub fn malformed_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, "malformed_request", detail)
    }

    /// 431: request line and fields together are longer than `max_bytes`.
    pub fn request_head_too_large(max_bytes: u32) -> Self {
        let detail =
            format!("the request's address and header fields are longer than {max_bytes} bytes together");
        Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "request_head_too_large", detail)
    }

    /// 414: the address alone is longer than any server of HTTP/1 takes here.
    pub fn uri_too_long() -> Self {
        Problem::new(StatusCode::URI_TOO_LONG, "uri_too_long", "the request's address is too long")
    }

    /// 505: neither HTTP/1.0, HTTP/1.1 nor HTTP/2.
    pub fn version_not_supported() -> Self {
        let detail = "this server speaks HTTP/1.1, HTTP/1.0 and HTTP/2";
        Problem::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "version_not_supported", detail)
    }

    /// 501: a CONNECT that asks for something else than a WebSocket (RFC 9220 §3), or names nothing that is to be spoken,
    /// as to a proxy.
    pub fn protocol_not_supported(named: Option<&str>) -> Self {
        let detail = match named {
            None => Cow::Borrowed("this is no proxy: CONNECT opens WebSockets over HTTP/2, and nothing else"),
            Some(name) => {
                let name = name.get(..name.floor_char_boundary(64)).unwrap_or_default();
                Cow::Owned(format!("`:protocol` {name:?} is not spoken here: CONNECT opens a \"websocket\""))
            }
        };
        Problem::new(StatusCode::NOT_IMPLEMENTED, "protocol_not_supported", detail)
    }

    /// 421: the request is for another server (RFC 9110 §15.5.20), by a name that this one does not go by.
    pub fn host_not_allowed(name: &str) -> Self {
        // A name is short, and what is none may be long.
        let name = name.get(..name.floor_char_boundary(253)).unwrap_or_default();
        let detail =
            format!("this server is not {name:?}; names that it is reached by are listed in `server.hosts`");
        Problem::new(StatusCode::MISDIRECTED_REQUEST, "host_not_allowed", detail)
    }

    /// 429: the caller's rate is used up until `retry_after` has passed.
    pub fn rate_limited(retry_after: Duration) -> Self {
        let detail = "the rate of these credentials is used up";
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).retry_after(retry_after)
    }

    /// 429: one address sent more requests than it may; the next may come once `retry_after` has passed.
    pub fn too_many_requests(retry_after: Duration) -> Self {
        let detail = "too many requests from this address";
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail).retry_after(retry_after)
    }

    /// 503: the server has as many connections as it may have, whosever they are.
    pub fn no_room(retry_after: Duration) -> Self {
        let detail = "no room for more clients";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_connections", detail).retry_after(retry_after)
    }

    /// 503: too much waits for clients already that take nothing of it, over HTTP/2.
    pub fn no_room_for_answer(retry_after: Duration) -> Self {
        let detail = "too much waits for clients that do not read; a smaller answer may go through";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_much_waits", detail).retry_after(retry_after)
    }

    /// 429: the client's address has as many connections as it may have.
    pub fn too_many_connections(retry_after: Duration) -> Self {
        let detail = "too many connections from this address";
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_connections", detail).retry_after(retry_after)
    }

    /// 401: the credentials were right once; the same request with new ones will do.
    pub fn credentials_expired() -> Self {
        let detail = "the credentials have expired, come again with new ones";
        Problem::new(StatusCode::UNAUTHORIZED, "credentials_expired", detail)
    }

    /// 401: what the caller was let in with holds no longer, or says something else now; the same request will be
    /// judged anew.
    pub fn rights_changed() -> Self {
        let detail = "the rights of these credentials have changed meanwhile, come again";
        Problem::new(StatusCode::UNAUTHORIZED, "rights_changed", detail)
    }

    /// 404 for a path that nothing answers.
    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// The members as they stand in a batch result: `{"status":400,"code":"…","detail":"…"}`.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Short<'a> {
            status: u16,
            code: &'static str,
            detail: &'a str,
        }
        let short = Short { status: self.status.as_u16(), code: self.code, detail: &self.detail };
        serde_json::to_string(&short).unwrap_or_default()
    }

    /// The whole answer. Never cached; 401 carries `WWW-Authenticate`.
    pub fn response(&self) -> Response {
        let members = Members {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
        };
        let body = serde_json::to_vec(&members).unwrap_or_default();
        let mut response = http::Response::new(Body::full(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(delay) = self.retry_after {
            let secs = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs.max(1)));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if self.is_about_coding {
            headers.insert(header::ACCEPT_ENCODING, ACCEPTED_CODINGS);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"fanwire\""));
        }
        response
    }
}

/// When a client whose body was given up to make room may come back.
const SHED_RETRY: Duration = Duration::from_secs(5);

impl From<UnknownCoding> for Problem {
    fn from(error: UnknownCoding) -> Self {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        let problem = Problem::new(status, "unsupported_media_type", error.to_string());
        Problem { is_about_coding: true, ..problem }
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        if let BodyError::Io(source) = &error
            && let Some(corrupt) = source.downcast_ref::<Corrupt>()
        {
            return Problem::new(StatusCode::BAD_REQUEST, "invalid_coding", corrupt.to_string());
        }
        let (status, code) = match &error {
            BodyError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            BodyError::Stalled(_) => (StatusCode::REQUEST_TIMEOUT, "body_stalled"),
            BodyError::TooSlow { .. } => (StatusCode::REQUEST_TIMEOUT, "body_too_slow"),
            BodyError::Shed => {
                return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no_room_for_body", error.to_string())
                    .retry_after(SHED_RETRY);
            }
            BodyError::Io(_) => (StatusCode::BAD_REQUEST, "body_incomplete"),
        };
        Problem::new(status, code, error.to_string())
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Required => {
                Problem::new(StatusCode::UNAUTHORIZED, "credentials_required", "this needs credentials")
            }
            AuthError::Invalid(why) => Problem::new(StatusCode::UNAUTHORIZED, "invalid_credentials", why),
            AuthError::Origin(_) => {
                Problem::new(StatusCode::FORBIDDEN, "origin_not_allowed", error.to_string())
            }
            AuthError::Denied(why) => Problem::forbidden(why),
            AuthError::Undecided { retry_after } => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "policy_unavailable", error.to_string())
                    .retry_after(retry_after)
            }
            AuthError::Unavailable(why) => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "credentials_unavailable", why)
                    .retry_after(Duration::from_secs(1))
            }
            AuthError::Busy { retry_after } => {
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", error.to_string())
                    .retry_after(retry_after)
            }
            error => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "credentials_unavailable", error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::read_body;

    #[tokio::test]
    async fn a_problem_names_its_code_and_its_headers() {
        let response = Problem::new(StatusCode::TOO_MANY_REQUESTS, "busy", "lanes \"full\"")
            .retry_after(Duration::from_millis(1200))
            .response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers()["retry-after"], "2");
        let body = read_body(response.into_body(), 1000).await.unwrap();
        assert_eq!(
            body,
            r#"{"type":"about:blank","title":"Too Many Requests","status":429,"code":"busy","detail":"lanes \"full\""}"#
        );
    }

    #[test]
    fn refusals_carry_what_the_status_demands() {
        assert_eq!(Problem::method_not_allowed("GET, HEAD").response().headers()["allow"], "GET, HEAD");
        let required = Problem::from(AuthError::Required).response();
        assert!(required.headers().contains_key("www-authenticate"));
        let unavailable = Problem::from(AuthError::Unavailable("down".into())).response();
        assert_eq!(unavailable.headers()["retry-after"], "1");
    }
}

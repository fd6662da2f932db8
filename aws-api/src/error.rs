//! Errors as clients of AWS look for them.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};
use http_edge::{Body, Response};

/// An error answer. SDKs make an exception of `kind`, which they find in the header `x-amzn-ErrorType`; `message` is for
/// people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {message}")]
#[non_exhaustive]
pub struct AwsError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The name of the exception, e.g. `ForbiddenException`.
    pub kind: &'static str,
    /// What went wrong with this request.
    pub message: Cow<'static, str>,
    /// When to try again; sent as `Retry-After` in whole seconds, rounded up.
    pub retry_after: Option<Duration>,
    /// The methods that would have been accepted; sent as `Allow`.
    pub allow: Option<&'static str>,
}

/// The header in which SDKs look for the name of the exception.
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// What AWS calls the id of an answer.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

macro_rules! kinds {
    ($($(#[$about:meta])* $name:ident: $status:ident $kind:literal;)*) => {
        impl AwsError {
            $(
                $(#[$about])*
                pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
                    Self::new(StatusCode::$status, $kind, message)
                }
            )*
        }
    };
}

kinds! {
    /// 400: the request cannot be meant.
    invalid: BAD_REQUEST "InvalidRequestException";
    /// 401: the credentials are over, or say something else now.
    unauthorized: UNAUTHORIZED "UnauthorizedException";
    /// 403: who asks is known, and may not.
    forbidden: FORBIDDEN "ForbiddenException";
    /// 403: the request is not signed.
    not_signed: FORBIDDEN "MissingAuthenticationTokenException";
    /// 403: what stands where the signature is expected cannot be read.
    incomplete_signature: FORBIDDEN "IncompleteSignatureException";
    /// 403: nobody has this access key.
    unknown_key: FORBIDDEN "UnrecognizedClientException";
    /// 403: the signature is not that of this request.
    wrong_signature: FORBIDDEN "InvalidSignatureException";
    /// 404: it is not there.
    not_found: NOT_FOUND "ResourceNotFoundException";
    /// 409: somebody else was first.
    conflict: CONFLICT "ConflictException";
    /// 413: the body is larger than is taken.
    too_large: PAYLOAD_TOO_LARGE "RequestEntityTooLargeException";
    /// 415: the body is encoded in a way that is not taken.
    unknown_encoding: UNSUPPORTED_MEDIA_TYPE "UnsupportedDocumentEncodingException";
    /// 429: later.
    throttled: TOO_MANY_REQUESTS "ThrottlingException";
    /// 500: nobody knows what became of it.
    internal: INTERNAL_SERVER_ERROR "InternalFailureException";
    /// 503: whoever keeps or decides cannot now.
    unavailable: SERVICE_UNAVAILABLE "ServiceUnavailableException";
    /// 504: the client has not acknowledged in time.
    not_acknowledged: GATEWAY_TIMEOUT "GatewayTimeoutException";
}

impl AwsError {
    /// An exception of this name.
    pub fn new(status: StatusCode, kind: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, kind, message: message.into(), retry_after: None, allow: None }
    }

    /// 405 that names the methods `allow`.
    pub fn method(allow: &'static str) -> Self {
        let message = format!("this resource answers {allow}");
        let error = Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowedException", message);
        Self { allow: Some(allow), ..error }
    }

    /// Tells when the same request may succeed.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { retry_after: Some(delay), ..self }
    }

    /// The whole answer.
    pub fn response(&self) -> Response {
        #[derive(serde::Serialize)]
        struct Document<'a> {
            message: &'a str,
        }
        let body = serde_json::to_vec(&Document { message: &self.message }).unwrap_or_default();
        let mut response = http::Response::new(Body::full(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(ERROR_TYPE, HeaderValue::from_static(self.kind));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(delay) = self.retry_after {
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http_edge::read_body;

    use super::*;

    #[tokio::test]
    async fn an_error_is_named_where_sdks_look_for_it() {
        let error = AwsError::throttled("later, \"please\"").after(Duration::from_millis(1_001));
        let response = error.response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["x-amzn-errortype"], "ThrottlingException");
        assert_eq!(response.headers()["retry-after"], "2");
        let body = read_body(response.into_body(), 1_000).await.unwrap();
        assert_eq!(body, r#"{"message":"later, \"please\""}"#);
        let method = AwsError::method("GET").response();
        assert_eq!(
            (method.status().as_u16(), &method.headers()["allow"]),
            (405, &HeaderValue::from_static("GET"))
        );
    }
}

//! Which web pages may talk to a front, and the headers that tell their browser so.

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};

use std::sync::Arc;

use parking_lot::RwLock;

use crate::{Body, Fields, Response, TokenSources};

/// The origins that are answered. A request without `Origin` does not come from a page and is always allowed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum OriginPolicy {
    /// Every origin: the default on loopback without configuration.
    #[default]
    Any,
    /// The page's host and port must be those of the `Host` header: the default once rights are configured.
    SameOrigin,
    /// The same origin, and these, written as browsers send them: `https://example.org[:port]`.
    List(Vec<String>),
    /// Whatever the handle holds now.
    Live(LiveOrigins),
}

/// Origins that can be changed while fronts use them. Clones are handles to the same policy.
#[derive(Clone, Debug, Default)]
pub struct LiveOrigins(Arc<RwLock<OriginPolicy>>);

impl LiveOrigins {
    /// Starts with `policy`.
    pub fn new(policy: OriginPolicy) -> Self {
        LiveOrigins(Arc::new(RwLock::new(policy)))
    }

    /// Replaces the policy, for the requests from now on. One that is live itself is copied as it is now.
    pub fn set(&self, policy: OriginPolicy) {
        let policy = policy.current();
        *self.0.write() = policy;
    }
}

impl PartialEq for LiveOrigins {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for LiveOrigins {}

/// Whether a page of another origin may send cookies along.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cookies {
    /// No `Access-Control-Allow-Credentials`.
    Omit,
    /// `Access-Control-Allow-Credentials: true`, e.g. for Bayeux' browser cookie.
    Include,
}

const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Cache-Control, Content-Type, Idempotency-Key, Last-Event-ID, X-API-Key, X-EventSource-Event, \
     X-Request-Id, X-Requested-With, ce-channel, ce-dataschema, ce-id, ce-source, ce-specversion, ce-subject, ce-time, ce-type",
);
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static("Retry-After, X-Connection-Id, X-Request-Id");
/// How long a browser may remember a preflight, in seconds.
const MAX_AGE_SECS: HeaderValue = HeaderValue::from_static("600");

impl OriginPolicy {
    /// Whether the request may go on. WebSocket handshakes ask this too, as browsers do not preflight them.
    ///
    /// Same origin is judged by `Host`, which [`serve`](crate::serve) fills in from `:authority` for HTTP/2.
    pub fn allows<'a>(&self, request: impl Into<Fields<'a>>) -> bool {
        let request = request.into();
        let Some(origin) = request.origin else { return true };
        match self {
            OriginPolicy::Any => true,
            OriginPolicy::SameOrigin => is_same_origin(origin, &request),
            OriginPolicy::List(allowed) => {
                is_same_origin(origin, &request)
                    || allowed.iter().any(|one| one.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
            }
            OriginPolicy::Live(live) => live.0.read().allows(request),
        }
    }

    /// Whether other origins than the server's are listed one by one: only then may cookies go along.
    pub fn lists_origins(&self) -> bool {
        match self {
            OriginPolicy::Any | OriginPolicy::SameOrigin => false,
            OriginPolicy::List(_) => true,
            OriginPolicy::Live(live) => live.0.read().lists_origins(),
        }
    }

    /// Whether pages may send cookies to a front that reads tokens from `sources`: only where one is read from a cookie,
    /// and other origins are listed one by one.
    pub fn cookies(&self, sources: &TokenSources) -> Cookies {
        if sources.reads_cookie() && self.lists_origins() { Cookies::Include } else { Cookies::Omit }
    }

    /// The policy as it is now.
    fn current(self) -> OriginPolicy {
        match self {
            OriginPolicy::Live(live) => live.0.read().clone(),
            fixed => fixed,
        }
    }

    /// Adds to `response` what the browser needs to show it to the page: the reflected origin, never `*`.
    /// `Vary: Origin` goes on every answer, so that no cache gives one origin's answer to another.
    pub fn cors_headers<'a>(
        &self,
        request: impl Into<Fields<'a>>,
        cookies: Cookies,
        response: &mut HeaderMap,
    ) {
        let request = request.into();
        response.append(header::VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = request.origin else { return };
        if !self.allows(request) {
            return;
        }
        response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        if cookies == Cookies::Include {
            response.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    /// The answer to `OPTIONS`: 204 with `Allow`, and for a preflight what the page may send. A page that is not
    /// allowed gets the 204 without the CORS headers, which is how a browser is refused.
    pub fn preflight(&self, request: &HeaderMap, cookies: Cookies, methods: &'static str) -> Response {
        let mut response = http::Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(header::ALLOW, HeaderValue::from_static(methods));
        self.cors_headers(request, cookies, headers);
        if headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers(request));
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECS);
            // A page on the public web that reaches a broker in a private network asks for this first.
            let private = HeaderName::from_static("access-control-request-private-network");
            if request.contains_key(private) {
                let allow = HeaderName::from_static("access-control-allow-private-network");
                headers.insert(allow, HeaderValue::from_static("true"));
            }
        }
        response
    }
}

/// [`ALLOWED_HEADERS`], and the extension attributes of events that the page asks for: they have names of their own.
fn allowed_headers(request: &HeaderMap) -> HeaderValue {
    let asked = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS).and_then(|names| names.to_str().ok());
    let is_attribute = |name: &&str| {
        name.strip_prefix("ce-").is_some_and(|attribute| {
            !attribute.is_empty()
                && attribute.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        })
    };
    let mut names = ALLOWED_HEADERS.to_str().unwrap_or_default().to_owned();
    // Only what can be an attribute's name comes back, so nothing else that a page makes up stands in the answer.
    for name in asked.unwrap_or_default().split(',').map(str::trim).filter(is_attribute) {
        names.push_str(", ");
        names.push_str(name);
    }
    HeaderValue::try_from(names).unwrap_or(ALLOWED_HEADERS)
}

/// The `Origin` of a page that does not come from this server; one that is not text counts as `null`.
pub(crate) fn cross_origin<'a>(request: &Fields<'a>) -> Option<&'a str> {
    let origin = request.origin?;
    (!is_same_origin(origin, request)).then(|| origin.to_str().unwrap_or("null"))
}

/// Compares host and port only: a proxy in front may have ended TLS, so the scheme here says nothing.
fn is_same_origin(origin: &HeaderValue, request: &Fields<'_>) -> bool {
    let (Ok(origin), Some(Ok(host))) = (origin.to_str(), request.host.map(HeaderValue::to_str)) else {
        return false;
    };
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    authority.eq_ignore_ascii_case(host)
        || host.strip_suffix(default_port).is_some_and(|host| host.eq_ignore_ascii_case(authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_listed_and_same_origins_pass() {
        let list = OriginPolicy::List(vec!["https://a.example".into()]);
        let cases = [
            (&OriginPolicy::Any, Some("https://evil.example"), true),
            (&OriginPolicy::SameOrigin, None, true),
            (&OriginPolicy::SameOrigin, Some("http://broker:8080"), true),
            (&OriginPolicy::SameOrigin, Some("https://broker:8080"), true),
            (&OriginPolicy::SameOrigin, Some("http://broker"), false),
            (&OriginPolicy::SameOrigin, Some("http://broker:80800"), false),
            (&OriginPolicy::SameOrigin, Some("null"), false),
            (&OriginPolicy::SameOrigin, Some("file://broker:8080"), false),
            (&list, Some("https://a.example"), true),
            (&list, Some("HTTPS://A.example"), true),
            (&list, Some("http://broker:8080"), true),
            (&list, Some("http://a.example"), false),
            (&list, Some("https://a.example.evil"), false),
        ];
        for (policy, origin, expected) in cases {
            let mut headers = request(&[("host", "broker:8080")]);
            if let Some(origin) = origin {
                headers.insert("origin", HeaderValue::from_static(origin));
            }
            assert_eq!(policy.allows(&headers), expected, "{policy:?} {origin:?}");
        }
    }

    #[test]
    fn the_default_port_of_the_scheme_may_stand_in_host_only() {
        let headers = request(&[("host", "broker:443"), ("origin", "https://broker")]);
        assert!(OriginPolicy::SameOrigin.allows(&headers));
    }

    #[test]
    fn an_allowed_page_is_named_and_another_is_not() {
        let asked = request(&[("host", "broker"), ("origin", "https://a.example")]);
        let mut response = HeaderMap::new();
        OriginPolicy::Any.cors_headers(&asked, Cookies::Omit, &mut response);
        assert_eq!(response["access-control-allow-origin"], "https://a.example");
        assert_eq!(response["vary"], "Origin");
        assert!(!response.contains_key("access-control-allow-credentials"));

        let mut response = HeaderMap::new();
        OriginPolicy::SameOrigin.cors_headers(&asked, Cookies::Include, &mut response);
        assert_eq!(response.len(), 1, "Vary alone: {response:?}");
    }

    #[test]
    fn a_preflight_allows_what_fetch_based_clients_send() {
        let asked = request(&[("origin", "https://a.example"), ("access-control-request-method", "GET")]);
        let answer = OriginPolicy::Any.preflight(&asked, Cookies::Include, "GET, HEAD, OPTIONS");
        assert_eq!(answer.status(), 204);
        let headers = answer.headers();
        assert_eq!(headers["access-control-max-age"], "600");
        assert_eq!(headers["access-control-allow-credentials"], "true");
        assert_eq!(headers["access-control-allow-methods"], "GET, HEAD, OPTIONS");
        for name in ["Last-Event-ID", "Authorization", "Cache-Control", "Idempotency-Key", "X-API-Key"] {
            assert!(headers["access-control-allow-headers"].to_str().unwrap().contains(name), "{name}");
        }
        let asked = request(&[
            ("origin", "https://a.example"),
            ("access-control-request-headers", "ce-id,ce-partitionkey, x-evil,ce-,ce-a_b,ce-x1"),
        ]);
        let answer = OriginPolicy::Any.preflight(&asked, Cookies::Omit, "POST");
        let names = answer.headers()["access-control-allow-headers"].to_str().unwrap();
        assert!(
            names.contains("ce-channel") && names.contains("ce-partitionkey") && names.ends_with("ce-x1")
        );
        assert!(!names.contains("evil") && !names.contains("a_b"), "{names}");
        let refused = OriginPolicy::SameOrigin.preflight(&asked, Cookies::Include, "GET");
        assert!(!refused.headers().contains_key("access-control-allow-origin"));
    }
}

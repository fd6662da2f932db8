//! Which web pages may talk to a front, and the headers that tell their browser so.

use std::sync::Arc;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};

use parking_lot::RwLock;

use super::body::{Body, Response};
use super::fields::Fields;
use super::tokens::TokenSources;

/// The origins that are answered. A request that does not come from a page is always allowed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum OriginPolicy {
    /// Every origin. Any page that a user looks at may then do, from the user's machine, what anonymous clients may do.
    Any,
    /// The same origin, and pages that this machine serves: of `localhost`, `127.0.0.1` or `[::1]`, on any port. The
    /// default, in the server as long as no rights are configured.
    #[default]
    Loopback,
    /// The page's host and port must be those of the `Host` header: the server's default once rights are configured.
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

/// Headers that a page asks for beyond these bytes are not among those that it may send.
const MAX_ASKED_BYTES: usize = 4 << 10;

impl OriginPolicy {
    /// Whether the request may go on. WebSocket handshakes ask this too, as browsers do not preflight them.
    ///
    /// Same origin is judged by `Host`, which [`serve`](crate::serve) fills in from `:authority` for HTTP/2. A request
    /// without `Origin` that a page embeds is judged by its `Referer`.
    pub fn allows<'a>(&self, request: impl Into<Fields<'a>>) -> bool {
        let request = request.into();
        let Some(origin) = asking_origin(&request) else { return true };
        match self {
            OriginPolicy::Any => true,
            OriginPolicy::Loopback => is_same_origin(origin, &request) || is_loopback(origin),
            OriginPolicy::SameOrigin => is_same_origin(origin, &request),
            OriginPolicy::List(allowed) => {
                is_same_origin(origin, &request) || allowed.iter().any(|one| one.eq_ignore_ascii_case(origin))
            }
            OriginPolicy::Live(live) => live.0.read().allows(request),
        }
    }

    /// Whether pages of every origin are allowed.
    pub fn is_open(&self) -> bool {
        match self {
            OriginPolicy::Any => true,
            OriginPolicy::Loopback | OriginPolicy::SameOrigin | OriginPolicy::List(_) => false,
            OriginPolicy::Live(live) => live.0.read().is_open(),
        }
    }

    /// Whether pages of allowed origins may send cookies to a front that reads tokens from `sources`: not where any
    /// page is allowed and a cookie is worth something.
    pub fn cookies(&self, sources: &TokenSources) -> Cookies {
        if sources.reads_cookie() && self.is_open() { Cookies::Omit } else { Cookies::Include }
    }

    /// Whether the cookies of a request may say who asks, and not only what the page puts into it itself: its page is
    /// allowed, and where every page is, it is one of this server's own.
    pub fn cookies_of<'a>(&self, request: impl Into<Fields<'a>>) -> Cookies {
        let request = request.into();
        let is_any_page = cross_origin(&request).is_some() && self.is_open();
        if self.allows(request) && !is_any_page { Cookies::Include } else { Cookies::Omit }
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

/// [`ALLOWED_HEADERS`], and what else the page asks for: tracing headers and the attributes of events have names that
/// nobody knows beforehand. A page that is allowed to ask at all may send what any other client may.
fn allowed_headers(request: &HeaderMap) -> HeaderValue {
    let mut names = ALLOWED_HEADERS.to_str().unwrap_or_default().to_owned();
    let asked = request.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let mut room = MAX_ASKED_BYTES;
    for name in asked.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).map(str::trim) {
        let Some(rest) = room.checked_sub(name.len() + 2) else { break };
        room = rest;
        // A name that no header can have is left out.
        if HeaderName::from_bytes(name.as_bytes()).is_ok() {
            names.push_str(", ");
            names.push_str(name);
        }
    }
    HeaderValue::try_from(names).unwrap_or(ALLOWED_HEADERS)
}

/// The origin of the page that asks. One that is not text is no origin at all, and none that is listed.
fn asking_origin<'a>(request: &Fields<'a>) -> Option<&'a str> {
    match (request.origin, request.embedder) {
        (Some(origin), _) => Some(origin.to_str().unwrap_or_default()),
        (None, Some(page)) => Some(origin_of(page.to_str().unwrap_or_default())),
        (None, None) => None,
    }
}

/// The origin of a page by its address.
fn origin_of(address: &str) -> &str {
    let Some(authority) = address.find("://").map(|at| at + 3) else { return address };
    let path = address.get(authority..).and_then(|rest| rest.find(['/', '?', '#']));
    path.and_then(|at| address.get(..authority + at)).unwrap_or(address)
}

/// The origin of a page that does not come from this server; one that is not text counts as `null`.
pub(crate) fn cross_origin<'a>(request: &Fields<'a>) -> Option<&'a str> {
    let origin = asking_origin(request)?;
    let named = if origin.is_empty() { "null" } else { origin };
    (!is_same_origin(origin, request)).then_some(named)
}

/// Scheme, host and port of a page that came by HTTP.
fn web(origin: &str) -> Option<(&str, &str)> {
    origin.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
}

/// Compares host and port, and the scheme where TLS is known: elsewhere a proxy in front may have ended it, so that the
/// scheme here says nothing.
fn is_same_origin(origin: &str, request: &Fields<'_>) -> bool {
    let (Some((scheme, authority)), Some(Ok(host))) = (web(origin), request.host.map(HeaderValue::to_str))
    else {
        return false;
    };
    if request.https && scheme != "https" {
        // Whoever sits on the way to that page could have written it.
        return false;
    }
    let default_port = if scheme == "http" { ":80" } else { ":443" };
    let bare = |text| str::strip_suffix(text, default_port).unwrap_or(text);
    bare(authority).eq_ignore_ascii_case(bare(host))
}

/// Whether the page was served by this machine, as far as its browser knows.
fn is_loopback(origin: &str) -> bool {
    let Some((_, authority)) = web(origin) else { return false };
    let is_port = |rest: &str| {
        rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
    };
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|host| {
        authority
            .split_at_checked(host.len())
            .is_some_and(|(begin, rest)| begin.eq_ignore_ascii_case(host) && is_port(rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn inside_of_tls_a_page_that_came_without_it_is_of_another_origin() {
        for (origin, https, allowed) in [
            ("https://broker", true, true),
            ("https://broker:443", true, true),
            ("http://broker", true, false),
            ("http://broker", false, true),
            ("https://broker", false, true),
        ] {
            let request = http::Request::get("/sse/a").header("host", "broker").header("origin", origin);
            let mut parts = request.body(()).unwrap().into_parts().0;
            if https {
                parts.extensions.insert(super::super::peer::Https);
            }
            assert_eq!(OriginPolicy::SameOrigin.allows(&parts), allowed, "{origin} {https}");
            assert_eq!(cross_origin(&Fields::from(&parts)).is_none(), allowed, "{origin} {https}");
            assert!(OriginPolicy::List(vec![origin.into()]).allows(&parts), "{origin} {https}");
        }
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
            (&OriginPolicy::Loopback, None, true),
            (&OriginPolicy::Loopback, Some("http://broker:8080"), true),
            (&OriginPolicy::Loopback, Some("http://localhost:5173"), true),
            (&OriginPolicy::Loopback, Some("https://localhost"), true),
            (&OriginPolicy::Loopback, Some("http://127.0.0.1:3000"), true),
            (&OriginPolicy::Loopback, Some("http://[::1]:3000"), true),
            (&OriginPolicy::Loopback, Some("https://evil.example"), false),
            (&OriginPolicy::Loopback, Some("http://localhost.evil.example"), false),
            (&OriginPolicy::Loopback, Some("http://localhost:80.evil.example"), false),
            (&OriginPolicy::Loopback, Some("http://127.0.0.1.evil.example"), false),
            (&OriginPolicy::Loopback, Some("http://evil.example:8080"), false),
            (&OriginPolicy::Loopback, Some("http://localhost@evil.example"), false),
            (&OriginPolicy::Loopback, Some("chrome-extension://localhost"), false),
            (&OriginPolicy::Loopback, Some("null"), false),
            (&OriginPolicy::Loopback, Some(""), false),
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
    fn a_page_that_embeds_an_answer_is_judged_without_an_origin() {
        for (referer, allowed) in [
            (Some("http://localhost:3000/app?x#y"), true),
            (Some("http://broker:8080"), true),
            (Some("https://evil.example/http://localhost:3000/"), false),
            (Some("http://localhost:3000.evil.example/"), false),
            (None, false),
        ] {
            let mut headers = request(&[("host", "broker:8080"), ("sec-fetch-site", "cross-site")]);
            headers.extend(referer.map(|page| (header::REFERER, HeaderValue::from_static(page))));
            assert_eq!(OriginPolicy::Loopback.allows(&headers), allowed, "{referer:?}");
            assert!(OriginPolicy::Any.allows(&headers), "{referer:?}");
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
        let long = "x".repeat(MAX_ASKED_BYTES);
        let names = format!("traceparent,ce-partitionkey, sentry-trace , bad name,<script>,,{long}");
        let mut asked = request(&[("origin", "https://a.example")]);
        asked.insert(header::ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::try_from(names).unwrap());
        let answer = OriginPolicy::Any.preflight(&asked, Cookies::Omit, "POST");
        let names = answer.headers()["access-control-allow-headers"].to_str().unwrap();
        assert!(names.contains("ce-channel, "), "{names}");
        assert!(names.ends_with("ce-type, traceparent, ce-partitionkey, sentry-trace"), "{names}");
        let refused = OriginPolicy::SameOrigin.preflight(&asked, Cookies::Include, "GET");
        assert!(!refused.headers().contains_key("access-control-allow-origin"));
    }

    #[test]
    fn a_private_network_is_opened_to_allowed_pages_only() {
        for (origin, opened) in [("http://localhost:3000", true), ("https://evil.example", false)] {
            let asked = request(&[
                ("host", "127.0.0.1:8080"),
                ("origin", origin),
                ("access-control-request-private-network", "true"),
            ]);
            let answer = OriginPolicy::default().preflight(&asked, Cookies::Include, "POST");
            let headers = answer.headers();
            assert_eq!(headers.contains_key("access-control-allow-private-network"), opened, "{origin}");
            assert_eq!(headers.contains_key("access-control-allow-origin"), opened, "{origin}");
        }
    }

    #[test]
    fn cookies_count_for_known_pages_that_are_not_just_any() {
        let own = ("referer", "http://broker/page");
        let list = OriginPolicy::List(vec!["https://a.example".into()]);
        for (policy, line, expected) in [
            (&OriginPolicy::SameOrigin, own, Cookies::Include),
            (&OriginPolicy::Any, own, Cookies::Include),
            (&OriginPolicy::Any, ("referer", "https://a.example/x"), Cookies::Omit),
            (&list, ("referer", "https://a.example/x"), Cookies::Include),
            (&list, ("referer", "https://b.example/x"), Cookies::Omit),
            (&list, ("accept", "*/*"), Cookies::Omit),
            (&list, ("sec-fetch-site", "same-origin"), Cookies::Include),
            (&list, ("sec-fetch-site", "cross-site"), Cookies::Omit),
            (&list, ("origin", "https://a.example"), Cookies::Include),
        ] {
            let headers = request(&[("host", "broker"), line]);
            let script = Fields::from(&headers).of_script(&headers);
            assert_eq!(policy.cookies_of(script), expected, "{policy:?} {line:?}");
        }
    }

    #[test]
    fn cookies_go_along_unless_any_page_could_use_a_token_in_one() {
        let (none, cookie) = (TokenSources::default(), TokenSources::default());
        cookie.set(crate::TokenPlaces { cookie: Some("fw".to_owned()), query: false });
        for (policy, expected) in [
            (OriginPolicy::Any, Cookies::Omit),
            (OriginPolicy::Loopback, Cookies::Include),
            (OriginPolicy::SameOrigin, Cookies::Include),
            (OriginPolicy::List(Vec::new()), Cookies::Include),
            (OriginPolicy::Live(LiveOrigins::new(OriginPolicy::Any)), Cookies::Omit),
        ] {
            assert_eq!(policy.cookies(&cookie), expected, "{policy:?}");
            assert_eq!(policy.cookies(&none), Cookies::Include, "{policy:?}");
        }
    }
}

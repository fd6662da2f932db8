//! What an origin is told, and what a client is told of its answer. Pure.

use std::net::IpAddr;
use std::sync::LazyLock;

use broker_core::unix_ms;
use http::header::{CONNECTION, EXPECT, HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, header};
use http_edge::{Https, X_REQUEST_ID};

use crate::config::{ForwardedFor, Route};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// By which an origin knows who asks.
pub(crate) const GRIP_SIG: HeaderName = HeaderName::from_static("grip-sig");

/// Fields of one connection, that nobody passes on (RFC 9110 §7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Most fields of `CDN-Loop` that are read.
const MAX_LOOP_FIELDS: usize = 100;

/// This process in `CDN-Loop` (RFC 8586): others of the same name may be in front or behind.
static ITSELF: LazyLock<String> =
    LazyLock::new(|| format!("fanwire;id={:016x}", fastrand::u64(..) ^ unix_ms().rotate_left(20)));

/// The request was here before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Loop;

/// Who asks, as its origin is told.
#[derive(Debug)]
pub(crate) struct Told<'a> {
    pub(crate) remote: Option<IpAddr>,
    pub(crate) request_id: &'a HeaderValue,
    pub(crate) rule: ForwardedFor,
    /// Another server of GRIP, which is believed what it says of it.
    pub(crate) is_upstream: bool,
}

/// The fields of a request to an origin of the route.
pub(crate) fn request(parts: &Parts, route: &Route, told: &Told<'_>) -> Result<HeaderMap, Loop> {
    let mut headers = end_to_end(&parts.headers);
    headers.remove(EXPECT);
    headers.remove("proxy-authenticate");
    // Who signs as the broker does is believed by origins.
    let is_of_grip = |name: &&HeaderName| name.as_str().starts_with("grip-") && !told.is_upstream;
    let of_grip: Vec<HeaderName> = headers.keys().filter(is_of_grip).cloned().collect();
    for name in of_grip {
        headers.remove(name);
    }
    let passed: Vec<&HeaderValue> = parts.headers.get_all(&CDN_LOOP).iter().take(MAX_LOOP_FIELDS).collect();
    let was_here = |value: &&HeaderValue| value.to_str().is_ok_and(|text| text.contains(&**ITSELF));
    if passed.iter().any(was_here) {
        return Err(Loop);
    }
    if let Ok(itself) = HeaderValue::from_str(&ITSELF) {
        headers.append(CDN_LOOP, itself);
    }
    forwarded_for(&mut headers, told);
    let scheme = if Https::is_known(&parts.extensions) { "https" } else { "http" };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    headers.insert(X_REQUEST_ID, told.request_id.clone());
    if let Some(host) = &route.origin_host {
        headers.insert(HOST, host.clone());
    }
    for (name, value) in &route.request_headers {
        headers.insert(name.clone(), value.clone());
    }
    Ok(headers)
}

/// Whether a request is signed by another server of GRIP in front that the route trusts, at `now` in seconds since 1970.
pub(crate) fn is_upstream(route: &Route, headers: &HeaderMap, now: u64) -> bool {
    let Some(upstream) = &route.upstream else { return false };
    let token = headers.get(GRIP_SIG).and_then(|token| token.to_str().ok());
    token.is_some_and(|token| upstream.verify(token, now).is_ok())
}

fn forwarded_for(headers: &mut HeaderMap, told: &Told<'_>) {
    let before: Vec<String> = headers
        .get_all(&X_FORWARDED_FOR)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .map(|address| address.trim().to_owned())
        .filter(|address| !address.is_empty())
        .collect();
    headers.remove(&X_FORWARDED_FOR);
    let kept = match told.rule {
        ForwardedFor::Drop => return,
        ForwardedFor::Append => &before[..],
        ForwardedFor::Keep(last) => before.get(before.len().saturating_sub(last)..).unwrap_or_default(),
    };
    let all: Vec<String> = kept.iter().cloned().chain(told.remote.map(|remote| remote.to_string())).collect();
    if let Ok(value) = HeaderValue::from_str(&all.join(", "))
        && !all.is_empty()
    {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

/// The fields of an answer, for the client.
pub(crate) fn answer(headers: &HeaderMap, route: &Route) -> HeaderMap {
    let mut passed = end_to_end(headers);
    for (name, value) in &route.response_headers {
        passed.insert(name.clone(), value.clone());
    }
    passed
}

/// Without what is of one connection only: the usual fields, and those that `Connection` names.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let mut passed = headers.clone();
    for name in HOP_BY_HOP.iter().chain(&named) {
        // A client that names these wants to have them forgotten on the way.
        if *name != HOST && *name != header::CONTENT_LENGTH {
            passed.remove(name);
        }
    }
    passed
}

/// The path and query that an origin sees.
pub(crate) fn path(route: &Route, parts: &Parts) -> String {
    let whole = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let rest = match (&route.strip_prefix, &route.replace_prefix) {
        (Some(prefix), _) => whole.strip_prefix(&**prefix),
        (None, Some(_)) => whole.strip_prefix(route.path.beginning()),
        (None, None) => return whole.to_owned(),
    };
    match (rest, &route.replace_prefix) {
        (Some(rest), Some(replacement)) => format!("{replacement}{rest}"),
        (Some(rest), None) => rest.to_owned(),
        (None, _) => whole.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::config::Dialect;

    fn route() -> Route {
        Route::new("a", Dialect::Proxy, "/live/**".parse().unwrap(), vec!["http://a".parse().unwrap()])
    }

    fn parts(fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::get("/live/x?y=1");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn passed(fields: &[(&str, &str)], rule: ForwardedFor) -> Result<HeaderMap, Loop> {
        let id = HeaderValue::from_static("r1");
        let told =
            Told { remote: Some("192.0.2.1".parse().unwrap()), request_id: &id, rule, is_upstream: false };
        request(&parts(fields), &route(), &told)
    }

    #[test]
    fn what_is_of_one_connection_is_not_passed_on_and_all_else_is() {
        let headers = passed(
            &[
                ("host", "shop.example"),
                ("connection", "keep-alive, x-secret-hop, host"),
                ("keep-alive", "timeout=5"),
                ("x-secret-hop", "1"),
                ("te", "trailers"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("expect", "100-continue"),
                ("proxy-authorization", "Basic x"),
                ("grip-sig", "forged"),
                ("cookie", "a=1"),
                ("cookie", "b=2"),
                ("accept-encoding", "gzip"),
            ],
            ForwardedFor::Append,
        )
        .unwrap();
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "accept-encoding",
                "cdn-loop",
                "cookie",
                "host",
                "x-forwarded-for",
                "x-forwarded-proto",
                "x-request-id"
            ]
        );
        assert_eq!(headers.get_all("cookie").iter().count(), 2);
        assert_eq!(
            (&headers["host"], &headers["x-forwarded-proto"]),
            (&HeaderValue::from_static("shop.example"), &HeaderValue::from_static("http"))
        );
    }

    #[test]
    fn the_way_that_a_request_came_is_told_by_rule() {
        let sent = [("x-forwarded-for", "10.0.0.1, 10.0.0.2"), ("x-forwarded-for", "10.0.0.3")];
        for (rule, expected) in [
            (ForwardedFor::Drop, None),
            (ForwardedFor::Append, Some("10.0.0.1, 10.0.0.2, 10.0.0.3, 192.0.2.1")),
            (ForwardedFor::Keep(0), Some("192.0.2.1")),
            (ForwardedFor::Keep(1), Some("10.0.0.3, 192.0.2.1")),
            (ForwardedFor::Keep(9), Some("10.0.0.1, 10.0.0.2, 10.0.0.3, 192.0.2.1")),
        ] {
            let headers = passed(&sent, rule).unwrap();
            let told = headers.get("x-forwarded-for").map(|value| value.to_str().unwrap());
            assert_eq!(told, expected, "{rule:?}");
        }
    }

    #[test]
    fn a_request_that_was_here_before_is_refused_and_one_of_a_neighbour_is_not() {
        let headers = passed(&[("cdn-loop", "fanwire;id=1, other")], ForwardedFor::Append).unwrap();
        assert_eq!(headers.get_all("cdn-loop").iter().count(), 2);
        let again = headers.get_all("cdn-loop").iter().map(|value| ("cdn-loop", value.to_str().unwrap()));
        assert_eq!(passed(&again.collect::<Vec<_>>(), ForwardedFor::Append), Err(Loop));
    }

    #[test]
    fn a_prefix_is_taken_off_or_replaced() {
        let sees = |strip: Option<&str>, replace: Option<&str>| {
            let mut route = route();
            (route.strip_prefix, route.replace_prefix) = (strip.map(Into::into), replace.map(Into::into));
            path(&route, &parts(&[]))
        };
        assert_eq!(sees(None, None), "/live/x?y=1");
        assert_eq!(sees(Some("/live"), None), "/x?y=1");
        assert_eq!(sees(Some("/live/"), None), "x?y=1");
        assert_eq!(sees(None, Some("/v2")), "/v2/x?y=1");
        assert_eq!(sees(Some("/live/x"), Some("/v2")), "/v2?y=1");
        assert_eq!(sees(Some("/other"), Some("/v2")), "/live/x?y=1");
    }
}

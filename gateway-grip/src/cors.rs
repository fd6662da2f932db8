//! What browsers need to hear to show an answer to a page of another origin, where the origin's own answer does not say.

use http::header::{
    self, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};
use http_edge::{Cookies, OriginPolicy, Response};

use crate::config::Route;

/// What a page may ask for: whatever its origin takes.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Where any page may ask, none brings the cookies of its user.
fn cookies(policy: &OriginPolicy) -> Cookies {
    if policy.is_open() { Cookies::Omit } else { Cookies::Include }
}

/// The answer to a preflight, which the origin need not hear of.
pub(crate) fn preflight(route: &Route, parts: &Parts) -> Option<Response> {
    let policy = route.cors.as_ref()?;
    let is_preflight = parts.method == Method::OPTIONS
        && parts.headers.contains_key(ORIGIN)
        && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    is_preflight.then(|| policy.preflight(&parts.headers, cookies(policy), METHODS))
}

/// Lets the page that has asked see an answer, unless the answer says itself who may.
pub(crate) fn allow(route: &Route, asked: &HeaderMap, said: &mut HeaderMap) {
    let Some(policy) = &route.cors else { return };
    if said.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
        return;
    }
    policy.cors_headers(asked, cookies(policy), said);
    if !said.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
        return;
    }
    let is_shown =
        |name: &&str| !name.starts_with("access-control-") && *name != "set-cookie" && *name != "vary";
    let names: Vec<&str> = said.keys().map(header::HeaderName::as_str).filter(is_shown).collect();
    match HeaderValue::from_str(&names.join(", ")) {
        Ok(names) if !names.is_empty() => _ = said.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names),
        _ => _ = said.remove(ACCESS_CONTROL_EXPOSE_HEADERS),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::config::Dialect;

    fn route(cors: Option<OriginPolicy>) -> Route {
        let origins = vec!["http://a".parse().unwrap()];
        let mut route = Route::new("a", Dialect::Proxy, "/**".parse().unwrap(), origins);
        route.cors = cors;
        route
    }

    fn allowed(cors: Option<OriginPolicy>, page: &'static str, said: &[(&'static str, &str)]) -> HeaderMap {
        let mut asked = HeaderMap::new();
        asked.insert(ORIGIN, HeaderValue::from_static(page));
        let mut headers: HeaderMap =
            said.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        allow(&route(cors), &asked, &mut headers);
        headers
    }

    #[test]
    fn a_page_that_is_listed_sees_the_answer_and_its_fields() {
        let listed = || Some(OriginPolicy::List(vec!["https://app.example".to_owned()]));
        let headers = allowed(listed(), "https://app.example", &[("x-a", "1"), ("set-cookie", "b=2")]);
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example");
        assert_eq!(headers["access-control-allow-credentials"], "true");
        assert_eq!(headers[ACCESS_CONTROL_EXPOSE_HEADERS], "x-a");
        let headers = allowed(listed(), "https://other.example", &[("x-a", "1")]);
        assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
        assert_eq!(headers["vary"], "Origin");
        let headers = allowed(Some(OriginPolicy::Any), "https://other.example", &[]);
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "https://other.example");
        assert!(!headers.contains_key("access-control-allow-credentials"), "any page, and no cookies");
    }

    #[test]
    fn what_the_origin_says_itself_stands() {
        let said = [("access-control-allow-origin", "https://its.example")];
        let headers = allowed(Some(OriginPolicy::Any), "https://other.example", &said);
        assert_eq!((headers.len(), &headers[ACCESS_CONTROL_ALLOW_ORIGIN]), (1, &said[0].1.parse().unwrap()));
        assert_eq!(allowed(None, "https://other.example", &[("x-a", "1")]).len(), 1);
    }

    #[test]
    fn a_preflight_is_answered_and_another_question_of_what_may_be_is_the_origins() {
        let asked = |cors, with: bool| {
            let request = Request::options("/x").header("origin", "https://app.example");
            let request = if with { request.header("access-control-request-method", "PUT") } else { request };
            preflight(&route(cors), &request.body(()).unwrap().into_parts().0)
        };
        let response = asked(Some(OriginPolicy::Any), true).unwrap();
        assert_eq!(response.status(), 204);
        assert!(response.headers()["access-control-allow-methods"].to_str().unwrap().contains("PUT"));
        assert!(asked(Some(OriginPolicy::Any), false).is_none());
        assert!(asked(None, true).is_none());
    }
}

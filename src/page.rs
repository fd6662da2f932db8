//! The page at `/`: what is built into the binary and how it is served. The files stand in `page/`.

use http::{HeaderValue, Method, StatusCode, header};
use http_edge::{Body, Problem, Response};

const METHODS: &str = "GET, HEAD, OPTIONS";
const ICON: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#0f766e"/><g fill="none" stroke="#fff" stroke-width="2.5" stroke-linecap="round"><path d="M9 16h14M9 16L23 8M9 16l14 8"/></g><circle cx="9" cy="16" r="3.2" fill="#fff"/></svg>"##;
/// Nothing from elsewhere, no inline script, and nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self' ws: wss:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// A path, its type and its content.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("page/page.html")),
    ("/page/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/page/page.js", "text/javascript; charset=utf-8", include_str!("page/page.js")),
    ("/page/icon.svg", "image/svg+xml", ICON),
];

/// Answers a request for one of the files.
pub(crate) fn answer(method: &Method, path: &str) -> Response {
    let Some((_, kind, content)) = FILES.iter().find(|(name, ..)| *name == path) else {
        return Problem::not_found("no such file").response();
    };
    let mut response = http::Response::new(Body::empty());
    match *method {
        Method::GET | Method::HEAD => {}
        Method::OPTIONS => {
            *response.status_mut() = StatusCode::NO_CONTENT;
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(METHODS));
            return response;
        }
        _ => return Problem::method_not_allowed(METHODS).response(),
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // A newer server comes with a newer page.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if method == Method::HEAD {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(content.len()));
    } else {
        *response.body_mut() = Body::full(content.as_bytes());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_served_and_nothing_else_is() {
        let cases = [
            (Method::GET, "/", 200),
            (Method::HEAD, "/", 200),
            (Method::GET, "/page/page.js", 200),
            (Method::GET, "/page/../main.rs", 404),
            (Method::GET, "/page", 404),
            (Method::POST, "/", 405),
            (Method::OPTIONS, "/", 204),
        ];
        for (method, path, status) in cases {
            let response = answer(&method, path);
            assert_eq!(response.status(), status, "{method} {path}");
            assert_eq!(response.headers().contains_key("content-security-policy"), status == 200);
        }
    }

    /// The page promises to need nothing but the server it came from.
    #[test]
    fn no_file_of_the_page_names_another_host() {
        for (path, _, content) in FILES {
            let foreign = content.match_indices("src=\"http").chain(content.match_indices("@import")).next();
            assert_eq!(foreign, None, "{path}");
        }
    }
}

//! The cookie that tells browsers apart (CometD, "BAYEUX_BROWSER").

use std::fmt::Write as _;

use http::{HeaderMap, HeaderValue};

use crate::config::BrowserCookie;

/// Longest value accepted from a browser; ours are 32 bytes.
const MAX_VALUE_BYTES: usize = 128;

/// Cookies of the name that are looked at: a browser has one for each path and domain that somebody set it for.
const MAX_COOKIES: usize = 4;

/// The browser's cookies that could be one of ours; mostly one.
pub(super) fn read<'a>(headers: &'a HeaderMap, config: &BrowserCookie) -> impl Iterator<Item = &'a str> {
    http_edge::cookies(headers, &config.name)
        .filter(|value| !value.is_empty() && value.len() <= MAX_VALUE_BYTES)
        .filter_map(|value| std::str::from_utf8(value).ok())
        .take(MAX_COOKIES)
}

/// The header that sets it; `None` if the configuration holds what no header can. A browser that is known to have come
/// by `https` sends it in no other way from then on.
pub(super) fn set(value: &str, config: &BrowserCookie, https: bool) -> Option<HeaderValue> {
    let mut line = format!("{}={value}", config.name);
    if !config.path.is_empty() {
        let _ = write!(line, "; Path={}", config.path);
    }
    if let Some(domain) = &config.domain {
        let _ = write!(line, "; Domain={domain}");
    }
    if let Some(max_age) = config.max_age {
        let _ = write!(line, "; Max-Age={}", max_age.as_secs());
    }
    let flags = [
        (config.http_only, "; HttpOnly"),
        (config.secure || https, "; Secure"),
        (config.partitioned, "; Partitioned"),
    ];
    for (on, flag) in flags {
        if on {
            line.push_str(flag);
        }
    }
    if let Some(same_site) = &config.same_site {
        let _ = write!(line, "; SameSite={same_site}");
    }
    HeaderValue::try_from(line).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header;

    use super::*;

    #[test]
    fn one_cookie_is_found_among_many_whatever_those_are() {
        let long = format!("BAYEUX_BROWSER={}", "x".repeat(129)).into_bytes();
        let cases: [(&[u8], &[&str]); 9] = [
            (b"BAYEUX_BROWSER=x", &["x"]),
            (b"a=b; BAYEUX_BROWSER=\"x\"; c", &["x"]),
            (b"name=J\xFCrgen; BAYEUX_BROWSER=x", &["x"]),
            ("name=Jürgen; BAYEUX_BROWSER=x".as_bytes(), &["x"]),
            (b"BAYEUX_BROWSER=\xFC; BAYEUX_BROWSER=x; BAYEUX_BROWSER=y", &["x", "y"]),
            (b"BAYEUX_BROWSER=", &[]),
            (b"XBAYEUX_BROWSER=x", &[]),
            (b"", &[]),
            (&long, &[]),
        ];
        for (line, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, HeaderValue::from_bytes(line).unwrap());
            assert_eq!(read(&headers, &BrowserCookie::default()).collect::<Vec<_>>(), expected, "{line:?}");
        }
    }

    #[test]
    fn attributes_are_said() {
        let default = BrowserCookie::default();
        assert_eq!(set("x", &default, false).unwrap(), "BAYEUX_BROWSER=x; Path=/; HttpOnly");
        assert_eq!(set("x", &default, true).unwrap(), "BAYEUX_BROWSER=x; Path=/; HttpOnly; Secure");
        let all = BrowserCookie {
            name: "B".into(),
            domain: Some("example.org".into()),
            path: "/c".into(),
            max_age: Some(Duration::from_secs(60)),
            secure: true,
            http_only: false,
            same_site: Some("None".into()),
            partitioned: true,
        };
        let expected = "B=x; Path=/c; Domain=example.org; Max-Age=60; Secure; Partitioned; SameSite=None";
        assert_eq!(set("x", &all, false).unwrap(), expected);
    }
}

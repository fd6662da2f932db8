//! The cookie that tells browsers apart (CometD, "BAYEUX_BROWSER").

use std::fmt::Write as _;

use http::{HeaderMap, HeaderValue, header};

use crate::config::BrowserCookie;

/// Longest value accepted from a browser; ours are 32 bytes.
const MAX_VALUE_BYTES: usize = 128;

/// The browser's cookie, if it sent a usable one.
pub(super) fn read<'a>(headers: &'a HeaderMap, config: &BrowserCookie) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == config.name)
        .map(|(_, value)| value.trim_matches('"'))
        .filter(|value| !value.is_empty() && value.len() <= MAX_VALUE_BYTES)
}

/// The header that sets it; `None` if the configuration holds what no header can.
pub(super) fn set(value: &str, config: &BrowserCookie) -> Option<HeaderValue> {
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
    for (on, flag) in
        [(config.http_only, "; HttpOnly"), (config.secure, "; Secure"), (config.partitioned, "; Partitioned")]
    {
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

    use super::*;

    #[test]
    fn one_cookie_is_found_among_many() {
        let cases = [
            ("BAYEUX_BROWSER=x", Some("x")),
            ("a=b; BAYEUX_BROWSER=\"x\"; c", Some("x")),
            ("BAYEUX_BROWSER=", None),
            ("XBAYEUX_BROWSER=x", None),
            ("", None),
        ];
        for (line, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, line.parse().unwrap());
            assert_eq!(read(&headers, &BrowserCookie::default()), expected, "{line}");
        }
        let mut long = HeaderMap::new();
        long.insert(header::COOKIE, format!("BAYEUX_BROWSER={}", "x".repeat(129)).parse().unwrap());
        assert_eq!(read(&long, &BrowserCookie::default()), None);
    }

    #[test]
    fn attributes_are_said() {
        assert_eq!(set("x", &BrowserCookie::default()).unwrap(), "BAYEUX_BROWSER=x; Path=/; HttpOnly");
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
        assert_eq!(set("x", &all).unwrap(), expected);
    }
}

//! Names of the web: origins, hosts, cookies. Each is written as its [`Text`](crate::Text).

use std::fmt;
use std::str::FromStr;

/// The origin of a web page, as browsers send it: `https://example.org[:port]`, or `null`. A slash at its end and the
/// usual port of its scheme are taken off, as browsers leave them out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(pub String);

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is not an origin such as \"https://example.org\" or \"http://localhost:3000\"")
        };
        if text == "null" {
            return Ok(Origin(text.to_owned()));
        }
        let (scheme, authority) = text.split_once("://").ok_or_else(wrong)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        // A colon in brackets is of an IPv6 address.
        let colon = authority.rfind(':').filter(|at| !authority.get(*at..).unwrap_or_default().contains(']'));
        let (host, port) = colon.map_or((authority, ""), |at| authority.split_at(at));
        let is_host = !host.is_empty()
            && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._~[]:".contains(c))
            && (host.starts_with('[') || !host.contains([':', '[', ']']));
        let is_port = port.is_empty() || port.get(1..).is_some_and(|port| port.parse::<u16>().is_ok());
        if !(is_scheme && is_host && is_port) {
            return Err(wrong());
        }
        let port = match (scheme.to_ascii_lowercase().as_str(), port) {
            ("http", ":80") | ("https", ":443") => "",
            (_, port) => port,
        };
        Ok(Origin(format!("{scheme}://{host}{port}")))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `*` for pages of every origin, or one [`Origin`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllowedOrigin {
    /// Pages of every origin.
    Any,
    /// Pages of this one.
    One(Origin),
}

impl FromStr for AllowedOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" { Ok(AllowedOrigin::Any) } else { text.parse().map(AllowedOrigin::One) }
    }
}

impl fmt::Display for AllowedOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AllowedOrigin::Any => f.write_str("*"),
            AllowedOrigin::One(origin) => origin.fmt(f),
        }
    }
}

/// A name that the server is reached by, without scheme and port, or `*` for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(pub String);

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if text != "*" && (text.is_empty() || !text.chars().all(legal)) {
            return Err(format!(
                "`{text}` is not the name of a host such as \"broker.example.org\", without a port"
            ));
        }
        Ok(HostName(text.strip_suffix('.').unwrap_or(text).to_owned()))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a cookie: a token (RFC 6265 §4.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieName(pub String);

impl FromStr for CookieName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if text.is_empty() || !text.chars().all(legal) {
            return Err(format!("`{text}` is not the name of a cookie: letters, digits and `- _ .`"));
        }
        Ok(CookieName(text.to_owned()))
    }
}

impl fmt::Display for CookieName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        for (text, expected) in [
            ("https://example.org", Some("https://example.org")),
            ("https://example.org/", Some("https://example.org")),
            ("https://example.org:443", Some("https://example.org")),
            ("http://example.org:80/", Some("http://example.org")),
            ("http://localhost:3000", Some("http://localhost:3000")),
            ("HTTPS://Example.org", Some("HTTPS://Example.org")),
            ("http://[::1]:8080", Some("http://[::1]:8080")),
            ("http://[::1]", Some("http://[::1]")),
            ("capacitor://localhost", Some("capacitor://localhost")),
            ("null", Some("null")),
            ("*", None),
            ("https://*.example.org", None),
            ("example.org", None),
            ("https://a.example/path", None),
            ("https://a.example//", None),
            ("https://a.example?x", None),
            ("https://a@b.example", None),
            ("https://a.example:99999", None),
            ("https://a.example:", None),
            ("https://a:1:2", None),
            ("https://bücher.example", None),
            ("https://", None),
            ("://a", None),
            ("", None),
            (" https://a.example", None),
        ] {
            let parsed = text.parse::<Origin>().ok().map(|origin| origin.0);
            assert_eq!(parsed.as_deref(), expected, "{text:?}");
        }
    }
}

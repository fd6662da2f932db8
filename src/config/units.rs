//! How durations, sizes and filters are written in a configuration.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The form of a value in the configuration, and the value itself.
pub(super) trait Setting<T> {
    fn from_value(value: T) -> Self;
    fn into_value(self) -> T;
}

macro_rules! plain {
    ($($type:ty),*) => { $(
        impl Setting<$type> for $type {
            fn from_value(value: $type) -> Self { value }
            fn into_value(self) -> $type { self }
        }
    )* };
}

plain!(bool, i64, u16, u32, u64, usize, String);

impl<T, S: Setting<T>> Setting<Option<T>> for Option<S> {
    fn from_value(value: Option<T>) -> Self {
        value.map(S::from_value)
    }
    fn into_value(self) -> Option<T> {
        self.map(S::into_value)
    }
}

impl<T, S: Setting<T>> Setting<Vec<T>> for Vec<S> {
    fn from_value(value: Vec<T>) -> Self {
        value.into_iter().map(S::from_value).collect()
    }
    fn into_value(self) -> Vec<T> {
        self.into_iter().map(S::into_value).collect()
    }
}

/// What is longer can be no point in time that a clock knows.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A duration: `"10s"`, `"1m 30s"`, `"250ms"`; 0 needs no unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl Setting<Duration> for Span {
    fn from_value(value: Duration) -> Self {
        Span(value)
    }
    fn into_value(self) -> Duration {
        self.0
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Span;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"10s\" or \"5m\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Span, E> {
                let duration = humantime::parse_duration(text).map_err(|_| {
                    E::custom(format_args!("`{text}` is not a duration such as \"10s\" or \"5m\""))
                })?;
                if duration > MAX_DURATION {
                    return Err(E::custom(format_args!("`{text}` is longer than a hundred years")));
                }
                Ok(Span(duration))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Span, E> {
                if number == 0 {
                    return Ok(Span(Duration::ZERO));
                }
                Err(E::custom(format_args!("`{number}` needs a unit, such as \"{number}s\"")))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Span, E> {
                match u64::try_from(number) {
                    Ok(number) => self.visit_u64(number),
                    Err(_) => Err(E::custom("a duration cannot be negative")),
                }
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// A duration where none at all would mean that something happens all the time, or can never succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period(pub(super) Duration);

impl Setting<Duration> for Period {
    fn from_value(value: Duration) -> Self {
        Period(value)
    }
    fn into_value(self) -> Duration {
        self.0
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Span(self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Span::deserialize(deserializer)? {
            Span(Duration::ZERO) => Err(D::Error::custom("0 is too short here, say how long")),
            Span(duration) => Ok(Period(duration)),
        }
    }
}

/// Bytes: a number, or with a unit `"64 MiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) usize);

const UNITS: [(&str, u32); 4] = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl Size {
    fn parse(text: &str) -> Option<Self> {
        let end = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(end);
        let number: usize = number.parse().ok()?;
        let unit = match unit.trim() {
            "" => "B",
            unit => unit,
        };
        let (_, shift) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
        number.checked_mul(1 << shift).map(Size)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |shift: &u32| self.0 > 0 && self.0.is_multiple_of(1 << shift);
        match UNITS.iter().find(|(_, shift)| *shift > 0 && whole(shift)) {
            Some((unit, shift)) => write!(f, "{} {unit}", self.0 >> shift),
            None => self.0.fmt(f),
        }
    }
}

impl Setting<usize> for Size {
    fn from_value(value: usize) -> Self {
        Size(value)
    }
    fn into_value(self) -> usize {
        self.0
    }
}

impl Setting<u32> for Size {
    fn from_value(value: u32) -> Self {
        Size(value as usize)
    }
    fn into_value(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = self.to_string();
        if written.contains(' ') {
            serializer.serialize_str(&written)
        } else {
            serializer.serialize_u64(self.0 as u64)
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes or a size such as \"64 MiB\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
                Size::parse(text.trim())
                    .ok_or_else(|| E::custom(format_args!("`{text}` is not a size such as \"64 MiB\"")))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Size, E> {
                usize::try_from(number).map(Size).map_err(|_| E::custom("too large a size"))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Size, E> {
                usize::try_from(number).map(Size).map_err(|_| E::custom("a size cannot be negative"))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// The origin of a web page, as browsers send it: `https://example.org[:port]`, or `null`. A slash behind it and its scheme's
/// own port are taken off, as browsers leave them out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin(pub(super) String);

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
pub(super) enum Origins {
    Any,
    One(Origin),
}

impl FromStr for Origins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" { Ok(Origins::Any) } else { text.parse().map(Origins::One) }
    }
}

impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origins::Any => f.write_str("*"),
            Origins::One(origin) => origin.fmt(f),
        }
    }
}

/// A name that the server is reached by, without scheme and port, or `*` for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostName(pub(super) String);

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
pub(super) struct CookieName(pub(super) String);

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

/// A value that is written as its text: a filter, a pattern, a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text<T>(pub(super) T);

impl<T> Setting<T> for Text<T> {
    fn from_value(value: T) -> Self {
        Text(value)
    }
    fn into_value(self) -> T {
        self.0
    }
}

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Text).map_err(D::Error::custom)
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

    #[test]
    fn sizes_are_read_with_and_without_unit_and_written_with_the_largest_that_is_whole() {
        let cases = [
            ("0", Some(0), "0"),
            ("1000", Some(1000), "1000"),
            ("1024", Some(1024), "1 KiB"),
            ("64 MiB", Some(64 << 20), "64 MiB"),
            ("64mib", Some(64 << 20), "64 MiB"),
            ("3 GiB", Some(3 << 30), "3 GiB"),
            ("7 B", Some(7), "7"),
            ("64 MB", None, ""),
            ("MiB", None, ""),
            ("-1", None, ""),
            ("99999999999999 GiB", None, ""),
        ];
        for (text, bytes, written) in cases {
            let size = Size::parse(text);
            assert_eq!(size.map(|size| size.0), bytes, "{text}");
            if let Some(size) = size {
                assert_eq!(size.to_string(), written);
            }
        }
    }
}

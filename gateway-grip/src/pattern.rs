//! For which hosts and paths a route is.

use std::fmt;
use std::str::FromStr;

/// Which hosts: one, all names below one (`*.example.org`), or any. A port does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HostPattern(Hosts);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum Hosts {
    #[default]
    Any,
    One(String),
    /// What stands behind the star, with its full stop.
    Below(String),
}

/// Which paths: one, or all that begin with a text. `/live/**` is `/live` too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPattern {
    text: String,
    is_beginning: bool,
}

/// A text that is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoPattern(&'static str);

/// How well a pattern matches: what is larger is more.
pub(crate) type Rank = (usize, bool);

const A_HOST: &str = "a host is a name without a port, \"*.example.org\" or \"*\"";

impl FromStr for HostPattern {
    type Err = NoPattern;

    fn from_str(text: &str) -> Result<Self, NoPattern> {
        let plain = |name: &str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !name.is_empty() && name.len() <= 253 && name.bytes().all(is_plain) && !name.contains("..")
        };
        let is_address = |text: &str| {
            let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
        };
        let text = text.to_ascii_lowercase();
        // The full stop that only says that a name is whole.
        let whole = |name: &str| name.strip_suffix('.').unwrap_or(name).to_owned();
        Ok(Self(match text.strip_prefix('*') {
            Some("") => Hosts::Any,
            Some(rest) => match rest.strip_prefix('.').map(whole) {
                Some(name) if plain(&name) => Hosts::Below(format!(".{name}")),
                _ => return Err(NoPattern(A_HOST)),
            },
            None if plain(&whole(&text)) || is_address(&text) => Hosts::One(whole(&text)),
            None => return Err(NoPattern(A_HOST)),
        }))
    }
}

impl HostPattern {
    /// As it is written: a name, or `*.example.org`; `None` for any.
    pub fn name(&self) -> Option<String> {
        match &self.0 {
            Hosts::Any => None,
            Hosts::One(name) => Some(name.clone()),
            Hosts::Below(end) => Some(format!("*{end}")),
        }
    }

    /// How well it matches the `Host` of a request; `None`: not.
    pub(crate) fn rank(&self, host: &str) -> Option<Rank> {
        match &self.0 {
            Hosts::Any => Some((0, false)),
            Hosts::One(name) => name.eq_ignore_ascii_case(host).then_some((name.len(), true)),
            Hosts::Below(end) => {
                let at = host.len().checked_sub(end.len())?;
                let is_below = at > 0 && host.get(at..)?.eq_ignore_ascii_case(end);
                is_below.then_some((end.len(), false))
            }
        }
    }
}

/// The name of a `Host` field, without its port and the full stop that only says that it is whole.
pub(crate) fn host_name(field: &str) -> &str {
    let end = match field.strip_prefix('[') {
        Some(rest) => rest.find(']').map_or(field.len(), |at| at + 2),
        None => field.find(':').unwrap_or(field.len()),
    };
    field.get(..end).unwrap_or(field).trim_end_matches('.')
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Hosts::Any => f.write_str("*"),
            Hosts::One(name) => f.write_str(name),
            Hosts::Below(end) => write!(f, "*{end}"),
        }
    }
}

impl FromStr for PathPattern {
    type Err = NoPattern;

    fn from_str(text: &str) -> Result<Self, NoPattern> {
        let (text, is_beginning) = match text.strip_suffix("**") {
            Some(beginning) => (beginning, true),
            None => (text, false),
        };
        if !text.starts_with('/') {
            return Err(NoPattern("a path begins with `/`"));
        }
        if text.contains(['*', '?', '#']) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(NoPattern("a path is as it stands in a URL, and `**` at its end is any rest"));
        }
        Ok(Self { text: text.to_owned(), is_beginning })
    }
}

impl PathPattern {
    /// How well it matches a path; `None`: not.
    pub(crate) fn rank(&self, path: &str) -> Option<Rank> {
        let matches = match self.is_beginning {
            true => path.starts_with(&self.text) || self.text.strip_suffix('/') == Some(path),
            false => path == self.text,
        };
        matches.then_some((self.text.len(), !self.is_beginning))
    }

    /// What all its paths begin with, without a slash at the end.
    pub fn beginning(&self) -> &str {
        self.text.strip_suffix('/').unwrap_or(&self.text)
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if self.is_beginning { f.write_str("**") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_match_in_any_case_and_without_their_port() {
        for (pattern, field, matches) in [
            ("*", "", true),
            ("a.example", "A.Example:8080", true),
            ("A.EXAMPLE.", "a.example.", true),
            ("a.example", "b.a.example", false),
            ("*.example", "a.example", true),
            ("*.example", "b.a.example:1", true),
            ("*.example", "example", false),
            ("*.example", ".example", false),
            ("*.example", "anexample", false),
            ("[::1]", "[::1]:81", true),
            ("127.0.0.1", "127.0.0.1:81", true),
        ] {
            let pattern: HostPattern = pattern.parse().unwrap();
            assert_eq!(pattern.rank(host_name(field)).is_some(), matches, "{pattern} {field}");
        }
        for wrong in ["", "a b", "a:80", "*a.example", "*.", "a..b", "[::g]", "a/b"] {
            assert!(wrong.parse::<HostPattern>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn paths_are_one_or_what_begins_so() {
        for (pattern, path, matches) in [
            ("/", "/", true),
            ("/", "/a", false),
            ("/**", "/", true),
            ("/**", "/a/b", true),
            ("/live/**", "/live", true),
            ("/live/**", "/live/", true),
            ("/live/**", "/live/a", true),
            ("/live/**", "/lives", false),
            ("/live**", "/lives", true),
            ("/a%20b", "/a%20b", true),
        ] {
            let pattern: PathPattern = pattern.parse().unwrap();
            assert_eq!(pattern.rank(path).is_some(), matches, "{pattern} {path}");
        }
        for wrong in ["", "live", "**", "/a/*/b", "/a**/b", "/a?b", "/a b", "/ä"] {
            assert!(wrong.parse::<PathPattern>().is_err(), "{wrong}");
        }
    }
}

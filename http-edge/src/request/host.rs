//! The names that a server answers to.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, Uri, header};

/// The `Host` names that are answered. A page that is let in by its origin alone could give a name of its own the
/// server's address (DNS rebinding), and would then come from the same origin.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum HostPolicy {
    /// Every name.
    #[default]
    Any,
    /// Addresses, `localhost` and the names below it, and these, without a port; `*.example.org` is all names below one.
    Names(Vec<String>),
}

impl HostPolicy {
    /// Whether a request for this name is answered. One without any name, as HTTP/1.0 allows, is: browsers always send
    /// one.
    ///
    /// # Errors
    /// The name that is not the server's.
    pub fn check<'a>(&self, uri: &'a Uri, headers: &'a HeaderMap) -> Result<(), &'a str> {
        let HostPolicy::Names(names) = self else { return Ok(()) };
        // One walk costs less than a lookup.
        let field = headers.iter().filter(|(name, _)| **name == header::HOST);
        let field = field.map(|(_, value)| value.to_str().unwrap_or("?"));
        let named = uri.authority().map(|authority| authority.as_str()).into_iter().chain(field);
        named.into_iter().find(|named| !is_ours(named, names)).map_or(Ok(()), Err)
    }
}

/// An address of version 4, with or without a port, as most requests name it where this is asked.
fn is_ipv4(named: &str) -> bool {
    let end = named.bytes().position(|byte| byte == b':').unwrap_or(named.len());
    let (address, port) = named.split_at(end);
    address.parse::<Ipv4Addr>().is_ok() && is_port(port.strip_prefix(':').unwrap_or(port))
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_ours(named: &str, names: &[String]) -> bool {
    if is_ipv4(named) {
        return true;
    }
    if let Some(rest) = named.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        return address.parse::<Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = named.split_once(':').unwrap_or((named, ""));
    // What is no name ends with one all the same: `a://b.localhost`.
    if !is_port(port) || !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return false;
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let below = |domain: &str| {
        let Some(at) = host.len().checked_sub(domain.len()) else { return false };
        host.split_at_checked(at).is_some_and(|(before, end)| {
            end.eq_ignore_ascii_case(domain) && (before.is_empty() || before.ends_with('.'))
        })
    };
    host.is_empty()
        || host.parse::<Ipv4Addr>().is_ok()
        || below("localhost")
        || names.iter().any(|name| match name.strip_prefix("*.") {
            Some(domain) => host.len() > domain.len() && below(domain),
            None => name.eq_ignore_ascii_case(host),
        })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn addresses_localhost_and_configured_names_are_answered_and_no_others() {
        let (policy, target) = (
            HostPolicy::Names(vec!["broker.lan".to_owned(), "*.shop.lan".to_owned()]),
            Uri::from_static("/"),
        );
        for (host, answered) in [
            ("127.0.0.1", true),
            ("127.0.0.1:8080", true),
            ("192.0.2.1:8080", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("localhost", true),
            ("LOCALHOST:8080", true),
            ("localhost.", true),
            ("app.localhost:8080", true),
            ("broker.lan", true),
            ("a.shop.lan:8080", true),
            ("a.b.Shop.LAN", true),
            ("shop.lan", false),
            ("workshop.lan", false),
            ("*.shop.lan", false),
            ("a://b.localhost", false),
            ("a/b.localhost", false),
            ("a@localhost", false),
            ("localhost:80:80", false),
            ("localhost:x", false),
            ("[::1]:x", false),
            ("Broker.LAN:8080", true),
            ("", true),
            ("evil.example", false),
            ("evil.example:8080", false),
            ("evillocalhost", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("x.broker.lan", false),
            ("[evil]", false),
            ("[::1]evil.example", false),
            ("user@127.0.0.1", false),
            ("::1", false),
        ] {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
            let expected = if answered { Ok(()) } else { Err(host) };
            assert_eq!(policy.check(&target, &headers), expected);
            assert_eq!(HostPolicy::Any.check(&target, &headers), Ok(()));
        }
    }

    #[test]
    fn the_target_counts_too_and_nothing_named_is_nobody() {
        let policy = HostPolicy::Names(Vec::new());
        let local = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("localhost"))]);
        assert!(policy.check(&Uri::from_static("http://evil.example/"), &local).is_err());
        assert!(policy.check(&Uri::from_static("http://localhost:1/"), &local).is_ok());
        assert!(policy.check(&Uri::from_static("/"), &HeaderMap::new()).is_ok());
    }
}

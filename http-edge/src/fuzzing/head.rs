//! A head of a request, and everything that reads a part of it.

use std::net::IpAddr;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};

use crate::connection::HeadScan;
use crate::request::{
    Cookies, Fields, HostPolicy, HttpCredentials, OriginPolicy, TokenPlaces, TokenSources, cookies,
    credentials_from, parameters, parse_connection_id, percent_decode, request_id,
};
use crate::{connection_id, credentials};

const COOKIE: &str = "fw";
const NAME: &str = "broker.lan";

/// A request's head as a client sends it: each reader agrees with one that is written as on paper, or holds to what
/// the server relies on.
pub fn head(bytes: &[u8]) {
    scanned(bytes);
    let Some(parts) = parts_of(bytes) else { return };
    addressed(&parts);
    let fields = Fields::from(&parts.headers);
    for (found, name) in [
        (fields.authorization, "authorization"),
        (fields.content_type, "content-type"),
        (fields.host, "host"),
        (fields.origin, "origin"),
        (fields.x_api_key, "x-api-key"),
    ] {
        assert_eq!(found, parts.headers.get(name), "{name}");
    }
    let id = request_id(&parts.headers);
    assert!((1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic), "{id:?}");
    credentialed(&parts);
    hosted(&parts);
    from_a_page(&parts.headers);
}

/// A first line, then fields. What hyper would not let through is no request.
fn parts_of(bytes: &[u8]) -> Option<Parts> {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut words = std::str::from_utf8(lines.next()?).ok()?.split(' ');
    let mut request = Request::builder().method(words.next()?).uri(words.next()?);
    for line in lines.take_while(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        let name = HeaderName::from_bytes(name).ok()?;
        request = request.header(name, HeaderValue::from_bytes(value.get(1..)?.trim_ascii()).ok()?);
    }
    Some(request.body(()).ok()?.into_parts().0)
}

/// What is found beside hyper does not depend on how the bytes came, and is what stands there.
fn scanned(bytes: &[u8]) {
    let scan = |piece: usize| {
        let mut scan = HeadScan::default();
        bytes.chunks(piece).for_each(|piece| scan.feed(piece));
        scan
    };
    let whole = scan(usize::MAX).has_two_lengths();
    for piece in [1, 2, 7, 18, 19, 600] {
        assert_eq!(scan(piece).has_two_lengths(), whole, "in pieces of {piece}");
    }
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
    let is_empty = |line: &&[u8]| line.first().is_none_or(|first| *first == b'\r');
    let head: Vec<&[u8]> = lines.skip_while(is_empty).take_while(|line| !is_empty(line)).collect();
    let has = |name: &str| {
        head.iter().any(|line| line.to_ascii_lowercase().starts_with(format!("{name}:").as_bytes()))
    };
    assert_eq!(whole, has("transfer-encoding") && has("content-length"));
}

fn addressed(parts: &Parts) {
    let path = parts.uri.path();
    let decoded = percent_decode(path);
    assert_eq!(decoded.as_deref().ok(), on_paper(path.as_bytes()).as_deref(), "{path}");
    if let Ok(decoded) = decoded {
        let encoded: String = decoded.bytes().map(|byte| format!("%{byte:02X}")).collect();
        assert_eq!(percent_decode(&encoded).as_deref(), Ok(&*decoded));
    }
    for segment in path.split('/') {
        if let Some(key) = parse_connection_id(segment) {
            assert_eq!(connection_id(key), segment);
        }
    }
    // The standard's reader passes on what ours refuses; where ours takes all, they agree.
    let query = parts.uri.query();
    if let Ok(ours) = parameters(query).collect::<Result<Vec<_>, _>>() {
        let theirs: Vec<_> = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect();
        assert_eq!(ours, theirs);
    }
}

/// Percent-decoding by position; `None` if it cannot be read.
fn on_paper(mut text: &[u8]) -> Option<String> {
    let mut out = Vec::new();
    while let Some((first, rest)) = text.split_first() {
        text = rest;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let (digits, rest) = text.split_at_checked(2)?;
        text = rest;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
        out.push(u8::from_str_radix(digits, 16).ok()?);
    }
    String::from_utf8(out).ok()
}

fn credentialed(parts: &Parts) {
    let plain = credentials(parts);
    let places = TokenPlaces { cookie: Some(COOKIE.to_owned()), query: true };
    let sources = TokenSources::from(places);
    let found = credentials_from(parts, &sources);
    assert!(found.more_tokens.len() <= 3);
    let _ = format!("{found:?}");
    if plain.token.is_some() || plain.user.is_some() {
        let shown = |of: &HttpCredentials<'_>| (of.user.is_some(), of.password.is_some(), of.token.is_some());
        let same = (found.user == plain.user, found.password == plain.password, found.token == plain.token);
        assert_eq!(
            (shown(&found), same),
            (shown(&plain), (true, true, true)),
            "what a header has is all that counts"
        );
        assert!(found.more_tokens.is_empty());
    }
    let values: Vec<&[u8]> = cookies(&parts.headers, COOKIE).collect();
    if plain.token.is_none()
        && plain.user.is_none()
        && let Some(first) = values.first()
    {
        assert_eq!(found.token.as_deref(), Some(&*String::from_utf8_lossy(first)));
    }
    // One more on each line is found on each, behind what was there.
    let mut more = parts.headers.clone();
    let lines: Vec<_> = parts.headers.get_all(header::COOKIE).iter().cloned().collect();
    more.remove(header::COOKIE);
    for line in &lines {
        let line = [line.as_bytes(), b"; fw=KEY"].concat();
        more.append(header::COOKIE, HeaderValue::from_bytes(&line).expect("a value and ASCII"));
    }
    let found: Vec<&[u8]> = cookies(&more, COOKIE).collect();
    assert_eq!(found.len(), values.len() + lines.len());
    assert!(found.iter().filter(|value| **value == b"KEY").count() >= lines.len());
    assert!(lines.is_empty() || found.last() == Some(&&b"KEY"[..]));
}

/// Whoever is answered was called by an address, by a name of ours, or not at all.
fn hosted(parts: &Parts) {
    let policy = HostPolicy::Names(vec![NAME.to_owned()]);
    let mut named: Vec<&str> =
        parts.uri.authority().map(|authority| authority.as_str()).into_iter().collect();
    named.extend(parts.headers.get_all(header::HOST).iter().map(|value| value.to_str().unwrap_or("?")));
    let answered = policy.check(&parts.uri, &parts.headers);
    if let Err(named_so) = answered {
        assert!(named.contains(&named_so));
        return;
    }
    for name in named {
        // Without the port.
        let host = match name.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, _)) => host,
            None => name.split_once(':').map_or(name, |(host, _)| host),
        };
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        assert!(
            host.is_empty()
                || host.parse::<IpAddr>().is_ok()
                || host == "localhost"
                || host.ends_with(".localhost")
                || host == NAME,
            "{name}"
        );
    }
}

/// A page that may read is one of those that are listed, of this machine, or the server's own; none else is let in.
fn from_a_page(headers: &HeaderMap) {
    const LISTED: &str = "https://a.example";
    let fields = Fields::from(headers);
    let list = OriginPolicy::List(vec![LISTED.to_owned()]);
    for policy in [OriginPolicy::Any, OriginPolicy::SameOrigin, OriginPolicy::Loopback, list] {
        let mut answer = HeaderMap::new();
        policy.cors_headers(headers, Cookies::Omit, &mut answer);
        let readable = answer.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        let allowed = policy.allows(headers);
        assert_eq!(readable, fields.origin.filter(|_| allowed));
        let preflight = policy.preflight(headers, Cookies::Omit, "GET");
        assert_eq!(preflight.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN), readable);
        let Some(origin) = fields.origin.filter(|_| allowed && policy != OriginPolicy::Any) else { continue };
        let origin = origin.to_str().expect("text").to_ascii_lowercase();
        let authority = origin.split_once("://").expect("a scheme").1;
        let host = fields.host.map(|host| host.to_str().unwrap_or_default().to_ascii_lowercase());
        let ours = host.is_some_and(|host| {
            host == authority || host == format!("{authority}:80") || host == format!("{authority}:443")
        });
        let bare = match authority.strip_prefix("[::1]") {
            Some(port) => ("[::1]", port),
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let here = matches!(bare.0, "localhost" | "127.0.0.1" | "[::1]");
        let is_port = bare.1.is_empty() || bare.1.get(1..).is_some_and(|port| port.parse::<u16>().is_ok());
        let listed = matches!(policy, OriginPolicy::List(_)) && origin == LISTED;
        assert!(ours || listed || policy == OriginPolicy::Loopback && here && is_port, "{policy:?} {origin}");
    }
}

#[cfg(test)]
mod tests {
    /// Digits as people write them, and what only looks like some.
    #[test]
    fn the_paper_is_right() {
        for (text, decoded) in [("a%2Fb", Some("a/b")), ("%+1", None), ("%2", None), ("%ff", None)] {
            assert_eq!(super::on_paper(text.as_bytes()).as_deref(), decoded, "{text}");
        }
    }
}

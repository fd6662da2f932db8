//! A request in its canonical form.

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Uri, header};

use crate::error::AwsError;

/// The path as it is signed: what is on the wire, encoded once more, so that `%3D` becomes `%253D`.
pub fn canonical_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + path.len() / 2);
    for byte in path.bytes() {
        if byte == b'/' { out.push('/') } else { encode(byte, &mut out) }
    }
    if out.is_empty() { "/".to_owned() } else { out }
}

/// The path without empty segments and with `.` and `..` worked in, as SDKs sign it; the same if there are none.
pub fn normalized_path(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => _ = segments.pop(),
            segment => segments.push(segment),
        }
    }
    let end = if path.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    format!("/{}{end}", segments.join("/"))
}

/// The query as it is signed: names and values decoded, encoded by RFC 3986, and sorted.
pub fn canonical_query(query: &str) -> String {
    let encoded = |text: &str| {
        let mut out = String::with_capacity(text.len());
        decode(text.as_bytes(), &mut |byte| encode(byte, &mut out));
        out
    };
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(name, value)| (encoded(name), encoded(value)))
        .collect();
    pairs.sort_unstable();
    let joined: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    joined.join("&")
}

/// The whole request, with `path` in its canonical form and the hash of the body in hexadecimal digits. `host` is what
/// the field `Host` says, or over HTTP/2 what stands in its place.
///
/// # Errors
/// A field that was signed is not there.
pub fn canonical_request(
    parts: &Parts,
    path: &str,
    signed_headers: &str,
    body_hash: &str,
) -> Result<Vec<u8>, AwsError> {
    let mut out = Vec::with_capacity(512);
    let query = canonical_query(parts.uri.query().unwrap_or_default());
    for line in [parts.method.as_str(), path, &query] {
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
    for name in signed_headers.split(';') {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        if !write_field(name, &parts.headers, &parts.uri, &mut out) {
            return Err(AwsError::wrong_signature(format!(
                "the header field {:?} was signed and is not there",
                name.get(..name.floor_char_boundary(64)).unwrap_or_default()
            )));
        }
        out.push(b'\n');
    }
    out.push(b'\n');
    out.extend_from_slice(signed_headers.as_bytes());
    out.push(b'\n');
    out.extend_from_slice(body_hash.as_bytes());
    Ok(out)
}

/// The values of a field, joined by commas; false if there is none.
fn write_field(name: &str, headers: &HeaderMap, uri: &Uri, out: &mut Vec<u8>) -> bool {
    let mut found = false;
    for value in headers.get_all(name) {
        if std::mem::replace(&mut found, true) {
            out.push(b',');
        }
        write_trimmed(value, out);
    }
    if !found
        && name == header::HOST.as_str()
        && let Some(authority) = uri.authority()
    {
        out.extend_from_slice(authority.as_str().as_bytes());
        found = true;
    }
    found
}

/// Without spaces at its ends, and with one where several follow each other.
fn write_trimmed(value: &HeaderValue, out: &mut Vec<u8>) {
    let words = value.as_bytes().split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    for (number, word) in words.enumerate() {
        if number > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}

/// All but what RFC 3986 §2.3 leaves as it is.
fn encode(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
        out.push(char::from(byte));
        return;
    }
    out.push('%');
    for digit in [byte >> 4, byte & 15] {
        out.push(DIGITS.get(usize::from(digit)).copied().map_or('0', char::from));
    }
}

/// A `%` that begins no byte stands for itself.
fn decode(text: &[u8], out: &mut impl FnMut(u8)) {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let pair = (digit(text.get(at + 1)), digit(text.get(at + 2)));
        match (byte, pair) {
            (b'%', (Some(high), Some(low))) => {
                out(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            _ => {
                out(*byte);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_encoded_once_more() {
        for (path, expected) in [
            ("", "/"),
            ("/", "/"),
            ("/topics/a%2Fb%3D", "/topics/a%252Fb%253D"),
            ("/topics/a/b@c~d", "/topics/a/b%40c~d"),
            ("/%C3%A9", "/%25C3%25A9"),
        ] {
            assert_eq!(canonical_path(path), expected, "{path}");
        }
    }

    #[test]
    fn dots_and_empty_segments_are_worked_in() {
        for (path, expected) in [
            ("/", "/"),
            ("", "/"),
            ("/a//b/", "/a/b/"),
            ("/a/./b/../c", "/a/c"),
            ("/../..", "/"),
            ("/a/..%2Fb", "/a/..%2Fb"),
        ] {
            assert_eq!(normalized_path(path), expected, "{path}");
        }
    }

    #[test]
    fn a_query_is_sorted_once_it_is_decoded() {
        for (query, expected) in [
            ("", ""),
            ("b=2&a=1", "a=1&b=2"),
            ("a=2&a=1&a", "a=&a=1&a=2"),
            ("x=%7e%2f+%zz", "x=~%2F%2B%25zz"),
            ("%41=b%3Dc=d", "A=b%3Dc%3Dd"),
            ("&&a=%c3%A9", "a=%C3%A9"),
        ] {
            assert_eq!(canonical_query(query), expected, "{query}");
        }
    }
}

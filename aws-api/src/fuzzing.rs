//! What the fuzzer of `fuzz/` calls. Its corpus runs as an ordinary test as well, so that what a fuzzer has found once is
//! looked at on every run.

use std::time::Duration;

use http::{HeaderValue, Request};

use crate::config::Key;
use crate::sigv4::{Authorization, Verifier, canonical_path, canonical_query, normalized_path};

/// A header `Authorization`, a path and a query, a line each. What is read of the header stands in it; canonical forms
/// hold nothing that has a meaning of its own; and nobody is let in who has not the secret.
pub fn signature(bytes: &[u8]) {
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (header, path, query) = (line(), line(), line());
    if let Ok(text) = std::str::from_utf8(header)
        && let Ok(read) = Authorization::parse(text)
    {
        for part in [read.access_key, read.day, read.region, read.service, read.signed_headers] {
            assert!(text.contains(part));
        }
        assert!(!read.access_key.is_empty() && !read.signed_headers.is_empty());
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte);
    if let Ok(path) = std::str::from_utf8(path) {
        let canonical = canonical_path(path);
        assert!(canonical.bytes().all(|byte| is_plain(byte) || byte == b'/'));
        assert!(path.is_empty() || canonical.matches('/').count() == path.matches('/').count());
        let normalized = normalized_path(path);
        assert_eq!(normalized_path(&normalized), normalized, "once is enough");
        assert!(normalized.starts_with('/') && !normalized.contains("//"));
        assert!(normalized.split('/').all(|segment| !matches!(segment, "." | "..")));
    }
    if let Ok(query) = std::str::from_utf8(query) {
        let canonical = canonical_query(query);
        assert!(canonical.bytes().all(|byte| is_plain(byte) || b"=&".contains(&byte)));
        assert_eq!(canonical_query(&canonical), canonical, "once is enough");
    }
    let target = [path, b"?", query].concat();
    let Ok(value) = HeaderValue::from_bytes(header) else { return };
    let Ok(request) = Request::get(target.as_slice()).header("authorization", value).body(()) else { return };
    let mut parts = request.into_parts().0;
    parts.headers.insert("host", HeaderValue::from_static("h"));
    parts.headers.insert("x-amz-date", HeaderValue::from_static("20261129T215500Z"));
    let verifier =
        Verifier::new("r", Duration::from_secs(300), &[Key::new("A", "a secret that nobody guesses")]);
    assert!(verifier.verify("s", &parts, b"", 1_795_989_300).is_err());
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_finds_nothing() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/aws_signature");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            super::signature(&std::fs::read(entry.unwrap().path()).unwrap());
            seen += 1;
        }
        assert!(seen >= 3);
    }
}

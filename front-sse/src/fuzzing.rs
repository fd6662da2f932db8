//! What the fuzzer of `fuzz/` calls. Its corpus runs as an ordinary test as well, so that what a fuzzer has found once
//! is looked at on every run.

use http::{HeaderMap, HeaderValue};

use crate::codec::request::parse;

const MAX_FILTERS: usize = 4;

/// A request for a stream: the first line is what stands behind the mount point with its query, the second the header
/// `Last-Event-ID`, the rest a body. What is taken has few and legal filters, and can be asked for again.
pub fn request(bytes: &[u8]) {
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (Ok(target), id, body) = (std::str::from_utf8(line()), line(), line()) else { return };
    let (rest, query) = target.split_once('?').map_or((target, None), |(rest, query)| (rest, Some(query)));
    let mut headers = HeaderMap::new();
    if let Ok(id) = HeaderValue::from_bytes(id)
        && !id.is_empty()
    {
        headers.insert("last-event-id", id);
    }
    let body = (!body.is_empty()).then_some(body);
    let Ok(asked) = parse(rest, query, &headers, body, MAX_FILTERS) else { return };
    assert!((1..=MAX_FILTERS).contains(&asked.filters.len()));
    for (at, filter) in asked.filters.iter().enumerate() {
        assert!(!asked.filters.iter().take(at).any(|before| before == filter), "twice");
        assert!(!filter.to_string().contains('\0'));
    }
    if let Some(id) = &asked.last_event_id {
        assert!(!id.is_empty() && id.chars().count() <= 128 && id.trim() == id);
    }
    // The same, as the address of another client would say it.
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let mut query: Vec<_> =
        asked.filters.iter().map(|filter| format!("channel={}", encoded(&filter.to_string()))).collect();
    query.push(format!("retained={}", asked.retained));
    query.push(format!("format={}", if asked.format == crate::Format::Raw { "raw" } else { "json" }));
    query.extend(asked.last_event_id.as_ref().map(|id| format!("lastEventId={}", encoded(id))));
    query.extend(asked.unknown.as_ref().map(|name| format!("{}=", encoded(name))));
    let again = parse("", Some(&query.join("&")), &HeaderMap::new(), None, MAX_FILTERS);
    assert_eq!(again.expect("it was taken"), asked);
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_of_requests_holds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/sse_request");
        let mut files: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 5, "{folder}");
        for file in files {
            println!("{}", file.display());
            super::request(&std::fs::read(&file).unwrap());
        }
    }
}

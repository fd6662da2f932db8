//! What the fuzzer of `fuzz/` calls. Its corpus runs as an ordinary test as well, so that what a fuzzer has found once
//! is looked at on every run.

use http::{HeaderMap, HeaderValue, Method};
use http_edge::{Fields, parse_connection_id, percent_decode};

use crate::publish::{Options, content_type};
use crate::query::{flag, limit, no_parameters, read_cursor};
use crate::route::Resource;

const MOUNT: &str = "/v1";

/// A request's address in the first line, then the fields that publishing looks at: event, key, content type. What is
/// named is what stands in the path, and what is taken holds to its bounds.
pub fn request(bytes: &[u8]) {
    let mut lines = bytes.splitn(4, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let Ok(target) = std::str::from_utf8(line()) else { return };
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut headers = HeaderMap::new();
    for name in ["x-eventsource-event", "idempotency-key", "content-type"] {
        if let Ok(value) = HeaderValue::from_bytes(line())
            && !value.is_empty()
        {
            headers.insert(name, value);
        }
    }
    routed(path);
    let fields = Fields::from(&headers);
    let _ = content_type(&fields);
    if let Ok((options, channel)) = Options::read_with_channel(query, &fields) {
        assert!(options.ttl.is_none_or(|ttl| ttl.as_secs() <= 100 * 366 * 24 * 3600));
        assert!(options.key.is_none_or(|key| (1..=128).contains(&key.len())));
        assert!(options.event.is_none_or(|name| !name.contains(['\n', '\r', '\0'])));
        assert!(
            channel.is_none() || query.is_some_and(|query| query.contains('=') || query.contains("channel"))
        );
    }
    let of_query = no_parameters(query).is_ok();
    assert!(
        !of_query
            || query.is_none_or(|query| query.is_empty()
                || query.contains("access")
                || query.contains('&')
                || query.contains('%'))
    );
    if let Some(query) = query {
        assert!(
            limit(query, 100).is_ok_and(|limit| (1..=100).contains(&limit)) || limit(query, 100).is_err()
        );
        let _ = flag("retain", query);
        assert_eq!(read_cursor(query).ok(), parse_connection_id(query));
    }
}

fn routed(path: &str) {
    let Ok(resource) = Resource::find(path, MOUNT) else { return };
    assert!(Resource::find(path, "/v1/").is_ok());
    assert_eq!(Resource::streams(path, MOUNT), resource == Resource::Figures);
    let methods = resource.methods().split(", ");
    for method in methods {
        assert!(resource.answers(&Method::from_bytes(method.as_bytes()).expect("a method")));
    }
    assert!(!resource.answers(&Method::TRACE));
    // Behind the name of the resource.
    let rest =
        |name: &str| path.strip_prefix(MOUNT)?.strip_prefix('/')?.strip_prefix(name)?.strip_prefix('/');
    let (name, found) = match &resource {
        Resource::Publish(Some(found)) => ("publish", found),
        Resource::History(found) => ("history", found),
        Resource::Retained(found) => ("retained", found),
        Resource::Channels(Some(found)) => ("channels", found),
        Resource::Presence(found) => ("presence", found),
        Resource::ConnectionSubscription { id, filter } => {
            let (first, rest) = rest("connections").and_then(|rest| rest.split_once('/')).expect("an id");
            assert_eq!(percent_decode(first).as_deref(), Ok(&**id));
            let last = rest.strip_prefix("subscriptions/").expect("its name");
            assert_eq!(percent_decode(last).as_deref(), Ok(&**filter));
            return;
        }
        _ => return,
    };
    assert_eq!(percent_decode(rest(name).expect("its name")).as_deref(), Ok(&**found));
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_of_requests_holds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/api_request");
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

//! What the fuzzers of `fuzz/` call. Their corpus runs as an ordinary test as well, so that what a fuzzer has found once is
//! looked at on every run.

use crate::answer::{self, Body};
use crate::event::{Facts, Payload, Stamp};
use crate::policy::Grant;
use crate::selection::Selection;

/// Most actions of a kind in one answer.
const MAX_ACTIONS: usize = 100;

/// An answer of a function, as one of the Invoke API, of an authorizer, and over HTTP. What cannot be meant is a failure, and
/// what is done for a client is within bounds and nobody else's channel.
pub fn answer(bytes: &[u8]) {
    for has_failed in [false, true] {
        match answer::of_lambda(200, has_failed, bytes) {
            Ok(reply) => {
                assert!(!has_failed && reply.status.is_none_or(|status| (100..600).contains(&status)));
                assert!(!matches!(&reply.body, Body::Text(text) if text.is_empty()));
                let actions = reply.actions;
                assert!(actions.subscribe.len().max(actions.publish.len()) <= MAX_ACTIONS);
                assert!(actions.publish.iter().all(|message| !message.channel.as_str().starts_with('$')));
                assert!(actions.close.is_none_or(|(code, _)| (1000..5000).contains(&code)));
            }
            Err(failure) => assert!(!failure.message().is_empty() && !failure.name().is_empty()),
        }
    }
    assert!(answer::of_lambda(500, false, bytes).is_err());
    assert!(answer::error_message(bytes).len() <= 512);
    _ = answer::of_http(200, None, bytes);
    if let Ok(grant) = Grant::parse(bytes) {
        assert!(!grant.principal_id.is_empty());
        _ = (grant.allows("arn:aws:execute-api:r:1:chat/dev/$connect"), grant.expires_at_ms());
    }
}

/// A message of a client: it selects a route or none, and its event is JSON with exactly its text.
pub fn message(bytes: &[u8]) {
    let Ok(selection) = "$request.body.action".parse::<Selection>() else { return };
    let (facts, stamp) = (Facts::default(), Stamp::new(0));
    let payload = match std::str::from_utf8(bytes) {
        Ok(text) => {
            assert!(selection.evaluate(text).is_none_or(|key| !key.is_empty()));
            Payload::Text(text)
        }
        Err(_) => Payload::Binary(bytes),
    };
    let event = facts.message(&stamp, "$default", None, payload);
    let event: serde_json::Value = serde_json::from_slice(&event).unwrap_or_default();
    let body = event.get("body").and_then(serde_json::Value::as_str).unwrap_or_default();
    let is_base64 = event.get("isBase64Encoded").and_then(serde_json::Value::as_bool);
    match payload {
        Payload::Text(text) => assert_eq!((body, is_base64), (text, Some(false))),
        Payload::Binary(_) => assert_eq!(is_base64, Some(true)),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_finds_nothing() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/aws_answers");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            super::answer(&bytes);
            super::message(&bytes);
            seen += 1;
        }
        assert!(seen >= 5);
    }
}

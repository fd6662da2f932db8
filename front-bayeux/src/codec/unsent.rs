//! Events out of frames that a dead socket did not take.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::message::field;

/// The event objects in `frames`, in order. Replies are left out: whoever waited for them has asked
/// again. A frame whose head is gone was half on the wire, which is all that a broken socket loses.
pub(crate) fn unsent_events(frames: &[Bytes], max_bytes: usize) -> Vec<Bytes> {
    let texts = frames.iter().filter_map(|frame| websocket::decode::text_of(frame, max_bytes));
    texts.flat_map(|text| events_of(&text)).collect()
}

fn events_of(text: &Bytes) -> Vec<Bytes> {
    let Ok(text_str) = std::str::from_utf8(text) else { return Vec::new() };
    let objects: Vec<&RawValue> = serde_json::from_str(text_str).unwrap_or_default();
    let events = objects.into_iter().filter(|object| field(object, "data").is_some());
    events.map(|event| text.slice_ref(event.get().as_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use websocket::encode;

    use super::*;

    #[test]
    fn events_come_back_and_replies_do_not() {
        let text = |text: &str| encode::frame(encode::TEXT, text.as_bytes());
        let long = format!("[{{\"channel\":\"/a\",\"data\":\"{}\"}}]", "x".repeat(1000));
        let whole = text(r#"[{"channel":"/a","data":1}]"#);
        let frames = [
            whole.slice(1..),
            whole.clone(),
            encode::pong(b"[]"),
            text(r#"[{"channel":"/a","successful":true}]"#),
            text(r#"[{"channel":"/a","data":null},{"channel":"/meta/connect","successful":true}]"#),
            encode::deflated(long.as_bytes()),
            text("not json"),
        ];
        let got: Vec<String> = unsent_events(&frames, 10_000)
            .iter()
            .map(|event| String::from_utf8_lossy(event).into_owned())
            .collect();
        assert_eq!(
            got,
            [r#"{"channel":"/a","data":1}"#, r#"{"channel":"/a","data":null}"#, &long[1..long.len() - 1]]
        );
    }
}

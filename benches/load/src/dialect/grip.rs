//! Pushpin: streams that an origin holds by GRIP, and publishes to the control port.

/// Where the control port takes publishes.
pub(super) const PUBLISH_PATH: &str = "/publish/";

/// Any path reaches the origin, which holds the stream on the channel named by the rest of it.
pub(crate) const STREAM_PREFIX: &str = "/stream/";

/// Replaces `body` by a publish of one event. Channel and payload are the tool's own and need no escapes.
pub(super) fn publish_body(channel: &str, payload: &[u8], body: &mut Vec<u8>) {
    body.clear();
    for part in [
        br#"{"items":[{"channel":""#.as_slice(),
        channel.as_bytes(),
        br#"","formats":{"http-stream":{"content":"data: "#,
        payload,
        br#"\n\n"}}}]}"#,
    ] {
        body.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_json_with_one_server_sent_event() {
        let mut body = b"old".to_vec();
        publish_body("load/0/1", b"hi", &mut body);
        let json: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let item = &json["items"][0];
        assert_eq!(item["channel"], "load/0/1");
        assert_eq!(item["formats"]["http-stream"]["content"], "data: hi\n\n");
    }
}

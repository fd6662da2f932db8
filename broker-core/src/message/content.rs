//! What a message carries, and how it wants to be carried.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// The delivery effort a publisher asked for; each subscription caps it with its own. In order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Qos {
    /// At most once: dropped rather than queued for a slow reader.
    AtMostOnce,
    /// At least once.
    AtLeastOnce,
    /// Exactly once. The default for publishers without such a notion (HTTP, Bayeux, in process): the subscription
    /// alone decides.
    #[default]
    ExactlyOnce,
}

/// The media type of a payload, such as `application/json`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ContentType(Media);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Media {
    Fixed(&'static str),
    Other(Arc<str>),
}

impl ContentType {
    /// `application/json`
    pub const JSON: Self = Self(Media::Fixed("application/json"));
    /// `text/plain;charset=utf-8`
    pub const TEXT: Self = Self(Media::Fixed("text/plain;charset=utf-8"));
    /// `application/octet-stream`
    pub const BYTES: Self = Self(Media::Fixed("application/octet-stream"));

    /// Takes a media type as the publisher wrote it; nothing is checked. Those of [`well_known`](Self::well_known) cost
    /// no allocation.
    pub fn new(text: &str) -> Self {
        Self::well_known(text.as_bytes()).unwrap_or_else(|| Self(Media::Other(Arc::from(text))))
    }

    /// The type if it is one of the constants, or `text/plain`, written exactly so.
    pub fn well_known(text: &[u8]) -> Option<Self> {
        const PLAIN: ContentType = ContentType(Media::Fixed("text/plain"));
        let known = [Self::JSON, PLAIN, Self::TEXT, Self::BYTES];
        known.into_iter().find(|known| known.as_str().as_bytes() == text)
    }

    /// The type as text, parameters included.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Media::Fixed(text) => text,
            Media::Other(text) => text,
        }
    }

    /// Whether it is `application/json` or ends in `+json`, parameters and case aside (RFC 6839 §3.1).
    pub fn is_json(&self) -> bool {
        let essence = self.essence();
        let json = b"+json";
        essence.eq_ignore_ascii_case("application/json")
            || essence.len() > json.len()
                && essence.as_bytes()[essence.len() - json.len()..].eq_ignore_ascii_case(json)
    }

    /// Whether it is one of `text/*`.
    pub fn is_text(&self) -> bool {
        self.as_str().get(..5).is_some_and(|start| start.eq_ignore_ascii_case("text/"))
    }

    /// Bytes that are its own.
    pub(super) fn own_bytes(&self) -> usize {
        if let Media::Other(text) = &self.0 { text.len() } else { 0 }
    }

    fn essence(&self) -> &str {
        self.as_str().split(';').next().unwrap_or_default().trim()
    }
}

impl fmt::Debug for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What travels with a message beside its payload; each protocol carries what it can express.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Properties {
    /// Name and value pairs in the publisher's order, duplicates kept (MQTT 5.0 §3.3.2.3.7).
    pub user: Vec<(Box<str>, Box<str>)>,
    /// A JSON object as raw text: Bayeux `ext`.
    pub ext: Option<Bytes>,
    /// Where a reply is expected (MQTT 5.0 §3.3.2.3.5, *Response Topic*).
    pub reply_to: Option<Box<str>>,
    /// What the reply should carry along (MQTT 5.0 §3.3.2.3.6).
    pub correlation: Option<Bytes>,
    /// Whether the publisher says that the payload is UTF-8 (MQTT 5.0 §3.3.2.3.2); `None` if it said nothing.
    pub payload_is_utf8: Option<bool>,
}

impl Properties {
    pub(super) fn bytes(&self) -> usize {
        self.user.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>()
            + self.ext.as_ref().map_or(0, Bytes::len)
            + self.reply_to.as_ref().map_or(0, |topic| topic.len())
            + self.correlation.as_ref().map_or(0, Bytes::len)
            + 128
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_types_are_told_by_their_essence() {
        for (text, json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/cloudevents+json", true),
            ("application/json-seq", false),
            ("text/plain", false),
            ("+json", false),
        ] {
            assert_eq!(ContentType::new(text).is_json(), json, "{text}");
        }
        assert!(ContentType::new("TEXT/html").is_text());
        assert!(!ContentType::new("te").is_text());
    }
}

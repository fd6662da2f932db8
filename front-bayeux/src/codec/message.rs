//! What clients send: one object or an array of them (Bayeux 1.0, "Bayeux Message").
//!
//! A batch is parsed once, with slices of its text: `data`, `ext` and all that is not needed yet stay
//! the JSON text they were, so that no number, key order or spacing is lost.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// One message as it came. A field that was absent is `None`; one of the wrong type is kept, so
/// that whoever needs it can refuse it.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) channel: Option<&'a RawValue>,
    pub(crate) client_id: Option<&'a RawValue>,
    pub(crate) id: Option<&'a RawValue>,
    pub(crate) data: Option<&'a RawValue>,
    pub(crate) ext: Option<&'a RawValue>,
    pub(crate) advice: Option<&'a RawValue>,
    pub(crate) subscription: Option<&'a RawValue>,
    pub(crate) connection_type: Option<&'a RawValue>,
    pub(crate) version: Option<&'a RawValue>,
    pub(crate) connection_types: Option<&'a RawValue>,
    /// It carries a `timestamp`, so that its reply shall, too.
    pub(crate) stamped: bool,
    /// A field that came twice and decides who the client is or what the message is for. Who else reads the message may
    /// have believed the other one.
    pub(crate) repeated: Option<&'static str>,
}

/// Why a body is no batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseError {
    #[error("body is empty")]
    Empty,
    #[error("body is not UTF-8")]
    NotUtf8,
    #[error("body is neither an object nor an array of objects")]
    NotMessages,
    #[error("body is nested deeper than {max} levels")]
    TooDeep { max: usize },
    #[error("body has more than {max} messages")]
    TooMany { max: usize },
    #[error("body is not JSON: {0}")]
    Json(String),
}

/// Bounds on a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) max_depth: usize,
    pub(crate) max_messages: usize,
}

/// Reads a batch in one go; [`BatchParser`](super::batch::BatchParser) does it in steps.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn parse_batch(body: &[u8], bounds: Bounds) -> Result<Vec<Message<'_>>, ParseError> {
    let mut parser = super::batch::BatchParser::new(body, bounds);
    loop {
        if let std::ops::ControlFlow::Break(read) = parser.step() {
            return read;
        }
    }
}

/// Reads one message; `text` is from its first bracket to its last.
pub(super) fn parse_message(text: &[u8]) -> Result<Message<'_>, ParseError> {
    let text = std::str::from_utf8(text).map_err(|_| ParseError::NotUtf8)?;
    let mut parser = serde_json::Deserializer::from_str(text);
    let message = MessageSeed.deserialize(&mut parser).and_then(|message| parser.end().map(|()| message));
    message.map_err(|error| {
        if error.is_data() { ParseError::NotMessages } else { ParseError::Json(error.to_string()) }
    })
}

/// The string that a field holds; `None` if it is something else.
pub(crate) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text = raw.get();
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        // Fails on a lone surrogate, which no name of ours can hold.
        serde_json::from_str(text).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// Whether a field is an object.
pub(crate) fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

/// The one field `name` of the object `raw`; `None` if it is absent or `raw` is no object.
pub(crate) fn field<'a>(raw: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    struct Seed<'n>(&'n str);
    impl<'de> Visitor<'de> for Seed<'_> {
        type Value = Option<&'de RawValue>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some(Key(key)) = map.next_key()? {
                if key == self.0 {
                    found = Some(map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(found)
        }
    }
    if !is_object(raw) {
        return None;
    }
    serde_json::Deserializer::from_str(raw.get()).deserialize_map(Seed(name)).ok().flatten()
}

/// The integer that a field holds; fractions are cut, everything else is `None`.
pub(crate) fn integer(raw: &RawValue) -> Option<i64> {
    let text = raw.get();
    if let Ok(number) = text.parse::<i64>() {
        return Some(number);
    }
    let number: f64 = serde_json::from_str(text).ok()?;
    number.is_finite().then_some(number as i64)
}

/// The boolean that a field holds.
pub(crate) fn boolean(raw: &RawValue) -> Option<bool> {
    match raw.get() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// Why a field is no list of strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoStrings {
    WrongType,
    TooMany,
}

/// The strings of a field that is a string or an array of strings; no more than `max` are read.
pub(crate) fn strings(raw: &RawValue, max: usize) -> Result<Vec<Cow<'_, str>>, NoStrings> {
    struct Seed<'v, 'a> {
        names: &'v mut Vec<Cow<'a, str>>,
        max: usize,
    }
    impl<'de> Visitor<'de> for Seed<'_, 'de> {
        type Value = Result<(), NoStrings>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            while let Some(item) = seq.next_element::<&RawValue>()? {
                if self.names.len() >= self.max {
                    return Ok(Err(NoStrings::TooMany));
                }
                match string(item) {
                    Some(name) => self.names.push(name),
                    None => return Ok(Err(NoStrings::WrongType)),
                }
            }
            Ok(Ok(()))
        }
    }
    if let Some(one) = string(raw) {
        return Ok(vec![one]);
    }
    let mut names = Vec::new();
    let seed = Seed { names: &mut names, max };
    // What is behind the point where it stopped is JSON already: the field was read as a whole.
    match serde_json::Deserializer::from_str(raw.get()).deserialize_seq(seed) {
        Ok(Ok(())) => Ok(names),
        Ok(Err(why)) => Err(why),
        Err(_) if names.len() >= max => Err(NoStrings::TooMany),
        Err(_) => Err(NoStrings::WrongType),
    }
}

/// The fields of the object `raw` by their names, as many as `max`; none if it is something else.
pub(crate) fn fields(raw: &RawValue, max: usize) -> HashMap<Cow<'_, str>, &RawValue, ahash::RandomState> {
    struct Seed<'v, 'a> {
        fields: &'v mut HashMap<Cow<'a, str>, &'a RawValue, ahash::RandomState>,
        max: usize,
    }
    impl<'de> Visitor<'de> for Seed<'_, 'de> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(Key(key)) = map.next_key()? {
                let value = map.next_value()?;
                if self.fields.len() < self.max {
                    self.fields.insert(key, value);
                }
            }
            Ok(())
        }
    }
    let mut fields = HashMap::default();
    let _ = serde_json::Deserializer::from_str(raw.get()).deserialize_map(Seed { fields: &mut fields, max });
    fields
}

/// A key; owned only if it is written with escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct MessageSeed;

impl<'de> DeserializeSeed<'de> for MessageSeed {
    type Value = Message<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed {
    type Value = Message<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut message = Message::default();
        while let Some(Key(key)) = map.next_key()? {
            let (field, deciding) = match &*key {
                "channel" => (&mut message.channel, Some("channel")),
                "clientId" => (&mut message.client_id, Some("clientId")),
                "subscription" => (&mut message.subscription, Some("subscription")),
                // Holds credentials.
                "ext" => (&mut message.ext, Some("ext")),
                "id" => (&mut message.id, None),
                "data" => (&mut message.data, None),
                "advice" => (&mut message.advice, None),
                "connectionType" => (&mut message.connection_type, None),
                "version" => (&mut message.version, None),
                "supportedConnectionTypes" => (&mut message.connection_types, None),
                other => {
                    message.stamped |= other == "timestamp";
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if field.is_some() {
                message.repeated = message.repeated.or(deciding);
            }
            // `Option<&RawValue>` would read `null` as absent, and `"data":null` is data.
            *field = Some(map.next_value()?);
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { max_depth: 512, max_messages: 100 };

    fn parse(body: &str) -> Result<Vec<Message<'_>>, ParseError> {
        parse_batch(body.as_bytes(), BOUNDS)
    }

    #[test]
    fn objects_and_arrays_are_batches() {
        let cases = [("{}", 1), ("[]", 0), (" [ {} , {} ] ", 2), ("{\"x\":[{}]}\n", 1)];
        for (body, expected) in cases {
            assert_eq!(parse(body).unwrap().len(), expected, "{body}");
        }
    }

    #[test]
    fn what_is_no_batch_is_an_error() {
        let too_many = format!("[{}{{}}]", "{},".repeat(100));
        let cases = [
            ("", ParseError::Empty),
            (" \n", ParseError::Empty),
            ("5", ParseError::NotMessages),
            ("\"x\"", ParseError::NotMessages),
            ("null", ParseError::NotMessages),
            ("[1]", ParseError::NotMessages),
            ("[{},null]", ParseError::NotMessages),
            ("[[{}]]", ParseError::NotMessages),
            (&too_many, ParseError::TooMany { max: 100 }),
        ];
        for (body, expected) in cases {
            assert_eq!(parse(body).unwrap_err(), expected, "{body}");
        }
        for body in [
            "{",
            "[",
            "[{}",
            "[{}]x",
            "{}{}",
            "[{},]",
            "{\"a\":}",
            "{\"a\":01}",
            "{\"data\":1e}",
            "{a:1}",
            "{'a':1}",
            "[{\"data\":\"\u{1}\"}]",
            "{\"data\":\"\\x\"}",
            "{\"data\":NaN}",
            "\u{feff}{}",
        ] {
            assert!(parse(body).is_err(), "{body}");
        }
        assert_eq!(parse_batch(b"{\"a\":\"\xff\"}", BOUNDS).unwrap_err(), ParseError::NotUtf8);
    }

    #[test]
    fn data_keeps_its_text() {
        for data in [
            "null",
            "false",
            "0",
            "\"\"",
            "{\"n\":12345678901234567890,\"x\":1e400}",
            "[1,[2,{\"a\":null}]]",
            "{ \"b\" : 1,\"a\":2, \"b\":3 }",
            "\"\\ud800\"",
            "\"\\u0041\\/\"",
        ] {
            let body = format!("[{{\"channel\":\"/a\",\"data\":{data}}}]");
            assert_eq!(parse(&body).unwrap()[0].data.unwrap().get(), data);
        }
        assert!(parse("{\"channel\":\"/a\"}").unwrap()[0].data.is_none());
    }

    #[test]
    fn names_written_with_escapes_are_the_same_names() {
        let messages =
            parse("{\"ch\\u0061nnel\":\"\\/a\\u002fb\",\"__proto__\":{},\"constructor\":1}").unwrap();
        assert_eq!(string(messages[0].channel.unwrap()).unwrap(), "/a/b");
    }

    #[test]
    fn fields_that_decide_are_noticed_when_they_come_twice() {
        let cases = [
            (r#"{"channel":"/a","channel":"/a"}"#, Some("channel")),
            (r#"{"channel":"/a","ch\u0061nnel":"/b"}"#, Some("channel")),
            (r#"{"clientId":"a","clientId":null}"#, Some("clientId")),
            (r#"{"subscription":"/a","subscription":[]}"#, Some("subscription")),
            (r#"{"ext":{},"ext":{}}"#, Some("ext")),
            (r#"{"id":1,"id":2,"data":1,"data":2,"x":1,"x":2}"#, None),
            (r#"{"channel":"/a","data":{"channel":"/a","channel":"/b"}}"#, None),
        ];
        for (body, expected) in cases {
            assert_eq!(parse(body).unwrap()[0].repeated, expected, "{body}");
        }
    }

    #[test]
    fn two_hundred_thousand_levels_are_refused() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let deep = format!("{{\"data\":{}1{}}}", open.repeat(200_000), close.repeat(200_000));
            assert_eq!(parse(&deep).unwrap_err(), ParseError::TooDeep { max: 512 });
            let unclosed = open.repeat(200_000);
            assert_eq!(parse(&unclosed).unwrap_err(), ParseError::TooDeep { max: 512 });
        }
        let legal = format!("{{\"data\":{}1{}}}", "[".repeat(511), "]".repeat(511));
        assert!(parse(&legal).is_ok());
        assert!(parse(&format!("{{\"data\":\"{}\"}}", "[\\\"".repeat(1000))).is_ok());
    }

    #[test]
    fn fields_are_read_by_type() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        assert_eq!(string(&raw("\"a\"")).as_deref(), Some("a"));
        assert_eq!(string(&raw("5")), None);
        assert_eq!(string(&raw("\"\\ud800\"")), None);
        assert_eq!(integer(&raw("60000")), Some(60_000));
        assert_eq!(integer(&raw("1.5e3")), Some(1500));
        assert_eq!(integer(&raw("\"5\"")), None);
        assert_eq!(integer(&raw("1e400")), None);
        assert_eq!(strings(&raw("[\"/a\",\"/b\"]"), 2).unwrap(), ["/a", "/b"]);
        assert_eq!(strings(&raw("\"/a\""), 2).unwrap(), ["/a"]);
        assert_eq!(strings(&raw("[]"), 2).unwrap().len(), 0);
        assert_eq!(strings(&raw("[1]"), 2), Err(NoStrings::WrongType));
        assert_eq!(strings(&raw("{}"), 2), Err(NoStrings::WrongType));
        assert_eq!(strings(&raw("[\"a\",\"b\",\"c\",7]"), 2), Err(NoStrings::TooMany));
        let positions = raw("{\"/a\":-1,\"\\/b\":\"x\",\"/c\":3}");
        let found = fields(&positions, 2);
        assert_eq!((found.len(), found["/a"].get(), found["/b"].get()), (2, "-1", "\"x\""));
        assert!(fields(&raw("[1]"), 2).is_empty());
        let ext = raw("{\"ack\":true,\"x\":{\"ack\":1},\"\\u0061ck\":false}");
        assert_eq!(field(&ext, "ack").map(RawValue::get), Some("false"));
        assert!(field(&ext, "nothing").is_none() && field(&raw("[1]"), "ack").is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn garbage_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_batch(&body, BOUNDS);
        }

        #[test]
        fn jsonish_never_panics(body in "[\\[\\]{}\",:a-c0-9\\\\u. ]{0,80}") {
            if let Ok(messages) = parse(&body) {
                let checked: serde_json::Value = serde_json::from_str(&body).unwrap();
                let expected = checked.as_array().map_or(1, Vec::len);
                prop_assert_eq!(messages.len(), expected);
            }
        }
    }
}

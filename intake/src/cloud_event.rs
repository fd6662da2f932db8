//! An event in the JSON format (CloudEvents 1.0), by its context attributes.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use envelope::{MAX_DEPTH, is_valid_json};
use serde::Deserializer as _;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};

use crate::error::Error;
use crate::payload::BASE64;
use crate::text::Text;

/// What Fanwire needs of a CloudEvent 1.0 in its JSON format; the rest is only checked for its form. What is published
/// of it is its exact text.
#[derive(Debug, Default)]
pub struct CloudEvent<'a> {
    specversion: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    kind: Option<Cow<'a, str>>,
    subject: Option<Cow<'a, str>>,
    channel: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
    data: Option<IgnoredAny>,
    data_base64: Option<Cow<'a, str>>,
}

/// Longest source and id together, in bytes: they are kept as an idempotency key.
const MAX_KEY_BYTES: usize = 4_096;

impl<'a> CloudEvent<'a> {
    /// Reads and checks an event.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::Event`], and [`Error::TooDeep`] beyond 512 levels.
    pub fn parse(event: &'a [u8]) -> Result<Self, Error> {
        let mut deserializer = serde_json::Deserializer::from_slice(event);
        let attributes =
            deserializer.deserialize_map(Members).and_then(|read| deserializer.end().map(|()| read));
        let attributes = attributes.map_err(|error| {
            // What is wrong as an event may further on be wrong as JSON, and that is the simpler thing to be told.
            let is_json = error.is_data() && serde_json::from_slice::<IgnoredAny>(event).is_ok();
            if is_json { Error::Event(error.to_string()) } else { Error::Json(error.to_string()) }
        })?;
        attributes.check()?;
        if !is_valid_json(event, MAX_DEPTH) {
            return Err(Error::TooDeep(MAX_DEPTH));
        }
        Ok(attributes)
    }

    fn check(&self) -> Result<(), Error> {
        let invalid = |what: &str| Err(Error::Event(what.to_owned()));
        for (name, value) in [
            ("specversion", &self.specversion),
            ("id", &self.id),
            ("source", &self.source),
            ("type", &self.kind),
        ] {
            if value.as_ref().is_none_or(|value| value.is_empty()) {
                return invalid(&format!("`{name}` is required and not empty"));
            }
        }
        if self.specversion.as_deref() != Some("1.0") {
            return invalid("`specversion` is not 1.0");
        }
        if self.subject.as_deref() == Some("") || self.channel.as_deref() == Some("") {
            return invalid("`subject` and `channel` are not empty where they are given");
        }
        if self.time.as_deref().is_some_and(|time| !is_timestamp(time)) {
            return invalid("`time` is no RFC 3339 timestamp");
        }
        if self.data.is_some() && self.data_base64.is_some() {
            return invalid("`data` and `data_base64` exclude one another");
        }
        if self.data_base64.as_deref().is_some_and(|data| BASE64.decode(data).is_err()) {
            return invalid("`data_base64` is not base64 (RFC 4648 §4)");
        }
        Ok(())
    }

    /// Where the event goes if the request does not say: its `channel`, its `subject`, or its `type`.
    pub fn channel(&self) -> &str {
        self.channel.as_deref().or(self.subject.as_deref()).or(self.kind.as_deref()).unwrap_or_default()
    }

    /// Source and id, which together name an event for ever: its idempotency key, up to 4,096 bytes and the one
    /// between them.
    ///
    /// # Errors
    /// [`Error::Event`] if they are longer.
    pub fn key(&self) -> Result<String, Error> {
        let (source, id) =
            (self.source.as_deref().unwrap_or_default(), self.id.as_deref().unwrap_or_default());
        if source.len() + id.len() > MAX_KEY_BYTES {
            return Err(Error::Event(format!("`source` and `id` are longer than {MAX_KEY_BYTES} bytes")));
        }
        Ok(format!("{source}\0{id}"))
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = CloudEvent<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event as an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<CloudEvent<'de>, A::Error> {
        let mut read = CloudEvent::default();
        while let Some(name) = members.next_key::<Text<'de>>()? {
            let slot = match &*name.0 {
                "specversion" => &mut read.specversion,
                "id" => &mut read.id,
                "source" => &mut read.source,
                "type" => &mut read.kind,
                "subject" => &mut read.subject,
                "channel" => &mut read.channel,
                "time" => &mut read.time,
                "data_base64" => &mut read.data_base64,
                "data" => {
                    if read.data.replace(members.next_value()?).is_some() {
                        return Err(A::Error::custom("`data` is given twice"));
                    }
                    continue;
                }
                other => {
                    // Other attributes have names of lower-case letters and digits, and simple values.
                    if !other.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
                        return Err(A::Error::custom(format_args!("{other:?} is no attribute name")));
                    }
                    members.next_value::<Scalar>()?;
                    continue;
                }
            };
            // `null` is the same as nothing.
            let value = members.next_value::<Option<Text<'de>>>()?.map(|text| text.0);
            if slot.is_some() {
                return Err(A::Error::custom(format_args!("`{}` is given twice", name.0)));
            }
            *slot = value;
        }
        Ok(read)
    }
}

/// An extension's value: a string, a boolean, a number or nothing.
#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "a string, a boolean or a number")]
enum Scalar {
    Text(#[expect(dead_code, reason = "only its type counts")] String),
    Flag(#[expect(dead_code, reason = "only its type counts")] bool),
    Number(#[expect(dead_code, reason = "only its type counts")] f64),
    Null(()),
}

/// `date "T" time offset` of RFC 3339 §5.6.
fn is_timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        digits.and_then(|digits| digits.parse::<u32>().ok())
    };
    let within = |from, to, range: std::ops::RangeInclusive<u32>| {
        number(from, to).is_some_and(|number| range.contains(&number))
    };
    let at = |place: usize, byte: &[u8]| bytes.get(place).is_some_and(|found| byte.contains(found));
    let head = number(0, 4).is_some()
        && at(4, b"-")
        && within(5, 7, 1..=12)
        && at(7, b"-")
        && within(8, 10, 1..=days_of(number(0, 4).unwrap_or_default(), number(5, 7).unwrap_or_default()))
        && at(10, b"Tt ")
        && within(11, 13, 0..=23)
        && at(13, b":")
        && within(14, 16, 0..=59)
        && at(16, b":")
        && within(17, 19, 0..=60);
    let mut rest = text.get(19..).unwrap_or_default();
    if let Some(fraction) = rest.strip_prefix('.') {
        let end = fraction.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(fraction.len());
        if end == 0 {
            return false;
        }
        rest = fraction.get(end..).unwrap_or_default();
    }
    let offset = rest.len() == 6 && rest.starts_with(['+', '-']) && {
        let start = text.len() - 6;
        within(start + 1, start + 3, 0..=23) && at(start + 3, b":") && within(start + 4, start + 6, 0..=59)
    };
    head && (rest.eq_ignore_ascii_case("z") || offset)
}

/// How many days a month has (RFC 3339 §5.7).
fn days_of(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIRED: &str = r#""specversion":"1.0","id":"1","source":"/s","type":"t.x""#;

    #[test]
    fn the_channel_is_the_most_specific_attribute() {
        for (more, channel) in [
            ("", "t.x"),
            (r#","subject":"s/1""#, "s/1"),
            (r#","subject":"s/1","channel":"c\/1""#, "c/1"),
            (r#","subject":null"#, "t.x"),
        ] {
            let event = format!("{{{REQUIRED}{more}}}");
            assert_eq!(CloudEvent::parse(event.as_bytes()).unwrap().channel(), channel, "{more}");
        }
        assert_eq!(
            CloudEvent::parse(format!("{{{REQUIRED}}}").as_bytes()).unwrap().key().unwrap(),
            "/s\u{0}1"
        );
    }

    #[test]
    fn events_that_are_none_are_refused() {
        let good = [
            format!(
                r#"{{{REQUIRED},"data":{{"a":[1]}},"n":1,"flag":true,"ext1":"x","dataschema":"u","none":null}}"#
            ),
            format!(r#"{{{REQUIRED},"time":"2026-11-20T20:16:00.5+01:00","data_base64":"AA=="}}"#),
        ];
        for event in good {
            assert!(CloudEvent::parse(event.as_bytes()).is_ok(), "{event}");
        }
        for (event, is_json) in [
            (String::new(), false),
            (format!("{{{REQUIRED}"), false),
            (format!("{{{REQUIRED}}} x"), false),
            ("[]".to_owned(), true),
            ("{}".to_owned(), true),
            (format!(r#"{{{REQUIRED},"id":"2"}}"#), true),
            (format!(r#"{{{REQUIRED},"data":1,"data":2}}"#), true),
            (format!(r#"{{{REQUIRED},"data":1,"data_base64":"AA=="}}"#), true),
            (format!(r#"{{{REQUIRED},"data_base64":"***"}}"#), true),
            (format!(r#"{{{REQUIRED},"data_base64":"a"}}"#), true),
            (format!(r#"{{{REQUIRED},"data_base64":5}}"#), true),
            (format!(r#"{{{REQUIRED},"ext":{{}}}}"#), true),
            (format!(r#"{{{REQUIRED},"Ext":1}}"#), true),
            (format!(r#"{{{REQUIRED},"time":"yesterday"}}"#), true),
            (format!(r#"{{{REQUIRED},"subject":""}}"#), true),
            (REQUIRED.replace("1.0", "0.3"), false),
            (format!("{{{}}}", REQUIRED.replace("1.0", "0.3")), true),
            (format!("{{{}}}", REQUIRED.replace("\"1\"", "1")), true),
            (format!("{{{}}}", REQUIRED.replace("\"/s\"", "\"\"")), true),
        ] {
            match CloudEvent::parse(event.as_bytes()) {
                Err(Error::Event(_)) => assert!(is_json, "{event}"),
                Err(Error::Json(_)) => assert!(!is_json, "{event}"),
                other => panic!("{event}: {other:?}"),
            }
        }
    }

    #[test]
    fn times_have_an_offset() {
        for time in [
            "2026-11-20T20:16:00Z",
            "2026-11-20t20:16:60.123456789z",
            "2024-02-29T00:00:00-23:59",
            "2000-02-29T00:00:00Z",
        ] {
            assert!(is_timestamp(time), "{time}");
        }
        for time in [
            "",
            "2026-11-20",
            "2026-11-20T20:16:00",
            "2026-13-20T20:16:00Z",
            "2026-02-30T20:16:00Z",
            "2026-02-29T20:16:00Z",
            "1900-02-29T20:16:00Z",
            "2026-04-31T20:16:00Z",
            "2026-11-20T24:16:00Z",
            "2026-11-20T20:16:00.Z",
            "2026-11-20T20:16:00+1:00",
            "2026-11-20T20:16:00+01:00 ",
            "2026-11-20T20:16:0éZ",
            "+026-11-20T20:16:00Z",
        ] {
            assert!(!is_timestamp(time), "{time}");
        }
    }
}

//! One item of a request in JSON, as `/v1/publish` takes it.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use base64::Engine;
use broker_core::{ContentType, SubscriberKey};
use bytes::Bytes;
use envelope::{MAX_DEPTH, is_valid_json};
use serde::Deserializer as _;
use serde::de::{self, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::Error;
use crate::name::target;
use crate::option::{event, idempotency_key, ttl};
use crate::payload::{BASE64, own};
use crate::publication::Publication;
use crate::text::{Text, given};

/// A message for one channel or several.
#[derive(Debug)]
#[non_exhaustive]
pub struct Item<'a> {
    /// Where it goes.
    pub channels: Channels<'a>,
    /// See [`Publication::payload`].
    pub payload: Bytes,
    /// The payload's media type.
    pub content_type: Option<ContentType>,
    /// See [`event`](crate::event()).
    pub event: Option<Cow<'a, str>>,
    /// See [`ttl`](crate::ttl()).
    pub ttl: Option<Duration>,
    /// Whether it becomes its channels' retained message.
    pub retain: bool,
    /// The one subscriber that does not get it.
    pub exclude: Option<SubscriberKey>,
    /// The idempotency key, on each of its channels.
    pub key: Option<Cow<'a, str>>,
}

/// Channels by their names, which are not checked yet: each is a mistake of its own.
#[derive(Debug)]
pub enum Channels<'a> {
    /// One, answered by itself.
    One(Text<'a>),
    /// Several, answered one by one.
    Several(Vec<Text<'a>>),
}

/// How items are read.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Reading {
    /// Channels of one item at most.
    pub max_channels: usize,
    /// The subscriber that `exclude` names, in the front's own text form of connections.
    pub connection: fn(&str) -> Option<SubscriberKey>,
}

impl Reading {
    /// With the bound of channels, and the front's own text form of connections.
    pub fn new(max_channels: usize, connection: fn(&str) -> Option<SubscriberKey>) -> Self {
        Self { max_channels, connection }
    }
}

impl<'a> Item<'a> {
    /// Reads an item, an object of JSON: `channel` or `channels`, one of `data` (any JSON, kept as its exact text),
    /// `text` and `base64`, and `content_type`, `event`, `key`, `ttl` in seconds, `retain` and `exclude`. `text` is a
    /// part of `body`.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::Shape`], [`Error::Item`], [`Error::TooDeep`], [`Error::TooMany`], [`Error::Option`].
    pub fn read(text: &'a [u8], body: &Bytes, reading: Reading) -> Result<Self, Error> {
        let sent = parse(text)?;
        let payload = payload(&sent, body)?;
        let default_type = match &sent {
            Sent { data: Some(_), .. } => ContentType::JSON,
            Sent { text: Some(_), .. } => ContentType::TEXT,
            _ => ContentType::BYTES,
        };
        let event = sent.event.map(|name| event(name.0)).transpose()?;
        let key = sent.key.map(|key| idempotency_key(key.0)).transpose()?;
        let ttl = sent.ttl.map(ttl).transpose()?;
        let exclude = sent.exclude.map(|id| exclude(&id, reading)).transpose()?;
        let content_type = match sent.content_type {
            None => default_type,
            Some(text) if text.len() <= 256 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => {
                ContentType::new(&text)
            }
            Some(_) => return Err(Error::Item("`content_type` is not up to 256 printable ASCII characters")),
        };
        let channels = match (sent.channel, sent.channels) {
            (Some(channel), None) => Channels::One(channel),
            (None, Some(channels)) => {
                let texts = parse_array(channels.get().as_bytes(), reading.max_channels)?;
                let names = texts.iter().map(|text| serde_json::from_str::<Text<'_>>(text.get()));
                let names: Result<Vec<_>, _> = names.collect();
                Channels::Several(names.map_err(|_| Error::Item("`channels` is an array of strings"))?)
            }
            (Some(_), Some(_)) => return Err(Error::Item("`channel` and `channels` exclude one another")),
            (None, None) => return Err(Error::Item("`channel` or `channels` is missing")),
        };
        let retain = sent.retain.unwrap_or(false);
        Ok(Item { channels, payload, content_type: Some(content_type), event, ttl, retain, exclude, key })
    }

    /// The same with `key`, if it has none of its own.
    #[must_use]
    pub fn or_key(mut self, key: Option<Cow<'a, str>>) -> Self {
        self.key = self.key.or(key);
        self
    }

    /// The message for one of its channels.
    pub(crate) fn publication(&self, channel: &str) -> Result<Publication<'_>, Error> {
        Ok(Publication {
            channel: target(channel)?,
            payload: self.payload.clone(),
            content_type: self.content_type.clone(),
            event: self.event.as_deref().map(Cow::Borrowed),
            ttl: self.ttl,
            retain: self.retain,
            exclude: self.exclude,
            key: self.key.as_deref().map(Cow::Borrowed),
        })
    }
}

fn exclude(id: &str, reading: Reading) -> Result<SubscriberKey, Error> {
    let invalid = || Error::Option { name: "exclude", why: "not a connection id".to_owned() };
    (reading.connection)(id).ok_or_else(invalid)
}

/// The key of the item at a place, under that of its request. No client's key holds a NUL.
pub fn key_at(key: &str, place: usize) -> Cow<'static, str> {
    Cow::Owned(format!("{key}\0{place}"))
}

/// One item as it is sent. Strings are borrowed where they hold no escapes; `data` always is.
#[derive(serde::Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object with `channel` or `channels` and one of `data`, `text`, `base64`"
)]
struct Sent<'a> {
    #[serde(borrow, default, deserialize_with = "given")]
    channel: Option<Text<'a>>,
    /// Read only up to its bound.
    #[serde(borrow, default, deserialize_with = "given")]
    channels: Option<&'a RawValue>,
    /// `null` is a payload.
    #[serde(borrow, default, deserialize_with = "given")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "given")]
    text: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "given")]
    base64: Option<Text<'a>>,
    #[serde(borrow)]
    content_type: Option<Text<'a>>,
    #[serde(borrow)]
    event: Option<Text<'a>>,
    #[serde(borrow)]
    key: Option<Text<'a>>,
    ttl: Option<f64>,
    retain: Option<bool>,
    #[serde(borrow)]
    exclude: Option<Text<'a>>,
}

fn parse(text: &[u8]) -> Result<Sent<'_>, Error> {
    match serde_json::from_slice(text) {
        // serde would take an array for a list of the members' values.
        Ok(item) if text.trim_ascii_start().starts_with(b"{") => Ok(item),
        Err(error) if !error.is_data() => Err(Error::Json(error.to_string())),
        Err(error) if text.trim_ascii_start().starts_with(b"{") => Err(Error::Shape(error.to_string())),
        _ => Err(Error::Item("an item is an object")),
    }
}

fn payload(sent: &Sent<'_>, body: &Bytes) -> Result<Bytes, Error> {
    match (sent.data, &sent.text, &sent.base64) {
        (Some(data), None, None) => {
            let data = data.get().as_bytes();
            if !is_valid_json(data, MAX_DEPTH) {
                // serde_json took the syntax for good, so the depth it is.
                return Err(Error::TooDeep(MAX_DEPTH));
            }
            Ok(own(data, body, body.len()))
        }
        (None, Some(text), None) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        (None, None, Some(base64)) => match BASE64.decode(base64.as_bytes()) {
            Ok(bytes) => Ok(bytes.into()),
            Err(_) => Err(Error::Item("`base64` is not base64 (RFC 4648 §4)")),
        },
        (None, None, None) => Err(Error::Item("one of `data`, `text` and `base64` is missing")),
        _ => Err(Error::Item("`data`, `text` and `base64` exclude one another")),
    }
}

/// The texts of an array's items, at most `max`: the rest is not even kept.
///
/// # Errors
/// [`Error::Json`], [`Error::TooMany`].
pub fn parse_array(body: &[u8], max: usize) -> Result<Vec<&RawValue>, Error> {
    struct Items {
        max: usize,
    }

    impl<'de> Visitor<'de> for Items {
        type Value = Option<Vec<&'de RawValue>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of items")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(item) = items.next_element()? {
                all.push(item);
                if all.len() > self.max {
                    while items.next_element::<de::IgnoredAny>()?.is_some() {}
                    return Ok(None);
                }
            }
            Ok(Some(all))
        }
    }

    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let items = deserializer.deserialize_seq(Items { max });
    let items = items.and_then(|items| deserializer.end().map(|()| items));
    items.map_err(|error| Error::Json(error.to_string()))?.ok_or(Error::TooMany(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_borrows_its_data_and_knows_null_from_nothing() {
        let item = parse(br#"{"channel":"a","data": {"n":1e400} }"#).unwrap();
        assert_eq!(item.data.unwrap().get(), r#"{"n":1e400}"#);
        let item = parse(br#"{"channel":"a","data":null}"#).unwrap();
        assert_eq!(item.data.unwrap().get(), "null");
        assert!(parse(br#"{"channel":"a"}"#).unwrap().data.is_none());
        for wrong in [r#"{"chanel":"a"}"#, r#"{"channel":"a","channel":"b"}"#, r#"{"channel":1}"#] {
            assert!(matches!(parse(wrong.as_bytes()), Err(Error::Shape(_))), "{wrong}");
        }
        for wrong in ["[]", "1", "null", r#"["a",null,1,null,null,null,null,null,null,null,null]"#] {
            assert!(matches!(parse(wrong.as_bytes()), Err(Error::Item(_))), "{wrong}");
        }
    }

    #[test]
    fn deep_data_is_no_danger_to_the_stack() {
        let depth = 200_000;
        let deep = format!("{{\"channel\":\"a\",\"data\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        let item = parse(deep.as_bytes()).unwrap();
        assert!(matches!(payload(&item, &Bytes::new()), Err(Error::TooDeep(_))));
    }

    #[test]
    fn arrays_are_bounded_while_they_are_read() {
        assert_eq!(parse_array(b"[1, {} ]", 2).unwrap().len(), 2);
        assert!(matches!(parse_array(b"[1,2,3]", 2), Err(Error::TooMany(2))));
        for wrong in ["[1,2,3", "[1", "[1] x", "[1,]", "{}"] {
            assert!(matches!(parse_array(wrong.as_bytes(), 2), Err(Error::Json(_))), "{wrong}");
        }
    }
}

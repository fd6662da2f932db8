//! `POST /v1/publish` with JSON: one item, or an array of them.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use broker_core::ContentType;
use bytes::Bytes;
use envelope::{MAX_DEPTH, is_valid_json};
use http_edge::Problem;
use serde::Deserializer as _;
use serde::de::{self, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::options::{event, exclude, idempotency_key, ttl};
use super::{Gate, Publication, Publisher, Turn, own};
use crate::error::Error;
use crate::name;
use crate::stats::Counters;
use crate::text::{Text, given};

/// One item as it is sent. Strings are borrowed where they hold no escapes; `data` always is.
#[derive(serde::Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object with `channel` or `channels` and one of `data`, `text`, `base64`"
)]
struct Item<'a> {
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

/// What the request is answered with.
pub(crate) struct Results {
    /// One JSON document.
    pub(crate) json: Vec<u8>,
}

/// Publishes the item, or the array of items, in `body`. A bad item harms only itself; a single one is an error of the
/// whole request.
///
/// `key` is the request's own idempotency key: it stands for that of a single item, and with its place for that of each
/// item of an array, where the item has none.
pub(crate) async fn publish_items(
    gate: &Gate,
    publisher: &Publisher,
    key: Option<&str>,
    body: &Bytes,
) -> Result<Results, Error> {
    let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let max = gate.max_batch;
    let mut batch = Batch::default();
    let mut turn = Turn::new();
    if is_array {
        for (place, item) in parse_array(body, max)?.into_iter().enumerate() {
            let key = key.map(|key| key_at(key, place));
            let item = item.get().as_bytes();
            batch.take(gate, publish_item(gate, publisher, item, body, key, &mut turn).await);
        }
    } else {
        match publish_item(gate, publisher, body, body, key.map(Cow::Borrowed), &mut turn).await? {
            Answer::One(json) => return Ok(Results { json }),
            Answer::Several(answers) => batch.add(gate, answers),
        }
    }
    Ok(Results { json: batch.finish() })
}

/// Publishes one line of a stream; the answer is one line of JSON too.
pub(crate) async fn publish_line(
    gate: &Gate,
    publisher: &Publisher,
    key: Option<Cow<'_, str>>,
    line: &Bytes,
    turn: &mut Turn,
) -> Vec<u8> {
    // A stream of lines may outlive the configuration that let it in.
    let published = match gate.still_holds(&publisher.principal) {
        true => publish_item(gate, publisher, line, line, key, turn).await,
        false => Err(Error::RightsChanged),
    };
    match published {
        Ok(Answer::One(json)) => json,
        Ok(Answer::Several(answers)) => {
            let mut batch = Batch::default();
            batch.add(gate, answers);
            batch.finish()
        }
        Err(error) => {
            Counters::add(&gate.counters.failed_items);
            error_json(error)
        }
    }
}

/// The key of the item at a place, under that of its request. No client's key holds a NUL.
pub(crate) fn key_at(key: &str, place: usize) -> Cow<'static, str> {
    Cow::Owned(format!("{key}\0{place}"))
}

/// What one item was answered with.
pub(crate) enum Answer {
    /// For `channel`.
    One(Vec<u8>),
    /// For `channels`, one for each.
    Several(Vec<Result<Vec<u8>, Error>>),
}

/// Results gathered in the order of the items.
#[derive(Default)]
pub(crate) struct Batch {
    results: Vec<u8>,
    errors: usize,
}

impl Batch {
    pub(crate) fn take(&mut self, gate: &Gate, answer: Result<Answer, Error>) {
        match answer {
            Ok(Answer::One(json)) => self.push(&json),
            Ok(Answer::Several(answers)) => {
                let mut inner = Batch::default();
                inner.add(gate, answers);
                self.errors += inner.errors;
                self.push(&inner.finish());
            }
            Err(error) => self.add(gate, vec![Err(error)]),
        }
    }

    fn add(&mut self, gate: &Gate, answers: Vec<Result<Vec<u8>, Error>>) {
        for answer in answers {
            match answer {
                Ok(json) => self.push(&json),
                Err(error) => {
                    Counters::add(&gate.counters.failed_items);
                    self.errors += 1;
                    self.push(&error_json(error));
                }
            }
        }
    }

    fn push(&mut self, json: &[u8]) {
        if !self.results.is_empty() {
            self.results.push(b',');
        }
        self.results.extend_from_slice(json);
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        let mut out = format!("{{\"errors\":{},\"results\":[", self.errors).into_bytes();
        out.extend_from_slice(&self.results);
        out.extend_from_slice(b"]}");
        out
    }
}

fn error_json(error: Error) -> Vec<u8> {
    format!("{{\"error\":{}}}", Problem::from(error).to_json()).into_bytes()
}

async fn publish_item<'a>(
    gate: &Gate,
    publisher: &Publisher,
    text: &'a [u8],
    body: &Bytes,
    default_key: Option<Cow<'a, str>>,
    turn: &mut Turn,
) -> Result<Answer, Error> {
    let item = parse_item(text)?;
    let payload = payload(&item, body)?;
    let default_type = match &item {
        Item { data: Some(_), .. } => ContentType::JSON,
        Item { text: Some(_), .. } => ContentType::TEXT,
        _ => ContentType::BYTES,
    };
    let event = item.event.map(|name| event(name.0)).transpose()?;
    let key = item.key.map(|key| idempotency_key(key.0)).transpose()?.or(default_key);
    let ttl = item.ttl.map(ttl).transpose()?;
    let exclude = item.exclude.map(|id| exclude(&id)).transpose()?;
    let content_type = match item.content_type {
        None => default_type,
        Some(text) if text.len() <= 256 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => {
            ContentType::new(&text)
        }
        Some(_) => return Err(Error::Item("`content_type` is not up to 256 printable ASCII characters")),
    };
    let publish = |channel: &str| {
        let item = Publication {
            channel: name::target(channel)?,
            payload: payload.clone(),
            content_type: Some(content_type.clone()),
            event: event.clone(),
            ttl,
            retain: item.retain.unwrap_or(false),
            exclude,
            key: key.clone(),
        };
        let mut json = Vec::with_capacity(128);
        gate.publish(publisher, item)?.write_to(&mut json);
        Ok(json)
    };
    match (&item.channel, &item.channels) {
        (Some(channel), None) => {
            turn.take().await;
            publish(channel).map(Answer::One)
        }
        (None, Some(channels)) => {
            let texts = parse_array(channels.get().as_bytes(), gate.max_batch)?;
            let names = texts.iter().map(|text| serde_json::from_str::<Text<'_>>(text.get()));
            let names: Result<Vec<_>, _> = names.collect();
            let names = names.map_err(|_| Error::Item("`channels` is an array of strings"))?;
            let mut answers = Vec::with_capacity(names.len());
            for name in &names {
                turn.take().await;
                answers.push(publish(name));
            }
            Ok(Answer::Several(answers))
        }
        (Some(_), Some(_)) => Err(Error::Item("`channel` and `channels` exclude one another")),
        (None, None) => Err(Error::Item("`channel` or `channels` is missing")),
    }
}

fn parse_item(text: &[u8]) -> Result<Item<'_>, Error> {
    match serde_json::from_slice(text) {
        // serde would take an array for a list of the members' values.
        Ok(item) if text.trim_ascii_start().starts_with(b"{") => Ok(item),
        Err(error) if !error.is_data() => Err(Error::Json(error.to_string())),
        Err(error) if text.trim_ascii_start().starts_with(b"{") => Err(Error::Shape(error.to_string())),
        _ => Err(Error::Item("an item is an object")),
    }
}

fn payload(item: &Item<'_>, body: &Bytes) -> Result<Bytes, Error> {
    match (item.data, &item.text, &item.base64) {
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

/// Takes what encoders differ in: padding or none, and loose bits at the end.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The texts of an array's items, at most `max`: the rest is not even kept.
pub(crate) fn parse_array(body: &[u8], max: usize) -> Result<Vec<&RawValue>, Error> {
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
        let item = parse_item(br#"{"channel":"a","data": {"n":1e400} }"#).unwrap();
        assert_eq!(item.data.unwrap().get(), r#"{"n":1e400}"#);
        let item = parse_item(br#"{"channel":"a","data":null}"#).unwrap();
        assert_eq!(item.data.unwrap().get(), "null");
        assert!(parse_item(br#"{"channel":"a"}"#).unwrap().data.is_none());
        for wrong in [r#"{"chanel":"a"}"#, r#"{"channel":"a","channel":"b"}"#, r#"{"channel":1}"#] {
            assert!(matches!(parse_item(wrong.as_bytes()), Err(Error::Shape(_))), "{wrong}");
        }
        for wrong in ["[]", "1", "null", r#"["a",null,1,null,null,null,null,null,null,null,null]"#] {
            assert!(matches!(parse_item(wrong.as_bytes()), Err(Error::Item(_))), "{wrong}");
        }
    }

    #[test]
    fn deep_data_is_no_danger_to_the_stack() {
        let depth = 200_000;
        let deep = format!("{{\"channel\":\"a\",\"data\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        let item = parse_item(deep.as_bytes()).unwrap();
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

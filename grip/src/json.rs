//! Objects of JSON, member by member, so that each error names the member.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Malformed, Problem};

/// Most headers of one answer.
const MAX_HEADERS: usize = 200;

/// An object whose members were not looked at yet.
#[derive(Debug)]
pub(crate) struct Object<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Object<'a> {
    /// All of a text.
    pub(crate) fn read(text: &'a [u8]) -> Result<Self, Malformed> {
        let raw: &RawValue = serde_json::from_slice(text)
            .map_err(|error| Malformed::new("", Problem::Json(error.to_string())))?;
        Self::of(raw)
    }

    pub(crate) fn of(raw: &'a RawValue) -> Result<Self, Malformed> {
        parse(raw, "an object").map(Self)
    }

    /// A member; `null` is as good as none.
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.get(name).copied().filter(|raw| raw.get() != "null")
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, raw)| (name.as_str(), *raw))
    }

    fn typed<T: Deserialize<'a>>(&self, name: &str, wanted: &'static str) -> Result<Option<T>, Malformed> {
        let read = |raw| parse(raw, wanted).map_err(|error| error.below(name));
        self.get(name).map(read).transpose()
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, Malformed> {
        self.typed(name, "a text")
    }

    /// A text that has to be there and to say something.
    pub(crate) fn needed_text(&self, name: &str) -> Result<String, Malformed> {
        match self.text(name)? {
            None => Err(missing(name)),
            Some(text) if text.is_empty() => Err(Malformed::new(name.to_owned(), Problem::Empty)),
            Some(text) => Ok(text),
        }
    }

    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, Malformed> {
        self.typed(name, "true or false")
    }

    pub(crate) fn object(&self, name: &str) -> Result<Option<Object<'a>>, Malformed> {
        let read = |raw| Self::of(raw).map_err(|error| error.below(name));
        self.get(name).map(read).transpose()
    }

    pub(crate) fn list(&self, name: &str) -> Result<Option<Vec<&'a RawValue>>, Malformed> {
        self.typed(name, "a list")
    }

    /// A whole number that is not negative; as a text it is taken too.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Malformed> {
        let Some(raw) = self.get(name) else { return Ok(None) };
        let text = raw.get();
        let digits = text.trim_matches('"').trim();
        let number = digits.parse().ok().or_else(|| {
            let number: f64 = digits.parse().ok()?;
            (number.fract() == 0.0 && (0.0..=1e15).contains(&number)).then_some(number as u64)
        });
        let wrong = || Malformed::new(name.to_owned(), Problem::Number(shortened(text)));
        number.map(Some).ok_or_else(wrong)
    }

    /// A list of texts.
    pub(crate) fn texts(&self, name: &str) -> Result<Option<Vec<String>>, Malformed> {
        let Some(list) = self.list(name)? else { return Ok(None) };
        let read = |(place, raw)| {
            parse(raw, "a text").map_err(|error: Malformed| error.below(&format!("{name}[{place}]")))
        };
        list.into_iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
    }

    /// Names with texts, in the order of the names.
    pub(crate) fn map(&self, name: &str) -> Result<Vec<(String, String)>, Malformed> {
        let Some(object) = self.object(name)? else { return Ok(Vec::new()) };
        let read = |(key, raw): (&str, _)| {
            let value = parse(raw, "a text").map_err(|error: Malformed| error.below(key).below(name))?;
            Ok((key.to_owned(), value))
        };
        object.members().map(read).collect()
    }

    /// Bytes as base64 in one member, or else as text in another.
    pub(crate) fn content(&self, binary: &str, text: &str) -> Result<Option<Bytes>, Malformed> {
        match self.text(binary)? {
            Some(encoded) => {
                let bytes = STANDARD.decode(encoded.trim());
                let wrong = |_| Malformed::new(binary.to_owned(), Problem::Base64);
                bytes.map(|bytes| Some(bytes.into())).map_err(wrong)
            }
            None => Ok(self.text(text)?.map(Bytes::from)),
        }
    }

    /// A status of a whole answer, and the words for it.
    pub(crate) fn status(&self) -> Result<(Option<StatusCode>, Option<String>), Malformed> {
        let status = match self.number("code")? {
            None => None,
            Some(code) => {
                let wrong = || Malformed::new("code", Problem::Status(code.to_string()));
                Some(status(code).ok_or_else(wrong)?)
            }
        };
        Ok((status, self.text("reason")?.filter(|reason| !reason.is_empty())))
    }

    /// Headers as an object, or as a list of pairs, which can repeat names. Those of the connection itself are left out.
    pub(crate) fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, Malformed> {
        let Some(raw) = self.get("headers") else { return Ok(Vec::new()) };
        let pairs: Vec<(String, String)> = if raw.get().starts_with('[') {
            parse(raw, "a list of pairs of texts").map_err(|error| error.below("headers"))?
        } else {
            self.map("headers")?
        };
        if pairs.len() > MAX_HEADERS {
            return Err(Malformed::new("headers", Problem::TooMany(MAX_HEADERS)));
        }
        let mut headers = Vec::with_capacity(pairs.len());
        for (name, value) in pairs {
            let wrong = |what: &str| Malformed::new("headers", Problem::Header(shortened(what)));
            let name: HeaderName = name.parse().map_err(|_| wrong(&name))?;
            let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| wrong(&value))?;
            if !is_of_the_connection(&name) {
                headers.push((name, value));
            }
        }
        Ok(headers)
    }
}

/// A status that an answer can end with.
pub(crate) fn status(code: u64) -> Option<StatusCode> {
    let code = u16::try_from(code).ok().filter(|code| (200..1000).contains(code))?;
    StatusCode::from_u16(code).ok()
}

/// Headers that say something of how the answer was sent, not of what it is.
fn is_of_the_connection(name: &HeaderName) -> bool {
    let names = ["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer"];
    names.contains(&name.as_str()) || matches!(name.as_str(), "transfer-encoding" | "upgrade")
}

pub(crate) fn missing(name: &str) -> Malformed {
    Malformed::new(name.to_owned(), Problem::Missing)
}

pub(crate) fn parse<'a, T: Deserialize<'a>>(raw: &'a RawValue, wanted: &'static str) -> Result<T, Malformed> {
    serde_json::from_str(raw.get()).map_err(|_| Malformed::new("", Problem::Type(wanted)))
}

/// So much of a wrong text as a line of a log has room for.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

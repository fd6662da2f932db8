//! What a publish says beside its payload.

use std::borrow::Cow;
use std::time::Duration;

use broker_core::SubscriberKey;
use http::HeaderValue;
use http_edge::Fields;
use intake::{event, idempotency_key, ttl};

use crate::error::Error;
use crate::query::{flag, invalid, parameters};

/// The options of `?…` and of the headers.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Options<'a> {
    pub(crate) ttl: Option<Duration>,
    /// `None` where nothing is said.
    pub(crate) retain: Option<bool>,
    pub(crate) event: Option<Cow<'a, str>>,
    pub(crate) exclude: Option<SubscriberKey>,
    pub(crate) key: Option<Cow<'a, str>>,
}

impl<'a> Options<'a> {
    /// Reads both; a parameter wins over its header. An unknown parameter is refused: `retian=true` would otherwise
    /// lose what it asks for.
    pub(crate) fn read(query: Option<&'a str>, fields: &Fields<'a>) -> Result<Self, Error> {
        match Self::read_with_channel(query, fields)? {
            (options, None) => Ok(options),
            (_, Some(_)) => Err(invalid("channel", "the channel stands in the path")),
        }
    }

    /// As [`Options::read`], where `?channel=` names the channel.
    pub(crate) fn read_with_channel(
        query: Option<&'a str>,
        fields: &Fields<'a>,
    ) -> Result<(Self, Option<Cow<'a, str>>), Error> {
        let mut channel = None;
        let mut options = Options::default();
        if let Some(name) = text("X-EventSource-Event", fields.x_eventsource_event)? {
            options.event = Some(event(name.into())?);
        }
        options.key = key_of(fields)?;
        let Some(query) = query else { return Ok((options, channel)) };
        for parameter in parameters(Some(query)) {
            let (name, value) = parameter?;
            match &*name {
                "ttl" => {
                    let secs = value.parse().map_err(|_| invalid("ttl", "not a number of seconds"))?;
                    options.ttl = Some(ttl(secs)?);
                }
                "retain" => options.retain = Some(flag("retain", &value)?),
                "event" => options.event = Some(event(value)?),
                "exclude" => options.exclude = Some(exclude(&value)?),
                "channel" => channel = Some(value),
                other => return Err(invalid(other, "unknown; known are ttl, retain, event, exclude")),
            }
        }
        Ok((options, channel))
    }
}

/// The request's idempotency key.
pub(crate) fn key_of<'a>(fields: &Fields<'a>) -> Result<Option<Cow<'a, str>>, Error> {
    let key = text("Idempotency-Key", fields.idempotency_key)?;
    Ok(key.map(|key| idempotency_key(key.into())).transpose()?)
}

fn text<'a>(name: &str, value: Option<&'a HeaderValue>) -> Result<Option<&'a str>, Error> {
    let text = value.map(|value| std::str::from_utf8(value.as_bytes())).transpose();
    text.map_err(|_| invalid(name, "not UTF-8"))
}

fn exclude(id: &str) -> Result<SubscriberKey, Error> {
    http_edge::parse_connection_id(id).ok_or_else(|| invalid("exclude", "not a connection id"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn read(query: &str) -> Result<Options<'_>, String> {
        Options::read(Some(query), &Fields::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn parameters_are_read_and_unknown_ones_refused() {
        let all = read("ttl=1.5&retain&event=a%20b").unwrap();
        assert_eq!(all.ttl, Some(Duration::from_millis(1500)));
        assert_eq!(all.retain, Some(true));
        assert_eq!(all.event.as_deref(), Some("a b"));
        assert_eq!(read("retain=false").unwrap().retain, Some(false));
        assert_eq!(read("").unwrap().retain, None);
        for wrong in [
            "ttl=-1",
            "ttl=NaN",
            "ttl=inf",
            "ttl=soon",
            "ttl=1e20",
            "retain=yes",
            "retian=true",
            "event=a%0Ab",
            "event=a%0D",
            "event=%00",
            "event=gap",
            "event=binary",
            "event=open",
            "event=error",
            "exclude=!",
            "ttl=1&ttl=2",
            "event=%ff",
            "event=%zz",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn headers_say_the_same_and_parameters_win() {
        let mut headers = HeaderMap::new();
        headers.insert("x-eventsource-event", HeaderValue::from_static("from header"));
        headers.insert("idempotency-key", HeaderValue::from_static("k 1"));
        let options = Options::read(None, &Fields::from(&headers)).unwrap();
        assert_eq!((options.event.as_deref(), options.key.as_deref()), (Some("from header"), Some("k 1")));
        let options = Options::read(Some("event=q"), &Fields::from(&headers)).unwrap();
        assert_eq!(options.event.as_deref(), Some("q"));
        for wrong in ["", "é", &"k".repeat(129)] {
            headers.insert("idempotency-key", HeaderValue::from_bytes(wrong.as_bytes()).unwrap());
            assert!(Options::read(None, &Fields::from(&headers)).is_err(), "{wrong}");
        }
    }
}

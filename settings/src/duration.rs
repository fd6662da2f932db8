//! Durations.

use std::fmt;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Setting;

/// No clock can tell the point in time that lies further ahead.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A duration: `"10s"`, `"1m 30s"`, `"250ms"`; 0 needs no unit. At most a hundred years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Setting<Duration> for Span {
    fn from_value(value: Duration) -> Self {
        Span(value)
    }
    fn into_value(self) -> Duration {
        self.0
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Span;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"10s\" or \"5m\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Span, E> {
                let duration = humantime::parse_duration(text).map_err(|_| {
                    E::custom(format_args!("`{text}` is not a duration such as \"10s\" or \"5m\""))
                })?;
                if duration > MAX_DURATION {
                    return Err(E::custom(format_args!("`{text}` is longer than a hundred years")));
                }
                Ok(Span(duration))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Span, E> {
                if number == 0 {
                    return Ok(Span(Duration::ZERO));
                }
                Err(E::custom(format_args!("`{number}` needs a unit, such as \"{number}s\"")))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Span, E> {
                match u64::try_from(number) {
                    Ok(number) => self.visit_u64(number),
                    Err(_) => Err(E::custom("a duration cannot be negative")),
                }
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// A duration where none at all would mean that something happens all the time, or can never succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub Duration);

impl Setting<Duration> for Period {
    fn from_value(value: Duration) -> Self {
        Period(value)
    }
    fn into_value(self) -> Duration {
        self.0
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Span(self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Span::deserialize(deserializer)? {
            Span(Duration::ZERO) => Err(D::Error::custom("0 is too short here, say how long")),
            Span(duration) => Ok(Period(duration)),
        }
    }
}

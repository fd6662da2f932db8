//! How durations, sizes and filters are written in a configuration.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The form of a value in the configuration, and the value itself.
pub(super) trait Setting<T> {
    fn from_value(value: T) -> Self;
    fn into_value(self) -> T;
}

macro_rules! plain {
    ($($type:ty),*) => { $(
        impl Setting<$type> for $type {
            fn from_value(value: $type) -> Self { value }
            fn into_value(self) -> $type { self }
        }
    )* };
}

plain!(bool, i64, u16, u32, u64, usize, String);

impl<T, S: Setting<T>> Setting<Option<T>> for Option<S> {
    fn from_value(value: Option<T>) -> Self {
        value.map(S::from_value)
    }
    fn into_value(self) -> Option<T> {
        self.map(S::into_value)
    }
}

impl<T, S: Setting<T>> Setting<Vec<T>> for Vec<S> {
    fn from_value(value: Vec<T>) -> Self {
        value.into_iter().map(S::from_value).collect()
    }
    fn into_value(self) -> Vec<T> {
        self.into_iter().map(S::into_value).collect()
    }
}

/// A duration: `"10s"`, `"1m 30s"`, `"250ms"`; 0 needs no unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

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
                humantime::parse_duration(text).map(Span).map_err(|_| {
                    E::custom(format_args!("`{text}` is not a duration such as \"10s\" or \"5m\""))
                })
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

/// Bytes: a number, or with a unit `"64 MiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) usize);

const UNITS: [(&str, u32); 4] = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl Size {
    fn parse(text: &str) -> Option<Self> {
        let end = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(end);
        let number: usize = number.parse().ok()?;
        let unit = match unit.trim() {
            "" => "B",
            unit => unit,
        };
        let (_, shift) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
        number.checked_mul(1 << shift).map(Size)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |shift: &u32| self.0 > 0 && self.0.is_multiple_of(1 << shift);
        match UNITS.iter().find(|(_, shift)| *shift > 0 && whole(shift)) {
            Some((unit, shift)) => write!(f, "{} {unit}", self.0 >> shift),
            None => self.0.fmt(f),
        }
    }
}

impl Setting<usize> for Size {
    fn from_value(value: usize) -> Self {
        Size(value)
    }
    fn into_value(self) -> usize {
        self.0
    }
}

impl Setting<u32> for Size {
    fn from_value(value: u32) -> Self {
        Size(value as usize)
    }
    fn into_value(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = self.to_string();
        if written.contains(' ') {
            serializer.serialize_str(&written)
        } else {
            serializer.serialize_u64(self.0 as u64)
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes or a size such as \"64 MiB\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
                Size::parse(text.trim())
                    .ok_or_else(|| E::custom(format_args!("`{text}` is not a size such as \"64 MiB\"")))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Size, E> {
                usize::try_from(number).map(Size).map_err(|_| E::custom("too large a size"))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Size, E> {
                usize::try_from(number).map(Size).map_err(|_| E::custom("a size cannot be negative"))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// A value that is written as its text: a filter, a pattern, a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text<T>(pub(super) T);

impl<T> Setting<T> for Text<T> {
    fn from_value(value: T) -> Self {
        Text(value)
    }
    fn into_value(self) -> T {
        self.0
    }
}

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_unit_and_written_with_the_largest_that_is_whole() {
        let cases = [
            ("0", Some(0), "0"),
            ("1000", Some(1000), "1000"),
            ("1024", Some(1024), "1 KiB"),
            ("64 MiB", Some(64 << 20), "64 MiB"),
            ("64mib", Some(64 << 20), "64 MiB"),
            ("3 GiB", Some(3 << 30), "3 GiB"),
            ("7 B", Some(7), "7"),
            ("64 MB", None, ""),
            ("MiB", None, ""),
            ("-1", None, ""),
            ("99999999999999 GiB", None, ""),
        ];
        for (text, bytes, written) in cases {
            let size = Size::parse(text);
            assert_eq!(size.map(|size| size.0), bytes, "{text}");
            if let Some(size) = size {
                assert_eq!(size.to_string(), written);
            }
        }
    }
}

//! Sizes in bytes.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Setting;

/// A number of bytes, alone or with a unit: `4096`, `"4 KiB"`, `"64 MiB"`, `"3 GiB"`; `"64 MB"` are 64,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub usize);

/// Those that a size is written with, the largest first.
const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Those that it may also be read with.
const OTHERS: [(&str, u64); 5] =
    [("B", 1), ("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000)];

impl Size {
    fn parse(text: &str) -> Option<Self> {
        let end = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(end);
        let number: u64 = number.parse().ok()?;
        let unit = match unit.trim() {
            "" => "B",
            unit => unit,
        };
        let (_, bytes) = UNITS.iter().chain(&OTHERS).find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
        usize::try_from(number.checked_mul(*bytes)?).ok().map(Size)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0 as u64;
        let whole = |bytes: &u64| size > 0 && size.is_multiple_of(*bytes);
        match UNITS.iter().find(|(_, bytes)| whole(bytes)) {
            Some((unit, bytes)) => write!(f, "{} {unit}", size / bytes),
            None => size.fmt(f),
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
            ("64 MB", Some(64_000_000), "62500 KiB"),
            ("2 TiB", Some(2 << 40), "2 TiB"),
            ("5kb", Some(5_000), "5000"),
            ("64 Mb/s", None, ""),
            ("1.5 MiB", None, ""),
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

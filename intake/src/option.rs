//! What a publish says beside its payload.

use std::borrow::Cow;
use std::time::Duration;

use envelope::is_reserved_event;

use crate::error::Error;

/// Longest event name in bytes.
const MAX_EVENT_BYTES: usize = 1_024;

/// Longest idempotency key in bytes.
const MAX_KEY_BYTES: usize = 128;

/// Longest time to live: a hundred years. A time beyond any clock is a mistake of units.
const MAX_TTL_SECS: f64 = 100.0 * 365.0 * 24.0 * 3600.0;

fn invalid(name: &'static str, why: impl Into<String>) -> Error {
    Error::Option { name, why: why.into() }
}

/// A time to live in seconds, fractions allowed, up to a hundred years.
///
/// # Errors
/// [`Error::Option`].
pub fn ttl(secs: f64) -> Result<Duration, Error> {
    if (0.0..=MAX_TTL_SECS).contains(&secs) {
        Ok(Duration::from_secs_f64(secs))
    } else {
        Err(invalid("ttl", "not between 0 and a hundred years, in seconds"))
    }
}

/// An event name, up to 1,024 bytes. A line break would let it forge other fields of an event stream, and NUL is no
/// text.
///
/// # Errors
/// [`Error::Option`].
pub fn event(name: Cow<'_, str>) -> Result<Cow<'_, str>, Error> {
    if name.len() > MAX_EVENT_BYTES {
        return Err(invalid("event", format!("longer than {MAX_EVENT_BYTES} bytes")));
    }
    if name.contains(['\r', '\n', '\0']) {
        return Err(invalid("event", "holds a line break or NUL"));
    }
    if is_reserved_event(&name) {
        return Err(invalid(
            "event",
            "`gap` and `binary` are what event streams themselves say, `open` and `error` what EventSource does",
        ));
    }
    Ok(name)
}

/// An idempotency key as clients give it: 1 to 128 printable ASCII characters.
///
/// # Errors
/// [`Error::Option`].
pub fn idempotency_key(key: Cow<'_, str>) -> Result<Cow<'_, str>, Error> {
    if (1..=MAX_KEY_BYTES).contains(&key.len()) && key.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        Ok(key)
    } else {
        Err(invalid("Idempotency-Key", "not 1 to 128 printable ASCII characters"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_bounds() {
        for secs in [-1.0, f64::NAN, f64::INFINITY, 1e20] {
            assert!(ttl(secs).is_err(), "{secs}");
        }
        assert_eq!(ttl(1.5).unwrap(), Duration::from_millis(1500));
        for name in ["a\nb", "a\r", "\0", "gap", "binary", "open", "error", &"e".repeat(1_025)] {
            assert!(event(name.into()).is_err(), "{name:?}");
        }
        assert!(event("a b".into()).is_ok());
        for key in ["", "é", &"k".repeat(129)] {
            assert!(idempotency_key(key.into()).is_err(), "{key:?}");
        }
        assert!(idempotency_key("k 1".into()).is_ok());
    }
}

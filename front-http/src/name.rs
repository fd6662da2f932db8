//! Names as they stand in addresses.

use std::borrow::Cow;

use http_edge::BadEncoding;
use intake::Error as Refusal;

use crate::error::Error;

/// The text of a path segment's rest, percent-decoded once: `%2F` is the same as `/`.
pub(crate) fn decode(encoded: &str) -> Result<Cow<'_, str>, Error> {
    http_edge::percent_decode(encoded).map_err(|error| {
        let why = match error {
            BadEncoding::Percent => "has a `%` without two hexadecimal digits behind it",
            _ => "is not UTF-8 once it is percent-decoded",
        };
        Error::Refused(Refusal::Inexpressible { name: encoded.to_owned(), why })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_slash_is_a_slash() {
        assert_eq!(decode("chat%2Froom1/%E2%82%AC").unwrap(), "chat/room1/€");
        for wrong in ["%ff", "%zz", "a%2"] {
            assert!(matches!(decode(wrong), Err(Error::Refused(Refusal::Inexpressible { .. }))), "{wrong}");
        }
    }
}

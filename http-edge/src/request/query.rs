//! Percent-encoding and the parameters of an address, read strictly: what cannot be read is an error and never becomes
//! other text, which could be the name of another channel.

use std::borrow::Cow;

/// Why encoded text cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BadEncoding {
    /// A `%` without two hexadecimal digits behind it.
    #[error("`%` stands without two hexadecimal digits behind it")]
    Percent,
    /// The decoded bytes are no text.
    #[error("not UTF-8 once it is percent-decoded")]
    NotUtf8,
}

/// A parameter that cannot be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("parameter `{name}`: {why}")]
#[non_exhaustive]
pub struct BadParameter {
    /// Its name; as it was sent if that is what cannot be read.
    pub name: String,
    /// What is wrong with it.
    pub why: BadEncoding,
}

/// A part of a path, percent-decoded once. `+` is itself.
///
/// # Errors
/// [`BadEncoding`], where a browser would take the text literally or put U+FFFD in its place.
pub fn percent_decode(text: &str) -> Result<Cow<'_, str>, BadEncoding> {
    if memchr::memchr(b'%', text.as_bytes()).is_none() { Ok(Cow::Borrowed(text)) } else { decode(text, b'+') }
}

/// The parameters of a query in their order, names and values decoded (`+` is a space), repeats and all. A parameter
/// without `=` has an empty value.
pub fn parameters(
    query: Option<&str>,
) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), BadParameter>> {
    let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty());
    parts.map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let name = decode(name, b' ').map_err(|why| BadParameter { name: name.to_owned(), why })?;
        match decode(value, b' ') {
            Ok(value) => Ok((name, value)),
            Err(why) => Err(BadParameter { name: name.into_owned(), why }),
        }
    })
}

/// `plus` is what a `+` stands for.
fn decode(text: &str, plus: u8) -> Result<Cow<'_, str>, BadEncoding> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || {
                    bytes.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or(BadEncoding::Percent)
                };
                let value = digit()? * 16 + digit()?;
                u8::try_from(value).map_err(|_| BadEncoding::Percent)?
            }
            b'+' => plus,
            other => other,
        });
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| BadEncoding::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_decoded_is_no_other_text() {
        for (text, decoded) in [
            ("", Ok("")),
            ("a/b", Ok("a/b")),
            ("a%2Fb+c", Ok("a/b+c")),
            ("%E2%82%ac", Ok("€")),
            ("%25zz", Ok("%zz")),
            ("%", Err(BadEncoding::Percent)),
            ("%2", Err(BadEncoding::Percent)),
            ("%zz", Err(BadEncoding::Percent)),
            ("%+1", Err(BadEncoding::Percent)),
            ("%ff", Err(BadEncoding::NotUtf8)),
            ("%E2%82", Err(BadEncoding::NotUtf8)),
        ] {
            assert_eq!(percent_decode(text).as_deref(), decoded.as_deref(), "{text}");
        }
    }

    #[test]
    fn parameters_keep_their_order_and_repeats() {
        let read: Vec<_> = parameters(Some("a=1&&b&a=x+y%26&c=%ff&%zz=1")).collect();
        let is = |name: &'static str, value: &'static str| Ok((name.into(), value.into()));
        let bad = |name: &str, why| Err(BadParameter { name: name.to_owned(), why });
        assert_eq!(
            read,
            [
                is("a", "1"),
                is("b", ""),
                is("a", "x y&"),
                bad("c", BadEncoding::NotUtf8),
                bad("%zz", BadEncoding::Percent)
            ]
        );
        assert_eq!(parameters(None).count(), 0);
    }
}

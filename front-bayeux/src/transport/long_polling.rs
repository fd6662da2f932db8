//! POST with JSON, or with a form whose `message` parameters are JSON.

use bytes::Bytes;
use http::HeaderValue;

use crate::codec::message::ParseError;
use crate::error::RequestFault;

/// The JSON texts of a POST: its body, or the `message` parameters of a form.
pub(super) fn messages(
    content_type: Option<&HeaderValue>,
    body: Bytes,
    max: usize,
) -> Result<Vec<Bytes>, RequestFault> {
    let content_type = content_type.map_or(&b""[..], HeaderValue::as_bytes);
    let media = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if media.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
        let texts: Vec<Bytes> = form_urlencoded::parse(&body)
            .filter(|(name, _)| name == "message")
            .map(|(_, value)| Bytes::from(value.into_owned()))
            // One too many, for whoever is told so.
            .take(max.saturating_add(1))
            .collect();
        return match texts.len() {
            0 => Err(RequestFault::NoMessage),
            count if count > max => Err(RequestFault::Parse(ParseError::TooMany { max })),
            _ => Ok(texts),
        };
    }
    // Scripts post with curl's defaults or none; a browser cannot send these across origins without
    // being asked first, except `text/plain`, which the origin check covers.
    let begins = |name: &[u8]| media.get(..name.len()).is_some_and(|it| it.eq_ignore_ascii_case(name));
    let ends = |name: &[u8]| {
        let at = media.len().checked_sub(name.len());
        at.and_then(|at| media.get(at..)).is_some_and(|it| it.eq_ignore_ascii_case(name))
    };
    if media.is_empty() || ends(b"json") || begins(b"text/") {
        return Ok(vec![body]);
    }
    Err(RequestFault::ContentType)
}

//! POST with JSON, or with a form whose `message` parameters are JSON.

use bytes::Bytes;
use http::header;
use http::request::Parts;

use crate::codec::message::ParseError;
use crate::error::RequestFault;

/// The JSON texts of a POST: its body, or the `message` parameters of a form.
pub(super) fn messages(parts: &Parts, body: Bytes, max: usize) -> Result<Vec<Bytes>, RequestFault> {
    let content_type = parts.headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
    let media =
        content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media == "application/x-www-form-urlencoded" {
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
    if media.is_empty() || media.ends_with("json") || media.starts_with("text/") {
        return Ok(vec![body]);
    }
    Err(RequestFault::ContentType)
}

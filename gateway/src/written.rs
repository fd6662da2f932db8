//! What those who configure calls write, whatever calls: ids, URLs and headers, in a file or over HTTP.

use http::{HeaderName, HeaderValue, Uri};

/// Longest id.
pub const MAX_ID_BYTES: usize = 64;

/// Headers that nobody sets but the broker.
const OWN_HEADERS: &[&str] = &[
    "host",
    "content-length",
    "content-type",
    "connection",
    "transfer-encoding",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
    "proxy-authorization",
    "expect",
];

/// Checks an id: 1 to 64 letters, digits, `-`, `_` and `.`.
///
/// # Errors
/// In words.
pub fn id(text: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=MAX_ID_BYTES).contains(&text.len()) && text.bytes().all(plain) {
        Ok(())
    } else {
        Err(format!("1 to {MAX_ID_BYTES} letters, digits, `-`, `_` and `.` are an id"))
    }
}

/// An http or https URL without credentials.
///
/// # Errors
/// In words, without credentials.
pub fn url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|_| format!("{text:?} is no URL"))?;
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("credentials do not stand in a URL".to_owned());
    }
    outgoing::Client::check(&url).map_err(|error| error.to_string())?;
    Ok(url)
}

/// The name of a header that somebody else than the broker may set.
///
/// # Errors
/// In words.
pub fn header_name(name: &str) -> Result<HeaderName, String> {
    let parsed: HeaderName = name.parse().map_err(|_| format!("{name:?} is no name of a header"))?;
    if OWN_HEADERS.contains(&parsed.as_str()) || parsed.as_str().starts_with("webhook-") {
        return Err(format!("{name:?} is set by the broker alone"));
    }
    Ok(parsed)
}

/// A header, whose value may be a secret: it is shown nowhere.
///
/// # Errors
/// In words, without the value.
pub fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let parsed = header_name(name)?;
    let mut value: HeaderValue = value.parse().map_err(|_| format!("the value of {name:?} is none"))?;
    value.set_sensitive(true);
    Ok((parsed, value))
}

/// What is wrong with a list that is written. Nothing of a secret stands here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
#[non_exhaustive]
pub struct Wrong {
    /// The key, below `gateway.`: `routes[0].path`.
    pub key: String,
    /// In words.
    pub message: String,
}

impl Wrong {
    /// Of a key.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

/// A key and what is wrong with it, within one element of a list.
pub type Fault = (String, String);

/// Nothing but a fault.
///
/// # Errors
/// Always.
pub fn fault<T>(key: impl Into<String>, message: impl Into<String>) -> Result<T, Fault> {
    Err((key.into(), message.into()))
}

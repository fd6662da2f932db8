//! Single values of a route.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use gateway::written::{Fault, fault};
use http::{HeaderName, HeaderValue, Uri};
use http_edge::OriginPolicy;
use settings::AllowedOrigin;

/// Fields that are the connection's, or that say where a request is for.
const OWN_HEADERS: [&str; 9] = [
    "host",
    "content-length",
    "connection",
    "transfer-encoding",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
    "expect",
];

pub(super) fn file(folder: &Path, key: &str, name: &str) -> Result<Vec<u8>, Fault> {
    let path = folder.join(name);
    std::fs::read(&path).map_err(|error| (key.to_owned(), format!("{}: {error}", path.display())))
}

pub(super) fn parse<T: FromStr<Err: fmt::Display>>(key: &str, text: &str) -> Result<T, Fault> {
    text.parse().map_err(|error: T::Err| (key.to_owned(), format!("{text:?}: {error}")))
}

pub(super) fn within<T: Copy + PartialOrd + fmt::Display>(
    key: &str,
    said: Option<T>,
    range: std::ops::RangeInclusive<T>,
    default: T,
) -> Result<T, Fault> {
    match said {
        Some(number) if !range.contains(&number) => {
            fault(key, format!("{} to {}", range.start(), range.end()))
        }
        said => Ok(said.unwrap_or(default)),
    }
}

pub(super) fn headers(
    key: &str,
    written: &BTreeMap<String, String>,
) -> Result<Vec<(HeaderName, HeaderValue)>, Fault> {
    let mut headers = Vec::with_capacity(written.len());
    for (name, value) in written {
        let key = format!("{key}.{name}");
        let name: HeaderName = parse(&key, name)?;
        if OWN_HEADERS.contains(&name.as_str()) {
            return fault(key, "is set by the broker alone");
        }
        // The value may be a secret.
        let value: Result<HeaderValue, _> = value.parse();
        headers.push((name, value.map_err(|_| (key, "is no value of a header field".to_owned()))?));
    }
    Ok(headers)
}

/// Pages of which origins: `"*"`, or as browsers send them.
pub(super) fn cors(key: &str, written: &[String]) -> Result<OriginPolicy, Fault> {
    let mut pages = Vec::with_capacity(written.len());
    for text in written {
        match parse::<AllowedOrigin>(key, text)? {
            AllowedOrigin::One(origin) => pages.push(origin.0),
            _ => return Ok(OriginPolicy::Any),
        }
    }
    Ok(OriginPolicy::List(pages))
}

pub(super) fn url(key: &str, text: &str) -> Result<Uri, Fault> {
    let url: Uri = text.parse().map_err(|_| (key.to_owned(), format!("{text:?} is no URL")))?;
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return fault(key, "credentials do not stand in a URL");
    }
    outgoing::Client::check(&url).map_err(|error| (key.to_owned(), error.to_string()))?;
    Ok(url)
}

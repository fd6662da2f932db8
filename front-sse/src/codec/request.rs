//! What a request asks to stream.

use broker_core::Filter;
use http::HeaderMap;
use http_edge::{parameters, percent_decode};

use crate::Format;
use crate::error::Refusal;

/// A stream as it was asked for.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct StreamRequest {
    /// Without repeats; at least one.
    pub(crate) filters: Vec<Filter>,
    pub(crate) format: Format,
    /// The id to resume after, as the client wrote it.
    pub(crate) last_event_id: Option<String>,
    /// Whether retained messages come first. They do not on a resume, where the log is complete or says that it is not.
    pub(crate) retained: bool,
}

/// The parameters that mean something here, beside `channel`.
const KNOWN: &[&str] = &["format", "retained", "last_event_id", "lastEventId", "Last-Event-ID"];

/// Reads a stream request: `rest` is the path behind the mount point, percent-encoded.
pub(crate) fn parse(
    rest: &str,
    query: Option<&str>,
    headers: &HeaderMap,
    max_filters: usize,
) -> Result<StreamRequest, Refusal> {
    let mut texts = Vec::new();
    if !rest.is_empty() {
        texts.push(percent_decode(rest).map_err(Refusal::Encoding)?);
    }
    let (mut format, mut id, mut retained) = (None, None, true);
    for parameter in parameters(query) {
        let (name, value) = match parameter {
            Ok(parameter) => parameter,
            Err(bad) if bad.name == "channel" => return Err(Refusal::Encoding(bad.why)),
            Err(bad) if KNOWN.contains(&&*bad.name) => return Err(Refusal::Parameter(bad)),
            Err(_) => continue,
        };
        match &*name {
            "channel" => texts.push(value),
            "format" => format = Some(parse_format(&value)?),
            "retained" => retained = parse_flag("retained", &value)?,
            "last_event_id" | "lastEventId" | "Last-Event-ID" => id = Some(value.into_owned()),
            // Other parameters are somebody else's: tokens, cache busters of proxies and polyfills, which a browser that is
            // refused for them would never come back from.
            _ => {}
        }
    }
    if texts.len() > max_filters {
        return Err(Refusal::TooManyFilters { count: texts.len(), max: max_filters });
    }
    let mut filters = Vec::with_capacity(texts.len());
    for text in texts {
        let filter =
            Filter::parse(&text).map_err(|error| Refusal::Filter { text: text.into_owned(), error })?;
        if !filters.contains(&filter) {
            filters.push(filter);
        }
    }
    let default_format = match &filters[..] {
        [] => return Err(Refusal::NoChannel),
        [one] if one.as_literal().is_some() => Format::Raw,
        _ => Format::Json,
    };
    // The header is newer than the address, which a reconnecting browser repeats.
    let header = headers.get("last-event-id").map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    let last_event_id = header.or(id).map(|id| shorten(&id)).filter(|id| !id.is_empty());
    Ok(StreamRequest { filters, format: format.unwrap_or(default_format), last_event_id, retained })
}

/// The part of an id that is worth repeating in a `gap`: ours are shorter, and nobody else's matters.
fn shorten(id: &str) -> String {
    const MAX_CHARS: usize = 128;
    id.trim().chars().take(MAX_CHARS).collect()
}

fn parse_format(value: &str) -> Result<Format, Refusal> {
    match value {
        "raw" => Ok(Format::Raw),
        "json" => Ok(Format::Json),
        other => Err(Refusal::Format(other.to_owned())),
    }
}

fn parse_flag(name: &'static str, value: &str) -> Result<bool, Refusal> {
    match value {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(Refusal::Flag { name, value: other.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(target: &str) -> Result<StreamRequest, Refusal> {
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        parse(path, query, &HeaderMap::new(), 3)
    }

    fn filters(target: &str) -> Vec<String> {
        read(target).unwrap().filters.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn filters_come_from_path_and_query() {
        let cases: [(&str, &[&str]); 9] = [
            ("chat/room1", &["chat/room1"]),
            ("chat%2Froom1", &["chat/room1"]),
            ("chat/%23", &["chat/#"]),
            ("a+b", &["a+b"]),
            ("?channel=a&channel=b/*", &["a", "b/*"]),
            ("?channel=a%2Bb+c", &["a+b c"]),
            ("a?channel=b&channel=a", &["a", "b"]),
            ("caf%C3%A9/*", &["café/*"]),
            ("a/?cache=1", &["a/"]),
        ];
        for (target, expected) in cases {
            assert_eq!(filters(target), expected, "{target}");
        }
    }

    #[test]
    fn raw_is_the_default_for_one_literal_channel_only() {
        let cases = [
            ("a", Format::Raw),
            ("a/*", Format::Json),
            ("a?channel=b", Format::Json),
            ("a?channel=a", Format::Raw),
            ("a?format=json", Format::Json),
            ("a/**?format=raw", Format::Raw),
        ];
        for (target, expected) in cases {
            assert_eq!(read(target).unwrap().format, expected, "{target}");
        }
    }

    #[test]
    fn what_cannot_be_streamed_is_refused_by_name() {
        assert!(matches!(read(""), Err(Refusal::NoChannel)));
        assert!(matches!(read("?format=raw"), Err(Refusal::NoChannel)));
        assert!(matches!(read("?channel="), Err(Refusal::Filter { .. })));
        assert!(matches!(read("a/**/b"), Err(Refusal::Filter { .. })));
        assert!(matches!(read("a%00"), Err(Refusal::Filter { .. })));
        for wrong in ["%ff", "%zz", "?channel=%ff", "?channel=a&channel=%"] {
            assert!(matches!(read(wrong), Err(Refusal::Encoding(_))), "{wrong}");
        }
        assert!(matches!(read("a?last_event_id=%ff"), Err(Refusal::Parameter(_))));
        assert!(read("a?cache=%ff&x&x").is_ok(), "somebody else's");
        assert!(matches!(read("a?format=xml"), Err(Refusal::Format(_))));
        assert!(matches!(read("a?retained=maybe"), Err(Refusal::Flag { .. })));
        assert!(matches!(read("a?channel=b&channel=c&channel=d"), Err(Refusal::TooManyFilters { .. })));
    }

    #[test]
    fn the_header_wins_over_every_parameter() {
        let mut headers = HeaderMap::new();
        for name in ["last_event_id", "lastEventId", "Last-Event-ID"] {
            let query = format!("{name}=k3-1");
            let id = |headers: &HeaderMap| parse("a", Some(&query), headers, 3).unwrap().last_event_id;
            headers.remove("last-event-id");
            assert_eq!(id(&headers).as_deref(), Some("k3-1"));
            headers.insert("last-event-id", "k3-2".parse().unwrap());
            assert_eq!(id(&headers).as_deref(), Some("k3-2"));
        }
        assert_eq!(read("a?last_event_id=").unwrap().last_event_id, None);
    }
}

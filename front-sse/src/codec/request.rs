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
    /// A parameter that this front does not know. Who decides about connections may.
    pub(crate) unknown: Option<String>,
}

/// What was asked for so far, by the address and by the body.
#[derive(Default)]
struct Asked {
    texts: Vec<String>,
    format: Option<Format>,
    retained: Option<bool>,
    last_event_id: Option<String>,
    unknown: Option<String>,
}

/// A body that asks for a stream: there a list of filters may be as long as it needs to.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    channels: Vec<String>,
    format: Option<String>,
    retained: Option<bool>,
    last_event_id: Option<String>,
}

/// Reads a stream request: `rest` is the path behind the mount point, percent-encoded.
pub(crate) fn parse(
    rest: &str,
    query: Option<&str>,
    headers: &HeaderMap,
    body: Option<&[u8]>,
    max_filters: usize,
) -> Result<StreamRequest, Refusal> {
    let mut asked = Asked::default();
    if !rest.is_empty() {
        asked.texts.push(percent_decode(rest).map_err(Refusal::Encoding)?.into_owned());
    }
    asked.read_parameters(query)?;
    if let Some(body) = body {
        asked.read_body(body)?;
    }
    let Asked { texts, format, retained, last_event_id, unknown } = asked;
    if texts.len() > max_filters {
        return Err(Refusal::TooManyFilters { count: texts.len(), max: max_filters });
    }
    let mut filters = Vec::with_capacity(texts.len());
    for text in texts {
        let filter = Filter::parse(&text).map_err(|error| Refusal::Filter { text, error })?;
        if !filters.contains(&filter) {
            filters.push(filter);
        }
    }
    let default_format = match &filters[..] {
        [] => return Err(Refusal::NoChannel),
        [one] if one.as_literal().is_some() => Format::Raw,
        _ => Format::Json,
    };
    // The header is newer than the address and the body, which a reconnecting client repeats.
    let header = headers.get("last-event-id").map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    let last_event_id = header.or(last_event_id).map(|id| shorten(&id)).filter(|id| !id.is_empty());
    Ok(StreamRequest {
        filters,
        format: format.unwrap_or(default_format),
        last_event_id,
        retained: retained.unwrap_or(true),
        unknown,
    })
}

impl Asked {
    fn read_parameters(&mut self, query: Option<&str>) -> Result<(), Refusal> {
        for parameter in parameters(query) {
            let (name, value) = match parameter {
                Ok(parameter) => parameter,
                // Read with the credentials, where the configuration says so.
                Err(bad) if bad.name == "access_token" => continue,
                Err(bad) if bad.name == "channel" => return Err(Refusal::Encoding(bad.why)),
                Err(bad) => return Err(Refusal::Parameter(bad)),
            };
            match &*name {
                "channel" => self.texts.push(value.into_owned()),
                "format" => once(&mut self.format, "format", parse_format(&value)?)?,
                "retained" => once(&mut self.retained, "retained", parse_flag("retained", &value)?)?,
                // A polyfill adds its own spelling behind the page's, which is older.
                "last_event_id" | "lastEventId" | "lastEventID" | "Last-Event-ID" => {
                    self.last_event_id = Some(value.into_owned());
                }
                "access_token" => {}
                other => _ = self.unknown.get_or_insert_with(|| other.to_owned()),
            }
        }
        Ok(())
    }

    fn read_body(&mut self, body: &[u8]) -> Result<(), Refusal> {
        // serde would take an array for a list of the members' values.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(Refusal::Json("no object".to_owned()));
        }
        let body: Body = serde_json::from_slice(body).map_err(|error| Refusal::Json(error.to_string()))?;
        self.texts.extend(body.channels);
        if let Some(format) = body.format {
            once(&mut self.format, "format", parse_format(&format)?)?;
        }
        if let Some(retained) = body.retained {
            once(&mut self.retained, "retained", retained)?;
        }
        if let Some(id) = body.last_event_id {
            once(&mut self.last_event_id, "last_event_id", id)?;
        }
        Ok(())
    }
}

fn once<T>(slot: &mut Option<T>, name: &'static str, value: T) -> Result<(), Refusal> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refusal::Twice(name)),
    }
}

/// The part of an id that is worth repeating in a `gap`: ours are shorter, and nobody else's matters.
fn shorten(id: &str) -> String {
    const MAX_CHARS: usize = 128;
    let cut: String = id.trim().chars().take(MAX_CHARS).collect();
    // Where it was cut there may be a space.
    cut.trim_end().to_owned()
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
        parse(path, query, &HeaderMap::new(), None, 3)
    }

    fn read_body(query: Option<&str>, body: &str) -> Result<StreamRequest, Refusal> {
        parse("", query, &HeaderMap::new(), Some(body.as_bytes()), 3)
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
            ("a/?access_token=1", &["a/"]),
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
        assert!(read("a?access_token=%ff&access_token=x").is_ok(), "read with the credentials");
        assert!(matches!(read("a?format=xml"), Err(Refusal::Format(_))));
        assert!(matches!(read("a?retained=maybe"), Err(Refusal::Flag { .. })));
        assert!(matches!(read("a?channel=b&channel=c&channel=d"), Err(Refusal::TooManyFilters { .. })));
    }

    #[test]
    fn the_header_wins_over_every_parameter() {
        let mut headers = HeaderMap::new();
        for name in ["last_event_id", "lastEventId", "lastEventID", "Last-Event-ID"] {
            let query = format!("{name}=k3-1");
            let id = |headers: &HeaderMap| parse("a", Some(&query), headers, None, 3).unwrap().last_event_id;
            headers.remove("last-event-id");
            assert_eq!(id(&headers).as_deref(), Some("k3-1"));
            headers.insert("last-event-id", "k3-2".parse().unwrap());
            assert_eq!(id(&headers).as_deref(), Some("k3-2"));
        }
        assert_eq!(read("a?last_event_id=").unwrap().last_event_id, None);
    }

    #[test]
    fn parameters_are_known_and_not_repeated() {
        for (asked, unknown) in
            [("a?chanel=b&y", "chanel"), ("a?_=1", "_"), ("a?x", "x"), ("a?lasteventid=1", "lasteventid")]
        {
            assert_eq!(read(asked).unwrap().unknown.as_deref(), Some(unknown), "{asked}");
        }
        assert_eq!(read("a?format=raw&access_token=x").unwrap().unknown, None);
        for wrong in ["a?format=raw&format=raw", "a?retained&retained"] {
            assert!(matches!(read(wrong), Err(Refusal::Twice(_))), "{wrong}");
        }
        assert!(matches!(read("a?cache=%ff"), Err(Refusal::Parameter(_))));
    }

    #[test]
    fn a_body_says_what_an_address_does() {
        let asked =
            read_body(None, r#"{"channels":["a","b/*","a"],"retained":false,"last_event_id":"k3-1"}"#)
                .unwrap();
        assert_eq!(asked, read("?channel=a&channel=b/*&retained=false&last_event_id=k3-1").unwrap());
        let raw = read_body(Some("format=raw"), r#" {"channels":["a/*"]}"#).unwrap();
        assert_eq!((raw.format, raw.filters.len()), (Format::Raw, 1));
        for wrong in [
            "",
            "[]",
            r#"[["a"],null,null,null]"#,
            "{}",
            r#"{"channels":["a"],"chanel":1}"#,
            r#"{"channels":"a"}"#,
        ] {
            assert!(matches!(read_body(None, wrong), Err(Refusal::Json(_))), "{wrong}");
        }
        let twice = read_body(Some("format=raw"), r#"{"channels":["a"],"format":"raw"}"#);
        assert!(matches!(twice, Err(Refusal::Twice("format"))));
        assert!(matches!(read_body(None, r#"{"channels":[]}"#), Err(Refusal::NoChannel)));
        let many = read_body(None, r#"{"channels":["a","b","c","d"]}"#);
        assert!(matches!(many, Err(Refusal::TooManyFilters { count: 4, max: 3 })));
    }
}

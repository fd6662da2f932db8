//! What a function answers, and what of that is none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker_core::{Channel, Filter};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Most filters, and most messages, that one answer may name.
const MAX_ACTIONS: usize = 100;

/// An answer, whatever its status.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Reply {
    /// `statusCode`, where it is a whole number that can be a status.
    pub status: Option<u16>,
    /// For the client, where the route has a response.
    pub body: Body,
    /// The sub-protocol that is chosen for the client.
    pub protocol: Option<String>,
    /// What the broker is to do before the body is sent.
    pub actions: Actions,
}

/// What is sent to the client: nothing, one text frame, one binary frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// Nothing.
    #[default]
    None,
    /// Text.
    Text(String),
    /// What was `isBase64Encoded`.
    Binary(Vec<u8>),
}

/// The member `fanwire` of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Actions {
    /// The client gets what is published there from now on.
    pub subscribe: Vec<Filter>,
    /// The client gets it no longer.
    pub unsubscribe: Vec<Filter>,
    /// What is published, in order.
    pub publish: Vec<Message>,
    /// The connection is closed after all that.
    pub close: Option<(u16, String)>,
}

/// A message that an answer publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Where to.
    pub channel: Channel,
    /// What.
    pub payload: Bytes,
    /// Whether the payload is JSON.
    pub is_json: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// It was not called, as it failed too often.
    #[error("it failed too often and is left alone for a while")]
    Open,
    /// It was not called, as too many calls are under way.
    #[error("too many calls are under way")]
    Full,
    /// No connection came about.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("no answer in time")]
    TimedOut,
    /// The answer broke off, or is no HTTP.
    #[error("{0}")]
    Broken(String),
    /// Whoever runs the function answered with another status than 200.
    #[error("status {0}")]
    Status(u16),
    /// The function ran and failed.
    #[error("the function failed: {0}")]
    Function(String),
    /// What it answered is no JSON: so a runtime says that the function did not end in time.
    #[error("the answer is no JSON")]
    NotJson,
    /// What it answered cannot be meant.
    #[error("the answer cannot be read: {0}")]
    Malformed(String),
}

impl Failure {
    /// One word for metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Full => "full",
            Self::Unreachable(_) => "unreachable",
            Self::TimedOut => "timeout",
            Self::Broken(_) => "broken",
            Self::Status(_) => "status",
            Self::Function(_) => "function_error",
            Self::NotJson | Self::Malformed(_) => "malformed",
        }
    }

    /// Whether it says that whoever runs the function is in trouble, rather than the function with this event.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut | Self::Broken(_) | Self::NotJson => true,
            Self::Status(status) => *status >= 500,
            Self::Open | Self::Full | Self::Function(_) | Self::Malformed(_) => false,
        }
    }

    /// What a client is told.
    pub fn message(&self) -> &'static str {
        match self {
            Self::TimedOut => "Endpoint request timed out",
            _ => "Internal server error",
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    status_code: Option<Value>,
    body: Option<Value>,
    #[serde(default)]
    is_base64_encoded: Option<bool>,
    headers: Option<Map<String, Value>>,
    error_type: Option<Value>,
    error_message: Option<Value>,
    #[serde(borrow, default)]
    fanwire: Option<WrittenActions<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenActions<'a> {
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    unsubscribe: Vec<String>,
    #[serde(borrow, default)]
    publish: Vec<WrittenMessage<'a>>,
    close: Option<WrittenClose>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMessage<'a> {
    channel: String,
    text: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    base64: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenClose {
    code: Option<u16>,
    #[serde(default)]
    reason: String,
}

/// The error of a function, as runtimes write it; nothing if this is none.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenError {
    error_message: Option<String>,
}

/// What an answer of the Invoke API means. `has_failed` is whether it has the header `X-Amz-Function-Error`.
///
/// # Errors
/// [`Failure`]: another status than 200, a function that failed, and what is no JSON.
pub fn of_lambda(status: u16, has_failed: bool, body: &[u8]) -> Result<Reply, Failure> {
    if status != 200 {
        return Err(Failure::Status(status));
    }
    if has_failed {
        return Err(Failure::Function(error_message(body)));
    }
    if !body.trim_ascii_start().starts_with(b"{") {
        // `null` and the like say nothing.
        let read: Result<IgnoredAny, _> = serde_json::from_slice(body);
        return read.map(|_| Reply::default()).map_err(|_| Failure::NotJson);
    }
    let written: Written<'_> = serde_json::from_slice(body).map_err(|error| match error.is_data() {
        true => Failure::Malformed(error.to_string()),
        false => Failure::NotJson,
    })?;
    if written.error_type.is_some() && written.status_code.is_none() {
        let message = written.error_message.as_ref().and_then(Value::as_str).unwrap_or_default();
        return Err(Failure::Function(message.to_owned()));
    }
    let status =
        written.status_code.as_ref().and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
    let protocol = written.headers.as_ref().and_then(|headers| {
        let mut named =
            headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-protocol"));
        named.next().and_then(|(_, value)| value.as_str()).map(str::to_owned)
    });
    Ok(Reply {
        status: status.filter(|status| (100..600).contains(status)),
        body: body_of(written.body, written.is_base64_encoded.unwrap_or_default())?,
        protocol,
        actions: written.fanwire.map(actions).transpose()?.unwrap_or_default(),
    })
}

/// What a function says of its failure, shortened; empty if it says nothing.
pub fn error_message(body: &[u8]) -> String {
    const MAX_BYTES: usize = 512;
    let read: Option<WrittenError> = serde_json::from_slice(body).ok();
    let mut message = read.and_then(|read| read.error_message).unwrap_or_default();
    message.truncate(message.floor_char_boundary(MAX_BYTES));
    message
}

/// An answer of an HTTP backend: its status is the answer's, its body the body.
pub fn of_http(status: u16, protocol: Option<&str>, body: &[u8]) -> Reply {
    let body = match std::str::from_utf8(body) {
        Ok("") => Body::None,
        Ok(text) => Body::Text(text.to_owned()),
        Err(_) => Body::Binary(body.to_vec()),
    };
    Reply { status: Some(status), body, protocol: protocol.map(str::to_owned), actions: Actions::default() }
}

fn body_of(body: Option<Value>, is_base64: bool) -> Result<Body, Failure> {
    Ok(match body {
        None | Some(Value::Null) => Body::None,
        Some(Value::String(text)) if text.is_empty() => Body::None,
        Some(Value::String(text)) if is_base64 => {
            let decoded = STANDARD.decode(text.as_bytes());
            Body::Binary(decoded.map_err(|_| Failure::Malformed("`body` is not base64".to_owned()))?)
        }
        Some(Value::String(text)) => Body::Text(text),
        Some(_) => return Err(Failure::Malformed("`body` is no text".to_owned())),
    })
}

fn actions(written: WrittenActions<'_>) -> Result<Actions, Failure> {
    let WrittenActions { subscribe, unsubscribe, publish, close } = written;
    let longest = subscribe.len().max(unsubscribe.len()).max(publish.len());
    if longest > MAX_ACTIONS {
        return Err(Failure::Malformed(format!("more than {MAX_ACTIONS} actions of a kind")));
    }
    let wrong = |what: &str, why: &dyn std::fmt::Display| Failure::Malformed(format!("{what}: {why}"));
    let filters = |texts: Vec<String>| {
        let read = |text: &String| Filter::parse(text).map_err(|error| wrong(text, &error));
        texts.iter().map(read).collect::<Result<Vec<_>, _>>()
    };
    let message = |written: WrittenMessage<'_>| {
        let WrittenMessage { channel: name, text, data, base64 } = written;
        let channel = Channel::parse(&name).map_err(|error| wrong(&name, &error))?;
        if name.starts_with('$') {
            return Err(wrong(&name, &"channels that begin with `$` are the broker's"));
        }
        let (payload, is_json) = match (text, data, base64) {
            (Some(text), None, None) => (Bytes::from(text), false),
            (None, Some(data), None) => (Bytes::copy_from_slice(data.get().as_bytes()), true),
            (None, None, Some(base64)) => {
                let decoded = STANDARD.decode(base64.as_bytes()).map_err(|_| wrong(&name, &"not base64"))?;
                (Bytes::from(decoded), false)
            }
            _ => return Err(wrong(&name, &"one of `text`, `data` and `base64` is the payload")),
        };
        Ok(Message { channel, payload, is_json })
    };
    let close = close.map(|WrittenClose { code, reason }| match code.unwrap_or(1000) {
        code @ (1000 | 1001 | 1008 | 1011 | 1012 | 1013 | 3000..=4999) => Ok((code, reason)),
        code => Err(wrong(&code.to_string(), &"no code that a connection may be closed with")),
    });
    Ok(Actions {
        subscribe: filters(subscribe)?,
        unsubscribe: filters(unsubscribe)?,
        publish: publish.into_iter().map(message).collect::<Result<_, _>>()?,
        close: close.transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Reply, Failure> {
        of_lambda(200, false, body.as_bytes())
    }

    #[test]
    fn answers_are_read() {
        let reply = |status, body| Reply { status, body, ..Reply::default() };
        for (body, expected) in [
            (r#"{"statusCode":200}"#, reply(Some(200), Body::None)),
            (r#"{"statusCode":403,"body":"no"}"#, reply(Some(403), Body::Text("no".into()))),
            (r#"{"statusCode":200,"body":""}"#, reply(Some(200), Body::None)),
            (r#"{"statusCode":200,"body":null}"#, reply(Some(200), Body::None)),
            (
                r#"{"statusCode":200,"body":"AP8=","isBase64Encoded":true}"#,
                reply(Some(200), Body::Binary(vec![0, 255])),
            ),
            (r#"{"statusCode":"200"}"#, reply(None, Body::None)),
            (r#"{"statusCode":200.5}"#, reply(None, Body::None)),
            (r#"{"statusCode":99999}"#, reply(None, Body::None)),
            (r#"{"statusCode":1}"#, reply(None, Body::None)),
            (r#"{"statusCode":500,"errorType":"E"}"#, reply(Some(500), Body::None)),
            ("{}", reply(None, Body::None)),
            ("null", reply(None, Body::None)),
            ("\"ok\"", reply(None, Body::None)),
        ] {
            assert_eq!(read(body).unwrap(), expected, "{body}");
        }
        let chosen = read(r#"{"statusCode":200,"headers":{"sec-WebSocket-Protocol":"chat"}}"#).unwrap();
        assert_eq!(chosen.protocol.as_deref(), Some("chat"));
    }

    #[test]
    fn what_is_no_answer_is_a_failure_of_its_kind() {
        let of = |status, has_failed, body: &str| of_lambda(status, has_failed, body.as_bytes()).unwrap_err();
        assert_eq!(of(500, false, r#"{"statusCode":200}"#), Failure::Status(500));
        assert_eq!(of(202, false, ""), Failure::Status(202));
        assert_eq!(
            of(200, true, r#"{"errorMessage":"boom","errorType":"E"}"#),
            Failure::Function("boom".into())
        );
        assert_eq!(of(200, true, "?"), Failure::Function(String::new()));
        assert_eq!(
            of(200, false, r#"{"errorType":"E","errorMessage":"boom"}"#),
            Failure::Function("boom".into())
        );
        for body in ["", "Task timed out after 3.00 seconds", "{", "{\"statusCode\":200", "\u{feff}"] {
            assert_eq!(of(200, false, body), Failure::NotJson, "{body:?}");
        }
        for body in [r#"{"body":{}}"#, r#"{"body":"%","isBase64Encoded":true}"#, r#"{"isBase64Encoded":7}"#] {
            assert!(matches!(of(200, false, body), Failure::Malformed(_)), "{body}");
        }
    }

    #[test]
    fn actions_are_read_with_their_exact_text() {
        let reply = read(
            r#"{"statusCode":200,"fanwire":{"subscribe":["room/1"],"unsubscribe":["room/*"],
                "publish":[{"channel":"a","data":{"b": 1.0,"a":2}},{"channel":"b","text":"t"},
                {"channel":"c","base64":"AP8="}],"close":{"code":4001,"reason":"bye"}}}"#,
        )
        .unwrap();
        let Actions { subscribe, unsubscribe, publish, close } = reply.actions;
        let texts = |filters: &[Filter]| filters.iter().map(Filter::to_string).collect::<Vec<_>>();
        assert_eq!((texts(&subscribe), texts(&unsubscribe)), (vec!["room/1".into()], vec!["room/*".into()]));
        let published: Vec<_> = publish.iter().map(|one| (&one.payload[..], one.is_json)).collect();
        assert_eq!(published, [(&br#"{"b": 1.0,"a":2}"#[..], true), (b"t", false), (&[0, 255], false)]);
        assert_eq!(close, Some((4001, "bye".to_owned())));
        for wrong in [
            r#"{"subscribe":[7]}"#,
            r#"{"subscribe":["a/**/b"]}"#,
            r#"{"other":1}"#,
            r#"{"publish":[{"channel":"a"}]}"#,
            r#"{"publish":[{"channel":"a","text":"x","data":1}]}"#,
            r#"{"publish":[{"channel":"$SYS/a","text":"x"}]}"#,
            r#"{"publish":[{"channel":"a","base64":"!"}]}"#,
            r#"{"close":{"code":1006}}"#,
            r#"{"close":{"code":5000}}"#,
        ] {
            let body = format!(r#"{{"statusCode":200,"fanwire":{wrong}}}"#);
            assert!(matches!(read(&body), Err(Failure::Malformed(_))), "{wrong}");
        }
        let many = format!(r#"{{"fanwire":{{"subscribe":[{}"a"]}}}}"#, r#""a","#.repeat(MAX_ACTIONS));
        assert!(matches!(read(&many), Err(Failure::Malformed(_))));
    }

    #[test]
    fn the_answer_of_a_backend_is_its_body() {
        assert_eq!(of_http(204, None, b"").body, Body::None);
        assert_eq!(of_http(500, None, b"no").status, Some(500));
        assert_eq!(of_http(200, None, b"a").body, Body::Text("a".into()));
        assert_eq!(of_http(200, None, &[255]).body, Body::Binary(vec![255]));
        assert_eq!(of_http(200, Some("p"), b"").protocol.as_deref(), Some("p"));
    }
}

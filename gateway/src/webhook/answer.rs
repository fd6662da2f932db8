//! What a backend decides: its answer to `connect`, `subscribe` or `publish`.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker_core::{Action, Channel, ContentType, Filter, Pattern, Publish, RightsTemplate};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Most bytes of an answer.
pub const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Most bytes of a `context`.
pub const MAX_CONTEXT_BYTES: usize = 8 << 10;

/// What a backend said.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// Yes, and what beside.
    Allow(Box<Granted>),
    /// No; the text is for the client.
    Deny(Option<String>),
}

/// What a yes brings along.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Granted {
    /// As whom the client is let in.
    pub user: Option<String>,
    /// What it may do, instead of what its credentials give.
    pub rights: Option<RightsTemplate>,
    /// JSON text that comes back in every later event of the connection.
    pub context: Option<Bytes>,
    /// When the connection ends, in milliseconds since 1970.
    pub expires_at_ms: Option<u64>,
    /// What the client is subscribed to.
    pub subscribe: Vec<Filter>,
    /// JSON text for the client.
    pub reply: Option<Bytes>,
    /// What is published instead.
    pub replace: Option<Replace>,
}

/// What is published instead.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Replace {
    payload: Option<Bytes>,
    content_type: Option<ContentType>,
    channel: Option<Channel>,
}

impl Replace {
    /// The message as it is to be published.
    pub fn apply(self, mut publish: Publish) -> Publish {
        if let Some(payload) = self.payload {
            publish = publish.replace_payload(payload);
        }
        if let Some(content_type) = self.content_type {
            publish = publish.content_type(content_type);
        }
        match self.channel {
            Some(channel) => publish.replace_channel(channel),
            None => publish,
        }
    }
}

/// Why an answer is none: what stands in it is of the wrong kind, or its status says so. What the configuration says of
/// failures holds then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(String);

#[derive(Deserialize, Default)]
#[serde(default)]
struct Said {
    allow: Option<bool>,
    user: Option<String>,
    rights: Option<Vec<Rule>>,
    context: Option<Box<RawValue>>,
    expires_at: Option<String>,
    subscribe: Option<Vec<String>>,
    reply: Option<Box<RawValue>>,
    reason: Option<String>,
    replace: Option<SaidInstead>,
}

#[derive(Deserialize)]
struct Rule {
    actions: Vec<String>,
    channels: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SaidInstead {
    data: Option<Box<RawValue>>,
    text: Option<String>,
    base64: Option<String>,
    content_type: Option<String>,
    channel: Option<String>,
}

/// Reads an answer.
///
/// # Errors
/// It is no decision.
pub fn read(status: u16, body: &[u8]) -> Result<Verdict, NoAnswer> {
    match status {
        200..=299 => {}
        400..=499 => {
            // What it says beside the status is for the client, if it can be read.
            let said = serde_json::from_slice::<Said>(body).unwrap_or_default();
            return Ok(Verdict::Deny(said.reason.map(shown)));
        }
        _ => return Err(NoAnswer(format!("status {status}"))),
    }
    if status == 204 || body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Verdict::Allow(Box::default()));
    }
    // A list would count as an object whose members stand in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(NoAnswer("its body is no JSON object".to_owned()));
    }
    let said: Said = serde_json::from_slice(body).map_err(|error| NoAnswer(format!("its JSON: {error}")))?;
    if said.allow == Some(false) {
        return Ok(Verdict::Deny(said.reason.map(shown)));
    }
    let context = said.context.map(text);
    if context.as_ref().is_some_and(|context| context.len() > MAX_CONTEXT_BYTES) {
        return Err(NoAnswer(format!("`context` has more than {MAX_CONTEXT_BYTES} bytes")));
    }
    let filter = |text: String| text.parse().map_err(|error| NoAnswer(format!("`subscribe`: {error}")));
    Ok(Verdict::Allow(Box::new(Granted {
        user: said.user,
        rights: said.rights.map(rights).transpose()?,
        context,
        expires_at_ms: said.expires_at.map(|text| expires_at(&text)).transpose()?,
        subscribe: said.subscribe.unwrap_or_default().into_iter().map(filter).collect::<Result<_, _>>()?,
        reply: said.reply.map(text),
        replace: said.replace.map(replace).transpose()?,
    })))
}

/// A reason as it goes into headers and error texts: one line, and not a long one.
fn shown(reason: String) -> String {
    const MAX_CHARACTERS: usize = 120;
    reason.chars().filter(|character| !character.is_control()).take(MAX_CHARACTERS).collect()
}

fn text(raw: Box<RawValue>) -> Bytes {
    String::from(Box::<str>::from(raw)).into_bytes().into()
}

fn rights(rules: Vec<Rule>) -> Result<RightsTemplate, NoAnswer> {
    let mut template = RightsTemplate::default();
    for rule in rules {
        let named = |name: &String| {
            Action::from_name(name).ok_or_else(|| NoAnswer(format!("`rights`: {name:?} is no action")))
        };
        let actions = rule.actions.iter().map(named).collect::<Result<Vec<_>, _>>()?;
        for channel in rule.channels {
            let pattern = Pattern::parse(&channel).map_err(|error| NoAnswer(format!("`rights`: {error}")))?;
            template = template.allow(actions.iter().copied(), pattern);
        }
    }
    Ok(template)
}

fn expires_at(text: &str) -> Result<u64, NoAnswer> {
    let at = humantime::parse_rfc3339(text)
        .map_err(|_| NoAnswer(format!("`expires_at`: {text:?} is no time such as 2026-01-31T10:00:00Z")))?;
    let since = at.duration_since(UNIX_EPOCH).or_else(|_| SystemTime::UNIX_EPOCH.elapsed());
    Ok(u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX))
}

fn replace(said: SaidInstead) -> Result<Replace, NoAnswer> {
    let wrong = |why: String| NoAnswer(format!("`replace`: {why}"));
    let (payload, of_payload) = match (said.data, said.text, said.base64) {
        (None, None, None) => (None, None),
        (Some(data), None, None) => (Some(text(data)), Some(ContentType::JSON)),
        (None, Some(text), None) => (Some(text.into_bytes().into()), Some(ContentType::TEXT)),
        (None, None, Some(base64)) => {
            let bytes = STANDARD.decode(base64).map_err(|_| wrong("`base64` is none".to_owned()))?;
            (Some(bytes.into()), Some(ContentType::BYTES))
        }
        _ => return Err(wrong("`data`, `text` and `base64` exclude each other".to_owned())),
    };
    let channel = said.channel.map(|name| Channel::parse(&name).map_err(|error| wrong(error.to_string())));
    let content_type = said.content_type.map(|name| ContentType::new(&name)).or(of_payload);
    Ok(Replace { payload, content_type, channel: channel.transpose()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(body: &str) -> Granted {
        match read(200, body.as_bytes()) {
            Ok(Verdict::Allow(granted)) => *granted,
            other => panic!("{other:?}"),
        }
    }

    fn denied(status: u16, body: &str) -> Option<String> {
        match read(status, body.as_bytes()) {
            Ok(Verdict::Deny(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn two_hundreds_are_yes_and_what_they_say_is_read() {
        for body in ["", " \n", "{}", r#"{"allow":true}"#, r#"{"later":{"a":1},"user":null}"#] {
            let granted = allowed(body);
            assert!(granted.user.is_none() && granted.rights.is_none(), "{body}");
        }
        assert!(matches!(read(204, b"whatever"), Ok(Verdict::Allow(_))));
        let granted = allowed(
            r#"{"user":"ann","rights":[{"actions":["subscribe"],"channels":["chat/{user}/**"]}],
                "context":{"plan": 12345678901234567890},"expires_at":"2026-01-31T10:00:00Z",
                "subscribe":["inbox/ann"],"reply":{"welcome":1}}"#,
        );
        assert_eq!(granted.user.as_deref(), Some("ann"));
        let rights = granted.rights.unwrap().for_user(Some("ann"));
        assert!(rights.allows(Action::Subscribe, &Channel::parse("chat/ann/1").unwrap()));
        assert!(!rights.allows(Action::Publish, &Channel::parse("chat/ann/1").unwrap()));
        assert_eq!(granted.context.unwrap(), r#"{"plan": 12345678901234567890}"#);
        assert_eq!(granted.expires_at_ms, Some(1_769_853_600_000));
        assert_eq!(granted.subscribe.len(), 1);
        assert_eq!(granted.reply.unwrap(), r#"{"welcome":1}"#);
    }

    #[test]
    fn no_is_said_in_the_body_or_by_the_status() {
        assert_eq!(denied(200, r#"{"allow":false,"reason":"banned\r\nx"}"#).as_deref(), Some("bannedx"));
        assert_eq!(denied(200, r#"{"allow":false}"#), None);
        for status in [401, 403, 404, 400] {
            assert_eq!(denied(status, "no JSON"), None, "{status}");
            assert_eq!(denied(status, r#"{"reason":"no"}"#).as_deref(), Some("no"), "{status}");
        }
    }

    #[test]
    fn what_is_no_decision_is_a_failure() {
        for (status, body) in [
            (500, "{}"),
            (302, "{}"),
            (200, "<html>"),
            (200, "null"),
            (200, "[]"),
            (200, "[true]"),
            (200, r#"{"allow":"yes"}"#),
            (200, r#"{"user":1}"#),
            (200, r#"{"rights":[{"actions":["fly"],"channels":["a"]}]}"#),
            (200, r#"{"rights":[{"actions":["publish"],"channels":["a/**/b"]}]}"#),
            (200, r#"{"expires_at":"soon"}"#),
            (200, r#"{"subscribe":[""]}"#),
            (200, r#"{"replace":{"text":"a","data":1}}"#),
            (200, r#"{"replace":{"base64":"!"}}"#),
        ] {
            assert!(read(status, body.as_bytes()).is_err(), "{status} {body}");
        }
        let long = format!(r#"{{"context":"{}"}}"#, "x".repeat(MAX_CONTEXT_BYTES - 2));
        assert!(read(200, long.as_bytes()).is_ok());
        let too_long = format!(r#"{{"context":"{}"}}"#, "x".repeat(MAX_CONTEXT_BYTES - 1));
        assert!(read(200, too_long.as_bytes()).is_err());
    }

    #[test]
    fn a_replacement_changes_what_it_names() {
        let publish = || Publish::new(Channel::parse("a").unwrap(), "{}").json();
        let replaced = |body: &str| allowed(body).replace.unwrap().apply(publish());
        let text = replaced(r#"{"replace":{"text":"***"}}"#);
        assert_eq!((&text.payload()[..], text.media_type()), (&b"***"[..], Some(&ContentType::TEXT)));
        let data = replaced(r#"{"replace":{"data":[1, 2],"channel":"b"}}"#);
        assert_eq!((&data.payload()[..], data.channel().as_str()), (&b"[1, 2]"[..], "b"));
        let only = replaced(r#"{"replace":{"content_type":"application/x"}}"#);
        assert_eq!((&only.payload()[..], only.media_type().unwrap().as_str()), (&b"{}"[..], "application/x"));
        let bytes = replaced(r#"{"replace":{"base64":"/w=="}}"#);
        assert_eq!(&bytes.payload()[..], b"\xff");
    }
}

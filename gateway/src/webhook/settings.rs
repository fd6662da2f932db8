//! What is said about a webhook, in a configuration or over HTTP.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use broker_core::{Channel, Filter};
use http::{HeaderName, HeaderValue, Uri};
use serde::{Deserialize, Serialize};
use settings::{Period, Span, Text};

use super::event::Kind;
use crate::delivery::Bounds;
use crate::sign::{Secret, Secrets};
use crate::written;

/// Longest a backend may take.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// Most events of one request, whatever is said.
const MAX_BATCH: usize = 100;

/// One webhook.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// Its name, for operators.
    pub id: String,
    /// Where it is.
    pub url: Uri,
    /// What its requests are signed with.
    pub secrets: Secrets,
    /// Which channels concern it; connections do whatever this says.
    pub channels: Vec<Filter>,
    /// What it decides, and what it is told.
    pub events: Vec<Kind>,
    /// How long it may take.
    pub timeout: Duration,
    /// What holds while it cannot decide.
    pub on_failure: OnFailure,
    /// How its notifications wait and are sent.
    pub bounds: Bounds,
    /// Headers of each request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Headers of a client's own request that a decision's request carries too.
    pub forward_headers: Vec<HeaderName>,
}

impl Settings {
    /// Whether it wants events of this kind.
    pub fn wants(&self, kind: Kind) -> bool {
        self.events.contains(&kind)
    }

    /// Whether a channel concerns it.
    pub fn has_channel(&self, channel: &Channel) -> bool {
        self.channels.iter().any(|filter| filter.matches(channel))
    }

    /// Whether some channel of a filter concerns it.
    pub fn has_some_of(&self, filter: &Filter) -> bool {
        match filter.as_literal() {
            Some(channel) => self.has_channel(channel),
            None => self.channels.iter().any(|own| own.overlaps(filter)),
        }
    }
}

/// What holds while a backend cannot decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum OnFailure {
    /// No; the client is told to try again.
    #[default]
    Deny,
    /// Yes, as configured.
    Allow,
}

/// How a webhook is written: an element of `gateway.webhooks`, and the body of `PUT /v1/webhooks/{id}`.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    id: String,
    url: String,
    #[serde(default)]
    secret: OneOrMore,
    #[serde(default)]
    secret_file: OneOrMore,
    #[serde(default = "all_channels")]
    channels: Vec<Text<Filter>>,
    events: Vec<String>,
    #[serde(default = "timeout")]
    timeout: Span,
    #[serde(default)]
    on_failure: OnFailure,
    #[serde(default = "max_age")]
    max_age: Period,
    #[serde(default = "batch")]
    batch: usize,
    #[serde(default = "max_in_flight")]
    max_in_flight: usize,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default = "forwarded")]
    forward_headers: Vec<String>,
}

fn all_channels() -> Vec<Text<Filter>> {
    Filter::parse("**").map(Text).into_iter().collect()
}

fn timeout() -> Span {
    Span(Duration::from_secs(5))
}

fn max_age() -> Period {
    Period(Bounds::default().max_age)
}

fn batch() -> usize {
    Bounds::default().batch
}

fn max_in_flight() -> usize {
    Bounds::default().max_in_flight
}

fn forwarded() -> Vec<String> {
    ["cookie", "authorization", "origin"].map(str::to_owned).to_vec()
}

/// One text, or a list.
#[derive(Clone, Deserialize, Serialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Default for OneOrMore {
    fn default() -> Self {
        Self::More(Vec::new())
    }
}

impl OneOrMore {
    fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(all) => all,
        }
    }
}

/// What is wrong with a webhook. Nothing of a secret stands here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
#[non_exhaustive]
pub struct Wrong {
    /// The key of the webhook.
    pub key: &'static str,
    /// In words.
    pub message: String,
}

impl Wrong {
    fn new(key: &'static str, message: impl Into<String>) -> Self {
        Self { key, message: message.into() }
    }
}

impl fmt::Debug for Written {
    /// Nothing of its secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Written").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Written {
    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it says; files are taken from `folder`, and are none over HTTP.
    ///
    /// # Errors
    /// The first thing that cannot be meant.
    pub fn settings(&self, folder: Option<&Path>) -> Result<Settings, Wrong> {
        written::id(&self.id).map_err(|message| Wrong::new("id", message))?;
        let url = written::url(&self.url).map_err(|message| Wrong::new("url", message))?;
        let events = self.events.iter().map(|name| kind(name)).collect::<Result<Vec<_>, _>>()?;
        if events.is_empty() {
            return Err(Wrong::new("events", "a webhook without events is never called"));
        }
        if self.channels.is_empty() && events.iter().any(|kind| kind.is_of_channel()) {
            return Err(Wrong::new("channels", "events of channels need one"));
        }
        let timeout = self.timeout.0;
        if timeout.is_zero() || timeout > MAX_TIMEOUT {
            let most = humantime::format_duration(MAX_TIMEOUT);
            return Err(Wrong::new("timeout", format!("more than nothing, at most {most}")));
        }
        if !(1..=MAX_BATCH).contains(&self.batch) {
            return Err(Wrong::new("batch", format!("1 to {MAX_BATCH} events go into a request")));
        }
        if !(1..=1024).contains(&self.max_in_flight) {
            return Err(Wrong::new("max_in_flight", "1 to 1024 requests at a time"));
        }
        let bounds = Bounds {
            max_age: self.max_age.0,
            batch: self.batch,
            max_in_flight: self.max_in_flight,
            ..Bounds::default()
        };
        Ok(Settings {
            id: self.id.clone(),
            url,
            secrets: self.secrets(folder)?,
            channels: self.channels.iter().map(|filter| filter.0.clone()).collect(),
            events,
            timeout,
            on_failure: self.on_failure,
            bounds,
            headers: self
                .headers
                .iter()
                .map(|(name, value)| written::header(name, value))
                .collect::<Result<_, _>>()
                .map_err(|message| Wrong::new("headers", message))?,
            forward_headers: self
                .forward_headers
                .iter()
                .map(|name| written::header_name(name))
                .collect::<Result<_, _>>()
                .map_err(|message| Wrong::new("forward_headers", message))?,
        })
    }

    fn secrets(&self, folder: Option<&Path>) -> Result<Secrets, Wrong> {
        let parse = |key, text: &str| Secret::parse(text).map_err(|error| Wrong::new(key, error.to_string()));
        let mut secrets = Vec::new();
        for text in self.secret.all() {
            secrets.push(parse("secret", text)?);
        }
        for name in self.secret_file.all() {
            let Some(folder) = folder else {
                return Err(Wrong::new("secret_file", "files are for the configuration alone"));
            };
            let path: PathBuf = folder.join(name);
            let text = std::fs::read_to_string(&path)
                .map_err(|error| Wrong::new("secret_file", format!("{}: {error}", path.display())))?;
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                secrets.push(parse("secret_file", line)?);
            }
        }
        if secrets.is_empty() {
            return Err(Wrong::new("secret", "a backend knows the broker's requests by a secret: `whsec_…`"));
        }
        Ok(Secrets::new(secrets))
    }
}

fn kind(name: &str) -> Result<Kind, Wrong> {
    Kind::from_name(name).ok_or_else(|| {
        let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        Wrong::new("events", format!("{name:?} is none of {}", known.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn read(change: &str) -> Result<Settings, String> {
        let mut written = serde_json::json!({"id": "chat", "url": "https://a.example/hooks", "secret": SECRET,
            "events": ["connect", "broker.started"]});
        let change: serde_json::Value = serde_json::from_str(change).unwrap();
        for (key, value) in change.as_object().unwrap() {
            written[key] = value.clone();
        }
        let written: Written = serde_json::from_value(written).map_err(|error| error.to_string())?;
        written.settings(None).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let settings = read("{}").unwrap();
        assert_eq!((settings.timeout, settings.on_failure), (Duration::from_secs(5), OnFailure::Deny));
        assert_eq!(settings.bounds, Bounds::default());
        assert_eq!(settings.forward_headers, ["cookie", "authorization", "origin"]);
        let channel = |name| Channel::parse(name).unwrap();
        assert!(settings.has_channel(&channel("a/b")) && !settings.has_channel(&channel("$SYS/a")));
        assert!(settings.wants(Kind::Started) && !settings.wants(Kind::Publish));
    }

    #[test]
    fn what_cannot_be_meant_is_said_with_its_key_and_without_secrets() {
        for (change, said) in [
            (r#"{"secret":"whsec_c2hvcnQ="}"#, "secret: a secret has 24 to 64 bytes, and this one has 5"),
            (r#"{"secret":[]}"#, "secret: a backend knows the broker's requests by a secret: `whsec_…`"),
            (r#"{"secret_file":"a"}"#, "secret_file: files are for the configuration alone"),
            (r#"{"url":"ftp://a/"}"#, "url: `a` is no address: http:// and https:// are spoken"),
            (r#"{"url":"nowhere"}"#, "url: `nowhere` is no address: http:// and https:// are spoken"),
            (r#"{"url":"https://u:p@a.example/"}"#, "url: credentials do not stand in a URL"),
            (r#"{"events":[]}"#, "events: a webhook without events is never called"),
            (r#"{"id":"a b"}"#, "id: 1 to 64 letters, digits, `-`, `_` and `.` are an id"),
            (r#"{"batch":101}"#, "batch: 1 to 100 events go into a request"),
            (r#"{"headers":{"Host":"x"}}"#, "headers: \"Host\" is set by the broker alone"),
            (r#"{"headers":{"webhook-id":"x"}}"#, "headers: \"webhook-id\" is set by the broker alone"),
            (r#"{"headers":{"x":"a\nb"}}"#, "headers: the value of \"x\" is none"),
            (r#"{"timeout":0}"#, "timeout: more than nothing, at most 1m"),
        ] {
            assert_eq!(read(change).unwrap_err(), said, "{change}");
        }
        let unknown = read(r#"{"events":["conect"]}"#).unwrap_err();
        assert!(unknown.starts_with("events: \"conect\" is none of connect, subscribe"), "{unknown}");
        assert!(read(r#"{"retries":3}"#).unwrap_err().starts_with("unknown field `retries`"));
        assert!(!format!("{:?}", read("{}").unwrap()).contains("MfKQ"));
    }
}

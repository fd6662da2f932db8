//! What the front is made with.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use gateway::dead::Graveyard;
use http::{HeaderName, HeaderValue, Uri};
use http_edge::{Intake, TokenSources};

pub use crate::selection::Selection;
use crate::verify::{Sign, Verify};
pub use gateway::delivery::Trip;

/// WebSocket APIs, and whose they are.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The region that stands in ARNs. Default `us-east-1`.
    pub region: String,
    /// The account that stands in ARNs. Default `000000000000`.
    pub account: String,
    /// Whether requests to `@connections` are taken from anybody. Default no. For a machine of one's own.
    pub signatures_ignored: bool,
    /// Who answers for requests to `@connections` that are signed. Default nobody: they are refused.
    pub signatures: Option<Arc<dyn Verify>>,
    /// The APIs. Default none: then the front claims no path.
    pub apis: Vec<Api>,
    /// The account of messages and bodies that are not whole yet.
    pub intake: Intake,
    /// Where a token is read beside the headers.
    pub token_sources: TokenSources,
    /// Where the APIs are found by who looks after dead letters.
    pub dead: Graveyard,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            region: "us-east-1".to_owned(),
            account: "000000000000".to_owned(),
            signatures_ignored: false,
            signatures: None,
            apis: Vec::new(),
            intake: Intake::default(),
            token_sources: TokenSources::default(),
            dead: Graveyard::default(),
        }
    }
}

/// One API, at a path.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Api {
    /// Its id in events and ARNs.
    pub name: String,
    /// Where its WebSockets open; `@connections` is below.
    pub path: String,
    /// Its stage in events and ARNs. Default: the path without its first slash.
    pub stage: String,
    /// Which route a message takes.
    pub selection: Selection,
    /// What all its events say beside. Default nothing.
    pub stage_variables: BTreeMap<String, String>,
    /// Who is called, by name.
    pub integrations: BTreeMap<String, Integration>,
    /// Who decides who may connect, by name.
    pub authorizers: BTreeMap<String, Authorizer>,
    /// What is called for what, by route key.
    pub routes: BTreeMap<String, Route>,
    /// What becomes of binary messages. Default they are base64.
    pub binary: Binary,
    /// How long a connection may be without a message either way. Default 10 min; 0 is for ever.
    pub idle_timeout: Duration,
    /// How long a connection may last. Default 2 h; 0 is for ever.
    pub max_life: Duration,
    /// Largest message, inflated, in bytes. Default 128 KiB; over it 1009.
    pub max_message_bytes: usize,
    /// Largest frame, in bytes. Default as the message; over it 1009.
    pub max_frame_bytes: usize,
    /// Messages that wait for the one before them. Default 64, 256 KiB.
    pub queue: Queue,
    /// When the end of a connection is told again after a failure. Default 1 s, 5 s, 30 s, 2 min, 10 min, each a fifth
    /// more or less.
    pub retry: Vec<Duration>,
    /// When an integration that fails is left alone. Default as [`Trip`].
    pub breaker: Trip,
    /// Calls at a time. Default 256; more wait.
    pub max_in_flight: usize,
    /// Who signs what goes to Lambda's Invoke API, that of authorizers too. Default nobody.
    pub sign: Option<Arc<dyn Sign>>,
}

impl Api {
    /// An API without routes. What is not said has its default.
    pub fn new(name: impl Into<String>, path: impl Into<String>, selection: Selection) -> Self {
        let (name, path) = (name.into(), path.into());
        Self {
            name,
            stage: path.trim_start_matches('/').to_owned(),
            path,
            selection,
            stage_variables: BTreeMap::new(),
            integrations: BTreeMap::new(),
            authorizers: BTreeMap::new(),
            routes: BTreeMap::new(),
            binary: Binary::default(),
            idle_timeout: Duration::from_secs(10 * 60),
            max_life: Duration::from_secs(2 * 3600),
            max_message_bytes: 128 << 10,
            max_frame_bytes: 128 << 10,
            queue: Queue::default(),
            retry: [1, 5, 30, 120, 600].map(Duration::from_secs).to_vec(),
            breaker: Trip::default(),
            max_in_flight: 256,
            sign: None,
        }
    }
}

/// Whom to call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Integration {
    /// What is sent, and what the answer means.
    pub kind: Kind,
    /// Where it is.
    pub url: Uri,
    /// How long a call may take, 50 ms to 29 s. Default 29 s.
    pub timeout: Duration,
}

impl Integration {
    /// Longest a call may take.
    pub const MAX_TIMEOUT: Duration = Duration::from_secs(29);

    /// A function at a URL.
    pub fn new(kind: Kind, url: Uri) -> Self {
        Self { kind, url, timeout: Self::MAX_TIMEOUT }
    }
}

/// What is sent to an integration, and what its answer means.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// The event is sent to the Invoke API of Lambda; the answer is an object with a `statusCode`.
    Lambda,
    /// The message itself is sent; the status is the answer's status, and the body its body.
    Http {
        /// Header fields of each request.
        headers: Vec<(HeaderName, Mapping)>,
    },
}

/// What a header field says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mapping {
    /// `'text'`.
    Static(HeaderValue),
    /// `$context.connectionId`.
    ConnectionId,
    /// `$context.requestId`.
    RequestId,
    /// `$context.routeKey`.
    RouteKey,
    /// `$context.eventType`.
    EventType,
    /// `$context.stage`.
    Stage,
    /// `$context.domainName`.
    DomainName,
    /// `$context.apiId`.
    ApiId,
    /// `$context.connectedAt`.
    ConnectedAt,
    /// `$context.identity.sourceIp`.
    SourceIp,
    /// `$context.identity.userAgent`.
    UserAgent,
    /// `$context.authorizer.NAME`.
    Authorizer(String),
}

/// A text that is no mapping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither a text in single quotes nor one of `$context.` with a known name")]
pub struct NoMapping;

impl FromStr for Mapping {
    type Err = NoMapping;

    fn from_str(text: &str) -> Result<Self, NoMapping> {
        if let Some(inside) = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
            let mut value: HeaderValue = inside.parse().map_err(|_| NoMapping)?;
            value.set_sensitive(true);
            return Ok(Self::Static(value));
        }
        Ok(
            match text.strip_prefix("$context.").or_else(|| text.strip_prefix("context.")).ok_or(NoMapping)? {
                "connectionId" => Self::ConnectionId,
                "requestId" | "extendedRequestId" => Self::RequestId,
                "routeKey" => Self::RouteKey,
                "eventType" => Self::EventType,
                "stage" => Self::Stage,
                "domainName" => Self::DomainName,
                "apiId" => Self::ApiId,
                "connectedAt" => Self::ConnectedAt,
                "identity.sourceIp" => Self::SourceIp,
                "identity.userAgent" => Self::UserAgent,
                other => match other.strip_prefix("authorizer.") {
                    Some(name) if !name.is_empty() => Self::Authorizer(name.to_owned()),
                    _ => return Err(NoMapping),
                },
            },
        )
    }
}

/// Who decides who may connect.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Authorizer {
    /// Where the Invoke API of its function is.
    pub url: Uri,
    /// What a request has to say to be asked about. Default nothing.
    pub identity: Vec<Source>,
    /// How long an answer is kept for the same identity. Default not at all.
    pub cache: Duration,
    /// How long it may take. Default 29 s.
    pub timeout: Duration,
}

impl Authorizer {
    /// A function at a URL, asked about everybody.
    pub fn new(url: Uri) -> Self {
        Self { url, identity: Vec::new(), cache: Duration::ZERO, timeout: Integration::MAX_TIMEOUT }
    }
}

/// Where a part of a client's identity stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A header field.
    Header(String),
    /// A parameter.
    Query(String),
    /// A stage variable.
    StageVariable(String),
    /// The client's address.
    SourceIp,
}

/// A text that names no source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "none of `route.request.header.NAME`, `route.request.querystring.NAME`, `stageVariables.NAME` and \
     `context.identity.sourceIp`"
)]
pub struct NoSource;

impl FromStr for Source {
    type Err = NoSource;

    fn from_str(text: &str) -> Result<Self, NoSource> {
        let text = text.strip_prefix('$').unwrap_or(text);
        let named =
            |prefix: &str| text.strip_prefix(prefix).filter(|name| !name.is_empty()).map(str::to_owned);
        if let Some(name) = named("route.request.header.") {
            return Ok(Self::Header(name));
        }
        if let Some(name) = named("route.request.querystring.") {
            return Ok(Self::Query(name));
        }
        if let Some(name) = named("stageVariables.") {
            return Ok(Self::StageVariable(name));
        }
        if text == "context.identity.sourceIp" { Ok(Self::SourceIp) } else { Err(NoSource) }
    }
}

/// What is called for a kind of event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// The name of the integration.
    pub integration: String,
    /// The name of the authorizer, of `$connect` alone.
    pub authorizer: Option<String>,
    /// Whether the answer's body is sent to the client. Default no.
    pub response: bool,
}

impl Route {
    /// A silent one.
    pub fn new(integration: impl Into<String>) -> Self {
        Self { integration: integration.into(), authorizer: None, response: false }
    }
}

/// What becomes of binary messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Binary {
    /// They go to `$default` as base64.
    #[default]
    Base64,
    /// The connection is closed with 1003.
    Refuse,
}

/// Messages of one connection that wait for those before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queue {
    /// How many. Default 64.
    pub max_messages: usize,
    /// How large together, in bytes. Default 256 KiB.
    pub max_bytes: usize,
    /// What happens then. Default [`Overflow::Pause`].
    pub overflow: Overflow,
}

impl Default for Queue {
    fn default() -> Self {
        Self { max_messages: 64, max_bytes: 256 << 10, overflow: Overflow::default() }
    }
}

/// What happens when more messages wait than may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The socket is not read until there is room: the client is held back, and nothing is lost.
    #[default]
    Pause,
    /// The connection is closed with 1013.
    Close,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "route.request.header.{name}"),
            Self::Query(name) => write!(f, "route.request.querystring.{name}"),
            Self::StageVariable(name) => write!(f, "stageVariables.{name}"),
            Self::SourceIp => f.write_str("context.identity.sourceIp"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_and_sources_are_read() {
        assert_eq!("'static'".parse(), Ok(Mapping::Static(HeaderValue::from_static("static"))));
        assert_eq!("$context.connectionId".parse(), Ok(Mapping::ConnectionId));
        assert_eq!("context.authorizer.n".parse(), Ok(Mapping::Authorizer("n".into())));
        for wrong in
            ["static", "'a", "$context.nothing", "$context.authorizer.", "'a\nb'", "$request.body.x", ""]
        {
            assert_eq!(wrong.parse::<Mapping>(), Err(NoMapping), "{wrong}");
        }
        for source in
            ["route.request.querystring.token", "route.request.header.HeaderAuth1", "stageVariables.a"]
        {
            assert_eq!(source.parse::<Source>().unwrap().to_string(), source);
        }
        for wrong in ["token", "route.request.header.", "method.request.header.x", "context.stage"] {
            assert_eq!(wrong.parse::<Source>(), Err(NoSource), "{wrong}");
        }
    }
}

//! What a route is, and what all routes have in common.

use std::sync::Arc;
use std::time::Duration;

use gateway::sign::Secrets;
use grip::Key;
use grip::signature::{Signer, Verifier};
use http::{HeaderName, HeaderValue, Method, Uri};
use http_edge::OriginPolicy;
use outgoing::{Identity, Trust};

use crate::keys::ControlKey;
use crate::pattern::{HostPattern, PathPattern};

/// All routes, and what they have in common.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Settings {
    /// The routes, in any order: the best match has a request.
    pub routes: Vec<Route>,
    /// Who may publish items of GRIP, beside whom the broker knows.
    pub control_keys: Arc<[ControlKey]>,
    /// What origins are told of the way that a request came. Default: the client's address is put behind it.
    pub forwarded_for: ForwardedFor,
    /// By what servers know the items of one another, and their own after a start: the same secret in all of them. Read at
    /// the start. Default one that is kept where the broker has an engine, and else of the process alone.
    pub seal: Option<Key>,
}

/// What becomes of `X-Forwarded-For`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForwardedFor {
    /// Origins are told nothing.
    Drop,
    /// The client's address stands behind what the client has sent.
    #[default]
    Append,
    /// The same, of what the client has sent the last so many: those of proxies that are trusted.
    Keep(usize),
}

/// What is done with a request of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// It goes to the origin and the answer comes back, and nothing else.
    Proxy,
    /// The same, signed; of a WebSocket the origin gets the events, by short requests.
    Grip,
}

/// What a request is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// An answer of HTTP.
    Http,
    /// A WebSocket.
    WebSocket,
}

/// How a request comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// Inside of TLS, as far as the server or a proxy that it trusts knows.
    Https,
}

/// How messages that are no items of GRIP are written into streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamFormat {
    /// As the type of the stream says.
    #[default]
    Auto,
    /// They are left out.
    Off,
}

impl Dialect {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Grip => "grip",
        }
    }
}

/// One route.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Route {
    /// Its name: in logs, metrics, and for operators.
    pub id: String,
    /// What is done with its requests.
    pub dialect: Dialect,
    /// For which hosts it is.
    pub host: HostPattern,
    /// For which paths it is.
    pub path: PathPattern,
    /// For which methods; empty: for all.
    pub methods: Vec<Method>,
    /// For WebSockets alone, or for all but them. Default for both.
    pub protocol: Option<Protocol>,
    /// For what comes inside of TLS alone, or without. Default for both.
    pub scheme: Option<Scheme>,
    /// Where its requests go. Of several the next is tried where one cannot be connected to.
    pub origins: Vec<Origin>,
    /// Longest time to the head of an answer, from the last piece of the request on. Default 60 s.
    pub timeout: Duration,
    /// Longest time for a connection to an origin. Default 5 s.
    pub connect_timeout: Duration,
    /// What is taken off a path before it goes to the origin.
    pub strip_prefix: Option<String>,
    /// What stands there instead; without [`Route::strip_prefix`] in place of what the pattern begins with.
    pub replace_prefix: Option<String>,
    /// The `Host` that the origin sees. Default that of the client.
    pub origin_host: Option<HeaderValue>,
    /// Fields of each request, in place of those of the same name.
    pub request_headers: Vec<(HeaderName, HeaderValue)>,
    /// Fields of each answer, in place of those of the same name.
    pub response_headers: Vec<(HeaderName, HeaderValue)>,
    /// Requests at a time that have no answer yet. More wait for their turn. Default 1,000.
    pub max_in_flight: usize,
    /// How often GET and HEAD are tried again where no origin can be connected to. Default once.
    pub retry: u32,
    /// Whether a client may read what is wrong with an origin, its address included. Default no.
    pub debug: bool,
    /// Whose certificates are trusted, for `https` and `wss`.
    pub trust: Trust,
    /// Who the route is to its origins.
    pub identity: Option<Identity>,
    /// Requests and WebSockets at a time; one more is answered 503. Default 10,000.
    pub max_connections: usize,
    /// A WebSocket on which nothing passed for so long is closed. Default 10 min; zero: never.
    pub idle_timeout: Duration,
    /// How long a request waits for an origin that cannot be connected to yet. Default not at all.
    pub cold_start: Duration,
    /// How long nothing must be under way until somebody is told. Default 5 min.
    pub scale_down_after: Duration,
    /// Who is told that nothing is under way any more.
    pub on_idle: Option<Uri>,
    /// Who is told of the first request after that.
    pub on_first: Option<Uri>,
    /// What requests of [`Dialect::Grip`] are signed with. Default nothing.
    pub signer: Option<Arc<Signer>>,
    /// Who is believed to be another such server in front: its signed requests pass as they are, and so do the answers,
    /// instructions included. Default nobody.
    pub upstream: Option<Arc<Verifier>>,
    /// Pages of which other origins may ask, where the origin's own answer does not say. Default that is left to it.
    pub cors: Option<OriginPolicy>,
    /// Channels that each WebSocket of [`Dialect::Grip`] is on, whatever its origin says, behind
    /// [`Route::channel_prefix`].
    pub subscribe: Vec<String>,
    /// Names beside those of the route by which an origin may call itself in links.
    pub link_hosts: Vec<String>,
    /// What stands before the name of each channel that an origin names.
    pub channel_prefix: String,
    /// Most events of a WebSocket in one request. Default 100.
    pub max_events: usize,
    /// What streams get of messages that are no items of GRIP. Default as their type says.
    pub stream_format: StreamFormat,
    /// Whether an origin gets the pings and pongs of a WebSocket, each of which is a request. Default no.
    pub forward_pings: bool,
    /// What notifications are signed with; nothing: they are not.
    pub notify_secrets: Secrets,
    /// Of what it was made, as a number: one that is the same after a reload goes on as it is.
    pub version: u64,
}

impl Route {
    /// A route with the defaults.
    pub fn new(id: impl Into<String>, dialect: Dialect, path: PathPattern, origins: Vec<Origin>) -> Self {
        Self {
            id: id.into(),
            dialect,
            host: HostPattern::default(),
            path,
            methods: Vec::new(),
            protocol: None,
            scheme: None,
            origins,
            timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            strip_prefix: None,
            replace_prefix: None,
            origin_host: None,
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            max_in_flight: 1_000,
            retry: 1,
            debug: false,
            trust: Trust::default(),
            identity: None,
            max_connections: 10_000,
            idle_timeout: Duration::from_secs(600),
            cold_start: Duration::ZERO,
            scale_down_after: Duration::from_secs(300),
            on_idle: None,
            on_first: None,
            signer: None,
            upstream: None,
            cors: None,
            subscribe: Vec::new(),
            link_hosts: Vec::new(),
            channel_prefix: String::new(),
            max_events: grip::exchange::MAX_EVENTS,
            stream_format: StreamFormat::Auto,
            forward_pings: false,
            notify_secrets: Secrets::default(),
            version: 0,
        }
    }
}

/// Where requests of a route go.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// `http` or `https`, host and port, and what stands before each path.
    pub base: Uri,
    /// Whether it was written `ws` or `wss`: WebSockets are passed through, whatever the dialect.
    pub is_websocket: bool,
}

/// A text that is no origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoOrigin(String);

impl std::str::FromStr for Origin {
    type Err = NoOrigin;

    fn from_str(text: &str) -> Result<Self, NoOrigin> {
        let wrong = |why: &str| NoOrigin(format!("{text:?} {why}"));
        let (is_websocket, text_of_http) = match text.split_once("://") {
            Some(("http" | "https", _)) => (false, text.to_owned()),
            Some(("ws", rest)) => (true, format!("http://{rest}")),
            Some(("wss", rest)) => (true, format!("https://{rest}")),
            _ => return Err(wrong("is no URL of http, https, ws or wss")),
        };
        let base: Uri = text_of_http.parse().map_err(|_| wrong("is no URL"))?;
        if base.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(NoOrigin("credentials do not stand in an origin".to_owned()));
        }
        if base.query().is_some() {
            return Err(wrong("has a query, which is the client's"));
        }
        outgoing::Client::check(&base).map_err(|error| NoOrigin(error.to_string()))?;
        Ok(Self { base, is_websocket })
    }
}

impl Origin {
    /// Host and port.
    pub(crate) fn authority(&self) -> &str {
        self.base.authority().map_or("", |authority| authority.as_str())
    }

    /// Where a path with its query is there.
    ///
    /// # Errors
    /// The path does not stand in a URL.
    pub(crate) fn url(&self, path_and_query: &str) -> Result<Uri, http::Error> {
        let before = self.base.path().trim_end_matches('/');
        let slash = if path_and_query.starts_with('/') { "" } else { "/" };
        Uri::builder()
            .scheme(self.base.scheme_str().unwrap_or("http"))
            .authority(self.authority())
            .path_and_query(format!("{before}{slash}{path_and_query}"))
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_url_and_paths_stand_behind_it_as_they_came() {
        for (origin, path, url) in [
            ("http://a.example", "/x?y=%2F", "http://a.example/x?y=%2F"),
            ("https://a.example:8443/", "/", "https://a.example:8443/"),
            ("ws://a.example/base/", "/x//y%20z", "http://a.example/base/x//y%20z"),
            ("wss://a.example/base", "?q", "https://a.example/base/?q"),
            ("http://[::1]:81", "/a;b=1/../c", "http://[::1]:81/a;b=1/../c"),
        ] {
            let origin: Origin = origin.parse().unwrap();
            assert_eq!(origin.url(path).unwrap().to_string(), url);
        }
        for wrong in
            ["a.example", "ftp://a.example", "http://u:p@a.example", "http://a.example/?q", "http://"]
        {
            assert!(wrong.parse::<Origin>().is_err(), "{wrong}");
        }
    }
}

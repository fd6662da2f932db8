//! How an API is written in a configuration: an element of `gateway.aws`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use gateway::written::{Fault, Wrong, fault};
use http::{HeaderName, Uri};
use serde::{Deserialize, Serialize};
use settings::{Period, Size, Span};

use crate::config::{
    Api, Authorizer, Binary, Integration, Kind, Mapping, Overflow, Queue, Route, Selection, Source, Trip,
};
use crate::verify::Sign;

/// Shortest that a function may be given.
const MIN_TIMEOUT: Duration = Duration::from_millis(50);

/// Header fields that nobody sets but the HTTP client.
const OWN_HEADERS: [&str; 8] =
    ["host", "content-length", "connection", "transfer-encoding", "upgrade", "te", "trailer", "expect"];

/// One API, as it is written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    name: String,
    path: String,
    stage: Option<String>,
    route_selection: String,
    #[serde(default)]
    stage_variables: BTreeMap<String, String>,
    #[serde(default)]
    integrations: BTreeMap<String, WrittenIntegration>,
    #[serde(default)]
    authorizers: BTreeMap<String, WrittenAuthorizer>,
    #[serde(default)]
    routes: BTreeMap<String, WrittenRoute>,
    #[serde(default)]
    binary: WrittenBinary,
    idle_timeout: Option<Span>,
    max_life: Option<Span>,
    max_message_bytes: Option<Size>,
    max_frame_bytes: Option<Size>,
    #[serde(default)]
    queue: WrittenQueue,
    retry: Option<Vec<Span>>,
    #[serde(default)]
    breaker: WrittenBreaker,
    max_in_flight: Option<usize>,
    sign: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenIntegration {
    #[serde(default)]
    kind: WrittenKind,
    url: String,
    timeout: Option<Span>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum WrittenKind {
    #[default]
    Lambda,
    Http,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenAuthorizer {
    url: String,
    #[serde(default)]
    identity: Vec<String>,
    cache: Option<Span>,
    timeout: Option<Span>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenRoute {
    integration: String,
    authorizer: Option<String>,
    #[serde(default)]
    response: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum WrittenBinary {
    #[default]
    Base64,
    Refuse,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenQueue {
    max_messages: Option<usize>,
    max_bytes: Option<Size>,
    overflow: WrittenOverflow,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum WrittenOverflow {
    #[default]
    Pause,
    Close,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenBreaker {
    min_calls: Option<u32>,
    failure_ratio: Option<f64>,
    window: Option<Period>,
    open: Option<Period>,
    max_open: Option<Period>,
}

/// The APIs that are written. `taken` is whether a path is somebody else's already; `signer` signs with an access key, if
/// that is known.
///
/// # Errors
/// The first thing that cannot be meant.
pub fn apis(
    written: &[Written],
    taken: impl Fn(&str) -> bool,
    signer: impl Fn(&str) -> Option<Arc<dyn Sign>>,
) -> Result<Vec<Api>, Wrong> {
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    let mut apis = Vec::with_capacity(written.len());
    for (at, one) in written.iter().enumerate() {
        let place = |(key, message): Fault| Wrong::new(format!("aws[{at}].{key}"), message);
        let mut api = one.api().map_err(place)?;
        if let Some(key) = &one.sign {
            let unknown = || place(("sign".to_owned(), format!("no access key is called {key:?}")));
            api.sign = Some(signer(key).ok_or_else(unknown)?);
        }
        if !names.insert(api.name.clone()) {
            return Err(place(("name".to_owned(), format!("{:?} is the name of another API", api.name))));
        }
        if taken(&api.path) {
            return Err(place(("path".to_owned(), format!("{:?} is a path of the broker's own", api.path))));
        }
        if !paths.insert(api.path.clone()) {
            return Err(place(("path".to_owned(), format!("{:?} is the path of another API", api.path))));
        }
        apis.push(api);
    }
    Ok(apis)
}

impl Written {
    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn api(&self) -> Result<Api, Fault> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if !(1..=64).contains(&self.name.len()) || !self.name.bytes().all(plain) {
            return fault("name", "1 to 64 letters, digits, `-` and `_` are a name");
        }
        if !is_path(&self.path) {
            let message = format!("{:?} is no path such as \"/dev\" or \"/chat/dev\"", self.path);
            return fault("path", message);
        }
        let selection: Selection = read("route_selection", &self.route_selection)?;
        let mut api = Api::new(self.name.clone(), self.path.clone(), selection);
        if let Some(stage) = &self.stage {
            if !is_path(&format!("/{stage}")) {
                return fault("stage", format!("{stage:?} is no name of a stage"));
            }
            api.stage.clone_from(stage);
        }
        api.stage_variables.clone_from(&self.stage_variables);
        for (name, integration) in &self.integrations {
            api.integrations.insert(name.clone(), integration.read(&format!("integrations.{name}"))?);
        }
        for (name, authorizer) in &self.authorizers {
            api.authorizers.insert(name.clone(), authorizer.read(&format!("authorizers.{name}"))?);
        }
        for (name, route) in &self.routes {
            api.routes.insert(name.clone(), route.read(name, &api)?);
        }
        api.binary = match self.binary {
            WrittenBinary::Base64 => Binary::Base64,
            WrittenBinary::Refuse => Binary::Refuse,
        };
        api.idle_timeout = self.idle_timeout.map_or(api.idle_timeout, |span| span.0);
        api.max_life = self.max_life.map_or(api.max_life, |span| span.0);
        api.max_message_bytes =
            at_least("max_message_bytes", self.max_message_bytes, 1, api.max_message_bytes)?;
        api.max_frame_bytes = at_least("max_frame_bytes", self.max_frame_bytes, 1, api.max_message_bytes)?;
        api.queue = self.queue.read(api.queue)?;
        if let Some(retry) = &self.retry {
            if retry.len() > 20 {
                return fault("retry", "at most 20 waits");
            }
            api.retry = retry.iter().map(|span| span.0).collect();
        }
        api.breaker = self.breaker.read()?;
        if let Some(calls) = self.max_in_flight {
            if !(1..=10_000).contains(&calls) {
                return fault("max_in_flight", "1 to 10000 calls at a time");
            }
            api.max_in_flight = calls;
        }
        Ok(api)
    }
}

impl WrittenIntegration {
    fn read(&self, key: &str) -> Result<Integration, Fault> {
        let kind = match self.kind {
            WrittenKind::Lambda if !self.headers.is_empty() => {
                return fault(format!("{key}.headers"), "are those of `kind = \"http\"` alone");
            }
            WrittenKind::Lambda => Kind::Lambda,
            WrittenKind::Http => {
                let mut headers = Vec::with_capacity(self.headers.len());
                for (name, mapping) in &self.headers {
                    let key = format!("{key}.headers.{name}");
                    let name: HeaderName = read(&key, name)?;
                    if OWN_HEADERS.contains(&name.as_str()) {
                        return fault(key, "is set by the broker alone");
                    }
                    headers.push((name, read::<Mapping>(&key, mapping)?));
                }
                Kind::Http { headers }
            }
        };
        let mut integration = Integration::new(kind, url(&format!("{key}.url"), &self.url)?);
        integration.timeout = timeout(&format!("{key}.timeout"), self.timeout)?;
        Ok(integration)
    }
}

impl WrittenAuthorizer {
    fn read(&self, key: &str) -> Result<Authorizer, Fault> {
        let mut authorizer = Authorizer::new(url(&format!("{key}.url"), &self.url)?);
        let identity_key = format!("{key}.identity");
        for source in &self.identity {
            authorizer.identity.push(read::<Source>(&identity_key, source)?);
        }
        authorizer.cache = self.cache.map_or(Duration::ZERO, |span| span.0);
        if !authorizer.cache.is_zero() && authorizer.identity.is_empty() {
            return fault(format!("{key}.cache"), "without `identity` everybody would get the same answer");
        }
        authorizer.timeout = timeout(&format!("{key}.timeout"), self.timeout)?;
        Ok(authorizer)
    }
}

impl WrittenRoute {
    fn read(&self, name: &str, api: &Api) -> Result<Route, Fault> {
        let key = format!("routes.{name}");
        if name.is_empty() {
            return fault("routes", "a route has a key");
        }
        if name.starts_with('$') && !["$connect", "$disconnect", "$default"].contains(&name) {
            return fault(
                key,
                "of the keys that begin with `$` there are $connect, $disconnect and $default",
            );
        }
        if !api.integrations.contains_key(&self.integration) {
            return fault(
                format!("{key}.integration"),
                format!("no integration is called {:?}", self.integration),
            );
        }
        if let Some(authorizer) = &self.authorizer {
            if !api.authorizers.contains_key(authorizer) {
                return fault(format!("{key}.authorizer"), format!("no authorizer is called {authorizer:?}"));
            }
            if name != "$connect" {
                return fault(format!("{key}.authorizer"), "stands at $connect alone");
            }
        }
        let mut route = Route::new(self.integration.clone());
        route.authorizer.clone_from(&self.authorizer);
        route.response = self.response;
        Ok(route)
    }
}

impl WrittenQueue {
    fn read(&self, default: Queue) -> Result<Queue, Fault> {
        let max_messages = self.max_messages.unwrap_or(default.max_messages);
        if !(1..=10_000).contains(&max_messages) {
            return fault("queue.max_messages", "1 to 10000 messages");
        }
        Ok(Queue {
            max_messages,
            max_bytes: at_least("queue.max_bytes", self.max_bytes, 1, default.max_bytes)?,
            overflow: match self.overflow {
                WrittenOverflow::Pause => Overflow::Pause,
                WrittenOverflow::Close => Overflow::Close,
            },
        })
    }
}

impl WrittenBreaker {
    fn read(&self) -> Result<Trip, Fault> {
        let default = Trip::default();
        let ratio = self.failure_ratio.unwrap_or(default.failure_ratio);
        if !(ratio > 0.0 && ratio <= 1.0) {
            return fault("breaker.failure_ratio", "more than 0, at most 1");
        }
        let min_calls = self.min_calls.unwrap_or(default.min_calls);
        if min_calls == 0 {
            return fault("breaker.min_calls", "a whole number of 1 or more");
        }
        let open = self.open.map_or(default.open, |period| period.0);
        let max_open = self.max_open.map_or(default.max_open.max(open), |period| period.0);
        if max_open < open {
            return fault("breaker.max_open", "is no shorter than `open`");
        }
        let window = self.window.map_or(default.window, |period| period.0);
        let mut trip = default;
        (trip.min_calls, trip.failure_ratio, trip.window) = (min_calls, ratio, window);
        (trip.open, trip.max_open) = (open, max_open);
        Ok(trip)
    }
}

fn read<T: FromStr<Err: fmt::Display>>(key: &str, text: &str) -> Result<T, Fault> {
    text.parse().map_err(|error: T::Err| (key.to_owned(), format!("{text:?}: {error}")))
}

fn at_least(key: &str, said: Option<Size>, least: usize, default: usize) -> Result<usize, Fault> {
    match said {
        Some(Size(bytes)) if bytes < least => fault(key, format!("at least {least} bytes")),
        Some(Size(bytes)) => Ok(bytes),
        None => Ok(default),
    }
}

fn timeout(key: &str, said: Option<Span>) -> Result<Duration, Fault> {
    let timeout = said.map_or(Integration::MAX_TIMEOUT, |span| span.0);
    match (MIN_TIMEOUT..=Integration::MAX_TIMEOUT).contains(&timeout) {
        true => Ok(timeout),
        false => fault(key, "50ms to 29s"),
    }
}

fn url(key: &str, text: &str) -> Result<Uri, Fault> {
    let url: Uri = text.parse().map_err(|_| (key.to_owned(), format!("{text:?} is no URL")))?;
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return fault(key, "credentials do not stand in a URL");
    }
    outgoing::Client::check(&url).map_err(|error| (key.to_owned(), error.to_string()))?;
    Ok(url)
}

/// Segments of plain characters behind one slash each. `@` is not among them, as `@connections` is below.
fn is_path(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~$".contains(&byte);
    let is_segment =
        |segment: &str| !segment.is_empty() && segment.bytes().all(plain) && !matches!(segment, "." | "..");
    text.len() <= 256 && text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_segment))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn base() -> serde_json::Value {
        json!({"name": "chat", "path": "/dev", "route_selection": "$request.body.action",
            "integrations": {"main": {"kind": "lambda", "url": "http://127.0.0.1:9/x", "timeout": "2s"},
                "web": {"kind": "http", "url": "http://127.0.0.1:9/web",
                    "headers": {"connectionId": "$context.connectionId", "x-who": "'static'"}}},
            "authorizers": {"who": {"url": "http://127.0.0.1:9/who",
                "identity": ["route.request.querystring.token"], "cache": "1m"}},
            "routes": {"$connect": {"integration": "main", "authorizer": "who"},
                "$default": {"integration": "main", "response": true}, "mute": {"integration": "web"}}})
    }

    #[derive(Debug)]
    struct Signer;

    impl Sign for Signer {
        fn sign(&self, _: &mut http::Request<bytes::Bytes>) {}
    }

    fn signer(key: &str) -> Option<Arc<dyn Sign>> {
        (key == "AK").then(|| Arc::new(Signer) as _)
    }

    fn changed(changes: serde_json::Value) -> Result<Api, String> {
        let mut written = base();
        for (name, value) in changes.as_object().unwrap() {
            written[name] = value.clone();
        }
        let written: Written = serde_json::from_value(written).map_err(|error| error.to_string())?;
        apis(&[written], |path| path == "/v1", signer)
            .map(|mut apis| apis.remove(0))
            .map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let api = changed(json!({})).unwrap();
        assert_eq!((&*api.stage, api.max_frame_bytes, api.max_in_flight), ("dev", 128 << 10, 256));
        assert_eq!((api.idle_timeout.as_secs(), api.max_life.as_secs()), (600, 7_200));
        assert_eq!((api.breaker, api.queue), (Trip::default(), Queue::default()));
        assert!(api.routes["$default"].response && !api.routes["mute"].response);
        assert_eq!(api.integrations["main"].timeout, Duration::from_secs(2));
        assert_eq!(api.integrations["web"].timeout, Integration::MAX_TIMEOUT);
        assert_eq!(changed(json!({"path": "/chat/dev"})).unwrap().stage, "chat/dev");
        assert!(api.sign.is_none() && changed(json!({"sign": "AK"})).unwrap().sign.is_some());
        assert_eq!(changed(json!({"stage": "prod"})).unwrap().stage, "prod");
        let api = changed(json!({"queue": {"max_messages": 8, "max_bytes": "64 KiB", "overflow": "close"},
            "binary": "refuse", "max_message_bytes": "4 KiB", "retry": ["100ms"], "max_life": 0,
            "breaker": {"min_calls": 5, "failure_ratio": 0.5, "window": "10s", "open": "600ms", "max_open": "2s"}}));
        let api = api.unwrap();
        assert_eq!(api.queue, Queue { max_messages: 8, max_bytes: 64 << 10, overflow: Overflow::Close });
        assert_eq!(
            (api.max_message_bytes, api.max_frame_bytes, api.max_life),
            (4_096, 4_096, Duration::ZERO)
        );
        assert_eq!((api.binary, api.breaker.open), (Binary::Refuse, Duration::from_millis(600)));
    }

    #[test]
    fn what_cannot_be_meant_is_said_with_its_key() {
        let url = "http://127.0.0.1:9/";
        for (changes, said) in [
            (json!({"name": "a b"}), "aws[0].name: 1 to 64"),
            (json!({"path": "dev"}), "aws[0].path: \"dev\" is no path"),
            (json!({"path": "/"}), "aws[0].path: \"/\" is no path"),
            (json!({"path": "/@connections"}), "aws[0].path: \"/@connections\" is no path"),
            (json!({"path": "/v1"}), "aws[0].path: \"/v1\" is a path of the broker's own"),
            (json!({"stage": ""}), "aws[0].stage: \"\" is no name"),
            (json!({"route_selection": "action"}), "aws[0].route_selection: \"action\": no route selection"),
            (json!({"route_selection": null}), "invalid type: null"),
            (json!({"integrations": {"main": {"url": "nowhere"}}}), "aws[0].integrations.main.url: "),
            (
                json!({"integrations": {"main": {"url": url, "timeout": "49ms"}}}),
                "aws[0].integrations.main.timeout: 50ms to 29s",
            ),
            (
                json!({"integrations": {"main": {"url": url, "timeout": "30s"}}}),
                "aws[0].integrations.main.timeout: 50ms to 29s",
            ),
            (
                json!({"integrations": {"main": {"url": url, "headers": {"a": "'b'"}}}}),
                "aws[0].integrations.main.headers: are those of",
            ),
            (
                json!({"integrations": {"web": {"kind": "http", "url": url, "headers": {"Host": "'b'"}}}}),
                "aws[0].integrations.web.headers.Host: is set by the broker",
            ),
            (
                json!({"integrations": {"web": {"kind": "http", "url": url, "headers": {"x": "b"}}}}),
                "aws[0].integrations.web.headers.x: \"b\": neither a text in single quotes",
            ),
            (json!({"integrations": {"main": {"kind": "sqs", "url": url}}}), "unknown variant `sqs`"),
            (
                json!({"authorizers": {"who": {"url": url, "identity": ["token"]}}}),
                "aws[0].authorizers.who.identity: \"token\": none of",
            ),
            (
                json!({"authorizers": {"who": {"url": url, "cache": "1m"}}}),
                "aws[0].authorizers.who.cache: without `identity`",
            ),
            (
                json!({"routes": {"x": {"integration": "nobody"}}}),
                "aws[0].routes.x.integration: no integration is called \"nobody\"",
            ),
            (
                json!({"routes": {"$connect": {"integration": "main", "authorizer": "nobody"}}}),
                "aws[0].routes.$connect.authorizer: no authorizer is called \"nobody\"",
            ),
            (
                json!({"routes": {"x": {"integration": "main", "authorizer": "who"}}}),
                "aws[0].routes.x.authorizer: stands at $connect alone",
            ),
            (json!({"routes": {"$other": {"integration": "main"}}}), "aws[0].routes.$other: of the keys"),
            (json!({"sign": "BK"}), "aws[0].sign: no access key is called \"BK\""),
            (json!({"max_in_flight": 0}), "aws[0].max_in_flight: 1 to 10000"),
            (json!({"queue": {"max_messages": 0}}), "aws[0].queue.max_messages: 1 to 10000"),
            (json!({"breaker": {"failure_ratio": 1.5}}), "aws[0].breaker.failure_ratio: more than 0"),
            (json!({"breaker": {"open": "5s", "max_open": "1s"}}), "aws[0].breaker.max_open: is no shorter"),
            (json!({"idle": "1s"}), "unknown field `idle`"),
        ] {
            let wrong = changed(changes.clone()).expect_err(&changes.to_string());
            assert!(wrong.starts_with(said), "{changes}: {wrong}");
        }
        let mut missing = base();
        missing.as_object_mut().unwrap().remove("route_selection");
        let missing = serde_json::from_value::<Written>(missing).unwrap_err().to_string();
        assert!(missing.starts_with("missing field `route_selection`"), "{missing}");
    }

    #[test]
    fn two_apis_have_two_names_and_two_paths() {
        let one: Written = serde_json::from_value(base()).unwrap();
        let other = |name: &str, path: &str| Written { name: name.into(), path: path.into(), ..one.clone() };
        assert_eq!(apis(&[one.clone(), other("b", "/b")], |_| false, signer).unwrap().len(), 2);
        for (other, said) in [
            (other("chat", "/b"), "aws[1].name: \"chat\" is the name of another API"),
            (other("b", "/dev"), "aws[1].path: \"/dev\" is the path of another API"),
        ] {
            assert_eq!(apis(&[one.clone(), other], |_| false, signer).unwrap_err().to_string(), said);
        }
    }
}

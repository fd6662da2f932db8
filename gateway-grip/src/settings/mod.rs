//! How routes are written in a configuration: `gateway.routes` and `gateway.grip`.

mod grip;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::Duration;

use broker_core::Channel;
use gateway::sign::{Secret, Secrets};
use gateway::written::{Fault, Wrong, fault};
use http::{HeaderValue, Method};
use outgoing::{Authorities, Identity, Trust};
use serde::{Deserialize, Serialize};
use settings::{Period, Span};

pub use self::grip::WrittenGrip;
use self::grip::{forwarded_for, seal, signer, upstream};
use self::values::{cors, file, headers, parse, url, within};
use crate::config::{Dialect, Origin, Protocol, Route, Scheme, Settings, StreamFormat};
use crate::pattern::PathPattern;

/// One route, as it is written.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    id: String,
    dialect: String,
    host: Option<String>,
    path: String,
    #[serde(default)]
    methods: Vec<String>,
    protocol: Option<String>,
    scheme: Option<String>,
    origin: OneOrMore,
    timeout: Option<Period>,
    connect_timeout: Option<Period>,
    strip_prefix: Option<String>,
    replace_prefix: Option<String>,
    origin_host: Option<String>,
    #[serde(default)]
    request_headers: BTreeMap<String, String>,
    #[serde(default)]
    response_headers: BTreeMap<String, String>,
    max_in_flight: Option<usize>,
    retry: Option<u32>,
    #[serde(default)]
    debug: bool,
    #[serde(default)]
    tls: WrittenTls,
    max_connections: Option<usize>,
    idle_timeout: Option<Span>,
    cold_start: Option<Span>,
    scale_down_after: Option<Period>,
    on_idle: Option<String>,
    on_first: Option<String>,
    sig_iss: Option<String>,
    sig_key: Option<String>,
    sig_key_file: Option<String>,
    channel_prefix: Option<String>,
    max_events: Option<usize>,
    stream_format: Option<String>,
    #[serde(default)]
    forward_pings: bool,
    upstream_key: Option<String>,
    upstream_key_file: Option<String>,
    cors: Option<OneOrMore>,
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    link_hosts: Vec<String>,
    notify_secret: Option<String>,
    notify_secret_file: Option<String>,
}

/// One text, or a list.
#[derive(Clone, Deserialize, Serialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(all) => all,
        }
    }
}

#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenTls {
    ca_file: Option<String>,
    client_cert: Option<String>,
    client_key: Option<String>,
    insecure: bool,
}

impl fmt::Debug for Written {
    /// Nothing of its secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Written").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What is written. `taken` is whether a path is the broker's own; files are taken from `folder`.
///
/// # Errors
/// The first thing that cannot be meant.
pub fn read(
    written: &[Written],
    grip: &WrittenGrip,
    folder: &Path,
    taken: impl Fn(&str) -> bool,
) -> Result<Settings, Wrong> {
    let forwarded_for = forwarded_for(&grip.x_forwarded_for)
        .map_err(|message| Wrong::new("grip.x_forwarded_for", message))?;
    let control_keys = grip.keys(folder)?;
    let common = signer(Some(&grip.sig_iss), grip.sig_key.as_ref(), grip.sig_key_file.as_ref(), folder)
        .map_err(|(key, message)| Wrong::new(format!("grip.{key}"), message))?;
    let in_front = upstream(grip.upstream_key.as_ref(), grip.upstream_key_file.as_ref(), folder)
        .map_err(|(key, message)| Wrong::new(format!("grip.{key}"), message))?;
    let seal = seal(grip, folder).map_err(|(key, message)| Wrong::new(format!("grip.{key}"), message))?;
    let mut settings = Settings { forwarded_for, control_keys, seal, ..Settings::default() };
    let mut ids = BTreeSet::new();
    for (at, one) in written.iter().enumerate() {
        let place = |(key, message): Fault| Wrong::new(format!("routes[{at}].{key}"), message);
        let mut route = one.route(folder).map_err(place)?;
        if route.dialect == Dialect::Grip && route.signer.is_none() {
            route.signer = common.clone();
            // With another key it is another route.
            let mut hasher = DefaultHasher::new();
            let file = grip.sig_key_file.as_ref().and_then(|name| std::fs::read(folder.join(name)).ok());
            (route.version, &grip.sig_iss, &grip.sig_key, file).hash(&mut hasher);
            route.version = hasher.finish();
        }
        if route.dialect == Dialect::Grip && route.upstream.is_none() {
            route.upstream = in_front.clone();
            let mut hasher = DefaultHasher::new();
            let file = grip.upstream_key_file.as_ref().and_then(|name| std::fs::read(folder.join(name)).ok());
            (route.version, &grip.upstream_key, file).hash(&mut hasher);
            route.version = hasher.finish();
        }
        if !ids.insert(route.id.clone()) {
            let message = format!("{:?} is the id of another route", route.id);
            return Err(place(("id".to_owned(), message)));
        }
        let beginning = route.path.beginning();
        if !beginning.is_empty() && taken(beginning) {
            let message = format!("{beginning:?} is a path of the broker's own");
            return Err(place(("path".to_owned(), message)));
        }
        let is_same = |other: &&Route| {
            let by_method = |a: &Route, b: &Route| {
                a.methods.is_empty() == b.methods.is_empty()
                    && (a.methods.is_empty() || a.methods.iter().any(|method| b.methods.contains(method)))
            };
            let (protocol, scheme) = (other.protocol == route.protocol, other.scheme == route.scheme);
            let of_requests = by_method(other, &route) && protocol && scheme;
            other.host == route.host && other.path == route.path && of_requests
        };
        if let Some(other) = settings.routes.iter().find(is_same) {
            let message = format!("{:?} has the same host, path and methods", other.id);
            return Err(place(("path".to_owned(), message)));
        }
        settings.routes.push(route);
    }
    Ok(settings)
}

impl Written {
    fn route(&self, folder: &Path) -> Result<Route, Fault> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=64).contains(&self.id.len()) || !self.id.bytes().all(plain) {
            return fault("id", "1 to 64 letters, digits, `-`, `_` and `.` are an id");
        }
        let dialect = match &*self.dialect {
            "proxy" => Dialect::Proxy,
            "grip" => Dialect::Grip,
            "aws" => return fault("dialect", "APIs of AWS stand in `gateway.aws`"),
            "webhook" => return fault("dialect", "webhooks stand in `gateway.webhooks`"),
            other => return fault("dialect", format!("{other:?} is no dialect; \"grip\" and \"proxy\" are")),
        };
        let path: PathPattern = parse("path", &self.path)?;
        let origins = self.origin.all();
        if origins.is_empty() || origins.len() > 16 {
            return fault("origin", "a route has 1 to 16 origins");
        }
        let origins = origins
            .iter()
            .map(|text| text.parse::<Origin>().map_err(|error| ("origin".to_owned(), error.to_string())))
            .collect::<Result<_, _>>()?;
        let mut route = Route::new(self.id.clone(), dialect, path, origins);
        if let Some(host) = &self.host {
            route.host = parse("host", host)?;
        }
        for method in &self.methods {
            route.methods.push(parse::<Method>("methods", method)?);
        }
        route.protocol = match self.protocol.as_deref() {
            None => None,
            Some("http") => Some(Protocol::Http),
            Some("websocket") => Some(Protocol::WebSocket),
            Some(other) => {
                return fault("protocol", format!("{other:?} is none of \"http\" and \"websocket\""));
            }
        };
        route.scheme = match self.scheme.as_deref() {
            None => None,
            Some("http") => Some(Scheme::Http),
            Some("https") => Some(Scheme::Https),
            Some(other) => return fault("scheme", format!("{other:?} is none of \"http\" and \"https\"")),
        };
        route.timeout = self.timeout.map_or(route.timeout, |period| period.0);
        route.connect_timeout = self.connect_timeout.map_or(route.connect_timeout, |period| period.0);
        for (key, prefix) in [("strip_prefix", &self.strip_prefix), ("replace_prefix", &self.replace_prefix)]
        {
            let is_wrong = |text: &String| {
                !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains(['?', '#'])
            };
            if prefix.as_ref().is_some_and(is_wrong) {
                return fault(key, "is a part of a path, as it stands in a URL");
            }
        }
        route.strip_prefix.clone_from(&self.strip_prefix);
        route.replace_prefix.clone_from(&self.replace_prefix);
        if let Some(host) = &self.origin_host {
            let authority: http::uri::Authority = parse("origin_host", host)?;
            route.origin_host = Some(parse::<HeaderValue>("origin_host", authority.as_str())?);
        }
        route.request_headers = headers("request_headers", &self.request_headers)?;
        route.response_headers = headers("response_headers", &self.response_headers)?;
        route.max_in_flight = within("max_in_flight", self.max_in_flight, 1..=100_000, route.max_in_flight)?;
        route.max_connections =
            within("max_connections", self.max_connections, 1..=10_000_000, route.max_connections)?;
        route.retry = within("retry", self.retry, 0..=10, route.retry)?;
        route.debug = self.debug;
        (route.trust, route.identity) = self.tls.read(folder)?;
        route.idle_timeout = self.idle_timeout.map_or(route.idle_timeout, |span| span.0);
        route.cold_start = self.cold_start.map_or(route.cold_start, |span| span.0);
        if route.cold_start > Duration::from_secs(600) {
            return fault("cold_start", "at most 10m");
        }
        route.scale_down_after = self.scale_down_after.map_or(route.scale_down_after, |period| period.0);
        route.on_idle = self.on_idle.as_deref().map(|text| url("on_idle", text)).transpose()?;
        route.on_first = self.on_first.as_deref().map(|text| url("on_first", text)).transpose()?;
        route.notify_secrets = self.notify_secrets(folder)?;
        route.cors = self.cors.as_ref().map(|pages| cors("cors", pages.all())).transpose()?;
        self.read_grip(&mut route, folder)?;
        route.version = self.version(folder);
        Ok(route)
    }

    /// What concerns one dialect alone.
    fn read_grip(&self, route: &mut Route, folder: &Path) -> Result<(), Fault> {
        let said = [
            ("sig_iss", self.sig_iss.is_some()),
            ("sig_key", self.sig_key.is_some()),
            ("sig_key_file", self.sig_key_file.is_some()),
            ("channel_prefix", self.channel_prefix.is_some()),
            ("max_events", self.max_events.is_some()),
            ("stream_format", self.stream_format.is_some()),
            ("forward_pings", self.forward_pings),
            ("upstream_key", self.upstream_key.is_some()),
            ("upstream_key_file", self.upstream_key_file.is_some()),
            ("subscribe", !self.subscribe.is_empty()),
            ("link_hosts", !self.link_hosts.is_empty()),
        ];
        if route.dialect != Dialect::Grip
            && let Some((key, _)) = said.iter().find(|(_, is_said)| *is_said)
        {
            return fault(*key, "is of `dialect = \"grip\"` alone");
        }
        route.signer =
            signer(self.sig_iss.as_ref(), self.sig_key.as_ref(), self.sig_key_file.as_ref(), folder)?;
        route.channel_prefix = self.channel_prefix.clone().unwrap_or_default();
        route.forward_pings = self.forward_pings;
        route.upstream = upstream(self.upstream_key.as_ref(), self.upstream_key_file.as_ref(), folder)?;
        if self.subscribe.len() > ::grip::instruct::MAX_CHANNELS {
            return fault("subscribe", format!("at most {} channels", ::grip::instruct::MAX_CHANNELS));
        }
        for name in &self.subscribe {
            let channel = parse::<Channel>("subscribe", &format!("{}{name}", route.channel_prefix))?;
            if channel.is_reserved() {
                return fault("subscribe", format!("{name:?} is a channel of the broker's own"));
            }
        }
        route.subscribe.clone_from(&self.subscribe);
        for host in &self.link_hosts {
            parse::<http::uri::Authority>("link_hosts", host)?;
        }
        route.link_hosts.clone_from(&self.link_hosts);
        route.max_events = within("max_events", self.max_events, 1..=1_000, route.max_events)?;
        route.stream_format = match self.stream_format.as_deref() {
            None | Some("auto") => StreamFormat::Auto,
            Some("off") => StreamFormat::Off,
            Some(other) => {
                return fault("stream_format", format!("{other:?} is none of \"auto\" and \"off\""));
            }
        };
        Ok(())
    }

    fn notify_secrets(&self, folder: &Path) -> Result<Secrets, Fault> {
        let mut secrets = Vec::new();
        let parse =
            |key: &str, text: &str| Secret::parse(text).map_err(|error| (key.to_owned(), error.to_string()));
        if let Some(text) = &self.notify_secret {
            secrets.push(parse("notify_secret", text)?);
        }
        if let Some(name) = &self.notify_secret_file {
            let text = String::from_utf8(file(folder, "notify_secret_file", name)?).unwrap_or_default();
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                secrets.push(parse("notify_secret_file", line)?);
            }
        }
        Ok(Secrets::new(secrets))
    }

    /// What it is made of, its files included, as a number.
    fn version(&self, folder: &Path) -> u64 {
        let mut hasher = DefaultHasher::new();
        serde_json::to_vec(self).unwrap_or_default().hash(&mut hasher);
        let WrittenTls { ca_file, client_cert, client_key, .. } = &self.tls;
        for name in [
            ca_file,
            client_cert,
            client_key,
            &self.notify_secret_file,
            &self.sig_key_file,
            &self.upstream_key_file,
        ]
        .into_iter()
        .flatten()
        {
            std::fs::read(folder.join(name)).unwrap_or_default().hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl WrittenTls {
    fn read(&self, folder: &Path) -> Result<(Trust, Option<Identity>), Fault> {
        let trust = match (&self.ca_file, self.insecure) {
            (Some(_), true) => {
                return fault("tls.insecure", "with `ca_file` it is known whom to trust; one of the two");
            }
            (None, true) => Trust::Anyone,
            (None, false) => Trust::System,
            (Some(name), false) => {
                let pem = file(folder, "tls.ca_file", name)?;
                let authorities = Authorities::from_pem(&pem);
                Trust::Authorities(
                    authorities.map_err(|error| ("tls.ca_file".to_owned(), error.to_string()))?,
                )
            }
        };
        let identity = match (&self.client_cert, &self.client_key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let certificate = file(folder, "tls.client_cert", certificate)?;
                let key = file(folder, "tls.client_key", key)?;
                let identity = Identity::from_pem(&certificate, &key);
                Some(identity.map_err(|error| ("tls.client_cert".to_owned(), error.to_string()))?)
            }
            _ => return fault("tls.client_cert", "`client_cert` and `client_key` go together"),
        };
        Ok((trust, identity))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::ForwardedFor;

    fn routes(list: Value) -> Result<Settings, String> {
        let written: Vec<Written> = serde_json::from_value(list).map_err(|error| error.to_string())?;
        let taken = |path: &str| path == "/v1" || path.starts_with("/v1/");
        read(&written, &WrittenGrip::default(), Path::new("/nowhere"), taken)
            .map_err(|wrong| wrong.to_string())
    }

    fn changed(changes: Value) -> Result<Route, String> {
        let mut route =
            json!({"id": "shop", "dialect": "proxy", "path": "/**", "origin": "http://127.0.0.1:9"});
        for (name, value) in changes.as_object().unwrap() {
            route[name] = value.clone();
        }
        routes(json!([route])).map(|settings| settings.routes.into_iter().next().unwrap())
    }

    #[test]
    fn what_is_written_is_what_a_route_has() {
        let route =
            changed(json!({"origin": ["ws://a:1", "https://b/x"], "timeout": "2s", "host": "*.example",
            "methods": ["GET"], "retry": 0, "request_headers": {"x-a": "b"}}))
            .unwrap();
        assert_eq!(route.origins.len(), 2);
        assert!(route.origins[0].is_websocket && !route.origins[1].is_websocket);
        assert_eq!((route.timeout, route.retry), (Duration::from_secs(2), 0));
        assert_eq!(route.host.to_string(), "*.example");
        let same = || changed(json!({})).unwrap().version;
        assert_eq!(same(), same());
        assert_ne!(changed(json!({"retry": 3})).unwrap().version, same());
    }

    #[test]
    fn what_cannot_be_meant_is_said_with_its_key() {
        for (changes, said) in [
            (json!({"id": "a b"}), "routes[0].id: 1 to 64 letters, digits, `-`, `_` and `.` are an id"),
            (json!({"protocol": "ws"}), "routes[0].protocol: \"ws\" is none of \"http\" and \"websocket\""),
            (json!({"scheme": "tls"}), "routes[0].scheme: \"tls\" is none of \"http\" and \"https\""),
            (json!({"cors": "a.example"}), "routes[0].cors: \"a.example\""),
            (json!({"subscribe": ["a"]}), "routes[0].subscribe: is of `dialect = \"grip\"` alone"),
            (json!({"dialect": "grip", "subscribe": ["$SYS"]}), "routes[0].subscribe: \"$SYS\" is a channel"),
            (json!({"dialect": "grip", "link_hosts": ["a b"]}), "routes[0].link_hosts: \"a b\""),
            (json!({"dialect": "grip", "upstream_key": "base64:?"}), "routes[0].upstream_key: is not base64"),
            (json!({"dialect": "aws"}), "routes[0].dialect: APIs of AWS stand in `gateway.aws`"),
            (json!({"dialect": "grap"}), "routes[0].dialect: \"grap\" is no dialect"),
            (json!({"path": "live"}), "routes[0].path: \"live\": a path begins with `/`"),
            (json!({"path": "/v1/**"}), "routes[0].path: \"/v1\" is a path of the broker's own"),
            (json!({"path": "/v1/x"}), "routes[0].path: \"/v1/x\" is a path of the broker's own"),
            (json!({"host": "a:80"}), "routes[0].host: \"a:80\": a host is a name without a port"),
            (json!({"origin": []}), "routes[0].origin: a route has 1 to 16 origins"),
            (json!({"origin": "a.example"}), "routes[0].origin: \"a.example\" is no URL of http"),
            (json!({"origin": "http://u:p@a"}), "routes[0].origin: credentials do not stand in an origin"),
            (json!({"methods": ["G T"]}), "routes[0].methods: \"G T\""),
            (json!({"retry": 11}), "routes[0].retry: 0 to 10"),
            (
                json!({"request_headers": {"host": "x"}}),
                "routes[0].request_headers.host: is set by the broker",
            ),
            (json!({"tls": {"client_cert": "x"}}), "routes[0].tls.client_cert: `client_cert` and"),
            (json!({"tls": {"ca_file": "x"}}), "routes[0].tls.ca_file: /nowhere/x: "),
            (json!({"strip_prefix": "/a?b"}), "routes[0].strip_prefix: is a part of a path"),
            (json!({"on_idle": "x"}), "routes[0].on_idle: "),
            (json!({"notify_secret": "x"}), "routes[0].notify_secret: a secret begins with `whsec_`"),
            (json!({"unknown": 1}), "unknown field `unknown`"),
        ] {
            let error = changed(changes.clone()).unwrap_err();
            assert!(error.starts_with(said), "{changes}: {error}");
        }
        let two = |id: &str, methods: Value| json!({"id": id, "dialect": "proxy", "path": "/a", "origin": "http://a", "methods": methods});
        let error = routes(json!([two("a", json!([])), two("a", json!([]))])).unwrap_err();
        assert_eq!(error, "routes[1].id: \"a\" is the id of another route");
        let error = routes(json!([two("a", json!([])), two("b", json!([]))])).unwrap_err();
        assert_eq!(error, "routes[1].path: \"a\" has the same host, path and methods");
        assert!(routes(json!([two("a", json!(["GET"])), two("b", json!(["POST"]))])).is_ok());
    }

    #[test]
    fn keys_to_publish_by_are_said_with_their_place() {
        let keys = |key: Value| {
            let grip: WrittenGrip = serde_json::from_value(json!({"control_keys": [key]})).unwrap();
            let read = read(&[], &grip, Path::new("/nowhere"), |_| false);
            read.map(|settings| settings.control_keys.len()).map_err(|wrong| wrong.to_string())
        };
        let good = json!({"iss": "app", "key": "base64:c2VjcmV0", "channels": ["**"], "rate": 5});
        assert_eq!(keys(good.clone()), Ok(1));
        for (name, value, said) in [
            ("iss", json!(""), "grip.control_keys[0].iss: 1 to 256 bytes"),
            ("key", json!("base64:?"), "grip.control_keys[0].key: is not base64"),
            ("key_file", json!("x"), "grip.control_keys[0].key: one of `key` and `key_file`"),
            ("channels", json!([]), "grip.control_keys[0].channels: a key without channels"),
            ("channels", json!(["a/**/b"]), "grip.control_keys[0].channels: \"a/**/b\""),
            ("rate", json!(0), "grip.control_keys[0].rate: at least"),
        ] {
            let mut key = good.clone();
            key[name] = value;
            let error = keys(key.clone()).unwrap_err();
            assert!(error.starts_with(said), "{key}: {error}");
        }
    }

    #[test]
    fn addresses_of_proxies_are_dropped_kept_or_extended() {
        for (text, rule) in [
            ("drop", ForwardedFor::Drop),
            ("append", ForwardedFor::Append),
            ("keep:2", ForwardedFor::Keep(2)),
        ] {
            assert_eq!(forwarded_for(text), Ok(rule));
        }
        for wrong in ["", "keep", "keep:", "keep:-1", "Append"] {
            assert!(forwarded_for(wrong).is_err(), "{wrong}");
        }
    }
}

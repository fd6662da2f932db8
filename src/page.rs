//! The page at `/`: what is built into the binary and how it is served. The files stand in `page/`: `base/` is what
//! both tabs use, `try/` and `watch/` are one tab each, a file for each part of it.

use std::net::SocketAddr;
use std::sync::OnceLock;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use http_edge::{Body, Problem, Response};

use crate::Config;

const METHODS: &str = "GET, HEAD, OPTIONS";
const ICON: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#0f766e"/><g fill="none" stroke="#fff" stroke-width="2.5" stroke-linecap="round"><path d="M9 16h14M9 16L23 8M9 16l14 8"/></g><circle cx="9" cy="16" r="3.2" fill="#fff"/></svg>"##;
/// Nothing from elsewhere, no inline script or style, and nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self' ws: wss:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const JSON: &str = "application/json";

/// A path, its type and its content.
type File = (&'static str, &'static str, &'static str);

/// Files of `page/`, served below `/page/` under their own names.
macro_rules! files {
    ($($kind:ident $name:literal)*) => {
        [$((concat!("/page/", $name), $kind, include_str!(concat!("page/", $name)))),*]
    };
}

const FILES: &[File] = &files! {
    CSS "page.css"
    CSS "watch/watch.css"
    JS "page.js"
    JS "base/chart.js"
    JS "base/dom.js"
    JS "base/events.js"
    JS "base/format.js"
    JS "base/json.js"
    JS "base/server.js"
    JS "base/session.js"
    JS "base/tabs.js"
    JS "try/bayeux.js"
    JS "try/host.js"
    JS "try/listen.js"
    JS "try/messages.js"
    JS "try/publish.js"
    JS "try/snippets.js"
    JS "watch/again.js"
    JS "watch/busiest.js"
    JS "watch/channels.js"
    JS "watch/charts.js"
    JS "watch/cluster.js"
    JS "watch/connection.js"
    JS "watch/connections.js"
    JS "watch/figures.js"
    JS "watch/history.js"
    JS "watch/hooks.js"
    JS "watch/gateways.js"
    JS "watch/routes.js"
    JS "watch/slow.js"
    JS "watch/store.js"
    JS "watch/tree.js"
    JS "watch/watch.js"
};

const INDEX: File = ("/", HTML, include_str!("page/page.html"));
const ICON_FILE: File = ("/page/icon.svg", SVG, ICON);
/// What the page cannot know by itself.
const FACTS: &str = "/page/server.json";

/// What the page is told of the server that it came from.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    paths: Paths,
    /// Where a server serves MQTT over TCP, if it does.
    mqtt: OnceLock<MqttAddresses>,
}

/// Where MQTT over TCP is served.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MqttAddresses {
    /// Without TLS.
    pub(crate) mqtt: Option<SocketAddr>,
    /// Inside of it.
    pub(crate) mqtts: Option<SocketAddr>,
}

/// Where what the page tries is served; `null` what is not.
#[derive(Debug, Default)]
struct Paths {
    sse: Option<String>,
    bayeux: Option<String>,
    mqtt: Option<String>,
}

impl Facts {
    /// Of fronts that are set up by `config`.
    pub(crate) fn new(config: &Config) -> Self {
        // Without any front nothing is read of it.
        let _ = config;
        let paths = Paths {
            #[cfg(feature = "sse")]
            sse: Some(config.sse.path.clone()),
            #[cfg(feature = "bayeux")]
            bayeux: config.bayeux.mount.first().map(|mount| format!("/{}", mount.trim_matches('/'))),
            #[cfg(feature = "mqtt")]
            mqtt: Some(config.mqtt_front.path.clone()),
            #[cfg(not(feature = "sse"))]
            sse: None,
            #[cfg(not(feature = "bayeux"))]
            bayeux: None,
            #[cfg(not(feature = "mqtt"))]
            mqtt: None,
        };
        Facts { paths, mqtt: OnceLock::new() }
    }

    /// Says where the server's listeners for MQTT are: the first who says it is right.
    pub(crate) fn is_served_with(&self, mqtt: MqttAddresses) {
        let _ = self.mqtt.set(mqtt);
    }

    /// `{"version": "0.1.0", "mqtt": "127.0.0.1:1883", "mqtts": null, "paths": {"sse": "/sse", …}}`; `null` where there
    /// is no such listener.
    fn json(&self) -> String {
        // A path has no character that Rust and JSON write in different ways.
        fn text(said: Option<impl ToString>) -> String {
            said.map_or_else(|| "null".to_owned(), |said| format!("{:?}", said.to_string()))
        }
        let MqttAddresses { mqtt, mqtts } = self.mqtt.get().copied().unwrap_or_default();
        let Paths { sse, bayeux, mqtt: upgrade } = &self.paths;
        format!(
            "{{\"version\":\"{}\",\"mqtt\":{},\"mqtts\":{},\"paths\":{{\"sse\":{},\"bayeux\":{},\"mqtt\":{}}}}}",
            env!("CARGO_PKG_VERSION"),
            text(mqtt),
            text(mqtts),
            text(sse.as_ref()),
            text(bayeux.as_ref()),
            text(upgrade.as_ref()),
        )
    }

    fn find(&self, path: &str) -> Option<(&'static str, Bytes)> {
        if path == FACTS {
            return Some((JSON, self.json().into()));
        }
        let mut files = [INDEX, ICON_FILE].into_iter().chain(FILES.iter().copied());
        let (_, kind, content) = files.find(|(name, ..)| *name == path)?;
        Some((kind, Bytes::from_static(content.as_bytes())))
    }

    /// Answers a request for one of the files.
    pub(crate) fn answer(&self, method: &Method, path: &str) -> Response {
        let Some((kind, content)) = self.find(path) else {
            return Problem::not_found("no such file").response();
        };
        let mut response = http::Response::new(Body::empty());
        match *method {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => {
                *response.status_mut() = StatusCode::NO_CONTENT;
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(METHODS));
                return response;
            }
            _ => return Problem::method_not_allowed(METHODS).response(),
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        // A newer server comes with a newer page.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if method == Method::HEAD {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(content.len()));
        } else {
            *response.body_mut() = Body::full(content);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn files_are_served_and_nothing_else_is() {
        let cases = [
            (Method::GET, "/", 200),
            (Method::HEAD, "/", 200),
            (Method::GET, "/page/page.js", 200),
            (Method::GET, "/page/watch/watch.js", 200),
            (Method::GET, "/page/server.json", 200),
            (Method::GET, "/page/../main.rs", 404),
            (Method::GET, "/page/page.html", 404),
            (Method::GET, "/page", 404),
            (Method::POST, "/", 405),
            (Method::OPTIONS, "/", 204),
        ];
        for (method, path, status) in cases {
            let response = Facts::default().answer(&method, path);
            assert_eq!(response.status(), status, "{method} {path}");
            assert_eq!(response.headers().contains_key("content-security-policy"), status == 200);
        }
    }

    #[test]
    fn the_page_is_told_where_everything_is() {
        let mut config = Config::default();
        let facts = Facts::new(&config);
        assert!(facts.json().contains("\"mqtt\":null,\"mqtts\":null,"), "{}", facts.json());
        let [mqtt, mqtts] = ["127.0.0.1:1884", "[::1]:8883"].map(|address| address.parse().ok());
        facts.is_served_with(MqttAddresses { mqtt, mqtts });
        let told = "\"mqtt\":\"127.0.0.1:1884\",\"mqtts\":\"[::1]:8883\",";
        assert!(facts.json().contains(told), "{}", facts.json());
        let paths = "\"paths\":{\"sse\":\"/sse\",\"bayeux\":\"/cometd\",\"mqtt\":\"/mqtt\"}}";
        assert!(facts.json().ends_with(paths), "{}", facts.json());
        config.bayeux.mount.clear();
        config.sse.path = "/\"events".to_owned();
        let json = Facts::new(&config).json();
        assert!(json.contains("{\"sse\":\"/\\\"events\",\"bayeux\":null,"), "{json}");
    }

    /// What can be moved is told by the server.
    #[test]
    fn no_file_of_the_page_knows_where_a_front_is() {
        for (path, _, content) in [INDEX].iter().chain(FILES) {
            let fixed = ["/sse", "/cometd", "/mqtt"].into_iter().find(|fixed| content.contains(fixed));
            assert_eq!(fixed, None, "{path}");
        }
    }

    /// The page promises to need nothing but the server it came from.
    #[test]
    fn no_file_of_the_page_names_another_host() {
        for (path, _, content) in [INDEX].iter().chain(FILES) {
            let foreign = content.match_indices("src=\"http").chain(content.match_indices("@import")).next();
            assert_eq!(foreign, None, "{path}");
        }
    }

    /// The policy would keep the browser from running them.
    #[test]
    fn nothing_stands_inline() {
        for inline in [" style=", " onclick=", "<style", "javascript:"] {
            assert!(!INDEX.2.contains(inline), "{inline}");
        }
    }

    #[test]
    fn every_file_in_the_folder_is_served() {
        fn collect(folder: &Path, below: &str, found: &mut BTreeSet<String>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                let name = format!("{below}/{}", entry.file_name().into_string().unwrap());
                if entry.file_type().unwrap().is_dir() {
                    collect(&entry.path(), &name, found);
                } else {
                    found.insert(name);
                }
            }
        }
        let mut found = BTreeSet::new();
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/page"), "/page", &mut found);
        found.remove("/page/page.html");
        let served: BTreeSet<String> = FILES.iter().map(|(path, ..)| (*path).to_owned()).collect();
        assert_eq!(found, served);
    }
}

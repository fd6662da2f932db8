//! The keys of a configuration, as they are written. One file for each crate whose `Config` they set.

#[cfg(feature = "http")]
mod api;
#[cfg(feature = "bayeux")]
mod bayeux;
mod broker;
#[cfg(feature = "mqtt")]
mod mqtt;
mod section;
#[cfg(feature = "sse")]
mod sse;

use std::sync::Arc;

use broker_core::{AllowAll, Authenticator};
use http_edge::OriginPolicy;
use serde::{Deserialize, Serialize};

use self::section::section;
use super::Config;
use super::rights::Anonymous;
use super::units::{Setting, Size, Span};
use crate::auth::BuiltIn;

/// The whole configuration. Names of sections and fields are the keys.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) server: Server,
    pub(super) logging: Logging,
    pub(super) anonymous: Anonymous,
    pub(super) http: Http,
    #[cfg(feature = "http")]
    api: api::Api,
    #[cfg(feature = "sse")]
    sse: sse::Sse,
    #[cfg(feature = "mqtt")]
    pub(super) mqtt: mqtt::Mqtt,
    #[cfg(feature = "bayeux")]
    bayeux: bayeux::Bayeux,
    broker: broker::Broker,
    log: broker::Log,
    namespaces: Vec<broker::Namespace>,
}

impl Settings {
    /// Fills a [`Config`], its addresses aside: those need a resolver.
    pub(super) fn into_config(self) -> Config {
        let origins = self.origins();
        let mut config = Config {
            authenticator: self.authenticator(),
            max_connections: self.server.max_connections,
            shutdown_window: self.server.shutdown_window.0,
            ..Config::default()
        };
        self.broker.apply(&mut config.broker);
        self.log.apply(&mut config.broker.log);
        config.broker.namespaces = self.namespaces.into_value();
        self.http.apply(&mut config.connection);
        #[cfg(feature = "http")]
        {
            self.api.apply(&mut config.api);
            config.api.origins = origins.clone();
        }
        #[cfg(feature = "sse")]
        {
            self.sse.apply(&mut config.sse);
            config.sse.origins = origins.clone();
        }
        #[cfg(feature = "mqtt")]
        {
            self.mqtt.apply(&mut config.mqtt_front);
            let room = front_mqtt::Config::default().max_packet_bytes;
            follow(&mut config.mqtt_front.max_packet_bytes, room, config.broker.max_message_bytes);
            config.mqtt_front.origins = origins.clone();
        }
        #[cfg(feature = "bayeux")]
        {
            self.bayeux.apply(&mut config.bayeux);
            let room = front_bayeux::WebSocketConfig::default().max_message_bytes;
            follow(&mut config.bayeux.websocket.max_message_bytes, room, config.broker.max_message_bytes);
            config.bayeux.origins = origins.clone();
        }
        drop(origins);
        config
    }

    /// Whether anything says who may do what.
    pub(super) fn has_rights(&self) -> bool {
        !self.anonymous.is_empty()
    }

    fn authenticator(&self) -> Arc<dyn Authenticator> {
        if self.has_rights() { Arc::new(BuiltIn::new(self.anonymous.rights())) } else { Arc::new(AllowAll) }
    }

    /// Every page may come as long as everybody may do everything; then only those that are listed and our own.
    fn origins(&self) -> OriginPolicy {
        match &self.server.allowed_origins {
            Some(allowed) => OriginPolicy::List(allowed.clone()),
            None if self.has_rights() => OriginPolicy::SameOrigin,
            None => OriginPolicy::Any,
        }
    }
}

/// Keeps the room that a front's own limit has around the largest payload, unless somebody chose that limit: raising
/// `broker.max_message_bytes` alone is enough.
#[cfg(any(feature = "bayeux", feature = "mqtt"))]
fn follow(limit: &mut usize, default: usize, max_message_bytes: usize) {
    let usual = broker_core::Config::default().max_message_bytes;
    if *limit == default {
        *limit = default.saturating_add(max_message_bytes.saturating_sub(usual));
    }
}

/// `[server]`: the process as a whole.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Server {
    pub(super) allow_anonymous: bool,
    allowed_origins: Option<Vec<String>>,
    max_connections: Option<usize>,
    shutdown_window: Span,
    pub(super) worker_threads: Option<usize>,
}

impl Default for Server {
    fn default() -> Self {
        let config = Config::default();
        Server {
            allow_anonymous: false,
            allowed_origins: None,
            max_connections: config.max_connections,
            shutdown_window: Span(config.shutdown_window),
            worker_threads: None,
        }
    }
}

section!(
    /// `[http]`: the listener and its connections.
    Http: http_edge::ServeConfig {
        header_read_timeout: Span,
        idle_timeout: Span,
        max_header_bytes: Size,
        max_concurrent_streams: u32,
        max_send_bytes: Size,
        max_stalled_bytes: Size,
    } beside {
        address: String = Config::default().http.map_or_else(String::new, |address| address.to_string()),
    }
);

/// `[logging]`: how the process tells what it does, on its standard error.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logging {
    /// One line each, or one JSON object each. Default text.
    pub format: LogFormat,
    /// What is told: `error`, `warn`, `info`, `debug`, `trace` or `off`, also by crate: `info,fanwire=debug`. Default `info`.
    pub level: String,
}

impl Default for Logging {
    fn default() -> Self {
        Logging { format: LogFormat::Text, level: "info".to_owned() }
    }
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object on a line.
    Json,
}

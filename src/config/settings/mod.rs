//! The keys of the server's own settings, as they are written. Those of a front are in its own crate.

mod aws;
mod broker;
mod cluster;
mod gateway;
mod rules;
mod store;
pub(super) mod tls;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use front::MetricsReaders;
use http_edge::{Intake, OriginPolicy, TokenPlaces};
use serde::{Deserialize, Serialize};

use super::Config;
use super::rights::{Anonymous, Auth, ClientCertificates, IssuerEntry, KeyEntry, UserEntry, Written, rate};
use crate::listen::{AddressRange, ForwardedHeader, ProxyProtocol, TrustedProxies};
use auth::{Access, AccessError, Rate};
use settings::{AllowedOrigin, HostName, Period, Setting, Size, Span, Text};

/// The whole configuration. Names of sections and fields are the keys.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) server: Server,
    pub(super) logging: Logging,
    anonymous: Anonymous,
    keys: Vec<KeyEntry>,
    users: Vec<UserEntry>,
    issuers: Vec<IssuerEntry>,
    auth: Auth,
    client_certificates: ClientCertificates,
    limits: Limits,
    unfinished: Unfinished,
    pub(super) tls: tls::Tls,
    pub(super) http: Http,
    broker: broker::Broker,
    log: broker::Log,
    namespaces: Vec<broker::Namespace>,
    store: store::Store,
    cluster: cluster::Cluster,
    pub(super) gateway: gateway::Section,
    pub(super) aws: aws::Aws,
}

impl Settings {
    /// Fills a [`Config`], its fronts, addresses and authenticator aside: those need more than what is written here.
    pub(super) fn into_config(self) -> Config {
        let mut config = Config {
            max_connections_per_address: self.limits.max_connections_per_address,
            address_rate: self.address_rate(),
            max_connections: self.server.max_connections,
            proxies: TrustedProxies {
                addresses: self.server.trusted_proxies.iter().map(|range| range.0).collect(),
                header: self.server.forwarded_header.into_value(),
                protocol: self.server.proxy_protocol.into_value(),
            },
            shutdown_window: self.server.shutdown_window.0,
            hosts: self.server.hosts.map(|hosts| hosts.into_iter().map(|host| host.0.0).collect()),
            ..Config::default()
        };
        self.broker.apply(&mut config.broker);
        self.log.apply(&mut config.broker.log);
        config.broker.namespaces = self.namespaces.into_value();
        self.http.apply(&mut config.connection);
        config
    }

    /// The store that is asked for, if one is.
    pub(super) fn store(
        &self,
        data: Option<PathBuf>,
        folder: &Path,
    ) -> Result<Option<::store::Settings>, (String, &'static str)> {
        self.store.settings(data, folder, &self.namespaces, self.cluster.is_wanted())
    }

    /// The cluster that this node belongs to, if it does.
    pub(super) fn cluster(
        &self,
        folder: &Path,
    ) -> Result<Option<::cluster::Settings>, (String, &'static str)> {
        self.cluster.settings(folder, &self.namespaces)
    }

    /// Who is called.
    pub(super) fn gateway(&self, folder: &Path) -> Result<::gateway::webhook::Gateway, (String, String)> {
        self.gateway.value(folder)
    }

    /// What is connected to.
    pub(super) fn sources(
        &self,
        addresses: &::gateway::address::Addresses,
    ) -> Result<::sources::Config, (String, String)> {
        self.gateway.sources(addresses)
    }

    /// What clients of AWS are served, by a server that listens there; `None` if nothing is.
    pub(super) fn aws(
        &self,
        folder: &Path,
        listeners: impl Iterator<Item = SocketAddr>,
    ) -> Result<Option<aws_api::Config>, AccessError> {
        self.aws.config(folder, listeners)
    }

    /// The account of what peers have begun and not finished.
    pub(super) fn intake(&self) -> Intake {
        Intake::new(self.unfinished.clone().into_value())
    }

    /// Whether anything says who may do what.
    pub(super) fn has_rights(&self) -> bool {
        self.rights().says_anything()
    }

    /// Who may do what; paths are taken from `folder`.
    pub(super) fn access(&self, folder: &Path) -> Result<Access, AccessError> {
        self.rights().access(folder)
    }

    /// As long as everybody may do everything, pages of this machine may come; then only our own. Or those that are
    /// listed.
    pub(super) fn origins(&self) -> OriginPolicy {
        match self.rights().origins() {
            Some(said) => said,
            None if self.has_rights() => OriginPolicy::SameOrigin,
            None => OriginPolicy::Loopback,
        }
    }

    /// Where a token is read beside the headers.
    pub(super) fn token_places(&self) -> TokenPlaces {
        self.auth.token_places()
    }

    /// Requests that one address may send.
    pub(super) fn address_rate(&self) -> Option<Rate> {
        rate(self.limits.requests_per_address, self.limits.request_burst_per_address)
    }

    fn rights(&self) -> Written<'_> {
        Written {
            anonymous: &self.anonymous,
            keys: &self.keys,
            users: &self.users,
            issuers: &self.issuers,
            auth: &self.auth,
            certificates: &self.client_certificates,
            allowed_origins: self.server.allowed_origins.as_deref(),
        }
    }
}

/// `[server]`: the process as a whole.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Server {
    pub(super) allow_anonymous: bool,
    allowed_origins: Option<Vec<Text<AllowedOrigin>>>,
    hosts: Option<Vec<Text<HostName>>>,
    max_connections: Option<usize>,
    pub(super) shutdown_window: Span,
    trusted_proxies: Vec<Text<AddressRange>>,
    forwarded_header: Header,
    proxy_protocol: Protocol,
    pub(super) worker_threads: Option<usize>,
    pub(super) huge_pages: bool,
    pub(super) reload_interval: Span,
}

impl Default for Server {
    fn default() -> Self {
        let config = Config::default();
        Server {
            allow_anonymous: false,
            allowed_origins: None,
            hosts: config.hosts.map(|hosts| hosts.into_iter().map(|host| Text(HostName(host))).collect()),
            max_connections: config.max_connections,
            shutdown_window: Span(config.shutdown_window),
            trusted_proxies: Vec::new(),
            forwarded_header: Setting::from_value(config.proxies.header),
            proxy_protocol: Setting::from_value(config.proxies.protocol),
            worker_threads: None,
            huge_pages: false,
            reload_interval: Span(Duration::from_secs(2)),
        }
    }
}

settings::choice!(
    /// Which header of HTTP says where a request came from.
    Header: ForwardedHeader { XForwardedFor = "x-forwarded-for", Forwarded = "forwarded" }
);

settings::choice!(
    /// Whether trusted proxies begin connections with a header of the PROXY protocol.
    Protocol: ProxyProtocol { Off = "off", Optional = "optional", Required = "required" }
);

/// `[limits]`: what one address may take of the listeners. Nothing is limited unless it is said: behind a proxy, or in
/// an office, one address is many clients.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Limits {
    max_connections_per_address: Option<usize>,
    requests_per_address: Option<NonZeroU32>,
    request_burst_per_address: Option<NonZeroU32>,
}

settings::section!(
    /// `[unfinished]`: bodies, packets and messages that are not whole yet, over all fronts.
    pub(in crate::config) Unfinished: http_edge::IntakeConfig { max_bytes: Size, grace: Period, min_bytes_per_second: u32 }
);

settings::section!(
    /// `[http]`: the listener and its connections.
    pub(in crate::config) Http: http_edge::ServeConfig {
        header_read_timeout: Period,
        idle_timeout: Span,
        max_header_bytes: Size,
        max_concurrent_streams: u32,
        max_send_bytes: Size,
        max_stalled_bytes: Size,
        max_stalled_total_bytes: Size,
    } beside {
        pub(in crate::config) address: String = Config::default().http.map_or_else(String::new, |address| address.to_string()),
        pub(in crate::config) tls: Option<tls::Mode> = None,
        pub(in crate::config) tls_address: Option<String> = None,
        pub(in crate::config) metrics: Option<MetricsReaders> = None,
    }
);

/// `[logging]`: how the process tells what it does, on its standard error.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Logging {
    /// One line each, or one JSON object each. Default text.
    pub format: LogFormat,
    /// What is told: `error`, `warn`, `info`, `debug`, `trace` or `off`, also by crate: `info,fanwire=debug`. Default
    /// `info`.
    pub level: String,
    /// Whether each HTTP request is a line too. Default no.
    pub access: bool,
}

impl Default for Logging {
    fn default() -> Self {
        Logging { format: LogFormat::Text, level: "info".to_owned(), access: false }
    }
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object on a line.
    Json,
}

//! What a server is made of, and where the binary reads it: this folder is the only reader of files, arguments and
//! environment.

#[cfg(feature = "cli")]
mod arguments;
#[cfg(feature = "cli")]
mod error;
#[cfg(feature = "cli")]
mod fixed;
#[cfg(feature = "cli")]
mod keys;
#[cfg(feature = "cli")]
mod load;
#[cfg(feature = "cli")]
mod mistakes;
#[cfg(feature = "cli")]
mod nearest;
#[cfg(feature = "cli")]
mod rights;
#[cfg(feature = "cli")]
mod sections;
#[cfg(feature = "cli")]
mod settings;
#[cfg(feature = "cli")]
mod show;

#[cfg(feature = "tls")]
use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use broker_core::{AllowAll, Authenticator, Engine, Policy};
use front::Front;

use crate::OwnFront;
use crate::listen::TrustedProxies;
#[cfg(feature = "tls")]
use crate::listen::{ListenerTls, TlsConfig};

#[cfg(feature = "cli")]
pub use self::{
    arguments::Arguments,
    error::ConfigError,
    keys::Key,
    load::{Live, Loaded, Loader, Rights as LoadedRights, check, keys, load},
    settings::{LogFormat, Logging},
};
#[cfg(feature = "cli")]
pub(crate) use self::{
    fixed::Fixed,
    load::{Stamp, stamp},
    sections::FrontSection,
};

/// The struct has a field for each front of the list in `src/fronts.rs`.
macro_rules! config {
    ($(#[$feature:meta] $front:ident as $name:ident, config.$field:ident: $about:literal;)*) => {
        /// Everything a [`Server`](crate::Server) needs to know. The default listens on loopback only and lets
        /// everybody there do everything; of web pages, those that this machine serves (the `origins` of the fronts).
        #[derive(Clone)]
        #[non_exhaustive]
        pub struct Config {
            /// Where HTTP, SSE and the WebSockets are served; port 0 takes a free one, `None` serves none of them.
            /// Default `127.0.0.1:8080`.
            pub http: Option<SocketAddr>,
            /// Where MQTT over TCP is served; port 0 takes a free one, `None` does not serve it. Default
            /// `127.0.0.1:1883`.
            pub mqtt: Option<SocketAddr>,
            /// The certificates with which TLS is spoken. Default none; then it is spoken nowhere.
            #[cfg(feature = "tls")]
            pub tls: Option<TlsConfig>,
            /// Whether TLS is spoken at `http`, and where else. Default nowhere.
            #[cfg(feature = "tls")]
            pub http_tls: ListenerTls,
            /// The same for the listeners of fronts, by the front's name: `mqtt`. Default nowhere; 8883 is usual.
            #[cfg(feature = "tls")]
            pub front_tls: BTreeMap<&'static str, ListenerTls>,
            /// Proxies in front of the server whose word counts for where clients come from. Default none.
            pub proxies: TrustedProxies,
            /// Names that HTTP requests may be for (`Host`), beside addresses and `localhost`; `*` is every name.
            /// Default `None`: on a loopback address no other name, so that no page of the web can give the server a
            /// name of its own (DNS rebinding); on any other address every name. A request for another one is answered
            /// 421.
            pub hosts: Option<Vec<String>>,
            /// Who clients are and what they may do. Default: everybody may do everything, so give another one before
            /// listening beyond loopback.
            pub authenticator: Arc<dyn Authenticator>,
            /// What else decides about connecting, subscribing and publishing, whatever the protocol, after
            /// `authenticator` and the rights. Default nobody.
            pub policy: Option<Arc<dyn Policy>>,
            /// Who keeps messages beyond this process' memory. Default nobody.
            pub engine: Option<Arc<dyn Engine>>,
            /// The same, on this machine's disk; then `engine` is nobody. Whoever opened it closes it once the server has
            /// run. Default none.
            #[cfg(feature = "store")]
            pub store: Option<Arc<store::Store>>,
            /// The same, which brings what is published to other nodes and keeps nothing; then `engine` is nobody, and there is
            /// no `store`. Whoever joined leaves once the server has run. Default none.
            #[cfg(feature = "cluster")]
            pub cluster: Option<Arc<cluster::Cluster>>,
            /// Backends that decide about clients and hear of them. Default none.
            #[cfg(feature = "gateway")]
            pub gateway: gateway::webhook::Gateway,
            /// Routes to origins, of what no other front claims. Default none.
            #[cfg(feature = "grip")]
            pub grip: gateway_grip::Config,
            /// Connections that the broker keeps outward, whose messages it publishes. Default none.
            #[cfg(feature = "gateway")]
            pub sources: sources::Config,
            /// Connections at a time, over all listeners. Default `None`: what the process' soft descriptor limit
            /// allows, less 64. One more is answered 503 over HTTP and the protocol's own refusal over MQTT, then
            /// closed.
            pub max_connections: Option<usize>,
            /// Connections at a time from one address (IPv6: from one /64), over all listeners. Default `None`: no
            /// bound.
            pub max_connections_per_address: Option<usize>,
            /// Requests over HTTP and connections over MQTT that one address may make. Default `None`: no bound.
            #[cfg(feature = "auth")]
            pub address_rate: Option<auth::Rate>,
            /// Whether each HTTP request is a line of the log (target `fanwire::access`, level info). Default no.
    pub access_log: bool,
    /// How long clients are given to leave when the server stops. Default 8 s, at most 15 s; the whole stop
            /// takes at most 5 s longer.
            pub shutdown_window: Duration,
            /// The broker itself.
            pub broker: broker_core::Config,
            /// Limits of one HTTP connection, the 10 s for its first head among them.
            pub connection: http_edge::ServeConfig,
            /// Protocols of the embedding service's own: see [`Config::with_front`].
            pub own_fronts: Vec<OwnFront>,
            $(
                #[doc = $about]
                #[$feature]
                pub $field: $front::Config,
            )*
        }

        impl Default for Config {
            fn default() -> Self {
                Config {
                    http: Some((Ipv4Addr::LOCALHOST, 8080).into()),
                    mqtt: Some((Ipv4Addr::LOCALHOST, 1883).into()),
                    #[cfg(feature = "tls")]
                    tls: None,
                    #[cfg(feature = "tls")]
                    http_tls: ListenerTls::default(),
                    #[cfg(feature = "tls")]
                    front_tls: BTreeMap::new(),
                    proxies: TrustedProxies::default(),
                    hosts: None,
                    authenticator: Arc::new(AllowAll),
                    policy: None,
                    engine: None,
                    #[cfg(feature = "store")]
                    store: None,
                    #[cfg(feature = "cluster")]
                    cluster: None,
                    #[cfg(feature = "gateway")]
                    gateway: gateway::webhook::Gateway::default(),
                    #[cfg(feature = "grip")]
                    grip: gateway_grip::Config::default(),
                    #[cfg(feature = "gateway")]
                    sources: sources::Config::default(),
                    max_connections: None,
                    max_connections_per_address: None,
                    #[cfg(feature = "auth")]
                    address_rate: None,
                    access_log: false,
            shutdown_window: Duration::from_secs(8),
                    broker: broker_core::Config::default(),
                    connection: http_edge::ServeConfig::default(),
                    own_fronts: Vec::new(),
                    $(
                        #[$feature]
                        $field: $front::Config::default(),
                    )*
                }
            }
        }
    };
}
crate::fronts::built_in!(config);

impl Config {
    /// The longest [`shutdown_window`](Config::shutdown_window) that is granted.
    pub const MAX_SHUTDOWN_WINDOW: Duration = Duration::from_secs(15);

    /// Descriptors that connections never take: for files, resolvers and refusals. Of a small limit, a quarter is kept.
    pub const RESERVED_DESCRIPTORS: usize = 64;

    /// Adds a protocol of your own. `make` is called once there is a broker; the front is asked for what the built-in
    /// ones do not claim, and may have a listener of its own ([`Front::listens`]). `examples/own_front.rs` is one.
    #[must_use]
    pub fn with_front<F: Front>(
        mut self,
        make: impl Fn(&front::Context) -> F + Send + Sync + 'static,
    ) -> Self {
        self.own_fronts.push(OwnFront::new(make));
        self
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("http", &self.http)
            .field("mqtt", &self.mqtt)
            .field("hosts", &self.hosts)
            .field("max_connections", &self.max_connections)
            .field("max_connections_per_address", &self.max_connections_per_address)
            .field("shutdown_window", &self.shutdown_window)
            .field("broker", &self.broker)
            .finish_non_exhaustive()
    }
}

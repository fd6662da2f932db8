//! Fanwire: a realtime pub/sub broker, as a server and as a library. One channel space, several protocols at its edge:
//! Bayeux (CometD), MQTT, Server-Sent Events, and HTTP for backends that never hold a connection.
//!
//! ```text
//!                  ┌ /v1 …     api     ┐
//! TcpListener ─────┤ /sse …    sse     ├─▶ Broker ─▶ lanes ─▶ outboxes ─▶ sockets
//!   (Server)       │ /cometd … bayeux  │
//!                  └ /mqtt     mqtt    ┘
//! TcpListener ──────────────── mqtt ───┘
//! ```
//!
//! Three ways to use it, from most to least done for you:
//! - [`Server`] listens and serves everything, as the `fanwire` binary does;
//! - [`Fronts`] answers requests that your own HTTP server accepted, on Fanwire's paths;
//! - each front alone ([`sse`], [`bayeux`], [`mqtt`], [`api`]) on a [`Broker`], under paths of your own. Each is a
//!   `tower` service, and so are all of them together: [`front::service!`] says what that means for paths.
//!
//! ```
//! use fanwire::{Channel, Config, Filter, Publish, Server};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut free_ports = Config::default();
//! free_ports.http = Some(([127, 0, 0, 1], 0).into());
//! free_ports.mqtt = Some(([127, 0, 0, 1], 0).into());
//! let server = Server::bind(free_ports).await?;
//! let broker = server.broker().clone();
//! let stop = tokio::spawn(server.run(async {
//!     // Until this future is ready, browsers and devices are served.
//! }));
//!
//! let mut rooms = broker.subscribe(Filter::parse("chat/*")?)?;
//! broker.publish(Publish::new(Channel::parse("chat/room1")?, r#"{"text":"hello"}"#).json())?;
//! assert!(rooms.message().await.is_some());
//! # stop.await?;
//! # Ok(()) }
//! ```
//!
//! # Features
//! | feature | what it brings | by default |
//! | --- | --- | --- |
//! | `bayeux`, `mqtt`, `sse`, `http` | a front each | on |
//! | `scram` | SCRAM-SHA-256 for MQTT's enhanced authentication: [`mqtt::ScramSha256`] | on |
//! | `auth` | keys, JSON Web Tokens, passwords and rates, as an authenticator | with `cli` |
//! | `gateway` | webhooks: backends that decide about clients and hear of them | with `cli` |
//! | `tls` | TLS on the listeners of [`Server`] | with `cli` |
//! | `aws` | signed requests of AWS' clients, and the data plane of AWS IoT: [`aws::Front`] | with `cli` |
//! | `grip` | routes to origins, HTTP and WebSockets: [`gateway_grip::Config`], in [`Config`] | with `cli` |
//! | `gateway-aws` | WebSocket APIs as AWS API Gateway has them: [`gateway_aws::Front`] | with `cli` |
//! | `axum` | the peer's address where axum has put it, in `ConnectInfo<SocketAddr>` | off |
//! | `cli` | what the binary needs beyond them | on |
//!
//! A library wants `default-features = false` and those of its fronts.

mod config;
mod fronts;
#[cfg(all(any(test, fuzzing), feature = "cli"))]
#[doc(hidden)]
pub mod fuzzing;
mod listen;
pub mod logging;
mod metrics;
mod page;
#[cfg(feature = "cluster")]
mod peers;
#[cfg(feature = "cli")]
mod reload;
mod server;
#[cfg(feature = "cli")]
mod signed;
mod stop;

#[cfg(feature = "auth")]
pub use auth;
/// What clients of AWS ask over HTTP: a front for [`Config::with_front`].
#[cfg(feature = "aws")]
pub use aws_api as aws;
pub use broker_core::{
    Action, AllowAll, Anonymous, Answer, AuthError, Authenticated, Authenticator, Broker, Channel, Client,
    ContentType, Credentials, Denied, Event, Filter, Governed, Interest, LeaveReason, Left, Lifecycle,
    Message, MessageId, Pattern, Policy, Presence, Present, Principal, Publish, PublishError, Receipt,
    Rights, RightsTemplate, Rule, SubscribeError, Subscription,
};
#[cfg(feature = "cluster")]
pub use cluster;
pub use config::Config;
#[cfg(feature = "cli")]
pub use config::{
    Arguments, ConfigError, Key, Live, Loaded, LoadedRights, Loader, LogFormat, Logging, check, keys, load,
};
pub use fronts::{Fronts, OwnFront};
#[cfg(feature = "gateway")]
pub use gateway;
/// WebSocket APIs as AWS API Gateway has them: a front for [`Config::with_front`].
#[cfg(feature = "gateway")]
pub use sources;

#[cfg(feature = "gateway-aws")]
pub use gateway_aws;
#[cfg(feature = "grip")]
pub use gateway_grip;
pub use listen::{
    AddressLimits, AddressRange, ForwardedHeader, NoRange, ProxyProtocol, TrustedProxies,
    raise_descriptor_limit,
};
#[cfg(feature = "tls")]
pub use listen::{CertificateFiles, ClientAuth, ClientIdentity, Tls, TlsConfig, TlsError, TlsVersion};
pub use listen::{ListenerTls, TlsMode};
#[cfg(all(feature = "cluster", feature = "auth"))]
pub use peers::share_rates;
#[cfg(feature = "cli")]
pub use reload::Reload;
pub use server::{BindError, Server};
pub use stop::stop;
#[cfg(feature = "store")]
pub use store;

/// The core alone, with everything that a front of your own needs.
pub use broker_core as core;
/// What a front is to the server: implement it for a protocol of your own.
pub use front;
/// Bodies, origins and connections that fronts share.
pub use http_edge as edge;
/// How settings are written: what a section of a front of your own is made with.
#[cfg(feature = "cli")]
pub use settings;

macro_rules! names {
    ($(#[$feature:meta] $front:ident as $name:ident, config.$field:ident: $about:literal;)*) => {
        $(#[$feature] pub use $front as $name;)*
    };
}
fronts::built_in!(names);

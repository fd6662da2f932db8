//! How one client calls out.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::trust::{Identity, Trust};

/// How a client calls out: whom it trusts, how long it waits, what it keeps.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Whose word is taken for who a server is. Default: the system's authorities.
    pub trust: Trust,
    /// Who the client is, to servers that ask for a certificate. Default: nobody.
    pub identity: Option<Identity>,
    /// Whether proxies are used. Default: none.
    pub proxies: Proxies,
    /// Which versions of HTTP are offered over TLS. Default: HTTP/1.1.
    pub versions: Versions,
    /// Which addresses may be connected to; asked after a name was resolved, and for addresses that stand in the URL
    /// too. Default: all. A proxy resolves names by itself, so with a policy none is used.
    pub addresses: Option<Arc<dyn AddressPolicy>>,
    /// Who knows the addresses of names. Default: the system.
    pub resolver: Option<Arc<dyn Resolve>>,
    /// Longest time for resolving a name. Default: 5 s.
    pub resolve_timeout: Duration,
    /// Longest time for TCP, over all addresses of a name, and for what a proxy needs. Default: 10 s.
    pub connect_timeout: Duration,
    /// Longest time for the TLS handshake. Default: 10 s.
    pub tls_timeout: Duration,
    /// Longest time from sending a request to the head of its answer; also how long a request waits for its turn where
    /// [`Config::max_requests_per_host`] are under way. Default: 30 s.
    pub answer_timeout: Duration,
    /// Most requests to one host (scheme, name, port) at a time, counted until the answer's body was read or dropped.
    /// On HTTP/1.1 each has a connection. More wait for their turn. Default: 32, which a small receiver can bear.
    pub max_requests_per_host: usize,
    /// Most connections to one host that are kept for later requests; more are closed after their answer. Default: 4.
    pub max_idle_per_host: usize,
    /// How long a connection without a request is kept. Default: 30 s, as many servers close theirs after 60 s or more,
    /// and a request that meets a closing connection fails.
    pub idle_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            trust: Trust::System,
            identity: None,
            proxies: Proxies::None,
            versions: Versions::Http1,
            addresses: None,
            resolver: None,
            resolve_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(10),
            tls_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(30),
            max_requests_per_host: 32,
            max_idle_per_host: 4,
            idle_timeout: Duration::from_secs(30),
        }
    }
}

/// Which addresses may be connected to. Where others choose the URLs, the inner network has to be kept from them.
///
/// The connection goes to an address that was asked for, so a name that resolves to another one a moment later makes no
/// difference.
pub trait AddressPolicy: fmt::Debug + Send + Sync {
    /// Whether `address`, which `host` resolved to, may be connected to.
    fn permits(&self, host: &str, address: IpAddr) -> bool;
}

/// The addresses of a name, later.
pub type Resolved = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Knows the addresses of names. It is asked once for each connection, whatever is done with the answer.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// The addresses of `host`, with this port.
    fn resolve(&self, host: &str, port: u16) -> Resolved;
}

/// Whether requests go through a proxy.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Proxies {
    /// Never.
    #[default]
    None,
    /// As `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say, read as curl does, when the client is made.
    /// `http://` and `https://` proxies are spoken to, by CONNECT. Loopback is always reached directly.
    Environment,
}

/// Which versions of HTTP are offered over TLS. Without TLS it is always HTTP/1.1.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Versions {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 where the server takes it, else HTTP/1.1: many requests to one host share a connection.
    Http1And2,
}

impl Versions {
    /// As TLS names them (ALPN), the best first.
    pub(crate) fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Versions::Http1 => vec![b"http/1.1".to_vec()],
            Versions::Http1And2 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        }
    }
}

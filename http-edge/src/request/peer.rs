//! Where a request comes from.

use std::net::SocketAddr;
use std::sync::Arc;

use broker_core::Encryption;

/// The address the connection came from, as a request extension. [`serve`](crate::serve) sets it; an embedding service
/// may. With the feature `axum` that is not needed behind axum: its `ConnectInfo<SocketAddr>` says the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer(pub SocketAddr);

impl Peer {
    /// That of a request. What was put there as a `Peer` counts more than what axum knows: behind a proxy, somebody who
    /// has read its headers has put it there.
    pub fn of(extensions: &http::Extensions) -> Option<Self> {
        extensions.get::<Self>().copied().or_else(|| by_framework(extensions))
    }
}

#[cfg(feature = "axum")]
fn by_framework(extensions: &http::Extensions) -> Option<Peer> {
    extensions.get::<axum::extract::ConnectInfo<SocketAddr>>().map(|info| Peer(info.0))
}

#[cfg(not(feature = "axum"))]
fn by_framework(_: &http::Extensions) -> Option<Peer> {
    None
}

/// That a request came inside of TLS, as a request extension. The server sets it where it speaks TLS itself, and where
/// a proxy whose word counts says so; an embedding service may. Without it nothing is known: somebody in front may have
/// ended TLS all the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Https;

impl Https {
    /// Whether it is known of a request.
    pub fn is_known(extensions: &http::Extensions) -> bool {
        extensions.get::<Self>().is_some()
    }
}

/// How the client's connection is encrypted, as a request extension. The server sets it where it ends TLS itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Encrypted(pub Encryption);

impl Encrypted {
    /// That of a request.
    pub fn of(extensions: &http::Extensions) -> Option<Encryption> {
        extensions.get::<Self>().map(|encrypted| encrypted.0)
    }
}

/// Whom the client's TLS certificate names, as a request extension. The server sets it once the handshake has
/// verified the certificate; an embedding service that ends TLS itself may.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientCertificate(pub Arc<str>);

impl ClientCertificate {
    /// That of a request.
    pub fn of(extensions: &http::Extensions) -> Option<&str> {
        extensions.get::<Self>().map(|certificate| &*certificate.0)
    }
}

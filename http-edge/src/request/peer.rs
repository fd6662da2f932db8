//! Where a request comes from.

use std::net::SocketAddr;
use std::sync::Arc;

/// The address the connection came from, as a request extension. [`serve`](crate::serve) sets it; an embedding service
/// may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer(pub SocketAddr);

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

//! Where a request comes from.

use std::net::SocketAddr;

/// The address the connection came from, as a request extension. [`serve`](crate::serve) sets it; an embedding service
/// may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer(pub SocketAddr);

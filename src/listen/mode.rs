//! Whether TLS is spoken at an address.

use std::net::SocketAddr;

/// Whether TLS is spoken at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsMode {
    /// It is not.
    Off,
    /// Nothing else is.
    Required,
    /// Both are: a client's first byte tells.
    Optional,
}

/// Where TLS is spoken by whom a listener belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerTls {
    /// Whether it is at the listener's own address. Default `Off`.
    pub mode: TlsMode,
    /// Where nothing else is spoken, beside that address. If it is the same as another one, clients are told apart by
    /// what they say first. Default nowhere.
    pub address: Option<SocketAddr>,
}

impl ListenerTls {
    /// At the listener's own address, and at one of its own.
    pub fn new(mode: TlsMode, address: Option<SocketAddr>) -> Self {
        Self { mode, address }
    }
}

impl Default for ListenerTls {
    fn default() -> Self {
        ListenerTls { mode: TlsMode::Off, address: None }
    }
}

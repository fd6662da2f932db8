//! A connection between its accept and the door that it goes through: whether it speaks TLS, and what inside.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use link::NetStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::accept::{Gate, accept};
use super::addresses::{AddressLimits, Place, TooMany};
use super::doors::{Arrival, Doors};
use super::proxies::TrustedProxies;
#[cfg(feature = "tls")]
use super::tls::{Inside, MQTT, Tls};

/// Behind one address.
pub(crate) struct Reception {
    /// Without TLS.
    pub(crate) plain: Doors,
    /// Inside of it.
    pub(crate) tls: Doors,
    #[cfg(feature = "tls")]
    pub(crate) acceptor: Option<Tls>,
    pub(crate) addresses: AddressLimits,
    pub(crate) proxies: Arc<TrustedProxies>,
    /// How long a client may take to say its first byte, where that decides.
    pub(crate) patience: Duration,
}

/// The first byte of a handshake (RFC 8446 §5.1: the type of its records).
#[cfg(feature = "tls")]
const HANDSHAKE: u8 = 22;

/// The first byte of CONNECT. No method of HTTP begins so.
const CONNECT: u8 = 0x10;

type Placed = Result<Option<Place>, TooMany>;

impl Reception {
    /// Accepts for ever.
    ///
    /// # Cancel safety
    /// Dropping the future stops accepting; nothing that was accepted is lost.
    pub(crate) async fn run(self, listener: TcpListener, gate: Arc<Gate>) {
        let this = Arc::new(self);
        let refusing = Arc::clone(&this);
        let refuse = move |stream: TcpStream| {
            // A client that would speak TLS could not read why.
            if refusing.tls.is_empty() {
                let peer = stream.peer_addr().ok();
                refusing.plain.refuse(stream.into(), peer);
            }
        };
        accept(listener, gate, refuse, |stream, peer| this.receive(stream, peer)).await;
    }

    fn receive(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        if self.proxies.has(peer.ip()) {
            tokio::spawn(Arc::clone(self).ask_proxy(stream, peer));
            return;
        }
        let place = self.addresses.enter(peer.ip());
        if self.tls.is_empty() && !self.plain.are_two() {
            // Nothing is to be found out.
            return self.plain.serve(Arrival { stream: stream.into(), peer, place, certificate: None }, true);
        }
        tokio::spawn(Arc::clone(self).greet(stream, peer, place));
    }

    /// A proxy counts as none of its clients: they are counted by what it says of them.
    async fn ask_proxy(self: Arc<Self>, mut stream: TcpStream, proxy: SocketAddr) {
        match timeout(self.patience, self.proxies.read_header(&mut stream)).await {
            Ok(Ok(Some(peer))) => {
                let place = self.addresses.enter(peer.ip());
                self.greet(stream, peer, place).await;
            }
            Ok(Ok(None)) => self.greet(stream, proxy, Ok(None)).await,
            Ok(Err(error)) => tracing::debug!(%proxy, %error, "no header of the PROXY protocol"),
            Err(_) => tracing::debug!(%proxy, "no header of the PROXY protocol in time"),
        }
    }

    async fn greet(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, place: Placed) {
        #[cfg(feature = "tls")]
        if let (Some(tls), false) = (&self.acceptor, self.tls.is_empty()) {
            let speaks_tls = self.plain.is_empty()
                || match self.first_byte(&stream).await {
                    Some(first) => first == HANDSHAKE,
                    None => return,
                };
            if speaks_tls {
                return Box::pin(self.greet_inside(tls, stream, peer, place)).await;
            }
        }
        let stream = NetStream::from(stream);
        let speaks_http = match self.plain.are_two() {
            true => match self.first_byte_of(&stream).await {
                Some(first) => first != CONNECT,
                None => return,
            },
            false => true,
        };
        self.plain.serve(Arrival { stream, peer, place, certificate: None }, speaks_http);
    }

    #[cfg(feature = "tls")]
    async fn greet_inside(&self, tls: &Tls, stream: TcpStream, peer: SocketAddr, place: Placed) {
        let inside = match (self.tls.are_two(), &self.tls.http) {
            (true, _) => Inside::Both,
            (false, Some(_)) => Inside::Http,
            (false, None) => Inside::Stream,
        };
        let (done, certificate) = match tls.accept(stream, inside).await {
            Ok(done) => done,
            Err(error) => {
                tracing::debug!(%peer, %error, "no TLS handshake");
                return;
            }
        };
        let speaks_http = match (inside, done.protocol.as_deref()) {
            (Inside::Both, Some(protocol)) => protocol != MQTT,
            (Inside::Both, None) => match self.first_byte_of(&done.stream).await {
                Some(first) => first != CONNECT,
                None => return,
            },
            _ => true,
        };
        self.tls.serve(Arrival { stream: done.stream, peer, place, certificate }, speaks_http);
    }

    #[cfg(feature = "tls")]
    async fn first_byte(&self, stream: &TcpStream) -> Option<u8> {
        let mut first = [0];
        match timeout(self.patience, stream.peek(&mut first)).await {
            Ok(Ok(1..)) => Some(first[0]),
            _ => None,
        }
    }

    async fn first_byte_of(&self, stream: &NetStream) -> Option<u8> {
        let mut first = [0];
        match timeout(self.patience, stream.peek(&mut first)).await {
            Ok(Ok(1..)) => Some(first[0]),
            _ => None,
        }
    }
}

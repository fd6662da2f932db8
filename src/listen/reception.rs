//! A connection between its accept and the door that it goes through: whether it speaks TLS, and what inside.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use link::NetStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::accept::{Gate, accept};
use super::addresses::{AddressLimits, Place, TooMany};
use super::doors::{Arrival, Doors, Secured};
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

/// Whether a client is to be served, or only told why not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stays {
    Yes,
    No,
}

/// A connection of which is known what is spoken on it.
struct Greeted<'a> {
    doors: &'a Doors,
    stream: NetStream,
    secured: Secured,
    speaks_http: bool,
}

impl Reception {
    /// Accepts for ever.
    ///
    /// # Cancel safety
    /// Dropping the future stops accepting; at most one connection is lost, that was to be refused.
    pub(crate) async fn run(self, listener: TcpListener, gate: Arc<Gate>) {
        let this = Arc::new(self);
        let (refusing, telling) = (Arc::clone(&this), Arc::clone(&gate));
        let refuse = move |stream, peer, turn| {
            let (this, gate) = (Arc::clone(&refusing), Arc::clone(&telling));
            tokio::spawn(async move { gate.tell(turn, this.turn_away(stream, peer)).await });
        };
        accept(listener, gate, refuse, |stream, peer| this.receive(stream, peer)).await;
    }

    fn receive(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        if self.proxies.has(peer.ip()) {
            tokio::spawn(Arc::clone(self).receive_from_proxy(stream, peer));
            return;
        }
        let place = self.addresses.enter(peer.ip());
        if self.tls.is_empty() && !self.plain.are_two() {
            // Nothing is to be found out.
            return self
                .plain
                .serve(Arrival { stream: stream.into(), peer, place, secured: Secured::default() }, true);
        }
        tokio::spawn(Arc::clone(self).receive_from(stream, peer, place));
    }

    /// A proxy counts as none of its clients: they are counted by what it says of them.
    async fn receive_from_proxy(self: Arc<Self>, mut stream: TcpStream, proxy: SocketAddr) {
        match self.ask_proxy(&mut stream, proxy).await {
            Some(Some(peer)) => {
                let place = self.addresses.enter(peer.ip());
                self.receive_from(stream, peer, place).await;
            }
            Some(None) => self.receive_from(stream, proxy, Ok(None)).await,
            None => {}
        }
    }

    async fn receive_from(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, place: Placed) {
        let stays = if place.is_ok() { Stays::Yes } else { Stays::No };
        if let Some(Greeted { doors, stream, secured, speaks_http }) = self.greet(stream, peer, stays).await {
            doors.serve(Arrival { stream, peer, place, secured }, speaks_http);
        }
    }

    /// Tells one for whom there is no room why it is closed, in the terms of what it speaks.
    async fn turn_away(&self, mut stream: TcpStream, mut peer: SocketAddr) {
        if self.proxies.has(peer.ip()) {
            let Some(client) = self.ask_proxy(&mut stream, peer).await else { return };
            peer = client.unwrap_or(peer);
        }
        if let Some(Greeted { doors, stream, secured, speaks_http }) =
            self.greet(stream, peer, Stays::No).await
        {
            doors.refuse(Arrival { stream, peer, place: Ok(None), secured }, speaks_http).await;
        }
    }

    /// For whom a proxy has opened a connection, if it says that; `None` if the connection is not to be served.
    async fn ask_proxy(&self, stream: &mut TcpStream, proxy: SocketAddr) -> Option<Option<SocketAddr>> {
        match timeout(self.patience, self.proxies.read_header(stream)).await {
            Ok(Ok(peer)) => return Some(peer),
            Ok(Err(error)) => tracing::debug!(%proxy, %error, "no header of the PROXY protocol"),
            Err(_) => tracing::debug!(%proxy, "no header of the PROXY protocol in time"),
        }
        None
    }

    /// Finds out what a client speaks.
    async fn greet(&self, stream: TcpStream, peer: SocketAddr, stays: Stays) -> Option<Greeted<'_>> {
        #[cfg(feature = "tls")]
        if let (Some(tls), false) = (&self.acceptor, self.tls.is_empty()) {
            let speaks_tls = self.plain.is_empty() || self.first_byte(&stream).await? == HANDSHAKE;
            if speaks_tls {
                return Box::pin(self.greet_inside(tls, stream, peer, stays)).await;
            }
        }
        #[cfg(not(feature = "tls"))]
        let _ = (peer, stays);
        let stream = NetStream::from(stream);
        let speaks_http = !self.plain.are_two() || self.first_byte_of(&stream).await? != CONNECT;
        Some(Greeted { doors: &self.plain, stream, secured: Secured::default(), speaks_http })
    }

    #[cfg(feature = "tls")]
    async fn greet_inside(
        &self,
        tls: &Tls,
        stream: TcpStream,
        peer: SocketAddr,
        stays: Stays,
    ) -> Option<Greeted<'_>> {
        let inside = match (self.tls.are_two(), &self.tls.http, stays) {
            (true, _, Stays::Yes) => Inside::Both,
            (true, _, Stays::No) => Inside::BothBriefly,
            (false, Some(_), Stays::Yes) => Inside::Http,
            (false, Some(_), Stays::No) => Inside::HttpBriefly,
            (false, None, _) => Inside::Stream,
        };
        let (done, certificate) = match tls.accept(stream, inside).await {
            Ok(done) => done,
            Err(error) => {
                tracing::debug!(%peer, %error, "no TLS handshake");
                return None;
            }
        };
        let speaks_http = match (self.tls.are_two(), done.protocol.as_deref()) {
            (true, Some(protocol)) => protocol != MQTT,
            (true, None) => self.first_byte_of(&done.stream).await? != CONNECT,
            _ => true,
        };
        let secured = Secured { encryption: done.encryption, certificate };
        Some(Greeted { doors: &self.tls, stream: done.stream, secured, speaks_http })
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

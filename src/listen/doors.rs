//! What is behind an address: HTTP, the protocol of one front, or both.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use broker_core::Encryption;
use front::{Accepted, Front, Refusal, RefusedLine, Task};
use futures_util::future::Either;
use http_edge::{ClientCertificate, Encrypted, Holds, HostPolicy, Https, RawHeads, Refuser, ServeConfig};
use link::{Hold, NetStream, Socket};
use tokio::sync::watch;

use super::accept::Gate;
use super::addresses::{AddressLimits, Place, TooMany};
use super::proxies::TrustedProxies;
use super::refusals::Refusals;

/// A connection that may be served.
pub(crate) struct Arrival {
    pub(crate) stream: NetStream,
    pub(crate) peer: SocketAddr,
    pub(crate) place: Result<Option<Place>, TooMany>,
    pub(crate) secured: Secured,
}

/// What is known of a client by TLS; nothing without.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secured {
    pub(crate) encryption: Option<Encryption>,
    /// Whom its certificate names.
    pub(crate) certificate: Option<Arc<str>>,
}

/// Who is let in to HTTP.
pub(crate) struct HttpDoor {
    behind: Arc<Behind>,
    connection: ServeConfig,
    gate: Arc<Gate>,
    closed: watch::Receiver<bool>,
}

/// What each request needs, held by a connection on which HTTP is spoken, and counted until that is over. As large as
/// its `Arc`.
struct Counted(Arc<Behind>);

impl Counted {
    fn new(behind: &Arc<Behind>) -> Self {
        behind.served.open().fetch_add(1, Relaxed);
        Counted(Arc::clone(behind))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.served.open().fetch_sub(1, Relaxed);
    }
}

/// What each request needs.
struct Behind {
    served: Refusals,
    addresses: AddressLimits,
    proxies: Arc<TrustedProxies>,
    layer: Layer,
}

/// What is under HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    Plain,
    Tls,
}

impl HttpDoor {
    /// `address` is where it is, whose names are always answered to, and what is spoken there.
    pub(crate) fn new(
        refusals: Refusals,
        mut connection: ServeConfig,
        (gate, addresses, proxies): (Arc<Gate>, AddressLimits, Arc<TrustedProxies>),
        (hosts, address, layer): (HostPolicy, SocketAddr, Layer),
        closed: watch::Receiver<bool>,
    ) -> Self {
        // One count per request instead of one for each front.
        let served = refusals.for_hosts(hosts, Some(address));
        let behind = Arc::new(Behind { served, addresses, proxies, layer });
        let fronts = behind.served.fronts().clone();
        // What no front claims is answered at once, but nothing is lost by finding soon that its client is gone.
        connection.holds = Holds::by(move |uri| fronts.of(uri.path()).is_none_or(|front| front.holds(uri)));
        if behind.served.fronts().list().iter().any(|front| front.wants_raw_heads()) {
            let fronts = behind.served.fronts().clone();
            connection.raw_heads =
                RawHeads::by(move |uri| fronts.of(uri.path()).is_some_and(|front| front.wants_raw_heads()));
        }
        let refusing = Arc::clone(&behind);
        connection.refuse = Refuser::new(move |problem, request| refusing.served.readable(problem, request));
        HttpDoor { behind, connection, gate, closed }
    }

    pub(crate) fn serve(&self, arrival: Arrival) {
        let Arrival { stream, peer, place, secured: Secured { encryption, certificate } } = arrival;
        let Ok(place) = place else {
            let (gate, behind) = (Arc::clone(&self.gate), Arc::clone(&self.behind));
            tokio::spawn(async move {
                gate.refuse(behind.refuse(stream, peer, &Refusal::address_full())).await;
            });
            return;
        };
        let mut connection = self.connection.clone();
        connection.hold = hold(place);
        let counted = Counted::new(&self.behind);
        // Behind one pointer, so that the many that have none have little room for it.
        let certificate = certificate.map(|name| Box::new(ClientCertificate(name)));
        let handle = move |mut request: http::Request<_>| {
            let behind = &counted.0;
            let Behind { served, addresses, proxies, layer } = &**behind;
            let origin = proxies.origin_of(peer, request.headers());
            let peer = origin.client;
            if *layer == Layer::Tls || origin.https {
                request.extensions_mut().insert(Https);
            }
            if let Some(encryption) = encryption {
                request.extensions_mut().insert(Encrypted(encryption));
            }
            if let Some(certificate) = &certificate {
                request.extensions_mut().insert(ClientCertificate::clone(certificate));
            }
            match served.admit(addresses, peer.ip(), &request) {
                Ok(()) => Either::Left(served.fronts().handle_from(Some(http_edge::Peer(peer)), request)),
                // Boxed, so that connections do not have room for what is rare.
                Err(refusal) => {
                    log(HTTP, &refusal, Some(peer));
                    let behind = Arc::clone(behind);
                    let refused = async move { behind.served.refuse(&refusal, request.into_parts().0).await };
                    Either::Right(Box::pin(refused))
                }
            }
        };
        tokio::spawn(http_edge::serve_unnamed(stream, handle, connection, self.closed.clone()));
    }
}

impl Behind {
    /// Tells a client why it is closed.
    async fn refuse(&self, stream: NetStream, peer: SocketAddr, refusal: &Refusal) {
        log(HTTP, refusal, Some(peer));
        // It may be gone by then.
        let _ = self.served.tell(stream, refusal).await;
    }
}

/// Who is let in to the listener of one front.
pub(crate) struct StreamDoor {
    pub(crate) front: Arc<dyn Front>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) addresses: AddressLimits,
}

impl StreamDoor {
    pub(crate) fn serve(&self, arrival: Arrival) {
        let Arrival { stream, peer, place, secured: Secured { encryption, certificate } } = arrival;
        let socket = Socket::tcp(stream, Vec::new());
        let refusal = match place {
            Err(TooMany) => Refusal::address_full(),
            Ok(place) => match self.addresses.admit(peer.ip()) {
                Ok(()) => {
                    let accepted =
                        Accepted::new(socket.holding(hold(place)), peer, certificate).encrypted(encryption);
                    tokio::spawn(self.front.serve(accepted));
                    return;
                }
                Err(wait) => Refusal::too_fast(wait),
            },
        };
        let telling = self.refuse(Accepted::new(socket, peer, certificate), &refusal);
        let gate = Arc::clone(&self.gate);
        tokio::spawn(async move { gate.refuse(telling).await });
    }

    /// Tells a client why it is closed, in the words of its protocol.
    fn refuse(&self, accepted: Accepted, refusal: &Refusal) -> Task {
        log(self.front.name(), refusal, Some(accepted.peer));
        self.front.refuse_stream(refusal, accepted)
    }
}

/// What lines of the log call the door to HTTP.
const HTTP: &str = "http";

/// A line about a client that no front has looked at.
fn log(protocol: &'static str, refusal: &Refusal, peer: Option<SocketAddr>) {
    let (reason, detail) = (refusal.problem.code, Some(&*refusal.problem.detail));
    let remote = peer.map(|peer| peer.ip());
    let mut line = RefusedLine::default();
    line.protocol = protocol;
    line.reason = reason;
    line.detail = detail;
    line.remote = remote;
    line.log();
}

/// What keeps a connection's place among those of its address.
fn hold(place: Option<Place>) -> Hold {
    place.map_or_else(Hold::default, Hold::new)
}

/// What a client may speak, once it is known whether inside of TLS.
#[derive(Clone, Default)]
pub(crate) struct Doors {
    pub(crate) http: Option<Arc<HttpDoor>>,
    pub(crate) stream: Option<Arc<StreamDoor>>,
}

impl Doors {
    pub(crate) fn is_empty(&self) -> bool {
        self.http.is_none() && self.stream.is_none()
    }

    /// Whether the client decides which it is.
    pub(crate) fn are_two(&self) -> bool {
        self.http.is_some() && self.stream.is_some()
    }

    /// To the only one there is, or to HTTP if that is what the client speaks.
    pub(crate) fn serve(&self, arrival: Arrival, speaks_http: bool) {
        match (&self.http, &self.stream) {
            (Some(http), None) => http.serve(arrival),
            (Some(http), Some(_)) if speaks_http => http.serve(arrival),
            (_, Some(stream)) => stream.serve(arrival),
            (None, None) => {}
        }
    }

    /// Tells a client for whom there is no room why it is closed; dropped, it is closed without a word.
    pub(crate) async fn refuse(&self, arrival: Arrival, speaks_http: bool) {
        let Arrival { stream, peer, secured: Secured { certificate, .. }, .. } = arrival;
        let refusal = Refusal::server_full();
        match (&self.http, &self.stream) {
            (Some(http), None) => http.behind.refuse(stream, peer, &refusal).await,
            (Some(http), Some(_)) if speaks_http => http.behind.refuse(stream, peer, &refusal).await,
            (_, Some(door)) => {
                let socket = Socket::tcp(stream, Vec::new());
                door.refuse(Accepted::new(socket, peer, certificate), &refusal).await;
            }
            (None, None) => {}
        }
    }
}

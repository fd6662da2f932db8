//! Listening, serving, and stopping without losing what was accepted.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{Broker, Governed};
use front::{Accepted, Front, Refusal};
use futures_util::future::Either;
use http_edge::{Holds, HostPolicy, Refuser};
use link::{Hold, Socket};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::listen::{self, Counted, Gate, Place, Refusals};
use crate::{AddressLimits, Config, Fronts, metrics};

/// The front whose listener the configuration names.
const MQTT: &str = "mqtt";

/// How long what the lanes hold may take to reach the outboxes when the server stops.
const DRAIN: Duration = Duration::from_secs(2);
/// How much longer than their window the fronts may take.
const FRONTS_GRACE: Duration = Duration::from_millis(2500);
/// How long the last answers may take to be written.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// A broker that listens. [`bind`](Server::bind), then [`run`](Server::run).
#[derive(Debug)]
pub struct Server {
    broker: Broker,
    fronts: Fronts,
    refusals: Refusals,
    http: Option<Listening>,
    /// Listeners that belong to one front each.
    streams: Vec<(Arc<dyn Front>, Listening)>,
    gate: Arc<Gate>,
    addresses: AddressLimits,
    hosts: HostPolicy,
    connection: http_edge::ServeConfig,
    shutdown_window: Duration,
}

#[derive(Debug)]
struct Listening {
    listener: TcpListener,
    address: SocketAddr,
}

/// Why a server could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {what}: {}", reason(source))]
pub struct BindError {
    /// `HTTP`, `MQTT`, or the name of a front of your own.
    pub what: &'static str,
    /// Where.
    pub address: SocketAddr,
    /// Why not.
    pub source: io::Error,
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the port is in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied => "not permitted (ports below 1024 need a privilege)".to_owned(),
        _ => error.to_string(),
    }
}

impl Server {
    /// Opens the listeners and starts the broker on the current tokio runtime. Clients that connect from now on wait
    /// until [`run`](Server::run).
    ///
    /// # Errors
    /// An address is taken, or not to be had.
    pub async fn bind(mut config: Config) -> Result<Self, BindError> {
        let http = open("HTTP", config.http)?;
        let mut mqtt = open("MQTT", config.mqtt.filter(|_| cfg!(feature = "mqtt")))?;
        let gate = Arc::new(Gate::new(config.max_connections));
        let addresses = AddressLimits::new(config.max_connections_per_address);
        #[cfg(feature = "auth")]
        addresses.set_rate(config.address_rate);
        let limits = std::mem::take(&mut config.broker);
        let broker = match config.engine.take() {
            Some(engine) => Broker::with_engine(limits, engine),
            None => Broker::new(limits),
        };
        if let Some(policy) = config.policy.take() {
            broker.set_policy(Arc::clone(&policy));
            config.authenticator = Arc::new(Governed::new(config.authenticator, policy));
        }
        let fronts = Fronts::new(&broker, &config);
        let refusals = Refusals::new(fronts.clone());
        fronts.show(gate.clone());
        fronts.show(Arc::new(addresses.clone()));
        fronts.show(metrics::of_hosts(refusals.misdirected()));
        fronts.show(metrics::of_connections(refusals.open()));
        let clients = Arc::new(metrics::Clients::default());
        broker.hear(clients.clone());
        fronts.show(clients);
        fronts.show(metrics::of_build(&fronts));
        fronts.show(metrics::of_process());
        fronts.show(metrics::of_stalled(config.connection.stalled.clone()));
        let mut streams = Vec::new();
        for front in fronts.list() {
            let own = open(front.name(), front.listens())?;
            let given = if front.name() == MQTT { mqtt.take() } else { None };
            streams.extend(own.into_iter().chain(given).map(|listening| (Arc::clone(front), listening)));
        }
        let mqtt = streams.iter().find(|(of, _)| of.name() == MQTT);
        fronts.page().is_served_with(mqtt.map(|(_, listening)| listening.address));
        let shutdown_window = config.shutdown_window.min(Config::MAX_SHUTDOWN_WINDOW);
        let hosts = hosts(config.hosts, http.as_ref());
        let connection = config.connection;
        Ok(Server {
            broker,
            fronts,
            refusals,
            http,
            streams,
            gate,
            addresses,
            hosts,
            connection,
            shutdown_window,
        })
    }

    /// The broker, to publish and subscribe in process.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The names that HTTP requests may be for.
    pub fn hosts(&self) -> &HostPolicy {
        &self.hosts
    }

    /// What one address may take of the listeners, to change it while it is served.
    pub fn address_limits(&self) -> &AddressLimits {
        &self.addresses
    }

    /// The fronts, to serve connections that were accepted elsewhere too.
    pub fn fronts(&self) -> &Fronts {
        &self.fronts
    }

    /// Where HTTP is served: the port is the real one where 0 was asked for.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|listening| listening.address)
    }

    /// Where MQTT over TCP is served.
    pub fn mqtt_address(&self) -> Option<SocketAddr> {
        self.address_of(MQTT)
    }

    /// Where the listener of the front of this name is: the port is the real one where 0 was asked for.
    pub fn address_of(&self, front: &str) -> Option<SocketAddr> {
        let mut streams = self.streams.iter();
        streams.find(|(of, _)| of.name() == front).map(|(_, listening)| listening.address)
    }

    /// Serves until `stop` is ready, then stops: readiness fails and publishing ends; what was accepted before is written
    /// to its readers; clients are told in their protocols and leave within [`Config::shutdown_window`]; then the broker is
    /// closed, so that every [`Subscription`](crate::Subscription) of yours ends. Resolves at most 5 s after the window.
    ///
    /// # Cancel safety
    /// Dropped before it resolves, it only stops listening: nobody is told, and the broker and the connections that are
    /// there go on. [`Broker::close`] ends them.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Server {
            broker,
            fronts,
            refusals,
            http,
            streams,
            gate,
            addresses,
            hosts,
            connection,
            shutdown_window,
        } = self;
        let (closing, closed) = watch::channel(false);
        let http = http.map(|http| {
            let (gate, addresses) = (Arc::clone(&gate), addresses.clone());
            let doorkeeper = Doorkeeper { gate, addresses, hosts };
            tokio::spawn(serve_http(http.listener, refusals, connection, doorkeeper, closed))
        });
        let streams = streams.into_iter().map(|(front, listening)| {
            tokio::spawn(serve_streams(listening.listener, front, Arc::clone(&gate), addresses.clone()))
        });
        // A caller that drops this future wants no listener to live on.
        let streams = AbortOnDrop(streams.collect());
        let http = AbortOnDrop(http.into_iter().collect());
        stop.await;

        fronts.set_ready(false);
        broker.wind_down();
        drop(streams);
        if timeout(DRAIN, broker.drained()).await.is_err() {
            tracing::warn!("not everything that was published reached its readers in time");
        }
        // HTTP is served meanwhile, so that `/readyz` says what is going on.
        if timeout(shutdown_window + FRONTS_GRACE, fronts.shutdown(shutdown_window)).await.is_err() {
            tracing::warn!("some clients did not leave in time");
        }
        // Whoever subscribed in process hears it now, whatever handles to the broker there are.
        broker.close();
        drop(http);
        closing.send_replace(true);
        let _ = timeout(LAST_ANSWERS, closing.closed()).await;
    }
}

struct AbortOnDrop(Vec<JoinHandle<()>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

fn open(what: &'static str, address: Option<SocketAddr>) -> Result<Option<Listening>, BindError> {
    let Some(address) = address else { return Ok(None) };
    let listener = listen::listen(address).map_err(|source| BindError { what, address, source })?;
    let address = listener.local_addr().map_err(|source| BindError { what, address, source })?;
    Ok(Some(Listening { listener, address }))
}

/// The names that are answered where it listens.
fn hosts(said: Option<Vec<String>>, http: Option<&Listening>) -> HostPolicy {
    match said {
        Some(names) if names.iter().any(|name| name == "*") => HostPolicy::Any,
        Some(names) => HostPolicy::Names(names),
        None if http.is_some_and(|http| http.address.ip().is_loopback()) => HostPolicy::Names(Vec::new()),
        None => HostPolicy::Any,
    }
}

/// Who is let in to the HTTP listener.
struct Doorkeeper {
    gate: Arc<Gate>,
    addresses: AddressLimits,
    hosts: HostPolicy,
}

async fn serve_http(
    listener: TcpListener,
    refusals: Refusals,
    mut connection: http_edge::ServeConfig,
    doorkeeper: Doorkeeper,
    closed: watch::Receiver<bool>,
) {
    let Doorkeeper { gate, addresses, hosts } = doorkeeper;
    // One count per request instead of one for each front.
    let served = Arc::new(refusals.for_hosts(hosts, listener.local_addr().ok()));
    let fronts = served.fronts().clone();
    // What no front claims is answered at once, but nothing is lost by finding soon that its client is gone.
    connection.holds = Holds::by(move |uri| fronts.of(uri.path()).is_none_or(|front| front.holds(uri)));
    let refusing = Arc::clone(&served);
    connection.refuse = Refuser::new(move |problem, request| refusing.readable(problem, request));
    let refuse = |stream, refusal: Refusal| {
        let (gate, refusals) = (Arc::clone(&gate), Arc::clone(&served));
        tokio::spawn(async move { gate.refuse(refusals.tell(stream, &refusal)).await });
    };
    let too_many = |stream| refuse(stream, Refusal::server_full());
    listen::accept(listener, Arc::clone(&gate), too_many, |stream, peer| {
        let Ok(place) = addresses.enter(peer.ip()) else { return refuse(stream, Refusal::address_full()) };
        let mut connection = connection.clone();
        connection.hold = hold(place);
        let (counted, addresses) = (Counted::new(&served), addresses.clone());
        let handle = move |request: http::Request<_>| {
            let served = counted.get();
            match served.admit(&addresses, peer.ip(), &request) {
                Ok(()) => Either::Left(served.fronts().handle_from(Some(http_edge::Peer(peer)), request)),
                // Boxed, so that connections do not have room for what is rare.
                Err(refusal) => {
                    let served = Arc::clone(served);
                    let refused = async move { served.refuse(&refusal, request.into_parts().0).await };
                    Either::Right(Box::pin(refused))
                }
            }
        };
        tokio::spawn(http_edge::serve_unnamed(stream, handle, connection, closed.clone()));
    })
    .await;
}

/// Serves the listener that belongs to one front.
async fn serve_streams(
    listener: TcpListener,
    front: Arc<dyn Front>,
    gate: Arc<Gate>,
    addresses: AddressLimits,
) {
    // Many protocols have no words for it before the client has said something, and there is no room to wait for that.
    let refuse = |stream: TcpStream| {
        let gate = Arc::clone(&gate);
        tokio::spawn(async move { gate.refuse(listen::close(stream)).await });
    };
    listen::accept(listener, Arc::clone(&gate), refuse, |stream, peer| {
        let socket = Socket::tcp(stream, Vec::new());
        let refusal = match addresses.enter(peer.ip()) {
            Err(_) => Refusal::address_full(),
            Ok(place) => match addresses.admit(peer.ip()) {
                Ok(()) => {
                    let accepted = Accepted { socket: socket.holding(hold(place)), peer };
                    tokio::spawn(front.serve(accepted));
                    return;
                }
                Err(wait) => Refusal::too_fast(wait),
            },
        };
        let gate = Arc::clone(&gate);
        let telling = front.refuse_stream(&refusal, Accepted { socket, peer });
        tokio::spawn(async move { gate.refuse(telling).await });
    })
    .await;
}

/// What keeps a connection's place among those of its address.
fn hold(place: Option<Place>) -> Hold {
    place.map_or_else(Hold::default, Hold::new)
}

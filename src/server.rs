//! Listening, serving, and stopping without losing what was accepted.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{Broker, Governed};
use front::Front;
use http_edge::HostPolicy;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::listen::{
    self, Doors, Gate, HttpDoor, Layer, ListenerTls, Reception, Refusals, StreamDoor, TlsMode,
};
#[cfg(feature = "tls")]
use crate::listen::{Tls, TlsError};
use crate::logging::ClientLines;
use crate::page::MqttAddresses;
use crate::{AddressLimits, Config, Fronts, TrustedProxies, metrics};

/// The front whose listener the configuration names.
const MQTT: &str = "mqtt";

/// How long the last answers may take to be written.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// How long backends may take at least to hear of the clients that left when the server stopped.
#[cfg(feature = "gateway")]
const LAST_EVENTS: Duration = Duration::from_secs(2);

/// A broker that listens. [`bind`](Server::bind), then [`run`](Server::run).
#[derive(Debug)]
pub struct Server {
    broker: Broker,
    fronts: Fronts,
    refusals: Refusals,
    listeners: Vec<Listening>,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    gate: Arc<Gate>,
    addresses: AddressLimits,
    proxies: Arc<TrustedProxies>,
    hosts: HostPolicy,
    connection: http_edge::ServeConfig,
    shutdown_window: Duration,
    #[cfg(feature = "gateway")]
    webhooks: gateway::webhook::Webhooks,
    #[cfg(feature = "gateway")]
    sources: sources::Sources,
}

#[derive(Debug)]
struct Listening {
    listener: TcpListener,
    address: SocketAddr,
    plain: Spoken,
    tls: Spoken,
}

/// What is spoken at an address.
#[derive(Clone, Debug, Default)]
struct Spoken {
    http: bool,
    /// The front that it belongs to.
    front: Option<Arc<dyn Front>>,
}

impl Spoken {
    fn http(spoken: bool) -> Self {
        Spoken { http: spoken, front: None }
    }

    fn of(front: &Arc<dyn Front>, spoken: bool) -> Self {
        Spoken { http: false, front: spoken.then(|| Arc::clone(front)) }
    }

    /// Both together, where there is one front at most.
    fn and(&self, other: &Spoken) -> Option<Spoken> {
        let front = match (&self.front, &other.front) {
            (Some(_), Some(_)) => return None,
            (front, None) | (None, front) => front.clone(),
        };
        Some(Spoken { http: self.http || other.http, front })
    }

    fn is(&self, name: &str) -> bool {
        self.front.as_ref().is_some_and(|front| front.name() == name)
    }
}

/// An address to listen on.
struct Wanted {
    what: &'static str,
    address: SocketAddr,
    plain: Spoken,
    tls: Spoken,
}

/// Why a server could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// An address is not to be had.
    #[error("cannot listen on {address} for {what}: {}", reason(source))]
    Address {
        /// `HTTP`, `HTTPS`, `MQTT`, or the name of a front.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// There is a store, and a cluster: what a store keeps nothing brings to other nodes.
    #[error("a store and a cluster do not go together: what a store keeps is on one machine")]
    StoreInCluster,
    /// TLS is to be spoken and cannot be.
    #[cfg(feature = "tls")]
    #[error(transparent)]
    Tls(#[from] TlsError),
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
        let gate = Arc::new(Gate::new(config.max_connections));
        let addresses = AddressLimits::new(config.max_connections_per_address);
        #[cfg(feature = "auth")]
        addresses.set_rate(config.address_rate);
        let limits = std::mem::take(&mut config.broker);
        #[cfg(feature = "store")]
        let store = config.store.take();
        #[cfg(feature = "store")]
        if let Some(store) = &store {
            config.engine = Some(Arc::clone(store) as _);
        }
        #[cfg(feature = "cluster")]
        let cluster = config.cluster.take();
        #[cfg(feature = "cluster")]
        if let Some(cluster) = &cluster {
            #[cfg(feature = "store")]
            if store.is_some() {
                return Err(BindError::StoreInCluster);
            }
            config.engine = Some(Arc::clone(cluster) as _);
        }
        let broker = match config.engine.take() {
            Some(engine) => Broker::with_engine(limits, engine),
            None => Broker::new(limits),
        };
        #[cfg(feature = "gateway")]
        let webhooks = webhooks(&broker, &mut config);
        if let Some(policy) = config.policy.take() {
            broker.set_policy(Arc::clone(&policy));
            config.authenticator = Arc::new(Governed::new(config.authenticator, policy));
        }
        let fronts = Fronts::new(&broker, &config);
        #[cfg(feature = "gateway")]
        let sources = {
            let mut of_config = std::mem::take(&mut config.sources);
            of_config.webhooks = Some(webhooks.clone());
            sources::Sources::start(&broker, of_config)
        };
        #[cfg(feature = "gateway")]
        let fronts = fronts.with_resources(&webhooks, &sources, &config);
        let refusals = Refusals::new(fronts.clone());
        fronts.show(gate.clone());
        fronts.show(Arc::new(addresses.clone()));
        fronts.show(metrics::of_hosts(refusals.misdirected()));
        fronts.show(metrics::of_connections(refusals.open()));
        let clients = Arc::new(metrics::Clients::default());
        broker.hear(clients.clone());
        broker.hear(Arc::new(ClientLines));
        fronts.show(clients.clone());
        fronts.show(metrics::of_build(&fronts));
        fronts.show(metrics::of_process());
        fronts.show(metrics::of_log());
        #[cfg(feature = "store")]
        if let Some(store) = store {
            fronts.show(metrics::of_store(store));
        }
        #[cfg(feature = "cluster")]
        if let Some(cluster) = cluster {
            #[cfg(feature = "gateway")]
            crate::peers::join_webhooks(&cluster, &webhooks);
            crate::peers::join(&cluster, &broker, &fronts, &clients).await;
            fronts.show(metrics::of_cluster(cluster));
        }
        #[cfg(feature = "gateway")]
        fronts.show(Arc::new(webhooks.clone()));
        #[cfg(feature = "gateway")]
        fronts.show(Arc::new(sources.clone()));
        fronts.show(metrics::of_stalled(config.connection.stalled.clone()));
        #[cfg(feature = "tls")]
        let tls = config.tls.take().map(Tls::new).transpose()?;
        #[cfg(feature = "tls")]
        if let Some(tls) = &tls {
            fronts.show(Arc::new(tls.clone()));
        }
        let listeners = open(wanted(&config, &fronts))?;
        let find = |is: fn(&Listening) -> bool| listeners.iter().find(|one| is(one)).map(|one| one.address);
        let (mqtt, mqtts) = (find(|one| one.plain.is(MQTT)), find(|one| one.tls.is(MQTT)));
        fronts.page().is_served_with(MqttAddresses { mqtt, mqtts });
        let shutdown_window = config.shutdown_window.min(Config::MAX_SHUTDOWN_WINDOW);
        let http = listeners.iter().filter(|one| one.plain.http || one.tls.http);
        let hosts = hosts(config.hosts, http.map(|one| one.address));
        #[cfg(feature = "grip")]
        let hosts = with_those_of_routes(hosts, &config.grip.settings);
        let connection = config.connection;
        Ok(Server {
            broker,
            fronts,
            refusals,
            listeners,
            #[cfg(feature = "tls")]
            tls,
            gate,
            addresses,
            proxies: Arc::new(config.proxies),
            hosts,
            connection,
            shutdown_window,
            #[cfg(feature = "gateway")]
            webhooks,
            #[cfg(feature = "gateway")]
            sources,
        })
    }

    /// The broker, to publish and subscribe in process.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Its connections outward, to change them while it serves.
    #[cfg(feature = "gateway")]
    pub fn sources(&self) -> &sources::Sources {
        &self.sources
    }

    /// Its webhooks, to change them while it serves.
    #[cfg(feature = "gateway")]
    pub fn webhooks(&self) -> &gateway::webhook::Webhooks {
        &self.webhooks
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

    /// Where HTTP is served: the port is the real one where 0 was asked for. The address of [`Config::http`], also
    /// where only TLS is spoken there; the other one if there is none.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.find(|one| one.plain.http).or_else(|| self.https_address())
    }

    /// Where HTTP is served inside of TLS.
    pub fn https_address(&self) -> Option<SocketAddr> {
        self.find(|one| one.tls.http)
    }

    /// Where MQTT over TCP is served, preferably without TLS.
    pub fn mqtt_address(&self) -> Option<SocketAddr> {
        self.address_of(MQTT)
    }

    /// Where MQTT over TCP is served inside of TLS.
    pub fn mqtts_address(&self) -> Option<SocketAddr> {
        self.find(|one| one.tls.is(MQTT))
    }

    /// Where the listener of the front of this name is: the port is the real one where 0 was asked for.
    pub fn address_of(&self, front: &str) -> Option<SocketAddr> {
        self.find(|one| one.plain.is(front)).or_else(|| self.find(|one| one.tls.is(front)))
    }

    fn find(&self, what: impl Fn(&Listening) -> bool) -> Option<SocketAddr> {
        self.listeners.iter().find(|one| what(one)).map(|one| one.address)
    }

    /// The certificates that are shown, to read them again.
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Serves until `stop` is ready, then stops: readiness fails and publishing ends; what was accepted before is
    /// written to its readers; clients are told in their protocols and leave within [`Config::shutdown_window`]; then
    /// the broker is closed, so that every [`Subscription`](crate::Subscription) of yours ends. Resolves at most 5 s
    /// after the window.
    ///
    /// # Cancel safety
    /// Dropped before it resolves, it only stops listening: nobody is told, and the broker and the connections that are
    /// there go on. [`Broker::close`] ends them.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let (closing, closed) = watch::channel(false);
        #[cfg(feature = "gateway")]
        let (webhooks, sources) = (self.webhooks.clone(), self.sources.clone());
        let (broker, fronts, shutdown_window) =
            (self.broker.clone(), self.fronts.clone(), self.shutdown_window);
        #[cfg(feature = "tls")]
        let watching = self.tls.clone().map(|tls| tokio::spawn(tls.watch()));
        #[cfg(not(feature = "tls"))]
        let watching: Option<JoinHandle<()>> = None;
        let tasks: Vec<_> = watching.into_iter().collect();
        let (mut http, mut streams) = (Vec::new(), Vec::new());
        for (serves_http, task) in self.listen(&closed) {
            if serves_http { http.push(task) } else { streams.push(task) }
        }
        // A caller that drops this future wants no listener to live on.
        let (streams, http, tasks) = (AbortOnDrop(streams), AbortOnDrop(http), AbortOnDrop(tasks));
        drop(closed);
        fronts.begin();
        stop.await;

        #[cfg(feature = "gateway")]
        let began = std::time::Instant::now();
        #[cfg(feature = "gateway")]
        sources.stop();
        fronts.set_ready(false);
        drop(streams);
        // HTTP is served meanwhile, so that `/readyz` says what is going on.
        crate::stop(&broker, fronts.list().iter().map(|front| &**front), shutdown_window).await;
        // Whose clients have left: their backends hear of it in what is left of the window.
        #[cfg(feature = "gateway")]
        webhooks.finish(shutdown_window.saturating_sub(began.elapsed()).max(LAST_EVENTS)).await;
        drop((http, tasks));
        closing.send_replace(true);
        let _ = timeout(LAST_ANSWERS, closing.closed()).await;
    }

    /// Accepts on all listeners, each in a task; whether it serves HTTP.
    fn listen(self, closed: &watch::Receiver<bool>) -> Vec<(bool, JoinHandle<()>)> {
        let mut tasks = Vec::new();
        for Listening { listener, address, plain, tls } in self.listeners {
            let given = || (Arc::clone(&self.gate), self.addresses.clone(), Arc::clone(&self.proxies));
            let serves_http = plain.http || tls.http;
            let http = |layer| {
                let named = (self.hosts.clone(), address, layer);
                let (refusals, connection) = (self.refusals.clone(), self.connection.clone());
                Arc::new(HttpDoor::new(refusals, connection, given(), named, closed.clone()))
            };
            let doors = |spoken: Spoken, layer| Doors {
                http: spoken.http.then(|| http(layer)),
                stream: spoken.front.map(|front| {
                    let (gate, addresses, _) = given();
                    Arc::new(StreamDoor { front, gate, addresses })
                }),
            };
            let reception = Reception {
                plain: doors(plain, Layer::Plain),
                tls: doors(tls, Layer::Tls),
                #[cfg(feature = "tls")]
                acceptor: self.tls.clone(),
                addresses: self.addresses.clone(),
                proxies: Arc::clone(&self.proxies),
                patience: self.connection.header_read_timeout,
            };
            tasks.push((serves_http, tokio::spawn(reception.run(listener, Arc::clone(&self.gate)))));
        }
        tasks
    }
}

/// The webhooks of the configuration, and whoever is put later; they decide after the policy and the authenticator that
/// are there.
#[cfg(feature = "gateway")]
fn webhooks(broker: &Broker, config: &mut Config) -> gateway::webhook::Webhooks {
    let webhooks = gateway::webhook::Webhooks::start(broker, &config.gateway, config.policy.take());
    let authenticator = std::mem::replace(&mut config.authenticator, Arc::new(broker_core::AllowAll));
    config.authenticator = webhooks.authenticator(authenticator);
    webhooks
}

struct AbortOnDrop(Vec<JoinHandle<()>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// All that is to be listened on. What has the same address is one listener, where it can be told apart.
fn wanted(config: &Config, fronts: &Fronts) -> Vec<Wanted> {
    let mut all: Vec<Wanted> = Vec::new();
    let mut want = |what, address: Option<SocketAddr>, plain: Spoken, tls: Spoken| {
        let Some(address) = address else { return };
        let same = all.iter_mut().find(|one| one.address == address && address.port() != 0);
        if let Some(same) = same
            && let (Some(plain), Some(tls)) = (same.plain.and(&plain), same.tls.and(&tls))
        {
            (same.plain, same.tls) = (plain, tls);
            return;
        }
        all.push(Wanted { what, address, plain, tls });
    };
    let said = |mode| (mode != TlsMode::Required, mode != TlsMode::Off);
    let none = Spoken::default;
    let tls = tls_of(config, None);
    let (plain, inside) = said(tls.mode);
    want("HTTP", config.http, Spoken::http(plain), Spoken::http(inside));
    want("HTTPS", tls.address, none(), Spoken::http(true));
    for front in fronts.list() {
        let tls = tls_of(config, Some(front.name()));
        let (plain, inside) = said(tls.mode);
        let given = config.mqtt.filter(|_| front.name() == MQTT);
        for (what, address) in [(front.name(), front.listens()), ("MQTT", given)] {
            want(what, address, Spoken::of(front, plain), Spoken::of(front, inside));
        }
        want(front.name(), tls.address, none(), Spoken::of(front, true));
    }
    all
}

/// Where TLS is spoken by a front that has a listener, or by HTTP.
#[cfg(feature = "tls")]
fn tls_of(config: &Config, front: Option<&str>) -> ListenerTls {
    front.map_or(config.http_tls, |front| config.front_tls.get(front).copied().unwrap_or_default())
}

#[cfg(not(feature = "tls"))]
fn tls_of(_: &Config, _: Option<&str>) -> ListenerTls {
    ListenerTls::default()
}

fn open(wanted: Vec<Wanted>) -> Result<Vec<Listening>, BindError> {
    let open = |Wanted { what, address, plain, tls }| {
        let failed = |source| BindError::Address { what, address, source };
        let listener = listen::listen(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Listening { listener, address, plain, tls })
    };
    wanted.into_iter().map(open).collect()
}

/// The names that are answered where it listens.
fn hosts(said: Option<Vec<String>>, http: impl Iterator<Item = SocketAddr>) -> HostPolicy {
    let http: Vec<SocketAddr> = http.collect();
    match said {
        Some(names) if names.iter().any(|name| name == "*") => HostPolicy::Any,
        Some(names) => HostPolicy::Names(names),
        None if !http.is_empty() && http.iter().all(|address| address.ip().is_loopback()) => {
            HostPolicy::Names(Vec::new())
        }
        None => HostPolicy::Any,
    }
}

/// A route for a host is a reason to answer to it.
#[cfg(feature = "grip")]
fn with_those_of_routes(hosts: HostPolicy, settings: &gateway_grip::Settings) -> HostPolicy {
    match hosts {
        HostPolicy::Names(mut names) => {
            names.extend(settings.routes.iter().filter_map(|route| route.host.name()));
            HostPolicy::Names(names)
        }
        any => any,
    }
}

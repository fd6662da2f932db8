//! The front: what an embedding service holds.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use broker_core::{Authenticator, Broker, Outbox, Principal};
use bytes::Bytes;
use dashmap::DashMap;
use http_edge::{BoxError, OriginPolicy, Response};

use crate::codec::id::ClientId;
use crate::config::Config;
use crate::hooks::listener::{Closed, Listener};
use crate::hooks::policy::{ByRights, Policy};
use crate::hooks::service::{ServiceReply, ServiceRequest, Services};
use crate::protocol::{End, SessionTiming};
use crate::sessions::own_messages::direct_message;
use crate::sessions::rate::RateLimit;
use crate::sessions::registry::{Member, Registry};
use crate::sessions::shared::Shared as Common;
use crate::sessions::sweep;
use crate::stats::{Counters, Stats};
use crate::transport;

/// Bayeux for one broker. Cheap to clone; hand it every request below its path.
#[derive(Clone)]
pub struct Front(Arc<Handle>);

/// Ends the sweep when the last clone of the front is gone; connections hold only what is inside.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }
}

/// What all of the front's parts work with.
pub(crate) struct Shared {
    pub(crate) myself: Weak<Shared>,
    pub(crate) broker: Broker,
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) common: Arc<Common>,
    pub(crate) registry: Registry,
    pub(crate) services: Services,
    /// Channels that publishers without a session bring into being.
    pub(crate) anonymous_channels: RateLimit,
    /// JSON text of the transports in order of liking.
    pub(crate) connection_types: String,
    pub(crate) socket_numbers: AtomicU64,
    /// Outboxes of open sockets, to wake their tasks at the end.
    pub(crate) sockets: DashMap<u64, Arc<Outbox>>,
    closing: AtomicBool,
    stopped: AtomicBool,
}

impl Front {
    /// A front whose handshakes ask `authenticator` and whose decisions follow the principal's rights.
    ///
    /// Must be called inside a tokio runtime: one task looks for expired sessions. It ends with the
    /// last clone of the front.
    pub fn new(broker: Broker, authenticator: Arc<dyn Authenticator>, config: Config) -> Self {
        Self::with_policy(broker, ByRights(authenticator), config)
    }

    /// A front with a policy of the embedding service's own.
    pub fn with_policy(broker: Broker, policy: impl Policy, config: Config) -> Self {
        let names: Vec<String> =
            config.transports.iter().map(|transport| format!("\"{}\"", transport.name())).collect();
        let connection_types = format!("[{}]", names.join(","));
        let common = Arc::new(Common::new(&broker, config));
        let shared = Arc::new_cyclic(|myself| Shared {
            myself: Weak::clone(myself),
            broker,
            policy: Arc::new(policy),
            common,
            registry: Registry::default(),
            services: Services::default(),
            anonymous_channels: RateLimit::default(),
            connection_types,
            socket_numbers: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            sockets: DashMap::new(),
            stopped: AtomicBool::new(false),
        });
        tokio::spawn(sweep::run(Arc::downgrade(&shared), shared.config().sweep_period));
        Self(Arc::new(Handle(shared)))
    }

    /// Answers one request at the endpoint or any path below it: POST for long-polling, GET with
    /// `jsonp` for callback-polling, an upgrade for WebSocket, OPTIONS for CORS.
    ///
    /// A held connect resolves when there is something to say.
    ///
    /// # Cancel safety
    /// Dropping the future is how a transport says that the client is gone: events stay queued.
    pub async fn handle<B>(&self, request: http::Request<B>) -> Response
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        transport::handle(Arc::clone(&self.0.0), request).await
    }

    /// Registers what answers messages to a service channel, `/service/...`; a last segment `*` or `**`
    /// takes all below it that have no handler of their own. A handler for the same channel is
    /// replaced.
    pub fn on_service<F, R>(&self, channel: &str, handler: F)
    where
        F: Fn(ServiceRequest) -> R + Send + Sync + 'static,
        R: Future<Output = ServiceReply> + Send + 'static,
    {
        self.shared().services.insert(channel, handler);
    }

    /// Takes a service's handler away; false if there was none.
    pub fn remove_service(&self, channel: &str) -> bool {
        self.shared().services.remove(channel)
    }

    /// Sends a message to one session alone, whatever it is subscribed to. `data` is JSON text; other
    /// UTF-8 goes as a string. False if there is no such session.
    pub fn deliver(&self, client: &ClientId, channel: &str, data: &Bytes) -> bool {
        let Some(member) =
            self.shared().registry.find(client).filter(|member| member.mailbox.end().is_none())
        else {
            return false;
        };
        let message = direct_message(channel, data, self.shared().config());
        member.mailbox.deliver_direct(Instant::now(), message);
        true
    }

    /// Ends a session from the server's side: it is sent a `/meta/disconnect` and its connect is
    /// answered with `reconnect: none`. False if there is no such session.
    pub fn disconnect(&self, client: &ClientId) -> bool {
        match self.shared().registry.find(client) {
            Some(member) if member.mailbox.end().is_none() => {
                self.shared().end(&member, End::Kicked);
                true
            }
            _ => false,
        }
    }

    /// As whom a session shook hands.
    pub fn principal(&self, client: &ClientId) -> Option<Principal> {
        self.shared().registry.find(client).map(|member| member.principal.clone())
    }

    /// Whether a request with this path is the front's: below one of [`Config::mount`].
    pub fn serves(&self, path: &str) -> bool {
        let first = path.split('/').nth(1).unwrap_or_default();
        self.shared().config().mount.iter().any(|mount| mount.trim_matches('/') == first)
    }

    /// The pages that may come.
    pub(crate) fn origins(&self) -> &OriginPolicy {
        &self.shared().config().origins
    }

    /// Gives one session times of its own, e.g. a longer life for a client that sleeps a lot. False if there is no
    /// such session.
    pub fn set_timing(&self, client: &ClientId, timing: SessionTiming) -> bool {
        let member = self.shared().registry.find(client);
        let set = |member: &Arc<Member>| {
            member.mailbox.with(|state| state.session.set_timing(Instant::now(), timing));
        };
        member.as_ref().map(set).is_some()
    }

    /// Whether one session gets its own messages (`ServerSession.broadcastToPublisher`), whatever the configuration
    /// says; channels that never do are not overruled. False if there is no such session.
    pub fn set_broadcast_to_publisher(&self, client: &ClientId, on: bool) -> bool {
        let member = self.shared().registry.find(client);
        member.map(|member| member.echo.store(on, Ordering::Relaxed)).is_some()
    }

    /// Sets what hears of sessions and messages; it replaces the one before.
    pub fn set_listener(&self, listener: impl Listener) {
        self.shared().common.set_listener(listener);
    }

    /// What the front has counted so far.
    pub fn stats(&self) -> Stats {
        self.shared().counters().snapshot(self.shared().registry.len())
    }

    /// Tells every client in Bayeux' terms that this server goes away, and resolves when their
    /// connections are gone or `window` has passed: held connects are answered with
    /// `reconnect: handshake` and an interval spread over the window, sockets close with 1001, new
    /// handshakes are refused.
    pub fn shutdown(&self, window: Duration) -> impl Future<Output = ()> + Send + use<> {
        let shared = Arc::clone(&self.0.0);
        shared.closing.store(true, Ordering::Relaxed);
        async move { sweep::shutdown(shared, window).await }
    }

    fn shared(&self) -> &Shared {
        &self.0.0
    }
}

impl Shared {
    pub(crate) fn config(&self) -> &Config {
        &self.common.config
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.common.counters
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// The last clone of the front is gone.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(crate) fn listener(&self) -> Option<Arc<dyn Listener>> {
        self.common.listener()
    }

    pub(crate) fn tell(&self, what: impl FnOnce(&dyn Listener)) {
        self.common.tell(what);
    }

    /// Ends a session and takes it out of the broker; one that the server ended is remembered for a
    /// while, so that its next connect is told.
    pub(crate) fn end(&self, member: &Member, end: End) {
        member.mailbox.finish(Instant::now(), end, member.reason());
        if end == End::Kicked {
            member.detach();
        } else {
            self.forget(member, end);
        }
    }

    /// Takes a session that is over out of the registry.
    pub(crate) fn forget(&self, member: &Member, end: End) {
        if self.registry.remove(&member.id) {
            let why = match end {
                End::Disconnected => Closed::ByClient,
                End::Kicked => Closed::ByServer,
                End::Expired => Closed::Expired,
                End::QueueFull | End::ReplayLost => Closed::QueueFull,
                End::Shutdown { .. } => Closed::Shutdown,
            };
            self.tell(|listener| listener.closed(&member.id, why));
        }
    }
}

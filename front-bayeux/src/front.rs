//! The front: what an embedding service holds.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use broker_core::{Authenticator, Broker, Principal};
use bytes::Bytes;
use http_edge::{BoxError, OriginPolicy, Paths, Problem, Response, below};

use crate::codec::id::ClientId;
use crate::config::Config;
use crate::dispatch::Dispatch;
use crate::hooks::listener::Listener;
use crate::hooks::policy::{ByRights, Policy};
use crate::hooks::service::{ServiceReply, ServiceRequest};
use crate::protocol::{End, SessionTiming};
use crate::sessions::Sessions;
use crate::sessions::member::Member;
use crate::sessions::own_messages::direct_message;
use crate::sessions::sweep;
use crate::stats::Stats;
use crate::transport::{self, Endpoint};

/// Bayeux for one broker. Cheap to clone; hand it every request below its path.
///
/// It is a [`tower` service](front::service!): whole paths as it is, [`nested`](Self::nested) below a prefix that its
/// router takes off.
#[derive(Clone)]
pub struct Front(Arc<Handle>, Paths);

/// Ends the sweep when the last clone of the front is gone; connections hold only what is inside.
struct Handle(Arc<Endpoint>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.sessions.stop();
    }
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
        let sessions = Arc::new(Sessions::new(broker, config));
        tokio::spawn(sweep::run(Arc::downgrade(&sessions), sessions.config().sweep_period));
        let dispatch = Dispatch::new(Arc::clone(&sessions), Arc::new(policy));
        Self(Arc::new(Handle(Arc::new(Endpoint::new(sessions, dispatch)))), Paths::Whole)
    }

    /// The same front for a router that takes the path before it off, as axum's `nest_service` does: at `/`, whatever
    /// [`Config::mount`] says.
    #[must_use]
    pub fn nested(&self) -> Self {
        Self(Arc::clone(&self.0), Paths::Rest)
    }

    /// Answers one request at one of [`Config::mount`] or any path below, elsewhere with 404: POST for long-polling, GET
    /// with `jsonp` for callback-polling, an upgrade for WebSocket, OPTIONS for CORS.
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
        if !self.is_at(request.uri().path()) {
            return Problem::not_found("no Bayeux endpoint is at this path").response();
        }
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
        self.endpoint().dispatch.services.insert(channel, handler);
    }

    /// Takes a service's handler away; false if there was none.
    pub fn remove_service(&self, channel: &str) -> bool {
        self.endpoint().dispatch.services.remove(channel)
    }

    /// Sends a message to one session alone, whatever it is subscribed to. `data` is JSON text; other
    /// UTF-8 goes as a string. False if there is no such session.
    pub fn deliver(&self, client: &ClientId, channel: &str, data: &Bytes) -> bool {
        let Some(member) = self.find(client).filter(|member| member.mailbox.end().is_none()) else {
            return false;
        };
        let message = direct_message(channel, data, self.sessions().config());
        member.mailbox.deliver_direct(Instant::now(), message);
        true
    }

    /// Ends a session from the server's side: it is sent a `/meta/disconnect` and its connect is
    /// answered with `reconnect: none`. False if there is no such session.
    pub fn disconnect(&self, client: &ClientId) -> bool {
        match self.find(client) {
            Some(member) if member.mailbox.end().is_none() => {
                self.sessions().end(&member, End::Kicked);
                true
            }
            _ => false,
        }
    }

    /// As whom a session shook hands.
    pub fn principal(&self, client: &ClientId) -> Option<Principal> {
        self.find(client).map(|member| member.principal.clone())
    }

    /// Whether a request with this whole path is the front's: at one of [`Config::mount`] or below.
    pub fn serves(&self, path: &str) -> bool {
        self.sessions().config().mount.iter().any(|mount| below(path, mount).is_some())
    }

    /// Whether it is the front's in the paths that it is given.
    fn is_at(&self, path: &str) -> bool {
        self.1 == Paths::Rest || self.serves(path)
    }

    /// The pages that may come.
    pub(crate) fn origins(&self) -> &OriginPolicy {
        &self.sessions().config().origins
    }

    /// Gives one session times of its own, e.g. a longer life for a client that sleeps a lot. False if there is no
    /// such session.
    pub fn set_timing(&self, client: &ClientId, timing: SessionTiming) -> bool {
        let member = self.find(client);
        let set = |member: &Arc<Member>| {
            member.mailbox.with(|state| state.session.set_timing(Instant::now(), timing));
        };
        member.as_ref().map(set).is_some()
    }

    /// Whether one session gets its own messages (`ServerSession.broadcastToPublisher`), whatever the configuration
    /// says; channels that never do are not overruled. False if there is no such session.
    pub fn set_broadcast_to_publisher(&self, client: &ClientId, on: bool) -> bool {
        let member = self.find(client);
        member.map(|member| member.echo.store(on, Ordering::Relaxed)).is_some()
    }

    /// Sets what hears of sessions and messages; it replaces the one before. The first is set before clients come: it does
    /// not hear of the subscriptions of sessions that were there before.
    pub fn set_listener(&self, listener: impl Listener) {
        self.sessions().set_listener(listener);
    }

    /// What the front has counted so far.
    pub fn stats(&self) -> Stats {
        self.sessions().counters().snapshot(self.sessions().registry.len())
    }

    /// Tells every client in Bayeux' terms that this server goes away, and resolves when their
    /// connections are gone or `window` has passed: held connects are answered with
    /// `reconnect: handshake` and an interval spread over the window, sockets close with 1001, new
    /// handshakes are refused.
    pub fn shutdown(&self, window: Duration) -> impl Future<Output = ()> + Send + use<> {
        let endpoint = Arc::clone(&self.0.0);
        endpoint.sessions.close();
        async move {
            let deadline = tokio::time::Instant::now() + window;
            endpoint.sessions.end_all().await;
            // Sockets without a session too.
            endpoint.sockets.notify_all();
            while !endpoint.counters().is_quiet() && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    fn endpoint(&self) -> &Endpoint {
        &self.0.0
    }

    fn sessions(&self) -> &Arc<Sessions> {
        &self.endpoint().sessions
    }

    fn find(&self, client: &ClientId) -> Option<Arc<Member>> {
        self.sessions().registry.find(client)
    }
}

front::service!(Front);

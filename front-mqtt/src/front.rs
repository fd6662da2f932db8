//! The front: what the server holds of MQTT.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use broker_core::{
    Action, Answer, Authenticator, Broker, LeaveReason, Left, Network, Publish, Refused, unix_ms,
};
use dashmap::DashMap;
use http_edge::{BoxError, Paths, Problem, Response, Visitor, below};
use link::Socket;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};

use crate::auth::Mechanism;
use crate::codec::{Framing, Reason};
use crate::config::Config;
use crate::protocol::{Detached, Encodings, End, Remains, Shared, Target, Will};
use crate::transport::groups;
use crate::transport::{
    self, Aftermath, Arrival, Claim, Due, Elsewhere, Farewell, Hosted, IdleLooks, KeptGroups, LeftWills,
    Nodes, Sessions, Timers, Traffic, What, Working,
};

/// MQTT on a broker. Clones are handles to the same front.
///
/// MQTT over WebSocket is a [`tower` service](front::service!): whole paths as it is, [`nested`](Self::nested) below a
/// prefix that its router takes off.
#[derive(Clone)]
pub struct Front(Arc<Inner>, Paths);

/// What connections, sessions and the front's own tasks share.
pub(crate) struct Inner {
    pub(crate) broker: Broker,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) sessions: Sessions,
    pub(crate) left_wills: LeftWills,
    pub(crate) kept_groups: KeptGroups,
    pub(crate) idle_looks: IdleLooks,
    pub(crate) working: Working,
    pub(crate) elsewhere: Elsewhere,
    pub(crate) counters: Counters,
    pub(crate) traffic: Traffic,
    mechanisms: Vec<Arc<dyn Mechanism>>,
    timers: Arc<Timers>,
    /// Places of publishes whose connections are over.
    left_publishes: Arc<Semaphore>,
    connections: AtomicUsize,
    addresses: DashMap<Network, usize>,
    closing: AtomicBool,
    gone: Notify,
    started: AtomicBool,
}

/// Sums over connections and sessions that are over; the living ones count for themselves.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) connects: Counter,
    pub(crate) handshakes_failed: Counter,
    pub(crate) sessions_refused: Counter,
    publishes_given_up: Counter,
    pub(crate) sockets: Counter,
    pub(crate) bytes_sent: Counter,
    expired: Counter,
    received: Counter,
    sent: Counter,
    dropped: Counter,
    shown: Shown,
}

/// Sums as they were last told. What passes from a living session to the sums may be missed or seen twice while it
/// does, and a counter must never go back.
#[derive(Default)]
struct Shown {
    received: Counter,
    sent: Counter,
    dropped: Counter,
    bytes_sent: Counter,
    packets_sent: Counter,
}

/// A number that only grows.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Raises it to `value`; where it is then.
    fn raise(&self, value: u64) -> u64 {
        self.0.fetch_max(value, Ordering::Relaxed).max(value)
    }
}

/// Counters and gauges of the front.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections now, handshakes included.
    pub connections: usize,
    /// Sessions now, connected or not.
    pub sessions: usize,
    /// Messages that wait in sessions, whether their clients are connected or not.
    pub messages_waiting: usize,
    /// Bytes of those.
    pub bytes_waiting: usize,
    /// Publishes to clients at QoS 1 and 2 that are not finished.
    pub messages_inflight: usize,
    /// Connections that were accepted since the start, let in or not.
    pub sockets: u64,
    /// Connections that were let in since the start.
    pub connects: u64,
    /// Connections that were not.
    pub handshakes_failed: u64,
    /// Of those, the ones whose session had no place: there were too many, of its user or address or of all, or another
    /// user had one of that name.
    pub sessions_refused: u64,
    /// Sessions whose time was over before their client came back.
    pub sessions_expired: u64,
    /// Packets of any kind from clients.
    pub packets_received: u64,
    /// Packets of any kind to clients.
    pub packets_sent: u64,
    /// Bytes from clients.
    pub bytes_received: u64,
    /// Bytes to clients.
    pub bytes_sent: u64,
    /// Publishes and subscriptions refused for lack of rights.
    pub refused_rights: u64,
    /// Publishes refused because their sender's rate was used up.
    pub rate_limited: u64,
    /// Publishes from clients.
    pub messages_received: u64,
    /// Publishes to clients, those that an outbox threw away later among them.
    pub messages_sent: u64,
    /// Messages a session's limits, or its client's, kept from it.
    pub messages_dropped: u64,
    /// Connections closed because more waited for their clients than may.
    pub closed_slow: u64,
    /// Messages that wait for a member of a shared subscription to have room.
    pub group_queued: usize,
    /// Bytes of those.
    pub group_queued_bytes: usize,
    /// Messages that no member had room for, beyond what may wait, and those that waited when the last member left.
    pub group_dropped: u64,
    /// Times that retention had dropped messages of a session before its client came for them.
    pub session_gaps: u64,
    /// QoS 2 publishes that were given up with their connections, as too many waited already for a busy broker or a
    /// policy.
    pub publishes_given_up: u64,
}

/// Counters and gauges of one client, over all connections of its session.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ClientStats {
    /// Whether it is connected now.
    pub connected: bool,
    /// Subscriptions it holds.
    pub subscriptions: usize,
    /// Publishes from it, refused ones included.
    pub received: u64,
    /// Publishes to it, those that its outbox threw away later among them.
    pub sent: u64,
    /// Messages that limits or rights kept from it.
    pub dropped: u64,
    /// Messages that wait in its session, and packets that wait for its socket.
    pub queued: usize,
    /// Bytes of those.
    pub queued_bytes: usize,
    /// Publishes to it at QoS 1 and 2 that are not finished.
    pub inflight: usize,
}

impl Front {
    /// QoS 2 publishes that may wait for a busy broker or a policy while their connections are over already: each holds
    /// its message, and no bound of connections counts it any more. One more is given up, counted, and its repeat is
    /// published.
    pub const MAX_LEFT_PUBLISHES: usize = 1_000;

    /// Puts MQTT on a broker.
    pub fn new(broker: Broker, authenticator: Arc<dyn Authenticator>, config: Config) -> Self {
        let mut shared = Shared::new(config, Some(Encodings::register(&broker)));
        shared.characters = broker.config().channel_characters;
        shared.kept_epoch = broker.kept_head().map(broker_core::MessageId::epoch);
        let inner = Inner {
            left_wills: LeftWills::of(&broker),
            kept_groups: KeptGroups::of(&broker, &shared.news),
            idle_looks: IdleLooks::default(),
            working: Working::default(),
            broker,
            authenticator,
            shared: Arc::new(shared),
            sessions: Sessions::default(),
            elsewhere: Elsewhere::default(),
            counters: Counters::default(),
            traffic: Traffic::default(),
            mechanisms: Vec::new(),
            timers: Arc::default(),
            left_publishes: Arc::new(Semaphore::new(Self::MAX_LEFT_PUBLISHES)),
            connections: AtomicUsize::new(0),
            addresses: DashMap::new(),
            closing: AtomicBool::new(false),
            gone: Notify::new(),
            started: AtomicBool::new(false),
        };
        Self(Arc::new(inner), Paths::Whole)
    }

    /// The same front for a router that takes the path before it off, as axum's `nest_service` does: at `/`, whatever
    /// [`Config::path`] says.
    #[must_use]
    pub fn nested(&self) -> Self {
        Self(self.0.clone(), Paths::Rest)
    }

    /// There are other nodes: a client that connects to one of them has no session on another any more. `life` is this
    /// node's own among them. The first call counts.
    pub fn join(&self, nodes: Arc<dyn Nodes>, life: u64) {
        self.0.elsewhere.join(nodes, life);
    }

    /// Another node tells of a client that connected there: its session here is over, unless it came here later. A connection
    /// that it still has here is closed as one that was taken over (MQTT 5.0 §3.1.4).
    pub fn claimed_elsewhere(&self, claim: &Claim) {
        self.0.claimed_elsewhere(claim);
    }

    /// Records what is known of a session here, for another node that is about to take it; resolves once that is done, failed,
    /// or there is nothing to be recorded.
    pub fn record(&self, key: &str) -> Answer<'static, ()> {
        self.0.record(key)
    }

    /// The claims of all clients that are here, to tell a node that may not have heard of them.
    pub fn claims(&self) -> Vec<Claim> {
        self.0.elsewhere.all()
    }

    /// Adds a mechanism for enhanced authentication. Only before the first connection: later it does nothing.
    #[must_use]
    pub fn with_mechanism(mut self, mechanism: Arc<dyn Mechanism>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.mechanisms.push(mechanism);
        }
        self
    }

    /// Serves a connection that was accepted on an MQTT listener. Resolves once the handshake is over; the
    /// connection lives on in a task of its own.
    pub async fn serve_tcp(&self, stream: TcpStream, peer: SocketAddr) {
        self.serve(Socket::tcp(stream, Vec::new()), Some(peer)).await;
    }

    /// Tells a client, once its CONNECT has come, why it is not let in: `reason` in CONNACK, in version 3 what it has
    /// for that. Then it closes.
    pub(crate) async fn refuse_with(&self, reason: Reason, socket: Socket, peer: SocketAddr) {
        self.start();
        let arrival = Arrival {
            socket,
            framing: Framing::Raw,
            visitor: Visitor::at(Some(peer)),
            refusal: Some(reason),
        };
        transport::accept(self.0.clone(), arrival).await;
    }

    /// As [`Front::serve_tcp`], for any stream of bytes: TLS, a Unix socket, a pipe in a test.
    pub async fn serve(&self, socket: Socket, peer: Option<SocketAddr>) {
        self.serve_as(socket, peer, None).await;
    }

    /// As [`Front::serve`], for a client whose TLS certificate names it: that counts if CONNECT offers nothing else.
    pub async fn serve_as(&self, socket: Socket, peer: Option<SocketAddr>, certificate: Option<&str>) {
        self.serve_visitor(socket, Visitor::at(peer).certified(certificate)).await;
    }

    /// As [`Front::serve`], for whoever this is.
    pub(crate) async fn serve_visitor(&self, socket: Socket, visitor: Visitor) {
        self.start();
        let arrival = Arrival { socket, framing: Framing::Raw, visitor, refusal: None };
        transport::accept(self.0.clone(), arrival).await;
    }

    /// Answers an HTTP request at [`Config::path`] or below with the upgrade to MQTT over WebSocket, or with why not;
    /// elsewhere with 404.
    pub async fn handle<B>(&self, request: http::Request<B>) -> Response
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if below(request.uri().path(), self.1.mount(&self.0.shared.config.path)).is_none() {
            return Problem::not_found("no MQTT over WebSocket is at this path").response();
        }
        self.start();
        transport::upgrade(self.0.clone(), request)
    }

    /// Where it is in whole paths.
    pub(crate) fn path(&self) -> &str {
        &self.0.shared.config.path
    }

    /// Tells every client that the server goes (DISCONNECT 0x8B) and resolves when all are gone, or after
    /// `window`. Nobody is let in from now on.
    pub async fn shutdown(&self, window: Duration) {
        let inner = &self.0;
        inner.closing.store(true, Ordering::SeqCst);
        for hosted in inner.sessions.all() {
            hosted.kick(Reason::ServerShuttingDown, None);
        }
        // Should two wait, the notice wakes one of them; the other finds out by looking.
        let all_gone = async {
            while inner.connections.load(Ordering::SeqCst) > 0 {
                _ = tokio::time::timeout(Duration::from_millis(50), inner.gone.notified()).await;
            }
        };
        _ = tokio::time::timeout(window, all_gone).await;
    }

    /// Counters and gauges. Goes over all sessions: for operators, not for a hot path.
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }

    /// One client's counters, whether it is connected or its session waits for it; `None` if it has none. Several users
    /// can have one of that name ([`Config::client_id_scope`]): then it is the one without a user, or any of them. Goes
    /// over all sessions to find one of a user.
    pub fn client(&self, client_id: &str) -> Option<ClientStats> {
        let hosted = self.0.sessions.find(client_id)?;
        let state = hosted.session.lock();
        let queued = hosted.queued_in(&state);
        Some(ClientStats {
            connected: state.online.is_some(),
            subscriptions: state.subscriptions.len(),
            received: hosted.session.received(),
            sent: hosted.sent_in(&state),
            dropped: hosted.dropped_in(&state),
            queued: queued.messages,
            queued_bytes: queued.bytes,
            inflight: state.outbound.as_ref().map_or(0, |outbound| outbound.inflight()),
        })
    }

    /// Begins what a front does without a client, on the runtime that this is called on: with a store it publishes the
    /// wills of clients that an earlier life of the server had and that do not come back. Called by
    /// [`Server`](front::Front::begin), and done by the first connection at the latest.
    pub fn begin(&self) {
        if self.0.shared.kept_epoch.is_some() {
            self.start();
        }
    }

    /// The front's own tasks begin with its first connection, so that a front can be built anywhere. They hold
    /// it weakly and end with it.
    fn start(&self) {
        if self.0.started.swap(true, Ordering::Relaxed) {
            return;
        }
        tokio::spawn(transport::keep_time(Arc::downgrade(&self.0)));
        if self.0.shared.kept_epoch.is_some() {
            tokio::spawn(transport::keep_recording(Arc::downgrade(&self.0)));
        }
        if !self.0.shared.config.sys_interval.is_zero() {
            tokio::spawn(transport::keep_reporting(Arc::downgrade(&self.0)));
        }
    }
}

front::service!(Front);

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Front").field("sessions", &self.0.sessions.len()).finish_non_exhaustive()
    }
}

/// A connection's place among those that are allowed; given back when dropped.
pub(crate) struct Admission {
    inner: Arc<Inner>,
    address: Option<Network>,
}

impl Admission {
    /// The connection is over; so many bytes went to the client.
    pub(crate) fn conclude(self, bytes_sent: u64) {
        self.inner.counters.bytes_sent.add(bytes_sent);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            self.inner.addresses.remove_if_mut(&address, |_, connections| {
                *connections = connections.saturating_sub(1);
                *connections == 0
            });
        }
        self.inner.connections.fetch_sub(1, Ordering::SeqCst);
        self.inner.gone.notify_one();
    }
}

impl Inner {
    pub(crate) fn mechanism(&self, name: &str) -> Option<&Arc<dyn Mechanism>> {
        self.mechanisms.iter().find(|mechanism| mechanism.name() == name)
    }

    pub(crate) fn timers(&self) -> &Arc<Timers> {
        &self.timers
    }

    /// Counts a connection in, or says why it is one too many.
    pub(crate) fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Admission, Reason> {
        let config = &self.shared.config;
        if self.closing.load(Ordering::SeqCst) {
            return Err(Reason::ServerShuttingDown);
        }
        let address = address.filter(|_| config.max_connections_per_address.is_some()).map(Network::of);
        if let (Some(address), Some(max)) = (address, config.max_connections_per_address) {
            let mut connections = self.addresses.entry(address).or_insert(0);
            if *connections >= max {
                return Err(Reason::QuotaExceeded);
            }
            *connections += 1;
        }
        self.connections.fetch_add(1, Ordering::SeqCst);
        let admission = Admission { inner: self.clone(), address };
        if self.connections.load(Ordering::SeqCst) > config.max_connections {
            return Err(Reason::QuotaExceeded);
        }
        Ok(admission)
    }

    /// A connection with this number in its session is over; whether whoever keeps the session is to be told.
    pub(crate) fn conclude(&self, hosted: &Arc<Hosted>, number: u32, end: End) -> bool {
        let is_kept = hosted.session.lock().kept().is_some();
        let why = leave_reason(hosted.session.kicked(number).map_or(end, End::Closed));
        let mut farewell = hosted.farewell();
        farewell.was_silent = end == End::Closed(Reason::KeepAliveTimeout);
        match hosted.session.handle_disconnected(number, end) {
            None => return false,
            Some(Detached::Ended(remains)) => {
                self.end(hosted, remains, why, &farewell);
                return false;
            }
            Some(Detached::Stays { will, will_after, holder, ends_after }) => {
                hosted.leave(Left::for_now(why), &farewell);
                if let Some(holder) = holder {
                    self.sessions.note_absent(hosted, number, holder);
                }
                hosted.subscriber.set_online(false);
                if hosted.session.is_online() {
                    // The client was back before the groups were told that it had gone.
                    hosted.subscriber.set_online(true);
                }
                self.publish_wills(will);
                let now = Instant::now();
                let ends = ends_after.and_then(|after| now.checked_add(after));
                let due = match will_after.and_then(|after| now.checked_add(after)) {
                    Some(at) => {
                        let mut state = hosted.session.lock();
                        if let Some(will) = state.will.as_mut().filter(|_| is_kept) {
                            let after = at.saturating_duration_since(now).as_millis();
                            will.due_ms = unix_ms().saturating_add(u64::try_from(after).unwrap_or(u64::MAX));
                        }
                        Some((at, What::Will { ends }))
                    }
                    None => ends.map(|at| (at, What::End)),
                };
                if let Some((at, what)) = due {
                    self.set_timer(hosted, at, what);
                }
            }
        }
        is_kept
    }

    fn set_timer(&self, hosted: &Arc<Hosted>, at: Instant, what: What) {
        let mut state = hosted.session.lock();
        if state.online.is_none() && !state.ended {
            let key = self.timers.set(at, Due { hosted: Arc::downgrade(hosted), what });
            state.away.get_or_insert_default().timer = Some(key);
        }
    }

    /// Something is due for a detached session.
    pub(crate) fn handle_due(&self, due: &Due) {
        let Some(hosted) = due.hosted.upgrade() else { return };
        match due.what {
            What::Will { ends } => {
                self.publish_wills(hosted.session.take_due_will());
                if let Some(ends) = ends {
                    self.set_timer(&hosted, ends, What::End);
                }
            }
            What::End => {
                let farewell = hosted.farewell();
                if let Some(remains) = hosted.session.handle_expired() {
                    self.counters.expired.add(1);
                    self.end(&hosted, remains, LeaveReason::Expired, &farewell);
                }
            }
        }
    }

    /// A session is over: what it leaves is seen to.
    pub(crate) fn end(
        &self,
        hosted: &Arc<Hosted>,
        mut remains: Remains,
        why: LeaveReason,
        farewell: &Farewell,
    ) {
        self.sessions.remove(hosted);
        self.elsewhere.forget(hosted.session.key(), |key| self.sessions.get(key).is_some());
        if let Some(fence) = remains.fence {
            // Its record goes behind it.
            self.publish_wills(remains.will.take());
            // A claim that was made since has seen to it.
            drop(self.broker.record_session(hosted.session.key(), fence, None));
        }
        let replay = hosted.session.lock().kept_mut().and_then(|kept| kept.replay.take());
        if let Some(replay) = replay {
            replay.abort();
        }
        hosted.leave(Left::for_good(why), farewell);
        {
            let state = hosted.session.lock();
            self.counters.received.add(hosted.session.received());
            self.counters.sent.add(state.sent);
            self.counters.dropped.add(state.dropped);
        }
        groups::end(self, hosted, &mut remains);
        self.publish_wills(remains.will);
    }

    /// What a client's arrival brought to an end.
    pub(crate) fn settle(&self, hosted: &Arc<Hosted>, aftermath: Aftermath) {
        for key in aftermath.timers {
            self.timers.cancel(key);
        }
        self.publish_wills(aftermath.wills);
        for (ended, remains) in aftermath.ended {
            let farewell = ended.farewell();
            self.end(&ended, remains, LeaveReason::TakenOver, &farewell);
        }
        self.forget(hosted, &aftermath.revoked);
    }

    /// Ends subscriptions in the broker that the session has let go of.
    pub(crate) fn forget(&self, hosted: &Arc<Hosted>, gone: &[(Target, u32)]) {
        for (target, tag) in gone {
            match &target.group {
                Some(group) => groups::leave(self, hosted, (group, &target.filter), *tag),
                None => hosted.subscriber.unsubscribe(&target.filter, *tag),
            };
        }
    }

    /// Publishes those that their clients may publish now: CONNECT was long ago, and a client whose rights were taken
    /// is to leave no last word where it may not say any.
    pub(crate) fn publish_wills(&self, wills: impl IntoIterator<Item = Will>) {
        for Will { publish, principal, key, session } in wills {
            let now = self.authenticator.renewed(&principal);
            if !now.is_some_and(|principal| principal.allows(Action::Publish, publish.channel())) {
                self.note_refused();
                continue;
            }
            if let Some(key) = key {
                let session = session.filter(|_| self.elsewhere.are_there());
                transport::publish_in_time(&self.broker, session, publish, key);
                continue;
            }
            // One that is answered later is with whoever keeps the channel.
            if let Ok(Err(Refused { publish: Some(publish), .. })) = self.broker.submit(publish).if_now() {
                self.publish_later(*publish);
            }
        }
    }

    /// A will that its client may not publish any more.
    pub(crate) fn note_refused(&self) {
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Sees to the end of a QoS 2 publish whose connection has ended before the broker or a policy let it through. One
    /// that is not published in the end is forgotten, so that its repeat is. Beyond [`Front::MAX_LEFT_PUBLISHES`] of
    /// them it is given up, and its repeat counts as a new one.
    pub(crate) fn publish_left(
        &self,
        hosted: &Arc<Hosted>,
        packet_id: Option<u16>,
        outcome: Answer<'static, bool>,
    ) {
        let Ok(place) = Arc::clone(&self.left_publishes).try_acquire_owned() else {
            packet_id.into_iter().for_each(|packet_id| hosted.session.forget_taken(packet_id));
            self.counters.publishes_given_up.add(1);
            return;
        };
        let hosted = Arc::downgrade(hosted);
        tokio::spawn(async move {
            let _place = place;
            if !outcome.await
                && let Some(packet_id) = packet_id
                && let Some(hosted) = hosted.upgrade()
            {
                hosted.session.forget_taken(packet_id);
            }
        });
    }

    /// Publishes as soon as the broker is not busy.
    pub(crate) fn publish_later(&self, publish: Publish) {
        let broker = self.broker.clone();
        tokio::spawn(async move { broker.publish_wait(publish).await });
    }

    pub(crate) fn stats(&self) -> Stats {
        let traffic = &self.traffic;
        let mut stats = Stats {
            sockets: self.counters.sockets.value(),
            sessions_expired: self.counters.expired.value(),
            packets_received: traffic.packets_received(),
            bytes_received: traffic.bytes_received(),
            bytes_sent: self.counters.bytes_sent.value(),
            connections: self.connections.load(Ordering::Relaxed),
            sessions: self.sessions.len(),
            connects: self.counters.connects.value(),
            handshakes_failed: self.counters.handshakes_failed.value(),
            sessions_refused: self.counters.sessions_refused.value(),
            refused_rights: self.shared.refused.load(Ordering::Relaxed),
            rate_limited: self.shared.limited.load(Ordering::Relaxed),
            messages_received: self.counters.received.value(),
            messages_sent: self.counters.sent.value(),
            messages_dropped: self.counters.dropped.value()
                + self.shared.groups.dropped.load(Ordering::Relaxed),
            closed_slow: self.shared.overrun.load(Ordering::Relaxed),
            group_queued: self.shared.groups.messages.load(Ordering::Relaxed),
            group_queued_bytes: self.shared.groups.bytes.load(Ordering::Relaxed),
            publishes_given_up: self.counters.publishes_given_up.value(),
            session_gaps: self.shared.gaps.load(Ordering::Relaxed),
            group_dropped: self.shared.groups.dropped.load(Ordering::Relaxed),
            ..Stats::default()
        };
        for hosted in self.sessions.all() {
            let state = hosted.session.lock();
            stats.messages_received += hosted.session.received();
            stats.messages_sent += hosted.sent_in(&state);
            stats.messages_dropped += state.dropped;
            if let Some(outbound) = &state.outbound {
                let waiting = outbound.queued();
                stats.messages_waiting += waiting.messages;
                stats.bytes_waiting += waiting.bytes;
                stats.messages_inflight += outbound.inflight();
            }
            stats.bytes_sent += state.online.as_ref().map_or(0, |online| online.outbox.passed().bytes);
        }
        stats.packets_sent = stats.messages_sent + traffic.answers();
        let shown = &self.counters.shown;
        stats.messages_received = shown.received.raise(stats.messages_received);
        stats.messages_sent = shown.sent.raise(stats.messages_sent);
        stats.messages_dropped = shown.dropped.raise(stats.messages_dropped);
        stats.bytes_sent = shown.bytes_sent.raise(stats.bytes_sent);
        stats.packets_sent = shown.packets_sent.raise(stats.packets_sent);
        stats
    }
}

/// What whoever listens to clients' lives is told of a connection's end.
fn leave_reason(end: End) -> LeaveReason {
    match end {
        End::Goodbye => LeaveReason::Client,
        End::Lost | End::Closed(Reason::KeepAliveTimeout) => LeaveReason::Lost,
        End::Closed(Reason::ServerShuttingDown) => LeaveReason::Shutdown,
        End::Closed(Reason::SessionTakenOver) => LeaveReason::TakenOver,
        End::Closed(Reason::MaximumConnectTime) => LeaveReason::Expired,
        End::Closed(Reason::NotAuthorized) => LeaveReason::NotAllowed,
        End::Closed(Reason::QuotaExceeded) => LeaveReason::TooSlow,
        End::Closed(Reason::AdministrativeAction) => LeaveReason::Closed,
        End::Closed(_) => LeaveReason::Protocol,
    }
}

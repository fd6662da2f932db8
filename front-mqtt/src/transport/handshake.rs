//! From a socket to a connection: CONNECT, who is it, CONNACK.

use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::Poll;
use std::time::{Duration, Instant};

use broker_core::{AuthError, Class, Connection as _, Outbox, Principal, steady_ms, unix_ms};
use front::RefusedLine;
use http_edge::Visitor;
use link::{Link, LinkEvent, Socket};

use super::attached::transport_of;
use super::driver::{Driver, Parts};
use super::goodbye::with_close_frame;
use super::input::{Control, Input, Whole};
use super::keeping;
use super::sessions::{Arriving, Hosted};
use crate::auth::{self, Step};
use crate::codec::{self, ConnAck, Connect, DecodeError, Dialect, Framing, Packet, Reason, Version};
use crate::error::auth_reason;
use crate::front::{Admission, Inner};
use crate::protocol::{Caller, Connection, Negotiated, Session, negotiate, session_key};

/// A connection that has said nothing yet.
pub(crate) struct Arrival {
    pub(crate) socket: Socket,
    pub(crate) framing: Framing,
    /// Where it comes from, and what the HTTP request of a WebSocket brought along.
    pub(crate) visitor: Visitor,
    /// Why it is not let in whatever it says; it is told in its own version.
    pub(crate) refusal: Option<Reason>,
}

/// Largest packet before a client is known, in bytes: identifier, will, user name and password at their
/// longest are half of it.
const MAX_HANDSHAKE_BYTES: usize = 512 << 10;

/// Longest text of a property.
const MAX_PROPERTY_BYTES: usize = 65_535;

/// Why there is no connection.
enum Refused {
    /// Nobody is there to be told.
    Gone,
    /// The client is told in the shape of this version, if there is one for it.
    Told(DecodeError, Option<Version>),
}

impl From<DecodeError> for Refused {
    fn from(error: DecodeError) -> Self {
        Self::Told(error, None)
    }
}

/// Runs the handshake and leaves the connection to a task of its own, whose future is small.
pub(crate) async fn accept(inner: Arc<Inner>, arrival: Arrival) {
    inner.counters.sockets.add(1);
    let is_refused_already = arrival.refusal.is_some();
    let admission = match arrival.refusal {
        None => inner.admit(arrival.visitor.remote().map(|remote| remote.ip())),
        Some(reason) => Err(reason),
    };
    let session = Arc::new(Session::new(inner.shared.clone()));
    let subscriber = inner.broker.attach(session.clone(), inner.shared.config.outbox);
    let outbox = subscriber.outbox();
    let local = arrival.socket.local_addr();
    let link = Link::new(arrival.socket, outbox.clone());
    let candidate = Arc::new(Hosted { session, subscriber, received_bytes: AtomicU64::new(0) });
    let input = Input::new(arrival.framing, inner.shared.config.max_packet_bytes);
    let mut handshake = Handshake {
        inner: inner.clone(),
        link,
        input,
        candidate,
        outbox,
        framing: arrival.framing,
        max_reply_bytes: u32::MAX,
        visitor: arrival.visitor,
        local,
        said: None,
    };
    let limit = inner.shared.config.handshake_timeout;
    match tokio::time::timeout(limit, handshake.connect(admission)).await {
        Ok(Ok(parts)) => {
            let Handshake { link, input, .. } = handshake;
            tokio::spawn(Driver::new(inner, parts, link, input).run());
        }
        Ok(Err(Refused::Gone)) | Err(_) => inner.counters.handshakes_failed.add(1),
        Ok(Err(Refused::Told(error, version))) => {
            inner.counters.handshakes_failed.add(1);
            if !is_refused_already {
                handshake.log(&error);
            }
            let version = version.or_else(|| handshake.input.announced_version());
            handshake.refuse(&error, version).await;
        }
    }
}

struct Handshake {
    inner: Arc<Inner>,
    link: Link,
    input: Input,
    candidate: Arc<Hosted>,
    outbox: Arc<Outbox>,
    framing: Framing,
    /// Largest packet the client takes, in bytes, once it has said so.
    max_reply_bytes: u32,
    visitor: Visitor,
    /// Where the client came to.
    local: Option<SocketAddr>,
    /// What whoever refused the client says to it.
    said: Option<String>,
}

impl Handshake {
    async fn connect(&mut self, admission: Result<Admission, Reason>) -> Result<Parts, Refused> {
        let whole = self.read(None).await?;
        // The packet is taken out of the input so that CONNECT can be read while AUTH packets follow it.
        let packet = self.input.take(&whole);
        let frame = whole.frame();
        let body = packet.get(frame.header..).unwrap_or_default();
        let connect = match codec::parse(frame, body, Version::V5) {
            Ok(Packet::Connect(connect)) => connect,
            Ok(_) => return Err(DecodeError::protocol("the first packet must be CONNECT").into()),
            Err(error) => return Err(Refused::Told(error, codec::shape_of_answer(body))),
        };
        let version = connect.version;
        self.max_reply_bytes = connect.maximum_packet_size.unwrap_or(u32::MAX);
        let admission = admission.map_err(|reason| {
            Refused::Told(DecodeError::new(reason, "too many connections"), Some(version))
        })?;
        self.enter(&connect, admission).await.map_err(|refused| match refused {
            Refused::Told(error, _) => Refused::Told(error, Some(version)),
            Refused::Gone => Refused::Gone,
        })
    }

    async fn enter(&mut self, connect: &Connect<'_>, admission: Admission) -> Result<Parts, Refused> {
        let inner = self.inner.clone();
        let config = &inner.shared.config;
        let mut terms = negotiate(connect, self.framing, config, assigned_id)?;
        let max = inner.broker.config().max_message_bytes;
        if connect.will.as_ref().is_some_and(|will| will.payload.len() > max) {
            return Err(
                DecodeError::new(Reason::PacketTooLarge, "the will is larger than a message may be").into()
            );
        }
        let characters = inner.broker.config().channel_characters;
        if terms
            .will
            .as_ref()
            .is_some_and(|will| characters.refused_in(will.publish.channel().as_str()).is_some())
        {
            let why = "the will's topic holds a control character or a non-character";
            return Err(DecodeError::new(Reason::TopicNameInvalid, why).into());
        }
        if let Some(will) = &terms.will {
            let topic = will.publish.channel().clone();
            inner.broker.check_levels(&topic.into()).map_err(|_| {
                DecodeError::new(
                    Reason::TopicNameInvalid,
                    "the will's topic has more levels than are allowed",
                )
            })?;
        }
        let (principal, last_word) = self.authenticate(connect, &terms).await?;
        if !terms.will_is_allowed(&principal) {
            return Err(DecodeError::new(Reason::NotAuthorized, "no right to publish the will").into());
        }
        let mut will = terms.will.take();
        if let Some(will) = will.as_mut().filter(|_| inner.shared.kept_epoch.is_some()) {
            will.nonce = u128::from(random()) << 64 | u128::from(random());
        }
        let last_word = connect.auth_method.map(|method| (method, &*last_word));
        let fits = |hook, gap| {
            terms.connack(config, false, last_word, hook, gap).len() <= terms.max_packet_bytes as usize
        };
        if !fits(None, None) {
            let why = "the client's maximum packet size leaves no room for CONNACK";
            return Err(DecodeError::new(Reason::PacketTooLarge, why).into());
        }
        let hook =
            principal.welcome().and_then(|welcome| std::str::from_utf8(welcome.reply.as_deref()?).ok());
        // One that has no room is left out, as the standard has it for reasons (MQTT 5.0 §3.2.2.3.10).
        let hook = hook.filter(|hook| hook.len() <= MAX_PROPERTY_BYTES && fits(Some(hook), None));
        let caller = Caller {
            kicked: None,
            since: inner.shared.tenths(Instant::now()),
            remote: self.visitor.remote().map(|remote| remote.ip().to_canonical()),
            remote_port: self.visitor.remote().map_or(0, |remote| remote.port()),
            encryption: self.visitor.encryption(),
            local: self.local,
            keep_alive_secs: connect.keep_alive_secs,
            user_agent: self.visitor.user_agent().map(Box::from),
            characters: inner.shared.characters,
        };
        let key = session_key(config.client_id_scope, &principal, &terms.client_id);
        let mut arriving = Arriving {
            caller: &caller,
            key: &key,
            candidate: &self.candidate,
            outbox: &self.outbox,
            terms: &terms,
            will,
            principal: &principal,
            now_ms: steady_ms(),
            kept: None,
        };
        if let Some(hosted) = inner.sessions.get(&key) {
            let_go_first(&hosted).await;
        }
        let refused = |_: &DecodeError| inner.counters.sessions_refused.add(1);
        arriving.kept = keeping::claim(&inner, &key, &terms, &principal, arriving.will.as_deref())
            .await
            .inspect_err(refused)?;
        let gap = arriving.kept.as_ref().and_then(|claimed| claimed.gap);
        let gap = gap.map(|gap| format!("{} {}", gap.requested, gap.first));
        let gap = gap.as_deref().filter(|gap| fits(hook, Some(gap)));
        let connack = |present| terms.connack(config, present, last_word, hook, gap.filter(|_| present));
        // An identifier that was made up here nobody else has.
        let claimed = if terms.assigned { None } else { inner.elsewhere.claim(&key, terms.clean_start) };
        let entered = inner.sessions.enter(arriving, connack).map_err(|reason| {
            inner.counters.sessions_refused.add(1);
            let why = match reason {
                Reason::ClientIdentifierNotValid => "another user has this client identifier",
                _ => "no place for another session",
            };
            DecodeError::new(reason, why)
        })?;
        inner.settle(&entered.hosted, entered.aftermath);
        if let Some(claimed) = claimed {
            claimed.tell();
        }
        if !Arc::ptr_eq(&entered.hosted, &self.candidate) {
            entered.hosted.subscriber.set_online(true);
        }
        keeping::arrive(&inner, &entered.hosted, entered.connection, entered.is_restored);
        entered.hosted.subscriber.join();
        for filter in principal.welcome().map_or(&[][..], |welcome| &welcome.subscribe) {
            // One that cannot be is one that an operator could not have either.
            let _ = entered.hosted.subscribe(filter);
        }
        let method = connect.auth_method.map(Into::into);
        let mut connection = Connection::new(
            Instant::now(),
            entered.hosted.session.clone(),
            entered.connection,
            principal,
            &terms,
            method,
        );
        connection.expire(Instant::now(), unix_ms());
        inner.counters.connects.add(1);
        let traffic = inner.traffic.of(&entered.hosted);
        traffic.packets_received.add(1);
        traffic.answers.add(1);
        Ok(Parts { connection, hosted: entered.hosted, outbox: self.outbox.clone(), admission })
    }

    /// Who is it? With the mechanism's last word, if one was used.
    async fn authenticate(
        &mut self,
        connect: &Connect<'_>,
        terms: &Negotiated,
    ) -> Result<(Principal, Vec<u8>), Refused> {
        let Some(method) = connect.auth_method else {
            let visitor = &self.visitor;
            let mut credentials = visitor.credentials("mqtt");
            credentials.client_id = Some(&terms.client_id);
            (credentials.transport, credentials.key) =
                (transport_of(self.framing), Some(self.candidate.subscriber.key()));
            // What CONNECT says is the client's own word; the request's headers may be a browser's habit.
            credentials.user = connect.user.or(credentials.user);
            if connect.password.is_some() {
                (credentials.user, credentials.password) = (connect.user, connect.password);
                credentials.token = None;
            }
            let inner = self.inner.clone();
            let mut outcome = inner.authenticator.authenticate(credentials).await;
            if credentials.token.is_some() {
                for token in visitor.more_tokens() {
                    let Err(AuthError::Invalid(_)) = outcome else { break };
                    let mut next = credentials;
                    next.token = Some(token);
                    outcome = inner.authenticator.authenticate(next).await;
                }
            }
            return match outcome {
                Ok(principal) => Ok((principal, Vec::new())),
                Err(error) => {
                    let reason = auth_reason(&error);
                    self.note_said(error);
                    Err(DecodeError::new(reason, "not let in").into())
                }
            };
        };
        let inner = self.inner.clone();
        let Some(mechanism) = inner.mechanism(method) else {
            return Err(DecodeError::new(
                Reason::BadAuthenticationMethod,
                "authentication method is not known here",
            )
            .into());
        };
        let mut exchange = mechanism.begin(&terms.client_id);
        let mut data: Vec<u8> = connect.auth_data.unwrap_or_default().into();
        for _ in 0..auth::MAX_STEPS {
            match exchange.step(&data).await {
                Step::Done { principal, data } => {
                    // The authenticator was not asked, and neither was the policy behind it.
                    let Some(policy) = inner.broker.policy() else { return Ok((principal, data)) };
                    let mut credentials = self.visitor.credentials("mqtt");
                    (credentials.user, credentials.password) = (connect.user, None);
                    credentials.client_id = Some(&terms.client_id);
                    (credentials.transport, credentials.key) =
                        (transport_of(self.framing), Some(self.candidate.subscriber.key()));
                    return match policy.connect(&credentials, principal).await {
                        Ok(principal) => Ok((principal, data)),
                        Err(error) => {
                            let reason = auth_reason(&error);
                            self.note_said(error);
                            Err(DecodeError::new(reason, "not let in").into())
                        }
                    };
                }
                Step::Failed(error) => {
                    return Err(DecodeError::new(auth_reason(&error), "authentication failed").into());
                }
                Step::Continue(challenge) => {
                    let frame = codec::auth(
                        self.framing,
                        Reason::ContinueAuthentication,
                        method,
                        Some(&challenge).filter(|data| !data.is_empty()).map(|data| &data[..]),
                    );
                    self.outbox.send(frame, Class::Control);
                    data = self.read_auth(method).await?;
                }
            }
        }
        Err(DecodeError::new(Reason::NotAuthorized, "authentication took too many steps").into())
    }

    fn note_said(&mut self, error: AuthError) {
        if let AuthError::Denied(why) = error {
            self.said = Some(why);
        }
    }

    /// The client's next word; it may send nothing but AUTH and DISCONNECT now (MQTT 5.0 §4.12).
    async fn read_auth(&mut self, method: &str) -> Result<Vec<u8>, Refused> {
        let whole = self.read(Some(Version::V5)).await?;
        let packet = self.input.take(&whole);
        let body = packet.get(whole.frame().header..).unwrap_or_default();
        match codec::parse(whole.frame(), body, Version::V5)? {
            Packet::Auth(auth) if auth.method != Some(method) => {
                Err(DecodeError::protocol("authentication method is not the one of CONNECT").into())
            }
            Packet::Auth(auth) if auth.reason == Reason::ContinueAuthentication => {
                Ok(auth.data.unwrap_or_default().into())
            }
            Packet::Disconnect(_) => Err(Refused::Gone),
            _ => Err(DecodeError::protocol("only AUTH and DISCONNECT may come before CONNACK").into()),
        }
    }

    /// The next whole packet.
    async fn read(&mut self, version: Option<Version>) -> Result<Whole, Refused> {
        let max = self.inner.shared.config.max_packet_bytes.min(MAX_HANDSHAKE_BYTES);
        loop {
            while let Some(control) = self.input.unframe() {
                match control {
                    Control::Reply(frame) => {
                        self.outbox.send(frame, Class::Control);
                    }
                    Control::Close(frame) => {
                        self.outbox.send_last(frame);
                        return Err(Refused::Gone);
                    }
                }
            }
            if let Some(whole) = self.input.next(version, max)? {
                return Ok(whole);
            }
            let Self { link, input, inner, .. } = self;
            // How long it may take is bounded by the handshake's own limit.
            let event = poll_fn(|cx| match link.poll_next(input.buffer(), cx) {
                Poll::Ready(event) => Poll::Ready(Ok(event)),
                Poll::Pending => match input.wait_for_rest(&inner.shared.config.intake, Instant::now(), cx) {
                    Ok(_) => Poll::Pending,
                    Err(error) => Poll::Ready(Err(error)),
                },
            });
            match event.await? {
                LinkEvent::Read(bytes) => {
                    self.inner.traffic.of(&self.candidate).bytes_received.add(bytes as u64);
                }
                LinkEvent::Woken => {}
                LinkEvent::Eof | LinkEvent::Failed(_) | LinkEvent::Closed(_) | LinkEvent::Stalled => {
                    return Err(Refused::Gone);
                }
            }
        }
    }

    /// Nothing of CONNECT is in the line: a name that nothing vouches for may be a token.
    fn log(&self, error: &DecodeError) {
        let reason = format!("{:?}", error.reason);
        let mut line = RefusedLine::default();
        line.protocol = "mqtt";
        line.reason = &reason;
        line.detail = Some(error.detail);
        line.remote = self.visitor.remote().map(|remote| remote.ip());
        line.log();
    }

    /// CONNACK with the reason, where the version has a code for it, then the close.
    async fn refuse(self, error: &DecodeError, version: Option<Version>) {
        let Self { link, input, framing, candidate, outbox, inner, max_reply_bytes, said, .. } = self;
        let detail = said.as_deref().unwrap_or(error.detail);
        drop(input);
        let last = version.map_or_else(bytes::Bytes::new, |version| {
            let dialect = Dialect { version, framing };
            let reason_string = inner.shared.config.reason_strings.then_some(detail);
            let connack = ConnAck { reason_string, ..ConnAck::only(error.reason) };
            let full = codec::connack(dialect, &connack);
            if full.len() > max_reply_bytes as usize {
                return codec::connack(dialect, &ConnAck::only(error.reason));
            }
            full
        });
        let last = with_close_frame(framing, last, error.reason, Some(detail));
        inner.traffic.of(&candidate).answers.add(u64::from(!last.is_empty()));
        outbox.send_last(last);
        drop(candidate);
        link.finish(inner.shared.config.linger).await;
        inner.counters.bytes_sent.add(outbox.passed().bytes);
    }
}

/// Before a session is taken over: a client that says goodbye and connects again at once is not to find its will
/// published and its last messages lost because its new connection was served first.
async fn let_go_first(hosted: &Hosted) {
    let Some(connection) = hosted.session.await_connection() else { return };
    for _ in 0..MAX_TAKEOVER_WAITS {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if !hosted.session.is_awaiting(connection) {
            return;
        }
    }
}

/// A connection that has not handled its input by then is taken over as it is.
const MAX_TAKEOVER_WAITS: usize = 50;

fn random() -> u64 {
    RandomState::new().hash_one(Instant::now())
}

/// An identifier for a client that gave none, hard to guess because it is all that is needed to take the
/// session over.
fn assigned_id() -> Arc<str> {
    let digits = format!("{:016x}{:016x}", random(), random());
    let mut id = String::from("auto");
    let mut rest = digits.as_str();
    // Grouped as people know it from UUIDs.
    for group in [8, 4, 4, 4, 12] {
        let (head, tail) = rest.split_at(group);
        id.push('-');
        id.push_str(head);
        rest = tail;
    }
    id.into()
}

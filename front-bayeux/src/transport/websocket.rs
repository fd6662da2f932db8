//! One WebSocket: frames in, replies and events out through the outbox of its session.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::websocket::handshake::{self, accept};
use ::websocket::{Assembler, CloseCode, Control, Incoming, Limits, OpCode, encode};
use broker_core::{Class, CloseReason, Credentials};
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http_edge::{Body, Peer, Problem, Response, credentials_from, upgraded};
use hyper::upgrade::OnUpgrade;
use link::{Event, Link, Unfinished};

use super::cookie;
use super::endpoint::Endpoint;
use crate::codec::message::{Bounds, ParseError};
use crate::codec::reply;
use crate::config::Transport;
use crate::dispatch::caller::{Caller, SocketCaller, UserAgent};
use crate::error::RequestFault;
use crate::protocol::End;
use crate::sessions::socket::{Lost, Socket};
use crate::sessions::unwritten::carrying;
use crate::stats::Gauge;

/// How long a goodbye may take to be written and answered.
const LINGER: Duration = Duration::from_secs(2);

/// How long a client whose session was ended here may take to close its socket itself.
const TIME_TO_LEAVE: Duration = Duration::from_secs(1);

/// A shorter interval between pings would only make load.
const MIN_PING_INTERVAL: Duration = Duration::from_millis(100);

/// Answers an upgrade; the connection then lives in a task of its own.
pub(super) fn upgrade(endpoint: &Arc<Endpoint>, parts: &mut Parts) -> Response {
    let config = endpoint.config();
    if !config.transports.contains(&Transport::WebSocket) {
        return RequestFault::TransportDenied.problem().response();
    }
    let protocol: Option<&str> = config.websocket.protocol.as_deref();
    let options = handshake::Options {
        protocols: protocol.as_slice(),
        protocol_required: protocol.is_some(),
        deflate: config.websocket.deflate,
    };
    let accepted = match accept(parts, &options) {
        Ok(accepted) => accepted,
        Err(refused) => {
            endpoint.counters().malformed();
            let mut response = Problem::new(refused.status, "invalid_handshake", refused.reason).response();
            response.headers_mut().extend(refused.response().into_parts().0.headers);
            return response;
        }
    };
    let Some(on) = parts.extensions.remove::<OnUpgrade>() else {
        return Problem::new(http::StatusCode::NOT_IMPLEMENTED, "no_upgrade", "this server does no upgrades")
            .response();
    };
    let visitor = Visitor::read(endpoint, parts);
    let (endpoint, deflate) = (Arc::clone(endpoint), accepted.deflate);
    tokio::spawn(async move {
        // A client that goes away before the 101 is nobody's loss.
        if let Ok(socket) = upgraded(on).await {
            // A task of its own: this future's state is as large as its largest phase.
            tokio::spawn(Connection::open(endpoint, socket, deflate, visitor).run());
        }
    });
    accepted.response.map(|()| Body::empty())
}

/// What the upgrade request told about the client.
struct Visitor {
    remote: Option<SocketAddr>,
    browser: Option<Box<str>>,
    user_agent: Option<Box<str>>,
    token: Option<Box<str>>,
    /// More cookies of the token's name.
    more_tokens: Vec<Box<str>>,
    basic: Option<(Box<str>, Box<[u8]>)>,
    cross_origin: Option<Box<str>>,
}

impl Visitor {
    fn read(endpoint: &Endpoint, parts: &Parts) -> Box<Self> {
        let found = credentials_from(parts, &endpoint.config().token_sources);
        Box::new(Self {
            remote: parts.extensions.get::<Peer>().map(|peer| peer.0),
            browser: cookie::read(&parts.headers, &endpoint.config().cookie).next().map(Box::from),
            user_agent: UserAgent::In(&parts.headers).text().map(Box::from),
            token: found.token.as_deref().map(Box::from),
            more_tokens: found.more_tokens.iter().map(|token| (**token).into()).collect(),
            cross_origin: found.cross_origin.map(Box::from),
            basic: found.user.as_deref().zip(found.password.as_deref()).map(|(u, p)| (u.into(), p.into())),
        })
    }

    fn credentials(&self) -> Credentials<'_> {
        Credentials {
            user: self.basic.as_ref().map(|(user, _)| &**user),
            password: self.basic.as_ref().map(|(_, password)| &**password),
            token: self.token.as_deref(),
            remote: self.remote,
            cross_origin: self.cross_origin.as_deref(),
            protocol: "bayeux",
            ..Credentials::default()
        }
    }
}

/// An open socket.
struct Connection {
    endpoint: Arc<Endpoint>,
    visitor: Box<Visitor>,
    link: Link,
    input: BytesMut,
    assembler: Assembler,
    /// The message that is not whole yet.
    unfinished: Unfinished,
    caller: SocketCaller,
    last_read: Instant,
    /// When the last ping went out.
    last_ping: Instant,
    /// When the socket of a session that was ended here is closed.
    leaves_at: Option<Instant>,
    /// Since when no session uses it.
    sessionless_since: Option<Instant>,
}

/// Why the loop ended.
enum Ending {
    /// Nobody is there.
    Gone,
    /// A close frame is on its way.
    Closing,
    /// The client did not read what it was sent.
    Overflow,
}

impl Connection {
    fn open(
        endpoint: Arc<Endpoint>,
        socket: link::Socket,
        deflate: Option<::websocket::DeflateParams>,
        visitor: Box<Visitor>,
    ) -> Self {
        let config = endpoint.config();
        let now = Instant::now();
        let unborn = endpoint.sessions.unborn(now);
        let outbox = unborn.subscriber.outbox();
        let max = config.websocket.max_message_bytes;
        let limits = Limits { max_frame_bytes: max, max_message_bytes: max };
        let socket_of_session =
            Socket::new(Arc::clone(&outbox), endpoint.sockets.number(), deflate.is_some());
        Self {
            visitor,
            link: Link::new(socket, outbox),
            input: BytesMut::new(),
            assembler: Assembler::new(limits, deflate),
            unfinished: Unfinished::default(),
            caller: SocketCaller {
                unborn: Some(unborn),
                socket: socket_of_session,
                member: None,
                held_until: None,
            },
            last_read: now,
            last_ping: now,
            leaves_at: None,
            sessionless_since: Some(now),
            endpoint,
        }
    }

    #[allow(clippy::manual_async_fn, reason = "the future of an `async fn` holds the connection twice")]
    fn run(mut self) -> impl Future<Output = ()> + Send {
        async move {
            let endpoint = Arc::clone(&self.endpoint);
            let _gauge = Gauge::new(&endpoint.counters().websockets);
            let number = self.caller.socket.number;
            endpoint.sockets.insert(number, Arc::clone(&self.caller.socket.outbox));
            let ending = self.exchange().await;
            let lost = match ending {
                Ending::Overflow => Lost::Session,
                Ending::Gone => Lost::Socket,
                Ending::Closing => Lost::Nothing,
            };
            if let Some(member) = self.caller.member.take() {
                if lost == Lost::Session {
                    endpoint.counters().overflowed();
                    member.mailbox.warn("its socket was full and its session is over");
                }
                member.mailbox.unbind(Instant::now(), number, lost);
            }
            endpoint.sockets.remove(number);
            if matches!(ending, Ending::Closing) {
                // Boxed, or every open socket would hold the room that its goodbye needs.
                Box::pin(self.link.finish(LINGER)).await;
            }
        }
    }

    async fn exchange(&mut self) -> Ending {
        loop {
            let deadline = self.deadline();
            let event = tokio::select! {
                event = self.link.next(&mut self.input) => Some(event),
                () = wait(deadline) => None,
                () = poll_fn(|cx| self.unfinished.poll_shed(cx)) => {
                    return self.give_up(CloseCode::Again, "no room for unfinished messages");
                }
            };
            match event {
                Some(Event::Read(_)) => {
                    self.last_read = Instant::now();
                    if let Some(ending) = self.read().await {
                        return ending;
                    }
                    match self.unfinished_bytes() {
                        Some(bytes) => {
                            self.unfinished.hold(&self.endpoint.config().intake, bytes, self.last_read);
                        }
                        None => self.unfinished.finish(),
                    }
                }
                Some(Event::Woken) => self.write(),
                None if self.is_to_leave() => {
                    let reason = self.caller.member.as_ref().and_then(|member| member.reason());
                    return self.close(CloseCode::Normal, reason.unwrap_or("session ended by the server"));
                }
                None if self.is_late() => {
                    return self.give_up(CloseCode::Policy, "the message came too slowly");
                }
                None if self.is_sessionless() => {
                    self.endpoint.counters().no_handshake();
                    return self.close(CloseCode::Policy, "no handshake");
                }
                None if self.is_idle() => return self.close(CloseCode::Normal, "idle timeout"),
                None => {
                    self.ping();
                    self.write();
                }
                Some(Event::Eof | Event::Failed(_)) => return Ending::Gone,
                Some(Event::Stalled | Event::Closed(CloseReason::Overflow)) => return Ending::Overflow,
                Some(Event::Closed(_)) => return Ending::Closing,
            }
            if self.endpoint.sessions.is_closing() {
                self.write();
                return self.close(CloseCode::Away, "server is shutting down");
            }
        }
    }

    /// Handles all messages that have arrived.
    async fn read(&mut self) -> Option<Ending> {
        loop {
            match self.assembler.feed(&mut self.input) {
                Ok(None) => return None,
                Ok(Some(Incoming::Text(text))) => {
                    self.unfinished.finish();
                    if let Err((code, reason)) = Box::pin(self.handle(text)).await {
                        self.endpoint.counters().malformed();
                        return Some(self.close(code, &reason));
                    }
                }
                Ok(Some(Incoming::Binary(_) | Incoming::BinaryPart(_))) => {
                    return Some(self.close(CloseCode::Unsupported, "messages are text"));
                }
                Ok(Some(Incoming::Ping(payload))) => {
                    self.caller.socket.outbox.send(encode::pong(&payload), Class::Control);
                }
                Ok(Some(Incoming::Pong)) => {}
                Ok(Some(Incoming::Close { code, .. })) => {
                    return Some(self.close(code.unwrap_or(CloseCode::Status), ""));
                }
                Err(violation) => {
                    self.endpoint.counters().malformed();
                    return Some(self.close(violation.close_code, violation.reason));
                }
            }
        }
    }

    /// One text message: a batch.
    async fn handle(&mut self, text: Bytes) -> Result<(), (CloseCode, String)> {
        let config = self.endpoint.config();
        let bounds = Bounds { max_depth: config.max_depth, max_messages: config.max_batch_messages };
        let messages = super::read_batch(&text, bounds)
            .await
            .map_err(|error| (close_code(&error), error.to_string()))?;
        let mut caller = Caller {
            transport: Transport::WebSocket,
            browser: self.visitor.browser.as_deref(),
            more_browsers: &[],
            remote: self.visitor.remote,
            user_agent: UserAgent::Known(self.visitor.user_agent.as_deref()),
            credentials: self.visitor.credentials(),
            more_tokens: &self.visitor.more_tokens,
            socket: Some(&mut self.caller),
        };
        let outcome = self.endpoint.dispatch.handle_batch(&text, &messages, &mut caller).await;
        if outcome.has_objects() {
            let frame = carrying(reply::text_frame(outcome.objects()), outcome.unwritten);
            self.caller.socket.outbox.send(frame, Class::Control);
        }
        Ok(())
    }

    /// Writes what the session has to say now, and forgets a connect that was answered or went to
    /// another connection.
    fn write(&mut self) {
        if self.leaves_at.is_none() && self.is_over() {
            self.leaves_at = Some(Instant::now() + TIME_TO_LEAVE);
        }
        self.caller.held_until = self.caller.member.as_ref().and_then(|member| {
            let now = Instant::now();
            member.mailbox.write(now);
            member.mailbox.with(|state| {
                state.is_bound_to(self.caller.socket.number).then(|| state.session.held_until()).flatten()
            })
        });
    }

    fn close(&self, code: CloseCode, reason: &str) -> Ending {
        self.caller.socket.outbox.send_last(encode::close(code, reason));
        Ending::Closing
    }

    /// As [`Self::close`], for a client that has not finished a message; what came of it is let go of at once.
    fn give_up(&mut self, code: CloseCode, reason: &str) -> Ending {
        self.unfinished.finish();
        self.assembler.finish();
        self.input = BytesMut::new();
        self.close(code, reason)
    }

    fn deadline(&mut self) -> Option<Instant> {
        if self.has_session() {
            self.sessionless_since = None;
        } else {
            self.sessionless_since.get_or_insert_with(Instant::now);
        }
        let idle = self.idle_timeout().map(|timeout| self.last_read + timeout);
        let late = self.unfinished_bytes();
        let late = late.and_then(|bytes| self.unfinished.due(&self.endpoint.config().intake, bytes));
        let sessionless = self.sessionless_until();
        let times = [self.caller.held_until, idle, self.next_ping(), self.leaves_at, late, sessionless];
        times.into_iter().flatten().min()
    }

    /// What came of a message that is not whole yet.
    fn unfinished_bytes(&self) -> Option<usize> {
        let message = self.assembler.unfinished_bytes();
        (message.is_some() || !self.input.is_empty()).then(|| message.unwrap_or(0) + self.input.len())
    }

    fn is_late(&self) -> bool {
        let intake = &self.endpoint.config().intake;
        let bytes = self.unfinished_bytes();
        bytes.is_some_and(|bytes| self.unfinished.is_late(intake, bytes, Instant::now()))
    }

    /// Whether the server ended the session long enough ago. Meanwhile the client may have begun another.
    fn is_to_leave(&mut self) -> bool {
        let over = self.is_over();
        if !over {
            self.leaves_at = None;
        }
        self.leaves_at.is_some_and(|at| at <= Instant::now())
    }

    /// Whether a session uses the socket.
    fn has_session(&self) -> bool {
        self.caller.member.as_ref().is_some_and(|member| member.mailbox.end().is_none())
    }

    /// When a socket without a session is closed.
    fn sessionless_until(&self) -> Option<Instant> {
        let config = self.endpoint.config();
        let timeout = config.websocket.handshake_timeout;
        let since = self.sessionless_since.filter(|_| !timeout.is_zero())?;
        let since = if config.publish_without_session { since.max(self.last_read) } else { since };
        Some(since + timeout)
    }

    fn is_sessionless(&self) -> bool {
        self.sessionless_until().is_some_and(|until| until <= Instant::now())
    }

    fn is_over(&self) -> bool {
        self.caller.member.as_ref().is_some_and(|member| member.mailbox.end() == Some(End::Kicked))
    }

    /// When a client from which nothing came is to be asked whether it is there.
    fn next_ping(&self) -> Option<Instant> {
        let interval =
            self.endpoint.config().websocket.ping_interval.filter(|interval| !interval.is_zero())?;
        Some(self.last_read.max(self.last_ping) + interval.max(MIN_PING_INTERVAL))
    }

    fn ping(&mut self) {
        let now = Instant::now();
        if self.next_ping().is_some_and(|at| at <= now) {
            self.last_ping = now;
            self.caller
                .socket
                .outbox
                .send(encode::frame(OpCode::Control(Control::Ping), &[]), Class::Control);
        }
    }

    fn idle_timeout(&self) -> Option<Duration> {
        Some(self.endpoint.config().websocket.idle_timeout).filter(|timeout| !timeout.is_zero())
    }

    fn is_idle(&self) -> bool {
        self.idle_timeout().is_some_and(|timeout| self.last_read.elapsed() >= timeout)
    }
}

/// What a socket is closed with that sent no messages; 1011 is what CometD Java uses.
fn close_code(error: &ParseError) -> CloseCode {
    match error {
        ParseError::TooMany { .. } => CloseCode::Size,
        _ => CloseCode::Error,
    }
}

async fn wait(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::mailbox::Mailbox;

    fn future_bytes<F: Future>(_: impl FnOnce(Connection) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_socket_is_small() {
        assert!(future_bytes(Connection::run) <= 640, "{}", future_bytes(Connection::run));
        assert!(size_of::<Mailbox>() <= 400, "{}", size_of::<Mailbox>());
    }
}

//! One WebSocket: frames in, replies and events out through the outbox of its session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::websocket::handshake;
use ::websocket::{CloseCode, Limits};
use broker_core::Class;
use bytes::Bytes;
use http::HeaderValue;
use http::request::Parts;
use http_edge::websocket::{Ending, Heard, LINGER, NoUpgrade, Upgrade, WebSocket};
use http_edge::{Response, Visitor};

use super::cookie;
use super::endpoint::Endpoint;
use crate::codec::message::{Bounds, ParseError};
use crate::codec::reply;
use crate::config::Transport;
use crate::dispatch;
use crate::dispatch::caller::{Caller, SocketCaller, UserAgent};
use crate::error::RequestFault;
use crate::protocol::End;
use crate::sessions::socket::{Lost, Socket};
use crate::sessions::unwritten::carrying;
use crate::stats::Gauge;

/// How long a client whose session was ended here may take to close its socket itself.
const TIME_TO_LEAVE: Duration = Duration::from_secs(1);

/// Answers an upgrade; the connection then lives in a task of its own.
pub(super) fn upgrade(endpoint: &Arc<Endpoint>, parts: &mut Parts, id: &HeaderValue) -> Response {
    let config = endpoint.config();
    if !config.transports.contains(&Transport::WebSocket) {
        return RequestFault::TransportDenied.problem().response();
    }
    let protocol: Option<&str> = config.websocket.protocol.as_deref();
    let mut options = handshake::Options::default();
    options.protocols = protocol.as_slice();
    options.protocol_required = protocol.is_some();
    options.deflate = config.websocket.deflate;
    let upgrade = match Upgrade::accept(parts, &options) {
        Ok(upgrade) => upgrade,
        Err(refused) => {
            if let NoUpgrade::Refused(_) = refused {
                endpoint.counters().malformed();
            }
            return refused.response("GET");
        }
    };
    let opener = Opener::read(endpoint, parts, id);
    let (endpoint, deflate) = (Arc::clone(endpoint), upgrade.deflate());
    upgrade.then(move |socket| {
        tokio::spawn(OpenSocket::open(endpoint, socket, deflate, opener).run());
    })
}

/// What the upgrade request told about the client.
struct Opener {
    visitor: Visitor,
    browser: Option<Box<str>>,
    /// What it was answered by; until there is a session, which has a name of its own.
    request: Option<HeaderValue>,
}

impl Opener {
    /// Takes the request but for its method: of an upgrade that is accepted nothing else is needed.
    fn read(endpoint: &Endpoint, parts: &mut Parts, id: &HeaderValue) -> Box<Self> {
        let config = endpoint.config();
        let mut rest = http::Request::new(()).into_parts().0;
        rest.method.clone_from(&parts.method);
        let parts = std::mem::replace(parts, rest);
        let browser = cookie::read(&parts.headers, &config.cookie).next().map(Box::from);
        let visitor = Visitor::of(&parts, &config.token_sources).with_request(parts);
        Box::new(Self { visitor, browser, request: Some(id.clone()) })
    }
}

/// An open socket.
struct OpenSocket {
    endpoint: Arc<Endpoint>,
    opener: Box<Opener>,
    socket: WebSocket,
    caller: SocketCaller,
    /// When the socket of a session that was ended here is closed.
    leaves_at: Option<Instant>,
    /// Since when no session uses it.
    sessionless_since: Option<Instant>,
}

impl OpenSocket {
    fn open(
        endpoint: Arc<Endpoint>,
        socket: link::Socket,
        deflate: Option<::websocket::DeflateParams>,
        opener: Box<Opener>,
    ) -> Self {
        let config = endpoint.config();
        let now = Instant::now();
        let unborn = endpoint.sessions.unborn(now);
        let outbox = unborn.subscriber.outbox();
        let max = config.websocket.max_message_bytes;
        let mut limits = Limits::default();
        limits.max_frame_bytes = max;
        limits.max_message_bytes = max;
        let socket_of_session =
            Socket::new(Arc::clone(&outbox), endpoint.sockets.number(), deflate.is_some());
        Self {
            opener,
            socket: WebSocket::new(socket, outbox, limits, deflate),
            caller: SocketCaller {
                unborn: Some(unborn),
                socket: socket_of_session,
                member: None,
                held_until: None,
            },
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
                _ => Lost::Nothing,
            };
            if let Some(member) = self.caller.member.take() {
                if lost == Lost::Session {
                    endpoint.counters().overflowed();
                    member.mailbox.warn("its socket was full and its session is over");
                }
                member.mailbox.unbind(Instant::now(), number, lost);
            }
            endpoint.sockets.remove(number);
            if ending.is_told() {
                // Boxed, or every open socket would hold the room that its goodbye needs.
                Box::pin(self.socket.finish(LINGER)).await;
            }
        }
    }

    async fn exchange(&mut self) -> Ending {
        loop {
            let due = self.deadline();
            match self.socket.hear(&self.endpoint.terms, due).await {
                Heard::Text(text) => {
                    if let Err((code, reason)) = Box::pin(self.handle(text)).await {
                        if code != CloseCode::Normal {
                            self.endpoint.counters().malformed();
                        }
                        return self.socket.close(code, &reason);
                    }
                }
                Heard::Binary(_) => return self.socket.close(CloseCode::Unsupported, "messages are text"),
                Heard::Woken | Heard::Ping(_) | Heard::Pong(_) => self.write(),
                Heard::Due if self.is_to_leave() => {
                    let reason = self.caller.member.as_ref().and_then(|member| member.reason());
                    let reason = reason.unwrap_or("session ended by the server");
                    return self.socket.close(CloseCode::Normal, reason);
                }
                Heard::Due if self.is_sessionless() => {
                    self.endpoint.counters().no_handshake();
                    return self.socket.close(CloseCode::Policy, "no handshake");
                }
                Heard::Due => self.write(),
                Heard::Ended(ending) => {
                    if let Ending::Fault(_) = ending {
                        self.endpoint.counters().malformed();
                    }
                    return ending;
                }
            }
            if self.endpoint.sessions.is_closing() {
                self.write();
                return self.socket.close(CloseCode::Away, "server is shutting down");
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
        if self.caller.member.is_some() {
            self.opener.request = None;
        }
        let Opener { visitor, browser, request } = &*self.opener;
        if visitor.lacks_request() && dispatch::shakes_hands(&messages) {
            // Who it is was seen in the request, which nobody kept. A new connection brings a new one.
            return Err((CloseCode::Normal, "shake hands on a new connection".to_owned()));
        }
        let mut caller = Caller {
            transport: Transport::WebSocket,
            browser: browser.as_deref(),
            more_browsers: &[],
            remote: visitor.remote(),
            encryption: visitor.encryption(),
            user_agent: UserAgent::Known(visitor.user_agent()),
            request: request.as_ref(),
            credentials: visitor.credentials("bayeux"),
            more_tokens: visitor.more_tokens(),
            lacks_request: visitor.lacks_request(),
            socket: Some(&mut self.caller),
        };
        let outcome = self.endpoint.dispatch.handle_batch(&text, &messages, &mut caller).await;
        if outcome.shook_hands {
            self.opener.visitor.forget_request();
        }
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

    fn deadline(&mut self) -> Option<Instant> {
        if self.has_session() {
            self.sessionless_since = None;
        } else {
            self.sessionless_since.get_or_insert_with(Instant::now);
        }
        let times = [self.caller.held_until, self.leaves_at, self.sessionless_until()];
        times.into_iter().flatten().min()
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
        let since = if config.publish_without_session { since.max(self.socket.last_read()) } else { since };
        Some(since + timeout)
    }

    fn is_sessionless(&self) -> bool {
        self.sessionless_until().is_some_and(|until| until <= Instant::now())
    }

    fn is_over(&self) -> bool {
        self.caller.member.as_ref().is_some_and(|member| member.mailbox.end() == Some(End::Kicked))
    }
}

/// What a socket is closed with that sent no messages; 1011 is what CometD Java uses.
fn close_code(error: &ParseError) -> CloseCode {
    match error {
        ParseError::TooMany { .. } => CloseCode::Size,
        _ => CloseCode::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::mailbox::Mailbox;

    fn future_bytes<F: Future>(_: impl FnOnce(OpenSocket) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_socket_is_small() {
        assert!(future_bytes(OpenSocket::run) <= 640, "{}", future_bytes(OpenSocket::run));
        assert!(size_of::<Mailbox>() <= 408, "{}", size_of::<Mailbox>());
    }
}

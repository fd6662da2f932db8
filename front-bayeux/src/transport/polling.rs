//! What both polling transports do with a request's messages: handle them, hold the connect, answer.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use http_edge::{Body, Peer, Response, credentials};

use super::{cookie, user_agent};
use crate::codec::id::ClientId;
use crate::codec::message::Message;
use crate::codec::reply::{array_bytes, put_array};
use crate::config::Transport;
use crate::dispatch::{Caller, HeldConnect, Outcome};
use crate::error::RequestFault;
use crate::front::Shared;
use crate::protocol::{ConnectAnswer, Held};
use crate::replies;
use crate::stats::Gauge;

/// One polling request.
pub(super) struct Poll<'a> {
    pub(super) parts: &'a Parts,
    pub(super) transport: Transport,
    pub(super) http2: bool,
}

/// The response's head, and its JSON text for the transport to wrap.
pub(super) struct Answer {
    pub(super) head: Response,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The answer of long-polling.
    pub(super) fn json(self) -> Response {
        let mut response = self.head;
        if response.status().is_success() {
            let kind = const { HeaderValue::from_static("application/json;charset=UTF-8") };
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            *response.body_mut() = Body::full(self.body);
        }
        response
    }
}

/// Handles a request's messages and waits as long as its connect is held.
pub(super) async fn run(
    shared: &Arc<Shared>,
    source: &Bytes,
    messages: &[Message<'_>],
    poll: &Poll<'_>,
) -> Result<Answer, RequestFault> {
    let known = cookie::read(&poll.parts.headers, &shared.config().cookie);
    // Made before it is known whether it will be needed, because a new session must know its browser.
    let browser = match known {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(ClientId::random().map_err(|_| RequestFault::Internal)?.to_string()),
    };
    let presented = credentials(poll.parts);
    let mut caller = Caller {
        transport: poll.transport,
        browser: Some(&browser),
        remote: poll.parts.extensions.get::<Peer>().map(|peer| peer.0),
        user_agent: user_agent(&poll.parts.headers),
        credentials: presented.for_protocol("bayeux"),
        socket: None,
    };
    let mut outcome = Box::pin(shared.handle_batch(source, messages, &mut caller)).await;
    if let Some(held) = outcome.held.take() {
        match hold(shared, held, known, poll.http2).await {
            Some(answer) => outcome.answer_connect(&answer, shared),
            None => return Ok(superseded(shared)),
        }
    }
    let shook_hands = outcome.shook_hands;
    let mut answer = Answer { head: http::Response::new(Body::empty()), body: outcome.into_json() };
    if known.is_none()
        && shook_hands
        && let Some(line) = cookie::set(&browser, &shared.config().cookie)
    {
        answer.head.headers_mut().insert(header::SET_COOKIE, line);
    }
    Ok(answer)
}

/// Holds a connect; `None` if a newer one took its place.
async fn hold(
    shared: &Shared,
    held: HeldConnect,
    browser: Option<&str>,
    http2: bool,
) -> Option<Box<ConnectAnswer>> {
    let config = shared.config();
    let max = if http2 { config.http2_max_sessions_per_browser } else { config.max_sessions_per_browser };
    let mailbox = Arc::clone(&held.member.mailbox);
    // Without a cookie each session counts as a browser of its own.
    let limited = browser.filter(|_| max >= 0).zip(usize::try_from(max).ok());
    if let Some((browser, max)) = limited
        && !shared.registry.hold(browser, held.member.id, held.token, max)
    {
        let wait = config.multi_session_interval;
        let wait = (!wait.is_zero()).then_some(wait);
        let refused = mailbox.with(|state| state.session.refuse_hold(Instant::now(), held.token, wait));
        return refused.map(Box::new);
    }
    let _gauge = Gauge::new(&shared.counters().held_polls);
    let mut guard =
        HoldGuard { shared, held: &held, browser: limited.map(|(browser, _)| browser), answered: false };
    loop {
        let woken = mailbox.woken().notified();
        tokio::pin!(woken);
        // Listening before looking: what comes in between is not missed.
        woken.as_mut().enable();
        let until = match mailbox.with(|state| state.session.poll_connect(Instant::now(), held.token)) {
            Held::Wait { until } => until,
            Held::Answer(answer) => {
                guard.answered = true;
                return Some(answer);
            }
            Held::Superseded => return None,
        };
        let _ = tokio::time::timeout_at(until.into(), woken).await;
    }
}

/// Puts things right when a held connect ends in whatever way; also when its connection dies, which
/// drops the handler's future.
struct HoldGuard<'a> {
    shared: &'a Shared,
    held: &'a HeldConnect,
    browser: Option<&'a str>,
    answered: bool,
}

impl Drop for HoldGuard<'_> {
    fn drop(&mut self) {
        let HeldConnect { member, token, .. } = self.held;
        if !self.answered {
            member.mailbox.with(|state| state.session.drop_connect(Instant::now(), *token));
        }
        if let Some(browser) = self.browser {
            self.shared.registry.let_go(browser, member.id, *token);
        }
    }
}

/// What the older of two connects gets.
fn superseded(shared: &Shared) -> Answer {
    let status = shared.config().duplicate_connect_status;
    let status = StatusCode::from_u16(status).ok().filter(|status| status.as_u16() >= 400);
    let mut head = http::Response::new(Body::empty());
    *head.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Answer { head, body: Vec::new() }
}

impl Outcome {
    fn answer_connect(&mut self, answer: &ConnectAnswer, shared: &Shared) {
        if answer.end == Some(crate::protocol::End::Kicked) {
            self.raw_reply(replies::GOODBYE);
        }
        self.events.extend(answer.events.iter().cloned());
        self.raw_reply(&replies::connect(answer, shared.config()));
    }

    /// Events first, then replies; but a handshake's reply comes before its events.
    fn into_json(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(array_bytes(self.objects()));
        put_array(&mut out, self.objects());
        out
    }
}

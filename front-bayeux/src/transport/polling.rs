//! What both polling transports do with a request's messages: handle them, hold the connect, answer.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, StatusCode, Version, header};
use http_edge::{Body, Cookies, Encrypted, Fields, HttpCredentials, Https, Peer, Response, credentials_with};

use super::answer::Answer;
use super::callback_polling::{self, Callback};
use super::cookie;
use super::endpoint::Endpoint;
use crate::codec::id::ClientId;
use crate::codec::message::Message;
use crate::config::Transport;
use crate::dispatch::caller::{Caller, UserAgent};
use crate::dispatch::outcome::{HeldConnect, Outcome};
use crate::error::RequestFault;
use crate::protocol::{ConnectAnswer, Held};
use crate::sessions::mailbox::UnwrittenReply;
use crate::stats::Gauge;

/// One polling request.
pub(super) struct Poll<'a> {
    pub(super) parts: &'a Parts,
    /// Found in the parts' headers.
    pub(super) fields: Fields<'a>,
    /// What the answer is called.
    pub(super) id: &'a HeaderValue,
    pub(super) transport: Transport,
    /// The function that callback-polling calls with the answer.
    pub(super) callback: Option<Callback>,
}

/// What a polling request comes to at first.
pub(super) enum Step {
    Answer(Response),
    Hold(Hold),
}

/// Handles a request's messages.
pub(super) async fn run(
    endpoint: &Arc<Endpoint>,
    source: &Bytes,
    messages: &[Message<'_>],
    poll: Poll<'_>,
) -> Result<Step, RequestFault> {
    let mut cookies = cookie::read(&poll.parts.headers, &endpoint.config().cookie);
    let known = cookies.next();
    let more_browsers: Vec<&str> = cookies.collect();
    // Made before it is known whether it will be needed, because a new session must know its browser.
    let browser = match known {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(ClientId::random().map_err(|_| RequestFault::Internal)?.to_string()),
    };
    let presented = presented(endpoint, &poll);
    let more_tokens: Vec<Box<str>> = presented.more_tokens.iter().map(|token| Box::from(&**token)).collect();
    let mut caller = Caller {
        transport: poll.transport,
        browser: Some(&browser),
        more_browsers: &more_browsers,
        remote: presented.remote,
        encryption: Encrypted::of(&poll.parts.extensions),
        user_agent: UserAgent::In(&poll.parts.headers),
        request: Some(poll.id),
        credentials: presented.for_protocol("bayeux"),
        more_tokens: &more_tokens,
        lacks_request: false,
        socket: None,
    };
    let mut outcome = Box::pin(endpoint.dispatch.handle_batch(source, messages, &mut caller)).await;
    if let Some(connect) = outcome.held.take() {
        let limit = limit(endpoint, known, poll.parts.version);
        // A handshake, which alone needs a cookie, is alone in its request.
        return Ok(Step::Hold(Hold { connect, outcome, limit, callback: poll.callback }));
    }
    let shook_hands = outcome.shook_hands;
    let mut answer = Answer::of(outcome);
    if known.is_none()
        && shook_hands
        && let Some(line) =
            cookie::set(&browser, &endpoint.config().cookie, Https::is_known(&poll.parts.extensions))
    {
        answer.head.headers_mut().insert(header::SET_COOKIE, line);
    }
    Ok(Step::Answer(wrap(answer, poll.callback.as_ref())))
}

/// What the request shows. Cookies, which a browser sends for any page, count for pages that are known and allowed: a
/// script's answer is read by whatever page runs it.
fn presented<'a>(endpoint: &Endpoint, poll: &Poll<'a>) -> HttpCredentials<'a> {
    let (config, parts) = (endpoint.config(), poll.parts);
    let page = match poll.transport {
        Transport::CallbackPolling => poll.fields.of_script(&parts.headers),
        _ => poll.fields,
    };
    let cookies = config.origins.cookies_of(page);
    let fields = if cookies == Cookies::Include { &page } else { &poll.fields };
    let remote = Peer::of(&parts.extensions).map(|peer| peer.0);
    credentials_with(fields, parts, remote, &config.token_sources, cookies)
}

/// How many connects of one browser may be held.
struct Limit {
    browser: String,
    max: usize,
}

/// Without a cookie each session counts as a browser of its own.
fn limit(endpoint: &Endpoint, browser: Option<&str>, version: Version) -> Option<Limit> {
    let config = endpoint.config();
    let max = match version {
        Version::HTTP_2 => config.http2_max_sessions_per_browser,
        _ => config.max_sessions_per_browser,
    };
    // A negative one is none.
    Some(Limit { browser: browser?.to_owned(), max: usize::try_from(max).ok()? })
}

/// A request whose connect is held. It owns all that its answer needs, so that the request itself can go.
pub(super) struct Hold {
    connect: HeldConnect,
    /// What the request's other messages came to.
    outcome: Outcome,
    limit: Option<Limit>,
    callback: Option<Callback>,
}

impl Hold {
    /// Waits until there is something to say, and says it.
    pub(super) async fn run(mut self, endpoint: &Endpoint) -> Response {
        let answer = match hold(endpoint, &self.connect, self.limit.as_ref()).await {
            Some((answer, unwritten)) => {
                self.outcome.answer_connect(*answer, &self.connect.member, &endpoint.sessions.shared);
                self.outcome.unwritten.push(unwritten);
                Answer::of(self.outcome)
            }
            None => superseded(endpoint),
        };
        wrap(answer, self.callback.as_ref())
    }
}

/// Holds a connect; `None` if a newer one took its place.
async fn hold(
    endpoint: &Endpoint,
    held: &HeldConnect,
    limit: Option<&Limit>,
) -> Option<(Box<ConnectAnswer>, UnwrittenReply)> {
    let mailbox = Arc::clone(&held.member.mailbox);
    if let Some(Limit { browser, max }) = limit
        && !endpoint.sessions.held_connects.hold(browser, held.member.id, held.token, *max)
    {
        let wait = endpoint.config().multi_session_interval;
        let wait = (!wait.is_zero()).then_some(wait);
        return mailbox.with(|state| {
            let refused = state.session.refuse_hold(Instant::now(), held.token, wait)?;
            Some((Box::new(refused), mailbox.begin_reply(state)))
        });
    }
    let _gauge = Gauge::new(&endpoint.counters().held_polls);
    let browser = limit.map(|limit| &*limit.browser);
    let mut guard = HoldGuard { endpoint, held, browser, answered: false };
    loop {
        let woken = mailbox.woken().notified();
        tokio::pin!(woken);
        // Listening before looking: what comes in between is not missed.
        woken.as_mut().enable();
        let polled = mailbox.with(|state| match state.session.poll_connect(Instant::now(), held.token) {
            Held::Wait { until } => Err(until),
            Held::Answer(answer) => Ok(Some((answer, mailbox.begin_reply(state)))),
            Held::Superseded => Ok(None),
        });
        let until = match polled {
            Err(until) => until,
            Ok(answer) => {
                guard.answered = answer.is_some();
                return answer;
            }
        };
        let _ = tokio::time::timeout_at(until.into(), woken).await;
    }
}

/// Puts things right when a held connect ends in whatever way; also when its connection dies, which
/// drops the handler's future.
struct HoldGuard<'a> {
    endpoint: &'a Endpoint,
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
            self.endpoint.sessions.held_connects.let_go(browser, member.id, *token);
        }
    }
}

/// What the older of two connects gets.
fn superseded(endpoint: &Endpoint) -> Answer {
    let status = endpoint.config().duplicate_connect_status;
    let status = StatusCode::from_u16(status).ok().filter(|status| status.as_u16() >= 400);
    let mut head = http::Response::new(Body::empty());
    *head.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Answer { head, ..Answer::new(Vec::new(), Vec::new()) }
}

/// Wraps an answer as its transport does.
fn wrap(answer: Answer, callback: Option<&Callback>) -> Response {
    match callback {
        None => answer.json(),
        Some(callback) => callback_polling::wrap(answer, callback),
    }
}

//! A connection from its 101 on: Open → Closing → Telling → Gone. Messages wait in its mailbox, and one is handled at a
//! time; what is sent to the client goes through its outbox and waits for nobody.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use broker_core::{LeaveReason, unix_ms};
use bytes::Bytes;
use http_edge::websocket::{Ending, Heard, LINGER, WebSocket};
use websocket::{CloseCode, DeflateParams, Limits};

use crate::config::{Binary, Overflow};
use crate::member::Close;
use crate::session::{Incoming, Session};

/// No timer is set further ahead.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

/// What waits to be handled.
struct Mailbox {
    waiting: VecDeque<Incoming>,
    bytes: usize,
}

/// How it ended, as functions are told.
struct End {
    code: u16,
    reason: String,
    why: LeaveReason,
}

type InFlight = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The right to be told of. Whoever lets go of it before the connection is open has a client that left early.
pub(crate) struct Admitted(Option<Arc<Session>>);

impl Admitted {
    /// A client that may connect.
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self(Some(session))
    }

    /// The 101 is written, and here is the socket.
    pub(crate) fn open(mut self, socket: link::Socket, deflate: Option<DeflateParams>) {
        if let Some(session) = self.0.take() {
            tokio::spawn(run(session, socket, deflate));
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Some(session) = self.0.take() else { return };
        let gone = End { code: 1006, reason: String::new(), why: LeaveReason::Lost };
        let end = session.member.closing().map_or(gone, End::of);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { tell(session, Mailbox::new(), None, end).await });
        }
    }
}

impl End {
    fn of(close: Close) -> Self {
        // Who is told of the reason takes it from the one who closed.
        Self { code: close.code, reason: close.reason, why: LeaveReason::Closed }
    }

    fn by(ending: Ending, session: &Session) -> Self {
        let end = |code, reason: &str, why| Self { code, reason: reason.to_owned(), why };
        match ending {
            Ending::Left { code: Some(code), reason } => end(code.into(), &reason, LeaveReason::Client),
            Ending::Left { code: None, .. } => {
                end(1005, "Client-side close frame status not set", LeaveReason::Client)
            }
            // Nobody answered, or the socket is gone.
            Ending::Gone | Ending::Idle => match session.member.closing() {
                Some(close) => Self::of(close),
                None => end(1006, "", LeaveReason::Lost),
            },
            Ending::Overflow => end(1006, "", LeaveReason::TooSlow),
            Ending::Fault(violation) => {
                end(violation.close_code.into(), violation.reason, LeaveReason::Protocol)
            }
            Ending::Slow => end(1008, "the message came too slowly", LeaveReason::Protocol),
            Ending::Shed => end(1013, "no room for unfinished messages", LeaveReason::Closed),
            Ending::Closed(_) => match session.member.closing() {
                Some(close) => Self::of(close),
                None => end(1001, "Going away", LeaveReason::Shutdown),
            },
        }
    }
}

impl Mailbox {
    fn new() -> Self {
        Self { waiting: VecDeque::new(), bytes: 0 }
    }

    fn push(&mut self, session: &Session, message: Incoming) {
        self.bytes += message.len();
        self.waiting.push_back(message);
        session.member.state.queued.fetch_add(1, Relaxed);
    }

    fn pop(&mut self, session: &Session) -> Option<Incoming> {
        let message = self.waiting.pop_front()?;
        self.bytes -= message.len();
        session.member.state.queued.fetch_sub(1, Relaxed);
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some(message)
    }

    /// Begins with the next message, if none is under way.
    fn advance(&mut self, session: &Arc<Session>, in_flight: &mut Option<InFlight>) {
        if in_flight.is_none()
            && let Some(message) = self.pop(session)
        {
            *in_flight = Some(Box::pin(Arc::clone(session).handle(message)));
        }
    }
}

async fn run(session: Arc<Session>, socket: link::Socket, deflate: Option<DeflateParams>) {
    let api = &session.member.state.api;
    let mut limits = Limits::default();
    limits.max_message_bytes = api.max_message_bytes;
    limits.max_frame_bytes = api.max_frame_bytes;
    let outbox = Arc::clone(&session.member.outbox);
    let mut socket = WebSocket::new(socket, outbox, limits, deflate);
    session.member.open();
    if session.shared.is_closing.load(Relaxed) {
        session.member.close_with(Close::going_away(LeaveReason::Shutdown));
    }
    let (mut mailbox, mut in_flight) = (Mailbox::new(), None);
    let ending = converse(&session, &mut socket, &mut mailbox, &mut in_flight).await;
    let is_told = ending.is_told();
    let end = End::by(ending, &session);
    if is_told {
        tokio::spawn(socket.finish(LINGER));
    } else {
        drop(socket);
    }
    tell(session, mailbox, in_flight, end).await;
}

/// Hears the client and has its messages handled, until it is over.
async fn converse(
    session: &Arc<Session>,
    socket: &mut WebSocket,
    mailbox: &mut Mailbox,
    in_flight: &mut Option<InFlight>,
) -> Ending {
    let (member, api) = (&session.member, &session.member.state.api);
    let opened = Instant::now();
    loop {
        mailbox.advance(session, in_flight);
        let queue = api.queue;
        let is_full = mailbox.waiting.len() >= queue.max_messages || mailbox.bytes >= queue.max_bytes;
        socket.pause(is_full && queue.overflow == Overflow::Pause);
        let due = match leaves(session, opened) {
            Ok(due) => due,
            Err(close) => {
                member.close_with(close);
                None
            }
        };
        let heard = tokio::select! {
            () = done(in_flight) => {
                *in_flight = None;
                continue;
            }
            heard = socket.hear(&session.shared.terms, due) => heard,
        };
        let message = match heard {
            Heard::Woken | Heard::Due | Heard::Ping(_) | Heard::Pong(_) => continue,
            Heard::Ended(ending) => return ending,
            // Copied, as they share the memory of what was read with them.
            Heard::Text(text) => Incoming::Text(Bytes::copy_from_slice(&text)),
            Heard::Binary(_) if api.binary == Binary::Refuse => {
                let close =
                    Close::new(CloseCode::Unsupported.into(), "messages are text", LeaveReason::Protocol);
                member.close_with(close);
                return Ending::Closed(broker_core::OutboxEnd::Finished);
            }
            Heard::Binary(bytes) => Incoming::Binary(Bytes::copy_from_slice(&bytes)),
        };
        if member.is_closing() {
            // It was told, and what it says after that counts for nothing.
            continue;
        }
        member.note_received(message.len());
        // What a message may be when none waits is another bound.
        let is_over = mailbox.waiting.len() >= queue.max_messages
            || (mailbox.bytes + message.len() > queue.max_bytes && !mailbox.waiting.is_empty());
        if queue.overflow == Overflow::Close && is_over {
            let reason = "too many messages wait for their functions";
            member.close_with(Close::new(CloseCode::Again.into(), reason, LeaveReason::TooSlow));
            return Ending::Closed(broker_core::OutboxEnd::Finished);
        }
        mailbox.push(session, message);
    }
}

async fn done(in_flight: &mut Option<InFlight>) {
    match in_flight {
        Some(handling) => handling.await,
        None => std::future::pending().await,
    }
}

/// When it has been here long enough, or how it is closed for that.
fn leaves(session: &Session, opened: Instant) -> Result<Option<Instant>, Close> {
    let (member, api) = (&session.member, &session.member.state.api);
    if member.is_closing() {
        return Ok(None);
    }
    let now = Instant::now();
    let mut due = now + MAX_WAIT;
    if !api.idle_timeout.is_zero() {
        let left = api.idle_timeout.saturating_sub(member.activity.idle());
        if left.is_zero() {
            return Err(Close::going_away(LeaveReason::Expired));
        }
        due = due.min(now + left.min(MAX_WAIT));
    }
    if !api.max_life.is_zero() {
        let left = api.max_life.saturating_sub(opened.elapsed());
        if left.is_zero() {
            return Err(Close::going_away(LeaveReason::Expired));
        }
        due = due.min(now + left.min(MAX_WAIT));
    }
    if let Some(expires_at) = member.expires_at_ms() {
        let left = Duration::from_millis(expires_at.saturating_sub(unix_ms()));
        if left.is_zero() {
            return Err(Close::new(
                4401,
                "credentials expired, reconnect with new ones",
                LeaveReason::Expired,
            ));
        }
        due = due.min(now + left.min(MAX_WAIT));
    }
    Ok(Some(due))
}

/// The client has left: what it sent before is handled, and then it is told that it is gone.
async fn tell(session: Arc<Session>, mut mailbox: Mailbox, mut in_flight: Option<InFlight>, end: End) {
    let shared = Arc::clone(&session.shared);
    shared.telling.fetch_add(1, Relaxed);
    let _telling = Telling(&shared.telling);
    shared.members.remove(&session.member.subscriber.key());
    session.member.state.connections.fetch_sub(1, Relaxed);
    for filter in session.member.subscriber.subscriptions() {
        session.member.subscriber.unsubscribe_all(&filter);
    }
    session.member.leave(end.why);
    // Nothing is sent any more, whatever functions say.
    if session.member.outbox.closed().is_none() && session.member.closing().is_none() {
        session.member.outbox.send_last(Bytes::new());
    }
    loop {
        mailbox.advance(&session, &mut in_flight);
        if in_flight.is_none() {
            break;
        }
        done(&mut in_flight).await;
        in_flight = None;
    }
    session.tell_end(end.code, &end.reason).await;
}

struct Telling<'a>(&'a std::sync::atomic::AtomicU64);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

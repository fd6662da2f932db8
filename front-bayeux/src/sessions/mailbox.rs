//! A session where the broker's lanes can reach it: its state behind a small mutex, and the wake-up of a held poll.
//! What its lane does with it is in `deliver.rs`, its socket in `binding.rs`, its want of room in `overflow.rs`.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Instant;

use broker_core::{Class, Queued};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::clock::Clock;
use super::own_messages;
use super::shared::Shared;
use super::state::State;
use crate::codec::event::Replay;
use crate::codec::id::ClientId;
use crate::codec::reply;
use crate::config::Transport;
use crate::protocol::queue::has_room_for_page;
use crate::protocol::{End, Session};

/// See the module.
pub(crate) struct Mailbox {
    myself: Weak<Mailbox>,
    pub(super) state: Mutex<State>,
    woken: Notify,
    pub(super) clock: Clock,
    pub(super) shared: Arc<Shared>,
    /// Messages from the client that were published.
    received: AtomicU32,
    /// Bytes of JSON from it.
    received_bytes: AtomicU64,
    /// Bytes of JSON that answered its connects, where it polls.
    polled_bytes: AtomicU64,
}

/// A connect's reply on its way. It is dropped when the reply was written, or will never be: only from then on is its
/// client's time to come again counted.
#[derive(Debug)]
pub(crate) struct UnwrittenReply {
    mailbox: Weak<Mailbox>,
    token: u64,
}

/// What the sweep found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Swept {
    pub(super) end: End,
    pub(super) forget: bool,
}

impl Mailbox {
    /// One that nobody has shaken hands for yet: it holds a session that stands for the one to come.
    pub(super) fn new(shared: Arc<Shared>, now: Instant) -> Arc<Self> {
        let session = Session::new(now, Arc::clone(&shared.options), Transport::WebSocket);
        let mailbox = Arc::new_cyclic(|myself| Self {
            myself: Weak::clone(myself),
            state: Mutex::new(State::new(session)),
            woken: Notify::new(),
            clock: Clock::default(),
            shared,
            received: AtomicU32::new(0),
            received_bytes: AtomicU64::new(0),
            polled_bytes: AtomicU64::new(0),
        });
        mailbox.with(|_| ());
        mailbox
    }

    /// The session of a handshake takes the place of whatever was here.
    pub(super) fn begin(&self, id: ClientId, session: Session, replay: Replay) {
        self.with(|state| {
            state.id = Some(id);
            state.session = session;
            state.replay = replay;
        });
    }

    /// Runs `change` on the state and notes when the session next needs a look.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        self.clock.tell(&mut state.session);
        let result = change(&mut state);
        self.clock.set(&mut state.session, &self.shared);
        result
    }

    /// The answer to a connect was just given; whoever writes it drops what is returned when it is written.
    pub(crate) fn begin_reply(&self, state: &mut State) -> UnwrittenReply {
        state.session.begin_reply();
        UnwrittenReply { mailbox: Weak::clone(&self.myself), token: state.session.token() }
    }

    /// Whether the sweep has something to do here.
    pub(super) fn needs_sweep(&self, now: Instant) -> bool {
        self.clock.is_due(self.shared.millis(now))
    }

    /// Time passed; tells whether the session is over and whether it may be forgotten.
    pub(super) fn sweep(&self, now: Instant) -> Option<Swept> {
        let (due, end, forget) = self.with(|state| {
            let due = state.session.handle_timeout(now);
            let end = state.session.end();
            (due, end, state.session.poll_timeout().is_some_and(|at| at <= now))
        });
        if due {
            self.write(now);
        }
        end.map(|end| Swept { end, forget })
    }

    /// Ends the session, for a reason that the client is told if there is one, and answers what is held.
    pub(super) fn finish(&self, now: Instant, end: End, reason: Option<&str>) {
        self.with(|state| {
            if end == End::Kicked
                && state.session.end().is_none()
                && let Some(socket) = &state.socket
            {
                let goodbye = own_messages::goodbye(reason, &self.shared.config);
                socket.outbox.send(reply::text_frame([&goodbye[..]]), Class::Control);
                // The connection has to know, too: it closes the socket once its client had time to.
                socket.outbox.notify();
            }
            state.session.finish(now, end);
        });
        self.write(now);
    }

    pub(crate) fn end(&self) -> Option<End> {
        self.state.lock().session.end()
    }

    /// What waits in the session and on its socket.
    pub(super) fn queued(&self) -> Queued {
        let state = self.state.lock();
        let (messages, bytes) = state.session.waiting();
        let socket = state.socket.as_ref().map(|socket| socket.outbox.queued()).unwrap_or_default();
        let mut given = Queued::default();
        given.messages = messages + socket.messages;
        given.bytes = bytes + socket.bytes;
        given
    }

    /// A message of the client was published.
    pub(crate) fn note_published(&self) {
        self.received.fetch_add(1, Relaxed);
    }

    /// So much JSON came from the client.
    pub(crate) fn note_received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Bytes of JSON from the client.
    pub(super) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Relaxed)
    }

    /// Events to the client, and messages from it that were published.
    pub(super) fn passed(&self) -> (u64, u64) {
        (u64::from(self.state.lock().sent), u64::from(self.received.load(Relaxed)))
    }

    /// Bytes to the client: those that its socket has taken, and the JSON that answered its connects.
    pub(super) fn sent_bytes(&self) -> u64 {
        let socket = self.state.lock().socket.as_ref().map_or(0, |socket| socket.outbox.passed().bytes);
        socket + self.polled_bytes.load(Relaxed)
    }

    /// Events lost because there was no room for them.
    pub(super) fn dropped(&self) -> u64 {
        let state = self.state.lock();
        let uncounted = state.socket.as_ref().map_or(0, |socket| socket.uncounted_drops());
        uncounted + u64::from(state.session.dropped())
    }

    /// Whether a page of replayed events may come, to the queue and to the socket.
    pub(super) fn has_room(&self) -> bool {
        let mut state = self.state.lock();
        let limits = self.shared.options.limits;
        let socket_has_room = state.socket.as_ref().is_none_or(|socket| {
            let queued = socket.outbox.queued();
            !socket.is_open() || has_room_for_page(queued.messages, queued.bytes, limits)
        });
        socket_has_room && state.session.has_room(Instant::now())
    }

    /// Writes what is due: on the socket, or by waking the held poll.
    pub(crate) fn write(&self, now: Instant) {
        self.with(|state| {
            if state.socket.is_some() {
                self.write_socket(state, now, None);
            }
        });
        self.woken.notify_waiters();
    }

    /// For the handler of a held poll.
    pub(crate) fn woken(&self) -> &Notify {
        &self.woken
    }
}

impl UnwrittenReply {
    /// The answer that it is in has so much JSON.
    pub(crate) fn note_bytes(&self, bytes: usize) {
        if let Some(mailbox) = self.mailbox.upgrade() {
            mailbox.polled_bytes.fetch_add(bytes as u64, Relaxed);
        }
    }
}

impl Drop for UnwrittenReply {
    fn drop(&mut self) {
        if let Some(mailbox) = self.mailbox.upgrade() {
            mailbox.clock.reply_written(self.token);
        }
    }
}

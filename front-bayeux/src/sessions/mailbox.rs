//! A session where the broker's lanes can reach it: its state behind a small mutex, the socket it may
//! have, and the wake-up of a held poll.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use broker_core::{
    Action, Broker, Class, Deliver, Delivery, Encoding, Filter, Kind, Message, Outbox, Principal, Queued,
    SendError, Sink, steady_ms,
};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use websocket::encode;

use crate::codec::event::{self, Replay};
use crate::codec::id::ClientId;
use crate::codec::reply;
use crate::codec::unsent;
use crate::config::{Config, Lazy, QueueFull};
use crate::hooks::listener::Listener;
use crate::protocol::duplicates::Overlap;
use crate::protocol::queue::has_room_for_page;
use crate::protocol::{Delivered, End, Held, Options, Push, Session};
use crate::sessions::connect_reply;
use crate::sessions::unwritten::{self, Leaving};
use crate::stats::Counters;

/// The encodings that all sessions share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encodings {
    plain: Variant,
    with_replay: Variant,
}

/// One way of writing events, in its three wrappings.
#[derive(Debug, Clone, Copy)]
struct Variant {
    replay: Replay,
    object: Encoding,
    frame: Encoding,
    deflated: Encoding,
}

impl Encodings {
    pub(crate) fn register(broker: &Broker) -> Self {
        let variant = |replay| Variant {
            replay,
            object: broker.register_encoding(),
            frame: broker.register_encoding(),
            deflated: broker.register_encoding(),
        };
        Self { plain: variant(Replay::Plain), with_replay: variant(Replay::InExt) }
    }
}

/// How often one session may be spoken of in the log.
const WARN_PERIOD_SECS: u32 = 60;

/// What every mailbox needs of its front.
pub(crate) struct Common {
    pub(crate) config: Config,
    pub(crate) options: Arc<Options>,
    pub(crate) encodings: Encodings,
    pub(crate) counters: Counters,
    pub(crate) started: Instant,
    /// Calls to services that wait for their handlers.
    pub(crate) service_calls: AtomicUsize,
    pub(crate) listener: RwLock<Option<Arc<dyn Listener>>>,
}

impl Common {
    /// The listener, copied out so that no lock is held while it runs.
    pub(crate) fn listener(&self) -> Option<Arc<dyn Listener>> {
        self.listener.read().clone()
    }

    pub(crate) fn tell(&self, what: impl FnOnce(&dyn Listener)) {
        if let Some(listener) = self.listener() {
            what(&*listener);
        }
    }

    fn object(&self, variant: Variant, delivery: &Delivery) -> Bytes {
        let encode = |message: &_| event::object(message, &self.config.events, variant.replay);
        delivery.encoded(variant.object, encode).clone()
    }

    /// The event alone in a text frame; empty if Bayeux cannot express it.
    fn frame<'d>(&self, variant: Variant, delivery: &'d Delivery, deflate: bool) -> &'d Bytes {
        let slot = if deflate { variant.deflated } else { variant.frame };
        let encode = |_: &_| {
            let object = self.object(variant, delivery);
            if object.is_empty() {
                return object;
            }
            if deflate && object.len() >= self.config.websocket.deflate_from_bytes {
                let mut text = Vec::with_capacity(object.len() + 2);
                reply::put_array(&mut text, [&object[..]]);
                return encode::deflated(&text);
            }
            reply::text_frame([&object[..]])
        };
        delivery.encoded(slot, encode)
    }

    fn millis_since_start(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The socket that a session's events and connect replies go to.
#[derive(Clone)]
pub(crate) struct Socket {
    pub(crate) outbox: Arc<Outbox>,
    /// The outbox is the one of the session's own subscriber, so that its lane can write it in bursts.
    pub(crate) own: bool,
    pub(crate) deflate: bool,
    /// Which connection this is.
    pub(crate) number: u64,
    /// Frames that its outbox has dropped and the session has counted.
    pub(crate) counted_drops: u32,
}

/// What the mutex guards.
pub(crate) struct State {
    /// Whose session it is; none shook hands yet on a socket that was just opened.
    id: Option<ClientId>,
    pub(crate) session: Session,
    pub(crate) socket: Option<Socket>,
    /// Whose denying rules are checked here, where the core could not be told in time.
    guard: Option<Principal>,
    replay_in_ext: bool,
    /// When its operator was last told that it has no room, in seconds since the front's start.
    warned_secs: u32,
    /// While a replay runs.
    overlap: Option<Box<Overlap>>,
}

impl State {
    /// A replay is about to begin.
    pub(crate) fn begin_replay(&mut self, tag: u32, filter: Filter, after: u64) {
        self.overlap = Some(Box::new(Overlap::new(tag, filter, after)));
    }

    pub(crate) fn end_replay(&mut self) {
        self.overlap = None;
    }

    /// The running replay, for whoever makes or ends another subscription of the session.
    pub(crate) fn overlap(&mut self) -> Option<&mut Overlap> {
        self.overlap.as_deref_mut()
    }

    /// Whether a message is new to the session, as far as a replay is concerned.
    fn admits(&mut self, message: &Message, kind: Kind) -> bool {
        self.overlap.as_mut().is_none_or(|overlap| overlap.admits(message, kind))
    }

    /// Counts what the socket's outbox has thrown away.
    pub(crate) fn count_drops(&mut self) -> u32 {
        let Some(socket) = &mut self.socket else { return 0 };
        let dropped = u32::try_from(socket.outbox.dropped()).unwrap_or(u32::MAX);
        let new = dropped - std::mem::replace(&mut socket.counted_drops, dropped);
        self.session.note_dropped(new);
        new
    }

    /// Whether the session's socket is the connection `number`.
    pub(crate) fn is_bound_to(&self, number: u64) -> bool {
        self.socket.as_ref().is_some_and(|socket| socket.number == number)
    }
}

/// See the module.
pub(crate) struct Mailbox {
    myself: Weak<Mailbox>,
    state: Mutex<State>,
    woken: Notify,
    /// When the sweep must look at the session, in milliseconds since the front's start; read without
    /// the mutex.
    wake_at_ms: AtomicU64,
    /// The last connect whose reply left. That happens wherever the socket is written, perhaps under the mutex.
    left: AtomicU64,
    common: Arc<Common>,
}

impl Mailbox {
    pub(crate) fn new(common: Arc<Common>, session: Session) -> Arc<Self> {
        let state = State {
            id: None,
            session,
            socket: None,
            guard: None,
            replay_in_ext: false,
            warned_secs: 0,
            overlap: None,
        };
        let mailbox = Arc::new_cyclic(|myself| Self {
            myself: Weak::clone(myself),
            state: Mutex::new(state),
            woken: Notify::new(),
            wake_at_ms: AtomicU64::new(0),
            left: AtomicU64::new(0),
            common,
        });
        mailbox.with(|_| ());
        mailbox
    }

    /// The session of a handshake takes the place of whatever was here.
    pub(crate) fn begin(
        &self,
        id: ClientId,
        session: Session,
        guard: Option<Principal>,
        replay_in_ext: bool,
    ) {
        self.with(|state| {
            state.id = Some(id);
            state.session = session;
            state.guard = guard;
            state.replay_in_ext = replay_in_ext;
        });
    }

    /// Runs `change` on the state and notes when the session next needs a look.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        self.note_left(&mut state);
        let result = change(&mut state);
        self.note_timeout(&mut state);
        result
    }

    fn note_timeout(&self, state: &mut State) {
        loop {
            let timeout = state.session.poll_timeout();
            let wake_at = timeout.map_or(u64::MAX, |at| self.common.millis_since_start(at));
            if !state.session.is_replying() {
                return self.wake_at_ms.store(wake_at, Ordering::Relaxed);
            }
            // In one order with `reply_left`: either its reply is seen here, or its zero comes after this.
            self.wake_at_ms.store(wake_at, Ordering::SeqCst);
            self.note_left(state);
            if state.session.is_replying() {
                return;
            }
        }
    }

    /// Passes on to the session that its reply left.
    fn note_left(&self, state: &mut State) {
        if state.session.is_replying() {
            state.session.reply_written(Instant::now(), self.left.load(Ordering::SeqCst));
        }
    }

    /// The answer to a connect was just given; whoever writes it drops what is returned when it is written.
    pub(crate) fn reply_begins(&self, state: &mut State) -> Leaving {
        state.session.begin_reply();
        Leaving::new(Weak::clone(&self.myself), state.session.token())
    }

    /// The reply to the connect `token` left. Takes no lock; time counts from the next look at the session, at the
    /// latest the sweep's.
    pub(crate) fn reply_left(&self, token: u64) {
        self.left.fetch_max(token, Ordering::SeqCst);
        self.wake_at_ms.store(0, Ordering::SeqCst);
    }

    /// Whether the sweep has something to do here.
    pub(crate) fn needs_sweep(&self, now: Instant) -> bool {
        self.wake_at_ms.load(Ordering::Relaxed) <= self.common.millis_since_start(now)
    }

    /// Time passed; tells whether the session is over and whether it may be forgotten.
    pub(crate) fn sweep(&self, now: Instant) -> Option<Swept> {
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
    pub(crate) fn finish(&self, now: Instant, end: End, reason: Option<&str>) {
        self.with(|state| {
            if end == End::Kicked
                && state.session.end().is_none()
                && let Some(socket) = &state.socket
            {
                let goodbye = connect_reply::goodbye(reason, &self.common.config);
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
    pub(crate) fn queued(&self) -> Queued {
        let state = self.state.lock();
        let (messages, bytes) = state.session.waiting();
        let socket = state.socket.as_ref().map(|socket| socket.outbox.queued()).unwrap_or_default();
        Queued { messages: messages + socket.messages, bytes: bytes + socket.bytes }
    }

    /// Events lost because there was no room for them.
    pub(crate) fn dropped(&self) -> u64 {
        let state = self.state.lock();
        let uncounted = |socket: &Socket| socket.outbox.dropped() - u64::from(socket.counted_drops);
        state.socket.as_ref().map_or(0, uncounted) + u64::from(state.session.dropped())
    }

    /// Whether a page of replayed events may come, to the queue and to the socket.
    pub(crate) fn has_room(&self) -> bool {
        let mut state = self.state.lock();
        let limits = self.common.options.limits;
        let socket_has_room = state.socket.as_ref().is_none_or(|socket| {
            let queued = socket.outbox.queued();
            socket.outbox.closed().is_some() || has_room_for_page(queued.messages, queued.bytes, limits)
        });
        socket_has_room && state.session.has_room(Instant::now())
    }

    /// The log has lost what was still to be replayed: the session ends, and its client is told.
    pub(crate) fn lose_replay(&self) {
        self.common.counters.lost_replay();
        self.warn("the log has lost what was still to be replayed, and its session is over");
        self.finish(Instant::now(), End::ReplayLost, None);
        // The sweep takes its subscriptions away.
        self.wake_at_ms.store(0, Ordering::Relaxed);
    }

    /// Says in the log that events were lost or the session was, once per session and minute.
    pub(crate) fn warn(&self, what: &'static str) {
        let now_secs = u32::try_from(self.common.started.elapsed().as_secs()).unwrap_or(u32::MAX);
        let mut state = self.state.lock();
        let due = state.warned_secs == 0 || now_secs.saturating_sub(state.warned_secs) >= WARN_PERIOD_SECS;
        if !due {
            return;
        }
        state.warned_secs = now_secs.max(1);
        let (waiting, dropped, session) = (state.session.waiting(), state.session.dropped(), state.id);
        drop(state);
        tracing::warn!(
            ?session,
            events = waiting.0,
            bytes = waiting.1,
            dropped,
            "a Bayeux client does not keep up: {what}"
        );
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

    /// An event for this session alone, whatever it is subscribed to.
    pub(crate) fn deliver_direct(&self, now: Instant, object: Bytes) {
        let delivered = self.with(|state| state.session.handle_delivery(now, object, None, None));
        self.follow_up(now, delivered, None);
    }

    fn follow_up(&self, now: Instant, delivered: Delivered, expires_at: Option<Instant>) {
        let delivered = match delivered {
            Delivered::Full(object) => {
                let decision = self.when_full();
                let (delivered, dropped) = self.with(|state| {
                    let before = state.session.dropped();
                    let delivered = state.session.overflow(now, object, expires_at, decision);
                    (delivered, state.session.dropped() - before)
                });
                self.note_dropped(dropped);
                delivered
            }
            delivered => delivered,
        };
        match delivered {
            Delivered::Overflow => {
                self.common.counters.overflowed();
                self.warn("its queue was full and its session is over");
                self.write(now);
                // The sweep takes its subscriptions away: the broker must not be called from here.
                self.wake_at_ms.store(0, Ordering::Relaxed);
            }
            Delivered::Due => self.write(now),
            Delivered::Queued | Delivered::Ignored | Delivered::Full(_) => {}
        }
    }

    fn note_dropped(&self, dropped: u32) {
        if dropped > 0 {
            self.common.counters.dropped(dropped);
            self.warn("events were dropped, as its queue was full");
        }
    }

    /// What shall be done about a full queue. The listener is asked without the session's mutex.
    fn when_full(&self) -> QueueFull {
        let configured = self.common.config.queue_full;
        let Some(listener) = self.common.listener() else { return configured };
        let (id, (waiting, _)) = self.with(|state| (state.id, state.session.waiting()));
        id.and_then(|id| listener.queue_full(&id, waiting)).unwrap_or(configured)
    }

    /// Binds the session to a socket; the one before, if any, carries nothing more.
    pub(crate) fn bind(&self, now: Instant, socket: Socket) {
        self.with(|state| {
            state.socket = Some(socket);
            state.session.set_push(Push::On);
            self.write_socket(state, now, None);
        });
    }

    /// The connection `number` is gone, if it is still the session's.
    pub(crate) fn unbind(&self, now: Instant, number: u64, lost: Lost) {
        self.with(|state| {
            if !state.is_bound_to(number) {
                return;
            }
            let Some(socket) = state.socket.take() else { return };
            if lost == Lost::Socket {
                // Lanes deliver under this mutex: nothing is added to the outbox any more.
                let frames = socket.outbox.take(usize::MAX);
                state.session.take_back(unsent::events(&frames, self.common.config.max_queue_bytes));
            }
            state.session.drop_socket(now);
            if lost == Lost::Session {
                state.session.finish(now, End::QueueFull);
            }
        });
    }

    /// A connect over HTTP takes the session off its socket.
    pub(crate) fn leave_socket(&self, now: Instant) {
        self.with(|state| {
            if state.socket.take().is_some() {
                state.session.drop_socket(now);
            }
        });
    }

    fn write_socket(&self, state: &mut State, now: Instant, mut sink: Option<&mut Sink<'_>>) {
        let Some(socket) = state.socket.clone() else { return };
        // A dead socket whose task has not yet noticed: its session's events wait for the next one.
        if socket.outbox.closed().is_some() {
            return;
        }
        let mut send = |frame: Bytes, class: Class| match &mut sink {
            Some(sink) if socket.own => sink.send(&frame, class),
            _ => _ = socket.outbox.send(frame, class),
        };
        state.count_drops();
        let held = state.session.held().map(|token| state.session.poll_connect(now, token));
        if let Some(Held::Answer(answer)) = held {
            let last = connect_reply::connect(&answer, &self.common.config);
            let objects = answer.events.iter().map(|event| &event[..]).chain([&last[..]]);
            let frame = reply::text_frame(objects);
            send(unwritten::carry(frame, vec![self.reply_begins(state)]), Class::Control);
        }
        let events = state.session.poll_push(now);
        let per_frame = match self.common.config.websocket.messages_per_frame {
            0 => events.len().max(1),
            number => number,
        };
        for some in events.chunks(per_frame) {
            send(reply::text_frame(some.iter().map(|event| &event[..])), Class::Droppable);
        }
    }

    /// An event that was sent to this session alone: taken if there is room, else refused.
    fn deliver_to_one(&self, delivery: &Delivery, sink: &mut Sink<'_>) {
        let now = Instant::now();
        let delivered = self.with(|state| {
            if state.session.end().is_some() {
                return Err(SendError::Gone);
            }
            let variant = self.common.encodings.plain;
            let object = self.common.object(variant, delivery);
            if object.is_empty() {
                return Err(SendError::Inexpressible);
            }
            match &state.socket {
                Some(socket) if state.session.pushes() && socket.outbox.closed().is_none() => {
                    let frame = self.common.frame(variant, delivery, socket.deflate);
                    if socket.own {
                        // It asks for room by itself.
                        sink.send(frame, Class::Control);
                        return Ok(Delivered::Queued);
                    }
                    let queued = socket.outbox.queued();
                    if queued.messages >= self.common.config.max_queue_messages {
                        return Err(SendError::Full);
                    }
                    let sent = socket.outbox.send(frame.clone(), Class::Control);
                    if sent { Ok(Delivered::Queued) } else { Err(SendError::Gone) }
                }
                _ => match state.session.handle_delivery(now, object, None, None) {
                    Delivered::Full(_) => Err(SendError::Full),
                    delivered => Ok(delivered),
                },
            }
        });
        match delivered {
            Ok(delivered) => self.follow_up(now, delivered, None),
            Err(why) => sink.refuse(why),
        }
    }

    /// Why an event on this channel may wait; `None` if it must not.
    fn laziness(&self, delivery: &Delivery) -> Option<&Lazy> {
        let channel = delivery.message().channel();
        self.common.config.lazy.iter().find(|lazy| lazy.filter.matches(channel))
    }
}

/// What a connection's end took with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It closed in order.
    Nothing,
    /// It died: what it had not written yet goes back to the session.
    Socket,
    /// The client did not read: the session is over.
    Session,
}

/// What the sweep found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Swept {
    pub(crate) end: End,
    pub(crate) forget: bool,
}

impl Deliver for Mailbox {
    fn deliver(&self, delivery: &Delivery, _tags: &[u32], sink: &mut Sink<'_>) {
        if delivery.kind() == Kind::Direct {
            return self.deliver_to_one(delivery, sink);
        }
        // The past is late already.
        let lazy = self.laziness(delivery).filter(|_| delivery.kind() != Kind::Replayed);
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if let Some(principal) = &state.guard
            && !principal.allows(Action::Subscribe, delivery.message().channel())
        {
            return;
        }
        if !state.admits(delivery.message(), delivery.kind()) {
            return;
        }
        let encodings = &self.common.encodings;
        let variant = if state.replay_in_ext { encodings.with_replay } else { encodings.plain };
        if let Some(socket) = &state.socket
            && lazy.is_none()
            && state.session.pushes()
            && socket.outbox.closed().is_none()
        {
            let frame = self.common.frame(variant, delivery, socket.deflate);
            if frame.is_empty() {
                self.common.counters.inexpressible();
            } else if socket.own {
                sink.send(frame, Class::Droppable);
            } else {
                socket.outbox.send(frame.clone(), Class::Droppable);
            }
            if self.common.config.extensions.activity.is_some() {
                state.session.note_server_activity(Instant::now());
            }
            return;
        }
        let object = self.common.object(variant, delivery);
        if object.is_empty() {
            self.common.counters.inexpressible();
            return;
        }
        let now = Instant::now();
        let lazy = lazy.map(|lazy| {
            let longest = || self.common.config.max_lazy_timeout_for(state.session.transport());
            lazy.timeout.unwrap_or_else(longest)
        });
        let expires_at = delivery.message().remaining(steady_ms()).and_then(|left| now.checked_add(left));
        match state.session.handle_delivery(now, object, lazy, expires_at) {
            Delivered::Queued | Delivered::Ignored => {}
            Delivered::Due if state.socket.is_some() => self.write_socket(state, now, Some(sink)),
            Delivered::Due => self.woken.notify_waiters(),
            full => {
                drop(guard);
                return self.follow_up(now, full, expires_at);
            }
        }
        self.note_timeout(state);
    }

    fn has_room(&self) -> bool {
        Mailbox::has_room(self)
    }

    fn shared_frame<'d>(&self, delivery: &'d Delivery, _: &[u32], outbox: &Arc<Outbox>) -> Option<&'d Bytes> {
        let config = &self.common.config;
        if !config.lazy.is_empty() || config.extensions.activity.is_some() {
            return None;
        }
        let state = self.state.lock();
        let socket =
            state.socket.as_ref().filter(|socket| socket.own && Arc::ptr_eq(&socket.outbox, outbox))?;
        let plain = state.guard.is_none()
            && state.overlap.is_none()
            && state.session.pushes()
            && outbox.closed().is_none();
        let encodings = &self.common.encodings;
        let variant = if state.replay_in_ext { encodings.with_replay } else { encodings.plain };
        plain.then(|| self.common.frame(variant, delivery, socket.deflate))
    }
}

//! A client that is held, as a lane sees it: what is sent as it is goes out at once, and what needs more waits for the
//! client's own task, with all that comes behind it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use broker_core::{
    Class, Deliver, Delivery, Kind, Message, MessageId, Outbox, Position, SendError, Sink, steady_ms,
};
use bytes::Bytes;
use parking_lot::Mutex;

use super::form::{Form, Slots, Trait, is_response, stream_trait, traits};

/// What may wait for the client's task, in messages and in bytes.
const MAX_WAITING: usize = 1_000;
const MAX_WAITING_BYTES: usize = 1 << 20;

/// What a lane knows of one client.
#[derive(Debug)]
pub(crate) struct Inbox {
    slots: Slots,
    /// `None`: a response waits, and each message goes to the task.
    form: Option<Form>,
    /// Whether somebody asks when something was sent last.
    is_timed: bool,
    has_filters: AtomicBool,
    is_slow: AtomicBool,
    waiting: Mutex<Waiting>,
    last_sent_ms: AtomicU64,
    /// Up to where the client has everything, where somebody asks.
    reached: Option<Reached>,
}

/// The last offset in what is in memory, whose epoch this is, and in what an engine keeps.
#[derive(Debug)]
pub(crate) struct Reached {
    epoch: u64,
    in_memory: AtomicU64,
    kept: AtomicU64,
}

impl Reached {
    pub(crate) fn new(epoch: u64) -> Self {
        Self { epoch, in_memory: AtomicU64::new(0), kept: AtomicU64::new(0) }
    }

    fn note(&self, message: &Message) {
        if let Some(id) = message.id() {
            let offset = if id.epoch() == self.epoch { &self.in_memory } else { &self.kept };
            offset.fetch_max(id.offset(), Relaxed);
        }
    }

    /// Whether the client has it.
    pub(crate) fn has(&self, id: MessageId) -> bool {
        let reached = if id.epoch() == self.epoch { &self.in_memory } else { &self.kept };
        id.offset() <= reached.load(Relaxed)
    }

    /// The later one of a position and what was reached.
    pub(crate) fn later(&self, position: Position) -> Position {
        position.ids().fold(position, |sum, id| {
            let reached = if id.epoch() == self.epoch { &self.in_memory } else { &self.kept };
            sum.with(MessageId::new(id.epoch(), reached.load(Relaxed).max(id.offset())))
        })
    }
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<(Arc<Message>, u32)>,
    bytes: usize,
    has_overflowed: bool,
}

impl Inbox {
    pub(crate) fn new(
        slots: Slots,
        form: Option<Form>,
        is_timed: bool,
        has_filters: bool,
        reached: Option<Reached>,
    ) -> Self {
        Self {
            slots,
            form,
            is_timed,
            has_filters: AtomicBool::new(has_filters),
            reached,
            is_slow: AtomicBool::new(has_filters || form.is_none()),
            waiting: Mutex::default(),
            last_sent_ms: AtomicU64::new(steady_ms()),
        }
    }

    /// What waits for longest, with the tag of its subscription; lanes may write again once nothing does.
    pub(crate) fn take(&self) -> Option<(Arc<Message>, u32)> {
        let mut waiting = self.waiting.lock();
        let taken = waiting.messages.pop_front();
        match &taken {
            Some((message, _)) => waiting.bytes -= message.weight(),
            None => self.is_slow.store(self.is_always_slow(), Relaxed),
        }
        taken
    }

    fn is_always_slow(&self) -> bool {
        self.form.is_none() || self.has_filters.load(Relaxed)
    }

    /// From now on there are filters, or none.
    pub(crate) fn filter(&self, has_filters: bool) {
        let waiting = self.waiting.lock();
        self.has_filters.store(has_filters, Relaxed);
        self.is_slow.store(self.is_always_slow() || !waiting.messages.is_empty(), Relaxed);
    }

    pub(crate) fn reached(&self) -> Option<&Reached> {
        self.reached.as_ref()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.lock().messages.is_empty()
    }

    /// Whether more has come than may wait.
    pub(crate) fn has_overflowed(&self) -> bool {
        self.waiting.lock().has_overflowed
    }

    pub(crate) fn form(&self) -> Option<Form> {
        self.form
    }

    pub(crate) fn touch(&self) {
        self.last_sent_ms.store(steady_ms(), Relaxed);
    }

    /// When something was sent last, by the clock that measures.
    pub(crate) fn last_sent_ms(&self) -> u64 {
        self.last_sent_ms.load(Relaxed)
    }

    /// The chunk, if it can be written at once; an empty one is nothing.
    fn chunk<'d>(&self, delivery: &'d Delivery) -> Option<&'d Bytes> {
        static NOTHING: Bytes = Bytes::new();
        let form = self.form?;
        if self.is_slow.load(Relaxed) {
            return None;
        }
        match stream_trait(delivery.encoded(self.slots.traits, traits)) {
            Trait::Special => None,
            Trait::Nothing => Some(&NOTHING),
            Trait::Plain => {
                if self.is_timed {
                    self.touch();
                }
                if let Some(reached) = &self.reached {
                    reached.note(delivery.message());
                }
                let slot = self.slots.forms.get(form.index())?;
                Some(delivery.encoded(*slot, |message| form.chunk(message, delivery.kind())))
            }
        }
    }

    fn is_for_it(&self, delivery: &Delivery) -> bool {
        let known = delivery.encoded(self.slots.traits, traits);
        match self.form {
            None => is_response(known),
            Some(_) => stream_trait(known) != Trait::Nothing,
        }
    }
}

impl Deliver for Inbox {
    fn deliver(&self, delivery: &Delivery, tags: &[u32], sink: &mut Sink<'_>) {
        if let Some(chunk) = self.chunk(delivery) {
            sink.send(chunk, Class::Droppable);
            return;
        }
        if !self.is_for_it(delivery) {
            if delivery.kind() == Kind::Direct {
                sink.refuse(SendError::Inexpressible);
            }
            return;
        }
        let message = delivery.message();
        if let Some(reached) = &self.reached {
            reached.note(message);
        }
        let mut waiting = self.waiting.lock();
        self.is_slow.store(true, Relaxed);
        let bytes = waiting.bytes + message.weight();
        let is_over = waiting.messages.len() >= MAX_WAITING || bytes > MAX_WAITING_BYTES;
        if is_over && !waiting.messages.is_empty() {
            // Whoever sends to this client alone is told; what all get must not be missing.
            match delivery.kind() {
                Kind::Direct => sink.refuse(SendError::Full),
                _ => waiting.has_overflowed = true,
            }
        } else {
            waiting.bytes = bytes;
            waiting.messages.push_back((Arc::clone(message), tags.first().copied().unwrap_or(u32::MAX)));
        }
        drop(waiting);
        sink.outbox().notify();
    }

    fn has_room(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.messages.len() <= MAX_WAITING / 2 && waiting.bytes <= MAX_WAITING_BYTES / 2
    }

    fn shared_frame<'d>(&self, delivery: &'d Delivery, _: &[u32], _: &Arc<Outbox>) -> Option<&'d Bytes> {
        self.chunk(delivery)
    }
}

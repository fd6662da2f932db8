//! A client that is held, as a lane sees it: what is sent as it is goes out at once, and what needs more waits for the
//! client's own task, with all that comes behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use broker_core::{
    Class, Deliver, Delivery, Kind, Message, MessageId, Outbox, Position, SendError, Sink, steady_ms,
};
use bytes::Bytes;
use websocket_over_http::Backlog;

use super::form::{Form, Slots, Trait, is_response, stream_trait, traits};

/// What a lane knows of one client.
#[derive(Debug)]
pub(crate) struct Inbox {
    slots: Slots,
    /// `None`: a response waits, and each message goes to the task.
    form: Option<Form>,
    /// Whether somebody asks when something was sent last.
    is_timed: bool,
    /// It takes all that a response waits for, and what has filters.
    backlog: Backlog,
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
            backlog: Backlog::new(has_filters || form.is_none()),
            reached,
            last_sent_ms: AtomicU64::new(steady_ms()),
        }
    }

    pub(crate) fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// From now on there are filters, or none.
    pub(crate) fn filter(&self, has_filters: bool) {
        self.backlog.take_all(has_filters || self.form.is_none());
    }

    pub(crate) fn reached(&self) -> Option<&Reached> {
        self.reached.as_ref()
    }

    /// The client has this message, or it was not for it.
    pub(crate) fn note(&self, message: &Message) {
        if let Some(reached) = &self.reached {
            reached.note(message);
        }
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
        if !self.backlog.may_be_passed() {
            return None;
        }
        match stream_trait(delivery.encoded(self.slots.traits, traits)) {
            Trait::Special => None,
            Trait::Nothing => Some(&NOTHING),
            Trait::Plain => {
                if self.is_timed {
                    self.touch();
                }
                self.note(delivery.message());
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
        self.backlog.put(delivery, tags, sink);
    }

    fn has_room(&self) -> bool {
        self.backlog.has_room()
    }

    fn shared_frame<'d>(&self, delivery: &'d Delivery, _: &[u32], _: &Arc<Outbox>) -> Option<&'d Bytes> {
        self.chunk(delivery)
    }
}

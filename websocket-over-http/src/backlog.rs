//! What waits for a client's own task, as it needs more than to be written, with all that comes behind it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use broker_core::{Delivery, Kind, Message, SendError, Sink};
use parking_lot::Mutex;

/// What may wait, in messages and in bytes.
const MAX_WAITING: usize = 1_000;
const MAX_WAITING_BYTES: usize = 1 << 20;

/// The tag of a message that was sent to its client alone: it came by no subscription.
pub const NO_TAG: u32 = u32::MAX;

/// Messages of one client that its task takes in their order: 1,000, and 1 MiB of them. While there are any, and always if
/// [told so](Self::take_all), lanes write nothing themselves.
#[derive(Debug, Default)]
pub struct Backlog {
    /// Whether a lane is to put what it has here.
    is_slow: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<(Arc<Message>, u32)>,
    bytes: usize,
    takes_all: bool,
    has_overflowed: bool,
}

impl Backlog {
    /// One that takes all from the beginning, or what is put into it.
    pub fn new(takes_all: bool) -> Self {
        let waiting = Waiting { takes_all, ..Waiting::default() };
        Self { is_slow: AtomicBool::new(takes_all), waiting: Mutex::new(waiting) }
    }

    /// Whether a lane may write past it.
    pub fn may_be_passed(&self) -> bool {
        !self.is_slow.load(Relaxed)
    }

    /// From now on all comes here, or only what is put here and what comes behind that.
    pub fn take_all(&self, takes_all: bool) {
        let mut waiting = self.waiting.lock();
        waiting.takes_all = takes_all;
        self.is_slow.store(takes_all || !waiting.messages.is_empty(), Relaxed);
    }

    /// Puts what a lane has behind the rest, with the tag of its first subscription or [`NO_TAG`], and wakes the task. Of
    /// what does not fit, whoever sends to this client alone is told; what all get must not be missing, so the task
    /// [hears of it](Self::has_overflowed).
    pub fn put(&self, delivery: &Delivery, tags: &[u32], sink: &mut Sink<'_>) {
        let message = delivery.message();
        let mut waiting = self.waiting.lock();
        self.is_slow.store(true, Relaxed);
        let bytes = waiting.bytes + message.weight();
        let is_over = waiting.messages.len() >= MAX_WAITING || bytes > MAX_WAITING_BYTES;
        if is_over && !waiting.messages.is_empty() {
            match delivery.kind() {
                Kind::Direct => sink.refuse(SendError::Full),
                _ => waiting.has_overflowed = true,
            }
        } else {
            waiting.bytes = bytes;
            waiting.messages.push_back((Arc::clone(message), tags.first().copied().unwrap_or(NO_TAG)));
        }
        drop(waiting);
        sink.outbox().notify();
    }

    /// What waits for longest, with its tag. Whoever gets nothing has nothing under way either: lanes may write again.
    pub fn take(&self) -> Option<(Arc<Message>, u32)> {
        let mut waiting = self.waiting.lock();
        let taken = waiting.messages.pop_front();
        match &taken {
            Some((message, _)) => waiting.bytes -= message.weight(),
            None => self.is_slow.store(waiting.takes_all, Relaxed),
        }
        taken
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.lock().messages.is_empty()
    }

    /// Whether half of it is free.
    pub fn has_room(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.messages.len() <= MAX_WAITING / 2 && waiting.bytes <= MAX_WAITING_BYTES / 2
    }

    /// Whether more has come than may wait.
    pub fn has_overflowed(&self) -> bool {
        self.waiting.lock().has_overflowed
    }
}

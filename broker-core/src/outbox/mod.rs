//! What waits to be written for one subscriber; bounded.
//!
//! Lanes and the connection's own task both send into it. As long as nothing waits, a frame goes straight to the
//! socket; when the socket is full the rest waits here and the connection's task finishes the flush, so that a slow
//! reader costs its lane nothing but an append.

mod state;
mod turns;

use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;

use self::state::{Label, MAX_SLICES, State};
use crate::channel::Channel;
use crate::config::{OutboxConfig, OutboxPolicy};
use crate::message::Message;

/// Where an outbox writes when it writes by itself: a socket that never blocks.
pub trait Wire: Send + Sync + 'static {
    /// Writes what the socket takes now.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing; anything else ends the connection.
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// Whether a policy may throw a frame away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It may: QoS 0, plain events.
    Droppable,
    /// It may not: acknowledgements, replies, control frames, QoS 1 and 2, a frame that introduces a topic alias.
    Control,
}

/// Why an outbox takes nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutboxEnd {
    /// The reader was too slow for the bounds.
    Overflow,
    /// The last frame was sent and written.
    Finished,
    /// The server is shutting down.
    Shutdown,
    /// Another connection took the session.
    TakenOver,
    /// An operator or the embedding service closed it.
    Kicked,
    /// The socket failed.
    Failed,
    /// Delivering to it panicked, which is a bug of the front or of what it calls.
    Broken,
}

/// What waits in an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Queued {
    /// Frames.
    pub messages: usize,
    /// Bytes.
    pub bytes: usize,
}

/// What an outbox has passed on since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Passed {
    /// Bytes written to the wire, or taken.
    pub bytes: u64,
    /// Frames of messages that its lane sent to it and to others, without asking the session for one of its own.
    pub shared: u64,
}

/// What the connection's task has to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// The socket was full: wait until it is writable, then [`Outbox::flush`].
    Flush,
    /// Frames wait and there is no wire: take them with [`Outbox::take`].
    Frames,
    /// Somebody called [`Outbox::notify`].
    Woken,
    /// Nothing more will be taken.
    Closed(OutboxEnd),
}

/// The largest page of a replay. Small, because as many replays as there are clients may wait with one; a page costs
/// its lane and its task a few microseconds.
const MAX_PAGE_MESSAGES: usize = 128;
const MAX_PAGE_BYTES: usize = 64 << 10;

/// When a frame should reach the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    /// At once, if nothing waits before it.
    Now,
    /// With the flush that follows the batch.
    Later,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Written or waiting.
    Taken,
    /// Waiting, and the first to wait for the coming flush.
    Dirty,
    /// This many frames were thrown away for it, or it was itself.
    Dropped(u64),
    /// The outbox is closed.
    Refused,
}

/// One subscriber's bounded queue of encoded frames.
///
/// # Slow or vanished readers
/// At the bound the [`OutboxPolicy`] acts on droppable frames; if the others alone exceed it, the outbox closes with
/// [`OutboxEnd::Overflow`]. A frame of which a part was written is never dropped.
pub struct Outbox {
    state: Mutex<State>,
    max_messages: u32,
    max_bytes: u32,
    policy: OutboxPolicy,
}

impl Outbox {
    /// An empty outbox without a wire.
    pub(crate) fn new(config: OutboxConfig) -> Self {
        let bound = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Self {
            state: Mutex::default(),
            max_messages: bound(config.max_messages),
            max_bytes: bound(config.max_bytes),
            policy: config.policy,
        }
    }

    /// Gives the outbox a socket to write to by itself. A frame that an earlier wire has half written is forgotten: the
    /// session decides what is sent again.
    pub fn attach_wire(&self, wire: Arc<dyn Wire>) {
        let mut state = self.state.lock();
        state.forget_half_written();
        state.wire = Some(wire);
        state.armed = false;
        state.flush();
    }

    /// Takes the socket away: frames wait for [`Outbox::take`] or the next wire. Does nothing if the outbox has been
    /// given another one since.
    pub fn detach_wire_if(&self, wire: &Arc<dyn Wire>) {
        let mut state = self.state.lock();
        if state.wire.as_ref().is_some_and(|current| Arc::ptr_eq(current, wire)) {
            state.wire = None;
            state.armed = false;
            state.task = None;
        }
    }

    /// Sends one whole frame, at once if nothing waits before it. False if the outbox is closed.
    pub fn send(&self, frame: Bytes, class: Class) -> bool {
        self.put(&frame, class, None, Flush::Now) != Sent::Refused
    }

    /// Sends one frame given in slices; it is never dropped. False if the outbox is closed.
    pub fn send_parts(&self, parts: &[Bytes]) -> bool {
        self.put_parts(parts, Flush::Now) != Sent::Refused
    }

    /// Sends a goodbye and refuses everything after it; the outbox closes with [`OutboxEnd::Finished`] when all of it
    /// is written. An empty frame only waits for what is queued.
    pub fn send_last(&self, frame: Bytes) {
        let mut state = self.state.lock();
        if state.closed.is_some() || state.finishing {
            return;
        }
        if !frame.is_empty() {
            state.push(frame, Class::Control, Label::None);
        }
        state.finishing = true;
        if !state.armed {
            state.flush();
        }
        state.wake();
    }

    /// Refuses everything from now on. What waits is still written, except after [`OutboxEnd::Overflow`], which throws
    /// it away, and [`OutboxEnd::Failed`], which leaves what was not begun for [`Outbox::take`]. The first reason
    /// stays.
    pub fn close(&self, reason: OutboxEnd) {
        self.state.lock().close(reason);
    }

    /// Wakes the connection's task with [`Signal::Woken`]: its session has something for it.
    pub fn notify(&self) {
        let mut state = self.state.lock();
        state.notified = true;
        state.wake();
    }

    /// What waits now.
    pub fn queued(&self) -> Queued {
        let state = self.state.lock();
        Queued { messages: state.queue.len(), bytes: state.bytes }
    }

    /// What it has passed on so far.
    pub fn passed(&self) -> Passed {
        self.state.lock().passed
    }

    /// Frames thrown away by the policy so far.
    pub fn dropped(&self) -> u64 {
        self.state.lock().dropped
    }

    /// Why it is closed, if it is.
    pub fn closed(&self) -> Option<OutboxEnd> {
        self.state.lock().closed
    }

    /// What the connection's task has to do; keeps its waker if nothing. One task only.
    pub fn poll_signal(&self, cx: &mut Context<'_>) -> Poll<Signal> {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.notified) {
            return Poll::Ready(Signal::Woken);
        }
        if let Some(reason) = state.closed {
            return Poll::Ready(Signal::Closed(reason));
        }
        if state.finishing && state.queue.is_empty() {
            state.close(OutboxEnd::Finished);
            return Poll::Ready(Signal::Closed(OutboxEnd::Finished));
        }
        let signal = match (&state.wire, state.armed) {
            (Some(_), true) => Some(Signal::Flush),
            (None, _) if !state.queue.is_empty() => Some(Signal::Frames),
            _ => None,
        };
        // Kept even with a signal: a flush that waits for the socket must still hear of a close.
        if !state.task.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.task = Some(cx.waker().clone());
        }
        signal.map_or(Poll::Pending, Poll::Ready)
    }

    /// Writes what waits; true if nothing is left. Bytes written so far are in [`Outbox::queued`]'s decline.
    pub fn flush(&self) -> bool {
        let mut state = self.state.lock();
        state.armed = false;
        state.flush();
        state.queue.is_empty()
    }

    /// Takes up to about `max_bytes` of what waits, for a connection that writes by itself.
    pub fn take(&self, max_bytes: usize) -> Vec<Bytes> {
        let mut state = self.state.lock();
        state.drop_expired();
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while bytes < max_bytes {
            let Some(mut item) = state.pop() else { break };
            // A wire may have written a part before it was taken away.
            item.bytes.advance(std::mem::take(&mut state.written));
            bytes += item.bytes.len();
            frames.push(item.bytes);
        }
        state.passed.bytes += bytes as u64;
        state.dirty = false;
        state.tell_drained();
        frames
    }

    /// Whether a page of a replay fits: less than half a page waits, or nothing before a page heavier than that. A
    /// reader that does not read holds a page and a half, however much its outbox may hold.
    fn has_room_for_page(&self, state: &State, bytes: usize) -> bool {
        if bytes > self.page_bytes() {
            return state.queue.is_empty();
        }
        state.queue.len() <= self.page_messages() / 2 && state.bytes <= self.page_bytes() / 2
    }

    /// What a page of a replay may weigh: a quarter of the outbox at most, as its frames may be longer.
    pub(crate) fn page_bytes(&self) -> usize {
        (self.max_bytes as usize / 4).min(MAX_PAGE_BYTES)
    }

    /// How many messages a page of a replay may have.
    pub(crate) fn page_messages(&self) -> usize {
        (self.max_messages as usize / 2).clamp(1, MAX_PAGE_MESSAGES)
    }

    /// Whether a frame of so many bytes fits without anything being thrown away for it.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        let mut state = self.state.lock();
        let fits =
            |state: &State| self.fits(Queued { messages: state.queue.len(), bytes: state.bytes }, bytes);
        if !fits(&state) {
            state.drop_expired();
        }
        state.closed.is_none() && !state.finishing && fits(&state)
    }

    /// An empty outbox takes one frame of any size.
    fn fits(&self, queued: Queued, bytes: usize) -> bool {
        let (max_messages, max_bytes) = (self.max_messages as usize, self.max_bytes as usize);
        queued.messages == 0 || queued.messages < max_messages && queued.bytes + bytes <= max_bytes
    }

    pub(crate) fn put(
        &self,
        frame: &Bytes,
        class: Class,
        message: Option<&Arc<Message>>,
        flush: Flush,
    ) -> Sent {
        let mut state = self.state.lock();
        let label = || message.map_or(Label::None, |message| Label::of(message, self.policy));
        self.put_locked(&mut state, frame, class, message.map(|message| message.channel()), label, flush)
    }

    /// Sends a droppable frame that many subscribers share.
    pub(crate) fn put_shared_one(&self, frame: &Bytes, message: &Arc<Message>, flush: Flush) -> Sent {
        let mut state = self.state.lock();
        let label = || Label::of(message, self.policy);
        state.passed.shared += 1;
        self.put_locked(&mut state, frame, Class::Droppable, Some(message.channel()), label, flush)
    }

    /// Sends droppable frames that many subscribers share, in one write if nothing waits.
    pub(crate) fn put_shared(&self, frames: &[(&Bytes, &Arc<Message>)], flush: Flush) -> Sent {
        let mut state = self.state.lock();
        if state.closed.is_some() || state.finishing {
            return Sent::Refused;
        }
        state.passed.shared += frames.len() as u64;
        let direct = flush == Flush::Now && state.queue.is_empty() && frames.len() <= MAX_SLICES;
        let rest = if direct { state.write_shared(frames) } else { frames };
        let (mut dirty, mut dropped) = (false, 0);
        for (frame, message) in rest {
            let label = || Label::of(message, self.policy);
            match self.put_locked(&mut state, frame, Class::Droppable, Some(message.channel()), label, flush)
            {
                Sent::Taken => {}
                Sent::Dirty => dirty = true,
                Sent::Dropped(count) => dropped += count,
                Sent::Refused => break,
            }
        }
        match (dirty, dropped) {
            (true, _) => Sent::Dirty,
            (false, 0) => Sent::Taken,
            (false, dropped) => Sent::Dropped(dropped),
        }
    }

    /// Queues a message for an in-process reader.
    pub(crate) fn put_message(&self, message: &Arc<Message>) -> Sent {
        let mut state = self.state.lock();
        let (payload, label) = (message.payload(), || Label::Held(Arc::clone(message)));
        let channel = Some(message.channel());
        self.put_weighed(&mut state, payload, message.weight(), Class::Droppable, channel, label, Flush::Now)
    }

    /// Takes the oldest message of an in-process reader.
    pub(crate) fn take_message(&self) -> Option<Arc<Message>> {
        let mut state = self.state.lock();
        state.drop_expired();
        let item = state.pop()?;
        if self.has_room_for_page(&state, 0) {
            state.tell_drained();
        }
        match item.label {
            Label::Held(message) => Some(message),
            _ => None,
        }
    }

    #[inline]
    fn put_locked(
        &self,
        state: &mut State,
        frame: &Bytes,
        class: Class,
        channel: Option<&Channel>,
        label: impl FnOnce() -> Label,
        flush: Flush,
    ) -> Sent {
        self.put_weighed(state, frame, frame.len(), class, channel, label, flush)
    }

    /// Puts a frame that counts so much in the budget.
    #[expect(clippy::too_many_arguments, reason = "all of them are what one frame is")]
    fn put_weighed(
        &self,
        state: &mut State,
        frame: &Bytes,
        weight: usize,
        class: Class,
        channel: Option<&Channel>,
        label: impl FnOnce() -> Label,
        flush: Flush,
    ) -> Sent {
        if state.closed.is_some() || state.finishing {
            return Sent::Refused;
        }
        if state.queue.is_empty() && flush == Flush::Now && state.write_direct(frame, class) {
            return Sent::Taken;
        }
        if state.closed.is_some() {
            return Sent::Refused;
        }
        self.make_room(state, weight, flush);
        let written = state.written;
        let dropped = match self.admit(state, weight, class, channel) {
            Admission::Push(dropped) => {
                state.push(frame.clone(), class, label());
                dropped
            }
            Admission::Replace(index) => {
                // At the end, not in its place: a publisher's messages on several channels keep their order.
                state.remove(index);
                state.push(frame.clone(), class, label());
                1
            }
            Admission::Drop => 1,
            Admission::Close => {
                state.close(OutboxEnd::Overflow);
                return Sent::Dropped(1);
            }
        };
        debug_assert!(written == state.written, "a partly written frame stays");
        state.dropped += dropped;
        let sent = state.after_append(flush);
        if dropped > 0 && sent != Sent::Dirty { Sent::Dropped(dropped) } else { sent }
    }

    pub(crate) fn put_parts(&self, parts: &[Bytes], flush: Flush) -> Sent {
        let mut state = self.state.lock();
        if state.closed.is_some() || state.finishing {
            return Sent::Refused;
        }
        let bytes = parts.iter().map(Bytes::len).sum();
        self.make_room(&mut state, bytes, flush);
        if let Admission::Close = self.admit(&mut state, bytes, Class::Control, None) {
            state.close(OutboxEnd::Overflow);
            return Sent::Dropped(1);
        }
        for part in parts.iter().filter(|part| !part.is_empty()) {
            state.push(part.clone(), Class::Control, Label::None);
        }
        state.after_append(flush)
    }

    /// Ends a batch: writes what [`Flush::Later`] left.
    pub(crate) fn flush_batch(&self) {
        let mut state = self.state.lock();
        state.dirty = false;
        if !state.armed {
            state.flush();
        }
        if state.wire.is_none() {
            state.wake();
        }
    }

    /// A batch that is longer than the queue is written in pieces: its own length is no reason to drop.
    fn make_room(&self, state: &mut State, bytes: usize, flush: Flush) {
        let queued = Queued { messages: state.queue.len(), bytes: state.bytes };
        if flush == Flush::Later && !state.armed && !self.fits(queued, bytes) {
            state.flush();
        }
    }

    fn admit(&self, state: &mut State, bytes: usize, class: Class, channel: Option<&Channel>) -> Admission {
        let first_droppable = usize::from(state.written > 0);
        if self.policy == OutboxPolicy::Conflate && class == Class::Droppable && channel.is_some() {
            let same =
                state.queue.iter().skip(first_droppable).rposition(|item| item.label.channel() == channel);
            if let Some(index) = same {
                return Admission::Replace(index + first_droppable);
            }
        }
        let fits = |queued: Queued| self.fits(queued, bytes);
        if fits(Queued { messages: state.queue.len(), bytes: state.bytes }) {
            return Admission::Push(0);
        }
        // What will not be sent any more takes no room from what will.
        state.drop_expired();
        if fits(Queued { messages: state.queue.len(), bytes: state.bytes }) {
            return Admission::Push(0);
        }
        if class == Class::Control {
            return if fits(state.control) { Admission::Push(0) } else { Admission::Close };
        }
        match self.policy {
            OutboxPolicy::DropNewest => Admission::Drop,
            OutboxPolicy::Disconnect => Admission::Close,
            OutboxPolicy::DropOldest | OutboxPolicy::Conflate => {
                let mut dropped = 0;
                while !fits(Queued { messages: state.queue.len(), bytes: state.bytes }) {
                    let oldest = state
                        .queue
                        .iter()
                        .skip(first_droppable)
                        .position(|item| item.class == Class::Droppable)
                        .map(|index| index + first_droppable);
                    let Some(index) = oldest else {
                        state.dropped += dropped;
                        return Admission::Drop;
                    };
                    state.remove(index);
                    dropped += 1;
                }
                Admission::Push(dropped)
            }
        }
    }
}

enum Admission {
    Push(u64),
    Replace(usize),
    Drop,
    Close,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("queued", &self.queued()).finish_non_exhaustive()
    }
}

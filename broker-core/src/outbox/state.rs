//! The queue behind an outbox's mutex: what waits, what is on the wire, who is to be woken.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use smallvec::SmallVec;

use super::turns::Turns;
use super::{Class, Flush, OutboxEnd, Passed, Queued, Sent, Wire};
use crate::channel::Channel;
use crate::clock::steady_ms;
use crate::config::OutboxPolicy;
use crate::message::Message;

#[derive(Default)]
pub(super) struct State {
    pub(super) queue: VecDeque<Item>,
    pub(super) bytes: usize,
    pub(super) control: Queued,
    /// How many of the queue have an end.
    pub(super) expiring: usize,
    /// Nothing is over before this, while some have an end.
    pub(super) next_end_ms: u64,
    /// Bytes of `queue[0]` that are on the wire already.
    pub(super) written: usize,
    pub(super) wire: Option<Arc<dyn Wire>>,
    /// The connection's task owns the flush: the socket was full.
    pub(super) armed: bool,
    pub(super) dirty: bool,
    pub(super) notified: bool,
    pub(super) finishing: bool,
    pub(super) closed: Option<OutboxEnd>,
    pub(super) task: Option<Waker>,
    /// Made while there are pages to come.
    pub(super) turns: Option<Box<Turns>>,
    pub(super) dropped: u64,
    pub(super) passed: Passed,
}

pub(super) struct Item {
    pub(super) bytes: Bytes,
    pub(super) class: Class,
    pub(super) label: Label,
}

/// What a frame is, beyond its bytes, where somebody needs to know.
#[derive(Clone)]
pub(super) enum Label {
    None,
    /// For conflation.
    Channel(Channel),
    /// For a message whose time may be over before it is written.
    Message(Arc<Message>),
    /// For an in-process subscription, which wants the message and not its encoding. It counts what the message weighs,
    /// as that is what is held.
    Held(Arc<Message>),
}

impl Label {
    pub(super) fn of(message: &Arc<Message>, policy: OutboxPolicy) -> Self {
        if message.expires_at_ms().is_some() {
            Self::Message(Arc::clone(message))
        } else if policy == OutboxPolicy::Conflate {
            Self::Channel(message.channel().clone())
        } else {
            Self::None
        }
    }

    /// When its time is over, if it ever is.
    fn ends_at_ms(&self) -> Option<u64> {
        match self {
            Self::Message(message) | Self::Held(message) => message.expires_at_ms(),
            _ => None,
        }
    }

    pub(super) fn channel(&self) -> Option<&Channel> {
        match self {
            Label::None => None,
            Label::Channel(channel) => Some(channel),
            Label::Message(message) | Label::Held(message) => Some(message.channel()),
        }
    }
}

impl Item {
    fn weight(&self) -> usize {
        match &self.label {
            Label::Held(message) => message.weight(),
            _ => self.bytes.len(),
        }
    }
}

/// Slices per `writev`; the kernel's own bound is 1,024.
pub(super) const MAX_SLICES: usize = 64;

/// A queue that grew past this gives its memory back once it is empty.
const KEEP_CAPACITY: usize = 8;

impl State {
    /// Writes a frame past the empty queue; true if nothing of it is left. A rest is queued.
    pub(super) fn write_direct(&mut self, frame: &Bytes, class: Class) -> bool {
        let Some(wire) = &self.wire else { return false };
        match wire.try_write_vectored(&[IoSlice::new(frame)]) {
            Ok(written) if written == frame.len() => {
                self.passed.bytes += written as u64;
                true
            }
            Ok(written) => {
                self.passed.bytes += written as u64;
                self.push(frame.clone(), class, Label::None);
                self.written = written;
                self.arm();
                true
            }
            Err(error) if is_retry(&error) => {
                self.armed = true;
                self.wake();
                false
            }
            Err(_) => {
                self.close(OutboxEnd::Failed);
                false
            }
        }
    }

    /// Writes frames past the empty queue; those of which nothing was written are left.
    pub(super) fn write_shared<'f, 'm>(
        &mut self,
        frames: &'f [(&'m Bytes, &'m Arc<Message>)],
    ) -> &'f [(&'m Bytes, &'m Arc<Message>)] {
        let Some(wire) = &self.wire else { return frames };
        let mut slices = SmallVec::<[IoSlice<'_>; MAX_SLICES]>::new();
        for (frame, _) in frames {
            slices.push(IoSlice::new(frame));
        }
        match wire.try_write_vectored(&slices) {
            Ok(mut written) => {
                self.passed.bytes += written as u64;
                let mut rest = frames;
                while let Some(((frame, _), later)) = rest.split_first() {
                    if written < frame.len() {
                        break;
                    }
                    written -= frame.len();
                    rest = later;
                }
                if let Some(((half, _), later)) = rest.split_first() {
                    if written > 0 {
                        self.push(Bytes::clone(half), Class::Droppable, Label::None);
                        self.written = written;
                        rest = later;
                    }
                    self.arm();
                }
                rest
            }
            Err(error) if is_retry(&error) => {
                self.arm();
                frames
            }
            Err(_) => {
                self.close(OutboxEnd::Failed);
                &[]
            }
        }
    }

    pub(super) fn after_append(&mut self, flush: Flush) -> Sent {
        if self.wire.is_none() && flush == Flush::Now {
            self.wake();
        } else if !self.armed {
            if flush == Flush::Now {
                self.flush();
            } else if !self.dirty {
                self.dirty = true;
                return Sent::Dirty;
            }
        }
        Sent::Taken
    }

    pub(super) fn flush(&mut self) {
        let Some(wire) = self.wire.clone() else { return };
        self.drop_expired();
        while !self.queue.is_empty() {
            let taken = wire.try_write_vectored(&self.slices());
            match taken {
                Ok(0) => return self.close(OutboxEnd::Failed),
                Ok(written) => self.advance(written),
                Err(error) if is_retry(&error) => {
                    self.arm();
                    break;
                }
                Err(_) => return self.close(OutboxEnd::Failed),
            }
        }
        self.tell_drained();
    }

    /// What waits, as the kernel wants it, without the part of the head that is written.
    pub(super) fn slices(&self) -> SmallVec<[IoSlice<'_>; MAX_SLICES]> {
        let mut skip = self.written;
        let rest = |item| {
            let Item { bytes, .. }: &Item = item;
            IoSlice::new(bytes.get(std::mem::take(&mut skip)..).unwrap_or_default())
        };
        self.queue.iter().take(MAX_SLICES).map(rest).collect()
    }

    pub(super) fn advance(&mut self, written: usize) {
        self.written += written;
        self.passed.bytes += written as u64;
        while let Some(head) = self.queue.front() {
            if self.written < head.bytes.len() {
                return;
            }
            self.written -= head.bytes.len();
            self.pop();
        }
    }

    pub(super) fn arm(&mut self) {
        self.armed = true;
        self.wake();
    }

    pub(super) fn push(&mut self, bytes: Bytes, class: Class, label: Label) {
        if let Some(end) = label.ends_at_ms() {
            self.next_end_ms = if self.expiring == 0 { end } else { self.next_end_ms.min(end) };
            self.expiring += 1;
        }
        let item = Item { bytes, class, label };
        self.bytes += item.weight();
        if class == Class::Control {
            self.control.messages += 1;
            self.control.bytes += item.weight();
        }
        self.queue.push_back(item);
    }

    pub(super) fn pop(&mut self) -> Option<Item> {
        let item = self.queue.pop_front()?;
        self.forget(&item);
        if self.queue.is_empty() && self.queue.capacity() > KEEP_CAPACITY {
            self.queue = VecDeque::new();
        }
        Some(item)
    }

    pub(super) fn remove(&mut self, index: usize) {
        if let Some(item) = self.queue.remove(index) {
            self.forget(&item);
        }
    }

    /// Once its time is over, a message is not sent any more; a frame of which a part was written is finished.
    pub(super) fn drop_expired(&mut self) {
        if self.expiring == 0 {
            return;
        }
        let now_ms = steady_ms();
        if now_ms < self.next_end_ms {
            return;
        }
        let mut begun = self.written > 0;
        let mut next_end_ms = u64::MAX;
        let mut queue = std::mem::take(&mut self.queue);
        queue.retain(|item| {
            let end = item.label.ends_at_ms().unwrap_or(u64::MAX);
            let stays = std::mem::take(&mut begun) || now_ms < end;
            if stays {
                next_end_ms = next_end_ms.min(end);
            } else {
                self.forget(item);
            }
            stays
        });
        self.queue = queue;
        self.next_end_ms = next_end_ms;
    }

    pub(super) fn forget(&mut self, item: &Item) {
        self.expiring -= usize::from(item.label.ends_at_ms().is_some());
        self.bytes -= item.weight();
        if item.class == Class::Control {
            self.control.messages -= 1;
            self.control.bytes -= item.weight();
        }
    }

    pub(super) fn forget_half_written(&mut self) {
        if std::mem::take(&mut self.written) > 0 {
            self.pop();
        }
    }

    pub(super) fn clear(&mut self) {
        self.queue = VecDeque::new();
        self.bytes = 0;
        self.control = Queued::default();
        self.expiring = 0;
        self.written = 0;
    }

    pub(super) fn close(&mut self, reason: OutboxEnd) {
        if self.closed.is_some() {
            return;
        }
        self.closed = Some(reason);
        match reason {
            OutboxEnd::Overflow => self.clear(),
            OutboxEnd::Failed => {
                self.forget_half_written();
                self.wire = None;
            }
            _ => {
                if !self.armed {
                    self.flush();
                }
            }
        }
        self.wake();
        self.end_turns();
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.task.take() {
            waker.wake();
        }
    }
}

fn is_retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

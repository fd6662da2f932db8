//! Questions to the log.
//!
//! A reader holds its position and nothing of the log: it reads a few segments at a time and lets others run in
//! between.

use std::sync::Arc;

use super::log::{Bounds, Log, Reader};
use crate::filter::Filter;
use crate::interest::Registry;
use crate::message::{Message, MessageId};

/// Where a replay starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum After {
    /// After this message.
    Id(MessageId),
    /// With the oldest message that is kept; never a gap.
    Earliest,
}

/// A position that the log no longer reaches: messages after it are, or may be, gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// What was asked for.
    pub requested: MessageId,
    /// The oldest position that can be resumed from.
    pub first: MessageId,
    /// The next message that will be delivered; `None` if it is not known yet.
    pub next: Option<MessageId>,
}

impl Gap {
    /// From what was asked for to what there is.
    pub fn new(requested: MessageId, first: MessageId, next: Option<MessageId>) -> Self {
        Self { requested, first, next }
    }
}

/// In which order history comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Oldest first.
    #[default]
    Oldest,
    /// Newest first.
    Newest,
}

/// A question to the log.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct HistoryQuery {
    /// Only messages after this one. Default: all that are kept.
    pub after: Option<MessageId>,
    /// How many at most. Default 100.
    pub limit: usize,
    /// Default oldest first.
    pub order: Order,
}

impl Default for HistoryQuery {
    fn default() -> Self {
        Self { after: None, limit: 100, order: Order::Oldest }
    }
}

/// The log's answer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct History {
    /// The messages, without those whose time is over.
    pub messages: Vec<Arc<Message>>,
    /// The oldest position that can be resumed from.
    pub first: MessageId,
    /// The newest position: ask again after it for what comes.
    pub last: MessageId,
    /// Messages after [`HistoryQuery::after`] are, or may be, gone.
    pub gap: bool,
}

/// A question on its way through the log, a few segments at a time.
pub(crate) struct Asking<'b> {
    log: &'b Log,
    registry: &'b Registry,
    reader: Reader,
    query: HistoryQuery,
    /// Read up to here, or down to here.
    position: u64,
    messages: Vec<Arc<Message>>,
    head: u64,
    first: u64,
    after: u64,
    /// The position asked for means nothing here.
    foreign: bool,
}

impl<'b> Asking<'b> {
    pub(crate) fn new(log: &'b Log, registry: &'b Registry, filter: &Filter, query: HistoryQuery) -> Self {
        let reader = Reader::new(std::slice::from_ref(filter), log);
        let (head, first) = log.reach(reader.rings());
        let foreign = query.after.is_some_and(|id| id.epoch() != log.epoch() || id.offset() > head);
        let after = query.after.filter(|_| !foreign).map_or(0, |id| id.offset());
        let position = if query.order == Order::Oldest { after } else { head };
        Self { log, registry, reader, query, position, messages: Vec::new(), head, first, after, foreign }
    }

    /// Reads a few segments; false once there is nothing left to read.
    pub(crate) fn step(&mut self) -> bool {
        let (log, registry) = (self.log, self.registry);
        let left = self.query.limit.saturating_sub(self.messages.len());
        if left == 0 {
            return false;
        }
        let bounds = Bounds { messages: left, bytes: usize::MAX };
        let page = match self.query.order {
            Order::Oldest => self.reader.read(log, registry, self.position, bounds),
            Order::Newest => self.reader.read_back(log, registry, self.after, self.position, left),
        };
        self.position = page.through;
        // What came while this was asked is for the next question.
        self.messages.extend(page.messages.into_iter().filter(|message| message.offset() <= self.head));
        !page.complete && (self.query.order == Order::Newest || self.position < self.head)
    }

    pub(crate) fn answer(self) -> History {
        let log = self.log;
        // Looked at last: what went while this was read is a gap, too.
        let has_lost = || self.reader.has_lost(log, self.registry, self.after);
        let gap = self.foreign || self.query.after.is_some() && has_lost();
        History { messages: self.messages, first: log.id(self.first), last: log.id(self.head), gap }
    }
}

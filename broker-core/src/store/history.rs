//! Questions to the log.
//!
//! A reader holds its position and nothing of the log: it reads a few segments at a time and lets others run in
//! between.

use std::sync::Arc;

use smallvec::SmallVec;

use super::log::{Bounds, Log, Reader};
use crate::filter::Filter;
use crate::interest::Registry;
use crate::message::{Message, MessageId, Position};

/// Where a replay starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum After {
    /// After this message.
    Id(MessageId),
    /// After this position, which may be one in each of two logs.
    Position(Position),
    /// With the oldest message that is kept; never a gap.
    Earliest,
}

impl After {
    /// The position; `None`: the earliest.
    pub fn position(self) -> Option<Position> {
        match self {
            Self::Id(id) => Some(id.into()),
            Self::Position(position) => Some(position),
            Self::Earliest => None,
        }
    }
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
    pub after: Option<Position>,
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
    pub first: Position,
    /// The newest position: ask again after it for what comes.
    pub last: Position,
    /// Messages after [`HistoryQuery::after`] are, or may be, gone.
    pub gap: bool,
    /// Behind which what was read begins.
    begin: Position,
    /// There was not room for more messages, so that there may be more before `last`.
    is_full: bool,
    order: Order,
}

impl History {
    /// Where somebody stands who has the first `count` of the messages, oldest first: to ask again after it misses nothing
    /// and repeats nothing, also where the messages lie in two logs, of which a message's id names one. The newest first,
    /// it is where the logs stand.
    pub fn position_after(&self, count: usize) -> Position {
        if self.order == Order::Newest || count >= self.messages.len() && !self.is_full {
            return self.last;
        }
        let ids = self.messages.iter().take(count).filter_map(|message| message.id());
        ids.fold(self.begin, Position::with)
    }

    /// The answers of all logs that were asked, which is one at least, as one: by their times, as there is no other order
    /// between two logs, and each log in its own.
    pub(crate) fn of(parts: SmallVec<[Self; 2]>, query: HistoryQuery) -> Self {
        let mut parts = parts.into_iter();
        let none = MessageId::new(0, 0).into();
        let Some(mut all) = parts.next() else {
            let (messages, order) = (Vec::new(), query.order);
            return Self {
                messages,
                first: none,
                last: none,
                gap: false,
                begin: none,
                is_full: false,
                order,
            };
        };
        for part in parts {
            all.messages = merged(all.messages, part.messages, query.order);
            all.is_full |= part.is_full || all.messages.len() > query.limit;
            all.messages.truncate(query.limit);
            let join = |one: Position, other: Position| other.ids().fold(one, Position::with);
            all.first = join(all.first, part.first);
            all.last = join(all.last, part.last);
            all.begin = join(all.begin, part.begin);
            all.gap |= part.gap;
        }
        all
    }
}

/// Two logs' messages by their times. A clock that was set back changes the order of neither.
fn merged(one: Vec<Arc<Message>>, other: Vec<Arc<Message>>, order: Order) -> Vec<Arc<Message>> {
    let mut all = Vec::with_capacity(one.len() + other.len());
    let (mut one, mut other) = (one.into_iter().peekable(), other.into_iter().peekable());
    while let (Some(first), Some(second)) = (one.peek(), other.peek()) {
        let first_comes = match order {
            Order::Oldest => first.time_ms() <= second.time_ms(),
            Order::Newest => first.time_ms() > second.time_ms(),
        };
        all.extend(if first_comes { one.next() } else { other.next() });
    }
    all.extend(one);
    all.extend(other);
    all
}

/// A question to an [`Engine`](crate::Engine) for a page of what it keeps and the broker's memory has no more.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Read {
    /// Messages that one of these matches.
    pub filters: SmallVec<[Filter; 1]>,
    /// Only those after this offset,
    pub after: u64,
    /// up to this one. Where none is asked for so, the answer still says what is the oldest position.
    pub through: u64,
    /// From which end.
    pub order: Order,
    /// How many at most.
    pub max_messages: usize,
    /// What they may weigh; the first may weigh more.
    pub max_bytes: usize,
}

/// An engine's answer to a [`Read`]. It reads as much as it likes at a time, but something.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LogPage {
    /// The messages in the order that was asked for, without those whose time is over. Their epoch is that of the
    /// engine's log.
    pub messages: Vec<Arc<Message>>,
    /// All up to here has been read, or down to here.
    pub through: u64,
    /// The oldest position from which all is there still.
    pub first: u64,
}

impl LogPage {
    /// A page: see its fields.
    pub fn new(messages: Vec<Arc<Message>>, through: u64, first: u64) -> Self {
        Self { messages, through, first }
    }
}

/// What a question reads next.
pub(crate) enum Next {
    /// A few segments were read.
    Memory,
    /// Whoever keeps it is to be asked: [`Asking::take`] or [`Asking::miss`] follows.
    Kept(Read),
}

/// A question on its way through one log, a few segments at a time. Of what an engine keeps the memory has the newest, and
/// the engine is asked for the rest.
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
    /// Going back, the memory is read down to here.
    floor: u64,
    /// The position asked for means nothing here.
    foreign: bool,
    /// An engine has what the memory has no more.
    is_kept: bool,
    /// It was asked.
    was_asked: bool,
    /// It has answered.
    has_taken: bool,
    /// All in memory was read.
    is_over: bool,
}

/// What is read of an engine at a time.
const ENGINE_PAGE: Bounds = Bounds { messages: 256, bytes: 256 << 10 };

impl<'b> Asking<'b> {
    pub(crate) fn new(
        log: &'b Log,
        is_kept: bool,
        registry: &'b Registry,
        filter: &Filter,
        query: HistoryQuery,
    ) -> Self {
        let reader = Reader::new(std::slice::from_ref(filter), log);
        let (head, first) = log.reach(reader.rings());
        let offset = query.after.and_then(|position| position.in_epoch(log.epoch()));
        let foreign = query.after.is_some() && offset.is_none_or(|offset| offset > head);
        let after = offset.filter(|_| !foreign).unwrap_or(0);
        let position = if query.order == Order::Oldest { after } else { head };
        // Nothing is shown of what is not recorded.
        let is_kept = is_kept && !reader.rings().is_empty();
        let is_short = is_kept && reader.has_lost(log, registry, after);
        Self {
            log,
            registry,
            reader,
            query,
            position,
            messages: Vec::new(),
            head,
            first,
            after,
            floor: if is_short { first.max(after) } else { after },
            foreign,
            is_kept,
            was_asked: false,
            has_taken: false,
            is_over: false,
        }
    }

    /// Reads a few segments, or says what an engine is to be asked; `None` once there is nothing left to read.
    pub(crate) fn next(&mut self) -> Option<Next> {
        if self.query.limit <= self.messages.len() {
            return None;
        }
        match self.query.order {
            Order::Oldest if self.is_kept => {
                let through = self.log.evicted_through(self.reader.rings()).min(self.head);
                if self.position < through && self.reader.has_lost(self.log, self.registry, self.position) {
                    return Some(self.ask(self.position, through));
                }
            }
            Order::Newest if self.is_kept && self.is_over && self.floor > self.after => {
                if !self.was_asked {
                    // Down to here nothing has gone from any ring: what is older is the engine's.
                    self.position =
                        self.log.evicted_through(self.reader.rings()).max(self.floor).min(self.head);
                    self.messages.retain(|message| message.offset() > self.position);
                }
                return (self.after < self.position).then(|| self.ask(self.after, self.position));
            }
            _ => {}
        }
        self.step().then_some(Next::Memory)
    }

    fn ask(&mut self, after: u64, through: u64) -> Next {
        self.was_asked = true;
        let left = self.query.limit.saturating_sub(self.messages.len());
        Next::Kept(Read {
            filters: self.reader.filters().into(),
            after,
            through,
            order: self.query.order,
            max_messages: left.min(ENGINE_PAGE.messages),
            max_bytes: ENGINE_PAGE.bytes,
        })
    }

    /// What an engine answered.
    pub(crate) fn take(&mut self, page: LogPage) {
        self.messages.extend(page.messages);
        // A later page may know less of what is missing behind the position that was asked for.
        self.first = if self.has_taken { self.first.max(page.first) } else { page.first };
        self.has_taken = true;
        // One that does not get on would be asked for ever.
        self.position = match self.query.order {
            Order::Oldest => page.through.max(self.position + 1),
            Order::Newest => page.through.min(self.position - 1),
        };
    }

    /// Nobody can be asked: what is in memory is all.
    pub(crate) fn miss(&mut self) {
        (self.is_kept, self.was_asked) = (false, false);
    }

    /// False once there is nothing left to read.
    fn step(&mut self) -> bool {
        let (log, registry) = (self.log, self.registry);
        if self.is_over {
            return false;
        }
        let left = self.query.limit.saturating_sub(self.messages.len());
        let bounds = Bounds { messages: left, bytes: usize::MAX };
        let page = match self.query.order {
            Order::Oldest => self.reader.read(log, registry, self.position, bounds),
            Order::Newest => self.reader.read_back(log, registry, self.floor, self.position, left),
        };
        self.position = page.through;
        // What came while this was asked is for the next question.
        self.messages.extend(page.messages.into_iter().filter(|message| message.offset() <= self.head));
        self.is_over = page.complete || self.query.order == Order::Oldest && self.position >= self.head;
        true
    }

    pub(crate) fn answer(self) -> History {
        let log = self.log;
        let gap = if self.was_asked {
            self.foreign || self.query.after.is_some() && self.after < self.first
        } else {
            // Looked at last: what went while this was read is a gap, too.
            let has_lost = || self.reader.has_lost(log, self.registry, self.after);
            self.foreign || self.query.after.is_some() && has_lost()
        };
        let begin = if gap || self.query.after.is_none() { self.first.max(self.after) } else { self.after };
        let (first, last, begin) = (log.id(self.first), log.id(self.head), log.id(begin));
        History {
            first: first.into(),
            last: last.into(),
            gap,
            begin: begin.into(),
            is_full: self.messages.len() >= self.query.limit,
            order: self.query.order,
            messages: self.messages,
        }
    }
}

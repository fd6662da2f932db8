//! Reading the log: history, and a subscriber that catches up without loss or repeat.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::broker::Shared;
use crate::channel::Channel;
use crate::delivery::Kind;
use crate::filter::Filter;
use crate::lane::{Command, Feed, Then};
use crate::log::{Log, Snapshot};
use crate::message::{Message, MessageId, unix_ms};
use crate::outbox::Outbox;
use crate::registry::Registry;
use crate::subscriber::{NO_ROOM_PAUSE, SubscriberKey};

/// Where a replay starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// After this message.
    Id(MessageId),
    /// With the oldest message that is kept; never a gap.
    Earliest,
}

/// A position that the log no longer reaches: messages after it are, or may be, gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// What was asked for.
    pub requested: MessageId,
    /// The oldest position that can be resumed from.
    pub first: MessageId,
    /// The next message that will be delivered; `None` if it is not known yet.
    pub next: Option<MessageId>,
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

pub(crate) fn history(log: &Log, registry: &Registry, filter: &Filter, query: HistoryQuery) -> History {
    let requested = query.after;
    let foreign = requested.is_some_and(|id| id.epoch != log.epoch());
    let after = requested.filter(|_| !foreign).map_or(0, |id| id.offset);
    let mut reader = Reader::new(std::slice::from_ref(filter), log);
    let snapshot = log.snapshot(reader.rings.iter().copied(), after);
    let ahead = after > snapshot.head;
    let after = if ahead { 0 } else { after };
    let messages = match query.order {
        Order::Oldest => reader.read(&snapshot, registry, after, query.limit, usize::MAX).messages,
        Order::Newest => reader.newest(&snapshot, registry, after, query.limit),
    };
    let gap = requested.is_some() && (foreign || ahead || reader.has_lost(&snapshot, registry, after));
    History { messages, first: log.id(snapshot.reaches_back_to()), last: log.id(snapshot.head), gap }
}

/// Reads what some filters want, in order.
struct Reader {
    filters: Vec<Filter>,
    rings: SmallVec<[usize; 2]>,
    /// For literal filters: what following `prev` found and has not been read yet.
    found: Option<Found>,
}

struct Found {
    /// Ascending.
    offsets: VecDeque<u64>,
    /// The head when they were looked for: what came later is not among them.
    head: u64,
}

struct Page {
    messages: Vec<Arc<Message>>,
    /// Everything up to here has been read.
    through: u64,
    bytes: usize,
    /// Nothing wanted is left up to the snapshot's head.
    complete: bool,
}

impl Reader {
    fn new(filters: &[Filter], log: &Log) -> Self {
        let mut rings: SmallVec<[usize; 2]> = SmallVec::new();
        let literal: Option<Vec<_>> = filters.iter().map(Filter::as_literal).collect();
        match literal {
            Some(channels) => {
                for ring in channels.iter().filter_map(|channel| log.ring_of(channel.namespace())) {
                    if !rings.contains(&ring) {
                        rings.push(ring);
                    }
                }
            }
            None => rings.extend(log.all_rings()),
        }
        Self { filters: filters.to_vec(), rings, found: None }
    }

    fn is_literal(&self) -> bool {
        self.filters.iter().all(|filter| filter.as_literal().is_some())
    }

    fn wants(&self, message: &Message) -> bool {
        self.filters.iter().any(|filter| filter.matches(message.channel()))
    }

    /// Whether wanted messages after `after` are gone. Exact for a channel that is known; otherwise what the ring lost.
    fn has_lost(&self, snapshot: &Snapshot, registry: &Registry, after: u64) -> bool {
        if !self.is_literal() {
            return snapshot.has_lost(after);
        }
        self.filters.iter().filter_map(Filter::as_literal).any(|channel| {
            let lost = self.rings.iter().any(|ring| snapshot.has_lost_in(*ring, after));
            if !lost || registry.last(channel).is_none_or(|last| last == 0) {
                return lost;
            }
            let last = self.last_in(snapshot, registry, channel);
            match snapshot.chain(last, after).last() {
                // Its predecessor is at or before the position, or unknown.
                Some(oldest) => oldest.prev() > after || oldest.prev() == 0,
                None => last > after,
            }
        })
    }

    fn read(
        &mut self,
        snapshot: &Snapshot,
        registry: &Registry,
        after: u64,
        limit: usize,
        max_bytes: usize,
    ) -> Page {
        if self.is_literal() {
            self.read_chains(snapshot, registry, after, limit, max_bytes)
        } else {
            self.scan(snapshot, after, limit, max_bytes)
        }
    }

    /// Follows the channels' own chains once, then reads page by page what they named: costs what the channels have, not
    /// what the log has.
    fn read_chains(
        &mut self,
        snapshot: &Snapshot,
        registry: &Registry,
        after: u64,
        limit: usize,
        max_bytes: usize,
    ) -> Page {
        let mut found = self.found.take().unwrap_or_else(|| {
            let mut offsets = Vec::new();
            for channel in self.filters.iter().filter_map(Filter::as_literal) {
                let last = self.last_in(snapshot, registry, channel);
                offsets.extend(snapshot.chain(last, after).map(|message| message.offset()));
            }
            offsets.sort_unstable();
            offsets.dedup();
            Found { offsets: offsets.into(), head: snapshot.head }
        });
        let now_ms = unix_ms();
        let mut page = Page { messages: Vec::new(), through: after, bytes: 0, complete: false };
        while let Some(offset) = found.offsets.front() {
            let message = snapshot.find(*offset);
            if let Some(message) = message {
                if page.messages.len() >= limit || page.bytes > 0 && page.bytes + message.weight() > max_bytes
                {
                    self.found = Some(found);
                    return page;
                }
                if !message.is_expired(now_ms) {
                    page.bytes += message.weight();
                    page.messages.push(Arc::clone(message));
                }
            }
            page.through = *offset;
            found.offsets.pop_front();
        }
        page.through = page.through.max(found.head);
        page.complete = true;
        page
    }

    /// The channel's newest offset in the snapshot.
    fn last_in(&self, snapshot: &Snapshot, registry: &Registry, channel: &Channel) -> u64 {
        let last = registry.last(channel).unwrap_or(0);
        if last <= snapshot.head {
            return last;
        }
        // The entry is ahead of the snapshot: what came since is for the next page.
        let segments: Vec<_> = snapshot.segments().collect();
        let mut newest_first = segments.iter().rev().flat_map(|segment| segment.messages().rev());
        newest_first
            .find(|message| message.offset() <= snapshot.head && message.channel() == channel)
            .map_or(0, |message| message.offset())
    }

    fn scan(&self, snapshot: &Snapshot, after: u64, limit: usize, max_bytes: usize) -> Page {
        let now_ms = unix_ms();
        let mut page = Page { messages: Vec::new(), through: snapshot.head, bytes: 0, complete: true };
        let single = self.rings.len() == 1;
        for message in snapshot.segments().flat_map(|segment| segment.messages()) {
            let offset = message.offset();
            if offset <= after || offset > snapshot.head || !self.wants(message) || message.is_expired(now_ms)
            {
                continue;
            }
            if single {
                if page.messages.len() >= limit || page.bytes > 0 && page.bytes + message.weight() > max_bytes
                {
                    page.complete = false;
                    page.through = page.messages.last().map_or(after, |message| message.offset());
                    return page;
                }
                page.bytes += message.weight();
            }
            page.messages.push(Arc::clone(message));
        }
        if !single {
            page.messages.sort_unstable_by_key(|message| message.offset());
            let mut bytes = 0;
            let keep = page.messages.iter().take(limit).take_while(|message| {
                let first = bytes == 0;
                bytes += message.weight();
                first || bytes <= max_bytes
            });
            let keep = keep.count();
            if keep < page.messages.len() {
                page.messages.truncate(keep);
                page.complete = false;
                page.through = page.messages.last().map_or(after, |message| message.offset());
            }
        }
        page.bytes = page.messages.iter().map(|message| message.weight()).sum();
        page
    }

    fn newest(
        &self,
        snapshot: &Snapshot,
        registry: &Registry,
        after: u64,
        limit: usize,
    ) -> Vec<Arc<Message>> {
        let now_ms = unix_ms();
        let kept = |message: &&Arc<Message>| !message.is_expired(now_ms) && message.offset() <= snapshot.head;
        if let [filter] = self.filters.as_slice()
            && let Some(channel) = filter.as_literal()
        {
            let last = self.last_in(snapshot, registry, channel);
            return snapshot.chain(last, after).filter(kept).take(limit).cloned().collect();
        }
        let mut messages = self.scan(snapshot, after, usize::MAX, usize::MAX).messages;
        messages.reverse();
        messages.truncate(limit);
        messages
    }
}

/// A subscriber on its way from a position in the log to the present.
///
/// Its pages follow the outbox as it drains, so that a replay is bounded by the subscriber's own limits. Until the end
/// its lane passes over what is recorded; the last page is taken under the log's lock and switches it to live delivery
/// there: nothing falls between, nothing comes twice.
#[must_use = "nothing is replayed until it runs"]
pub struct Replay {
    shared: Arc<Shared>,
    key: SubscriberKey,
    outbox: Arc<Outbox>,
    filters: Vec<(Filter, u32)>,
    after: After,
}

impl Replay {
    pub(crate) fn new(
        shared: Arc<Shared>,
        key: SubscriberKey,
        outbox: Arc<Outbox>,
        filters: &[(Filter, u32)],
        after: After,
    ) -> Self {
        Self { shared, key, outbox, filters: filters.to_vec(), after }
    }

    /// Runs until the subscriber is live or its outbox is closed. `on_gap` is called before the first message that
    /// follows a gap, on the caller's task.
    ///
    /// # Cancel safety
    /// Not cancel safe: a subscriber whose replay was dropped never goes live. Poll it to its end or drop the subscriber.
    pub async fn run(self, mut on_gap: impl FnMut(&Gap)) {
        let log = &self.shared.log;
        let filters: Vec<Filter> = self.filters.iter().map(|(filter, _)| filter.clone()).collect();
        let mut reader = Reader::new(&filters, log);
        let mut first_page = true;
        let mut position = self.start();
        let (max_messages, max_bytes) = (self.outbox.page_messages(), self.outbox.page_bytes());
        while self.outbox.closed().is_none() {
            let snapshot = log.snapshot(reader.rings.iter().copied(), position.after);
            let lost = position.foreign
                || position.checked && reader.has_lost(&snapshot, &self.shared.registry, position.after);
            let page = reader.read(&snapshot, &self.shared.registry, position.after, max_messages, max_bytes);
            if lost {
                let requested = match self.after {
                    After::Id(id) if first_page => id,
                    _ => log.id(position.after),
                };
                let next = page.messages.first().and_then(|message| message.id());
                on_gap(&Gap { requested, first: log.id(snapshot.reaches_back_to()), next });
            }
            first_page = false;
            position = Position { after: page.through, foreign: false, checked: true };
            if !page.messages.is_empty() {
                let _turn = self.outbox.turn(page.bytes).await;
                self.feed(page.messages).await;
            }
            if page.complete && self.go_live(&reader, position.after, max_messages, max_bytes).await {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    fn start(&self) -> Position {
        let (epoch, head) = (self.shared.log.epoch(), self.shared.log.head());
        match self.after {
            After::Earliest => Position { after: 0, foreign: false, checked: false },
            // The past of another epoch is gone, and a position that was never given is not ours.
            After::Id(id) if id.epoch != epoch || id.offset > head => {
                Position { after: 0, foreign: true, checked: false }
            }
            After::Id(id) => Position { after: id.offset, foreign: false, checked: true },
        }
    }

    /// Hands a page over, and waits until the session has room for another.
    async fn feed(&self, messages: Vec<Arc<Message>>) {
        let mut has_room = self.feed_one(messages).await;
        while !has_room && self.outbox.closed().is_none() {
            tokio::time::sleep(NO_ROOM_PAUSE).await;
            has_room = self.feed_one(Vec::new()).await;
        }
    }

    async fn feed_one(&self, messages: Vec<Arc<Message>>) -> bool {
        let (done, fed) = oneshot::channel();
        let feed = self.page(messages, Then::More, Some(done));
        !self.shared.lane(self.key).send(feed) || fed.await.unwrap_or(true)
    }

    /// Takes what came since the last page and switches to live delivery, all under the log's lock; false if too much
    /// came.
    async fn go_live(&self, reader: &Reader, after: u64, max_messages: usize, max_bytes: usize) -> bool {
        let _turn = self.outbox.turn(0).await;
        let lane = self.shared.lane(self.key);
        let (done, fed) = oneshot::channel();
        {
            let log = self.shared.log.lock();
            let now_ms = unix_ms();
            let wanted = |message: &Message| !message.is_expired(now_ms) && reader.wants(message);
            let Some(messages) = log.tail(&reader.rings, after, crate::log::SEGMENT_MESSAGES, wanted) else {
                return false;
            };
            let bytes: usize = messages.iter().map(|message| message.weight()).sum();
            if messages.len() > max_messages || bytes > max_bytes {
                return false;
            }
            let tags = self.filters.iter().map(|(_, tag)| *tag).collect();
            lane.push(self.page(messages, Then::GoLive(tags), Some(done)));
        }
        lane.wake();
        // Another replay of the same subscriber finds room only for what this one has left.
        _ = fed.await;
        true
    }

    fn page(&self, messages: Vec<Arc<Message>>, then: Then, done: Option<oneshot::Sender<bool>>) -> Command {
        let tagged = messages.into_iter().map(|message| {
            let matching = self.filters.iter().filter(|(filter, _)| filter.matches(message.channel()));
            let tags = matching.map(|(_, tag)| *tag).collect();
            (message, tags)
        });
        let messages = tagged.collect();
        Command::Feed(Box::new(Feed { key: self.key, kind: Kind::Replayed, messages, then, done }))
    }
}

struct Position {
    after: u64,
    /// The position asked for means nothing here.
    foreign: bool,
    /// What is missing after it is a loss.
    checked: bool,
}

//! A subscriber that catches up with the log, without loss or repeat.
//!
//! A replay reads a page only when there is room for it, and lets others run in between.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::clock::steady_ms;
use crate::filter::Filter;
use crate::key::SubscriberKey;
use crate::lane::Kind;
use crate::lane::{Command, Feed, Then};
use crate::message::Message;
use crate::outbox::Outbox;
use crate::shared::Shared;
use crate::store::history::{After, Gap, LogPage, Order, Read};
use crate::store::log::{Bounds, Log, Page, Reader, SEGMENT_MESSAGES};

/// How long a session without room is left alone.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(10);

/// A subscriber on its way from a position in the log to the present.
///
/// Its pages follow the outbox as it drains, so that a replay is bounded by the subscriber's own limits; one that waits
/// holds a position and no messages. Until the end its lane passes over what is recorded; the last page is taken under
/// the log's lock and switches it to live delivery there: nothing falls between, nothing comes twice.
#[must_use = "nothing is replayed until it runs"]
pub struct Replay {
    shared: Arc<Shared>,
    key: SubscriberKey,
    outbox: Arc<Outbox>,
    filters: Vec<(Filter, u32)>,
    after: After,
    /// The only log that is read, by its epoch.
    only: Option<u64>,
}

/// How many messages may have come between the last page and the lock under which it goes live: little is looked
/// through there, as publishers wait. Each time that more came, twice as many may, up to a segment.
const FEW_AT_LAST: usize = 32;

impl Replay {
    pub(crate) fn new(
        shared: Arc<Shared>,
        key: SubscriberKey,
        outbox: Arc<Outbox>,
        filters: &[(Filter, u32)],
        after: After,
        only: Option<u64>,
    ) -> Self {
        Self { shared, key, outbox, filters: filters.to_vec(), after, only }
    }

    /// Runs until the subscriber is live or its outbox is closed. `on_gap` is called before the first message that
    /// follows a gap, on the caller's task. What an [`Engine`](crate::Engine) cannot read now is told as a gap.
    ///
    /// # Cancel safety
    /// Not cancel safe: a subscriber whose replay was dropped never goes live. Poll it to its end or drop the
    /// subscriber.
    pub async fn run(self, mut on_gap: impl FnMut(&Gap)) {
        // One log after the other: there is no order between what lies in two.
        for log in self.shared.logs_of(self.filters.iter().map(|(filter, _)| filter)) {
            if self.only.is_some_and(|only| only != log.epoch()) {
                continue;
            }
            self.run_in(log, &mut on_gap).await;
        }
    }

    async fn run_in(&self, log: &Log, on_gap: &mut impl FnMut(&Gap)) {
        let filters: SmallVec<[Filter; 1]> = self.filters.iter().map(|(filter, _)| filter.clone()).collect();
        let reader = Reader::new(&filters, log);
        drop(filters);
        let bounds = Bounds { messages: self.outbox.page_messages(), bytes: self.outbox.page_bytes() };
        let mut position = self.start(log);
        let mut first_page = true;
        let mut at_last = FEW_AT_LAST;
        let mut weight = 0;
        while self.outbox.closed().is_none() {
            // Room first: a reader that does not read must cost a position and no page.
            let mut turn = self.outbox.turn(weight).await;
            let Step { messages, through, bytes, complete, lost, first } =
                self.read(log, &reader, position.after, bounds).await;
            if bytes > bounds.bytes && weight == 0 {
                // One message heavier than a page goes into an empty outbox, and is read again then.
                weight = bytes;
                continue;
            }
            weight = 0;
            let lost = position.foreign || position.checked && lost;
            if lost {
                let requested = match self.after.position() {
                    Some(asked) if first_page => {
                        asked.in_epoch(log.epoch()).map_or(asked.any(), |offset| log.id(offset))
                    }
                    _ => log.id(position.after),
                };
                let next = messages.first().and_then(|message| message.id());
                let first = first.unwrap_or_else(|| log.reach(reader.rings()).1);
                on_gap(&Gap { requested, first: log.id(first), next });
            }
            first_page = false;
            position = Position { after: through, foreign: false, checked: true };
            if !messages.is_empty() {
                self.feed(messages).await;
            }
            if complete {
                turn.room(0).await;
                if self.go_live(log, &reader, through, at_last, bounds).await {
                    return;
                }
                at_last = (at_last * 2).min(SEGMENT_MESSAGES);
            }
            drop(turn);
            tokio::task::yield_now().await;
        }
    }

    /// The next page: of an engine as long as the memory does not reach back to it.
    async fn read(&self, log: &Log, reader: &Reader, after: u64, bounds: Bounds) -> Step {
        let registry = &self.shared.registry;
        if let Some(engine) = &self.shared.engine
            && self.shared.kept.as_ref().is_some_and(|kept| kept.epoch() == log.epoch())
            && reader.has_lost(log, registry, after)
        {
            // What is not in memory was released: what is not is left to the memory.
            let through = log.reach(reader.rings()).1;
            let read = Read {
                filters: reader.filters().into(),
                after,
                through,
                order: Order::Oldest,
                max_messages: bounds.messages,
                max_bytes: bounds.bytes,
            };
            let read = engine.read(read).await;
            let page = match read {
                Ok(page) => page,
                // Nobody knows what is lost: all of it is said to be.
                Err(_) => LogPage { messages: Vec::new(), through, first: through },
            };
            return Step {
                bytes: page.messages.iter().map(|message| message.weight()).sum(),
                messages: page.messages,
                through: page.through.clamp(after + 1, through),
                complete: false,
                lost: after < page.first,
                first: Some(page.first),
            };
        }
        let Page { messages, through, bytes, complete, lost } = reader.read(log, registry, after, bounds);
        let lost = lost && reader.has_lost(log, registry, after);
        Step { messages, through, bytes, complete, lost, first: None }
    }

    fn start(&self, log: &Log) -> Position {
        let Some(asked) = self.after.position() else {
            return Position { after: 0, foreign: false, checked: false };
        };
        match asked.in_epoch(log.epoch()) {
            Some(offset) if offset <= log.head() => Position { after: offset, foreign: false, checked: true },
            // The past of another epoch is gone, and a position that was never given is not ours.
            _ => Position { after: 0, foreign: true, checked: false },
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
    async fn go_live(&self, log: &Log, reader: &Reader, after: u64, at_last: usize, bounds: Bounds) -> bool {
        let lane = self.shared.lane(self.key);
        let (done, fed) = oneshot::channel();
        {
            let state = log.lock();
            let now_ms = steady_ms();
            let wanted = |message: &Message| !message.is_expired(now_ms) && reader.wants(message);
            let Some(messages) = state.tail(reader.rings(), after, at_last, wanted) else {
                return false;
            };
            let bytes: usize = messages.iter().map(|message| message.weight()).sum();
            if messages.len() > bounds.messages || bytes > bounds.bytes {
                return false;
            }
            let tags = self.filters.iter().map(|(_, tag)| *tag).collect();
            lane.push(self.page(messages, Then::GoLive(tags, Some(log.epoch())), Some(done)));
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

/// What was read in one go.
struct Step {
    messages: Vec<Arc<Message>>,
    /// All up to here has been read.
    through: u64,
    bytes: usize,
    /// Nothing wanted is left.
    complete: bool,
    /// What was wanted behind the position is gone.
    lost: bool,
    /// The oldest position that can be resumed from, where the memory does not say.
    first: Option<u64>,
}

struct Position {
    after: u64,
    /// The position asked for means nothing here.
    foreign: bool,
    /// What is missing after it is a loss.
    checked: bool,
}

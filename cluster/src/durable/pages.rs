//! Pages of the stream, for what no node's memory reaches back to.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{Accepted, LogPage, Message, Order, Read, Unavailable};
use tokio::time::sleep;

use super::fetch::Batch;
use super::frame::{self, end_of, offset, sequence};
use super::stream::{Of, SOON, Streams};

/// Frames that are looked at for one page; what is asked for then goes on behind them.
const MAX_FRAMES: usize = 4_096;

/// Sequences that are looked at first for the newest messages; each time that they do not have enough, four times as many.
const FIRST_WINDOW: u64 = 256;

/// How often a copy is asked again that does not have what the leader has, and how soon.
const LOOKS: u32 = 40;

const COPY_PAUSE: Duration = Duration::from_millis(50);

impl Streams {
    /// A page, with the oldest position from which all is there.
    pub(crate) async fn page(&self, read: &Read) -> Result<LogPage, Unavailable> {
        let mut page = match read.order {
            _ if read.after >= read.through || read.max_messages == 0 => Page::new(read),
            Order::Oldest => self.oldest(read).await?,
            Order::Newest => self.newest(read).await?,
        };
        // Asked behind it: what went meanwhile is told as gone.
        let first = self.own_reach().await?.oldest();
        if read.order == Order::Newest {
            page.messages.make_contiguous().reverse();
        }
        Ok(LogPage::new(page.messages.into(), page.through, first))
    }

    /// What matches, as far as the stream can tell: all of it where that is not one subject.
    fn subject_of(&self, read: &Read) -> String {
        if let [filter] = &read.filters[..]
            && let [subject] = &self.node.subjects.kept_of_filter(filter)[..]
        {
            return subject.clone();
        }
        self.node.subjects.kept()
    }

    async fn oldest(&self, read: &Read) -> Result<Page, Unavailable> {
        let subject = self.subject_of(read);
        let last = sequence(read.through);
        let mut next = sequence(read.after.saturating_add(1));
        let mut page = Page::new(read);
        let mut looked_at = 0;
        while next <= last {
            let batch = self.certain(&subject, next, last).await?;
            looked_at += 1;
            for stored in &batch.messages {
                if stored.sequence > last {
                    break;
                }
                for message in self.wanted(read, stored.sequence, &stored.payload) {
                    if !page.has_room_for(&message) {
                        return Ok(page);
                    }
                    page.take(message);
                }
                (looked_at, next) = (looked_at + 1, stored.sequence + 1);
                page.through = end_of(stored.sequence).min(read.through);
            }
            let is_beyond = batch.messages.last().is_some_and(|newest| newest.sequence >= last);
            if batch.is_last || is_beyond {
                break;
            }
            if looked_at >= MAX_FRAMES {
                return Ok(page);
            }
        }
        page.through = read.through;
        Ok(page)
    }

    async fn newest(&self, read: &Read) -> Result<Page, Unavailable> {
        let subject = self.subject_of(read);
        let oldest = self.own_reach().await?.first.max(sequence(read.after.saturating_add(1)));
        let mut page = Page::new(read);
        let (mut window, mut looked_at) = (FIRST_WINDOW, 0);
        // Read down to here.
        let mut floor = sequence(read.through) + 1;
        while floor > oldest {
            let from = floor.saturating_sub(window).max(oldest);
            let mut found = VecDeque::new();
            let mut next = from;
            while next < floor {
                let batch = self.certain(&subject, next, floor - 1).await?;
                looked_at += 1;
                for stored in batch.messages.iter().take_while(|stored| stored.sequence < floor) {
                    for message in self.wanted(read, stored.sequence, &stored.payload) {
                        found.push_back(message);
                        if found.len() > read.max_messages {
                            found.pop_front();
                        }
                    }
                    (looked_at, next) = (looked_at + 1, stored.sequence + 1);
                }
                let is_beyond = batch.messages.last().is_some_and(|newest| newest.sequence >= floor);
                if batch.is_last || is_beyond || batch.messages.is_empty() {
                    break;
                }
            }
            // Those found here are older than all before.
            while let Some(message) = found.pop_back() {
                if !page.has_room_for(&message) {
                    return Ok(page);
                }
                page.through = message.offset().saturating_sub(1);
                page.take_before(message);
            }
            floor = from;
            page.through = offset(floor, 0).saturating_sub(1).max(read.after);
            if page.is_full() || looked_at >= MAX_FRAMES {
                return Ok(page);
            }
            window = window.saturating_mul(4);
        }
        page.through = read.after;
        Ok(page)
    }

    /// The next frames that match. Where a copy has nothing up to `last`, its leader was asked too.
    pub(super) async fn certain(&self, subject: &str, from: u64, last: u64) -> Result<Batch, Unavailable> {
        for _ in 0..LOOKS {
            let batch = self.batch(Of::Kept, subject, from).await?;
            let newest = batch.messages.last().map_or(from.saturating_sub(1), |newest| newest.sequence);
            if !batch.is_last || newest >= last {
                return Ok(batch);
            }
            let next = self.next_of(subject, newest + 1).await?;
            if next.is_none_or(|next| next > last) {
                return Ok(batch);
            }
            sleep(COPY_PAUSE).await;
        }
        Err(SOON)
    }

    /// What is asked for of a frame. What cannot be read is passed over, as it is when it comes.
    fn wanted(&self, read: &Read, at: u64, payload: &[u8]) -> Vec<Arc<Message>> {
        let messages =
            frame::read(payload, at).map_or_else(|_| Vec::new(), |frame| frame.content.into_messages());
        let is_wanted = |message: &Accepted| {
            message.offset > read.after
                && message.offset <= read.through
                && read.filters.iter().any(|filter| filter.matches(message.publish.channel()))
        };
        let wanted = messages.into_iter().filter(is_wanted);
        wanted.map(|message| Arc::new(message.into_message(self.epoch))).collect()
    }
}

/// A page as it grows.
struct Page {
    messages: VecDeque<Arc<Message>>,
    through: u64,
    bytes: usize,
    max_messages: usize,
    max_bytes: usize,
}

impl Page {
    /// Nothing is read yet.
    fn new(read: &Read) -> Self {
        let through = match read.order {
            _ if read.after >= read.through => read.through,
            Order::Oldest => read.after,
            Order::Newest => read.through,
        };
        let (max_messages, max_bytes) = (read.max_messages, read.max_bytes);
        Self { messages: VecDeque::new(), through, bytes: 0, max_messages, max_bytes }
    }

    fn is_full(&self) -> bool {
        self.messages.len() >= self.max_messages || self.bytes >= self.max_bytes
    }

    fn has_room_for(&self, message: &Message) -> bool {
        self.messages.is_empty()
            || self.messages.len() < self.max_messages && self.bytes + message.weight() <= self.max_bytes
    }

    /// The next one, going on.
    fn take(&mut self, message: Arc<Message>) {
        self.bytes += message.weight();
        self.through = message.offset();
        self.messages.push_back(message);
    }

    /// The one before, going back.
    fn take_before(&mut self, message: Arc<Message>) {
        self.bytes += message.weight();
        self.messages.push_front(message);
    }
}

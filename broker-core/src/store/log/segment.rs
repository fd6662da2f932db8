//! Up to 1,024 messages of a ring, in order.

use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Instant;

use ahash::RandomState;
use smallvec::SmallVec;

use crate::channel::Channel;
use crate::message::Message;

/// Messages per segment: what a reader scans between two yields, and the unit in which old messages go.
pub(crate) const SEGMENT_MESSAGES: usize = 1_024;

/// Filled in place under the log's lock, readable at any time without it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(super) first: u64,
    messages: Box<[OnceLock<Arc<Message>>]>,
    pub(super) closed: OnceLock<Closed>,
    /// Which channel's messages are where, by the hashes of their names: made once for all readers of a closed segment.
    places: OnceLock<Box<[(u32, u16)]>>,
}

#[derive(Debug)]
pub(super) struct Closed {
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) last: u64,
    /// The newest message is not younger.
    pub(super) last_at: Instant,
}

/// What a segment finds a channel by.
pub(super) fn hash_of(channel: &Channel) -> u32 {
    static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    STATE.hash_one(channel.as_str()) as u32
}

impl Segment {
    pub(super) fn new(first: u64) -> Self {
        let messages = (0..SEGMENT_MESSAGES).map(|_| OnceLock::new()).collect();
        Self { first, messages, closed: OnceLock::new(), places: OnceLock::new() }
    }

    /// Fills a slot; false if it was not free.
    pub(super) fn set(&self, at: usize, message: Arc<Message>) -> bool {
        self.messages.get(at).is_some_and(|slot| slot.set(message).is_ok())
    }

    pub(crate) fn messages(&self) -> impl DoubleEndedIterator<Item = &Arc<Message>> {
        self.between(0, u64::MAX)
    }

    /// The messages after `after`, up to `through`.
    pub(super) fn between(&self, after: u64, through: u64) -> impl DoubleEndedIterator<Item = &Arc<Message>> {
        let up_to = |offset: u64| {
            self.messages.partition_point(|slot| slot.get().is_some_and(|message| message.offset() <= offset))
        };
        let from = up_to(after);
        self.messages.get(from..up_to(through).max(from)).unwrap_or_default().iter().filter_map(OnceLock::get)
    }

    /// Those of some channels, given with the hashes of their names.
    pub(super) fn of_channels(
        &self,
        channels: &[(Channel, u32)],
        after: u64,
        through: u64,
    ) -> SmallVec<[&Arc<Message>; 8]> {
        if self.closed.get().is_none() {
            let wanted =
                |message: &&Arc<Message>| channels.iter().any(|(channel, _)| channel == message.channel());
            return self.between(after, through).filter(wanted).collect();
        }
        let places = self.places.get_or_init(|| self.find_places());
        let mut found = SmallVec::<[&Arc<Message>; 8]>::new();
        for (channel, hash) in channels {
            let from = places.partition_point(|(known, _)| known < hash);
            let same = places.iter().skip(from).take_while(|(known, _)| known == hash);
            let messages = same.filter_map(|(_, at)| self.messages.get(usize::from(*at))?.get());
            found.extend(messages.filter(|message| {
                message.offset() > after && message.offset() <= through && message.channel() == channel
            }));
        }
        if channels.len() > 1 {
            found.sort_unstable_by_key(|message| message.offset());
        }
        found
    }

    fn find_places(&self) -> Box<[(u32, u16)]> {
        let hashed = self.messages().zip(0..).map(|(message, at)| (hash_of(message.channel()), at));
        let mut places: Vec<(u32, u16)> = hashed.collect();
        places.sort_unstable();
        places.into_boxed_slice()
    }
}

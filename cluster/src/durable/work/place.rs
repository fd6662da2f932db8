//! How far groups are, so that it is told when retention takes what nobody was given yet. JetStream says nothing of it: a
//! consumer goes on with the first message that is left, and a purge moves it there at once.
//!
//! So nodes with members note now and then up to where a group was given all that it wants, in a row beside those of sessions
//! which all nodes share. Where the stream begins behind that, something may be missed. Whoever moves the row over the hole
//! tells of it, so one node does.
//!
//! ```text
//! version, 1 byte | epoch of the stream, 8 bytes | when the consumer was made, 8 bytes | sequence, 8 bytes
//! ```

use std::time::Duration;

use async_nats::jetstream::consumer::Info;
use broker_core::{Gap, MessageId, Unavailable};

use crate::durable::frame;
use crate::durable::records::Trouble;
use crate::durable::stream::{Reach, Streams};

/// No version of a session's row: whoever reads all rows passes these over.
const VERSION: u8 = 0x81;

/// A row outlives its group by so much.
const SPARE: Duration = Duration::from_secs(120);

/// Longer than anybody waits: such a row stays.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A row that says what it has to is written anew after so many looks all the same, so that it lasts.
const FRESH_LOOKS: u32 = 4;

/// Up to where a group was given all that is for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Which life of the stream.
    pub(crate) epoch: u64,
    /// When the consumer was made: of one that was made anew nothing is known by this.
    pub(crate) born: u64,
    pub(crate) through: u64,
}

impl Place {
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        [self.epoch, self.born, self.through].iter().for_each(|number| out.extend(number.to_be_bytes()));
        out
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let ([epoch, born, through], []) = rest.as_chunks::<8>() else { return None };
        let number = |bytes: &[u8; 8]| u64::from_be_bytes(*bytes);
        let place = Self { epoch: number(epoch), born: number(born), through: number(through) };
        (*version == VERSION).then_some(place)
    }
}

/// What a node remembers between its looks.
#[derive(Debug, Default)]
pub(super) struct Looked {
    revision: u64,
    looks: u32,
}

impl Looked {
    /// Whether the row is left as it is. Where another node has written it since the last look, that is so.
    pub(super) fn leaves(&mut self, revision: u64, is_the_same: bool) -> bool {
        if std::mem::replace(&mut self.revision, revision) != revision {
            self.looks = 0;
            return true;
        }
        self.looks += 1;
        is_the_same && self.looks < FRESH_LOOKS
    }

    pub(super) fn wrote(&mut self, revision: u64) {
        (self.revision, self.looks) = (revision, 0);
    }
}

/// What is seen of a group.
pub(super) struct Seen {
    /// Of the row, to be named by whoever writes the next one.
    pub(super) revision: u64,
    /// Up to where it had been given all, if that was noted of this consumer.
    pub(super) known: Option<u64>,
    /// How long the consumer lasts while nobody asks.
    pub(super) lasts: Duration,
    /// Up to where all is acknowledged.
    pub(super) acknowledged: u64,
    born: u64,
    /// Up to where the consumer has been through the stream, or was moved.
    delivered: u64,
    /// If it has nothing left: up to where there was nothing more for it.
    idle: Option<u64>,
    reach: Reach,
}

/// Up to where a group has been given all, and whether it has missed something behind that.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) through: u64,
    pub(super) gap: Option<Gap>,
}

impl Seen {
    /// `made_at`: where the consumer began. What it was given since it was noted where it was is not known, so a gap may be
    /// more than what it misses.
    pub(super) fn judge(&self, made_at: Option<u64>) -> Verdict {
        let Reach { first, epoch, .. } = self.reach;
        let gone = first.saturating_sub(1);
        let begun = made_at.map_or(self.delivered, |at| at.saturating_sub(1));
        let known = self.known.unwrap_or(begun);
        let gap = (known < gone).then(|| {
            let id = |end| MessageId::new(epoch, if end == 0 { 0 } else { frame::end_of(end) });
            Gap::new(id(known), id(gone), None)
        });
        let passed = if gap.is_some() { gone } else { known };
        Verdict { through: passed.max(self.delivered).max(self.idle.unwrap_or_default()), gap }
    }
}

impl Streams {
    /// Where a group's consumer is, and the stream behind it; `None`: there is none.
    pub(super) async fn see_place(&self, consumer: &str) -> Result<Option<Seen>, Unavailable> {
        // In this order: what the consumer had nothing of was not taken from it, if the stream has it still after that.
        let released = *self.released.borrow();
        let Some(info) = self.find_consumer(consumer).await? else { return Ok(None) };
        let found = self.last_at(&self.node.subjects.of_place(consumer)).await?;
        let (revision, place) = found.map_or((0, None), |(revision, row)| (revision, Place::read(&row)));
        let born = born(&info);
        let place = place.filter(|place| (place.epoch, place.born) == (self.epoch, born));
        Ok(Some(Seen {
            revision,
            known: place.map(|place| place.through),
            lasts: info.config.inactive_threshold,
            acknowledged: info.ack_floor.stream_sequence,
            born,
            delivered: info.delivered.stream_sequence,
            idle: (info.num_pending == 0).then_some(released),
            reach: self.own_reach().await?,
        }))
    }

    /// Notes a group's place in the row that was seen; the revision of that.
    pub(super) async fn note_place(&self, consumer: &str, seen: &Seen, through: u64) -> Result<u64, Trouble> {
        let place = Place { epoch: self.epoch, born: seen.born, through };
        let lasts = seen.lasts.saturating_add(SPARE);
        let seconds = (lasts < FOR_EVER).then_some(lasts.as_secs());
        self.put(self.node.subjects.of_place(consumer), place.write(), seconds, seen.revision).await
    }
}

/// When a consumer was made, in nanoseconds since 1970.
fn born(info: &Info) -> u64 {
    u64::try_from(info.created.unix_timestamp_nanos()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(known: Option<u64>, delivered: u64, idle: Option<u64>, first: u64) -> Seen {
        let reach = Reach { first, last: 100, epoch: 7 };
        let (lasts, acknowledged) = (Duration::ZERO, delivered);
        Seen { revision: 0, known, lasts, acknowledged, born: 1, delivered, idle, reach }
    }

    fn judge(seen: &Seen, made_at: Option<u64>) -> (u64, Option<(u64, u64)>) {
        let Verdict { through, gap } = seen.judge(made_at);
        let sequence = |id: MessageId| frame::sequence(id.offset());
        (through, gap.map(|gap| (sequence(gap.requested), sequence(gap.first))))
    }

    #[test]
    fn what_the_stream_has_lost_behind_a_groups_place_is_a_gap() {
        let of = |known, delivered, idle, first| judge(&seen(Some(known), delivered, idle, first), None);
        assert_eq!(of(20, 20, None, 1), (20, None));
        assert_eq!(of(20, 25, None, 21), (25, None), "the next is there");
        assert_eq!(of(20, 20, Some(90), 21), (90, None), "nothing is left for it");
        assert_eq!(of(20, 20, None, 31), (30, Some((20, 30))), "they became too old");
        assert_eq!(of(20, 30, Some(90), 31), (90, Some((20, 30))), "a purge has moved it");
        assert_eq!(of(20, 40, None, 31), (40, Some((20, 30))), "it went on behind them");
    }

    #[test]
    fn a_group_of_which_nothing_was_noted_is_where_its_consumer_is_or_begins() {
        let of = |delivered, made_at| judge(&seen(None, delivered, None, 31), made_at);
        assert_eq!(of(20, None), (30, Some((20, 30))));
        assert_eq!(of(30, None), (30, None));
        assert_eq!(of(30, Some(11)), (30, Some((10, 30))), "it would have begun before");
        assert_eq!(of(30, Some(31)), (30, None));
    }

    #[test]
    fn a_place_is_read_as_it_was_written_and_is_no_sessions_row() {
        let place = Place { epoch: 1, born: 2, through: 3 };
        assert_eq!(Place::read(&place.write()), Some(place));
        assert_eq!(Place::read(&place.write()[1..]), None);
        assert_eq!(crate::durable::row::Row::read(&place.write()), None);
    }

    #[test]
    fn a_row_is_written_by_one_node_at_a_time_and_now_and_then() {
        let mut looked = Looked::default();
        assert!(looked.leaves(5, false), "another node has just written it");
        assert!(!looked.leaves(5, false));
        looked.wrote(6);
        assert!(looked.leaves(6, true) && looked.leaves(6, true) && looked.leaves(6, true));
        assert!(!looked.leaves(6, true), "it is to last");
    }
}

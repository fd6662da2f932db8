//! Where the logs stand.

use super::Broker;
use crate::answer::Answer;
use crate::engine::{Reach, Read};
use crate::filter::Filter;
use crate::message::{MessageId, Position};
use crate::shared::positions;
use crate::store::history::{Gap, Order};
use crate::store::log::Reader;

impl Broker {
    /// Which life of the log in memory this is; ids of another one are a gap.
    pub fn epoch(&self) -> u64 {
        self.shared().log.epoch()
    }

    /// The newest position in the log in memory. What an [`Engine`](crate::engine::Engine) keeps has a log of its own:
    /// [`position`](Self::position).
    pub fn head(&self) -> MessageId {
        let log = &self.shared().log;
        log.id(log.head())
    }

    /// The newest position in all logs.
    pub fn position(&self) -> Position {
        positions(self.shared().logs().map(|log| log.id(log.head())))
    }

    /// Where the log of an [`Engine`](crate::engine::Engine) stands, if there is one: what comes to who was away is read from there.
    pub fn kept_head(&self) -> Option<MessageId> {
        self.shared().kept.as_ref().map(|log| log.id(log.head()))
    }

    /// Whether something that `filters` match is gone behind a position in the log of an
    /// [`Engine`](crate::engine::Engine): what a [`Replay`](crate::Replay) from there will tell first, before there is
    /// one. It reads no messages. What the engine cannot tell now is told as a gap.
    pub fn gap_behind(&self, filters: &[Filter], after: MessageId) -> Answer<'static, Option<Gap>> {
        let shared = self.shared();
        let (Some(engine), Some(log)) = (&shared.engine, &shared.kept) else { return Answer::now(None) };
        let reader = Reader::new(filters, log);
        if log.epoch() != after.epoch() || !reader.has_lost(log, &shared.registry, after.offset()) {
            return Answer::now(None);
        }
        let (epoch, evicted) = (log.epoch(), log.reach(reader.rings()).1);
        let nothing = Read {
            filters: filters.into(),
            after: after.offset(),
            through: after.offset(),
            order: Order::Oldest,
            max_messages: 1,
            max_bytes: 0,
        };
        engine.read(nothing).map(move |page| {
            let first = page.map_or(evicted, |page| page.first);
            (after.offset() < first).then(|| Gap::new(after, MessageId::new(epoch, first), None))
        })
    }

    /// Where the messages of a filter are.
    pub fn reach_of(&self, filter: &Filter) -> Reach {
        let (kept, in_memory) = match &self.shared().kept {
            Some(log) => log.reach_of(filter),
            None => (false, true),
        };
        Reach { kept, in_memory }
    }

    /// The newest position in those logs that `filters` reach: what a client of them has seen so far, and can go on
    /// from.
    pub fn position_of<'f>(&self, filters: impl IntoIterator<Item = &'f Filter>) -> Position {
        self.shared().head_of(filters.into_iter())
    }
}

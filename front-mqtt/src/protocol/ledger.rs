//! What has become of the messages of a shared subscription that an engine keeps, as far as nobody has them for good.
//!
//! ```text
//! offsets:  ...finished, but for those that are open or unread │ come, each by itself │ not come
//!                                                    through ──▲
//! ```
//!
//! What comes is noted by its offset, live or read from the log, so that each message is the group's once, whichever way it
//! takes. While nobody of the group is there nothing is noted: all behind `through` that did not come is read when somebody
//! is back, and so is what was let go of.

use std::collections::BTreeSet;
use std::sync::Arc;

use broker_core::Message;
use parking_lot::Mutex;

use super::kept::News;
use super::ticket::Ticket;

/// One group's. It is a lock of its own, and nothing else is taken under it.
#[derive(Debug)]
pub(crate) struct Ledger {
    epoch: u64,
    standing: Mutex<Standing>,
    /// Who is told that much has changed.
    news: Option<Arc<News>>,
}

#[derive(Debug, Default)]
struct Standing {
    /// All up to here has come.
    through: u64,
    /// What has come beyond.
    ahead: BTreeSet<u64>,
    /// Waits for a member, or is in flight to one.
    open: BTreeSet<u64>,
    /// Has come, and nobody has it: it is to be read again.
    unread: BTreeSet<u64>,
    /// The same, while the log is read for it.
    wanted: BTreeSet<u64>,
    /// Nothing that comes is taken: it is read later.
    is_behind: bool,
    /// The log is being read.
    is_reading: bool,
    /// All up to here was read from the log: what comes of it comes twice.
    read_through: u64,
    /// The newest that was not taken.
    ignored: u64,
    has_changed: bool,
    /// How many were finished since it was last written down.
    finished: u32,
    /// `through`, as it was last written down.
    written: u64,
}

/// What is written down of a group.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Standings {
    /// All up to here has come.
    pub(crate) through: u64,
    /// But for these, which are not finished.
    pub(crate) unread: Vec<u64>,
    /// What has come beyond and is finished.
    pub(crate) ahead: Vec<u64>,
}

/// What is written down of a group at once: more open messages than this are said not to have come.
const MAX_LISTED: usize = 1_024;

/// So many that are finished are written down at once, fewer after a while.
const MANY_FINISHED: u32 = 100;

/// A group to which nothing comes is written down again after so many messages of others.
const FAR: u64 = 65_536;

impl Ledger {
    /// A new group's: nothing up to `through` is for it.
    pub(crate) fn new(epoch: u64, through: u64, news: Option<Arc<News>>) -> Arc<Self> {
        let standing = Standing { through, has_changed: true, ..Standing::default() };
        Arc::new(Self { epoch, standing: Mutex::new(standing), news })
    }

    /// As it was written down.
    pub(crate) fn restored(epoch: u64, standings: Standings, news: Option<Arc<News>>) -> Arc<Self> {
        let Standings { through, unread, ahead } = standings;
        let (unread, ahead) = (unread.into_iter().collect(), ahead.into_iter().collect());
        let standing =
            Standing { through, unread, ahead, is_behind: true, written: through, ..Standing::default() };
        Arc::new(Self { epoch, standing: Mutex::new(standing), news })
    }

    /// A message that its lane has brought. `None`: it is the group's by another way, or will be.
    pub(super) fn arrive(self: &Arc<Self>, message: &Message) -> Arrival {
        let Some(id) = message.id().filter(|id| id.epoch() == self.epoch) else { return Arrival::Elsewhere };
        let offset = id.offset();
        let mut standing = self.standing.lock();
        if offset <= standing.read_through {
            return Arrival::Known;
        }
        if standing.is_behind {
            standing.ignored = standing.ignored.max(offset);
            return Arrival::Known;
        }
        if offset > standing.through && !standing.ahead.insert(offset) {
            return Arrival::Known;
        }
        standing.open(offset);
        Arrival::New(Ticket::of_ledger(self.clone(), offset))
    }

    /// A message is finished, unless it was let go of.
    pub(super) fn finish(&self, offset: u64) {
        let mut standing = self.standing.lock();
        if standing.open.remove(&offset) {
            standing.has_changed = true;
            standing.finished += 1;
            if standing.finished == MANY_FINISHED
                && let Some(news) = &self.news
            {
                news.hurry_groups();
            }
        }
    }

    /// Nobody has the message: it is to be read again.
    pub(super) fn let_go(&self, offset: u64) {
        self.standing.lock().let_go(offset);
    }

    /// There is no place for the message: from here on all is read later.
    pub(super) fn refuse(&self, offset: u64) {
        let mut standing = self.standing.lock();
        standing.let_go(offset);
        standing.is_behind = true;
    }

    /// Nobody is there any more.
    pub(super) fn close(&self) {
        let mut standing = self.standing.lock();
        (standing.is_behind, standing.has_changed) = (true, true);
    }

    /// Whether something is to be read for it.
    pub(crate) fn is_behind(&self) -> bool {
        let standing = self.standing.lock();
        standing.is_behind || !standing.unread.is_empty()
    }

    /// Where the log is read from, and up to where at least, as it stands at `head`. What comes meanwhile is taken.
    pub(crate) fn begin_reading(&self, head: u64) -> (u64, u64) {
        let mut standing = self.standing.lock();
        let unread = std::mem::take(&mut standing.unread);
        standing.wanted.extend(unread);
        let first = standing.wanted.first().map_or(u64::MAX, |first| first - 1);
        let end = if standing.is_behind { head.max(standing.ignored) } else { 0 };
        let end = end.max(standing.wanted.last().copied().unwrap_or(0));
        (standing.is_behind, standing.is_reading) = (false, true);
        (first.min(standing.through), end)
    }

    /// A message that was read; `None` if it has come already.
    pub(crate) fn take_read(self: &Arc<Self>, offset: u64) -> Option<Arc<Ticket>> {
        let mut standing = self.standing.lock();
        let is_new = offset > standing.through && standing.ahead.insert(offset);
        if !standing.wanted.remove(&offset) && !is_new {
            return None;
        }
        standing.open(offset);
        Some(Ticket::of_ledger(self.clone(), offset))
    }

    /// The log was read up to here. What was wanted of it and is not there is gone.
    pub(crate) fn note_read(&self, through: u64) {
        let mut standing = self.standing.lock();
        standing.read_through = standing.read_through.max(through);
        standing.wanted = standing.wanted.split_off(&(through + 1));
        standing.pass(through);
        standing.has_changed = true;
    }

    /// Reading has ended; false if it is to begin again.
    pub(crate) fn end_reading(&self) -> bool {
        let mut standing = self.standing.lock();
        let wanted = std::mem::take(&mut standing.wanted);
        standing.unread.extend(wanted);
        standing.is_reading = false;
        !standing.is_behind && standing.unread.is_empty()
    }

    /// The lanes have brought all up to `head`.
    pub(crate) fn advance(&self, head: u64) {
        let mut standing = self.standing.lock();
        if !standing.is_behind && !standing.is_reading {
            standing.pass(head);
        }
    }

    /// What is to be written down, if it has changed.
    pub(crate) fn to_be_written(&self) -> Option<Standings> {
        let mut standing = self.standing.lock();
        if !standing.has_changed && standing.through - standing.written < FAR {
            return None;
        }
        (standing.has_changed, standing.finished) = (false, 0);
        standing.written = standing.through;
        Some(standing.written_down())
    }

    /// From where on the log is read when somebody comes, and what this is of; `None` while somebody is there.
    pub(crate) fn begins_behind(&self) -> Option<(u64, u64)> {
        let standing = self.standing.lock();
        let first = standing.unread.first().map_or(u64::MAX, |first| first - 1);
        standing.is_behind.then(|| (self.epoch, first.min(standing.through)))
    }
}

/// What a lane has brought.
pub(super) enum Arrival {
    /// It lies in another log.
    Elsewhere,
    /// The group has it by another way, or will read it.
    Known,
    New(Arc<Ticket>),
}

impl Standing {
    fn open(&mut self, offset: u64) {
        self.open.insert(offset);
        self.has_changed = true;
    }

    fn let_go(&mut self, offset: u64) {
        if self.open.remove(&offset) {
            self.unread.insert(offset);
            self.has_changed = true;
        }
    }

    fn pass(&mut self, through: u64) {
        if through > self.through {
            self.through = through;
            self.ahead = self.ahead.split_off(&(through + 1));
        }
    }

    fn written_down(&self) -> Standings {
        let through = self.through;
        let of = |set: &BTreeSet<u64>| -> Vec<u64> {
            set.range(..=through).take(MAX_LISTED + 1).copied().collect()
        };
        let mut listed = [of(&self.open), of(&self.unread), of(&self.wanted)].concat();
        listed.sort_unstable();
        listed.dedup();
        match listed.get(MAX_LISTED).copied() {
            // Some of what lies behind may be finished, and come once more after a crash.
            Some(first) => {
                listed.truncate(MAX_LISTED);
                Standings { through: first - 1, unread: listed, ahead: Vec::new() }
            }
            None => {
                // What is read again is not open, and what comes of the rest after a crash comes again.
                let is_finished = |offset: &&u64| {
                    ![&self.open, &self.unread, &self.wanted].iter().any(|set| set.contains(offset))
                };
                let ahead = self.ahead.iter().filter(is_finished).take(MAX_LISTED).copied().collect();
                Standings { through, unread: listed, ahead }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use broker_core::{Accepted, Channel, Publish};

    use super::*;

    const EPOCH: u64 = 7;

    fn message(offset: u64) -> Message {
        Accepted::new(Publish::new(Channel::parse("t").unwrap(), "x"), offset, 0).into_message(EPOCH)
    }

    fn standings(through: u64, unread: &[u64], ahead: &[u64]) -> Standings {
        Standings { through, unread: unread.to_vec(), ahead: ahead.to_vec() }
    }

    fn arrive(ledger: &Arc<Ledger>, offset: u64) -> Option<Arc<Ticket>> {
        match ledger.arrive(&message(offset)) {
            Arrival::New(ticket) => Some(ticket),
            _ => None,
        }
    }

    #[test]
    fn what_is_finished_is_not_written_down_and_what_is_open_is() {
        let ledger = Ledger::new(EPOCH, 10, None);
        let (one, two) = (arrive(&ledger, 11), arrive(&ledger, 13));
        assert!(arrive(&ledger, 13).is_none(), "it has come");
        ledger.advance(14);
        assert_eq!(ledger.to_be_written(), Some(standings(14, &[11, 13], &[])));
        assert_eq!(ledger.to_be_written(), None);
        drop(one);
        assert_eq!(ledger.to_be_written(), Some(standings(14, &[13], &[])));
        drop(two);
        assert_eq!(ledger.to_be_written(), Some(standings(14, &[], &[])));
        ledger.advance(14 + FAR);
        assert_eq!(ledger.to_be_written(), Some(standings(14 + FAR, &[], &[])));
    }

    #[test]
    fn while_nobody_is_there_nothing_is_taken_and_then_all_of_it_is_read_once() {
        let ledger = Ledger::new(EPOCH, 10, None);
        let waits = arrive(&ledger, 12);
        let held = arrive(&ledger, 13);
        drop(arrive(&ledger, 14));
        ledger.close();
        waits.inspect(|ticket| ticket.let_go());
        assert!(arrive(&ledger, 17).is_none());
        assert_eq!(ledger.begins_behind(), Some((EPOCH, 10)));
        assert_eq!(ledger.begin_reading(16), (10, 17), "what was passed over is read as well");
        let late = arrive(&ledger, 18);
        assert!(late.is_some(), "it comes live");
        let read: Vec<u64> = (11..20).filter(|offset| ledger.take_read(*offset).is_some()).collect();
        assert_eq!(read, [11, 12, 15, 16, 17, 19]);
        ledger.note_read(19);
        assert!(arrive(&ledger, 19).is_none(), "it was read");
        assert!(ledger.end_reading() && !ledger.is_behind());
        assert_eq!(ledger.to_be_written(), Some(standings(19, &[13, 18], &[])));
        drop((held, late));
    }

    #[test]
    fn what_is_let_go_of_is_read_again_and_what_is_not_there_is_gone() {
        let ledger = Ledger::new(EPOCH, 0, None);
        let tickets: Vec<_> = (1..=4).filter_map(|offset| arrive(&ledger, offset)).collect();
        ledger.advance(4);
        tickets[1].let_go();
        tickets[3].refuse();
        assert!(ledger.is_behind() && arrive(&ledger, 5).is_none());
        drop(tickets);
        assert_eq!(ledger.to_be_written(), Some(standings(4, &[2, 4], &[])));
        let restored = Ledger::restored(EPOCH, standings(4, &[2, 4], &[]), None);
        for ledger in [ledger, restored] {
            assert_eq!(ledger.begin_reading(6), (1, 6));
            let read: Vec<u64> =
                [1, 3, 4, 5, 6].into_iter().filter(|at| ledger.take_read(*at).is_some()).collect();
            assert_eq!(read, [4, 5, 6]);
            ledger.note_read(6);
            assert!(ledger.end_reading());
            assert_eq!(ledger.to_be_written(), Some(standings(6, &[], &[])));
        }
    }

    #[test]
    fn reading_that_is_broken_off_begins_where_it_was() {
        let ledger = Ledger::restored(EPOCH, standings(9, &[3, 8], &[]), None);
        assert_eq!(ledger.begin_reading(20), (2, 20));
        drop(ledger.take_read(3));
        ledger.note_read(5);
        ledger.close();
        assert!(!ledger.end_reading());
        assert_eq!(ledger.to_be_written(), Some(standings(9, &[8], &[])));
        assert_eq!(ledger.begin_reading(20), (7, 20));
    }

    #[test]
    fn a_long_list_is_cut() {
        let ledger = Ledger::new(EPOCH, 0, None);
        let tickets: Vec<_> = (1..=5_000).filter_map(|offset| arrive(&ledger, offset)).collect();
        ledger.advance(5_000);
        let written = ledger.to_be_written().expect("it has changed");
        assert_eq!((written.through, written.unread.len()), (MAX_LISTED as u64, MAX_LISTED));
        drop(tickets);
    }

    #[test]
    fn what_is_finished_beyond_is_written_down_soon_and_does_not_come_again() {
        let news = Arc::new(News::default());
        let ledger = Ledger::new(EPOCH, 0, Some(news.clone()));
        let mut tickets: Vec<_> = (1..=150).filter_map(|offset| arrive(&ledger, offset)).collect();
        tickets.drain(..99);
        assert!(!news.take_groups(), "few are in no hurry");
        drop(tickets.remove(0));
        assert!(news.take_groups() && !news.take_groups());
        let written = ledger.to_be_written().expect("it has changed");
        assert_eq!(written, standings(0, &[], &(1..=100).collect::<Vec<_>>()));
        // After a crash.
        let ledger = Ledger::restored(EPOCH, written, None);
        assert_eq!(ledger.begin_reading(150), (0, 150));
        let read: Vec<u64> = (1..=150).filter(|offset| ledger.take_read(*offset).is_some()).collect();
        assert_eq!(read, (101..=150).collect::<Vec<_>>());
        drop(tickets);
    }
}

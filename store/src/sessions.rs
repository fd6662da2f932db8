//! Sessions of clients: who has which, what is recorded of them, and when they are over.
//!
//! A row is what was recorded; who has a session now is known in memory alone, as nobody outlives the process. All
//! sessions are known by name, so that one that is not there costs no look at the disk.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use broker_core::{Ends, Fence, MessageId, SessionRecord, Taken, unix_ms};
use fjall::{OwnedWriteBatch, PersistMode};
use parking_lot::Mutex;

use crate::disk::Disk;
use crate::error::OpenError;
use crate::schema::{numbers, read_numbers, read_taken_key, seal, taken_key, unseal};

/// A longer name has no row: such a session is in memory alone.
pub(crate) const MAX_NAME_BYTES: usize = 32 << 10;

/// Fences of one life: the next one begins behind them.
const FENCES: u64 = 1 << 32;

/// Sessions that are over and are deleted in one go.
const MAX_ENDED: usize = 1_000;

#[derive(Default)]
pub(crate) struct Sessions(Mutex<Index>);

#[derive(Default)]
struct Index {
    newest_fence: u64,
    known: HashMap<Arc<str>, Known>,
    ends: BTreeSet<(u64, Arc<str>)>,
    /// Numbers that stand for messages until they are freed, of those that have any.
    taken: HashMap<Arc<str>, BTreeSet<u16>>,
}

#[derive(Clone, Copy, Default)]
struct Known {
    /// Of its last claim; 0: of an earlier life.
    fence: u64,
    is_recorded: bool,
    /// In milliseconds since 1970.
    ends_ms: Option<u64>,
    /// When something is to be done for it. Till then it has no end.
    will_ms: Option<u64>,
}

/// How a claim begins.
pub(crate) enum Begun {
    /// Nothing is recorded.
    New(Fence),
    /// There may be a row.
    Known,
    /// There are too many already.
    Full,
}

impl Sessions {
    /// Those that are recorded. What an earlier life had from its clients' presence ends from now on.
    pub(crate) fn load(disk: &Disk) -> Result<Self, OpenError> {
        let damaged = |what: &str| OpenError::Damaged(what.to_owned());
        let newest_fence = match disk.meta.get("fence")? {
            Some(row) => {
                read_numbers(&row).map_or(Err(damaged("`fence` is no number")), |[fence]| Ok(fence))?
            }
            None => 0,
        };
        let mut batch = disk.db.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&disk.meta, "fence", numbers([newest_fence + FENCES]));
        batch.commit()?;
        let mut index = Index { newest_fence, ..Index::default() };
        let now_ms = unix_ms();
        for row in disk.sessions.iter() {
            let (key, value) = row.into_inner()?;
            let name = std::str::from_utf8(&key).map_err(|_| damaged("a session's name is no text"))?;
            let record = read_row(&value).ok_or_else(|| damaged(&format!("session {name:?}")))?;
            let at = |ends: Ends| match ends {
                Ends::At(at_ms) => Some(at_ms),
                Ends::After(after) => Some(now_ms.saturating_add(millis(after))),
                _ => None,
            };
            let (ends_ms, will_ms) = (at(record.ends), record.will.and_then(at));
            index.note(&name.into(), Known { fence: 0, is_recorded: true, ends_ms, will_ms });
        }
        let sessions = Self(Mutex::new(index));
        sessions.load_taken(disk)?;
        Ok(sessions)
    }

    /// The numbers of all, as they are on the disk.
    pub(crate) fn load_taken(&self, disk: &Disk) -> Result<(), OpenError> {
        let mut index = self.0.lock();
        index.taken.clear();
        for row in disk.taken.iter() {
            let key = row.key()?;
            let read = read_taken_key(&key);
            let (name, number) =
                read.ok_or_else(|| OpenError::Damaged("a session's number for a message".to_owned()))?;
            // One whose session is over is in nobody's way.
            if let Some((name, _)) = index.known.get_key_value(name) {
                let name = name.clone();
                index.taken.entry(name).or_default().insert(number);
            }
        }
        Ok(())
    }

    /// A first look: nothing that was submitted before need be waited for where nothing is known.
    pub(crate) fn begin(&self, name: &str, max: usize) -> Begun {
        let mut index = self.0.lock();
        if index.known.contains_key(name) {
            return Begun::Known;
        }
        if index.known.len() >= max {
            return Begun::Full;
        }
        Begun::New(index.claim(name))
    }

    pub(crate) fn is_known(&self, name: &str) -> bool {
        self.0.lock().known.contains_key(name)
    }

    /// From here on no earlier owner records anything.
    pub(crate) fn claim(&self, name: &str) -> Fence {
        self.0.lock().claim(name)
    }

    /// Whether whoever shows this fence has the session.
    pub(crate) fn admits(&self, name: &str, fence: Fence) -> bool {
        self.0.lock().known.get(name).is_some_and(|known| known.fence == fence.0)
    }

    /// What was written is on the disk.
    pub(crate) fn note_written(&self, name: &str, fence: Fence, record: Option<(Ends, Option<Ends>)>) {
        let mut index = self.0.lock();
        let Some((name, known)) = index.known.get_key_value(name).map(|(name, known)| (name.clone(), *known))
        else {
            return;
        };
        match record {
            None if known.fence == fence.0 => index.forget(&name),
            None => {
                index.taken.remove(&name);
                index.note(&name, Known { is_recorded: false, ends_ms: None, will_ms: None, ..known });
            }
            Some((ends, will)) => {
                let at = |ends: Ends| if let Ends::At(at_ms) = ends { Some(at_ms) } else { None };
                // While the client is here there is no time for it yet.
                let will_ms = will.map(|will| at(will).unwrap_or(u64::MAX));
                index.note(&name, Known { is_recorded: true, ends_ms: at(ends), will_ms, ..known });
            }
        }
    }

    /// A message was written under its session's number.
    pub(crate) fn note_taken(&self, taken: &Taken) {
        let mut index = self.0.lock();
        if let Some((name, _)) = index.known.get_key_value(&*taken.session) {
            let name = name.clone();
            index.taken.entry(name).or_default().insert(taken.number);
        }
    }

    pub(crate) fn note_freed(&self, taken: &Taken) {
        let mut index = self.0.lock();
        let Some(numbers) = index.taken.get_mut(&*taken.session) else { return };
        numbers.remove(&taken.number);
        if numbers.is_empty() {
            index.taken.remove(&*taken.session);
        }
    }

    /// A session's numbers that are not freed.
    pub(crate) fn taken(&self, name: &str) -> Vec<u16> {
        self.0.lock().taken.get(name).into_iter().flatten().copied().collect()
    }

    /// Those for which something is to be done, and when.
    pub(crate) fn wills(&self) -> Vec<(Box<str>, u64)> {
        let index = self.0.lock();
        let due = index.known.iter().filter_map(|(name, known)| Some((&**name, known.will_ms?)));
        due.map(|(name, at_ms)| (name.into(), at_ms)).collect()
    }

    /// How many are recorded.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().known.values().filter(|known| known.is_recorded).count()
    }

    /// Deletes those that are over. Whoever comes meanwhile does not wait for the disk: `commit` is called under no lock.
    pub(crate) fn end_old(
        &self,
        disk: &Disk,
        commit: impl FnOnce(OwnedWriteBatch) -> fjall::Result<()>,
    ) -> fjall::Result<()> {
        let mut batch = disk.db.batch().durability(Some(PersistMode::Buffer));
        let over: Vec<(Arc<str>, u64)> = {
            let index = self.0.lock();
            let now_ms = unix_ms();
            let over = index.ends.iter().take_while(|(ends_ms, _)| *ends_ms <= now_ms).take(MAX_ENDED);
            let fence = |name| index.known.get(name).map_or(0, |known| known.fence);
            let over: Vec<_> = over.map(|(_, name)| (name.clone(), fence(name))).collect();
            for (name, _) in &over {
                batch.remove(&disk.sessions, &**name);
                let numbers = index.taken.get(name).into_iter().flatten();
                for key in numbers.filter_map(|number| taken_key(name, *number)) {
                    batch.remove(&disk.taken, key);
                }
            }
            over
        };
        if over.is_empty() {
            return Ok(());
        }
        commit(batch)?;
        for (name, fence) in over {
            // Who has claimed it meanwhile finds nothing, and has its own.
            self.note_written(&name, Fence(fence), None);
        }
        Ok(())
    }
}

impl Index {
    fn claim(&mut self, name: &str) -> Fence {
        self.newest_fence += 1;
        let fence = self.newest_fence;
        match self.known.get_key_value(name).map(|(name, known)| (name.clone(), *known)) {
            // Until it is recorded again its end is the old one.
            Some((name, known)) => self.note(&name, Known { fence, ..known }),
            None => self.note(&name.into(), Known { fence, ..Known::default() }),
        }
        Fence(fence)
    }

    fn note(&mut self, name: &Arc<str>, now: Known) {
        let before = self.known.insert(name.clone(), now);
        if let Some(ends_ms) = before.and_then(|before| before.ends_ms) {
            self.ends.remove(&(ends_ms, name.clone()));
        }
        if let Some(ends_ms) = now.ends_ms.filter(|_| now.will_ms.is_none()) {
            self.ends.insert((ends_ms, name.clone()));
        }
    }

    fn forget(&mut self, name: &Arc<str>) {
        self.taken.remove(name);
        if let Some(ends_ms) = self.known.remove(name).and_then(|known| known.ends_ms) {
            self.ends.remove(&(ends_ms, name.clone()));
        }
    }
}

/// Rows of a batch: one for each session, as rows of one batch have no order.
#[derive(Default)]
pub(crate) struct Rows {
    records: HashMap<Box<str>, Option<Vec<u8>>>,
    /// Whether a session's number is taken.
    taken: HashMap<(Box<str>, u16), bool>,
}

impl Rows {
    /// What becomes of a session; over, it has no numbers either: those that are known, and those of this batch.
    pub(crate) fn set(&mut self, name: &str, record: Option<&SessionRecord>, sessions: &Sessions) {
        self.records.insert(name.into(), record.map(write_row));
        if record.is_none() {
            let of_batch = self.taken.keys().filter(|(session, _)| &**session == name);
            let numbers: HashSet<u16> =
                of_batch.map(|(_, number)| *number).chain(sessions.taken(name)).collect();
            self.taken.extend(numbers.into_iter().map(|number| ((name.into(), number), false)));
        }
    }

    pub(crate) fn set_taken(&mut self, taken: &Taken, is_taken: bool) {
        self.taken.insert((taken.session.clone(), taken.number), is_taken);
    }

    pub(crate) fn write(self, disk: &Disk, batch: &mut OwnedWriteBatch) {
        for (name, row) in self.records {
            match row {
                Some(row) => batch.insert(&disk.sessions, &*name, row),
                None => batch.remove(&disk.sessions, &*name),
            }
        }
        for ((name, number), is_taken) in self.taken {
            match taken_key(&name, number) {
                Some(key) if is_taken => batch.insert(&disk.taken, key, []),
                Some(key) => batch.remove(&disk.taken, key),
                None => {}
            }
        }
    }
}

/// What is recorded now. Its time may be over, and it only not deleted yet.
pub(crate) fn find(disk: &Disk, name: &str) -> fjall::Result<Option<SessionRecord>> {
    let Some(row) = disk.sessions.get(name)? else { return Ok(None) };
    let record = read_row(&row);
    if record.is_none() {
        tracing::error!(session = name, "the record of a session is damaged; the session begins anew");
    }
    let is_over = |record: &SessionRecord| matches!(record.ends, Ends::At(at) if at <= unix_ms());
    Ok(record.filter(|record| record.will.is_some() || !is_over(record)))
}

fn write_row(record: &SessionRecord) -> Vec<u8> {
    let numbers_of = |ends: Ends| match ends {
        Ends::At(at) => (1, at),
        Ends::After(after) => (2, millis(after)),
        _ => (0, 0),
    };
    let (mut kind, when) = numbers_of(record.ends);
    if record.will.is_some() {
        kind |= HAS_WILL;
    }
    let (epoch, offset) = record.position.map_or((0, 0), |position| (position.epoch(), position.offset()));
    let mut row = numbers([kind, when, u64::from(record.position.is_some()), epoch, offset]);
    if let Some((kind, when)) = record.will.map(numbers_of) {
        row.extend_from_slice(&numbers([kind, when]));
    }
    row.extend_from_slice(&record.state);
    seal(&row)
}

/// `None`: damaged.
pub(crate) fn read_row(row: &[u8]) -> Option<SessionRecord> {
    let (head, mut state) = unseal(row)?.split_first_chunk::<40>()?;
    let [kind, when, has_position, epoch, offset] = read_numbers(head)?;
    let ends_of = |kind, when| match kind {
        0 => Some(Ends::Never),
        1 => Some(Ends::At(when)),
        2 => Some(Ends::After(Duration::from_millis(when))),
        _ => None,
    };
    let (ends, mut will) = (ends_of(kind & !HAS_WILL, when)?, None);
    if kind & HAS_WILL != 0 {
        let (head, rest) = state.split_first_chunk::<16>()?;
        let [kind, when] = read_numbers(head)?;
        (will, state) = (Some(ends_of(kind, when)?), rest);
    }
    let position = (has_position == 1).then_some(MessageId::new(epoch, offset));
    Some(SessionRecord::new(state.to_vec(), position).ending(ends).with_will(will))
}

/// Beside the kind of a record's end: its will follows the head.
const HAS_WILL: u64 = 1 << 8;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let position = Some(MessageId::new(7, 9));
        for record in [
            SessionRecord::new("", None),
            SessionRecord::new("state", position).ending(Ends::At(5)),
            SessionRecord::new("state", position).ending(Ends::At(5)).with_will(Some(Ends::At(6))),
            SessionRecord::new("", None).with_will(Some(Ends::After(Duration::from_secs(9)))),
            SessionRecord::new(vec![0, 255], position).ending(Ends::After(Duration::from_millis(u64::MAX))),
        ] {
            let row = write_row(&record);
            assert_eq!(read_row(&row), Some(record));
            assert_eq!(read_row(&row[1..]), None);
        }
        assert_eq!(read_row(&seal(b"short")), None);
    }

    #[test]
    fn who_claimed_last_has_it_and_fences_grow() {
        let sessions = Sessions::default();
        let Begun::New(first) = sessions.begin("a", 1) else { panic!("it was not there") };
        assert!(sessions.admits("a", first) && matches!(sessions.begin("b", 1), Begun::Full));
        let second = sessions.claim("a");
        assert!(second > first && !sessions.admits("a", first) && sessions.admits("a", second));
        sessions.note_written("a", first, None);
        assert!(sessions.admits("a", second), "its end was written before the second came");
        sessions.note_written("a", second, Some((Ends::At(9), Some(Ends::At(8)))));
        assert!(sessions.wills() == [("a".into(), 8)] && sessions.0.lock().ends.is_empty());
        sessions.note_written("a", second, Some((Ends::At(9), None)));
        assert_eq!((sessions.len(), sessions.0.lock().ends.len()), (1, 1));
        sessions.note_written("a", second, None);
        assert!(!sessions.is_known("a") && sessions.0.lock().ends.is_empty());
    }
}

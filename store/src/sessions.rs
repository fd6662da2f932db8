//! Sessions of clients: who has which, what is recorded of them, and when they are over.
//!
//! A row is what was recorded; who has a session now is known in memory alone, as nobody outlives the process. All
//! sessions are known by name, so that one that is not there costs no look at the disk.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use broker_core::{Ends, Fence, SessionRecord, Taken, unix_ms};
use fjall::{OwnedWriteBatch, PersistMode};
use parking_lot::Mutex;

use crate::disk::Disk;
use crate::error::OpenError;
use crate::records::{millis, read_rows, write_served};
use crate::schema::{numbers, read_numbers, read_taken_key, seal, taken_key};

/// A longer name has no row: such a session is in memory alone.
pub(crate) const MAX_NAME_BYTES: usize = 32 << 10;

/// Fences of one life: the next one begins behind them.
const FENCES: u64 = 1 << 32;

/// Within this time a session that was claimed is recorded again, or is nobody's.
const CLAIM_MS: u64 = 60_000;

/// Sessions that are over and are deleted in one go.
const MAX_ENDED: usize = 1_000;

#[derive(Default)]
pub(crate) struct Sessions(Mutex<Index>, RandomState);

/// What is written of a session: when it ends, and a hash of what seldom changes of it.
#[derive(Clone, Copy)]
pub(crate) struct Written {
    ends: Ends,
    will: Option<Ends>,
    settled: u64,
}

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
    /// A hash of what is written of it that seldom changes; 0: nothing is, or that is not known.
    settled: u64,
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
            let served = disk.served.get(&key)?;
            let record =
                read_rows(&value, served.as_deref()).ok_or_else(|| damaged(&format!("session {name:?}")))?;
            let at = |ends: Ends| match ends {
                Ends::At(at_ms) => Some(at_ms),
                Ends::After(after) => Some(now_ms.saturating_add(millis(after))),
                _ => None,
            };
            let (ends_ms, will_ms) = (at(record.ends), record.will.and_then(at));
            index.note(&name.into(), Known { is_recorded: true, ends_ms, will_ms, ..Known::default() });
        }
        let sessions = Self(Mutex::new(index), RandomState::new());
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
    pub(crate) fn note_written(&self, name: &str, fence: Fence, record: Option<Written>) {
        let mut index = self.0.lock();
        let Some((name, known)) = index.known.get_key_value(name).map(|(name, known)| (name.clone(), *known))
        else {
            return;
        };
        match record {
            None if known.fence == fence.0 => index.forget(&name),
            None => {
                index.taken.remove(&name);
                index.note(&name, Known { fence: known.fence, ..Known::default() });
            }
            Some(Written { ends, will, settled }) => {
                let at = |ends: Ends| if let Ends::At(at_ms) = ends { Some(at_ms) } else { None };
                // While the client is here there is no time for it yet.
                let will_ms = will.map(|will| at(will).unwrap_or(u64::MAX));
                index.note(&name, Known { is_recorded: true, ends_ms: at(ends), will_ms, settled, ..known });
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

    fn settled(&self, name: &str) -> u64 {
        self.0.lock().known.get(name).map_or(0, |known| known.settled)
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
                batch.remove(&disk.served, &**name);
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

    /// What is on the disk is not known: all is written again.
    pub(crate) fn forget_written(&self) {
        self.0.lock().known.values_mut().for_each(|known| known.settled = 0);
    }
}

impl Index {
    fn claim(&mut self, name: &str) -> Fence {
        self.newest_fence += 1;
        let fence = self.newest_fence;
        match self.known.get_key_value(name).map(|(name, known)| (name.clone(), *known)) {
            // Until it is recorded again its end is the old one, or a little later: whoever comes at its end has it.
            Some((name, known)) => {
                let ends_ms = known.ends_ms.map(|ends_ms| ends_ms.max(unix_ms() + CLAIM_MS));
                self.note(&name, Known { fence, ends_ms, ..known });
            }
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

/// Rows of a batch: one for each session and keyspace, as rows of one batch have no order.
#[derive(Default)]
pub(crate) struct Rows {
    records: HashMap<Box<str>, Option<Parts>>,
    /// Whether a session's number is taken.
    taken: HashMap<(Box<str>, u16), bool>,
}

/// A record's rows.
struct Parts {
    /// `None`: as it was written before.
    settled: Option<Vec<u8>>,
    served: Vec<u8>,
}

impl Rows {
    /// What becomes of a session; over, it has no numbers either: those that are known, and those of this batch. What is
    /// to be noted once it is written.
    pub(crate) fn set(
        &mut self,
        name: &str,
        record: Option<&SessionRecord>,
        sessions: &Sessions,
    ) -> Option<Written> {
        let Some(record) = record else {
            self.records.insert(name.into(), None);
            let of_batch = self.taken.keys().filter(|(session, _)| &**session == name);
            let numbers: HashSet<u16> =
                of_batch.map(|(_, number)| *number).chain(sessions.taken(name)).collect();
            self.taken.extend(numbers.into_iter().map(|number| ((name.into(), number), false)));
            return None;
        };
        let (settled, moving) = record.parts();
        let hash = sessions.1.hash_one(settled).max(1);
        // What this batch has of it already is on the disk no sooner than this.
        let is_same = !self.records.contains_key(name) && sessions.settled(name) == hash;
        let parts =
            Parts { settled: (!is_same).then(|| seal(settled)), served: write_served(record, moving) };
        self.records.insert(name.into(), Some(parts));
        Some(Written { ends: record.ends, will: record.will, settled: hash })
    }

    pub(crate) fn set_taken(&mut self, taken: &Taken, is_taken: bool) {
        self.taken.insert((taken.session.clone(), taken.number), is_taken);
    }

    pub(crate) fn write(self, disk: &Disk, batch: &mut OwnedWriteBatch) {
        for (name, parts) in self.records {
            match parts {
                Some(Parts { settled, served }) => {
                    if let Some(row) = settled {
                        batch.insert(&disk.sessions, &*name, row);
                    }
                    batch.insert(&disk.served, &*name, served);
                }
                None => {
                    batch.remove(&disk.sessions, &*name);
                    batch.remove(&disk.served, &*name);
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_seldom_changes_is_written_when_it_has_changed() {
        let sessions = Sessions::default();
        let Begun::New(fence) = sessions.begin("a", 1) else { panic!("it was not there") };
        let write = |records: &[(&str, &str)]| {
            let mut rows = Rows::default();
            let mut written = None;
            for (settled, moving) in records {
                let record = SessionRecord::new([*settled, *moving].concat(), None).with_moving(moving.len());
                written = rows.set("a", Some(&record), &sessions);
            }
            sessions.note_written("a", fence, written);
            rows.records.remove("a").flatten().and_then(|parts| parts.settled).is_some()
        };
        assert!(write(&[("filters", "1")]));
        assert!(!write(&[("filters", "2")]) && !write(&[("filters", "3")]));
        assert!(write(&[("more", "3")]) && !write(&[("more", "4")]));
        assert!(
            write(&[("filters", "4"), ("more", "4")]),
            "what this batch has had before is not what is there"
        );
        sessions.forget_written();
        assert!(write(&[("more", "5")]) && !write(&[("more", "6")]));
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
        let written = |will| Some(Written { ends: Ends::At(9), will, settled: 1 });
        sessions.note_written("a", second, written(Some(Ends::At(8))));
        assert!(sessions.wills() == [("a".into(), 8)] && sessions.0.lock().ends.is_empty());
        sessions.note_written("a", second, written(None));
        assert_eq!((sessions.len(), sessions.0.lock().ends.len()), (1, 1));
        sessions.note_written("a", second, None);
        assert!(!sessions.is_known("a") && sessions.0.lock().ends.is_empty());
    }
}

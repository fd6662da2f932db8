//! Zeros in the database's journal, ahead of what is written to it.
//!
//! The database makes a journal as a long file of nothing. The file system finds blocks for it as it is written, so that each
//! flush waits for the file system's own journal as well, which is nearly as long again. What is written over zeros has
//! its blocks, and its flush is the disk's alone.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::journal::journals;

/// So much is made zeros at a time. The next flush takes it along: less often and longer, or the other way round.
const STEP: u64 = 256 << 10;
/// What is written to a journal for each row, beside what it says.
const ROW_BYTES: u64 = 64;

/// Belongs to the one thread that writes to the database.
pub(crate) struct Ahead {
    database: PathBuf,
    /// About how much is left of the zeros.
    left: u64,
}

impl Ahead {
    pub(crate) fn new(database: PathBuf) -> Self {
        Self { database, left: 0 }
    }

    /// About so much was written; nothing is written now.
    pub(crate) fn written(&mut self, rows: u64, bytes: u64, was_flushed: bool) {
        self.left = self.left.saturating_sub(bytes + rows * ROW_BYTES);
        if was_flushed && self.left < STEP / 2 {
            self.left += STEP;
            // Whatever is wrong with the disk, the next batch tells of it.
            _ = go_ahead(&self.database);
        }
    }
}

/// The newest journal is the one that is written to.
fn go_ahead(database: &Path) -> io::Result<()> {
    let number = |file: &PathBuf| file.file_stem()?.to_str()?.parse::<u64>().ok();
    match journals(database)?.into_iter().max_by_key(number) {
        Some(newest) => fill(&OpenOptions::new().read(true).write(true).open(newest)?),
        None => Ok(()),
    }
}

/// Fills a part of what was never written: no byte that was is touched, and the file grows no longer.
fn fill(journal: &File) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let Some(begin) = first_hole(journal)? else { return Ok(()) };
    let end = journal.metadata()?.len().min(begin + STEP);
    let mut at = begin;
    while at < end {
        let count = usize::try_from(end - at).unwrap_or(usize::MAX).min(ZEROS.len());
        journal.write_all_at(ZEROS.get(..count).unwrap_or(&ZEROS), at)?;
        at += count as u64;
    }
    Ok(())
}

/// Where a file has no blocks yet. Where nobody can tell, its end.
#[cfg(target_os = "linux")]
fn first_hole(file: &File) -> io::Result<Option<u64>> {
    Ok(Some(rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(0))?))
}

#[cfg(not(target_os = "linux"))]
fn first_hole(_: &File) -> io::Result<Option<u64>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use fjall::PersistMode;

    use super::*;
    use crate::disk::{database, options};

    #[test]
    #[cfg_attr(not(target_os = "linux"), ignore = "there nothing is filled")]
    fn what_was_written_stays_and_no_file_grows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.jnl");
        fs::write(&path, [7; 5_000]).unwrap();
        let journal = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let length = STEP + STEP / 2 + 1;
        journal.set_len(length).unwrap();
        for zeros in [8_192 + STEP, length, length] {
            fill(&journal).unwrap();
            assert_eq!(
                (first_hole(&journal).unwrap(), journal.metadata().unwrap().len()),
                (Some(zeros), length)
            );
        }
        let bytes = fs::read(&path).unwrap();
        assert!(bytes[..5_000].iter().all(|byte| *byte == 7) && bytes[5_000..].iter().all(|byte| *byte == 0));
    }

    #[test]
    #[cfg_attr(not(target_os = "linux"), ignore = "there nothing is filled")]
    fn batches_are_written_over_zeros_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let batches = 200_u16;
        {
            let db = database(folder.path()).unwrap();
            let rows = db.keyspace("rows", options).unwrap();
            let mut ahead = Ahead::new(folder.path().to_owned());
            for number in 0..batches {
                let mut batch = db.batch().durability(Some(PersistMode::SyncData));
                batch.insert(&rows, number.to_be_bytes(), vec![1; 5_000]);
                batch.commit().unwrap();
                ahead.written(1, 5_000, true);
                let held = fs::metadata(folder.path().join("0.jnl")).unwrap().blocks() * 512;
                assert!(held > (u64::from(number) + 1) * 5_000 + STEP / 4, "{number}: {held} bytes");
            }
        }
        let rows = database(folder.path()).unwrap().keyspace("rows", options).unwrap();
        assert_eq!(rows.len().unwrap(), usize::from(batches));
    }

    #[test]
    #[cfg_attr(not(target_os = "linux"), ignore = "there nothing is filled")]
    fn the_newest_journal_is_the_one_with_the_largest_number() {
        let folder = tempfile::tempdir().unwrap();
        let create = |name: &str| {
            let path = folder.path().join(name);
            File::create(&path).unwrap().set_len(STEP).unwrap();
            path
        };
        let [older, newest] = [create("9.jnl"), create("10.jnl")];
        // What nobody waited for needs no quick flush.
        Ahead::new(folder.path().to_owned()).written(1, 1, false);
        assert_eq!(fs::metadata(&newest).unwrap().blocks(), 0);
        Ahead::new(folder.path().to_owned()).written(1, 1, true);
        let held = [older, newest].map(|path| fs::metadata(path).unwrap().blocks() * 512);
        assert_eq!(held[0], 0);
        assert!(held[1] >= STEP, "{held:?}");
    }
}

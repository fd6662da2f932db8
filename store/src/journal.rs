//! Looks at the database's journals before it opens them.
//!
//! It goes on behind the last batch that it can read. What is behind it is cut off without a word: right for a batch that a
//! crash tore, and silent about one that was damaged later, with whole ones behind it that were acknowledged. And it
//! does not open at all if the sum of a batch is wrong, as that of one which a power loss took a page of.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::error::OpenError;

/// What becomes of a journal that was damaged before batches that are whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// It is not opened: what lies behind was acknowledged as being on the disk.
    Refuse,
    /// It is cut: a power loss may take the one and leave the other of what was not.
    Cut,
}

/// Makes the journals of a database such that it opens.
pub(crate) fn mend(database: &Path, damage: Damage) -> Result<(), OpenError> {
    let io = |error| OpenError::Io { path: database.to_owned(), error };
    for file in journals(database).map_err(io)? {
        let Some(Rest { at, batches }) = rest_of(&file).map_err(io)? else { continue };
        if batches > 0 {
            let cut = Cut { file: file.clone(), at, batches };
            if damage == Damage::Refuse {
                return Err(OpenError::Damaged(format!("{cut}; `truncate -s {at}` gives them up")));
            }
            tracing::error!(journal = %file.display(), at, batches, "the store has lost what lay behind damage in its journal");
        }
        let open = OpenOptions::new().write(true).open(&file);
        open.and_then(|file| file.set_len(at).and_then(|()| file.sync_all())).map_err(io)?;
    }
    Ok(())
}

/// A journal that will be cut before batches that are whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cut {
    file: PathBuf,
    /// From this byte on.
    at: u64,
    batches: u64,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, at, batches } = self;
        write!(f, "journal {} at byte {at}: {batches} whole batches lie behind it", file.display())
    }
}

/// All journals of a database that were damaged before batches that are whole.
pub(crate) fn cuts(database: &Path) -> io::Result<Vec<Cut>> {
    let mut cuts = Vec::new();
    for file in journals(database)? {
        if let Some(Rest { at, batches: batches @ 1.. }) = rest_of(&file)? {
            cuts.push(Cut { file, at, batches });
        }
    }
    Ok(cuts)
}

pub(crate) fn journals(database: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(database) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let files: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut files = files?;
    files.retain(|file| file.extension().is_some_and(|end| end == "jnl"));
    files.sort();
    Ok(files)
}

/// What lies behind the last batch that can be read.
struct Rest {
    at: u64,
    /// Whole ones in it.
    batches: u64,
}

/// `None`: nothing, or nothing but zeros, as a journal is longer than what was written to it.
fn rest_of(file: &Path) -> io::Result<Option<Rest>> {
    let mut reader = BufReader::with_capacity(64 << 10, File::open(file)?);
    let mut at = 0;
    while let Some(length) = batch(&mut reader)? {
        at += length;
    }
    reader.seek(SeekFrom::Start(at))?;
    let mut rest = Vec::new();
    let mut page = vec![0; 64 << 10];
    loop {
        let read = reader.read(&mut page)?;
        let read = page.get(..read).unwrap_or_default();
        if read.is_empty() {
            break;
        }
        if !rest.is_empty() || read.iter().any(|byte| *byte != 0) {
            rest.extend_from_slice(read);
        }
    }
    if rest.is_empty() {
        return Ok(None);
    }
    let (mut behind, mut batches) = (&rest[..], 0);
    while let Some(begin) = behind.iter().position(|byte| *byte == START) {
        behind = behind.get(begin..).unwrap_or_default();
        let passed = match batch(&mut io::Cursor::new(behind))? {
            Some(length) => {
                batches += 1;
                usize::try_from(length).unwrap_or(usize::MAX)
            }
            None => 1,
        };
        behind = behind.get(passed..).unwrap_or_default();
    }
    Ok(Some(Rest { at, batches }))
}

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: &[u8] = b"FJL\x03";

/// How long the batch is that begins here; `None`: there is no whole one.
fn batch(reader: &mut impl Read) -> io::Result<Option<u64>> {
    match read_batch(Summed { reader, sum: Xxh3::new(), bytes: 0 }) {
        Ok(length) => Ok(Some(length)),
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn read_batch(mut reader: Summed<'_, impl Read>) -> io::Result<u64> {
    if reader.numbers::<1>()? != [START] {
        return Err(no_batch());
    }
    let count = u32::from_le_bytes(reader.numbers()?);
    reader.numbers::<8>()?;
    // The sum is that of the items.
    reader.sum.reset();
    for _ in 0..count {
        match reader.numbers::<1>()? {
            [ITEM] => {
                let [kind, compression] = reader.numbers()?;
                if kind > 4 || compression > 1 {
                    return Err(no_batch());
                }
                reader.numbers::<8>()?;
                let key = u16::from_le_bytes(reader.numbers()?);
                reader.numbers::<4>()?;
                let value = u32::from_le_bytes(reader.numbers()?);
                reader.pass(u64::from(key) + u64::from(value))?;
            }
            [CLEAR] => _ = reader.numbers::<8>()?,
            _ => return Err(no_batch()),
        }
    }
    let sum = reader.sum.digest();
    let is_right = reader.numbers::<1>()? == [END]
        && reader.numbers::<8>()? == sum.to_le_bytes()
        && reader.numbers::<4>()? == *TRAILER;
    if is_right && count > 0 { Ok(reader.bytes) } else { Err(no_batch()) }
}

/// Reads and sums up.
struct Summed<'r, R> {
    reader: &'r mut R,
    sum: Xxh3,
    bytes: u64,
}

impl<R: Read> Summed<'_, R> {
    fn numbers<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        self.sum.update(&bytes);
        self.bytes += N as u64;
        Ok(bytes)
    }

    /// Less than that is an end.
    fn pass(&mut self, mut left: u64) -> io::Result<()> {
        let mut page = [0; 4 << 10];
        while left > 0 {
            let length = page.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let part = page.get_mut(..length).unwrap_or_default();
            self.reader.read_exact(part)?;
            self.sum.update(part);
            left -= length as u64;
            self.bytes += length as u64;
        }
        Ok(())
    }
}

fn no_batch() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{database, options};
    use fjall::PersistMode;

    /// A database whose journal has three batches, and where these end in it.
    fn written() -> (tempfile::TempDir, PathBuf, [u64; 3]) {
        let folder = tempfile::tempdir().unwrap();
        let db = database(folder.path()).unwrap();
        let keyspace = db.keyspace("messages", options).unwrap();
        let journal = folder.path().join("0.jnl");
        let ends = [1, 2, 3].map(|n: u8| {
            let mut batch = db.batch().durability(Some(PersistMode::SyncData));
            for key in 0..n {
                batch.insert(&keyspace, [n, key], incompressible(u64::from(n * 8 + key)));
            }
            batch.commit().unwrap();
            let mut reader = BufReader::new(File::open(&journal).unwrap());
            let mut end = 0;
            while let Some(length) = super::batch(&mut reader).unwrap() {
                end += length;
            }
            end
        });
        (folder, journal, ends)
    }

    /// 3,000 bytes.
    fn incompressible(n: u64) -> Vec<u8> {
        let mut random = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let bytes = std::iter::repeat_with(|| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random.to_le_bytes()[0]
        });
        bytes.take(3_000).collect()
    }

    fn overwrite(journal: &Path, at: u64, bytes: &[u8]) {
        use std::io::Write as _;
        let mut file = fs::OpenOptions::new().write(true).open(journal).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(bytes).unwrap();
    }

    #[test]
    fn a_sound_journal_is_read_to_its_end() {
        let (folder, journal, ends) = written();
        assert!(ends[0] > 0 && ends.is_sorted_by(|one, other| one < other), "{ends:?}");
        assert!(fs::metadata(journal).unwrap().len() > ends[2], "it is longer");
        assert_eq!(cuts(folder.path()).unwrap(), []);
        assert_eq!(cuts(&folder.path().join("nothing")).unwrap(), []);
    }

    #[test]
    fn a_batch_that_a_crash_tore_is_no_damage() {
        let (folder, journal, ends) = written();
        for length in [ends[2] - 1, ends[1] + 20, ends[1] + 1] {
            let file = fs::OpenOptions::new().write(true).open(&journal).unwrap();
            file.set_len(length).unwrap();
            assert_eq!(cuts(folder.path()).unwrap(), [], "{length}");
            // The rest is zeros, as it was before.
            file.set_len(64 << 20).unwrap();
            assert_eq!(cuts(folder.path()).unwrap(), [], "{length}");
        }
    }

    #[test]
    fn whole_batches_behind_a_damaged_one_are_told_of_and_given_up_where_they_may_be() {
        for (damaged, batches) in [(0, 2), (1, 1)] {
            let (folder, journal, ends) = written();
            let begin = if damaged == 0 { 0 } else { ends[damaged - 1] };
            // Its first byte, its count, what is in it, and a page of it that is nothing.
            for (at, bytes) in
                [(begin + 500, &[0; 64][..]), (begin, &[9]), (begin + 1, &[200]), (begin, &[0; 64])]
            {
                overwrite(&journal, at, bytes);
                let cut = Cut { file: journal.clone(), at: begin, batches };
                assert_eq!(cuts(folder.path()).unwrap(), std::slice::from_ref(&cut), "{damaged} {at}");
                let refused = mend(folder.path(), Damage::Refuse).unwrap_err().to_string();
                assert!(refused.contains(&cut.to_string()), "{refused}");
            }
            mend(folder.path(), Damage::Cut).unwrap();
            assert_eq!(fs::metadata(&journal).unwrap().len(), begin);
            let db = database(folder.path()).unwrap();
            let keyspace = db.keyspace("messages", options).unwrap();
            assert_eq!(keyspace.len().unwrap(), damaged);
        }
    }

    #[test]
    fn a_last_batch_that_a_power_loss_took_a_page_of_is_cut() {
        for at in [0, 500] {
            let (folder, journal, ends) = written();
            overwrite(&journal, ends[1] + at, &[0; 64]);
            assert_eq!(cuts(folder.path()).unwrap(), []);
            mend(folder.path(), Damage::Refuse).unwrap();
            let db = database(folder.path()).unwrap();
            assert_eq!(db.keyspace("messages", options).unwrap().len().unwrap(), 3, "{at}");
        }
    }
}

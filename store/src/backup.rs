//! Copies a store, whoever has it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fjall::{Database, PersistMode};

use crate::check::{Report, look_through};
use crate::copying::{Moment, Part, Received, size_of};
use crate::disk::{DATABASE, Disk, UNFINISHED, database, options};
use crate::door;
use crate::error::{BackupError, OpenError};
use crate::journal::Damage;
use crate::lock::{Expect, Lock, sync_directory};
use crate::schema::{META, lost_key, numbers};

/// How far behind the newest offset of a copy its first life begins. The store that was copied goes on meanwhile, and no
/// offset of its later messages may be given again: at a million a second it takes twelve days to come so far.
const AHEAD: u64 = 1 << 40;

/// Copies the store of a directory, as it is at one moment, into another one, and reads the copy. If a process has the
/// store, that sends it, and goes on; it has to [answer](crate::Store::answer_backups). To go back to it, open a store
/// there.
///
/// The copy is written beside its place, and gets its name when all of it is on the disk.
///
/// # Errors
/// See [`BackupError`].
pub fn backup(from: &Path, to: &Path) -> Result<Report, BackupError> {
    let is_new = !to.exists();
    check_place(from, to)?;
    match Lock::take(from, Expect::Store) {
        Ok(_lock) => {
            let (disk, head) = Disk::open(from, Damage::Refuse)?;
            let moment = Moment::of(&disk, head).map_err(OpenError::from)?;
            let parts = moment.parts().map(|part| Ok(part.map_err(OpenError::from)?));
            write(from, to, is_new, parts)
        }
        Err(OpenError::InUse { path, holder }) => {
            let not_sent = |error| BackupError::NotSent { path: path.clone(), holder: holder.clone(), error };
            let socket = door::knock(from).map_err(not_sent)?;
            let parts = Received::new(socket).map_err(not_sent)?;
            write(from, to, is_new, parts.map(|part| part.map_err(not_sent)))
        }
        Err(other) => Err(other.into()),
    }
}

/// Whether a copy may be written there.
fn check_place(from: &Path, to: &Path) -> Result<(), BackupError> {
    let io = |error| BackupError::Io { path: to.to_owned(), error };
    let store = fs::canonicalize(from).map_err(|_| OpenError::Missing(from.to_owned()))?;
    let absolute = std::path::absolute(to).map_err(io)?;
    let there = absolute.ancestors().find_map(|folder| fs::canonicalize(folder).ok());
    if there.is_some_and(|folder| folder.starts_with(store)) {
        return Err(BackupError::Inside(to.to_owned()));
    }
    match fs::read_dir(to) {
        Ok(entries) => {
            for entry in entries {
                let name = entry.map_err(io)?.file_name();
                // What an earlier backup left that was interrupted.
                if name != Lock::NAME && name != UNFINISHED {
                    return Err(BackupError::NotEmpty(to.to_owned()));
                }
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io(error)),
    }
}

type Parts<'p> = dyn Iterator<Item = Result<Part, BackupError>> + 'p;

fn write(
    from: &Path,
    to: &Path,
    is_new: bool,
    mut parts: impl Iterator<Item = Result<Part, BackupError>>,
) -> Result<Report, BackupError> {
    // Nobody begins a store there meanwhile.
    let lock = Lock::take(to, Expect::Anything)?;
    let written = write_into(from, to, &mut parts);
    if written.is_err() {
        // Whoever asked is told the first error, not that of cleaning up.
        _ = fs::remove_dir_all(to.join(UNFINISHED));
        _ = fs::remove_file(to.join(Lock::NAME));
        if is_new {
            _ = fs::remove_dir(to);
        }
    }
    drop(lock);
    written
}

fn write_into(from: &Path, to: &Path, parts: &mut Parts<'_>) -> Result<Report, BackupError> {
    let io = |path: &Path| {
        let path: PathBuf = path.to_owned();
        move |error| BackupError::Io { path, error }
    };
    let unfinished = to.join(UNFINISHED);
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(io(&unfinished))?;
    }
    let disk = rustix::fs::statvfs(to).map_err(|error| io(to)(error.into()))?;
    let (free, needed) = (disk.f_bavail.saturating_mul(disk.f_frsize), size_of(&from.join(DATABASE)));
    if free < needed {
        return Err(BackupError::NoRoom { path: to.to_owned(), free, needed });
    }
    fill(&database(&unfinished)?, parts, io(&unfinished))?;
    let report = {
        let (disk, head) = Disk::open_database(&unfinished)?;
        look_through(&disk, head)?
    };
    fs::rename(&unfinished, to.join(DATABASE)).map_err(io(&unfinished))?;
    sync_directory(to)?;
    Ok(report)
}

fn fill(
    db: &Database,
    parts: &mut Parts<'_>,
    io: impl FnOnce(io::Error) -> BackupError,
) -> Result<(), BackupError> {
    let mut next = parts.next();
    // What goes into `meta` comes with the end, which says how it goes on.
    let mut meta = Vec::new();
    loop {
        match next.take() {
            Some(Ok(Part::Keyspace(name))) if (1..=255).contains(&name.len()) => {
                let keyspace = db.keyspace(&name, options)?;
                let mut rows = None;
                next = loop {
                    match parts.next() {
                        Some(Ok(Part::Row(key, value))) if name == META => meta.push((key, value)),
                        Some(Ok(Part::Row(key, value))) => {
                            let rows = match &mut rows {
                                Some(rows) => rows,
                                None => rows.insert(keyspace.start_ingestion()?),
                            };
                            rows.write(key, value)?;
                        }
                        other => break other,
                    }
                };
                if let Some(rows) = rows {
                    rows.finish()?;
                }
            }
            Some(Ok(Part::End(head))) => {
                let keyspace = db.keyspace(META, options)?;
                let mut batch = db.batch().durability(Some(PersistMode::SyncAll));
                for (key, value) in meta {
                    if key != b"head" {
                        batch.insert(&keyspace, key, value);
                    }
                }
                let begins = head.saturating_add(AHEAD);
                batch.insert(&keyspace, "head", numbers([begins]));
                batch.insert(&keyspace, lost_key(head), numbers([begins]));
                batch.commit()?;
                return Ok(());
            }
            Some(Err(error)) => return Err(error),
            _ => return Err(io(io::Error::new(io::ErrorKind::InvalidData, "what was sent is no store"))),
        }
    }
}

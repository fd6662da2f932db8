//! One process at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::error::OpenError;

/// Holds the store of a directory as long as it lives, also for the kernel: it goes with the process however that ends.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "holds the lock")] File);

/// What must be there for a directory to be made into a store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Nothing.
    Anything,
    /// A store.
    Store,
}

impl Lock {
    pub(crate) const NAME: &str = "LOCK";

    pub(crate) fn take(directory: &Path, expect: Expect) -> Result<Self, OpenError> {
        let io = |error| OpenError::Io { path: directory.to_owned(), error };
        let path = directory.join(Self::NAME);
        if expect == Expect::Store && !path.exists() {
            return Err(OpenError::Missing(directory.to_owned()));
        }
        if directory.symlink_metadata().is_ok() && !directory.is_dir() {
            return Err(OpenError::NoDirectory(directory.to_owned()));
        }
        fs::create_dir_all(directory).map_err(io)?;
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(io)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            _ = file.take(32).read_to_string(&mut holder);
            let holder = if holder.trim().is_empty() { "?".to_owned() } else { holder.trim().to_owned() };
            return Err(OpenError::InUse { path: directory.to_owned(), holder });
        }
        let write = |file: &mut File| -> io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(io)?;
        Ok(Self(file))
    }
}

/// Has the names in a directory written to the disk, and its own name in the one above.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), OpenError> {
    let io = |error| OpenError::Io { path: directory.to_owned(), error };
    File::open(directory).and_then(|file| file.sync_all()).map_err(io)?;
    if let Some(parent) = directory.canonicalize().map_err(io)?.parent() {
        File::open(parent).and_then(|file| file.sync_all()).map_err(io)?;
    }
    Ok(())
}

//! Why a store is not opened, or not copied.

use std::io;
use std::path::PathBuf;

/// Why a store is not opened. Nothing of it was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory cannot be made or read.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is no store.
    #[error("{} is no store", .0.display())]
    Missing(PathBuf),
    /// Something else lies in its place.
    #[error("{} is no directory: a store is a directory of its own", .0.display())]
    NoDirectory(PathBuf),
    /// Another process has it.
    #[error("{} is in use by process {holder}", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who has it: its number, as it wrote it.
        holder: String,
    },
    /// It was written by a newer version.
    #[error("the store has schema {found}, this version knows {known}: it was written by a newer one")]
    NewerSchema {
        /// What it says.
        found: u32,
        /// What is known here.
        known: u32,
    },
    /// More is retained than the broker may hold.
    #[error(
        "{messages} retained messages of {bytes} bytes are stored, {max_messages} and {max_bytes} are allowed"
    )]
    TooManyRetained {
        /// Messages.
        messages: usize,
        /// Their weight.
        bytes: usize,
        /// The bound.
        max_messages: usize,
        /// The bound.
        max_bytes: usize,
    },
    /// What is there cannot be read.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// A backup was being written to it, and did not end.
    #[error("{} holds a backup that was not finished: make it again, or take another one", .0.display())]
    Unfinished(PathBuf),
    /// The database beneath it does not open.
    #[error("the database does not open: {0}")]
    Database(#[from] fjall::Error),
}

impl OpenError {
    /// Whether it may open at another time, without anybody's help.
    pub(crate) fn may_pass(&self) -> bool {
        use fjall::Error;
        match self {
            Self::Io { .. } | Self::Missing(_) | Self::InUse { .. } => true,
            Self::Database(error) => {
                matches!(error, Error::Io(_) | Error::Locked | Error::Poisoned)
                    || matches!(error, Error::Storage(fjall::LsmError::Io(_)))
            }
            _ => false,
        }
    }
}

/// Why there is no backup. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The store, or the copy, does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is something where it was to be.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// It would lie in the store itself.
    #[error("{} lies in the store", .0.display())]
    Inside(PathBuf),
    /// The disk is too small.
    #[error("{} has room for {free} bytes, the store takes {needed}", path.display())]
    NoRoom {
        /// Where it was to be.
        path: PathBuf,
        /// What is free there.
        free: u64,
        /// What the store takes.
        needed: u64,
    },
    /// It cannot be written.
    #[error("{}: {error}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It cannot be written, says the database.
    #[error("the copy cannot be written: {0}")]
    Database(#[from] fjall::Error),
    /// The process that has the store does not send it.
    #[error("{} is in use by process {holder}, which does not send a copy: {error}", path.display())]
    NotSent {
        /// The store's directory.
        path: PathBuf,
        /// Who has it.
        holder: String,
        /// What it says, or what became of the connection.
        error: io::Error,
    },
}

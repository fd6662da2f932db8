//! Why a store is not opened.

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
    /// The database beneath it does not open.
    #[error("the database does not open: {0}")]
    Database(#[from] fjall::Error),
}

//! What parts of the server remember over a crash, besides messages and sessions.

use bytes::Bytes;

/// A note: a short name in a room, and what stands in it, which only whoever wrote it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Note {
    /// Whose it is.
    pub room: Box<str>,
    /// Its name there.
    pub name: Box<str>,
    /// What it says; `None`: it is forgotten.
    pub text: Option<Bytes>,
}

impl Note {
    /// A note, or that it is forgotten.
    pub fn new(room: impl Into<Box<str>>, name: impl Into<Box<str>>, text: Option<Bytes>) -> Self {
        Self { room: room.into(), name: name.into(), text }
    }

    /// What it counts in the bounds of an engine, in bytes.
    pub fn weight(&self) -> usize {
        self.room.len() + self.name.len() + self.text.as_ref().map_or(0, Bytes::len)
    }
}

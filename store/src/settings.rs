//! What is kept, for how long, and how safely.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::journal::Damage;

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// It is on the disk: it survives a power loss.
    Always,
    /// The operating system has it: it survives the end of the process, by `kill -9` too, and after this long a power
    /// loss.
    Interval(Duration),
    /// The operating system has it, and writes it when it likes.
    Os,
    /// It is in this process' memory, and the store has nothing to do with it.
    Memory,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::Interval(interval) => write!(f, "interval:{}ms", interval.as_millis()),
            Self::Os => f.write_str("os"),
            Self::Memory => f.write_str("memory"),
        }
    }
}

/// A text that is not one of `always`, `interval:100ms`, `os` and `memory`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of \"always\", \"interval:100ms\", \"os\", \"memory\"")]
pub struct DurabilityError(String);

impl FromStr for Durability {
    type Err = DurabilityError;

    fn from_str(text: &str) -> Result<Self, DurabilityError> {
        const MAX_MS: u64 = 3_600_000;
        let wrong = || DurabilityError(text.to_owned());
        match text {
            "always" => Ok(Self::Always),
            "os" => Ok(Self::Os),
            "memory" => Ok(Self::Memory),
            _ => {
                let interval = text.strip_prefix("interval:").ok_or_else(wrong)?;
                let (number, unit_ms) = match interval.strip_suffix("ms") {
                    Some(number) => (number, 1),
                    None => (interval.strip_suffix('s').ok_or_else(wrong)?, 1_000),
                };
                let number: u64 = number.parse().map_err(|_| wrong())?;
                let millis = number.checked_mul(unit_ms).filter(|ms| (1..=MAX_MS).contains(ms));
                Ok(Self::Interval(Duration::from_millis(millis.ok_or_else(wrong)?)))
            }
        }
    }
}

/// How much is kept. The oldest go first, whole buckets at a time: about an eighth of the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// How long a message is kept. Default 7 days.
    pub max_age: Duration,
    /// Bytes of messages with their names and properties, before they are compressed. Default 8 GiB.
    pub max_bytes: u64,
    /// Messages. Default as many as come.
    pub max_messages: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(7 * 24 * 3600), max_bytes: 8 << 30, max_messages: u64::MAX }
    }
}

/// What differs for channels with one first level.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Namespace {
    /// The first level.
    pub name: String,
    /// What an acknowledgement means there.
    pub durability: Durability,
    /// How much is kept of it, apart from all others; `None`: it shares the bounds of all that say nothing.
    pub retention: Option<Retention>,
}

impl Namespace {
    /// One that shares the bounds of all that say nothing.
    pub fn new(name: impl Into<String>, durability: Durability) -> Self {
        Self { name: name.into(), durability, retention: None }
    }
}

/// How a store is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Where it lies; made if it is not there.
    pub directory: PathBuf,
    /// Of namespaces that say nothing. Default [`Durability::Always`].
    pub durability: Durability,
    /// Of those together.
    pub retention: Retention,
    /// What differs by namespace.
    pub namespaces: Vec<Namespace>,
    /// With less room on the disk nothing is taken any more. Default 256 MiB.
    pub min_free_bytes: u64,
    /// How long an idempotency key is remembered. Default a day.
    pub idempotency_window: Duration,
    /// Operations that may wait for the disk. Default 8,192. Then publishers are told that it is busy.
    pub max_waiting: usize,
    /// Bytes of messages that may wait. Default 64 MiB.
    pub max_waiting_bytes: usize,
    /// Retained messages that may be there, as the broker bounds them: a store with more is not opened. Default as many
    /// as there are.
    pub max_retained_messages: usize,
    /// What those may weigh.
    pub max_retained_bytes: usize,
    /// How long after a failed write the database is opened again. Default 5 s.
    pub reopen_after: Duration,
    /// A write that takes longer is not coming back, and the store is [broken](crate::State::Broken). Default 30 s. After
    /// a third of it nothing is taken any more.
    pub watchdog: Duration,
    /// Sessions that may be recorded. Default a million. No new one is taken beyond them.
    pub max_sessions: usize,
}

impl Settings {
    /// The defaults, in a directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            durability: Durability::Always,
            retention: Retention::default(),
            namespaces: Vec::new(),
            min_free_bytes: 256 << 20,
            idempotency_window: Duration::from_secs(24 * 3600),
            max_waiting: 8_192,
            max_waiting_bytes: 64 << 20,
            max_retained_messages: usize::MAX,
            max_retained_bytes: usize::MAX,
            reopen_after: Duration::from_secs(5),
            watchdog: Duration::from_secs(30),
            max_sessions: 1_000_000,
        }
    }

    /// What an acknowledgement means in a namespace.
    pub(crate) fn durability_of(&self, namespace: &str) -> Durability {
        let named = self.namespaces.iter().find(|space| space.name == namespace);
        named.map_or(self.durability, |space| space.durability)
    }

    /// What a damaged journal means.
    pub(crate) fn damage(&self) -> Damage {
        let all = self.namespaces.iter().map(|space| space.durability).chain([self.durability]);
        let mut kept = all.filter(|durability| *durability != Durability::Memory);
        if kept.all(|durability| durability == Durability::Always) { Damage::Refuse } else { Damage::Cut }
    }

    /// Whether anything is to be on the disk before it is acknowledged; sessions are then, too.
    pub(crate) fn is_ever_urgent(&self) -> bool {
        let named = self.namespaces.iter().map(|space| space.durability);
        named.chain([self.durability]).any(|durability| durability == Durability::Always)
    }

    /// The group of buckets that a namespace's messages lie in, by its name: its own, or the one of all others.
    pub(crate) fn group_of<'n>(&self, namespace: &'n str) -> &'n str {
        let own = self.namespaces.iter().any(|space| space.name == namespace && space.retention.is_some());
        if own { namespace } else { "" }
    }

    pub(crate) fn retention_of(&self, group: &str) -> Retention {
        let named = self.namespaces.iter().find(|space| space.name == group && !group.is_empty());
        named.and_then(|space| space.retention).unwrap_or(self.retention)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_durability_reads_back_as_it_is_written() {
        for text in ["always", "os", "memory", "interval:100ms", "interval:3600000ms"] {
            assert_eq!(text.parse::<Durability>().unwrap().to_string(), text);
        }
        assert_eq!("interval:2s".parse(), Ok(Durability::Interval(Duration::from_secs(2))));
        for text in [
            "",
            "Always",
            "interval",
            "interval:",
            "interval:5",
            "interval:0ms",
            "interval:-1s",
            "interval:2h",
        ] {
            assert!(text.parse::<Durability>().is_err(), "{text}");
        }
    }
}

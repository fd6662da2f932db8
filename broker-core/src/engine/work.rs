//! What a group of several processes has to do: messages that an engine keeps, each for one of the group's members, wherever
//! these are.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::answer::Answer;
use crate::error::{SubscribeError, Unavailable};
use crate::message::{Message, MessageId};
use crate::store::history::Gap;

/// The work of a group, as one process takes part in it: opened with [`Broker::work`](crate::Broker::work). The process takes
/// part for as long as it is held, also by whoever has one of its messages.
///
/// Each message is given to one process, which says what has become of it. Of a process that is gone, and of one that says
/// nothing any more, another one gets it: at least once, then. What nobody takes waits, in its order.
pub trait Work: Send + Sync + fmt::Debug {
    /// The next messages, `credit` at most, as soon as there are any. None after some seconds: ask again. Fewer than were
    /// asked for may come now and the rest with the next answer, so it is to be asked until nothing comes; with a credit of 0,
    /// for what is on its way, and at once for nothing if that is nothing.
    fn next(&self, credit: usize) -> Answer<'static, Vec<Task>>;

    /// The message at this offset is done with: nobody gets it again. Of one that is not held here, nothing.
    fn finish(&self, offset: u64);

    /// Nobody here has it for good: whoever takes more gets it, perhaps another process. Of one that is not held here,
    /// nothing.
    fn give_back(&self, offset: u64);

    /// What is gone of the group's messages before any process was given it, known since this was asked last. Of all processes
    /// one is told. Of what is gone nothing is known but where it lay, so it may be more than the group misses, and never
    /// less. Default: nothing is ever gone.
    fn missed(&self) -> Option<Gap> {
        None
    }
}

/// A message of a group's work.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Task {
    /// The message, by whose offset its [`Work`] knows it.
    pub message: Arc<Message>,
    /// It was there before this process took part, or was given to another one before: what is worth nothing later is not
    /// worth anything now.
    pub is_late: bool,
}

impl Task {
    /// One.
    pub fn new(message: Arc<Message>, is_late: bool) -> Self {
        Self { message, is_late }
    }
}

/// What a process wants of a group's work when it opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Terms {
    /// How long the group is to keep its place while nobody takes part; the longest that anybody asked for counts, within
    /// the engine's bounds.
    pub outlives: Duration,
    /// Where it begins if nothing is known of it; `None`: now.
    pub behind: Option<MessageId>,
}

impl Terms {
    /// Of a member whose session lasts so long without it.
    pub fn new(outlives: Duration, behind: Option<MessageId>) -> Self {
        Self { outlives, behind }
    }
}

/// Why there is no work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkError {
    /// Not now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// As many groups as there may be have some.
    #[error("{max} groups share kept messages, no more may")]
    Full {
        /// The bound.
        max: usize,
    },
}

impl From<WorkError> for SubscribeError {
    fn from(error: WorkError) -> Self {
        match error {
            WorkError::Unavailable(Unavailable { retry_after }) => {
                Self::Unavailable { what: "store", retry_after }
            }
            WorkError::Full { max } => Self::TooManyGroups { max },
        }
    }
}

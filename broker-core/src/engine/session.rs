//! What is kept of a client's session while the client, or the process, is away.

use std::time::Duration;

use bytes::Bytes;

use crate::error::Unavailable;
use crate::message::MessageId;

/// How a client comes to its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// With the record, if there is one.
    Resume,
    /// Anew: what was recorded is forgotten.
    Clean,
    /// For no longer than its connection: what was recorded is forgotten, and nothing will be.
    End,
    /// To see it: whoever has it keeps it, and the fence is the default.
    Look,
    /// For what it left to be done ([`SessionRecord::will`]), by whoever is not its client. Where somebody else has seen to
    /// that, or has the session now, there is no record, and whoever has it keeps it.
    Left,
}

/// Who had a session before a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Owner {
    /// This process, or nobody: what it remembers of the session is true.
    #[default]
    This,
    /// Another one, which is there: it hears of the claim, and does nothing more for the session.
    Another,
    /// Another one, which is gone.
    Gone,
}

/// When a session is over for which nobody comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Ends {
    /// Never.
    #[default]
    Never,
    /// At this time, in milliseconds since 1970.
    At(u64),
    /// Its client is here. So long after the engine was opened anew, should that happen before the next record.
    After(Duration),
}

/// Who has a session: each [claim](crate::Engine::claim) makes all earlier ones of the same session worthless, wherever
/// they were made. They grow; the default, which is less than all, is that of an engine that records nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Fence(pub u64);

/// A session's record: what its front wrote, which nobody else reads, and up to where it was served.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionRecord {
    /// The front's own form.
    pub state: Bytes,
    /// Of what it is subscribed to, all up to here is delivered or in [`state`](Self::state). `None`: it has missed
    /// nothing.
    pub position: Option<MessageId>,
    /// When it is forgotten, unless it is claimed or recorded before.
    pub ends: Ends,
    /// When its front has something to do for it if its client is not back by then, such as publishing its will. Such a
    /// record is not forgotten at its end, and [`Engine::wills`](crate::Engine::wills) names it in the next life.
    pub will: Option<Ends>,
}

impl SessionRecord {
    /// Of a session that has got all up to `position`, and never ends.
    pub fn new(state: impl Into<Bytes>, position: Option<MessageId>) -> Self {
        Self { state: state.into(), position, ends: Ends::Never, will: None }
    }

    /// With something to do.
    #[must_use]
    pub fn with_will(mut self, will: Option<Ends>) -> Self {
        self.will = will;
        self
    }

    /// With an end.
    #[must_use]
    pub fn ending(mut self, ends: Ends) -> Self {
        self.ends = ends;
        self
    }
}

/// A session that was claimed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Claimed {
    /// To be shown with each record.
    pub fence: Fence,
    /// What was recorded, if anything was.
    pub record: Option<SessionRecord>,
    /// The numbers under which its publishes were [taken](Taken) and that were not [freed](super::Op::Free) since.
    pub taken: Vec<u16>,
    /// Who had it. Unless that is [`This`](Owner::This), whatever this process remembers of the session is over.
    pub owner: Owner,
    /// What was recorded by another process and is forgotten by this claim: there may be a will in it.
    pub ended: Option<SessionRecord>,
}

/// What a publisher that must not be taken at its word twice calls its message: a QoS 2 publish of MQTT has a number,
/// which stands for no other message until its session [frees](super::Op::Free) it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The publisher's session, as it was claimed.
    pub session: Box<str>,
    /// Of the claim.
    pub fence: Fence,
    /// Its number for the message. Whoever submits it has not had it taken before.
    pub number: u16,
}

impl Claimed {
    /// With what was recorded before.
    pub fn new(fence: Fence, record: Option<SessionRecord>) -> Self {
        Self { fence, record, ..Self::default() }
    }

    /// With who had it before.
    #[must_use]
    pub fn of(mut self, owner: Owner) -> Self {
        self.owner = owner;
        self
    }

    /// With what this claim has ended.
    #[must_use]
    pub fn ending(mut self, ended: Option<SessionRecord>) -> Self {
        self.ended = ended;
        self
    }

    /// With the numbers of publishes that are not freed yet.
    #[must_use]
    pub fn with_taken(mut self, taken: Vec<u16>) -> Self {
        self.taken = taken;
        self
    }
}

/// Why a session was not recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Another claim has been made since: the client is elsewhere now.
    #[error("the session was claimed by another connection")]
    Fenced,
    /// Not now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Whether it was recorded is not known.
    #[error("it is not known whether the session was recorded")]
    Unknown,
}

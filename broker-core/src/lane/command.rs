//! What other threads tell a lane.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::connections::SendError;
use super::delivery::{Deliver, Delivery, Kind};
use crate::histogram::Timed;
use crate::interest::LaneList;
use crate::key::SubscriberKey;
use crate::message::Message;
use crate::outbox::{Outbox, OutboxEnd};
use crate::rights::Principal;

/// What one message hits in one lane.
pub(crate) struct Job {
    pub(crate) delivery: Arc<Delivery>,
    /// All lists together: separate jobs could interleave with another publisher's.
    pub(crate) lists: SmallVec<[LaneList; 2]>,
    /// The publisher, if it wants no copy.
    pub(crate) skip: Option<SubscriberKey>,
}

/// Messages for one subscriber that were not just published: a page of a replay, or retained ones.
pub(crate) struct Feed {
    pub(crate) key: SubscriberKey,
    pub(crate) kind: Kind,
    pub(crate) messages: Vec<(Arc<Message>, SmallVec<[u32; 1]>)>,
    pub(crate) then: Then,
    /// Told when the page is in the outbox, and whether the session has room for another.
    pub(crate) done: Option<oneshot::Sender<bool>>,
}

/// A message for one subscriber, whatever it is subscribed to.
pub(crate) struct Direct {
    pub(crate) key: SubscriberKey,
    pub(crate) delivery: Arc<Delivery>,
    /// Told what became of it.
    pub(crate) done: oneshot::Sender<Result<(), SendError>>,
}

/// What follows a [`Feed`].
pub(crate) enum Then {
    /// Another one.
    More,
    /// These subscriptions are caught up with the log of this epoch, or with all, and get its live messages from here.
    GoLive(SmallVec<[u32; 1]>, Option<u64>),
    /// This one has had its retained messages: its parked deliveries follow.
    Unpark(u32),
}

pub(crate) enum Command {
    Attach {
        key: SubscriberKey,
        deliver: Arc<dyn Deliver>,
        outbox: Arc<Outbox>,
    },
    Detach(SubscriberKey),
    /// The session has a new connection.
    Renew {
        key: SubscriberKey,
        outbox: Arc<Outbox>,
    },
    /// Whose rights are asked from here on before a message is shown; none where they grant all that the subscriber is
    /// subscribed to. It comes before the first job that it matters for.
    Rights {
        key: SubscriberKey,
        principal: Option<Principal>,
    },
    Job(Job),
    /// The subscription skips what is recorded in the log of this epoch until its replay goes live.
    CatchUp {
        key: SubscriberKey,
        tag: u32,
        epoch: u64,
    },
    /// The subscription's deliveries wait until its retained messages have been sent.
    Park {
        key: SubscriberKey,
        tag: u32,
    },
    Feed(Box<Feed>),
    /// The message of the job before it is timed.
    Timed(Timed),
    /// A message for one subscriber alone.
    Direct(Box<Direct>),
    /// Everything before it has been delivered.
    Barrier(oneshot::Sender<()>),
}

impl Command {
    /// Drops a command that no lane will do. Who waits for an answer gets none and knows by that.
    pub(super) fn refuse(self) {
        if let Self::Attach { outbox, .. } | Self::Renew { outbox, .. } = self {
            outbox.close(OutboxEnd::Shutdown);
        }
    }
}

impl Job {
    /// Whether both hit one list only, and the same.
    fn has_list_of(&self, other: &Job) -> bool {
        matches!((self.lists.as_slice(), other.lists.as_slice()), ([one], [other]) if Arc::ptr_eq(one, other))
    }

    pub(super) fn deliveries(&self) -> usize {
        self.lists.iter().map(|list| list.len()).sum()
    }
}

/// Whether two commands are jobs on one and the same list.
pub(super) fn same_list(one: &Command, other: &Command) -> bool {
    matches!((one, other), (Command::Job(one), Command::Job(other)) if one.has_list_of(other))
}

pub(super) fn continues(run: &[Job], next: &Command) -> bool {
    matches!((run.first(), next), (Some(job), Command::Job(next)) if job.has_list_of(next))
}

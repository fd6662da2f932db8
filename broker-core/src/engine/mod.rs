//! Who keeps messages beyond this process' memory, and how the broker and it work together: the traits and their
//! duties, and nothing else.
//!
//! Publishing is two steps of one order. *Accept*: the message has its place among those of its channel, and nobody can
//! lose it any more. *Release*: it is recorded, and the lanes have their jobs. Without an engine both happen at once,
//! under the channel's guard. With one, messages of the namespaces that it [keeps](Engine::keeps) are accepted by it,
//! at its own pace, and it has them released in the order in which it accepted them; all others are none of its
//! business.
//!
//! ```text
//! publish ─▶ Broker::submit ─▶ Engine::submit(Op)      now: taken in or refused; nothing is known yet
//!                                   │  the engine writes, asks other nodes, ...
//!                              Ingest::release(batch)  in the order of acceptance: log, retained, jobs of the lanes
//!                                   │
//!                              Done::complete          the publisher's answer
//! ```

mod done;
mod note;
mod session;
mod work;

use std::sync::Arc;
use std::time::Duration;

use crate::answer::Answer;
use crate::channel::Channel;
use crate::error::{PublishOnceError, Refused, Unavailable};
use crate::filter::Filter;
use crate::message::{Accepted, KeyedReceipt, Message, MessageId, Publish, Receipt};
use crate::store::history::Order;
use crate::store::idempotency::KeptKey;

pub use crate::store::history::{LogPage, Read};

pub use self::done::Done;
pub use self::note::Note;
pub use self::session::{Claim, Claimed, Ends, Fence, Owner, RecordError, SessionRecord, Taken};
pub use self::work::{Task, Terms, Work, WorkError};

/// Keeps messages: on a disk, on other machines. Given to [`Broker::with_engine`](crate::Broker::with_engine).
///
/// Its methods are called on the tasks of publishers and subscribers, so none of them blocks: what takes time is
/// answered [later](Answer::later).
pub trait Engine: Send + Sync + 'static {
    /// Whether it keeps the messages of a namespace: the first level of a channel. Asked once for each one that the
    /// configuration names, and once with an empty text for all others. `$SYS` is never asked about, and never kept.
    fn keeps(&self, namespace: &str) -> bool;

    /// Its log: which life of it this is, and the newest offset that it has given so far. Asked once, when the broker is
    /// built. Ids of this epoch are resumed from, so it changes only when what was kept is gone; no broker's own log has
    /// the same, as theirs are the times of their starts.
    fn head(&self) -> MessageId;

    /// Called once, before anything else but [`keeps`](Self::keeps) and [`head`](Self::head): it
    /// [restores](Ingest::restore) what is retained, and from now on it may release messages.
    fn start(&self, ingest: Arc<dyn Ingest>);

    /// Takes an operation in. Those of one caller are done in the order in which they were submitted.
    ///
    /// # Errors
    /// The operation comes back, and nothing of it has happened or will.
    fn submit(&self, op: Op) -> Result<(), Rejected>;

    /// Takes in a message that nobody waits for. It may be [released](Ingest::release) before it is kept, and then a
    /// crash may forget it; but never before an accepted one of its channel that came earlier, nor with an offset behind
    /// that of a message that is not released yet: whoever has got all up to an offset has it for good. Default: as any
    /// other, and nobody hears its answer.
    ///
    /// # Errors
    /// As of [`submit`](Self::submit), with the message as an [operation](Op::unanswered).
    fn post(&self, publish: Publish) -> Result<(), Rejected> {
        self.submit(Op::unanswered(publish))
    }

    /// A page of its log, which the broker's memory does not reach back to any more. Default: nothing is left of that.
    fn read(&self, read: Read) -> Answer<'static, Result<LogPage, Unavailable>> {
        let nothing = LogPage {
            messages: Vec::new(),
            through: if read.order == Order::Oldest { read.through } else { read.after },
            first: read.through,
        };
        Answer::now(Ok(nothing))
    }

    /// A channel's retained message; `None`: what is in the broker's memory is all. The default. An engine that keeps
    /// retained messages restores them when it starts, so that subscribers find them under their channel's guard.
    fn retained(&self, channel: &Channel) -> Answer<'static, Kept<Arc<Message>>> {
        let _ = channel;
        Answer::now(Ok(None))
    }

    /// Gives a session to whoever claims it. Default: it is recorded nowhere, and nobody else can have it.
    fn claim(&self, session: &str, claim: Claim) -> Answer<'static, Result<Claimed, Unavailable>> {
        let _ = (session, claim);
        Answer::now(Ok(Claimed::default()))
    }

    /// Sessions of earlier lives whose records have a [will](SessionRecord::will), with when it is due, in milliseconds
    /// since 1970. Asked once by each front that has such sessions. Default: none.
    fn wills(&self) -> Vec<(Box<str>, u64)> {
        Vec::new()
    }

    /// The same of sessions of other processes that are gone, found since this was asked last: an engine that is shared by
    /// several tells it one of them. Asked again and again. Default: none.
    fn left_wills(&self) -> Vec<(Box<str>, u64)> {
        Vec::new()
    }

    /// Whether it keeps notes. Default: yes.
    fn keeps_notes(&self) -> bool {
        true
    }

    /// The notes of a room. It may block for as long as reading them takes: it is asked at the start, and by threads that
    /// may wait. Default: none are kept.
    ///
    /// # Errors
    /// They cannot be read now.
    fn notes(&self, room: &str) -> Result<Vec<Note>, Unavailable> {
        let _ = room;
        Ok(Vec::new())
    }

    /// Somebody is subscribed to `filter` (`wanted`), or one who was is no more. Said for each subscription, so an
    /// engine counts; called under the subscriber's lock, so it only notes it. Default: does not care.
    fn interest(&self, filter: &Filter, wanted: bool) {
        let _ = (filter, wanted);
    }

    /// A subscriber joins the group of this name on `filter` (`wanted`), or leaves it. Said beside
    /// [`interest`](Self::interest), for each member, and as that. An engine that [relays](Self::relays) has one node's
    /// [`relayed_to_group`](Ingest::relayed_to_group) called where the node that published has no member. Default: does not
    /// care.
    fn group_interest(&self, group: &str, filter: &Filter, wanted: bool) {
        let _ = (group, filter, wanted);
    }

    /// Whether it brings what is published in this process' memory to other nodes. Asked once, when the broker is built.
    /// Where it does, it also shares what it keeps among the groups of all nodes: members get that by their group's
    /// [`work`](Self::work), and [`Ingest::release`] passes groups over. Default: no, and a publish costs what it costs
    /// without an engine.
    fn relays(&self) -> bool {
        false
    }

    /// A message of a namespace that nobody keeps was released here. Called on its publisher's task, for all messages of
    /// one publisher in their order; never for what [came from another node](Ingest::relayed). It only notes it. Default:
    /// does not care.
    fn relay(&self, message: &Arc<Message>) {
        let _ = message;
    }

    /// The retained message of a channel that nobody keeps was forgotten here without a message that says so. Default:
    /// does not care.
    fn relay_cleared(&self, channel: &Channel) {
        let _ = channel;
    }

    /// Opens the work of the group of this name on `filter`: what it keeps of that, each message for one member on whichever
    /// node. Asked of an engine that [relays](Self::relays), and [keeps](Self::keeps) something that the filter matches.
    /// Default: there never is any.
    fn work(
        &self,
        group: &str,
        filter: &Filter,
        terms: Terms,
    ) -> Answer<'static, Result<Arc<dyn Work>, WorkError>> {
        let _ = (group, filter, terms);
        Answer::now(Err(Unavailable::new(Duration::from_secs(60)).into()))
    }

    /// Resolves once publishers everywhere reach those who are subscribed to `filter` here. Default: they do.
    fn settled(&self, filter: &Filter) -> Answer<'static, Result<(), Unavailable>> {
        let _ = filter;
        Answer::now(Ok(()))
    }
}

/// Where the messages of a filter are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reach {
    /// In the log of an engine: what comes while nobody is there can be read later.
    pub kept: bool,
    /// Elsewhere: in this process' memory, or in no log.
    pub in_memory: bool,
}

/// What an engine is asked for.
pub type Kept<T> = Result<Option<T>, Unavailable>;

/// What an engine is to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum Op {
    /// Accept a message. Its answer is the receipt of its [release](Ingest::release), or that of the first publish
    /// under its key.
    Publish {
        /// The message.
        publish: Box<Publish>,
        /// What names it, so that it is published once; what is kept for it belongs into the batch of the message.
        key: Option<KeptKey>,
        /// What its session calls it. It is kept for the [next claim](Claimed::taken) in the batch of the message, and the
        /// message is [not accepted](crate::PublishError::Fenced) once another claim has been made.
        taken: Option<Box<Taken>>,
        /// Who waits for it.
        done: Done<Result<KeyedReceipt, PublishOnceError>>,
    },
    /// Forget a channel's retained message, and have it forgotten ([`Ingest::clear_retained`]); whether there was one.
    ClearRetained {
        /// The channel.
        channel: Channel,
        /// Who waits for it.
        done: Done<Result<bool, Unavailable>>,
    },
    /// Record a session, in the order of its owner's publishes. Answered once it is safe.
    Session {
        /// Its name, as it was claimed.
        session: Box<str>,
        /// Of the claim.
        fence: Fence,
        /// What to keep; `None`: the session is over.
        record: Option<Box<SessionRecord>>,
        /// Who waits for it.
        done: Done<Result<(), RecordError>>,
    },
    /// A session's number may stand for another message. Answered once it is safe; that it stood for none is no error.
    Free {
        /// Which one, and whose.
        taken: Box<Taken>,
        /// Who waits for it.
        done: Done<Result<(), RecordError>>,
    },
    /// Keep notes, all or none of them, in the order of those that were submitted. Answered once they are safe.
    Notes {
        /// Each in the place of what had its name in its room.
        notes: Vec<Note>,
        /// Who waits for it.
        done: Done<Result<(), Unavailable>>,
    },
    /// Say when all that was submitted before is done.
    Barrier(Done<()>),
}

impl Op {
    /// A message whose answer nobody waits for.
    pub fn unanswered(publish: impl Into<Box<Publish>>) -> Self {
        Self::Publish { publish: publish.into(), key: None, taken: None, done: Done::new().0 }
    }
}

/// An operation that was not taken in.
#[derive(Debug)]
#[non_exhaustive]
pub struct Rejected {
    /// Why.
    pub why: Reject,
    /// The operation. Its [`Done`] is still to be completed, by whoever submitted it.
    pub op: Op,
}

impl Rejected {
    /// Gives the operation back.
    pub fn new(why: Reject, op: Op) -> Self {
        Self { why, op }
    }
}

/// Why an engine takes nothing in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reject {
    /// Too much waits already: whoever can waits too, and tries again.
    Busy(Unavailable),
    /// It cannot keep anything now.
    Unavailable(Unavailable),
}

/// The broker, as its engine sees it.
pub trait Ingest: Send + Sync {
    /// Brings the retained messages of earlier lives. Nobody is sent them but who subscribes later. Before the first
    /// release; the broker's bounds are the engine's to mind.
    fn restore(&self, retained: Vec<Accepted>);

    /// Releases accepted messages, in the order of their offsets over all calls: they are recorded, and the lanes have
    /// their jobs; those of groups have none, if the engine [relays](Engine::relays). What has no larger offset than one before was released already, and is passed over. Never refuses,
    /// never waits for a subscriber. The receipts, in order. Once the broker is gone nobody receives them.
    fn release(&self, batch: Vec<Accepted>) -> Vec<Receipt>;

    /// Publishes what was [relayed](Engine::relay) by another node, published there at `time_ms` in milliseconds since
    /// 1970, to all but groups. Whoever published it has its answer, so what is refused here is lost here. A retained
    /// message does not take the place of one that was published later.
    ///
    /// # Errors
    /// See [`Refused`]; nothing was stored or delivered.
    fn relayed(&self, publish: Publish, time_ms: u64) -> Result<Receipt, Refused>;

    /// Gives what another node relayed to one member of a group, as [`relayed`](Self::relayed) does to all others; false if
    /// the group has no members here. Default: false.
    ///
    /// # Errors
    /// See [`Refused`]; nobody has it.
    fn relayed_to_group(
        &self,
        publish: Publish,
        time_ms: u64,
        group: &str,
        filter: &Filter,
    ) -> Result<bool, Refused> {
        let _ = (publish, time_ms, group, filter);
        Ok(false)
    }

    /// Forgets a channel's retained message; whether there was one.
    fn clear_retained(&self, channel: &Channel) -> bool;
}

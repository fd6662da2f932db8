//! Sessions of clients that outlive their connections, and their nodes: who has which, and what is recorded of them.
//!
//! A row says which node has the session, by which claim. Each row that is written names the one that it takes the place of,
//! so that whoever lost a session while it was not looking finds that out with the next thing it writes, which is then
//! written nowhere. Of one session one row is on its way at a time; what has changed meanwhile is in the next one.
//!
//! ```text
//! record: the owner's row, behind its last one ─▶ done, or fenced: somebody else has it
//! take:   a row with the message's number ─▶ the message into the stream
//! ```

mod anew;
mod claims;
pub(super) mod left;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use broker_core::{
    Done, Fence, Op, Publish, PublishError, PublishOnceError, RecordError, Rejected, SessionRecord, Taken,
    Unavailable,
};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

pub(crate) use self::anew::When;
pub use self::claims::SESSIONS;
use super::queue::{Published, Queue, weight_of};
use super::records::{Found, Trouble};
use super::row::{Begun, Mark, Row};
use super::stream::{Look, Of, SOON, Streams};

/// How long a row is tried: choosing another leader takes some seconds.
const TRY_FOR: Duration = Duration::from_secs(20);

const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// Who waits for a record.
type Recorded = Done<Result<(), RecordError>>;

/// See the module.
pub(crate) struct Sessions {
    pub(super) streams: Arc<Streams>,
    pub(super) queue: Arc<Queue>,
    pub(super) held: Mutex<AHashMap<Box<str>, Held>>,
    pub(super) newest_fence: AtomicU64,
    /// How many have a row on its way.
    writing: AtomicUsize,
    /// A row was written, or given up.
    pub(super) written: Notify,
}

/// A session that this node has, as far as it knows.
pub(super) struct Held {
    pub(super) fence: u64,
    /// Of its last row.
    pub(super) at: At,
    pub(super) record: Option<SessionRecord>,
    pub(super) marks: Vec<Mark>,
    /// Those for whom there is no row yet.
    pub(super) waiting: Vec<Waiting>,
    /// Messages with a number that are on their way into the stream.
    pub(super) publishing: usize,
    pub(super) is_writing: bool,
    pub(super) is_over: bool,
}

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    /// In which life of the stream.
    pub(super) epoch: u64,
    pub(super) revision: u64,
}

/// What is found in the place of an owner's row.
enum Place {
    /// One of its own, or one of somebody who had the session before: where it is.
    Own(u64),
    /// Another's.
    Anothers,
    None,
}

/// Who waits for a row.
pub(super) enum Waiting {
    Recorded(Recorded),
    /// Its message goes on its way then.
    Taken(Box<Taking>),
}

/// A message with a number.
pub(super) struct Taking {
    publish: Box<Publish>,
    number: u16,
    frame: u64,
    weight: usize,
    done: Published,
}

/// What becomes of a row that is to be written.
enum Outcome {
    Written(At),
    Ended,
    Fenced,
    Refused(RecordError),
}

impl Sessions {
    pub(crate) fn new(streams: Arc<Streams>, queue: Arc<Queue>) -> Self {
        Self {
            streams,
            queue,
            held: Mutex::default(),
            newest_fence: AtomicU64::new(0),
            writing: AtomicUsize::new(0),
            written: Notify::new(),
        }
    }

    /// Records a session, or that it is over.
    pub(crate) fn record(
        self: &Arc<Self>,
        name: Box<str>,
        fence: Fence,
        record: Option<Box<SessionRecord>>,
        done: Recorded,
    ) {
        self.change(name, fence, Waiting::Recorded(done), |session| match record {
            Some(record) => session.record = Some(*record),
            None => session.is_over = true,
        });
    }

    /// A session that this node has is over, also if it cannot be recorded now.
    pub(crate) fn end_later(self: &Arc<Self>, name: &str) {
        let fence = self.held.lock().get(name).map(|held| held.fence);
        if let Some(fence) = fence {
            self.record(name.into(), Fence(fence), None, Done::new().0);
        }
    }

    /// Puts a message into the stream once it stands in its session's row under its number.
    pub(crate) fn take(
        self: &Arc<Self>,
        taken: Taken,
        publish: Box<Publish>,
        done: Published,
    ) -> Result<(), Rejected> {
        let weight = weight_of(&publish);
        if let Err(why) = self.queue.admit(weight) {
            let op = Op::Publish { publish, key: None, taken: Some(Box::new(taken)), done };
            return Err(Rejected::new(why, op));
        }
        let Taken { session, fence, number, .. } = taken;
        let begun = Begun {
            life: self.streams.node.life,
            frame: self.queue.reserve(),
            from: *self.streams.released.borrow(),
            channel: publish.channel().as_str().into(),
        };
        let taking = Taking { publish, number, frame: begun.frame, weight, done };
        self.change(session, fence, Waiting::Taken(Box::new(taking)), |session| {
            session.marks.retain(|mark| mark.number != number);
            session.marks.push(Mark { number, begun: Some(begun) });
        });
        Ok(())
    }

    /// Frees a number.
    pub(crate) fn free(self: &Arc<Self>, taken: Taken, done: Recorded) {
        let Taken { session, fence, number, .. } = taken;
        self.change(session, fence, Waiting::Recorded(done), |session| {
            session.marks.retain(|mark| mark.number != number);
        });
    }

    pub(super) fn change(
        self: &Arc<Self>,
        name: Box<str>,
        fence: Fence,
        waiting: Waiting,
        change: impl FnOnce(&mut Held),
    ) {
        let mut held = self.held.lock();
        let Some(session) = held.get_mut(&name).filter(|held| held.fence == fence.0 && !held.is_over) else {
            drop(held);
            return self.refuse(waiting, RecordError::Fenced);
        };
        change(session);
        session.waiting.push(waiting);
        if !std::mem::replace(&mut session.is_writing, true) {
            self.writing.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(Arc::clone(self).write(name, fence.0));
        }
    }

    /// There is no row for somebody who waits for one.
    pub(super) fn refuse(&self, waiting: Waiting, why: RecordError) {
        match waiting {
            Waiting::Recorded(done) => done.complete(Err(why)),
            Waiting::Taken(taking) => {
                self.queue.answered(1, taking.weight);
                let error = match why {
                    RecordError::Fenced => PublishError::Fenced,
                    // It is not published, whatever became of the row.
                    _ => SOON.into(),
                };
                taking.done.complete(Err(error.into()));
            }
        }
    }

    /// Resolves once nothing is on its way, or after some time.
    pub(crate) async fn idle(&self) {
        let all = async {
            loop {
                let mut written = std::pin::pin!(self.written.notified());
                written.as_mut().enable();
                if self.writing.load(Ordering::Relaxed) == 0 {
                    return;
                }
                written.await;
            }
        };
        _ = timeout(TRY_FOR, all).await;
    }

    /// Writes what there is of a session until nobody waits for more.
    async fn write(self: Arc<Self>, name: Box<str>, fence: u64) {
        while let Some((row, at, is_over, waiting)) = self.next_row(&name, fence) {
            let outcome =
                if is_over { self.try_to_end(&row).await } else { self.try_to_write(&row, at).await };
            let answer = self.note(&name, fence, is_over, outcome, &waiting);
            for waiting in waiting {
                match (answer, waiting) {
                    (Ok(()), Waiting::Recorded(done)) => done.complete(Ok(())),
                    (Ok(()), Waiting::Taken(taking)) => self.publish(&name, fence, *taking),
                    (Err(why), waiting) => self.refuse(waiting, why),
                }
            }
        }
        self.writing.fetch_sub(1, Ordering::Relaxed);
        self.written.notify_waiters();
    }

    /// What became of a row.
    fn note(
        &self,
        name: &str,
        fence: u64,
        is_over: bool,
        outcome: Outcome,
        waiting: &[Waiting],
    ) -> Result<(), RecordError> {
        let taken = || {
            waiting.iter().filter_map(|waiting| match waiting {
                Waiting::Taken(taking) => Some(taking.number),
                Waiting::Recorded(_) => None,
            })
        };
        let mut held = self.held.lock();
        let session = held.get_mut(name).filter(|held| held.fence == fence);
        match (outcome, session) {
            (Outcome::Written(at), Some(session)) => {
                session.at = at;
                session.publishing += taken().count();
                Ok(())
            }
            // Another claim of this node has it.
            (Outcome::Written(_), None) => Err(RecordError::Fenced),
            (Outcome::Ended, session) => {
                session.into_iter().for_each(|session| session.is_over = true);
                // A message that came with the end goes nowhere.
                if taken().next().is_none() { Ok(()) } else { Err(RecordError::Fenced) }
            }
            (Outcome::Fenced, session) => {
                session.into_iter().for_each(|session| session.is_over = true);
                Err(RecordError::Fenced)
            }
            (Outcome::Refused(error), session) => {
                if let Some(session) = session {
                    // It may be tried again.
                    session.is_over &= !is_over;
                    session.marks.retain(|mark| taken().all(|number| number != mark.number));
                }
                Err(error)
            }
        }
    }

    /// The row has the number of a message, which goes on its way.
    fn publish(self: &Arc<Self>, name: &str, fence: u64, taking: Taking) {
        let Taking { publish, number, frame, done, .. } = taking;
        let (answer, answered) = Done::new();
        self.queue.put_alone(publish, frame, answer);
        let (sessions, name) = (Arc::clone(self), Box::<str>::from(name));
        tokio::spawn(async move {
            let answer = answered.await.unwrap_or(Err(PublishError::Unknown.into()));
            if let Some(session) = sessions.held.lock().get_mut(&name).filter(|held| held.fence == fence) {
                session.publishing = session.publishing.saturating_sub(1);
                let at = session.marks.iter().position(|mark| {
                    mark.number == number && mark.begun.as_ref().is_some_and(|begun| begun.frame == frame)
                });
                // The next row has it. Till then whoever claims the session looks for the message.
                match (&answer, at) {
                    (Ok(_), Some(at)) => {
                        session.marks.iter_mut().skip(at).take(1).for_each(|mark| mark.begun = None)
                    }
                    (Err(PublishOnceError::Publish(PublishError::Unknown)), _) | (_, None) => {}
                    (Err(_), Some(at)) => _ = session.marks.remove(at),
                }
            }
            sessions.written.notify_waiters();
            done.complete(answer);
        });
    }

    /// What is to be written next of a session, and who waits for it; `None`: nothing, or it is not this one's any more.
    fn next_row(&self, name: &str, fence: u64) -> Option<(Row, At, bool, Vec<Waiting>)> {
        let mut held = self.held.lock();
        let session = held.get_mut(name).filter(|held| held.fence == fence)?;
        if session.waiting.is_empty() {
            session.is_writing = false;
            if session.is_over {
                held.remove(name);
            }
            return None;
        }
        let row = Row {
            life: self.streams.node.life,
            fence,
            name: name.into(),
            record: session.record.clone(),
            marks: session.marks.clone(),
            is_left: false,
        };
        Some((row, session.at, session.is_over, std::mem::take(&mut session.waiting)))
    }

    /// Writes a row behind the owner's last one, again and again until it is known what became of it.
    async fn try_to_write(&self, row: &Row, mut at: At) -> Outcome {
        let mut tries = Tries::begin(&self.streams);
        let life = &self.streams.session_life;
        loop {
            if at.epoch != life.epoch() {
                // Nothing of it is in the stream that there is now.
                at = At { epoch: life.epoch(), revision: 0 };
            }
            if tries.may_send() {
                match self.streams.write_row(row, at.revision).await {
                    Ok(revision) => return Outcome::Written(At { revision, ..at }),
                    Err(Trouble::Moved) => match self.place_of(row).await {
                        // One of its own of which this node has not heard that it was written.
                        Ok(Place::Own(known)) => at.revision = known,
                        Ok(Place::Anothers) => return Outcome::Fenced,
                        // Ended by somebody else, if it was there.
                        Ok(Place::None) if self.is_at(at.epoch).await => return Outcome::Fenced,
                        Ok(Place::None) | Err(_) => {}
                    },
                    Err(Trouble::TooLarge) => return Outcome::Refused(SOON.into()),
                    Err(Trouble::Unknown) => tries.was_sent = true,
                    Err(Trouble::Refused) => {}
                }
            }
            if let Some(error) = tries.next().await {
                return Outcome::Refused(error);
            }
        }
    }

    /// Takes a session's row away, if it is still its owner's.
    async fn try_to_end(&self, row: &Row) -> Outcome {
        let mut tries = Tries::begin(&self.streams);
        loop {
            if tries.may_send() {
                // Not before it is known which one it is: in a stream that was made anew another's may be at its old place.
                match self.streams.find_row(&row.name).await {
                    Ok(None) => return Outcome::Ended,
                    Ok(Some(Found { revision, row: Some(found) }))
                        if (found.life, found.fence) == (row.life, row.fence) =>
                    {
                        if self.streams.delete_row(revision).await == Ok(()) {
                            return Outcome::Ended;
                        }
                        tries.was_sent = true;
                    }
                    Ok(Some(_)) => return Outcome::Fenced,
                    Err(_) => tries.was_sent = true,
                }
            }
            if let Some(error) = tries.next().await {
                return Outcome::Refused(error);
            }
        }
    }

    /// What is there of the session of a row.
    async fn place_of(&self, row: &Row) -> Result<Place, Unavailable> {
        let Some(Found { revision, row: found }) = self.streams.find_row(&row.name).await? else {
            return Ok(Place::None);
        };
        // Of somebody who had it before there is a row again in a stream that was made anew, if that node does not know.
        let is_own =
            |found: Row| (found.life, found.fence) == (row.life, row.fence) || found.fence < row.fence;
        Ok(if found.is_some_and(is_own) { Place::Own(revision) } else { Place::Anothers })
    }

    /// Whether the stream is still that of this life, as far as this node knows, and by the word of NATS.
    async fn is_at(&self, epoch: u64) -> bool {
        let look = self.streams.look(Of::Sessions).await;
        let is_it = matches!(look, Look::Stands(reach) if reach.epoch == epoch);
        if !is_it {
            self.streams.doubt.notify_one();
        }
        is_it && self.streams.session_life.epoch() == epoch
    }
}

/// How long something is tried.
struct Tries {
    streams: Arc<Streams>,
    end: Instant,
    pause: Duration,
    was_sent: bool,
}

impl Tries {
    fn begin(streams: &Arc<Streams>) -> Self {
        Self {
            streams: Arc::clone(streams),
            end: Instant::now() + TRY_FOR,
            pause: PAUSES[0],
            was_sent: false,
        }
    }

    fn may_send(&self) -> bool {
        self.streams.node.is_linked()
    }

    /// Waits a little; or, if it took too long, what is to be answered.
    async fn next(&mut self) -> Option<RecordError> {
        if Instant::now() >= self.end {
            self.streams.node.tell("sessions are not recorded: JetStream does not answer or refuses them");
            return Some(if self.was_sent { RecordError::Unknown } else { SOON.into() });
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSES[1]);
        None
    }
}

//! What is done once a batch is on the disk: its messages are released, and who waits is answered.

use std::vec;

use broker_core::{
    Accepted, Channel, Done, Ends, Fence, Ingest, KeyedReceipt, Op, PublishError, PublishOnceError, Receipt,
    RecordError, Taken, Unavailable,
};

use crate::keys::{Name, Row};
use crate::queue::Item;
use crate::sessions::Sessions;
use crate::shared::REFUSED;

pub(super) type Published = Done<Result<KeyedReceipt, PublishOnceError>>;

/// What a message has beside itself: its key, its session's number for it, and who waits for it.
pub(super) type Waiting = (Option<(Name, Row)>, Option<Box<Taken>>, Option<Published>);

/// What is done with an operation once the batch is on the disk.
pub(super) enum Step {
    /// The message of this number in the batch; with what its key has to learn.
    Publish {
        number: usize,
        key: Option<(Name, Row)>,
        /// What its session calls it.
        taken: Option<Box<Taken>>,
        /// Whoever waits for it.
        done: Option<Published>,
    },
    /// A key that was used before, or by the message of this number in this batch.
    Known {
        answer: Result<KeyedReceipt, PublishOnceError>,
        done: Published,
    },
    Repeat {
        number: usize,
        done: Published,
    },
    Clear {
        channel: Channel,
        done: Done<Result<bool, Unavailable>>,
    },
    Session {
        session: Box<str>,
        fence: Fence,
        record: Option<(Ends, Option<Ends>)>,
        done: Done<Result<(), RecordError>>,
    },
    Free {
        taken: Box<Taken>,
        done: Done<Result<(), RecordError>>,
    },
    Notes(Done<Result<(), Unavailable>>),
    Barrier(Done<()>),
}

/// What was learnt of keys while their messages were released: how many received them.
pub(super) type Learnt = Vec<(Name, Row)>;

/// A batch that is on the disk while it is released, in order, and who waits for it is answered: as many of its messages at
/// a time as go at once, so that the first of them who publish again need not wait for the last.
pub(super) struct Conclusion {
    messages: vec::IntoIter<Accepted>,
    steps: vec::IntoIter<Step>,
    receipts: Vec<Receipt>,
    learnt: Learnt,
}

/// Messages that are released in one go.
pub(super) const AT_ONCE: usize = 64;

impl Conclusion {
    pub(super) fn new(accepted: Vec<Accepted>, steps: Vec<Step>) -> Self {
        let receipts = Vec::with_capacity(accepted.len());
        Self { messages: accepted.into_iter(), steps: steps.into_iter(), receipts, learnt: Learnt::new() }
    }

    /// Operations that are left to do.
    pub(super) fn left(&self) -> usize {
        self.steps.len()
    }

    /// Does some of it; whether something is left.
    pub(super) fn go_on(&mut self, ingest: &dyn Ingest, sessions: &Sessions) -> bool {
        let steps = self.steps.as_slice();
        // What is retained before it is cleared is released before, and what comes behind, behind.
        let clear = steps.iter().position(|step| matches!(step, Step::Clear { .. })).unwrap_or(steps.len());
        let count = if clear == 0 { 1 } else { clear.min(AT_ONCE) };
        let steps: Vec<Step> = self.steps.by_ref().take(count).collect();
        let messages = steps.iter().filter(|step| matches!(step, Step::Publish { .. })).count();
        if messages > 0 {
            let messages = self.messages.by_ref().take(messages).collect();
            self.receipts.extend(ingest.release(messages));
        }
        for step in steps {
            self.answer(step, ingest, sessions);
        }
        self.steps.len() > 0
    }

    fn answer(&mut self, step: Step, ingest: &dyn Ingest, sessions: &Sessions) {
        match step {
            Step::Publish { number, key, taken, done } => match self.receipts.get(number) {
                Some(receipt) => {
                    if let Some(taken) = taken {
                        sessions.note_taken(&taken);
                    }
                    if let Some((name, row)) = key {
                        let has_id = receipt.id.is_some();
                        self.learnt.push((name, Row { receivers: receipt.receivers, has_id, ..row }));
                    }
                    if let Some(done) = done {
                        done.complete(Ok(KeyedReceipt::first(*receipt)));
                    }
                }
                None => drop(done),
            },
            Step::Known { answer, done } => done.complete(answer),
            Step::Repeat { number, done } => match self.receipts.get(number) {
                Some(receipt) => done.complete(Ok(KeyedReceipt::again(*receipt))),
                None => drop(done),
            },
            Step::Clear { channel, done } => done.complete(Ok(ingest.clear_retained(&channel))),
            Step::Session { session, fence, record, done } => {
                sessions.note_written(&session, fence, record);
                done.complete(Ok(()));
            }
            Step::Free { taken, done } => {
                sessions.note_freed(&taken);
                done.complete(Ok(()));
            }
            Step::Notes(done) => done.complete(Ok(())),
            Step::Barrier(done) => done.complete(()),
        }
    }

    /// What is to be kept of keys.
    pub(super) fn learnt(self) -> Learnt {
        self.learnt
    }
}

/// Nothing of them was begun. What nobody waits for is forgotten.
pub(super) fn refuse_all(items: Vec<Item>) {
    for item in items {
        let Item::Op(op) = item else { continue };
        match op {
            Op::Publish { done, .. } => {
                done.complete(Err(PublishOnceError::Publish(PublishError::from(REFUSED))));
            }
            Op::ClearRetained { done, .. } => done.complete(Err(REFUSED)),
            Op::Session { done, .. } | Op::Free { done, .. } => {
                done.complete(Err(RecordError::Unavailable(REFUSED)));
            }
            Op::Notes { done, .. } => done.complete(Err(REFUSED)),
            Op::Barrier(done) => done.complete(()),
            _ => {}
        }
    }
}

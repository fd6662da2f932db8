//! What is done once a batch is on the disk: its messages are released, and who waits is answered.

use broker_core::{
    Accepted, Channel, Done, Ends, Fence, Ingest, KeyedReceipt, Op, PublishError, PublishOnceError, Receipt,
    RecordError, Taken, Unavailable,
};

use crate::keys::{Keys, Name, Row};
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

/// Releases what is on the disk, in order, and answers.
pub(super) fn conclude(
    ingest: &dyn Ingest,
    accepted: Vec<Accepted>,
    steps: Vec<Step>,
    keys: &mut Keys,
    sessions: &Sessions,
) {
    let mut receipts: Vec<Receipt> = Vec::with_capacity(accepted.len());
    let mut cleared = Vec::new();
    let mut rest = accepted.into_iter();
    for step in &steps {
        // What was retained before it is cleared is released before.
        if let Step::Clear { channel, .. } = step {
            let before = steps_before(&steps, step);
            receipts.extend(ingest.release(rest.by_ref().take(before - receipts.len()).collect()));
            cleared.push(ingest.clear_retained(channel));
        }
    }
    receipts.extend(ingest.release(rest.collect()));
    let mut cleared = cleared.into_iter();
    for step in steps {
        match step {
            Step::Publish { number, key, taken, done } => match receipts.get(number) {
                Some(receipt) => {
                    if let Some(taken) = taken {
                        sessions.note_taken(&taken);
                    }
                    if let Some((name, row)) = key {
                        let has_id = receipt.id.is_some();
                        keys.learn(name, Row { receivers: receipt.receivers, has_id, ..row });
                    }
                    if let Some(done) = done {
                        done.complete(Ok(KeyedReceipt::first(*receipt)));
                    }
                }
                None => drop(done),
            },
            Step::Known { answer, done } => done.complete(answer),
            Step::Repeat { number, done } => match receipts.get(number) {
                Some(receipt) => done.complete(Ok(KeyedReceipt::again(*receipt))),
                None => drop(done),
            },
            Step::Clear { done, .. } => done.complete(Ok(cleared.next().unwrap_or(false))),
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
}

/// Messages of a batch that stand before a step.
fn steps_before(steps: &[Step], step: &Step) -> usize {
    let before = steps.iter().take_while(|other| !std::ptr::eq(*other, step));
    before.filter(|step| matches!(step, Step::Publish { .. })).count()
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

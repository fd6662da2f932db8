//! An engine that does what it must, as badly as it may.

use std::sync::Arc;
use std::time::Duration;

use broker_core::{
    Accepted, Answer, Channel, Claim, Claimed, Engine, Filter, Ingest, LogPage, MessageId, Note, Op, Publish,
    Read, Receipt, Refused, Reject, Rejected, Unavailable,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::Ground;
use crate::paced::{Kept, Paced};

/// Lives of an engine that
/// - delays what it is given, and gives answers in another order than it has done things;
/// - releases again what it has released;
/// - refuses, now and then, with nothing done;
/// - does not answer, now and then, although it has done what it was asked for.
pub struct Chaos {
    kept: Arc<Mutex<Kept>>,
    seed: u64,
}

impl Chaos {
    /// The same seed makes the same choices for the same operations.
    pub fn new(seed: u64) -> Self {
        Self { kept: Arc::default(), seed }
    }
}

impl Ground for Chaos {
    fn open(&self) -> Arc<dyn Engine> {
        let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(self.seed)));
        Arc::new(Unruly { inner: Paced::on(Arc::clone(&self.kept)), random })
    }

    fn end(&self, _: Arc<dyn Engine>) {}

    fn crash(&self, _: Arc<dyn Engine>) {
        self.kept.lock().crash();
    }

    fn is_unreliable(&self) -> bool {
        true
    }
}

struct Unruly {
    inner: Paced,
    random: Arc<Mutex<fastrand::Rng>>,
}

/// Releases, and sometimes again what came before.
struct Repeating {
    inner: Arc<dyn Ingest>,
    random: Arc<Mutex<fastrand::Rng>>,
    last: Mutex<Vec<Accepted>>,
}

impl Ingest for Repeating {
    fn restore(&self, retained: Vec<Accepted>) {
        self.inner.restore(retained);
    }

    fn release(&self, batch: Vec<Accepted>) -> Vec<Receipt> {
        let mut last = self.last.lock();
        if self.random.lock().u8(..) < 64 {
            self.inner.release(last.clone());
        }
        let receipts = self.inner.release(batch.clone());
        last.extend(batch);
        let surplus = last.len().saturating_sub(8);
        last.drain(..surplus);
        receipts
    }

    fn relayed(&self, publish: Publish, time_ms: u64) -> Result<Receipt, Refused> {
        self.inner.relayed(publish, time_ms)
    }

    fn relayed_to_group(
        &self,
        publish: Publish,
        time_ms: u64,
        group: &str,
        filter: &Filter,
    ) -> Result<bool, Refused> {
        self.inner.relayed_to_group(publish, time_ms, group, filter)
    }

    fn clear_retained(&self, channel: &Channel) -> bool {
        self.inner.clear_retained(channel)
    }
}

const SOON: Unavailable = Unavailable::new(Duration::from_millis(1));

impl Unruly {
    /// An answer that comes later than it was given, or never.
    fn late<T: Send + 'static>(&self, done: broker_core::Done<T>) -> broker_core::Done<T> {
        let (is_lost, delay) = {
            let mut random = self.random.lock();
            (random.u8(..) < 16, Duration::from_micros(random.u64(..2_000)))
        };
        let (mine, answered): (broker_core::Done<T>, oneshot::Receiver<T>) = broker_core::Done::new();
        tokio::spawn(async move {
            let answer = answered.await;
            tokio::time::sleep(delay).await;
            if let Ok(answer) = answer
                && !is_lost
            {
                done.complete(answer);
            }
        });
        mine
    }
}

impl Engine for Unruly {
    fn keeps(&self, namespace: &str) -> bool {
        self.inner.keeps(namespace)
    }

    fn head(&self) -> MessageId {
        self.inner.head()
    }

    fn start(&self, ingest: Arc<dyn Ingest>) {
        let random = Arc::clone(&self.random);
        self.inner.start(Arc::new(Repeating { inner: ingest, random, last: Mutex::default() }));
    }

    fn submit(&self, op: Op) -> Result<(), Rejected> {
        let luck = self.random.lock().u8(..);
        if luck < 8 {
            return Err(Rejected::new(Reject::Busy(SOON), op));
        }
        if luck < 16 && !matches!(op, Op::Barrier(_)) {
            return Err(Rejected::new(Reject::Unavailable(SOON), op));
        }
        self.inner.submit(match op {
            Op::Publish { publish, key, taken, done } => {
                Op::Publish { publish, key, taken, done: self.late(done) }
            }
            Op::Free { taken, done } => Op::Free { taken, done: self.late(done) },
            Op::Session { session, fence, record, done } => {
                Op::Session { session, fence, record, done: self.late(done) }
            }
            Op::Notes { notes, done } => Op::Notes { notes, done: self.late(done) },
            other => other,
        })
    }

    fn notes(&self, room: &str) -> Result<Vec<Note>, Unavailable> {
        self.inner.notes(room)
    }

    fn post(&self, publish: Publish) -> Result<(), Rejected> {
        let luck = self.random.lock().u8(..);
        match luck {
            0..8 => Err(Rejected::new(Reject::Busy(SOON), Op::unanswered(publish))),
            8..16 => Err(Rejected::new(Reject::Unavailable(SOON), Op::unanswered(publish))),
            // Nobody has to be quick.
            16..64 => self.submit(Op::unanswered(publish)),
            _ => self.inner.post(publish),
        }
    }

    fn claim(&self, session: &str, claim: Claim) -> Answer<'static, Result<Claimed, Unavailable>> {
        let (luck, delay) = {
            let mut random = self.random.lock();
            (random.u8(..), Duration::from_micros(random.u64(..2_000)))
        };
        if luck < 16 {
            return Answer::now(Err(SOON));
        }
        let claimed = self.inner.claim(session, claim);
        Answer::later(async move {
            let claimed = claimed.await;
            tokio::time::sleep(delay).await;
            // It is claimed all the same.
            if luck < 32 { Err(SOON) } else { claimed }
        })
    }

    fn wills(&self) -> Vec<(Box<str>, u64)> {
        self.inner.wills()
    }

    fn read(&self, read: Read) -> Answer<'static, Result<LogPage, Unavailable>> {
        let delay = Duration::from_micros(self.random.lock().u64(..2_000));
        let page = self.inner.read(read);
        Answer::later(async move {
            tokio::time::sleep(delay).await;
            page.await
        })
    }
}

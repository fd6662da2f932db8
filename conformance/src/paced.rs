//! An engine that keeps everything in memory, and answers later.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, OnceLock};

use broker_core::{
    Accepted, Answer, Channel, Claim, Claimed, Ends, Engine, Fence, Ingest, KeptKey, KeyedReceipt, LogPage,
    MessageId, Note, Op, Order, Publish, PublishError, PublishOnceError, Read, Receipt, RecordError,
    Rejected, SessionRecord, Taken, Unavailable, unix_ms,
};
use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::{Ground, MEMORY};

/// What it has kept, over all lives.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) log: Vec<Accepted>,
    retained: HashMap<Channel, Accepted>,
    keys: HashMap<(KeptKey, Channel), (u64, Receipt)>,
    /// Of what nobody waited for, since something was accepted that somebody waits for.
    early: Vec<u64>,
    /// The newest offset that was given.
    head: u64,
    /// How many wait on a channel.
    waiting: HashMap<Channel, usize>,
    /// Whom they belong to, and what is recorded.
    sessions: HashMap<Box<str>, (Fence, Option<SessionRecord>)>,
    newest_fence: u64,
    /// Numbers that are not freed.
    taken: HashMap<Box<str>, BTreeSet<u16>>,
    /// By room and name.
    notes: BTreeMap<(Box<str>, Box<str>), Note>,
}

/// Of its log: older than that of any broker that starts now.
const EPOCH: u64 = 40;

/// Keeps all but the namespace [`MEMORY`](crate::MEMORY), on a task of its own.
pub struct Paced {
    kept: Arc<Mutex<Kept>>,
    queue: Mutex<Option<UnboundedSender<Op>>>,
    ingest: OnceLock<Arc<dyn Ingest>>,
}

/// Lives of [`Paced`] on the same memory.
#[derive(Default)]
pub struct PacedGround(Arc<Mutex<Kept>>);

impl Ground for PacedGround {
    fn open(&self) -> Arc<dyn Engine> {
        Arc::new(Paced::on(Arc::clone(&self.0)))
    }

    fn end(&self, _: Arc<dyn Engine>) {}

    fn crash(&self, _: Arc<dyn Engine>) {
        self.0.lock().crash();
    }
}

impl Paced {
    pub(crate) fn on(kept: Arc<Mutex<Kept>>) -> Self {
        Self { kept, queue: Mutex::new(None), ingest: OnceLock::new() }
    }
}

impl Kept {
    /// Forgets what it may.
    pub(crate) fn crash(&mut self) {
        let early = std::mem::take(&mut self.early);
        self.log.retain(|kept| !early.contains(&kept.offset));
    }

    /// Accepts a message, or says what its key was answered with.
    fn accept(
        &mut self,
        publish: Publish,
        key: Option<KeptKey>,
        ingest: &dyn Ingest,
    ) -> Result<KeyedReceipt, PublishOnceError> {
        let channel = publish.channel().clone();
        let mut hasher = DefaultHasher::new();
        publish.hash(&mut hasher);
        let print = hasher.finish();
        let key = key.map(|key| (key, channel.clone()));
        if let Some((known, receipt)) = key.as_ref().and_then(|key| self.keys.get(key)) {
            return if *known == print {
                Ok(KeyedReceipt::again(*receipt))
            } else {
                Err(PublishOnceError::Conflict)
            };
        }
        let same = self.log.iter().rev().find(|other| *other.publish.channel() == channel);
        let prev = same.map_or(0, |other| other.offset);
        let mut accepted = Accepted::new(publish, self.head + 2, unix_ms());
        accepted.prev = prev;
        self.head = accepted.offset;
        self.log.push(accepted.clone());
        if accepted.publish.is_retained() {
            if accepted.publish.payload().is_empty() {
                self.retained.remove(&channel);
            } else {
                self.retained.insert(channel, accepted.clone());
            }
        }
        let none = Receipt::new(None, accepted.time_ms, 0);
        let receipt = ingest.release(vec![accepted]).pop().unwrap_or(none);
        if let Some(key) = key {
            self.keys.insert(key, (print, receipt));
        }
        Ok(KeyedReceipt::first(receipt))
    }

    /// Clients who were here in the last life are gone.
    fn begin_life(&mut self) {
        let begin = |ends: &mut Ends| {
            if let Ends::After(after) = *ends {
                *ends = Ends::At(unix_ms() + u64::try_from(after.as_millis()).unwrap_or(u64::MAX / 2));
            }
        };
        for record in self.sessions.values_mut().filter_map(|(_, record)| record.as_mut()) {
            begin(&mut record.ends);
            record.will.iter_mut().for_each(begin);
        }
    }

    fn claim(&mut self, session: &str, claim: Claim) -> Claimed {
        if claim == Claim::End {
            self.taken.remove(session);
            self.sessions.remove(session);
            return Claimed::default();
        }
        if claim == Claim::Look {
            let record = self.sessions.get(session).and_then(|held| held.1.clone());
            return Claimed::new(Fence::default(), record);
        }
        self.newest_fence += 1;
        let fence = Fence(self.newest_fence);
        let held = self.sessions.entry(session.into()).or_default();
        held.0 = fence;
        let is_over = |record: &SessionRecord| {
            record.will.is_none() && matches!(record.ends, Ends::At(at) if at <= unix_ms())
        };
        if claim == Claim::Clean || held.1.as_ref().is_some_and(is_over) {
            held.1 = None;
            self.taken.remove(session);
        }
        let taken = self.taken.get(session).into_iter().flatten().copied().collect();
        Claimed::new(fence, held.1.clone()).with_taken(taken)
    }

    /// Whether whoever submits it has the session.
    fn admits(&self, taken: &Taken) -> bool {
        self.sessions.get(&taken.session).is_some_and(|held| held.0 == taken.fence)
    }

    fn free(&mut self, taken: &Taken) -> Result<(), RecordError> {
        if !self.admits(taken) {
            return Err(RecordError::Fenced);
        }
        if let Some(numbers) = self.taken.get_mut(&taken.session) {
            numbers.remove(&taken.number);
        }
        Ok(())
    }

    fn record(
        &mut self,
        session: Box<str>,
        fence: Fence,
        record: Option<SessionRecord>,
    ) -> Result<(), RecordError> {
        match self.sessions.get_mut(&session) {
            Some(held) if held.0 == fence && record.is_some() => held.1 = record,
            Some(held) if held.0 == fence => {
                self.taken.remove(&session);
                self.sessions.remove(&session);
            }
            _ => return Err(RecordError::Fenced),
        }
        Ok(())
    }

    fn do_one(&mut self, op: Op, ingest: &dyn Ingest) {
        match op {
            Op::Publish { publish, key, taken, done } => {
                if let Some(waiting) = self.waiting.get_mut(publish.channel()) {
                    *waiting -= 1;
                }
                if let Some(taken) = taken {
                    if !self.admits(&taken) {
                        return done.complete(Err(PublishError::Fenced.into()));
                    }
                    self.taken.entry(taken.session).or_default().insert(taken.number);
                }
                let accepted = self.accept(*publish, key, ingest);
                self.early.clear();
                done.complete(accepted);
            }
            Op::ClearRetained { channel, done } => {
                self.retained.remove(&channel);
                done.complete(Ok(ingest.clear_retained(&channel)));
            }
            Op::Session { session, fence, record, done } => {
                done.complete(self.record(session, fence, record.map(|record| *record)));
            }
            Op::Free { taken, done } => done.complete(self.free(&taken)),
            Op::Notes { notes, done } => {
                for note in notes {
                    let key = (note.room.clone(), note.name.clone());
                    match note.text {
                        Some(_) => _ = self.notes.insert(key, note),
                        None => _ = self.notes.remove(&key),
                    }
                }
                done.complete(Ok(()));
            }
            Op::Barrier(done) => done.complete(()),
            _ => {}
        }
    }
}

/// As it is after a while on a disk: its time has gone on.
fn aged(kept: &Accepted) -> Option<Accepted> {
    let mut record = Vec::new();
    kept.write_to(&mut record);
    Accepted::read_from(&record, kept.offset).ok().flatten()
}

impl Engine for Paced {
    fn keeps(&self, namespace: &str) -> bool {
        namespace != MEMORY
    }

    fn head(&self) -> MessageId {
        MessageId::new(EPOCH, self.kept.lock().head)
    }

    fn start(&self, ingest: Arc<dyn Ingest>) {
        self.kept.lock().begin_life();
        ingest.restore(self.kept.lock().retained.values().filter_map(aged).collect());
        let (sender, mut waiting) = unbounded_channel();
        *self.queue.lock() = Some(sender);
        _ = self.ingest.set(Arc::clone(&ingest));
        let kept = Arc::clone(&self.kept);
        tokio::spawn(async move {
            while let Some(op) = waiting.recv().await {
                tokio::task::yield_now().await;
                kept.lock().do_one(op, &*ingest);
            }
        });
    }

    fn submit(&self, op: Op) -> Result<(), Rejected> {
        let queue = self.queue.lock().clone();
        let why = broker_core::Reject::Unavailable(Unavailable::new(std::time::Duration::from_secs(1)));
        if let Op::Publish { publish, .. } = &op {
            *self.kept.lock().waiting.entry(publish.channel().clone()).or_default() += 1;
        }
        match queue {
            Some(queue) => queue.send(op).map_err(|refused| Rejected::new(why, refused.0)),
            None => Err(Rejected::new(why, op)),
        }
    }

    fn post(&self, publish: Publish) -> Result<(), Rejected> {
        let mut kept = self.kept.lock();
        let is_free = kept.waiting.get(publish.channel()).is_none_or(|waiting| *waiting == 0);
        let Some(ingest) = self.ingest.get().filter(|_| is_free && !publish.is_retained()) else {
            drop(kept);
            return self.submit(Op::unanswered(publish));
        };
        _ = kept.accept(publish, None, &**ingest);
        let offset = kept.head;
        kept.early.push(offset);
        Ok(())
    }

    fn notes(&self, room: &str) -> Result<Vec<Note>, Unavailable> {
        let kept = self.kept.lock();
        Ok(kept.notes.values().filter(|note| *note.room == *room).cloned().collect())
    }

    fn claim(&self, session: &str, claim: Claim) -> Answer<'static, Result<Claimed, Unavailable>> {
        let (done, behind) = broker_core::Done::new();
        if self.submit(Op::Barrier(done)).is_err() {
            return Answer::now(Err(Unavailable::new(std::time::Duration::from_secs(1))));
        }
        let (kept, session) = (Arc::clone(&self.kept), Box::<str>::from(session));
        Answer::later(async move {
            _ = behind.await;
            Ok(kept.lock().claim(&session, claim))
        })
    }

    fn wills(&self) -> Vec<(Box<str>, u64)> {
        let kept = self.kept.lock();
        let records = kept.sessions.iter().filter_map(|(name, (_, record))| Some((name, record.as_ref()?)));
        let due = records.filter_map(|(name, record)| match record.will? {
            Ends::At(at_ms) => Some((name.clone(), at_ms)),
            _ => Some((name.clone(), u64::MAX)),
        });
        due.collect()
    }

    fn read(&self, read: Read) -> Answer<'static, Result<LogPage, Unavailable>> {
        let kept = self.kept.lock();
        let in_range = |kept: &&Accepted| kept.offset > read.after && kept.offset <= read.through;
        let wanted =
            |kept: &&Accepted| read.filters.iter().any(|filter| filter.matches(kept.publish.channel()));
        let mut found: Vec<_> = kept.log.iter().filter(in_range).filter(wanted).cloned().collect();
        let oldest = read.order == Order::Oldest;
        if !oldest {
            found.reverse();
        }
        let more = found.len() > read.max_messages;
        found.truncate(read.max_messages);
        let through = match found.last().filter(|_| more) {
            Some(last) if oldest => last.offset,
            Some(last) => last.offset - 1,
            None if oldest => read.through,
            None => read.after,
        };
        let messages = found.iter().filter_map(aged).map(|kept| Arc::new(kept.into_message(EPOCH))).collect();
        let page = LogPage::new(messages, through, 0);
        Answer::later(async move {
            tokio::task::yield_now().await;
            Ok(page)
        })
    }
}

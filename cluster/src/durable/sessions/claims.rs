//! Who has a session from now on.
//!
//! ```text
//! look ─▶ a row with this node as owner ─▶ wait until this node has all that is stored ─▶ the record
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use broker_core::{Claim, Claimed, Ends, Fence, Owner, RecordError, SessionRecord, Unavailable, unix_ms};
use tokio::time::timeout;

use super::{At, Held, Sessions};
use crate::control::{Control, DEADLINE};
use crate::durable::records::Trouble;
use crate::durable::row::Row;
use crate::durable::stream::{ATTEMPT, SOON};
use crate::stats::one_more;

/// Under this name nodes [ask](Control::ask_one) one that has a session for its record, which a client wants elsewhere: the
/// question is what the session is claimed by, and any answer says that it is recorded, or is none.
pub const SESSIONS: &str = "sessions";

/// How long the node that has a session is waited for.
const RECORD_TIMEOUT: Duration = Duration::from_secs(2);

/// So often a claim begins again when others are faster.
const MAX_TRIES: usize = 32;

impl Sessions {
    /// Gives a session to whoever claims it.
    pub(crate) async fn claim(self: Arc<Self>, name: Box<str>, claim: Claim) -> Result<Claimed, Unavailable> {
        self.until_written(&name).await;
        let mut tried: Option<Claimed> = None;
        let mut was_asked = false;
        for _ in 0..MAX_TRIES {
            let found = self.streams.find_row(&name).await?;
            let (revision, row) = found.map_or((0, None), |found| (found.revision, found.row));
            let life = self.streams.node.life;
            if let Some(claimed) = tried.take()
                && let Some(row) = row.as_ref().filter(|row| (row.life, row.fence) == (life, claimed.fence.0))
            {
                // Written, and not answered.
                return self.begin(row.clone(), revision, claimed).await;
            }
            let owner = self.owner(&name, row.as_ref());
            if claim == Claim::Resume
                && owner == Owner::Another
                && !std::mem::replace(&mut was_asked, true)
                && let Some(row) = &row
            {
                // What it writes now is in the next row that is found.
                self.have_recorded(&name, row.life).await;
                continue;
            }
            let record = row
                .as_ref()
                .and_then(|row| row.record.clone())
                .filter(|record| owner != Owner::Gone || !is_over(record));
            let (kept, ended) = match claim {
                Claim::Look => return Ok(Claimed::new(Fence::default(), record).of(owner)),
                Claim::End => match self.end(&name, revision).await {
                    Ok(()) => return Ok(Claimed::default().of(owner).ending(foreign(owner, record))),
                    Err(Trouble::Moved) => continue,
                    Err(_) => return Err(SOON),
                },
                Claim::Left if !is_left(owner, record.as_ref()) => return Ok(Claimed::default()),
                Claim::Clean => (None, foreign(owner, record)),
                _ => (record, None),
            };
            let marks =
                row.as_ref().filter(|_| kept.is_some()).map_or_else(Vec::new, |row| row.marks.clone());
            let fence = self.next_fence(row.as_ref().map_or(0, |row| row.fence));
            let row = Row { life, fence, name: name.clone(), record: kept.clone(), marks, is_left: false };
            let claimed = Claimed::new(Fence(fence), kept).of(owner).ending(ended);
            match self.streams.write_row(&row, revision).await {
                Ok(revision) => return self.begin(row, revision, claimed).await,
                Err(Trouble::Moved | Trouble::Unknown) => tried = Some(claimed),
                Err(Trouble::Refused | Trouble::TooLarge) => return Err(SOON),
            }
        }
        Err(SOON)
    }

    /// The row of this claim is written: what the client has missed can be read here as soon as this node has it all, and
    /// which of its messages are there is known.
    async fn begin(&self, mut row: Row, revision: u64, claimed: Claimed) -> Result<Claimed, Unavailable> {
        row.marks = self.streams.settle(row.marks).await?;
        self.hold(&row, revision);
        if claimed.record.is_some() {
            let reach = self.streams.reach().await?;
            // What was lost on its way here is looked for at once.
            self.queue.note_acknowledged(reach.last);
            let mut released = self.streams.released.subscribe();
            let all = released.wait_for(|released| *released >= reach.last);
            if timeout(ATTEMPT, all).await.is_err() {
                self.streams.node.tell("a session waits for durable messages that do not come");
                return Err(SOON);
            }
        }
        Ok(claimed.with_taken(row.marks.iter().map(|mark| mark.number).collect()))
    }

    /// This node has a session now. Whoever had it here has it no more.
    fn hold(&self, row: &Row, revision: u64) {
        let mut held = self.held.lock();
        let waiting = match held.get_mut(&row.name) {
            // A later claim was faster.
            Some(other) if other.fence >= row.fence => return,
            Some(other) => std::mem::take(&mut other.waiting),
            None => Vec::new(),
        };
        let session = Held {
            fence: row.fence,
            at: At { epoch: self.streams.session_life.epoch(), revision },
            record: row.record.clone(),
            marks: row.marks.clone(),
            waiting: Vec::new(),
            publishing: 0,
            is_writing: false,
            is_over: false,
        };
        held.insert(row.name.clone(), session);
        drop(held);
        waiting.into_iter().for_each(|waiting| self.refuse(waiting, RecordError::Fenced));
    }

    /// Takes away what is recorded, whoever has it.
    async fn end(&self, name: &str, revision: u64) -> Result<(), Trouble> {
        if revision > 0 && self.streams.delete_row(revision).await.is_err() {
            return Err(Trouble::Moved);
        }
        let waiting = self.held.lock().remove(name).map_or_else(Vec::new, |held| held.waiting);
        waiting.into_iter().for_each(|waiting| self.refuse(waiting, RecordError::Fenced));
        Ok(())
    }

    /// Has the node that has a session record what it knows of it, as soon as it is asked: what its client has acknowledged
    /// does not come again then. A node that says nothing is not waited for longer than some moments.
    async fn have_recorded(&self, name: &str, life: u64) {
        let node = &self.streams.node;
        let Some(peer) = node.peers.lock().find(life) else { return };
        let control = Control::new(Arc::clone(node));
        let asking = async {
            loop {
                let asked = Instant::now();
                let answer = control.ask_one(SESSIONS, &peer, name.as_bytes()).await;
                // One that cannot answer says so at once. An answer may take longer than a question is open: then it is
                // asked again.
                if !matches!(answer, Ok(None)) || asked.elapsed() < DEADLINE {
                    return;
                }
            }
        };
        if timeout(RECORD_TIMEOUT, asking).await.is_err() {
            one_more(&node.counters.takeovers_unrecorded);
        }
    }

    /// Who has a session by its row.
    fn owner(&self, name: &str, row: Option<&Row>) -> Owner {
        let node = &self.streams.node;
        let held = self.held.lock().get(name).map(|held| (held.fence, held.is_over));
        match (row, held) {
            (Some(row), Some((fence, _))) if (row.life, row.fence) == (node.life, fence) => Owner::This,
            // A claim that was not answered took it from somebody.
            (Some(row), _) if row.life == node.life => Owner::Another,
            (Some(row), _) if node.peers.lock().find(row.life).is_some() => Owner::Another,
            (Some(_), _) => Owner::Gone,
            // Its row was taken away by somebody else.
            (None, Some((_, false))) => Owner::Another,
            (None, _) => Owner::This,
        }
    }

    /// What was submitted here before is written, and its messages are in the stream, or all that is given up.
    async fn until_written(&self, name: &str) {
        loop {
            let mut written = std::pin::pin!(self.written.notified());
            written.as_mut().enable();
            if self.held.lock().get(name).is_none_or(|held| !held.is_writing && held.publishing == 0) {
                return;
            }
            written.await;
        }
    }

    /// Larger than all before, here and in the row.
    fn next_fence(&self, before: u64) -> u64 {
        let now = unix_ms().saturating_mul(1_000);
        let next = |newest: u64| now.max(before.saturating_add(1)).max(newest.saturating_add(1));
        let update = |newest| Some(next(newest));
        let newest = self.newest_fence.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        next(newest.unwrap_or_default())
    }
}

/// What another node has recorded and is forgotten now.
fn foreign(owner: Owner, record: Option<SessionRecord>) -> Option<SessionRecord> {
    record.filter(|_| owner != Owner::This)
}

/// Such a row is forgotten in a moment; one whose node is there is that node's to end.
fn is_over(record: &SessionRecord) -> bool {
    record.will.is_none() && matches!(record.ends, Ends::At(at_ms) if at_ms <= unix_ms())
}

/// Whether a session has left something to do that is nobody's now.
fn is_left(owner: Owner, record: Option<&SessionRecord>) -> bool {
    owner == Owner::Gone && record.is_some_and(|record| record.will.is_some())
}

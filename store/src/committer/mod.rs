//! The thread that makes the order, writes it, and has it released.

mod answers;
mod channels;
mod plan;
mod releaser;
mod upkeep;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use broker_core::{Channel, Ingest, Op};
use fjall::{OwnedWriteBatch, PersistMode};

use self::answers::{AT_ONCE, Conclusion, refuse_all};
use self::channels::{About, Channels};
use self::plan::Plan;
use self::releaser::{Gone, Releaser, release_all};
use crate::ahead::Ahead;
use crate::copying::Moment;
use crate::disk::{DATABASE, Disk};
use crate::gather::{Gather, Wanted};
use crate::keys::{Keys, Name, Row};
use crate::queue::{BATCH_OPS, Item};
use crate::settings::Durability;
use crate::shared::{Shared, State};

pub(crate) struct Committer {
    shared: Arc<Shared>,
    ingest: Arc<dyn Ingest>,
    /// Releases what is left of a batch while the next is written. Without it all is done here.
    releaser: Option<Releaser>,
    /// How long releasing and answering takes for each message, in nanoseconds, as it took lately.
    release_ns: u64,
    /// What is written to, and what the keys of earlier publishes are found by. `None` after a failure.
    open: Option<Open>,
    epoch: u64,
    /// The newest offset that was written, and the newest that is known to be on the disk.
    written: u64,
    safe: u64,
    unsynced_since: Option<Instant>,
    /// Among what is not known to be on the disk are messages that nobody waited for.
    has_unsynced_quiet: bool,
    looked_at: Instant,
    failed_at: Instant,
}

struct Open {
    disk: Arc<Disk>,
    keys: Keys,
    channels: Channels,
    ahead: Ahead,
}

impl Open {
    /// What is to be known of a channel; what is new of it is written with `batch`.
    fn about(&mut self, channel: &Channel, shared: &Shared, batch: &mut OwnedWriteBatch) -> About {
        self.channels.about(channel, &self.disk, &shared.settings, batch)
    }
}

/// How long what nobody waits for may be on its way to the disk, where an acknowledgement means that it is there.
const QUIET_SYNC: Duration = Duration::from_secs(1);
/// How often the disk is looked at, and what is too old on it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, disk: Arc<Disk>, ingest: Arc<dyn Ingest>) -> Self {
        let mut committer = Self {
            releaser: Releaser::begin(&shared, &ingest),
            release_ns: 0,
            shared,
            ingest,
            open: None,
            epoch: disk.epoch,
            written: 0,
            safe: 0,
            unsynced_since: None,
            has_unsynced_quiet: false,
            looked_at: Instant::now(),
            failed_at: Instant::now(),
        };
        committer.take_up(disk);
        committer
    }

    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        // What has become too old since the last life, or is too much by other bounds.
        shared.watched(|| self.look_around());
        let (mut gather, mut wanted) = (Gather::default(), Wanted::NOTHING);
        loop {
            let taken = self.shared.queue.take(self.patience(), wanted);
            let asked = taken.items.iter().filter(|item| matches!(item, Item::Op(_))).count();
            gather.note(wanted, asked);
            shared.watched(|| {
                if !taken.items.is_empty() {
                    self.do_all(taken.items);
                }
                // Enough wait already where a batch was given away.
                wanted = match self.is_releasing() {
                    true => Wanted::NOTHING,
                    false => gather.next(asked, shared.queue.unreleased(), shared.last_commit()),
                };
                self.show_moment();
                self.sync_if_due();
                if self.looked_at.elapsed() >= LOOK_EVERY {
                    self.settle();
                    self.look_around();
                }
            });
            if taken.is_over {
                shared.moments.lock().clear();
                return shared.watched(|| self.finish());
            }
        }
    }

    fn take_up(&mut self, disk: Arc<Disk>) {
        let window_ms = self.shared.settings.idempotency_window.as_millis();
        match Keys::open(&disk, u64::try_from(window_ms).unwrap_or(u64::MAX)) {
            Ok(keys) => {
                let ahead = Ahead::new(self.shared.settings.directory.join(DATABASE));
                self.open = Some(Open { disk, keys, channels: Channels::default(), ahead });
            }
            Err(error) => self.fail("open its keys", &error),
        }
    }

    /// How long nothing is to be done if nothing comes.
    fn patience(&self) -> Duration {
        let look = LOOK_EVERY.saturating_sub(self.looked_at.elapsed());
        self.sync_due().map_or(look, |due| due.saturating_duration_since(Instant::now()).min(look))
    }

    fn sync_due(&self) -> Option<Instant> {
        let settings = &self.shared.settings;
        let all = settings.namespaces.iter().map(|space| space.durability).chain([settings.durability]);
        let interval = all.filter_map(|durability| match durability {
            Durability::Interval(interval) => Some(interval),
            _ => None,
        });
        let interval = interval.chain(self.has_unsynced_quiet.then_some(QUIET_SYNC)).min()?;
        Some(self.unsynced_since? + interval)
    }

    fn sync_if_due(&mut self) {
        let is_due = self.sync_due().is_some_and(|due| due <= Instant::now());
        let Some(open) = self.open.as_ref().filter(|_| is_due) else { return };
        (self.unsynced_since, self.has_unsynced_quiet) = (None, false);
        let synced = self.shared.synced(|| open.disk.db.persist(PersistMode::SyncData));
        match synced {
            Ok(()) => self.safe = self.written,
            Err(error) => self.fail("write to the disk", &error),
        }
    }

    fn do_all(&mut self, mut items: Vec<Item>) {
        // In the order in which they were released, and so are those that still wait to be taken.
        let early = items.iter().rev().find_map(|item| match item {
            Item::Released(accepted) => Some(accepted.offset),
            _ => None,
        });
        let early = early.unwrap_or(0);
        if items.iter().any(looks_back) {
            self.settle();
        }
        if self.open.is_some() {
            items = self.release_first(items);
        }
        let marks: Vec<u16> = items.iter().filter_map(|item| self.shared.mark_of(item)).collect();
        if self.open.is_none() {
            self.settle();
            self.shared.order.wait_no_more(&marks);
            refuse_all(items);
        } else if let Err(error) = self.commit(items, &marks, early) {
            self.fail("commit", &error);
        }
        if !self.is_releasing() {
            self.shared.note_stored(early);
        }
    }

    /// What nobody waits for had to wait for what was before it. If that is released by now, it need not wait for the disk
    /// again, nor what follows on its channel: else a channel that has waited once would wait on, as something of it is
    /// always on its way.
    fn release_first(&self, items: Vec<Item>) -> Vec<Item> {
        if !items.iter().any(|item| matches!(item, Item::Quiet(_))) {
            return items;
        }
        let mut waiting = HashSet::new();
        let release = |item| match item {
            Item::Quiet(publish) if !publish.is_retained() => {
                let mark = self.shared.order.mark_of(publish.channel());
                if waiting.contains(&mark) {
                    return Item::Quiet(publish);
                }
                let released = self.shared.order.release_now(publish, |accepted| {
                    self.ingest.release(vec![accepted.clone()]);
                    Item::Released(accepted)
                });
                released.unwrap_or_else(|publish| {
                    waiting.insert(mark);
                    Item::Quiet(publish)
                })
            }
            item => {
                waiting.extend(self.shared.mark_of(&item));
                item
            }
        };
        items.into_iter().map(release).collect()
    }

    fn commit(&mut self, items: Vec<Item>, marks: &[u16], early: u64) -> fjall::Result<()> {
        let shared = Arc::clone(&self.shared);
        let Some(open) = &mut self.open else { return Ok(()) };
        let before = match shared.begin_batch(&open.disk, marks.len() as u64) {
            Ok(before) => before,
            Err(error) => {
                self.settle();
                shared.order.wait_no_more(marks);
                return Err(error);
            }
        };
        let mut plan = Plan::new(&open.disk, before);
        let planned = plan.make(items, open, &shared);
        let (last, newest) = (plan.head, plan.newest);
        let (is_urgent, has_quiet) = (plan.is_urgent, plan.has_quiet);
        let (rows, bytes) = plan.takes();
        let written = planned.and_then(|()| plan.commit(open, &shared));
        // Whatever became of this one, the one before was written, and is released first.
        self.settle();
        match written {
            Ok((accepted, steps)) => {
                self.written = self.written.max(newest);
                shared.counters.head.fetch_max(newest, Ordering::Relaxed);
                if is_urgent {
                    (self.safe, self.unsynced_since, self.has_unsynced_quiet) = (self.written, None, false);
                } else if newest > 0 {
                    self.unsynced_since.get_or_insert_with(Instant::now);
                    self.has_unsynced_quiet |= has_quiet;
                }
                shared.order.begin_release(last, marks);
                // Nothing else is released now, and all that was taken is written.
                shared.note_stored(early);
                self.release(Conclusion::new(accepted, steps));
                if let Some(open) = &mut self.open {
                    open.ahead.written(rows, bytes, is_urgent);
                }
                Ok(())
            }
            Err(error) => {
                // Some of it may be on the disk, under these offsets.
                shared.order.give_up(last, marks);
                Err(error)
            }
        }
    }

    /// Releases a batch, or gives what is left of it away as soon as it is worth that.
    fn release(&mut self, mut batch: Conclusion) {
        let (began, count) = (Instant::now(), batch.left());
        loop {
            if self.is_worth_giving_away(batch.left())
                && let Some(releaser) = &mut self.releaser
            {
                if let Err(Gone) = releaser.give(batch) {
                    self.end_without_releaser();
                }
                return;
            }
            if !batch.go_on(&*self.ingest, &self.shared.sessions) {
                break;
            }
        }
        let learnt = release_all(batch, &*self.ingest, &self.shared);
        self.learn(learnt);
        if let Some(each) = began.elapsed().as_nanos().checked_div(count as u128) {
            let each = u64::try_from(each).unwrap_or(u64::MAX);
            self.release_ns = if self.release_ns == 0 { each } else { self.release_ns / 8 * 7 + each / 8 };
        }
    }

    /// Whether the next batch is to be written before the rest of this one is released. If that one is full by now, it costs
    /// nothing. Else two batches and two flushes are made of what could be one, so that it is worth it only where releasing
    /// all that is in flight takes longer than a flush.
    fn is_worth_giving_away(&self, left: usize) -> bool {
        let waiting = self.shared.queue.unreleased();
        let all_ns = self.release_ns.saturating_mul((left + waiting) as u64);
        let is_slow = || Duration::from_nanos(all_ns) > self.shared.last_commit();
        left >= AT_ONCE && waiting >= AT_ONCE && (waiting >= BATCH_OPS || is_slow())
    }

    fn is_releasing(&self) -> bool {
        self.releaser.as_ref().is_some_and(Releaser::is_at_it)
    }

    /// Waits until the batch that was given away is released.
    fn settle(&mut self) {
        match self.releaser.as_mut().map(Releaser::settle) {
            None => {}
            Some(Ok(learnt)) => self.learn(learnt),
            Some(Err(Gone)) => self.end_without_releaser(),
        }
    }

    fn learn(&mut self, learnt: Vec<(Name, Row)>) {
        if let Some(open) = &mut self.open {
            learnt.into_iter().for_each(|(name, row)| open.keys.learn(name, row));
        }
    }

    /// What was released of its batch is not known.
    fn end_without_releaser(&mut self) {
        *self.shared.state.write() = State::Broken("its second thread has ended".to_owned());
        (self.open, self.releaser) = (None, None);
    }

    /// What became of the last batch is not known. Nothing is acknowledged, and nothing taken, until the database was
    /// opened anew and has what it said it had.
    fn fail(&mut self, what: &str, error: &dyn std::fmt::Display) {
        tracing::error!(%error, what, "the store cannot write");
        *self.shared.state.write() = State::Refusing(format!("it cannot {what}: {error}"));
        self.open = None;
        self.failed_at = Instant::now();
        (self.unsynced_since, self.has_unsynced_quiet) = (None, false);
    }

    /// Between two batches everything belongs together.
    fn show_moment(&self) {
        for waiting in std::mem::take(&mut *self.shared.moments.lock()) {
            // Who gets none is told that there is none now.
            let Some(open) = &self.open else { continue };
            // Of what was released, all up to here is in it.
            match Moment::of(&open.disk, *self.shared.stored.borrow()) {
                Ok(moment) => _ = waiting.try_send(moment),
                Err(error) => tracing::error!(%error, "the store cannot be copied"),
            }
        }
    }
}

/// Whether what the batch before brought is to be there first. What is nothing but messages looks at nothing of it.
fn looks_back(item: &Item) -> bool {
    !matches!(item, Item::Released(_) | Item::Op(Op::Publish { key: None, taken: None, .. }))
}

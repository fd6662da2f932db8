//! What the store's handle and its committer share.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use broker_core::{Accepted, Histogram, Ingest, Publish, Reject, Unavailable};
use fjall::PersistMode;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, watch};

use crate::copying::Moment;
use crate::disk::Disk;
use crate::order::{Order, Posted};
use crate::queue::{Item, Queue, Waits};
use crate::schema::numbers;
use crate::sessions::Sessions;
use crate::settings::Settings;

/// When a publisher whom the store refuses may try again.
pub(crate) const REFUSED: Unavailable = Unavailable::new(Duration::from_secs(5));

/// Whether a store takes something.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// It does.
    Ready,
    /// Not now; why.
    Refusing(String),
    /// Not any more; why. Its process is to end.
    Broken(String),
}

pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) queue: Queue,
    pub(crate) order: Order,
    /// All that was released up to here is written, or never will be.
    pub(crate) stored: watch::Sender<u64>,
    /// Where messages are released.
    pub(crate) ingest: OnceLock<Arc<dyn Ingest>>,
    /// `None` while it is being opened anew.
    pub(crate) disk: RwLock<Option<Arc<Disk>>>,
    pub(crate) state: RwLock<State>,
    pub(crate) counters: Counters,
    /// Since when the committer has been at what it does, in milliseconds from `opened_at` and one more; 0 while it waits.
    pub(crate) busy_since: AtomicU64,
    pub(crate) opened_at: Instant,
    pub(crate) readers: Semaphore,
    pub(crate) sessions: Sessions,
    pub(crate) recovery: Duration,
    /// Who waits for a moment between two batches, to copy it.
    pub(crate) moments: Mutex<Vec<SyncSender<Moment>>>,
    /// Whom a copy is sent to.
    pub(crate) copying: Mutex<Option<UnixStream>>,
    #[cfg(feature = "testing")]
    pub(crate) before_sync: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) last_batch: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) commit_times: Histogram,
    pub(crate) refused: AtomicU64,
    pub(crate) free_bytes: AtomicU64,
    /// The newest offset that was committed, or given before this life.
    pub(crate) head: AtomicU64,
    pub(crate) last_commit_ns: AtomicU64,
}

impl Shared {
    /// What is being copied is left, and let go.
    pub(crate) fn stop_copying(&self) {
        if let Some(socket) = &*self.copying.lock() {
            _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Takes in a message that nobody waits for: releases it now if nothing is before it on its channel, else with its
    /// batch.
    pub(crate) fn post(&self, publish: Publish) -> Result<(), (Reject, Box<Publish>)> {
        let Some(ingest) = self.ingest.get() else {
            return Err((Reject::Unavailable(REFUSED), publish.into()));
        };
        if let Err(why) = self.queue.has_room_for(&publish) {
            return Err((why, publish.into()));
        }
        // What subscribers find when they come must not be forgotten.
        let posted = if publish.is_retained() {
            Posted::Waits(publish)
        } else {
            self.order.post(publish, |accepted| self.release(&**ingest, vec![accepted]))
        };
        match posted {
            Posted::Released | Posted::Held => Ok(()),
            Posted::Waits(publish) => self.put(Box::new(publish)),
        }
    }

    /// Releases what has its places already and is written later.
    pub(crate) fn release(&self, ingest: &dyn Ingest, accepted: Vec<Accepted>) {
        ingest.release(accepted.clone());
        accepted.into_iter().for_each(|accepted| self.queue.put_released(accepted));
    }

    /// Takes in what is released with its batch: others of its channel are not released before it.
    pub(crate) fn put<T: Waits>(&self, what: T) -> Result<(), (Reject, T)> {
        let mark = what.waits_on().map(|channel| self.order.mark_of(channel));
        self.order.wait_on(mark);
        self.queue.put(what).inspect_err(|_| self.order.wait_no_more(mark.as_slice()))
    }

    /// The mark of the channel that waits for an item.
    pub(crate) fn mark_of(&self, item: &Item) -> Option<u16> {
        let channel = match item {
            Item::Op(op) => op.waits_on(),
            Item::Quiet(publish) => publish.waits_on(),
            Item::Released(_) => None,
        };
        channel.map(|channel| self.order.mark_of(channel))
    }

    /// The offset before those of a batch. Those that it may use are said on the disk to be used, before the first of
    /// them is: none is used twice whatever happens.
    pub(crate) fn begin_batch(&self, disk: &Disk, messages: u64) -> fjall::Result<u64> {
        if self.order.is_short() {
            self.reserve(disk)?;
        }
        if messages == 0 {
            return Ok(0);
        }
        loop {
            match self.order.begin_batch(messages) {
                Some(before) => return Ok(before),
                None => self.reserve(disk)?,
            }
        }
    }

    fn reserve(&self, disk: &Disk) -> fjall::Result<()> {
        let through = self.order.to_reserve();
        let mut batch = disk.db.batch().durability(Some(PersistMode::SyncData));
        batch.insert(&disk.meta, "head", numbers([through]));
        self.synced(|| batch.commit())?;
        self.order.reserve(through);
        Ok(())
    }

    /// Looks up to where all is written, for readers who wait for that.
    pub(crate) fn note_stored(&self, written_early: u64) {
        let stored = self.order.settled(|head| if self.queue.released() == 0 { head } else { written_early });
        self.stored.send_if_modified(|known| {
            let is_more = *known < stored;
            *known = stored.max(*known);
            is_more
        });
    }

    /// Does what may wait for the disk, and counts how long it takes.
    pub(crate) fn timed<T>(&self, what: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = what();
        let took = began.elapsed();
        self.counters.commit_times.observe(took);
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counters.last_commit_ns.store(took_ns, Ordering::Relaxed);
        done
    }

    /// Does what waits until the disk has it.
    pub(crate) fn synced<T>(&self, what: impl FnOnce() -> T) -> T {
        self.timed(|| {
            #[cfg(feature = "testing")]
            if let Some(before_sync) = self.before_sync.get() {
                before_sync();
            }
            what()
        })
    }

    /// How long the last commit took.
    pub(crate) fn last_commit(&self) -> Duration {
        Duration::from_nanos(self.counters.last_commit_ns.load(Ordering::Relaxed))
    }

    /// Does what may wait for the disk, and has it seen how long it takes.
    pub(crate) fn watched<T>(&self, what: impl FnOnce() -> T) -> T {
        self.busy_since.store(self.now_ms() + 1, Ordering::Relaxed);
        let done = what();
        self.busy_since.store(0, Ordering::Relaxed);
        done
    }

    /// Whether it takes something.
    pub(crate) fn state(&self) -> State {
        let waited = self.waited();
        let secs = waited.as_secs_f64();
        let state = self.state.read();
        match &*state {
            State::Broken(_) => state.clone(),
            _ if waited > self.settings.watchdog => {
                State::Broken(format!("a write has not ended for {secs:.1} s"))
            }
            State::Ready if self.is_slow(waited) => {
                State::Refusing(format!("a write has not ended for {secs:.1} s"))
            }
            _ => state.clone(),
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        *self.state.read() == State::Ready && !self.is_slow(self.waited())
    }

    fn is_slow(&self, waited: Duration) -> bool {
        waited > self.settings.watchdog / 3
    }

    fn waited(&self) -> Duration {
        match self.busy_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(self.now_ms().saturating_sub(since - 1)),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened_at.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    /// After a failure the database is open again.
    pub(crate) fn take_again(&self) {
        // The disk may be full: then it takes nothing yet.
        *self.state.write() = State::Refusing(NO_ROOM.to_owned());
        self.look_for_room();
    }

    /// Refuses before the disk is full, and takes again when there is room.
    pub(crate) fn look_for_room(&self) {
        let Ok(disk) = rustix::fs::statvfs(&self.settings.directory) else { return };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        self.counters.free_bytes.store(free, Ordering::Relaxed);
        let has_room = free >= self.settings.min_free_bytes;
        let mut state = self.state.write();
        match &*state {
            State::Ready if !has_room => {
                tracing::error!(free_bytes = free, "the store takes nothing: the disk is nearly full");
                *state = State::Refusing(NO_ROOM.to_owned());
            }
            State::Refusing(why) if why == NO_ROOM && has_room => {
                tracing::info!(free_bytes = free, "the store takes messages again");
                *state = State::Ready;
            }
            _ => {}
        }
    }
}

const NO_ROOM: &str = "the disk is nearly full";

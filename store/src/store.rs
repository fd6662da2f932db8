//! The store: what the broker has for its engine, and its owner closes.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use broker_core::{
    Accepted, Answer, Claim, Claimed, Done, Durations, Engine, Fence, Ingest, LogPage, MessageId, Note, Op,
    Publish, Read, RecordError, Reject, Rejected, Unavailable,
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, watch};

use crate::committer::Committer;
use crate::copying::refuse;
use crate::disk::{Disk, Group};
use crate::door;
use crate::error::OpenError;
use crate::lock::{Expect, Lock, sync_directory};
use crate::order::Order;
use crate::queue::Queue;
use crate::read::read;
use crate::schema::{room_key, unseal};
use crate::sessions::{Begun, MAX_NAME_BYTES, Sessions, find};
use crate::settings::{Durability, Settings};
use crate::shared::{Counters, REFUSED, Shared, State};

/// Pages that are read at once.
const READERS: usize = 4;

/// Keeps messages on the disk. See the [crate](crate).
pub struct Store {
    shared: Arc<Shared>,
    epoch: u64,
    head: u64,
    /// Until the broker has them.
    retained: Mutex<Vec<Accepted>>,
    committer: Mutex<Option<JoinHandle<()>>>,
    /// Until it is closed.
    lock: Mutex<Option<Lock>>,
}

/// What a store counts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Whether it takes something.
    pub state: State,
    /// Batches that were committed.
    pub commits: u64,
    /// Messages in them.
    pub messages: u64,
    /// Messages in the newest of them that had any.
    pub last_batch: u64,
    /// Bytes of their records.
    pub written_bytes: u64,
    /// How long the disk took for each.
    pub commit_times: Durations,
    /// Operations that were refused because it could not take them.
    pub refused: u64,
    /// Operations that wait, and the bytes of their messages.
    pub waiting: (usize, usize),
    /// Sessions that are recorded.
    pub sessions: usize,
    /// Room on the disk, as it was last looked at.
    pub free_bytes: u64,
    /// What its files take.
    pub disk_bytes: u64,
    /// How long opening took.
    pub recovery: Duration,
    /// The newest offset that was committed. After a crash it begins further on.
    pub head: u64,
    /// How long the disk took for the newest batch.
    pub last_commit: Duration,
    /// What is kept, by namespaces with bounds of their own, and of all others.
    pub kept: Vec<Kept>,
}

/// What is kept of namespaces that are dropped by the same bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// The namespace with bounds of its own; `None`: all others.
    pub namespace: Option<String>,
    /// Messages.
    pub messages: u64,
    /// Bytes of their records, before they are compressed.
    pub bytes: u64,
    /// When the oldest was published, in milliseconds since 1970, if there is any.
    pub oldest_ms: Option<u64>,
}

impl Store {
    /// Opens the store of a directory, or makes one. Blocks while what a crash left is read: as long as it takes to read
    /// the journal, which is bounded, and all that is retained.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(settings: Settings) -> Result<Self, OpenError> {
        let began = Instant::now();
        let directory: &Path = &settings.directory;
        let lock = Lock::take(directory, Expect::Anything)?;
        let (disk, head) = Disk::open(directory, settings.damage())?;
        disk.raise_schema()?;
        sync_directory(directory)?;
        let retained = disk.load_retained()?;
        let (messages, bytes) = (retained.len(), retained.iter().map(Accepted::weight).sum());
        let (max_messages, max_bytes) = (settings.max_retained_messages, settings.max_retained_bytes);
        if messages > max_messages || bytes > max_bytes {
            return Err(OpenError::TooManyRetained { messages, bytes, max_messages, max_bytes });
        }
        let epoch = disk.epoch;
        let sessions = Sessions::load(&disk)?;
        let shared = Arc::new(Shared {
            queue: Queue::new(settings.max_waiting, settings.max_waiting_bytes),
            order: Order::new(head),
            stored: watch::Sender::new(head),
            ingest: OnceLock::new(),
            disk: RwLock::new(Some(Arc::new(disk))),
            state: RwLock::new(State::Ready),
            counters: Counters::default(),
            busy_since: AtomicU64::new(0),
            opened_at: began,
            readers: Semaphore::new(READERS),
            sessions,
            recovery: began.elapsed(),
            moments: Mutex::default(),
            copying: Mutex::default(),
            settings,
            #[cfg(feature = "testing")]
            before_sync: OnceLock::new(),
        });
        shared.counters.head.store(head, Ordering::Relaxed);
        shared.look_for_room();
        Ok(Self {
            shared,
            epoch,
            head,
            retained: Mutex::new(retained),
            committer: Mutex::new(None),
            lock: Mutex::new(Some(lock)),
        })
    }

    /// As [`open`](Self::open), for tests and benches: `before_sync` is called each time before the disk is waited for,
    /// on the thread that then waits. One that sleeps makes a slow disk.
    ///
    /// # Errors
    /// See [`OpenError`].
    #[cfg(feature = "testing")]
    pub fn open_on(
        settings: Settings,
        before_sync: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let store = Self::open(settings)?;
        _ = store.shared.before_sync.set(Box::new(before_sync));
        Ok(store)
    }

    /// Writes what waits, and ends. Blocks until that is on the disk. Nothing is taken or read any more; the broker is to
    /// be [closed](broker_core::Broker::close) first.
    pub fn close(&self) {
        self.shared.queue.close();
        self.shared.stop_copying();
        if let Some(committer) = self.committer.lock().take()
            && committer.join().is_err()
        {
            tracing::error!("the committer of the store panicked");
        }
        // Nobody waits for what is written any more.
        self.shared.stored.send_replace(u64::MAX);
        // Another one may open it from here on.
        *self.shared.disk.write() = None;
        self.lock.lock().take();
    }

    /// Sends the store to whoever calls [`backup`](crate::backup) on this machine and may open the files of its directory,
    /// one after the other, until this is dropped. What is published meanwhile waits only until a batch is over.
    ///
    /// # Errors
    /// There is no socket in the directory.
    pub async fn answer_backups(&self) -> io::Result<()> {
        let directory = &self.shared.settings.directory;
        let listener = door::open(directory)?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        loop {
            let (socket, _) = listener.accept().await?;
            let socket = socket.into_std()?;
            socket.set_nonblocking(false)?;
            let shared = Arc::clone(&self.shared);
            let sent = tokio::task::spawn_blocking(move || send(&shared, socket)).await;
            if let Ok(Err(error)) = sent {
                tracing::warn!(%error, "a backup did not end");
            }
        }
    }

    /// Whether it takes something.
    pub fn state(&self) -> State {
        self.shared.state()
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let disk = self.shared.disk.read().clone();
        Stats {
            state: self.state(),
            commits: load(&counters.commits),
            messages: load(&counters.messages),
            last_batch: load(&counters.last_batch),
            written_bytes: load(&counters.written_bytes),
            commit_times: counters.commit_times.durations(),
            refused: load(&counters.refused),
            waiting: self.shared.queue.waiting(),
            sessions: self.shared.sessions.len(),
            free_bytes: load(&counters.free_bytes),
            disk_bytes: disk.as_ref().and_then(|disk| disk.db.disk_space().ok()).unwrap_or(0),
            recovery: self.shared.recovery,
            head: load(&counters.head),
            last_commit: Duration::from_nanos(load(&counters.last_commit_ns)),
            kept: disk.as_ref().map(|disk| kept(disk)).unwrap_or_default(),
        }
    }
}

fn kept(disk: &Disk) -> Vec<Kept> {
    let buckets = disk.buckets();
    let of_group = |group: Group| {
        let held = buckets.iter().filter(|bucket| bucket.group == group.number).map(|bucket| bucket.held());
        let held: Vec<_> = held.filter(|held| held.messages > 0).collect();
        Kept {
            namespace: Some(group.name).filter(|name| !name.is_empty()),
            messages: held.iter().map(|held| held.messages).sum(),
            bytes: held.iter().map(|held| held.bytes).sum(),
            oldest_ms: held.iter().map(|held| held.begun_ms).min(),
        }
    };
    let mut groups = disk.groups();
    if groups.iter().all(|group| !group.name.is_empty()) {
        // All others are there from the beginning. No group has that number.
        groups.push(Group { name: String::new(), number: u32::MAX, dropped_through: 0 });
    }
    groups.into_iter().map(of_group).collect()
}

/// Sends a copy.
fn send(shared: &Shared, socket: UnixStream) -> io::Result<()> {
    door::set_patience(&socket)?;
    // Closing the store ends it.
    *shared.copying.lock() = Some(socket.try_clone()?);
    let (shown, seen) = mpsc::sync_channel(1);
    shared.moments.lock().push(shown);
    shared.queue.wake();
    let moment = if shared.queue.is_closed() { None } else { seen.recv_timeout(door::PATIENCE).ok() };
    let began = Instant::now();
    let sent = match moment {
        Some(moment) => moment.send(&socket),
        None => refuse(&socket, "it does not write now"),
    };
    shared.copying.lock().take();
    sent?;
    tracing::info!(took_ms = began.elapsed().as_millis() as u64, "a copy of the store was sent");
    Ok(())
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl Engine for Store {
    fn keeps(&self, namespace: &str) -> bool {
        self.shared.settings.durability_of(namespace) != Durability::Memory
    }

    fn head(&self) -> MessageId {
        MessageId::new(self.epoch, self.head)
    }

    fn start(&self, ingest: Arc<dyn Ingest>) {
        ingest.restore(std::mem::take(&mut *self.retained.lock()));
        let Some(disk) = self.shared.disk.read().clone() else { return };
        _ = self.shared.ingest.set(Arc::clone(&ingest));
        let committer = Committer::new(Arc::clone(&self.shared), disk, ingest);
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || committer.run());
        match thread {
            Ok(thread) => *self.committer.lock() = Some(thread),
            Err(error) => {
                *self.shared.state.write() = State::Broken(format!("no thread for the store: {error}"));
            }
        }
    }

    fn submit(&self, op: Op) -> Result<(), Rejected> {
        let refuse = |why, op| {
            self.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
            Err(Rejected::new(why, op))
        };
        if !matches!(op, Op::Barrier(_)) && !self.shared.is_ready() {
            return refuse(Reject::Unavailable(REFUSED), op);
        }
        self.shared.put(op).or_else(|(why, op)| refuse(why, op))
    }

    fn post(&self, publish: Publish) -> Result<(), Rejected> {
        let posted = if self.shared.is_ready() {
            self.shared.post(publish)
        } else {
            Err((Reject::Unavailable(REFUSED), publish.into()))
        };
        posted.map_err(|(why, publish)| {
            self.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
            Rejected::new(why, Op::unanswered(publish))
        })
    }

    fn notes(&self, room: &str) -> Result<Vec<Note>, Unavailable> {
        let disk = self.shared.disk.read().clone().ok_or(REFUSED)?;
        let unread = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, "the store cannot be read");
            REFUSED
        };
        let prefix = room_key(room);
        let mut notes = Vec::new();
        for row in disk.notes.prefix(&prefix) {
            let (key, value) = row.into_inner().map_err(|error| unread(&error))?;
            let name = key.get(prefix.len()..).and_then(|name| std::str::from_utf8(name).ok());
            match name.zip(unseal(&value)) {
                Some((name, text)) => {
                    notes.push(Note::new(room, name, Some(text.to_vec().into())));
                }
                // The others are worth having without it; a check names it.
                None => _ = unread(&format_args!("note {:?} is damaged", String::from_utf8_lossy(&key))),
            }
        }
        Ok(notes)
    }

    fn claim(&self, session: &str, claim: Claim) -> Answer<'static, Result<Claimed, Unavailable>> {
        let sessions = &self.shared.sessions;
        if session.len() > MAX_NAME_BYTES
            || matches!(claim, Claim::End | Claim::Look) && !sessions.is_known(session)
        {
            return Answer::now(Ok(Claimed::default()));
        }
        if !matches!(claim, Claim::End | Claim::Look) {
            match sessions.begin(session, self.shared.settings.max_sessions) {
                Begun::New(fence) => return Answer::now(Ok(Claimed::new(fence, None))),
                Begun::Full => return Answer::now(Err(REFUSED)),
                Begun::Known => {}
            }
        }
        Answer::later(Arc::clone(&self.shared).claim(session.into(), claim))
    }

    fn wills(&self) -> Vec<(Box<str>, u64)> {
        self.shared.sessions.wills()
    }

    fn read(&self, asked: Read) -> Answer<'static, Result<LogPage, Unavailable>> {
        let shared = Arc::clone(&self.shared);
        Answer::later(async move {
            // What was released before it was written, and is in nobody's memory any more by now.
            _ = shared.stored.subscribe().wait_for(|stored| *stored >= asked.through).await;
            let _turn = shared.readers.acquire().await.map_err(|_| REFUSED)?;
            let reading = Arc::clone(&shared);
            let page = tokio::task::spawn_blocking(move || {
                let disk = reading.disk.read().clone()?;
                Some(read(&disk, &reading.settings, &asked))
            });
            match page.await {
                Ok(Some(Ok(page))) => Ok(page),
                Ok(Some(Err(error))) => {
                    tracing::error!(%error, "the store cannot be read");
                    Err(REFUSED)
                }
                Ok(None) | Err(_) => Err(REFUSED),
            }
        })
    }
}

impl Shared {
    /// Puts an operation into the queue whatever becomes of those before it, and waits for its answer.
    async fn ask<T>(&self, op: impl FnOnce(Done<T>) -> Op) -> Result<T, Unavailable> {
        let (done, answer) = Done::new();
        self.put(op(done)).map_err(|_| REFUSED)?;
        answer.await.map_err(|_| REFUSED)
    }

    /// Gives a session away that is known: first all is written that was submitted by whoever had it, and what is still
    /// on its way when the fence moves either was admitted before, and is waited for, or is refused.
    async fn claim(self: Arc<Self>, name: Box<str>, claim: Claim) -> Result<Claimed, Unavailable> {
        self.ask(Op::Barrier).await?;
        let is_look = claim == Claim::Look;
        let fence = if is_look { Fence::default() } else { self.sessions.claim(&name) };
        self.ask(Op::Barrier).await?;
        if is_look || matches!(claim, Claim::Resume | Claim::Left) {
            let _turn = self.readers.acquire().await.map_err(|_| REFUSED)?;
            let (reading, asked) = (Arc::clone(&self), name.clone());
            let read = tokio::task::spawn_blocking(move || {
                let disk = reading.disk.read().clone()?;
                Some(find(&disk, &asked))
            });
            let record = match read.await {
                Ok(Some(Ok(record))) => record,
                Ok(Some(Err(error))) => {
                    tracing::error!(%error, "the store cannot be read");
                    return Err(REFUSED);
                }
                Ok(None) | Err(_) => return Err(REFUSED),
            };
            let taken = self.sessions.taken(&name);
            if record.is_some() || taken.is_empty() || is_look {
                return Ok(Claimed::new(fence, record).with_taken(taken));
            }
            // They go with their session, whose time is over.
        }
        if *self.state.read() != State::Ready {
            return Err(REFUSED);
        }
        let end = |done| Op::Session { session: name.clone(), fence, record: None, done };
        match self.ask(end).await? {
            // Another claim has come since, and its owner knows of no record either.
            Ok(()) | Err(RecordError::Fenced) => {}
            Err(_) => return Err(REFUSED),
        }
        let fence = if claim == Claim::End { Fence::default() } else { self.sessions.claim(&name) };
        Ok(Claimed::new(fence, None))
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("directory", &self.shared.settings.directory).finish_non_exhaustive()
    }
}

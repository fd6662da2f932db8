//! Notes of parts of the server, kept by the engine over a crash, where there is one.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle as Runtime;
use tokio::sync::Notify;

use super::Broker;
use crate::engine::{Done, Engine, Note, Op, Reject};
use crate::error::Unavailable;
use crate::shared::Shared;

/// What is written in one go: more of it are several.
const BATCH_NOTES: usize = 256;
const BATCH_BYTES: usize = 512 << 10;

/// How soon is written again what the engine did not answer.
const PAUSE: Duration = Duration::from_millis(200);

/// The notes of one part of the server, in a room of its own. A clone writes into the same.
///
/// They are written by turns: while one turn is on its way to the disk, the last word on each name waits for the next. So
/// what is noted and forgotten within a turn costs no write, and what waits is bounded by the names there are. Without an
/// engine nothing is kept, and nothing waits; so are the default ones.
#[derive(Clone, Default)]
pub struct Notes(Option<Arc<Book>>);

struct Book {
    engine: Arc<dyn Engine>,
    broker: Weak<Shared>,
    runtime: Runtime,
    room: Box<str>,
    pages: Mutex<Pages>,
    /// A turn is over.
    turned: Notify,
}

#[derive(Default)]
struct Pages {
    changed: HashMap<Box<str>, Option<Bytes>>,
    is_writing: bool,
    /// Changes so far, those that were written, and turns that failed.
    noted: u64,
    written: u64,
    failures: u64,
}

impl Broker {
    /// The notes in a room. Whoever has a room has it alone: two that write to one do not see each other's last words.
    pub fn notes(&self, room: &str) -> Notes {
        let shared = self.shared();
        Notes(shared.engine.as_ref().filter(|engine| engine.keeps_notes()).map(|engine| {
            Arc::new(Book {
                engine: Arc::clone(engine),
                broker: Arc::downgrade(shared),
                runtime: shared.runtime.clone(),
                room: room.into(),
                pages: Mutex::default(),
                turned: Notify::new(),
            })
        }))
    }
}

impl Notes {
    /// Whether anything is kept.
    pub fn are_kept(&self) -> bool {
        self.0.is_some()
    }

    /// What earlier lives have left here, by name, in no order. Reads the disk: for the start, or a thread that may wait.
    ///
    /// # Errors
    /// It cannot be read now.
    pub fn load(&self) -> Result<Vec<(Box<str>, Bytes)>, Unavailable> {
        let Some(book) = &self.0 else { return Ok(Vec::new()) };
        let notes = book.engine.notes(&book.room)?;
        Ok(notes.into_iter().filter_map(|note| Some((note.name, note.text?))).collect())
    }

    /// Notes something, in the place of what had its name.
    pub fn put(&self, name: &str, text: impl Into<Bytes>) {
        self.change(name, Some(text.into()));
    }

    /// Forgets what has this name.
    pub fn remove(&self, name: &str) {
        self.change(name, None);
    }

    fn change(&self, name: &str, text: Option<Bytes>) {
        let Some(book) = &self.0 else { return };
        let mut pages = book.pages.lock();
        pages.noted += 1;
        pages.changed.insert(name.into(), text);
        if !std::mem::replace(&mut pages.is_writing, true) {
            drop(pages);
            book.runtime.spawn(Arc::clone(book).write());
        }
    }

    /// Whether all that was noted so far outlives a crash.
    pub fn are_safe(&self) -> bool {
        self.0.as_ref().is_some_and(|book| {
            let pages = book.pages.lock();
            pages.written == pages.noted
        })
    }

    /// Resolves once all that was noted before is safe.
    ///
    /// # Errors
    /// The engine took nothing meanwhile. It is tried again all the same.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn settled(&self) -> Result<(), Unavailable> {
        let Some(book) = &self.0 else { return Ok(()) };
        let (noted, failures) = {
            let pages = book.pages.lock();
            (pages.noted, pages.failures)
        };
        loop {
            let turned = book.turned.notified();
            {
                let pages = book.pages.lock();
                if pages.written >= noted {
                    return Ok(());
                }
                if pages.failures > failures || !pages.is_writing {
                    return Err(Unavailable::new(PAUSE));
                }
            }
            turned.await;
        }
    }
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Notes").field(&self.0.as_ref().map(|book| &book.room)).finish()
    }
}

impl Book {
    /// Whether the broker has ended, and its engine with it.
    fn is_over(&self) -> bool {
        self.broker.upgrade().is_none_or(|shared| shared.closed.load(Ordering::Relaxed))
    }

    /// Writes until nothing is changed any more.
    async fn write(self: Arc<Self>) {
        loop {
            let (changed, through) = {
                let mut pages = self.pages.lock();
                if pages.changed.is_empty() {
                    pages.is_writing = false;
                    return;
                }
                (std::mem::take(&mut pages.changed), pages.noted)
            };
            let outcome = self.turn(&changed).await;
            let failed = outcome.is_err();
            let wait = {
                let mut pages = self.pages.lock();
                match outcome {
                    Ok(()) => {
                        pages.written = through;
                        None
                    }
                    Err(unavailable) => {
                        pages.failures += 1;
                        // Nobody opens the engine of a broker that has ended.
                        pages.is_writing = !self.is_over();
                        for (name, text) in changed {
                            // What was said since is newer.
                            pages.changed.entry(name).or_insert(text);
                        }
                        pages.is_writing.then_some(unavailable.retry_after)
                    }
                }
            };
            self.turned.notify_waiters();
            match wait {
                Some(wait) => tokio::time::sleep(wait.max(Duration::from_millis(1))).await,
                None if failed => return,
                None => {}
            }
        }
    }

    /// Has all of them written.
    async fn turn(&self, changed: &HashMap<Box<str>, Option<Bytes>>) -> Result<(), Unavailable> {
        let mut answers = Vec::new();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for (at, (name, text)) in changed.iter().enumerate() {
            let note = Note::new(self.room.clone(), name.clone(), text.clone());
            bytes += note.weight();
            batch.push(note);
            if batch.len() >= BATCH_NOTES || bytes >= BATCH_BYTES || at + 1 == changed.len() {
                let (done, written) = Done::new();
                let op = Op::Notes { notes: std::mem::take(&mut batch), done };
                bytes = 0;
                self.engine.submit(op).map_err(|rejected| match rejected.why {
                    Reject::Busy(when) | Reject::Unavailable(when) => when,
                })?;
                answers.push(written);
            }
        }
        for written in answers {
            // Nobody knows: said again, it does no harm.
            written.await.unwrap_or(Err(Unavailable::new(PAUSE)))?;
        }
        Ok(())
    }
}

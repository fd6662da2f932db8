//! What the store's handle and its committer share.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use broker_core::{Histogram, Unavailable};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;

use crate::copying::Moment;
use crate::disk::Disk;
use crate::queue::Queue;
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
    /// `None` while it is being opened anew.
    pub(crate) disk: RwLock<Option<Arc<Disk>>>,
    pub(crate) state: RwLock<State>,
    pub(crate) counters: Counters,
    /// When the commit that runs was begun.
    pub(crate) committing: Mutex<Option<Instant>>,
    pub(crate) readers: Semaphore,
    pub(crate) recovery: Duration,
    /// Who waits for a moment between two batches, to copy it.
    pub(crate) moments: Mutex<Vec<SyncSender<Moment>>>,
    /// Whom a copy is sent to.
    pub(crate) copying: Mutex<Option<UnixStream>>,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) commit_times: Histogram,
    pub(crate) refused: AtomicU64,
    pub(crate) free_bytes: AtomicU64,
}

impl Shared {
    /// What is being copied is left, and let go.
    pub(crate) fn stop_copying(&self) {
        if let Some(socket) = &*self.copying.lock() {
            _ = socket.shutdown(Shutdown::Both);
        }
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

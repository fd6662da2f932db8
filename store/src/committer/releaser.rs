//! A second thread, which releases a batch while the committer is at the next one.
//!
//! Where many publishers wait for their answers, releasing a batch and answering them takes as long as a flush, and one
//! would wait for the other. So what is left of a batch's release goes to this thread as soon as the next batch waits. At
//! most one batch is with it: the committer has it back before it begins to release the next, so that the order is one.
//!
//! ```text
//! committer   write, sync 1 │ release some of 1 │ write, sync 2        │ write, sync 3
//! releaser                                      │ release the rest of 1│ release 2
//! ```

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use broker_core::Ingest;

use super::answers::{Conclusion, Learnt};
use crate::shared::Shared;

pub(super) struct Releaser {
    batches: SyncSender<Conclusion>,
    released: Receiver<Learnt>,
    /// It has a batch.
    is_at_it: bool,
    thread: JoinHandle<()>,
}

/// It panicked, and nobody knows what of its batch was released.
pub(super) struct Gone;

impl Releaser {
    /// `None`: there is no thread for it, and the committer releases all by itself.
    pub(super) fn begin(shared: &Arc<Shared>, ingest: &Arc<dyn Ingest>) -> Option<Self> {
        let (batches, given) = sync_channel(1);
        let (give_back, released) = sync_channel(1);
        let (shared, ingest) = (Arc::clone(shared), Arc::clone(ingest));
        let release = move || {
            while let Ok(batch) = given.recv() {
                if give_back.send(release_all(batch, &*ingest, &shared)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("store-release".to_owned()).spawn(release);
        let thread = thread.inspect_err(
            |error| tracing::warn!(%error, "no second thread for the store, which is slower without"),
        );
        Some(Self { batches, released, is_at_it: false, thread: thread.ok()? })
    }

    /// Gives it what is left of a batch. It has none.
    pub(super) fn give(&mut self, batch: Conclusion) -> Result<(), Gone> {
        self.is_at_it = true;
        self.batches.send(batch).map_err(|_| Gone)
    }

    pub(super) fn is_at_it(&self) -> bool {
        self.is_at_it
    }

    /// Waits until it is done with its batch, if it has one.
    pub(super) fn settle(&mut self) -> Result<Learnt, Gone> {
        if !std::mem::take(&mut self.is_at_it) {
            return Ok(Learnt::new());
        }
        self.released.recv().map_err(|_| Gone)
    }

    /// Nothing comes any more.
    pub(super) fn end(self) {
        let Self { batches, released, thread, .. } = self;
        drop((batches, released));
        // If it panicked the store is broken by now.
        _ = thread.join();
    }
}

/// Releases all that is left of a batch, and what nobody waits for and came meanwhile.
pub(super) fn release_all(mut batch: Conclusion, ingest: &dyn Ingest, shared: &Shared) -> Learnt {
    while batch.go_on(ingest, &shared.sessions) {}
    shared.order.end_release(|accepted| shared.release(ingest, accepted));
    batch.learnt()
}

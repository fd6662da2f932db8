//! How a pipe that is full says so to whoever looks after its connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Set by any thread, and looked at by one task.
#[derive(Default)]
pub(crate) struct Filled {
    is_set: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Filled {
    /// Says that something waits that the client does not take.
    pub(crate) fn set(&self) {
        if !self.is_set.swap(true, Ordering::AcqRel)
            && let Some(task) = self.task.lock().take()
        {
            task.wake();
        }
    }

    /// Ready once it was set since the last time.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_set.load(Ordering::Acquire) {
            let mut task = self.task.lock();
            if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                *task = Some(cx.waker().clone());
            }
        }
        if self.is_set.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }
}

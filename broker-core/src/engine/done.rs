//! How an engine answers who waits for it.

use std::fmt;

use tokio::sync::oneshot;

/// Whoever waits for an operation. Dropped without an answer, they are told that its outcome is unknown.
pub struct Done<T>(oneshot::Sender<T>);

impl<T> Done<T> {
    /// One, and where its answer comes: for an engine in front of another one, that has to see its answers.
    pub fn new() -> (Self, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Answers. That nobody waits any more is no error.
    pub fn complete(self, answer: T) {
        _ = self.0.send(answer);
    }
}

impl<T> fmt::Debug for Done<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Done")
    }
}

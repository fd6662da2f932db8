//! What waits for HTTP/2 clients that take nothing, over all connections of a server.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// The account that connections share. Clones are handles to the same one.
#[derive(Clone, Debug, Default)]
pub struct Stalled(Arc<Account>);

#[derive(Debug, Default)]
struct Account {
    bytes: AtomicUsize,
    reset: AtomicU64,
    refused: AtomicU64,
    connections: Mutex<Vec<Weak<dyn Holder>>>,
}

/// A connection in the account.
pub(crate) trait Holder: Send + Sync {
    /// What it has in the account, in bytes.
    fn counted(&self) -> usize;

    /// To be called on the connection that holds most when all hold too much, or would with so many bytes more as are
    /// `needed`.
    fn give_way(&self, needed: usize);
}

impl Stalled {
    /// Bytes that wait now, of responses that do not go at once.
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Relaxed)
    }

    /// Streams that were reset because too much waited for their clients.
    pub fn reset(&self) -> u64 {
        self.0.reset.load(Relaxed)
    }

    /// Responses that were replaced by a 503 because too much waited already.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Relaxed)
    }

    pub(crate) fn enter(&self, connection: Weak<dyn Holder>) {
        let mut connections = self.0.connections.lock();
        if connections.len() == connections.capacity() {
            connections.retain(|connection| connection.strong_count() > 0);
        }
        connections.push(connection);
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn take_off(&self, bytes: usize) {
        self.0.bytes.fetch_sub(bytes, Relaxed);
    }

    pub(crate) fn count_reset(&self, streams: usize) {
        self.0.reset.fetch_add(streams as u64, Relaxed);
    }

    pub(crate) fn count_refused(&self) {
        self.0.refused.fetch_add(1, Relaxed);
    }

    /// Has the connection that holds most give up what is too much, with so many bytes more as are `needed`.
    pub(crate) fn relieve(&self, needed: usize) {
        let connections = self.0.connections.lock();
        let live = connections.iter().filter_map(Weak::upgrade);
        let largest = live.max_by_key(|connection| connection.counted());
        drop(connections);
        if let Some(largest) = largest {
            largest.give_way(needed);
        }
    }
}

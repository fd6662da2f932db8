//! Other nodes of a cluster, as webhooks tell them which channels are occupied.

use std::sync::{Arc, Weak};
use std::time::Instant;

use broker_core::{Channel, unix_ms};
use parking_lot::Mutex;

use super::elsewhere::{Elsewhere, Word};
use super::event::Kind;
use super::webhooks::{Inner, Webhooks};

/// Bytes of words that are told at a time.
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// Other nodes of a cluster: given to [`Webhooks::join`].
pub trait Nodes: Send + Sync {
    /// Tells all of them, soon and in the order of the calls. They give it to [`Occupied::hear`]. May not block.
    fn tell(&self, notice: Vec<u8>);

    /// The lives of those that are there now.
    fn lives(&self) -> Vec<u64>;
}

/// What a node of a cluster has of the others.
pub(super) struct InCluster {
    nodes: Arc<dyn Nodes>,
    elsewhere: Mutex<Elsewhere>,
}

impl InCluster {
    fn tell(&self, words: &[Word]) {
        let mut batch = Vec::new();
        for word in words {
            word.write(&mut batch);
            if batch.len() >= MAX_BATCH_BYTES {
                self.nodes.tell(std::mem::take(&mut batch));
            }
        }
        if !batch.is_empty() {
            self.nodes.tell(batch);
        }
    }
}

/// Where webhooks hear of other nodes. It does not keep them.
pub struct Occupied(Weak<Inner>);

impl Occupied {
    fn with(&self, what: impl FnOnce(&Inner, &InCluster)) {
        if let Some(inner) = self.0.upgrade()
            && let Some(cluster) = inner.cluster.get()
        {
            what(&inner, cluster);
        }
    }

    /// A node of this life has [told](Nodes::tell) something.
    pub fn hear(&self, life: u64, notice: &[u8]) {
        self.with(|_, cluster| {
            let mut elsewhere = cluster.elsewhere.lock();
            let mut rest = notice;
            while let Some((word, behind)) = Word::read(rest) {
                elsewhere.hear(life, word);
                rest = behind;
            }
        });
    }

    /// A node has come, or may have missed something: all are told what is occupied here.
    pub fn tell_all(&self) {
        self.with(|_, cluster| {
            // Under the lock, so that what is told later comes later.
            let elsewhere = cluster.elsewhere.lock();
            cluster.tell(&elsewhere.words());
        });
    }

    /// A node of this life is gone.
    pub fn left(&self, life: u64) {
        self.with(|inner, cluster| {
            let vacated = cluster.elsewhere.lock().handle_left(life, &cluster.nodes.lives());
            for channel in vacated {
                inner.tell_of_channel(Kind::Vacated, &channel, 0);
            }
        });
    }
}

impl Webhooks {
    /// There are other nodes with the same webhooks: `occupied` and `vacated` are told once for all of them. `life` is this
    /// node's own among them. The first call counts.
    pub fn join(&self, nodes: Arc<dyn Nodes>, life: u64) -> Occupied {
        let cluster = InCluster { nodes, elsewhere: Mutex::new(Elsewhere::new(life)) };
        _ = self.0.cluster.set(cluster);
        Occupied(Arc::downgrade(&self.0))
    }
}

impl Inner {
    pub(super) fn is_occupied_elsewhere(&self, channel: &Channel) -> bool {
        self.cluster.get().is_some_and(|cluster| cluster.elsewhere.lock().is_occupied(channel))
    }

    /// Other nodes are told, and it is settled with them who tells backends; false if there are none.
    pub(super) fn settle_with_others(&self, kind: Kind, channel: &Channel) -> bool {
        let Some(cluster) = self.cluster.get() else { return false };
        let mut elsewhere = cluster.elsewhere.lock();
        let (now, unix_ms) = (Instant::now(), unix_ms());
        let word = match kind {
            Kind::Occupied => elsewhere.handle_occupied(now, unix_ms, channel),
            _ => elsewhere.handle_vacated(now, unix_ms, channel),
        };
        // Under the lock, so that words come in their order.
        cluster.tell(&[word]);
        true
    }

    /// Tells backends what is this node's to tell; when to look again.
    pub(super) fn tell_what_is_settled(&self) -> Option<Instant> {
        let cluster = self.cluster.get()?;
        loop {
            let mut elsewhere = cluster.elsewhere.lock();
            let Some((kind, channel)) = elsewhere.poll(Instant::now()) else {
                return elsewhere.poll_timeout();
            };
            drop(elsewhere);
            let subscribers = if kind == Kind::Occupied { self.subscribers_of(&channel) } else { 0 };
            self.tell_of_channel(kind, &channel, subscribers);
        }
    }

    /// This node has no clients any more.
    pub(super) fn take_leave(&self) {
        if let Some(cluster) = self.cluster.get() {
            cluster.tell(&[Word::Reset]);
        }
    }
}

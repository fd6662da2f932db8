//! Who answers here, and whose questions are on their way: no IO.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ahash::AHashMap;
use broker_core::Answer;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, mpsc};

/// Questions of this node that wait for answers at a time.
const MAX_ASKED: usize = 1_024;

/// Questions of others that are being answered at a time.
const MAX_ANSWERING: usize = 256;

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Peer {
    /// What it is called where people look.
    pub name: Arc<str>,
    /// Drawn when it started: what tells it from others of its name, and from itself before.
    pub life: u64,
}

impl Peer {
    pub(crate) fn new(life: u64, name: &str) -> Self {
        Self { name: name.into(), life }
    }
}

/// What a node does for others: given to [`Control::serve`](crate::Control::serve). The bytes are what the service makes of
/// them; they come from a node that may be of another version.
pub trait Service: Send + Sync {
    /// The answer to a question; `None` for one that it does not know, or has no answer to. Questions are answered beside
    /// each other.
    fn answer(&self, from: &Peer, question: Bytes) -> Answer<'static, Option<Vec<u8>>> {
        let _ = (from, question);
        Answer::now(None)
    }

    /// Another node tells something. In the order in which it tells. May not block.
    fn hear(&self, from: &Peer, notice: Bytes) {
        let _ = (from, notice);
    }

    /// Another node has come. May not block.
    fn came(&self, node: &Peer) {
        let _ = node;
    }

    /// This node is connected to NATS again: what it told meanwhile, and what others told it, is lost. May not block.
    fn reconnected(&self) {}

    /// Another node is there no longer: it said so, or was silent for three beats. May not block.
    fn left(&self, node: &Peer) {
        let _ = node;
    }
}

/// What one node answered.
pub(crate) struct Reply {
    pub(crate) life: u64,
    /// `None` if it cannot.
    pub(crate) body: Option<Bytes>,
}

pub(crate) struct Desk {
    services: RwLock<AHashMap<&'static str, Arc<dyn Service>>>,
    asked: Mutex<AHashMap<u64, mpsc::UnboundedSender<Reply>>>,
    last: AtomicU64,
    pub(crate) answering: Arc<Semaphore>,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            services: RwLock::default(),
            asked: Mutex::default(),
            last: AtomicU64::new(0),
            answering: Arc::new(Semaphore::new(MAX_ANSWERING)),
        }
    }
}

impl Desk {
    pub(crate) fn serve(&self, name: &'static str, service: Arc<dyn Service>) {
        self.services.write().insert(name, service);
    }

    pub(crate) fn service(&self, name: &[u8]) -> Option<Arc<dyn Service>> {
        let name = std::str::from_utf8(name).ok()?;
        self.services.read().get(name).cloned()
    }

    /// Tells all services of something.
    pub(crate) fn tell(&self, what: impl Fn(&dyn Service)) {
        let services: Vec<_> = self.services.read().values().cloned().collect();
        services.iter().for_each(|service| what(&**service));
    }

    /// A number for a question, and where its answers come; `None` where too many are on their way.
    pub(crate) fn open(self: &Arc<Self>) -> Option<Open> {
        let (replies, coming) = mpsc::unbounded_channel();
        let number = self.last.fetch_add(1, Relaxed) + 1;
        let mut asked = self.asked.lock();
        if asked.len() >= MAX_ASKED {
            return None;
        }
        asked.insert(number, replies);
        Some(Open { number, coming, desk: Arc::clone(self) })
    }

    /// An answer has come; nobody waits for one that is late.
    pub(crate) fn take(&self, number: u64, reply: Reply) {
        if let Some(waiting) = self.asked.lock().get(&number) {
            _ = waiting.send(reply);
        }
    }
}

/// A question whose answers are waited for.
pub(crate) struct Open {
    pub(crate) number: u64,
    pub(crate) coming: mpsc::UnboundedReceiver<Reply>,
    desk: Arc<Desk>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.desk.asked.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_finds_its_question_and_a_late_one_nobody() {
        let desk = Arc::<Desk>::default();
        let (mut one, mut two) = (desk.open().unwrap(), desk.open().unwrap());
        desk.take(two.number, Reply { life: 7, body: None });
        assert_eq!(two.coming.try_recv().unwrap().life, 7);
        assert!(one.coming.try_recv().is_err());
        let number = one.number;
        drop(one);
        desk.take(number, Reply { life: 7, body: None });
        assert_eq!(desk.asked.lock().len(), 1);
    }

    #[test]
    fn no_more_questions_are_on_their_way_than_there_is_room_for() {
        let desk = Arc::<Desk>::default();
        let mut open: Vec<_> = (0..MAX_ASKED).map(|_| desk.open().unwrap()).collect();
        assert!(desk.open().is_none());
        open.pop();
        assert!(desk.open().is_some());
    }
}

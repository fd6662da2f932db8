//! What nodes ask and tell each other beside messages: questions to one node or to all, with a deadline, and notices.
//!
//! ```text
//! fw.c.q           a question to all nodes
//! fw.c.q.<life>    a question to one
//! fw.c.a.<life>    answers for one
//! fw.c.n           a notice to all
//! fw.c.n.<life>    a notice to one
//! ```
//!
//! What is asked and told is the business of services, which have names; this room brings their bytes.

pub(crate) mod frame;
mod run;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::desk::{Peer, Service};
use crate::node::Node;
use crate::peers::Heard;
use crate::stats::one_more;

use self::frame::Kind;

pub(crate) use self::run::run;

/// How long answers are waited for.
pub(crate) const DEADLINE: Duration = Duration::from_millis(300);

/// Bytes of one answer; a service that makes a larger one has not answered.
const MAX_ANSWER_BYTES: usize = 512 * 1024;

/// Bytes of what is told at a time, where there is much to tell.
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// Bytes of all answers to one question; who answers then has not answered.
const MAX_ANSWERS_BYTES: usize = 32 * 1024 * 1024;

/// A handle to ask other nodes, and tell them: [`Cluster::control`](crate::Cluster::control).
#[derive(Clone)]
pub struct Control {
    node: Arc<Node>,
}

/// What other nodes answered.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Answers {
    /// By whom, in the order in which they came.
    pub answers: Vec<(Peer, Bytes)>,
    /// Those that did not answer in time, or could not.
    pub silent: Vec<Peer>,
    /// Whether this node hears the others at all. Where it does not, it may not even know who is silent.
    pub is_connected: bool,
}

impl Answers {
    /// Whether every node has answered.
    pub fn is_whole(&self) -> bool {
        self.is_connected && self.silent.is_empty()
    }
}

/// A question or a notice has more bytes than the NATS server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has {bytes} bytes, {max} go to another node (max_payload of the NATS server)")]
#[non_exhaustive]
pub struct TooLarge {
    /// Its bytes.
    pub bytes: usize,
    /// The most there may be.
    pub max: usize,
}

impl Control {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    /// The most bytes of an answer.
    pub const MAX_ANSWER_BYTES: usize = MAX_ANSWER_BYTES;

    /// Has a service answer what other nodes ask under this name, of 32 bytes at most. One of the same name before is
    /// forgotten.
    pub fn serve(&self, name: &'static str, service: Arc<dyn Service>) {
        self.node.desk.serve(name, service);
    }

    /// What this node is called.
    pub fn name(&self) -> &str {
        &self.node.settings.node
    }

    /// This node's own life: what other nodes have it by.
    pub fn life(&self) -> u64 {
        self.node.life
    }

    /// The other nodes that were heard of lately.
    pub fn peers(&self) -> Vec<Peer> {
        self.node.peers.lock().all()
    }

    /// The other nodes with when they were heard last; those that are gone for an hour.
    pub fn heard(&self) -> Vec<Heard> {
        self.node.peers.lock().heard(std::time::Instant::now())
    }

    /// Whether NATS answers.
    pub fn is_connected(&self) -> bool {
        self.node.is_connected()
    }

    /// Asks all other nodes, and waits until each of them has answered, `is_enough` says of an answer that it is enough, or
    /// 300 ms are over.
    ///
    /// # Errors
    /// [`TooLarge`]: nobody was asked.
    ///
    /// # Cancel safety
    /// Cancelled, the question may have been asked.
    pub async fn ask_all(
        &self,
        service: &str,
        question: &[u8],
        mut is_enough: impl FnMut(&Peer, &Bytes) -> bool + Send,
    ) -> Result<Answers, TooLarge> {
        self.ask(service, question, self.peers(), self.node.subjects.questions(), &mut is_enough).await
    }

    /// Asks one node. `None` if it has not answered within 300 ms, or cannot.
    ///
    /// # Errors
    /// [`TooLarge`]: it was not asked.
    ///
    /// # Cancel safety
    /// As [`ask_all`](Self::ask_all).
    pub async fn ask_one(
        &self,
        service: &str,
        peer: &Peer,
        question: &[u8],
    ) -> Result<Option<Bytes>, TooLarge> {
        let subject = self.node.subjects.questions_to(peer.life);
        let answers = self.ask(service, question, vec![peer.clone()], subject, &mut |_, _| true).await?;
        Ok(answers.answers.into_iter().next().map(|(_, answer)| answer))
    }

    async fn ask(
        &self,
        service: &str,
        question: &[u8],
        mut waited_for: Vec<Peer>,
        subject: String,
        is_enough: &mut (dyn FnMut(&Peer, &Bytes) -> bool + Send),
    ) -> Result<Answers, TooLarge> {
        self.check_size(question)?;
        let node = &self.node;
        let mut answers = Answers { is_connected: node.is_connected(), ..Answers::default() };
        let open = node.desk.open();
        let (false, true, Some(mut open)) = (waited_for.is_empty(), node.is_linked(), open) else {
            answers.silent = waited_for;
            return Ok(answers);
        };
        let deadline = Instant::now() + DEADLINE;
        let frame = frame::write(Kind::Question, node.life, open.number, service, question);
        let mut bytes = 0_usize;
        let asking = async {
            if node.client.publish(subject, frame).await.is_err() {
                return;
            }
            while !waited_for.is_empty() {
                let Some(reply) = open.coming.recv().await else { return };
                let Some(at) = waited_for.iter().position(|peer| peer.life == reply.life) else { continue };
                let peer = waited_for.swap_remove(at);
                let fits = |body: &Bytes| bytes.saturating_add(body.len()) <= MAX_ANSWERS_BYTES;
                match reply.body.filter(fits) {
                    Some(body) => {
                        bytes += body.len();
                        let is_all = is_enough(&peer, &body);
                        answers.answers.push((peer, body));
                        if is_all {
                            // Whoever is not waited for is not silent.
                            waited_for.clear();
                            return;
                        }
                    }
                    None => answers.silent.push(peer),
                }
            }
        };
        _ = timeout_at(deadline, asking).await;
        for _ in &waited_for {
            one_more(&node.counters.silent);
        }
        answers.silent.append(&mut waited_for);
        Ok(answers)
    }

    /// Tells all other nodes something, as far as they are there. What one node tells comes in its order.
    ///
    /// # Errors
    /// [`TooLarge`]: nobody is told.
    ///
    /// # Cancel safety
    /// Cancelled, it may have been told.
    pub async fn tell(&self, service: &str, notice: &[u8]) -> Result<(), TooLarge> {
        self.tell_at(self.node.subjects.notices(), service, notice).await
    }

    /// Tells one node something. Between this and [`tell`](Self::tell) there is no order.
    ///
    /// # Errors
    /// [`TooLarge`]: it is not told.
    ///
    /// # Cancel safety
    /// Cancelled, it may have been told.
    pub async fn tell_one(&self, service: &str, peer: &Peer, notice: &[u8]) -> Result<(), TooLarge> {
        self.tell_at(self.node.subjects.notices_to(peer.life), service, notice).await
    }

    /// Tells all other nodes, or one of them, what `write` makes of each of these, in their order, and as many at a time as go into
    /// 64 KiB. One that is larger is told alone; larger than the NATS server takes it is not told.
    ///
    /// # Cancel safety
    /// Cancelled, some of them may have been told.
    pub async fn tell_each<T>(
        &self,
        service: &str,
        peer: Option<&Peer>,
        all: impl IntoIterator<Item = T>,
        write: impl Fn(T, &mut Vec<u8>),
    ) {
        let (mut batch, mut one) = (Vec::new(), Vec::new());
        let mut all = all.into_iter().peekable();
        while let Some(next) = all.next() {
            write(next, &mut one);
            let is_full = !batch.is_empty() && batch.len() + one.len() > MAX_BATCH_BYTES;
            if is_full {
                self.tell_batch(service, peer, &batch).await;
                batch.clear();
            }
            batch.append(&mut one);
            if all.peek().is_none() && !batch.is_empty() {
                self.tell_batch(service, peer, &batch).await;
            }
        }
    }

    async fn tell_batch(&self, service: &str, peer: Option<&Peer>, batch: &[u8]) {
        _ = match peer {
            Some(peer) => self.tell_one(service, peer, batch).await,
            None => self.tell(service, batch).await,
        };
    }

    async fn tell_at(&self, subject: String, service: &str, notice: &[u8]) -> Result<(), TooLarge> {
        self.check_size(notice)?;
        let node = &self.node;
        if node.is_linked() {
            let frame = frame::write(Kind::Notice, node.life, 0, service, notice);
            _ = timeout_at(Instant::now() + DEADLINE, node.client.publish(subject, frame)).await;
        }
        Ok(())
    }

    fn check_size(&self, body: &[u8]) -> Result<(), TooLarge> {
        let (bytes, max) = (body.len(), self.max_bytes());
        if bytes > max { Err(TooLarge { bytes, max }) } else { Ok(()) }
    }

    /// The most bytes of a question or a notice: what the NATS server takes, without what goes around it.
    pub fn max_bytes(&self) -> usize {
        self.node.client.server_info().max_payload.saturating_sub(frame::MAX_OVERHEAD)
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("node", &self.node.settings.node).finish_non_exhaustive()
    }
}

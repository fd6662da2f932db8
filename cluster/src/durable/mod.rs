//! Durable channels: what is published there lies in a stream of JetStream, and comes from there to every node.
//!
//! ```text
//! publisher ─▶ queue ─▶ send ─▶ stream PREFIX_H0 ─▶ republished ─▶ receive ─▶ broker of each node, in one order
//!   ▲                    │          │   │ direct get: what is missing, the past (fetch, pages)
//!   └── once it is stored and came  │   └▶ PREFIX_RET0, the newest retained one of each channel (retained)
//! ```
//!
//! Nothing is delivered before it is stored, also where it was published. Every node takes all of it, so that each has the
//! whole log: positions, history and what is retained are the same on all.

mod fetch;
pub(crate) mod frame;
mod guard;
mod numbers;
mod pages;
mod queue;
mod receive;
mod records;
mod retained;
pub(crate) mod row;
mod send;
mod session_life;
mod sessions;
mod stream;
mod tend;
pub(crate) mod work;

use std::sync::Arc;
use std::time::Duration;

use broker_core::{
    Answer, Channel, Claim, Claimed, Done, Filter, Ingest, LogPage, MessageId, Op, Read, Reject, Rejected,
    Terms, Unavailable, Work, WorkError,
};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use self::queue::Queue;
use self::receive::Receiver;
use self::retained::Loaded;
pub use self::sessions::SESSIONS;
use self::sessions::left::{self, Left};
use self::sessions::{Sessions, When};
use self::stream::{Of, Reach, SOON, Streams};
use self::tend::Health;
use self::work::{Said, Works};
use crate::error::JoinError;
use crate::groups::GroupId;
use crate::node::Node;
use crate::stats::Standing;

/// Pages of the stream that are read at once; whoever comes then waits.
const MAX_READS: usize = 16;

/// How often what is retained is read anew when that did not work, and how soon.
const LOADS: u32 = 20;

const LOAD_PAUSE: Duration = Duration::from_millis(250);

/// The durable channels of a node.
pub(crate) struct Durable {
    streams: Arc<Streams>,
    queue: Arc<Queue>,
    sessions: Arc<Sessions>,
    left: Arc<Left>,
    works: Arc<Works>,
    reads: Arc<Semaphore>,
    reach: Reach,
    health: Arc<Health>,
    start: Mutex<Option<Start>>,
}

/// What is needed once.
struct Start {
    loaded: Loaded,
    woken: mpsc::UnboundedReceiver<Channel>,
    said: Said,
}

impl Durable {
    /// Finds the streams or makes them, and reads what is retained.
    ///
    /// # Errors
    /// See [`JoinError`].
    pub(crate) async fn open(node: &Arc<Node>) -> Result<Self, JoinError> {
        let (streams, reach) = Streams::open(Arc::clone(node)).await?;
        let mut tries = 0;
        let loaded = loop {
            tries += 1;
            match streams.load_retained(reach).await {
                Ok(loaded) => break loaded,
                Err(_) if tries < LOADS => sleep(LOAD_PAUSE).await,
                Err(error) => return Err(JoinError::NoStream(error.to_string())),
            }
        };
        let (queue, woken) = Queue::new(Arc::clone(node));
        let (streams, queue) = (Arc::new(streams), Arc::new(queue));
        let sessions = Sessions::new(Arc::clone(&streams), Arc::clone(&queue));
        let (works, said) = Works::new(Arc::clone(&streams));
        Ok(Self {
            streams,
            queue,
            sessions: Arc::new(sessions),
            left: Arc::default(),
            works: Arc::new(works),
            reads: Arc::new(Semaphore::new(MAX_READS)),
            reach,
            health: Arc::new(Health::of_open_streams()),
            start: Mutex::new(Some(Start { loaded, woken, said })),
        })
    }

    /// Where its log stood when it was opened.
    pub(crate) fn head(&self) -> MessageId {
        self.reach.head()
    }

    pub(crate) fn start(&self, ingest: Arc<dyn Ingest>) -> Vec<AbortHandle> {
        let Some(Start { loaded: Loaded { retained, over }, woken, said }) = self.start.lock().take() else {
            return Vec::new();
        };
        ingest.restore(retained);
        let (streams, queue) = (Arc::clone(&self.streams), Arc::clone(&self.queue));
        let receiver = Receiver::new(Arc::clone(&streams), Arc::clone(&queue), ingest, self.reach);
        let sweeping = Arc::clone(&streams);
        let tending = tend::run(Arc::clone(&self.sessions), Arc::clone(&self.health));
        self.sessions.tell_others();
        let life = &self.streams.session_life;
        let anew = (!life.is_open()).then(|| {
            let writing = Arc::clone(&self.sessions).write_anew(life.epoch(), When::Starting);
            tokio::spawn(writing).abort_handle()
        });
        let tasks = [
            tokio::spawn(tending),
            tokio::spawn(receiver.run()),
            tokio::spawn(send::run(streams, queue, woken)),
            tokio::spawn(async move { sweeping.sweep(over).await }),
            tokio::spawn(left::run(Arc::clone(&self.streams), Arc::clone(&self.left))),
            tokio::spawn(work::run(Arc::clone(&self.works), said)),
        ];
        tasks.iter().map(tokio::task::JoinHandle::abort_handle).chain(anew).collect()
    }

    pub(crate) fn submit(&self, op: Op) -> Result<(), Rejected> {
        match op {
            Op::Session { .. } | Op::Free { .. } if !self.streams.node.is_connected() => {
                Err(Rejected::new(Reject::Unavailable(SOON), op))
            }
            Op::Session { session, fence, record, done } => {
                self.sessions.record(session, fence, record, done);
                Ok(())
            }
            Op::Free { taken, done } => {
                self.sessions.free(*taken, done);
                Ok(())
            }
            Op::Publish { publish, key: None, taken: Some(taken), done } => {
                self.sessions.take(*taken, publish, done)
            }
            op => self.queue.submit(op),
        }
    }

    /// Gives a session to whoever claims it.
    pub(crate) fn claim(&self, name: &str, claim: Claim) -> Answer<'static, Result<Claimed, Unavailable>> {
        let is_connected = self.streams.node.is_connected();
        if is_connected && !self.gives_sessions() && claim == Claim::End {
            self.sessions.end_later(name);
        }
        if !is_connected || !self.gives_sessions() {
            // One that lasts as long as its connection needs nobody else.
            return Answer::now(if claim == Claim::End { Ok(Claimed::default()) } else { Err(SOON) });
        }
        Answer::later(Arc::clone(&self.sessions).claim(name.into(), claim))
    }

    /// Opens the work of a group.
    pub(crate) fn work(
        &self,
        group: &str,
        filter: &Filter,
        terms: Terms,
    ) -> Answer<'static, Result<Arc<dyn Work>, WorkError>> {
        Answer::later(Arc::clone(&self.works).open(GroupId::new(group, filter), terms))
    }

    /// Groups whose work is open here.
    pub(crate) fn open_groups(&self) -> usize {
        self.works.open_groups()
    }

    /// What groups have not finished here is for other nodes: for its end.
    pub(crate) async fn give_back(&self) {
        self.works.close().await;
    }

    /// What sessions of nodes that are gone have left to be done, found since this was asked last.
    pub(crate) fn left(&self) -> Vec<(Box<str>, u64)> {
        self.left.take()
    }

    /// Tells once all that was submitted is answered.
    pub(crate) fn barrier(&self, done: Done<()>) {
        let (kept, is_kept) = Done::new();
        self.queue.barrier(kept);
        let sessions = Arc::clone(&self.sessions);
        tokio::spawn(async move {
            _ = is_kept.await;
            sessions.idle().await;
            done.complete(());
        });
    }

    pub(crate) fn read(&self, read: Read) -> Answer<'static, Result<LogPage, Unavailable>> {
        let (streams, reads) = (Arc::clone(&self.streams), Arc::clone(&self.reads));
        Answer::later(async move {
            // It is never closed.
            let _turn = reads.acquire().await;
            streams.page(&read).await
        })
    }

    /// What is not answered yet, and its bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        self.queue.waiting()
    }

    /// Whether the stream is not what it was when this node began.
    pub(crate) fn is_lost(&self) -> bool {
        self.queue.is_lost()
    }

    /// Whether sessions are given to clients: not where their stream is gone, and what nodes have is not in another one yet.
    pub(crate) fn gives_sessions(&self) -> bool {
        self.streams.session_life.is_open()
    }

    /// How the stream of sessions is.
    pub(crate) fn standing_of_sessions(&self) -> Standing {
        let lost = self.health.has_lost_sessions();
        if lost { Standing::Lost } else { self.health.of(Of::Sessions) }
    }

    /// How its stream is, and that of retained messages.
    pub(crate) fn standing(&self) -> (Standing, Standing) {
        let kept = if self.is_lost() { Standing::Lost } else { self.health.of(Of::Kept) };
        let lost = self.health.has_lost_retained();
        (kept, if lost { Standing::Lost } else { self.health.of(Of::Retained) })
    }
}

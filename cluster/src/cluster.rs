//! A node of a cluster: the engine of its broker.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use broker_core::{
    Answer, Channel, Claim, Claimed, Done, Engine, Filter, Ingest, LogPage, Message, MessageId, Op, Read,
    Reject, Rejected, Terms, Unavailable, Work, WorkError,
};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::ask;
use crate::control::{self, Control};
use crate::durable::Durable;
use crate::error::JoinError;
use crate::frame;
use crate::groups::GroupId;
use crate::link::{self, Events};
use crate::node::{Inboxes, Node, Outgoing};
use crate::receive::Receiver;
use crate::send;
use crate::settings::Settings;
use crate::share;
use crate::stats::{Stats, one_more};
use crate::watch;

/// The broker's own channels, which say what this node does.
const OWN: &str = "$SYS";

/// How long the last words may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// A node of a cluster: an [`Engine`] for [`Broker::with_engine`](broker_core::Broker::with_engine) that brings what is
/// published in memory to other nodes, and keeps [what is to last](Settings::namespaces) in JetStream.
pub struct Cluster {
    node: Arc<Node>,
    durable: Option<Durable>,
    inboxes: Mutex<Option<Inboxes>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Cluster {
    /// Connects to NATS. Without an answer of any server in 5 s this node begins alone, and connects as soon as one
    /// answers; one with durable namespaces waits 15 s more and does not begin without their streams.
    ///
    /// # Errors
    /// See [`JoinError`].
    pub async fn join(settings: Settings) -> Result<Self, JoinError> {
        let events = Arc::<Events>::default();
        let client = link::connect(&settings, &events).await?;
        let (node, inboxes) = Node::new(settings, client, events, life());
        if node.is_linked() {
            // So that who is subscribed first knows that there is somebody to wait for.
            node.round_trip().await;
        }
        let node = Arc::new(node);
        let durable = if node.settings.keeps_any() { Some(Durable::open(&node).await?) } else { None };
        Ok(Self { node, durable, inboxes: Mutex::new(Some(inboxes)), tasks: Mutex::default() })
    }

    /// Whether NATS answers: what is published here goes to the other nodes. Not any more once the stream of durable channels
    /// is lost.
    pub fn is_connected(&self) -> bool {
        self.node.is_connected() && !self.durable.as_ref().is_some_and(Durable::is_lost)
    }

    /// Whether clients should come here: it is connected, and gives them their sessions, which it does not while the stream that
    /// those are recorded in is gone, or is made anew.
    pub fn is_ready(&self) -> bool {
        self.is_connected() && self.durable.as_ref().is_none_or(Durable::gives_sessions)
    }

    /// To ask other nodes, and to answer them.
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.node))
    }

    /// What this node counts.
    pub fn stats(&self) -> Stats {
        let (messages, bytes) = self.node.waiting();
        let (kept, kept_bytes) = self.durable.as_ref().map_or((0, 0), Durable::waiting);
        let (filters, takes_all) = {
            let interests = self.node.interests.lock();
            (interests.len() as u64, interests.takes_all())
        };
        Stats {
            linked: self.node.is_connected(),
            connected: self.is_connected(),
            streams: self.durable.as_ref().map(Durable::standing),
            sessions: self.durable.as_ref().map(Durable::standing_of_sessions),
            nodes: self.node.peers.lock().len() as u64 + 1,
            disconnects: self.node.events.disconnects.load(Relaxed),
            overruns: self.node.events.overruns.load(Relaxed),
            filters,
            takes_all,
            waiting: messages as u64,
            waiting_bytes: bytes as u64,
            kept_waiting: kept as u64,
            kept_waiting_bytes: kept_bytes as u64,
            groups: self.durable.as_ref().map_or(0, Durable::open_groups) as u64,
            ..self.node.counters.stats()
        }
    }

    /// Tells the other nodes that this one is gone: for its end, once the broker is drained. Takes a second at most.
    ///
    /// # Cancel safety
    /// Cancelled, the others find out by themselves, some seconds later.
    pub async fn leave(&self) {
        let node = &self.node;
        let tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.iter().for_each(AbortHandle::abort);
        if node.is_linked() {
            let words = async {
                if let Some(durable) = &self.durable {
                    durable.give_back().await;
                }
                _ = node.client.publish(node.subjects.hello(), frame::bye(node.life).into()).await;
                _ = node.client.flush().await;
            };
            _ = timeout(LEAVE_TIMEOUT, words).await;
        }
    }
}

impl Cluster {
    /// Whether all that a filter matches is this node's own, or comes to every node.
    fn comes_anyway(&self, filter: &Filter) -> bool {
        filter.namespace().is_some_and(|namespace| namespace == OWN || self.keeps(namespace))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.tasks.lock().iter().for_each(AbortHandle::abort);
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("settings", &self.node.settings).finish_non_exhaustive()
    }
}

/// The number of a life. Broker's logs are called by the time of their start, which is smaller.
fn life() -> u64 {
    const NO_TIME: u64 = 1 << 63;
    getrandom::u64().unwrap_or_else(|_| ahash::RandomState::new().hash_one(Instant::now())) | NO_TIME
}

impl Engine for Cluster {
    fn keeps(&self, namespace: &str) -> bool {
        self.durable.is_some() && self.node.settings.keeps(namespace)
    }

    fn keeps_notes(&self) -> bool {
        false
    }

    fn head(&self) -> MessageId {
        self.durable.as_ref().map_or(MessageId::new(self.node.life, 0), Durable::head)
    }

    fn start(&self, ingest: Arc<dyn Ingest>) {
        let Some(Inboxes { asks, outgoing }) = self.inboxes.lock().take() else { return };
        if let Some(durable) = &self.durable {
            self.tasks.lock().extend(durable.start(Arc::clone(&ingest)));
        }
        let (joins, joining) = mpsc::unbounded_channel();
        let node = || Arc::clone(&self.node);
        let sharing = share::run(node(), Arc::clone(&ingest));
        let receiver = Receiver::new(node(), ingest);
        let subscribed = node();
        let receiving = async move {
            // Waits while there is no connection. The subject is ours, so that nothing is wrong with it.
            let for_all = subscribed.client.subscribe(subscribed.subjects.for_all()).await;
            if let Ok(for_all) = for_all {
                receiver.run(joining, for_all).await;
            }
        };
        let greeting = node();
        let greeting = async move {
            if let Ok(heard) = greeting.client.subscribe(greeting.subjects.hello()).await {
                watch::greet(greeting, heard).await;
            }
        };
        let tasks = [
            tokio::spawn(send::run(node(), outgoing)),
            tokio::spawn(ask::run(node(), asks, joins)),
            tokio::spawn(receiving),
            tokio::spawn(control::run(node())),
            tokio::spawn(sharing),
            tokio::spawn(greeting),
            tokio::spawn(watch::look(node())),
        ];
        self.tasks.lock().extend(tasks.iter().map(tokio::task::JoinHandle::abort_handle));
    }

    /// Without durable channels nothing is kept of sessions, so nothing has to be done for one to be as safe as it can be.
    fn submit(&self, op: Op) -> Result<(), Rejected> {
        match (op, &self.durable) {
            (Op::Free { done, .. } | Op::Session { done, .. }, None) => done.complete(Ok(())),
            (Op::Barrier(done), None) => self.node.send(Outgoing::Barrier(done)),
            (Op::Barrier(done), Some(durable)) => {
                let (kept, is_kept) = Done::new();
                durable.barrier(kept);
                let node = Arc::clone(&self.node);
                tokio::spawn(async move {
                    _ = is_kept.await;
                    node.send(Outgoing::Barrier(done));
                });
            }
            (op, Some(durable)) => return durable.submit(op),
            (other, None) => {
                let never = Reject::Unavailable(Unavailable::new(Duration::from_secs(60)));
                return Err(Rejected::new(never, other));
            }
        }
        Ok(())
    }

    fn read(&self, read: Read) -> Answer<'static, Result<LogPage, Unavailable>> {
        match &self.durable {
            Some(durable) => durable.read(read),
            None => Answer::now(Err(Unavailable::new(Duration::from_secs(60)))),
        }
    }

    fn claim(&self, session: &str, claim: Claim) -> Answer<'static, Result<Claimed, Unavailable>> {
        match &self.durable {
            Some(durable) => durable.claim(session, claim),
            None => Answer::now(Ok(Claimed::default())),
        }
    }

    fn work(
        &self,
        group: &str,
        filter: &Filter,
        terms: Terms,
    ) -> Answer<'static, Result<Arc<dyn Work>, WorkError>> {
        match &self.durable {
            Some(durable) => durable.work(group, filter, terms),
            None => Answer::now(Err(Unavailable::new(Duration::from_secs(60)).into())),
        }
    }

    fn left_wills(&self) -> Vec<(Box<str>, u64)> {
        self.durable.as_ref().map_or_else(Vec::new, Durable::left)
    }

    fn relays(&self) -> bool {
        true
    }

    fn relay(&self, message: &Arc<Message>) {
        if message.channel().namespace() != OWN {
            self.node.send(Outgoing::Message(Arc::clone(message)));
        }
    }

    fn relay_cleared(&self, channel: &Channel) {
        self.node.send(Outgoing::Forget(channel.clone()));
    }

    fn interest(&self, filter: &Filter, wanted: bool) {
        if self.comes_anyway(filter) {
            return;
        }
        let mut interests = self.node.interests.lock();
        if !wanted {
            interests.remove(filter, Instant::now());
        } else if let Some(asked) = interests.add(filter) {
            // The task is gone only when the node is.
            _ = self.node.asks.send(asked);
        }
    }

    fn group_interest(&self, group: &str, filter: &Filter, wanted: bool) {
        if filter.namespace() == Some(OWN) {
            return;
        }
        let id = GroupId::new(group, filter);
        let mut groups = self.node.groups.write();
        let is_news = if wanted { groups.join(&id) } else { groups.leave(&id) };
        drop(groups);
        if is_news {
            self.node.changed_groups.notify_one();
        }
    }

    fn settled(&self, filter: &Filter) -> Answer<'static, Result<(), Unavailable>> {
        if self.comes_anyway(filter) || self.node.interests.lock().is_settled(filter) {
            return Answer::now(Ok(()));
        }
        if !self.is_connected() {
            one_more(&self.node.counters.unsettled);
            return Answer::now(Ok(()));
        }
        let (node, filter) = (Arc::clone(&self.node), filter.clone());
        Answer::later(async move {
            if timeout(node.settings.settle_timeout, node.until_settled(&filter)).await.is_err() {
                one_more(&node.counters.unsettled);
                node.tell("a subscriber was answered before NATS had what it is subscribed to");
            }
            Ok(())
        })
    }
}

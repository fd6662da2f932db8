//! The task that shares groups with other nodes: of a message one member in the cluster gets it.
//!
//! A node that has no member of a group sends it its messages on a subject of its own, `fw.g.<name>.<filter>`, where nodes
//! that have members stand in a queue of NATS: one of them gets each, and one that is gone is not asked any more. So that the
//! others know of a group at all, nodes tell which ones they have.

use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use async_nats::Subscriber;
use broker_core::{Ingest, PublishError, Refused};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::control::Control;
use crate::desk::{Peer, Service};
use crate::frame::{self, Content, Unreadable};
use crate::groups::{GroupId, Word};
use crate::node::Node;
use crate::stats::one_more;

/// What nodes tell each other under this name.
const SERVICE: &str = "groups";

/// All that stand in one queue.
const QUEUE: &str = "g";

/// How often all groups are told again, in case that a word was lost.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How long the broker may be busy before what comes for a group is lost.
const MAX_BUSY: Duration = Duration::from_millis(100);

const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// Hears of other nodes' groups.
struct Heard(Arc<Node>);

impl Service for Heard {
    fn hear(&self, from: &Peer, notice: Bytes) {
        let mut groups = self.0.groups.write();
        let mut rest = &notice[..];
        while let Some((word, behind)) = Word::read(rest) {
            groups.hear(from.life, word);
            rest = behind;
        }
        if !rest.is_empty() {
            one_more(&self.0.counters.unreadable);
        }
    }

    fn came(&self, _: &Peer) {
        self.reconnected();
    }

    fn reconnected(&self) {
        self.0.tell_groups.notify_one();
    }

    fn left(&self, node: &Peer) {
        self.0.groups.write().forget(node.life);
    }
}

/// The queues that this node stands in for its groups.
struct Queues {
    node: Arc<Node>,
    ingest: Arc<dyn Ingest>,
    control: Control,
    standing: AHashMap<GroupId, AbortHandle>,
    tasks: JoinSet<()>,
}

pub(crate) async fn run(node: Arc<Node>, ingest: Arc<dyn Ingest>) {
    let control = Control::new(Arc::clone(&node));
    control.serve(SERVICE, Arc::new(Heard(Arc::clone(&node))));
    let mut queues = Queues { node, ingest, control, standing: AHashMap::new(), tasks: JoinSet::new() };
    let mut tells = interval(TELL_EVERY);
    tells.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = queues.node.changed_groups.notified() => queues.follow().await,
            _ = queues.tasks.join_next(), if !queues.tasks.is_empty() => {}
            _ = tells.tick() => tell_all(&queues.node, &queues.control).await,
            () = queues.node.tell_groups.notified() => tell_all(&queues.node, &queues.control).await,
        }
    }
}

impl Queues {
    /// Groups have got their first member here, or have lost their last.
    async fn follow(&mut self) {
        let changed = self.node.groups.write().take_changed();
        let changed = changed.unwrap_or_else(|| {
            let local = self.node.groups.read().local();
            local.into_iter().chain(self.standing.keys().cloned()).collect()
        });
        for id in changed {
            self.follow_one(id).await;
        }
    }

    async fn follow_one(&mut self, id: GroupId) {
        // Whatever happened since: what is so now is what counts.
        let has_members = self.node.groups.read().has_local(&id);
        if !has_members {
            if let Some(queue) = self.standing.remove(&id) {
                queue.abort();
                tell(&self.control, Word::HasNot(id)).await;
            }
        } else if !self.standing.contains_key(&id) {
            let Some(queue) = stand_in_queue(&self.node, &id).await else { return };
            let (node, ingest) = (Arc::clone(&self.node), Arc::clone(&self.ingest));
            let serving = self.tasks.spawn(serve(node, ingest, id.clone(), queue));
            self.standing.insert(id.clone(), serving);
            tell(&self.control, Word::Has(id)).await;
        }
    }
}

async fn stand_in_queue(node: &Node, id: &GroupId) -> Option<Subscriber> {
    let Some(subject) = node.subjects.of_group(id.name(), id.filter()) else {
        node.tell("a group's name and filter are too long for NATS: its members get nothing of other nodes");
        return None;
    };
    // Waits while there is no connection. The subject is ours, so that nothing is wrong with it.
    node.client.queue_subscribe(subject, QUEUE.to_owned()).await.ok()
}

async fn serve(node: Arc<Node>, ingest: Arc<dyn Ingest>, id: GroupId, mut queue: Subscriber) {
    while let Some(message) = queue.next().await {
        take(&node, &*ingest, &id, &message.payload).await;
    }
}

async fn take(node: &Node, ingest: &dyn Ingest, id: &GroupId, frame: &[u8]) {
    let counters = &node.counters;
    let (publish, time_ms) = match frame::read(frame) {
        Ok((_, Content::Message(publish, time_ms))) => (publish, time_ms),
        Ok(_) => return,
        Err(Unreadable) => return one_more(&counters.unreadable),
    };
    let (mut next, began) = (*publish, Instant::now());
    loop {
        match ingest.relayed_to_group(next, time_ms, id.name(), id.filter()) {
            Ok(true) => return one_more(&counters.shared),
            // The last member has just left.
            Ok(false) => return one_more(&counters.refused),
            Err(Refused { error: PublishError::Busy { .. }, publish: Some(again), .. })
                if began.elapsed() < MAX_BUSY =>
            {
                next = *again;
                sleep(BUSY_PAUSE).await;
            }
            Err(_) => {
                one_more(&counters.refused);
                return node.tell("a message of another node does not fit the bounds of this one");
            }
        }
    }
}

async fn tell_all(node: &Node, control: &Control) {
    let groups = node.groups.read().local();
    let words = std::iter::once(Word::Begin).chain(groups.into_iter().map(Word::Has)).chain([Word::End]);
    control.tell_each(SERVICE, None, words, |word, out| word.write(out)).await;
}

/// A group of which NATS takes no word has no subject either.
async fn tell(control: &Control, word: Word) {
    control.tell_each(SERVICE, None, [word], |word, out| word.write(out)).await;
}

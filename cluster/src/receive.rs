//! The task that reads what other nodes publish and has it published here.
//!
//! NATS brings a message once for each filter that matches it, in queues of their own. Of copies the first one counts, so
//! the order of a channel is kept if every queue has all of its messages from one of them on. Two rules see to that. *A new
//! queue* is read once all that lay in the others when it was there is read: what it misses lies there. *What all nodes
//! take* is read behind all that lay in the other queues when it was found: what came before it on its channel lies there,
//! if anybody wants that here.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use async_nats::{Message, Subscriber};
use broker_core::{Ingest, Publish, PublishError, Refused};
use futures_util::stream::SelectAll;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::task::{unconstrained, yield_now};
use tokio::time::sleep;

use crate::ask::{Feed, Joining};
use crate::frame::{self, Content, Origin, Unreadable};
use crate::node::Node;
use crate::repeats::Repeats;
use crate::stats::one_more;

/// Channels, for each node that publishes, of which it is known what has come.
const REMEMBERED_CHANNELS: usize = 65_536;

/// Messages after which others have a turn.
const TURN: usize = 64;

/// Messages of feeds after which one that all nodes take is read in any case.
const PATIENCE: usize = 1_024;

/// How long the broker may be busy before what comes is lost; everything from other nodes waits meanwhile.
const MAX_BUSY: Duration = Duration::from_millis(100);

const BUSY_PAUSE: Duration = Duration::from_millis(5);

pub(crate) struct Receiver {
    node: Arc<Node>,
    ingest: Arc<dyn Ingest>,
    feeds: SelectAll<Feed>,
    repeats: Repeats,
    /// The broker was busy for as long as it is waited for, and has not taken anything since.
    is_overrun: bool,
}

impl Receiver {
    pub(crate) fn new(node: Arc<Node>, ingest: Arc<dyn Ingest>) -> Self {
        let repeats = Repeats::new(REMEMBERED_CHANNELS);
        Self { node, ingest, feeds: SelectAll::new(), repeats, is_overrun: false }
    }

    pub(crate) async fn run(mut self, mut joins: mpsc::UnboundedReceiver<Joining>, mut for_all: Subscriber) {
        let mut passed = 0;
        loop {
            if passed >= PATIENCE {
                passed = 0;
                if let Some(Some(message)) = for_all.next().now_or_never() {
                    self.take_behind_others(message).await;
                }
                yield_now().await;
            }
            tokio::select! {
                biased;
                joining = joins.recv() => {
                    let Some(joining) = joining else { return };
                    self.join(joining).await;
                }
                Some(message) = self.feeds.next(), if !self.feeds.is_empty() => {
                    passed += 1;
                    self.take(message).await;
                }
                message = for_all.next() => {
                    let Some(message) = message else { return };
                    passed = 0;
                    self.take_behind_others(message).await;
                }
            }
        }
    }

    async fn join(&mut self, Joining { feeds, asked }: Joining) {
        self.catch_up().await;
        self.feeds.extend(feeds);
        {
            let mut interests = self.node.interests.lock();
            for asked in &asked {
                interests.settle(asked);
            }
        }
        self.node.settled.notify_waiters();
    }

    async fn take_behind_others(&mut self, message: Message) {
        self.catch_up().await;
        self.take(message).await;
    }

    /// Reads all that lies in the feeds now.
    async fn catch_up(&mut self) {
        // A queue holds no more, so what is left after that came later.
        let most = self.feeds.len().saturating_mul(self.node.settings.max_incoming_messages);
        for number in 1..=most {
            // The runtime's budget would make a full queue look empty.
            let next = unconstrained(self.feeds.next()).now_or_never();
            let Some(Some(message)) = next else { return };
            self.take(message).await;
            if number % TURN == 0 {
                yield_now().await;
            }
        }
    }

    async fn take(&mut self, message: Message) {
        let counters = &self.node.counters;
        let (origin, content) = match frame::read(&message.payload) {
            Ok(read) => read,
            Err(Unreadable) => {
                one_more(&counters.unreadable);
                return self.node.tell("a message of another node cannot be read: is it of another version?");
            }
        };
        match content {
            Content::Message(publish, time_ms) => {
                if self.is_new(origin, publish.channel()) {
                    self.publish(*publish, time_ms).await;
                }
            }
            Content::Forget(channel) => {
                if self.is_new(origin, &channel) {
                    self.ingest.clear_retained(&channel);
                }
            }
            Content::Expired | Content::Hello(_) | Content::Bye => {}
        }
    }

    fn is_new(&mut self, origin: Origin, channel: &broker_core::Channel) -> bool {
        let is_new = origin.life != self.node.life && self.repeats.is_new(origin, channel);
        if !is_new {
            one_more(&self.node.counters.repeats);
        }
        is_new
    }

    async fn publish(&mut self, publish: Publish, time_ms: u64) {
        let counters = &self.node.counters;
        let bytes = publish.payload().len() as u64;
        let began = Instant::now();
        let mut next = publish;
        loop {
            match self.ingest.relayed(next, time_ms) {
                Ok(_) => {
                    self.is_overrun = false;
                    one_more(&counters.received);
                    counters.received_bytes.fetch_add(bytes, Relaxed);
                    return;
                }
                Err(Refused { error: PublishError::Busy { .. }, publish: Some(again), .. })
                    if !self.is_overrun && began.elapsed() < MAX_BUSY =>
                {
                    next = *again;
                    sleep(BUSY_PAUSE).await;
                }
                Err(Refused { error, .. }) => {
                    self.is_overrun = matches!(error, PublishError::Busy { .. });
                    one_more(&counters.refused);
                    return self.node.tell("a message of another node does not fit the bounds of this one");
                }
            }
        }
    }
}

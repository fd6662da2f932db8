//! The task that asks NATS for what is wanted here, and ends what nobody wants any more.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use async_nats::{Message, Subscriber};
use futures_util::Stream;
use futures_util::task::AtomicWaker;
use smallvec::SmallVec;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::interests::Asked;
use crate::node::Node;

/// How many filters are asked for before it is waited for all of them.
const MAX_BATCH: usize = 512;

const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How soon a question to NATS that had no answer is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// What NATS brings for one filter.
pub(crate) struct Feed {
    subscribers: SmallVec<[Subscriber; 2]>,
    end: Arc<End>,
}

/// How a feed is told that nobody wants it.
#[derive(Default)]
struct End {
    is_over: AtomicBool,
    waker: AtomicWaker,
}

impl End {
    fn set(&self) {
        self.is_over.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl Stream for Feed {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        self.end.waker.register(cx.waker());
        if self.end.is_over.load(Ordering::Acquire) {
            return Poll::Ready(None);
        }
        let mut is_open = false;
        for subscriber in &mut self.subscribers {
            match Pin::new(subscriber).poll_next(cx) {
                Poll::Ready(Some(message)) => return Poll::Ready(Some(message)),
                Poll::Ready(None) => {}
                Poll::Pending => is_open = true,
            }
        }
        if is_open { Poll::Pending } else { Poll::Ready(None) }
    }
}

/// Feeds that NATS fills from now on, and what they are for.
pub(crate) struct Joining {
    pub(crate) feeds: Vec<Feed>,
    pub(crate) asked: Vec<Asked>,
}

pub(crate) async fn run(
    node: Arc<Node>,
    mut asks: mpsc::UnboundedReceiver<Asked>,
    joins: mpsc::UnboundedSender<Joining>,
) {
    let mut ends: AHashMap<Asked, Arc<End>> = AHashMap::new();
    let mut sweeps = interval(SWEEP_EVERY);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            asked = asks.recv_many(&mut batch, MAX_BATCH) => {
                if asked == 0 {
                    return;
                }
                let mut feeds = Vec::new();
                for asked in &batch {
                    let Some(feed) = ask(&node, asked).await else { continue };
                    if let Some(before) = ends.insert(asked.clone(), Arc::clone(&feed.end)) {
                        before.set();
                    }
                    feeds.push(feed);
                }
                while !node.round_trip().await {
                    sleep(AGAIN).await;
                }
                if joins.send(Joining { feeds, asked: std::mem::take(&mut batch) }).is_err() {
                    return;
                }
            }
            _ = sweeps.tick() => {
                let over = node.interests.lock().sweep(Instant::now());
                for asked in over {
                    if let Some(end) = ends.remove(&asked) {
                        end.set();
                    }
                }
            }
        }
    }
}

/// Subscribes to what is asked for; `None` if all nodes get it anyway.
async fn ask(node: &Node, asked: &Asked) -> Option<Feed> {
    let subjects = match asked {
        Asked::Filter(filter) => node.subjects.of_filter(filter),
        Asked::Everything => {
            node.tell(
                "there are more filters than NATS is asked for one by one: this node takes all messages",
            );
            SmallVec::from_iter([node.subjects.everything()])
        }
    };
    let mut subscribers = SmallVec::new();
    for subject in subjects {
        // Waits while there is no connection. The subjects are ours, so that nothing is wrong with them.
        if let Ok(subscriber) = node.client.subscribe(subject).await {
            subscribers.push(subscriber);
        }
    }
    (!subscribers.is_empty()).then(|| Feed { subscribers, end: Arc::default() })
}

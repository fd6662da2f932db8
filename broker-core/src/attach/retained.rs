//! Brings a subscriber the retained messages of its new filters, as its outbox drains.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::clock::steady_ms;
use crate::filter::Filter;
use crate::key::SubscriberKey;
use crate::lane::Kind;
use crate::lane::{Command, Feed, Lane, Then};
use crate::message::Message;
use crate::outbox::Outbox;
use crate::shared::{Feeding, Shared};
use crate::store::retained::{Limits, PAGE_STEPS, Page, Scan};

/// Names looked at while the subscriber waits: most filters find nothing, and need no task to see that.
const FIRST_STEPS: usize = 64;

/// How long a session without room is left alone, at first and at most: most are only about to send their SUBACK.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(1);
const MAX_NO_ROOM_PAUSE: Duration = Duration::from_millis(256);

impl Shared {
    /// Parks the subscription, if it is to wait, enters it in the lists by `enter`, and sees to it that its retained
    /// messages come before what is parked. They are those of the logs' heads after `enter`: what was retained before was
    /// also delivered live to whoever was listed in time, and what is retained later only comes live.
    pub(crate) fn subscribe_retained(
        self: &Arc<Self>,
        key: SubscriberKey,
        outbox: &Arc<Outbox>,
        (filter, tag): (&Filter, u32),
        waits: bool,
        enter: impl FnOnce(),
    ) {
        let lane = self.lane(key);
        let feeds = self.feeds.0.lock();
        let known = feeds.get(&key).map(|feeding| Arc::clone(&feeding.scan));
        let is_known = known.is_some();
        let shared_scan = known.unwrap_or_default();
        // Taken before the other is given back: the task must not end with something new in here.
        let mut scan = shared_scan.lock();
        drop(feeds);
        if waits && !scan.holds(tag) {
            lane.push(Command::Park { key, tag });
        }
        enter();
        let head = self.lock_logs().2;
        scan.want(filter, tag, Some(head), &self.retained);
        if is_known {
            return;
        }
        let first =
            scan.page(&self.retained, Limits { steps: FIRST_STEPS, ..limits_of(outbox) }, steady_ms());
        if first.messages.is_empty() && scan.is_over() {
            unpark(lane, key, &mut scan);
            return;
        }
        drop(scan);
        let mut feeds = self.feeds.0.lock();
        let run = run(Arc::clone(self), key, Arc::clone(outbox), Arc::clone(&shared_scan), first);
        let task = self.runtime.spawn(run).abort_handle();
        feeds.insert(key, Feeding { scan: shared_scan, task });
    }

    /// The subscription has ended: what it would still have been sent is not looked for.
    pub(crate) fn end_retained(&self, key: SubscriberKey, tag: u32) {
        let feeds = self.feeds.0.lock();
        if let Some(feeding) = feeds.get(&key)
            && feeding.scan.lock().forget(tag)
        {
            self.lane(key).send(Command::Feed(Box::new(page(key, Vec::new(), Then::Unpark(tag), None))));
        }
    }

    /// The subscriber is gone.
    pub(crate) fn end_all_retained(&self, key: SubscriberKey) {
        if let Some(feeding) = self.feeds.0.lock().remove(&key) {
            feeding.task.abort();
        }
    }
}

/// What a page may be, so that it fits when half of the outbox is free.
fn limits_of(outbox: &Outbox) -> Limits {
    Limits { messages: outbox.page_messages(), bytes: outbox.page_bytes(), steps: PAGE_STEPS }
}

async fn run(
    shared: Arc<Shared>,
    key: SubscriberKey,
    outbox: Arc<Outbox>,
    scan: Arc<Mutex<Scan>>,
    mut next: Page,
) {
    let lane = shared.lane(key);
    loop {
        if !next.messages.is_empty() {
            let _turn = outbox.turn(next.bytes).await;
            bring(&shared, lane, key, &outbox, next.messages).await;
        }
        // What is parked follows in one go: it needs room too, and nobody else sees room until it is there.
        let has_finished = scan.lock().has_finished();
        let turn = if has_finished { Some(outbox.turn(0).await) } else { None };
        let is_over = {
            let mut feeds = shared.feeds.0.lock();
            let mut scan = scan.lock();
            if outbox.closed().is_some() {
                scan.give_up();
            }
            unpark(lane, key, &mut scan);
            if scan.is_over() {
                feeds.remove(&key);
            }
            scan.is_over()
        };
        if turn.is_some() {
            let (done, fed) = oneshot::channel();
            lane.send(Command::Feed(Box::new(page(key, Vec::new(), Then::More, Some(done)))));
            _ = fed.await;
        }
        if is_over {
            return;
        }
        drop(turn);
        // Going through the store takes its turns like everything else.
        tokio::task::yield_now().await;
        next = scan.lock().page(&shared.retained, limits_of(&outbox), steady_ms());
    }
}

/// Sends one page, and waits until its session has room for another.
async fn bring(
    shared: &Shared,
    lane: &Lane,
    key: SubscriberKey,
    outbox: &Outbox,
    mut messages: Vec<(Arc<Message>, u32)>,
) {
    messages.sort_by_key(|(message, _)| (message.epoch, message.offset()));
    let (done, mut fed) = oneshot::channel();
    {
        // Under the logs' locks nothing is published between the look and the push: a message that is replaced later
        // has its successor behind it in the inbox, and one that was replaced comes as that.
        let logs = shared.lock_logs();
        shared.retained.keep_current(&mut messages);
        lane.push(Command::Feed(Box::new(page(key, messages, Then::More, Some(done)))));
        drop(logs);
    }
    lane.wake();
    let mut pause = NO_ROOM_PAUSE;
    while let Ok(false) = fed.await {
        if outbox.closed().is_some() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_NO_ROOM_PAUSE);
        let (done, asked) = oneshot::channel();
        fed = asked;
        lane.send(Command::Feed(Box::new(page(key, Vec::new(), Then::More, Some(done)))));
    }
}

/// Lets the deliveries go that wait for subscriptions which have had their retained messages.
fn unpark(lane: &Lane, key: SubscriberKey, scan: &mut Scan) {
    for tag in scan.take_finished() {
        lane.push(Command::Feed(Box::new(page(key, Vec::new(), Then::Unpark(tag), None))));
    }
    lane.wake();
}

fn page(
    key: SubscriberKey,
    messages: Vec<(Arc<Message>, u32)>,
    then: Then,
    done: Option<oneshot::Sender<bool>>,
) -> Feed {
    let messages =
        messages.into_iter().map(|(message, tag)| (message, SmallVec::from_elem(tag, 1))).collect();
    Feed { key, kind: Kind::Retained, messages, then, done }
}

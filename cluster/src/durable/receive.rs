//! The task that takes what is stored and has it released, all of it once and in the order of the stream.
//!
//! The server publishes each message again when it is stored. That is fast, and may lose or repeat something: what is
//! missing is read from the stream, before what follows it is released.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use async_nats::{Message, Subscriber};
use broker_core::{Accepted, Channel, Ingest, Receipt};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::fetch::stored_sequence;
use super::frame::{self, Content, MAX_MESSAGES, place};
use super::guard::{Guard, Verdict};
use super::queue::{Flight, Queue, Released};
use super::stream::{Of, Reach, Streams};
use crate::stats::one_more;

/// How often the leader is asked whether there is more than has come.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// How soon it is asked again after a connection is there: by then all servers know what this node is subscribed to.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How long what was acknowledged here may take to come before it is read.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A leader that was just chosen may need a moment for what it has. What it does not know after that is lost.
const MAX_BEHIND: Duration = Duration::from_secs(15);

/// Frames that are released at once.
const BATCH: usize = 256;

/// How soon a copy is asked again that does not have what the leader has.
const COPY_PAUSE: Duration = Duration::from_millis(50);

/// How soon it is tried again after JetStream has not answered.
const AWAY_PAUSE: Duration = Duration::from_millis(200);

pub(crate) struct Receiver {
    streams: Arc<Streams>,
    queue: Arc<Queue>,
    ingest: Arc<dyn Ingest>,
    guard: Guard,
    /// What is to be released next, and whose it is.
    batch: Vec<Accepted>,
    own: Vec<Own>,
    /// Since when the leader knows less than has come.
    behind_since: Option<Instant>,
}

/// A frame of this node in the batch.
struct Own {
    flight: Flight,
    /// Where its messages are in the batch.
    from: usize,
    through: usize,
}

impl Receiver {
    pub(crate) fn new(
        streams: Arc<Streams>,
        queue: Arc<Queue>,
        ingest: Arc<dyn Ingest>,
        start: Reach,
    ) -> Self {
        let guard = Guard::new(start.last);
        Self { streams, queue, ingest, guard, batch: Vec::new(), own: Vec::new(), behind_since: None }
    }

    pub(crate) async fn run(mut self) {
        let node = Arc::clone(&self.streams.node);
        // Waits while there is no connection. The subject is ours, so that nothing is wrong with it.
        let Ok(mut stored) = node.client.subscribe(node.subjects.stored()).await else { return };
        let mut connected = node.events.connected.subscribe();
        let (mut asks, mut looks) = (interval(ASK_EVERY), interval(LOOK_EVERY));
        asks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut stood_at, mut is_new) = (None, true);
        while !self.queue.is_lost() {
            tokio::select! {
                biased;
                // The first tick is at once: what came before the subscription stood.
                _ = asks.tick() => {
                    self.ask_leader().await;
                    if std::mem::take(&mut is_new) {
                        asks.reset_after(ASK_AGAIN);
                    }
                }
                changed = connected.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    asks.reset_immediately();
                    is_new = true;
                }
                _ = looks.tick() => {
                    self.guard.know(self.queue.acknowledged());
                    let last = self.guard.last();
                    if stood_at.replace(last) == Some(last) {
                        self.fill().await;
                    }
                }
                message = stored.next() => {
                    let Some(message) = message else { return };
                    self.take_all(message, &mut stored).await;
                }
            }
        }
        tracing::error!(
            stream = node.subjects.stream(),
            "the stream of durable channels is gone, or has lost messages"
        );
    }

    /// Takes a message and those that have come with it.
    async fn take_all(&mut self, message: Message, stored: &mut Subscriber) {
        self.take(message).await;
        for _ in 1..BATCH {
            let Some(Some(message)) = stored.next().now_or_never() else { break };
            self.take(message).await;
        }
        self.release();
    }

    async fn take(&mut self, message: Message) {
        let counters = &self.streams.node.counters;
        let Some(sequence) = stored_sequence(&message) else {
            return one_more(&counters.unreadable);
        };
        if self.guard.look(sequence) == Verdict::Hole {
            self.release();
            self.fill_to(sequence - 1).await;
        }
        match self.guard.look(sequence) {
            Verdict::Next => self.push(sequence, &message.payload),
            Verdict::Repeat => self.repeat(sequence, &message.payload),
            // The stream is lost.
            Verdict::Hole => {}
        }
    }

    /// Something under a sequence that is over. Where it is one that this node waits for, the stream may be another one.
    fn repeat(&mut self, sequence: u64, payload: &[u8]) {
        let node = &self.streams.node;
        one_more(&node.counters.kept_repeats);
        if let Ok(frame) = frame::read(payload, sequence)
            && frame.origin.life == node.life
            && self.queue.is_on_its_way(frame.origin.number)
        {
            self.queue.doubt.notify_one();
        }
    }

    /// The next frame: what it says is done with the batch that it is in.
    fn push(&mut self, sequence: u64, payload: &[u8]) {
        self.guard.pass(sequence);
        let node = Arc::clone(&self.streams.node);
        let Ok(frame) = frame::read(payload, sequence) else {
            one_more(&node.counters.unreadable);
            return node.tell("a durable message cannot be read: is it of another version?");
        };
        let flight = (frame.origin.life == node.life).then(|| self.queue.land(frame.origin.number)).flatten();
        if let Content::Clear(channel) = frame.content {
            return self.clear(&channel, flight);
        }
        if matches!(frame.content, Content::Nothing) {
            if let Some(flight) = flight {
                _ = flight.released.send(Released::Nothing);
            }
            return;
        }
        let from = self.batch.len();
        for mut message in frame.content.into_messages() {
            let bytes = message.publish.payload().len() as u64;
            one_more(&node.counters.kept_received);
            node.counters.kept_received_bytes.fetch_add(bytes, Relaxed);
            // Who published it is known on its own node alone.
            if let Some(flight) = &flight
                && let Some((Some(publisher), echo)) = flight.publishers.get(place(message.offset))
            {
                message.publish = message.publish.from(*publisher, *echo);
            }
            self.batch.push(message);
        }
        self.own.extend(flight.map(|flight| Own { flight, from, through: self.batch.len() }));
    }

    fn clear(&mut self, channel: &Channel, flight: Option<Flight>) {
        self.release();
        let was_there = self.ingest.clear_retained(channel);
        if let Some(flight) = flight {
            _ = flight.released.send(Released::Cleared(was_there));
        }
    }

    fn release(&mut self) {
        let own = std::mem::take(&mut self.own);
        let batch = std::mem::take(&mut self.batch);
        // Places of the batch's messages in their frames.
        let mine = own.iter().flat_map(|own| batch.get(own.from..own.through).unwrap_or_default());
        let places: Vec<usize> = mine.map(|message| place(message.offset)).collect();
        let receipts = if batch.is_empty() { Vec::new() } else { self.ingest.release(batch) };
        let mut places = places.into_iter();
        for Own { flight, from, through } in own {
            let mut by_place: Vec<Option<Receipt>> = vec![None; flight.publishers.len().min(MAX_MESSAGES)];
            for at in from..through {
                let Some(place) = places.next() else { break };
                if let Some(receipt) = by_place.get_mut(place) {
                    *receipt = receipts.get(at).copied();
                }
            }
            _ = flight.released.send(Released::Messages(by_place));
        }
        self.note_released();
    }

    /// Whoever waits until all up to a place is here is told.
    fn note_released(&self) {
        let last = self.guard.last();
        self.streams.released.send_if_modified(|released| std::mem::replace(released, last) != last);
    }

    /// Reads what is known to be in the stream and has not come.
    async fn fill(&mut self) {
        if let Some(through) = self.guard.missing() {
            self.fill_to(through).await;
        }
    }

    /// Reads all up to a sequence that is in the stream.
    async fn fill_to(&mut self, through: u64) {
        let node = Arc::clone(&self.streams.node);
        one_more(&node.counters.kept_holes);
        let subject = node.subjects.kept();
        while self.guard.last() < through && !self.queue.is_lost() {
            match self.streams.batch(Of::Kept, &subject, self.guard.last() + 1).await {
                Ok(batch) if !batch.messages.is_empty() => {
                    for message in batch.messages {
                        // Copies have the stream in its order: what one leaves out is gone.
                        if message.sequence > self.guard.last() {
                            one_more(&node.counters.kept_filled);
                            self.push(message.sequence, &message.payload);
                        }
                    }
                    self.release();
                }
                Ok(_) => self.pass_what_is_gone(through).await,
                Err(_) => sleep(AWAY_PAUSE).await,
            }
        }
    }

    /// A copy has nothing of what is in the stream: the leader knows whether it is gone, or the copy is late.
    async fn pass_what_is_gone(&mut self, through: u64) {
        match self.streams.reach().await {
            Ok(reach) => {
                self.compare(reach);
                self.guard.pass(reach.first.saturating_sub(1).min(through));
                self.note_released();
                sleep(COPY_PAUSE).await;
            }
            Err(_) => sleep(AWAY_PAUSE).await,
        }
    }

    async fn ask_leader(&mut self) {
        // Without an answer there is another occasion.
        let Ok(reach) = self.streams.reach().await else { return };
        self.compare(reach);
        self.guard.know(reach.last);
        self.fill().await;
    }

    /// Looks whether it is the stream that it was.
    fn compare(&mut self, reach: Reach) {
        if reach.epoch != self.streams.epoch {
            self.queue.lose();
        }
        if reach.last >= self.guard.last() {
            self.behind_since = None;
        } else if self.behind_since.get_or_insert_with(Instant::now).elapsed() > MAX_BEHIND {
            self.queue.lose();
        }
    }
}

//! A subscription of the embedding service itself: a stream of messages.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use parking_lot::Mutex;

use super::subscriber::Subscriber;
use crate::config::{OutboxConfig, OutboxPolicy};
use crate::lane::{Deliver, Delivery, Sink};
use crate::message::Message;
use crate::outbox::{OutboxEnd, Signal};
use crate::store::history::{After, Gap};

/// What a [`Subscription`] yields.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A message.
    Message(Arc<Message>),
    /// The reader was too slow: so many messages were dropped since the last event, by the policy.
    Lagged(u64),
    /// The log no longer reaches back to the position asked for.
    Gap(Gap),
}

/// What a [`Subscription`] gets first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StartFrom {
    /// Messages published from now on.
    #[default]
    Now,
    /// The retained messages that match, then those published from now on.
    Retained,
    /// What the log holds after a position, then those published from now on.
    Log(After),
}

/// How a [`Subscription`] behaves.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SubscribeOptions {
    /// What comes first. Default: nothing.
    pub from: StartFrom,
    /// Bounds and policy. What waits are references to messages, counted with what each message weighs: payload, names,
    /// properties and 192 bytes. By default the oldest goes when 100,000 messages or 16 MiB wait, tens of thousands of
    /// small ones, so that a reader which makes progress loses nothing to a burst; [`Event::Lagged`] says what it lost.
    pub outbox: OutboxConfig,
}

impl SubscribeOptions {
    /// With what comes first, and the usual bounds.
    pub fn starting(from: StartFrom) -> Self {
        Self { from, ..Self::default() }
    }
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        let outbox =
            OutboxConfig { max_messages: 100_000, max_bytes: 16 << 20, policy: OutboxPolicy::DropOldest };
        Self { from: StartFrom::Now, outbox }
    }
}

/// A stream of messages for code in the same process. Dropping it unsubscribes.
///
/// # Slow readers
/// Messages that are not polled wait within the bounds of [`SubscribeOptions::outbox`]. Beyond them messages are
/// dropped by the policy: [`Event::Lagged`] says how many, before the next message, and [`Subscription::dropped`] how
/// many in all. Only [`Subscription::message`] passes over it. Messages whose time is over are no loss: they leave
/// their room to others, and are not counted. With [`OutboxPolicy::Disconnect`](crate::OutboxPolicy::Disconnect) the
/// stream ends at the bound, what waited is gone, and [`Subscription::closed`] says why. A publisher never waits for a
/// reader.
///
/// # The end
/// It ends when the broker is closed or goes, once what it holds is read.
pub struct Subscription {
    subscriber: Subscriber,
    replay: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    gaps: Arc<Mutex<VecDeque<Gap>>>,
    dropped: u64,
}

struct Messages;

impl Deliver for Messages {
    fn deliver(&self, _: &Delivery, _: &[u32], sink: &mut Sink<'_>) {
        sink.send_message();
    }
}

impl Subscription {
    pub(crate) fn deliver() -> Arc<dyn Deliver> {
        Arc::new(Messages)
    }

    pub(crate) fn new(subscriber: Subscriber, replay: Option<crate::Replay>) -> Self {
        let gaps = Arc::new(Mutex::new(VecDeque::new()));
        let replay = replay.map(|replay| {
            let gaps = Arc::clone(&gaps);
            let run = replay.run(move |gap| gaps.lock().push_back(*gap));
            Box::pin(run) as Pin<Box<dyn Future<Output = ()> + Send>>
        });
        Self { subscriber, replay, gaps, dropped: 0 }
    }

    /// The next event; `None` once the stream has ended.
    ///
    /// # Cancel safety
    /// Cancel safe: an event is taken only when it is returned.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    /// The next message, passing over [`Event::Lagged`] and [`Event::Gap`]: for readers that need not know of what they
    /// lost.
    pub async fn message(&mut self) -> Option<Arc<Message>> {
        loop {
            if let Event::Message(message) = self.next().await? {
                return Some(message);
            }
        }
    }

    /// Messages that were dropped because they were not read in time, so far.
    pub fn dropped(&self) -> u64 {
        self.subscriber.outbox().dropped()
    }

    /// Why the stream ends once what waits is read; `None` while it goes on. `Overflow` means that what waited is lost.
    pub fn closed(&self) -> Option<OutboxEnd> {
        self.subscriber.outbox().closed()
    }

    /// The subscriber behind it, to change what it is subscribed to.
    pub fn subscriber(&self) -> &Subscriber {
        &self.subscriber
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if let Some(replay) = &mut self.replay
            && replay.as_mut().poll(cx).is_ready()
        {
            self.replay = None;
        }
        let outbox = self.subscriber.outbox();
        let dropped = outbox.dropped();
        if dropped > self.dropped {
            let lagged = dropped - std::mem::replace(&mut self.dropped, dropped);
            return Poll::Ready(Some(Event::Lagged(lagged)));
        }
        if let Some(gap) = self.gaps.lock().pop_front() {
            return Poll::Ready(Some(Event::Gap(gap)));
        }
        loop {
            if let Some(message) = outbox.take_message() {
                return Poll::Ready(Some(Event::Message(message)));
            }
            match outbox.poll_signal(cx) {
                Poll::Ready(Signal::Closed(OutboxEnd::Overflow)) if outbox.dropped() > self.dropped => {
                    self.dropped = outbox.dropped();
                    return Poll::Ready(None);
                }
                Poll::Ready(Signal::Closed(_)) => return Poll::Ready(None),
                Poll::Ready(_) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Stream for Subscription {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.get_mut().poll_event(cx)
    }
}

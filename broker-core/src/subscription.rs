//! A subscription of the embedding service itself: a stream of messages.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use parking_lot::Mutex;

use crate::config::OutboxConfig;
use crate::delivery::{Deliver, Delivery, Sink};
use crate::message::Message;
use crate::outbox::{CloseReason, Signal};
use crate::replay::{After, Gap};
use crate::subscriber::Subscriber;

/// What a [`Subscription`] yields.
#[derive(Debug, Clone)]
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
pub enum From {
    /// Messages published from now on.
    #[default]
    Now,
    /// The retained messages that match, then those published from now on.
    Retained,
    /// What the log holds after a position, then those published from now on.
    Log(After),
}

/// How a [`Subscription`] behaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct SubscribeOptions {
    /// What comes first. Default: nothing.
    pub from: From,
    /// Bounds and policy; by default the oldest message goes when 1,000 or 1 MiB wait, and [`Event::Lagged`] says so.
    pub outbox: OutboxConfig,
}

/// A stream of messages for code in the same process. Dropping it unsubscribes.
///
/// # Slow readers
/// What is not polled waits within the bounds of [`SubscribeOptions::outbox`]. With
/// [`Policy::Disconnect`](crate::Policy::Disconnect) the stream ends at the bound. It also ends when the broker
/// is closed or goes, once what it holds is read.
pub struct Subscription {
    subscriber: Subscriber,
    replay: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    gaps: Arc<Mutex<Vec<Gap>>>,
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
        let gaps = Arc::new(Mutex::new(Vec::new()));
        let replay = replay.map(|replay| {
            let gaps = Arc::clone(&gaps);
            let run = replay.run(move |gap| gaps.lock().push(*gap));
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

    /// The next message, passing over [`Event::Lagged`] and [`Event::Gap`].
    pub async fn message(&mut self) -> Option<Arc<Message>> {
        loop {
            if let Event::Message(message) = self.next().await? {
                return Some(message);
            }
        }
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
        if let Some(gap) = self.gaps.lock().pop() {
            return Poll::Ready(Some(Event::Gap(gap)));
        }
        loop {
            if let Some(message) = outbox.take_message() {
                return Poll::Ready(Some(Event::Message(message)));
            }
            match outbox.poll_signal(cx) {
                Poll::Ready(Signal::Closed(CloseReason::Overflow)) if outbox.dropped() > self.dropped => {
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

//! What the core's tests share.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use broker_core::{Broker, Channel, Event, Filter, Message, Publish, Subscription};

pub(crate) fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

pub(crate) fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

pub(crate) fn publish(broker: &Broker, name: &str, payload: impl Into<bytes::Bytes>) -> u64 {
    broker.publish(Publish::new(channel(name), payload)).unwrap().id.map_or(0, |id| id.offset())
}

/// A payload that names its publisher and number.
pub(crate) fn numbered(publisher: usize, number: usize) -> String {
    format!("{publisher}:{number}")
}

pub(crate) fn parse_numbered(message: &Message) -> (usize, usize) {
    let text = std::str::from_utf8(message.payload()).unwrap();
    let (publisher, number) = text.split_once(':').unwrap();
    (publisher.parse().unwrap(), number.parse().unwrap())
}

/// The next message; fails after ten seconds without one, or on a loss.
pub(crate) async fn next(subscription: &mut Subscription) -> Arc<Message> {
    match tokio::time::timeout(Duration::from_secs(10), subscription.next()).await {
        Ok(Some(Event::Message(message))) => message,
        other => panic!("expected a message, got {other:?}"),
    }
}

/// Takes messages until one has this payload; that one included.
pub(crate) async fn until(subscription: &mut Subscription, last: &str) -> Vec<Arc<Message>> {
    let mut messages = Vec::new();
    loop {
        let message = next(subscription).await;
        let done = message.payload() == last;
        messages.push(message);
        if done {
            return messages;
        }
    }
}

//! A message on its way to the gate, and what became of it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use broker_core::{Channel, ContentType, Principal, Publish, Receipt, SubscriberKey};
use bytes::Bytes;

/// Who publishes, and from where.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Publisher {
    /// With which rights.
    pub principal: Principal,
    /// Where the request comes from, as far as it is known: part of whose budget of idempotency keys is used.
    pub address: Option<IpAddr>,
    /// The name of the front that it came to, for a [`Policy`](broker_core::Policy).
    pub protocol: &'static str,
}

impl Publisher {
    /// Somebody at the front of this name, from an unknown address.
    pub fn new(principal: Principal, protocol: &'static str) -> Self {
        Self { principal, address: None, protocol }
    }
}

/// A message as a request describes it, ready to be published.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Publication<'a> {
    /// Where it goes; see [`target`](crate::target).
    pub channel: Channel,
    /// What is kept of it may live as long as the log: see [`own`](crate::own).
    pub payload: Bytes,
    /// The payload's media type.
    pub content_type: Option<ContentType>,
    /// See [`event`](crate::event).
    pub event: Option<Cow<'a, str>>,
    /// See [`ttl`](crate::ttl).
    pub ttl: Option<Duration>,
    /// Whether it becomes its channel's retained message.
    pub retain: bool,
    /// The one subscriber that does not get it.
    pub exclude: Option<SubscriberKey>,
    /// Published once for each key; see [`idempotency_key`](crate::idempotency_key).
    pub key: Option<Cow<'a, str>>,
}

impl Publication<'_> {
    /// Of a payload, and nothing else that is special about it.
    pub fn new(channel: Channel, payload: Bytes) -> Self {
        Self {
            channel,
            payload,
            content_type: None,
            event: None,
            ttl: None,
            retain: false,
            exclude: None,
            key: None,
        }
    }
}

impl Publication<'_> {
    pub(crate) fn into_publish(self) -> Publish {
        let mut publish = Publish::new(self.channel, self.payload).retain(self.retain);
        if let Some(content_type) = self.content_type {
            publish = publish.content_type(content_type);
        }
        if let Some(event) = &self.event {
            publish = publish.event(event);
        }
        if let Some(ttl) = self.ttl {
            publish = publish.ttl(ttl);
        }
        if let Some(subscriber) = self.exclude {
            publish = publish.exclude(subscriber);
        }
        publish
    }
}

/// What became of it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Published {
    /// Where it went.
    pub channel: Channel,
    /// Of the message, or of the first one under its key.
    pub receipt: Receipt,
    /// Whether its key was known, so that nothing was published now.
    pub duplicate: bool,
}

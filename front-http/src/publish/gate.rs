//! What every publish goes through, however it was sent: rights, expiry, rate and idempotency key.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use broker_core::{
    Action, Authenticator, Broker, Channel, ContentType, IdempotencyKey, KeyedReceipt, Principal, Publish,
    Receipt, SubscriberKey, unix_ms,
};
use bytes::Bytes;

use crate::error::Error;
use crate::stats::Counters;

/// Who publishes, and from where.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    pub(crate) principal: Principal,
    pub(crate) address: Option<IpAddr>,
}

/// A message as a request describes it, ready to be published.
#[derive(Debug)]
pub(crate) struct Publication<'a> {
    pub(crate) channel: Channel,
    pub(crate) payload: Bytes,
    pub(crate) content_type: Option<ContentType>,
    pub(crate) event: Option<Cow<'a, str>>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) retain: bool,
    pub(crate) exclude: Option<SubscriberKey>,
    /// The idempotency key.
    pub(crate) key: Option<Cow<'a, str>>,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) channel: Channel,
    pub(crate) receipt: Receipt,
    pub(crate) duplicate: bool,
}

/// The way into the broker.
pub(crate) struct Gate {
    broker: Broker,
    authenticator: Arc<dyn Authenticator>,
    pub(crate) counters: Arc<Counters>,
    /// Messages in one array, and channels in one item.
    pub(crate) max_batch: usize,
}

impl Gate {
    pub(crate) fn new(
        broker: Broker,
        authenticator: Arc<dyn Authenticator>,
        counters: Arc<Counters>,
        max_batch: usize,
    ) -> Self {
        Gate { broker, authenticator, counters, max_batch }
    }

    /// Whether the configuration that `principal` was let in by still does.
    pub(crate) fn still_holds(&self, principal: &Principal) -> bool {
        self.authenticator.still_holds(principal)
    }

    /// Publishes one message, once per idempotency key.
    pub(crate) fn publish(&self, publisher: &Publisher, item: Publication<'_>) -> Result<Published, Error> {
        let principal = &publisher.principal;
        if !principal.allows(Action::Publish, &item.channel) {
            return Err(Error::forbidden(principal, "publish to", &item.channel));
        }
        // A body of many lines may be sent for longer than its credentials last.
        if principal.expires_at_ms().is_some_and(|end| end <= unix_ms()) {
            return Err(Error::Expired);
        }
        principal.admit(1).map_err(Error::RateLimited)?;
        let channel = item.channel.clone();
        let Some(key) = item.key.clone() else {
            let receipt = self.broker.publish(item.into_publish())?;
            self.counters.published.fetch_add(1, Relaxed);
            return Ok(Published { channel, receipt, duplicate: false });
        };
        let key = IdempotencyKey {
            text: &key,
            user: principal.user().unwrap_or_default(),
            address: publisher.address,
        };
        let KeyedReceipt { receipt, duplicate } = self.broker.publish_once(item.into_publish(), &key)?;
        let counter = if duplicate { &self.counters.duplicates } else { &self.counters.published };
        counter.fetch_add(1, Relaxed);
        Ok(Published { channel, receipt, duplicate })
    }
}

impl Publication<'_> {
    fn into_publish(self) -> Publish {
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

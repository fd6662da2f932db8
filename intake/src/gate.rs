//! What every publish goes through, however it was sent: rights, expiry, rate and idempotency key.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use broker_core::{
    Action, Answer, Authenticator, Broker, Channel, Client, IdempotencyKey, KeyedReceipt, Principal, Publish,
    PublishError, Receipt, Refused, unix_ms,
};

use crate::error::Error;
use crate::item::{Channels, Item};
use crate::publication::{Publication, Published, Publisher};
use crate::turn::Turn;

/// The way of a front's publishes into the broker.
pub struct Gate {
    broker: Broker,
    authenticator: Arc<dyn Authenticator>,
    published: AtomicU64,
    duplicates: AtomicU64,
}

/// What a gate has counted; both only grow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages published.
    pub published: u64,
    /// Publishes that were answered from a remembered key.
    pub duplicates: u64,
}

/// What became of an item.
#[derive(Debug)]
pub enum Outcome {
    /// It was for one channel.
    One(Published),
    /// It was for several, in their order; each may have failed by itself.
    Several(Vec<Result<Published, Error>>),
}

impl Gate {
    /// The gate to `broker`. `authenticator` is the one that made the principals which publish here.
    pub fn new(broker: Broker, authenticator: Arc<dyn Authenticator>) -> Self {
        Gate { broker, authenticator, published: AtomicU64::new(0), duplicates: AtomicU64::new(0) }
    }

    /// Whether the configuration that `principal` was let in by still does: to be asked between the items of a request
    /// that may last.
    ///
    /// # Errors
    /// [`Error::RightsChanged`].
    pub fn still_holds(&self, principal: &Principal) -> Result<(), Error> {
        if self.authenticator.still_holds(principal) { Ok(()) } else { Err(Error::RightsChanged) }
    }

    /// Publishes one message, once for each idempotency key. Never waits for a subscriber; the answer comes later only
    /// where a policy decides later, or an engine keeps the channel.
    ///
    /// # Errors
    /// [`Error::Forbidden`] or [`Error::Unidentified`], [`Error::Expired`], [`Error::RateLimited`], what the policy and
    /// the broker say ([`Error::Publish`]) and what a key is refused for. Nothing was published; a rate that was asked
    /// is used.
    pub fn publish<'a>(
        &'a self,
        publisher: &'a Publisher,
        mut message: Publication<'a>,
    ) -> Answer<'a, Result<Published, Error>> {
        if let Err(error) = allowed(publisher, &message.channel) {
            return Answer::now(Err(error));
        }
        let (key, publish) = (message.key.take(), message.into_publish());
        self.publish_granted(publisher, publish, key)
    }

    /// As [`publish`](Self::publish), of a message that says more than a [`Publication`] can: what other protocols call
    /// its properties, the effort of its delivery. It has no idempotency key.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn submit<'a>(
        &'a self,
        publisher: &'a Publisher,
        publish: Publish,
    ) -> Answer<'a, Result<Published, Error>> {
        if let Err(error) = allowed(publisher, publish.channel()) {
            return Answer::now(Err(error));
        }
        self.publish_granted(publisher, publish, None)
    }

    /// Publishes what the rights allow, unless the policy denies it.
    fn publish_granted<'a>(
        &'a self,
        publisher: &'a Publisher,
        publish: Publish,
        key: Option<Cow<'a, str>>,
    ) -> Answer<'a, Result<Published, Error>> {
        let Some(policy) = self.broker.policy() else {
            return self.publish_allowed(publisher, publish, key);
        };
        let mut client = Client::new(&publisher.principal, publisher.protocol);
        client.remote = publisher.address;
        policy.publish(&client, publish).then(move |decided| match decided {
            Ok(publish) => self.publish_allowed(publisher, publish, key),
            Err(denied) => Answer::now(Err(Error::Publish(PublishError::from(denied)))),
        })
    }

    fn publish_allowed<'a>(
        &'a self,
        publisher: &Publisher,
        publish: Publish,
        key: Option<Cow<'_, str>>,
    ) -> Answer<'a, Result<Published, Error>> {
        let channel = publish.channel().clone();
        let Some(key) = key else {
            return match self.broker.submit(publish).if_now() {
                Ok(receipt) => Answer::now(self.published(channel, receipt)),
                Err(later) => Answer::later(async move { self.published(channel, later.await) }),
            };
        };
        let mut named = IdempotencyKey::new(&key);
        named.user = publisher.principal.user().unwrap_or_default();
        named.address = publisher.address;
        self.broker.submit_once(publish, &named).map(move |receipt| {
            let KeyedReceipt { receipt, duplicate, .. } = receipt?;
            let counter = if duplicate { &self.duplicates } else { &self.published };
            counter.fetch_add(1, Relaxed);
            Ok(Published { channel, receipt, duplicate })
        })
    }

    fn published(&self, channel: Channel, receipt: Result<Receipt, Refused>) -> Result<Published, Error> {
        let receipt = receipt.map_err(|refused| refused.error)?;
        self.published.fetch_add(1, Relaxed);
        Ok(Published { channel, receipt, duplicate: false })
    }

    /// Publishes an item to each of its channels, taking a turn for each.
    ///
    /// # Errors
    /// Of an item for one channel, as [`Gate::publish`] and [`target`](crate::target). Of several, each has its own.
    ///
    /// # Cancel safety
    /// Cancelled, what was published stays published.
    pub async fn publish_item(
        &self,
        publisher: &Publisher,
        item: &Item<'_>,
        turn: &mut Turn,
    ) -> Result<Outcome, Error> {
        match &item.channels {
            Channels::One(name) => {
                turn.take().await;
                self.publish(publisher, item.publication(name)?).await.map(Outcome::One)
            }
            Channels::Several(names) => {
                let mut results = Vec::with_capacity(names.len());
                for name in names {
                    turn.take().await;
                    results.push(match item.publication(name) {
                        Ok(message) => self.publish(publisher, message).await,
                        Err(error) => Err(error),
                    });
                }
                Ok(Outcome::Several(results))
            }
        }
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        Stats { published: self.published.load(Relaxed), duplicates: self.duplicates.load(Relaxed) }
    }
}

/// Whether the rights, the life and the rate of the credentials let it through.
fn allowed(publisher: &Publisher, channel: &Channel) -> Result<(), Error> {
    let principal = &publisher.principal;
    if !principal.allows(Action::Publish, channel) {
        return Err(Error::forbidden(principal, "publish to", channel));
    }
    // A body of many lines may be sent for longer than its credentials last.
    if principal.expires_at_ms().is_some_and(|end| end <= unix_ms()) {
        return Err(Error::Expired);
    }
    principal.admit(1).map_err(Error::RateLimited)
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

//! Publishing: a raw body, JSON items, or a stream of them.

mod items;
mod lines;
mod options;
mod raw;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use broker_core::{Action, Channel, ContentType, Principal, Publish, Receipt, SubscriberKey, unix_ms};
use bytes::Bytes;
use envelope::{write_string, write_timestamp};

use crate::error::Error;
use crate::front::Shared;
use crate::idempotency::{Key, Outcome};

pub(crate) use items::{Answer, BASE64, Batch, parse_array, publish_items};
pub(crate) use lines::publish_lines;
pub(crate) use options::{Options, flag, key_of};
pub(crate) use raw::{Retain, content_type, publish_raw};

/// Who publishes, and from where.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    pub(crate) principal: Principal,
    pub(crate) address: Option<IpAddr>,
}

/// Lets others have a turn after so many messages of one request: one body may hold a million.
#[derive(Debug)]
pub(crate) struct Turn {
    left: u32,
}

/// Messages published in one turn.
const TURN: u32 = 64;

impl Turn {
    pub(crate) fn new() -> Self {
        Turn { left: TURN }
    }

    /// To be awaited before each message.
    pub(crate) async fn take(&mut self) {
        if self.left == 0 {
            self.left = TURN;
            tokio::task::yield_now().await;
        }
        self.left -= 1;
    }
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

impl Shared {
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
        let fingerprint = self.idempotency.fingerprint(&(
            &item.payload,
            item.content_type.as_ref().map(ContentType::as_str),
            &item.event,
            item.ttl,
            item.retain,
            item.exclude,
        ));
        let key = Key {
            user: principal.user().unwrap_or_default(),
            address: publisher.address,
            channel: channel.as_str(),
            key: &key,
        };
        let outcome = self
            .idempotency
            .once(Instant::now(), &key, fingerprint, || Ok(self.broker.publish(item.into_publish())?))?;
        Ok(match outcome {
            Outcome::First(receipt) => {
                self.counters.published.fetch_add(1, Relaxed);
                Published { channel, receipt, duplicate: false }
            }
            Outcome::Repeated(receipt) => {
                self.counters.duplicates.fetch_add(1, Relaxed);
                Published { channel, receipt, duplicate: true }
            }
        })
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

impl Published {
    /// Appends `{"channel","id","time","receivers","duplicate"}`.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"channel\":");
        write_string(self.channel.as_str(), out);
        out.extend_from_slice(b",\"id\":");
        match self.receipt.id {
            // Neither an id nor a time has anything to escape.
            Some(id) => {
                out.push(b'"');
                id.write_to(out);
                out.push(b'"');
            }
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"time\":\"");
        write_timestamp(self.receipt.time_ms, out);
        out.extend_from_slice(b"\",\"receivers\":");
        out.extend_from_slice(itoa::Buffer::new().format(self.receipt.receivers).as_bytes());
        out.extend_from_slice(if self.duplicate {
            b",\"duplicate\":true}"
        } else {
            b",\"duplicate\":false}"
        });
    }
}

/// Payloads up to here are always copied out of the buffer they came in.
const ALWAYS_COPIED: usize = 2 * 1024;

/// A payload that may live as long as the log: a slice of its request's buffer if it is most of that buffer, else a
/// copy, so that a small message never keeps a large buffer alive.
pub(crate) fn own(payload: &[u8], buffer: &Bytes, buffer_bytes: usize) -> Bytes {
    if payload.len() < ALWAYS_COPIED || payload.len() < buffer_bytes / 2 {
        Bytes::copy_from_slice(payload)
    } else {
        buffer.slice_ref(payload)
    }
}

//! The clients that are attached now, whatever protocol they speak: to list them, address one, close it, or change what
//! it is subscribed to.
//!
//! A connection is named by its subscriber's key, so its place is a slot of a table beside its lane: an idle one costs
//! that slot, 24 bytes, and what its front keeps for [`Connection::peer`] and [`Connection::details`]. The table keeps
//! nobody alive: what a front has let go of is no longer there.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::encryption::Encryption;
use crate::answer::Answer;
use crate::error::SubscribeError;
use crate::filter::Filter;
use crate::key::{Subscribed, SubscriberKey};
use crate::message::{Message, Qos};
use crate::outbox::Queued;
use crate::rights::Principal;

/// One attached client, as its front knows it: an SSE stream, a Bayeux session, an MQTT session. Entered with
/// [`Subscriber::register_connection`](crate::Subscriber::register_connection).
///
/// All methods may be called by any thread at any time, also while the client is going; none may block, and none may be
/// called by the front while it holds a lock that its own implementation takes.
pub trait Connection: Any + Send + Sync {
    /// Who is attached. `None` while nobody is: a session that waits for its client to come back, or one that has
    /// ended.
    fn peer(&self) -> Option<Peer>;

    /// What an operator wants to know about one client.
    fn details(&self) -> Details;

    /// What waits for the client, in the session and on the way to the socket.
    fn queued(&self) -> Queued;

    /// Ends the connection in its protocol's terms, soon; what was accepted for a connected reader is written first.
    /// Does nothing for a client that is gone already.
    fn close(&self, why: &CloseCause);

    /// Subscribes the client to `filter`, from now on, without its having asked. What it asked for itself stays as it
    /// is.
    ///
    /// # Errors
    /// See [`ForcedError`].
    fn subscribe(&self, filter: &Filter) -> Result<Subscribed, ForcedError>;

    /// Ends the client's subscription to `filter`, its own or a forced one; false if there was none.
    fn unsubscribe(&self, filter: &Filter) -> bool;

    /// What it is subscribed to, as its protocol writes it, in the order of subscribing. Default: the
    /// [text form](Filter#text-form), as [`details`](Self::details) has it.
    fn held(&self) -> Vec<Held> {
        let held = |filter| Held::new(filter, Qos::AtMostOnce);
        self.details().subscriptions.into_iter().map(held).collect()
    }

    /// As [`close`](Self::close), where there is more to say of what is left of the client. Default: there is not.
    fn dismiss(&self, how: &Dismissal) {
        self.close(&CloseCause::Administrative(how.reason.clone()));
    }

    /// Sends one message to this client alone, whatever it is subscribed to, and answers once the client has
    /// acknowledged it: false if it will not. See [`Broker::send_acknowledged`](crate::Broker::send_acknowledged).
    /// Default: the protocol has no acknowledgements.
    ///
    /// # Errors
    /// See [`SendError`]; nothing was sent.
    fn send_acknowledged(&self, message: &Arc<Message>) -> Result<Answer<'static, bool>, SendError> {
        let _ = message;
        Err(SendError::Inexpressible)
    }
}

/// A subscription as its client holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// The filter as the client's protocol writes it.
    pub filter: String,
    /// The most effort that it asks for.
    pub qos: Qos,
}

impl Held {
    /// Of this filter, with this effort.
    pub fn new(filter: impl Into<String>, qos: Qos) -> Self {
        Self { filter: filter.into(), qos }
    }
}

/// How a client is sent away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dismissal {
    /// What it is told; for people, and free of control characters.
    pub reason: Option<String>,
    /// Whether its session ends with its connection, whatever it asked for.
    pub ends_session: bool,
    /// Whether the last word that it left (MQTT's will) is forgotten instead of published.
    pub forgets_will: bool,
}

/// Who is attached, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Peer {
    /// As whom, and with which rights.
    pub principal: Principal,
    /// `mqtt`, `bayeux` or `sse`.
    pub protocol: &'static str,
    /// What carries it: `tcp`, `websocket`, `long-polling`, `http/1.1`, …
    pub transport: &'static str,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

impl Peer {
    /// Who, by which protocol and transport, and since when.
    pub fn new(principal: Principal, protocol: &'static str, transport: &'static str, since_ms: u64) -> Self {
        Self { principal, protocol, transport, since_ms }
    }
}

/// More about an attached client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Details {
    /// Its last sign of life, in milliseconds since 1970.
    pub last_active_ms: u64,
    /// Where it comes from.
    pub remote: Option<IpAddr>,
    /// Its `User-Agent`, shortened.
    pub user_agent: Option<String>,
    /// The MQTT client identifier.
    pub client_id: Option<String>,
    /// Its filters in the text form; those of a group as MQTT writes them, `$share/NAME/FILTER`.
    pub subscriptions: Vec<String>,
    /// Messages thrown away because it was too slow.
    pub dropped: u64,
    /// The port that it comes from.
    pub remote_port: Option<u16>,
    /// Where it came to: this side's address of its connection.
    pub local: Option<SocketAddr>,
    /// The longest silence that it promised to keep, in seconds; 0 means that it promised nothing. `None` if nobody is
    /// attached, or the protocol knows no such promise.
    pub keep_alive_secs: Option<u16>,
    /// How long its session outlives its connection, in seconds; `u32::MAX` is for ever. `None` where sessions do not.
    pub session_expiry_secs: Option<u32>,
    /// How its connection is encrypted, if the server has ended TLS itself; of a session without one, how the request was
    /// that began it.
    pub encryption: Option<Encryption>,
}

impl Details {
    /// The filter of one of its [`subscriptions`](Self::subscriptions).
    pub fn filter_of(subscription: &str) -> Option<Filter> {
        let shared = subscription.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
        Filter::parse(shared.map_or(subscription, |(_, filter)| filter)).ok()
    }

    /// Its filters, those of groups among them.
    pub fn filters(&self) -> impl Iterator<Item = Filter> {
        self.subscriptions.iter().filter_map(|text| Self::filter_of(text))
    }
}

/// Why a connection is closed from inside.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseCause {
    /// An operator wants it gone; the text is for people, and free of control characters.
    Administrative(Option<String>),
    /// Its credentials are over: it should come back with new ones.
    Expired,
    /// The rights it was let in with no longer hold: it should come back and be judged anew.
    RightsChanged,
}

impl CloseCause {
    /// What the client is told.
    pub fn text(&self) -> &str {
        match self {
            CloseCause::Administrative(Some(reason)) => reason,
            CloseCause::Administrative(None) => "closed by an operator",
            CloseCause::Expired => "credentials expired, reconnect with new ones",
            CloseCause::RightsChanged => "rights changed, reconnect",
        }
    }

    /// Whether the client should come back by itself.
    pub fn asks_to_reconnect(&self) -> bool {
        !matches!(self, CloseCause::Administrative(_))
    }
}

/// Why a client was not subscribed by force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForcedError {
    /// It has left.
    #[error("the connection is gone")]
    Gone,
    /// It holds as many subscriptions as one client may.
    #[error("the connection has {max} subscriptions, no more are allowed")]
    TooMany {
        /// The bound.
        max: usize,
    },
    /// Its protocol has no such filter.
    #[error("the filter cannot be expressed in the connection's protocol")]
    Inexpressible,
    /// The broker refuses.
    #[error(transparent)]
    Broker(#[from] SubscribeError),
}

/// Why a message was not taken for one client. Nothing of it will reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// It has left, or never was.
    #[error("the connection is gone")]
    Gone,
    /// As much waits for it as may.
    #[error("too much waits for the connection already")]
    Full,
    /// The payload is larger than [`Config::max_message_bytes`](crate::Config::max_message_bytes).
    #[error("the payload has {bytes} bytes, {max} are allowed")]
    TooLarge {
        /// Size of the payload.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// Its protocol has no way to say it.
    #[error("the message cannot be expressed in the connection's protocol")]
    Inexpressible,
}

/// The connections whose subscribers belong to one lane, by slot.
#[derive(Default)]
pub(crate) struct Table(Mutex<Vec<Option<Registered>>>);

struct Registered {
    generation: u32,
    connection: Weak<dyn Connection>,
}

/// Slots looked at under one lock.
const SLOTS_AT_ONCE: usize = 1_024;

impl Table {
    pub(crate) fn enter(&self, key: SubscriberKey, connection: Weak<dyn Connection>) {
        let slot = key.slot as usize;
        let mut slots = self.0.lock();
        if slots.len() <= slot {
            slots.resize_with(slot + 1, || None);
        }
        let before = slots
            .get_mut(slot)
            .and_then(|place| place.replace(Registered { generation: key.generation, connection }));
        drop(slots);
        drop(before);
    }

    /// Forgets a subscriber that goes, before its slot is anybody else's.
    pub(crate) fn leave(&self, key: SubscriberKey) {
        let left = self
            .0
            .lock()
            .get_mut(key.slot as usize)
            .and_then(|place| place.take_if(|registered| registered.generation == key.generation));
        drop(left);
    }

    pub(crate) fn find(&self, key: SubscriberKey) -> Option<Arc<dyn Connection>> {
        let slots = self.0.lock();
        let registered = slots.get(key.slot as usize)?.as_ref()?;
        (registered.generation == key.generation).then(|| registered.connection.upgrade()).flatten()
    }

    /// Adds the connections behind `after`, in order, until `found` holds `limit`.
    pub(crate) fn page(
        &self,
        lane: u16,
        after: Option<SubscriberKey>,
        limit: usize,
        found: &mut Vec<(SubscriberKey, Arc<dyn Connection>)>,
    ) {
        let mut next = after.map_or(0, |after| after.slot as usize);
        while found.len() < limit {
            let slots = self.0.lock();
            let Some(some) = slots.get(next..slots.len().min(next + SLOTS_AT_ONCE)) else { return };
            if some.is_empty() {
                return;
            }
            for registered in some {
                let slot = u32::try_from(next).unwrap_or(u32::MAX);
                if let Some(registered) = registered
                    && let key = (SubscriberKey { lane, slot, generation: registered.generation })
                    && after.is_none_or(|after| key > after)
                    && let Some(connection) = registered.connection.upgrade()
                {
                    found.push((key, connection));
                }
                next += 1;
                if found.len() == limit {
                    return;
                }
            }
        }
    }
}

//! Who comes, what they subscribe to, and who leaves: told the same way for every protocol.

use std::fmt;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use crate::channel::Channel;
use crate::filter::Filter;
use crate::key::SubscriberKey;
use crate::lane::{CloseCause, Connection};
use crate::rights::Principal;

/// Hears of clients, whatever they speak. Given to [`Broker::hear`](crate::Broker::hear); what an embedding service, a
/// gateway or a log builds on.
///
/// For one client the calls come in this order: `joined`, then `subscribed` and `unsubscribed` as they happen, then
/// `left`. A client that was there before the listener is not told of. Subscriptions of the embedding service itself
/// ([`Broker::subscribe`](crate::Broker::subscribe)) are no clients.
///
/// A call is made by the thread that does what it tells, between two of its steps and under no lock, so it must be
/// quick and may call the broker. One that panics is logged, and the client goes on.
pub trait Lifecycle: Send + Sync + 'static {
    /// A client is attached: its connection tells who it is. An MQTT client that comes back to its session joins again,
    /// under the same key.
    fn joined(&self, client: SubscriberKey, connection: &Arc<dyn Connection>) {
        let _ = (client, connection);
    }

    /// It subscribed, or was subscribed. What an MQTT session brings with it is not told again.
    fn subscribed(&self, client: SubscriberKey, subscription: Interest<'_>) {
        let _ = (client, subscription);
    }

    /// A subscription ended. Not called for those that a client's end takes along.
    fn unsubscribed(&self, client: SubscriberKey, subscription: Interest<'_>) {
        let _ = (client, subscription);
    }

    /// A request of the client's begins that may subscribe to many filters or end many subscriptions, as MQTT's packets do:
    /// until [`request_ended`](Self::request_ended) what is told of its subscriptions belongs to it, or is an operator's doing
    /// meanwhile. Only fronts that say so are told of. A client that leaves meanwhile takes the end along.
    fn request_began(&self, client: SubscriberKey) {
        let _ = client;
    }

    /// All that the request asked for is told; its answer comes next.
    fn request_ended(&self, client: SubscriberKey) {
        let _ = client;
    }

    /// Whether this listener wants to hear of channels that are entered and left ([`touched`](Self::touched)). Asked once,
    /// when it is given to the broker.
    fn hears_of_channels(&self) -> bool {
        false
    }

    /// Somebody, a client or the embedding service, subscribed to exactly this channel, or does so no longer: in a group
    /// too, by a wildcard not. How many there are now, [`Broker::channel`](crate::Broker::channel) says.
    fn touched(&self, channel: &Channel) {
        let _ = channel;
    }

    /// Its outbox, or its session whose client may be away, threw away `messages` for want of room since the last call.
    /// At most once a minute for one client, by the task that delivers to it and others.
    fn dropped(&self, client: SubscriberKey, messages: u64, connection: &Arc<dyn Connection>) {
        let _ = (client, messages, connection);
    }

    /// It left. If its session stays, it may join again, or the session ends later: then this is called once more.
    /// After a call whose [`Left::stays`] is false nothing more is told of this key. `account` says who it was and what
    /// passed, as far as the front knows.
    fn left(&self, client: SubscriberKey, how: Left, account: &Account<'_>) {
        let _ = (client, how, account);
    }
}

/// What a subscription is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interest<'a> {
    /// The channels.
    pub filter: &'a Filter,
    /// The group whose members share the messages (MQTT's `$share/GROUP/…`).
    pub group: Option<&'a str>,
}

/// Whose connection is over, and what passed over it: the last that can be known of a client. What its front does not
/// count, or no longer knows, is `None`.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Account<'a> {
    /// Whether it was connected until now; false of a session that ends while its client is away. Set by the core.
    pub was_here: bool,
    /// `mqtt`, `bayeux` or `sse`; empty if the front said nothing.
    pub protocol: &'static str,
    /// As whom it was let in.
    pub principal: Option<&'a Principal>,
    /// The MQTT client identifier.
    pub client_id: Option<&'a str>,
    /// Where it came from.
    pub remote: Option<IpAddr>,
    /// How long the connection was there.
    pub lasted: Option<Duration>,
    /// Messages to the client; in MQTT over all connections of its session.
    pub sent_messages: Option<u64>,
    /// Messages from the client; in MQTT over all connections of its session.
    pub received_messages: Option<u64>,
    /// Bytes to the client, of its connection.
    pub sent_bytes: Option<u64>,
    /// Bytes from the client, of its connection.
    pub received_bytes: Option<u64>,
    /// Messages that were thrown away because it was too slow.
    pub dropped: u64,
    /// Of a client that is [lost](LeaveReason::Lost): whether it was there and silent for longer than it had promised,
    /// instead of its connection breaking.
    pub was_silent: bool,
}

/// How a client left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Left {
    /// Why.
    pub why: LeaveReason,
    /// Whether its session and subscriptions wait for its return.
    pub stays: bool,
}

impl Left {
    /// It left for good.
    pub fn for_good(why: LeaveReason) -> Self {
        Self { why, stays: false }
    }

    /// Its session waits for it.
    pub fn for_now(why: LeaveReason) -> Self {
        Self { why, stays: true }
    }
}

/// Why a client left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeaveReason {
    /// It said goodbye, or ended its stream.
    Client,
    /// Its connection broke, or nothing came from it for too long.
    Lost,
    /// The time of its session or of its credentials was over.
    Expired,
    /// It did not take what waited for it.
    TooSlow,
    /// Another connection took its session.
    TakenOver,
    /// An operator or the embedding service closed it.
    Closed,
    /// The rights it was let in with no longer hold, or it did what they do not reach.
    NotAllowed,
    /// It broke the rules of its protocol, or asked for what this server does not do.
    Protocol,
    /// The server stops.
    Shutdown,
}

impl LeaveReason {
    /// All there are, in the order of their declaration.
    pub const ALL: [LeaveReason; 9] = [
        LeaveReason::Client,
        LeaveReason::Lost,
        LeaveReason::Expired,
        LeaveReason::TooSlow,
        LeaveReason::TakenOver,
        LeaveReason::Closed,
        LeaveReason::NotAllowed,
        LeaveReason::Protocol,
        LeaveReason::Shutdown,
    ];

    /// Its name in events and logs: one word in `snake_case`.
    pub fn name(self) -> &'static str {
        match self {
            LeaveReason::Client => "client",
            LeaveReason::Lost => "lost",
            LeaveReason::Expired => "expired",
            LeaveReason::TooSlow => "too_slow",
            LeaveReason::TakenOver => "taken_over",
            LeaveReason::Closed => "closed",
            LeaveReason::NotAllowed => "not_allowed",
            LeaveReason::Protocol => "protocol",
            LeaveReason::Shutdown => "shutdown",
        }
    }
}

impl From<&CloseCause> for LeaveReason {
    fn from(close: &CloseCause) -> Self {
        match close {
            CloseCause::Administrative(_) => LeaveReason::Closed,
            CloseCause::Expired => LeaveReason::Expired,
            CloseCause::RightsChanged => LeaveReason::NotAllowed,
        }
    }
}

impl fmt::Display for LeaveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who listens. Nobody, usually: then an event costs a look at a flag.
#[derive(Default)]
pub(crate) struct Listeners {
    any: AtomicBool,
    /// Whether one of them wants to hear of channels.
    channels: AtomicBool,
    list: RwLock<Arc<[Arc<dyn Lifecycle>]>>,
}

impl Listeners {
    pub(crate) fn add(&self, listener: Arc<dyn Lifecycle>) {
        if listener.hears_of_channels() {
            self.channels.store(true, Ordering::Release);
        }
        let mut list = self.list.write();
        *list = list.iter().cloned().chain([listener]).collect();
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// A subscription to this filter began or ended. Called under no lock.
    pub(crate) fn tell_touched(&self, filter: &Filter) {
        if self.channels.load(Ordering::Acquire)
            && let Some(channel) = filter.as_literal()
        {
            self.tell(|listener| listener.touched(channel));
        }
    }

    pub(crate) fn tell(&self, what: impl Fn(&dyn Lifecycle)) {
        let list = Arc::clone(&self.list.read());
        for listener in list.iter() {
            if catch_unwind(AssertUnwindSafe(|| what(&**listener))).is_err() {
                tracing::error!("a listener to clients' lives panicked");
            }
        }
    }
}

/// Where a client is in its life, as far as listeners were told.
#[derive(Debug, Default)]
pub(crate) struct Stage(AtomicU8);

const UNTOLD: u8 = 0;
const HERE: u8 = 1;
const AWAY: u8 = 2;
const GONE: u8 = 3;

impl Stage {
    /// The client is here now. What was told of it before.
    pub(crate) fn join(&self) -> Joining {
        match self.0.swap(HERE, Ordering::AcqRel) {
            UNTOLD => Joining::New,
            HERE => Joining::TakesOver,
            _ => Joining::Returns,
        }
    }

    /// The client leaves: whether it was here. `None` if that need not be told.
    pub(crate) fn leave(&self, how: Left) -> Option<bool> {
        let next = if how.stays { AWAY } else { GONE };
        let told = |now| matches!(now, HERE) || (now == AWAY && !how.stays);
        let before =
            self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| told(now).then_some(next));
        before.ok().map(|before| before == HERE)
    }

    /// Whether listeners know of the client.
    pub(crate) fn is_told(&self) -> bool {
        matches!(self.0.load(Ordering::Acquire), HERE | AWAY)
    }
}

/// What a client that joins was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joining {
    New,
    Returns,
    TakesOver,
}

//! Who is there, for the embedding service.

use std::net::IpAddr;
use std::sync::Arc;

use super::Broker;
use crate::filter::Filter;
use crate::key::SubscriberKey;
use crate::lane::Connection;
use crate::rights::Principal;

/// A page of who is there. See [`Broker::presence`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Presence {
    /// The clients, each once, in an order that lasts as long as they stay.
    pub members: Vec<Present>,
    /// After whom the next page begins; `None` if there is nobody more.
    pub next: Option<SubscriberKey>,
}

/// A client that is there.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Present {
    /// Its name in the core: for [`Broker::send_to`] and [`Broker::connection`].
    pub key: SubscriberKey,
    /// As whom it is there, and with which rights: [`Principal::user`].
    pub principal: Principal,
    /// The MQTT client identifier.
    pub client_id: Option<String>,
    /// `mqtt`, `bayeux`, `sse`, or the name of a front of your own.
    pub protocol: &'static str,
    /// What carries it: `tcp`, `websocket`, `long-polling`, `http/1.1`, …
    pub transport: &'static str,
    /// Where it comes from, as far as that is known.
    pub remote: Option<IpAddr>,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

/// Clients looked at before other tasks get their turn.
const TURN: usize = 256;

impl Broker {
    /// The most clients of one page, whatever is asked for.
    pub const MAX_PRESENCE_PAGE: usize = 10_000;

    /// Who is subscribed to a channel, by its name, a wildcard or in a group; for a filter with wildcards, who may hear
    /// anything on a channel that it matches. Up to `limit` of them, and never more than
    /// [`MAX_PRESENCE_PAGE`](Self::MAX_PRESENCE_PAGE), after `after`: `None` at first, then [`Presence::next`]. A `limit`
    /// of 0 is 1.
    ///
    /// Clients whose connection is there are told, as `GET /v1/presence/…` tells them; sessions that wait for their
    /// client, and subscribers in process, are not. Everybody is `#`. Rights are not asked: the service is its own.
    ///
    /// A channel is looked up; for wildcards all clients are gone through, a few hundred at a time and then other tasks
    /// have their turn. No lock is held in between, so who comes or goes meanwhile may be told or not.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = broker_core::Broker::new(broker_core::Config::default());
    /// let room = broker_core::Filter::parse("chat/room1")?;
    /// let mut after = None;
    /// loop {
    ///     let page = broker.presence(&room, after, 1_000).await;
    ///     for member in &page.members {
    ///         println!("{:?} over {} from {:?}", member.principal.user(), member.protocol, member.remote);
    ///     }
    ///     after = page.next;
    ///     if after.is_none() {
    ///         break;
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn presence(&self, filter: &Filter, after: Option<SubscriberKey>, limit: usize) -> Presence {
        let limit = limit.clamp(1, Self::MAX_PRESENCE_PAGE);
        let mut page = Presence::default();
        let Some(channel) = filter.as_literal() else {
            let mut from = after;
            loop {
                let some = self.connections(from, TURN);
                let is_last = some.len() < TURN;
                from = some.last().map(|(key, _)| *key);
                for (key, connection) in some {
                    let hears = |connection: &dyn Connection| {
                        connection.details().filters().any(|held| held.overlaps(filter))
                    };
                    if !page.take(key, &connection, limit, hears) {
                        return page;
                    }
                }
                if is_last {
                    return page;
                }
                tokio::task::yield_now().await;
            }
        };
        let keys =
            self.subscribers_of(channel).into_iter().filter(|key| after.is_none_or(|after| *key > after));
        for (number, key) in keys.enumerate() {
            if number % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            let Some(connection) = self.connection(key) else { continue };
            if !page.take(key, &connection, limit, |_| true) {
                break;
            }
        }
        page
    }
}

impl Presence {
    /// Takes one more, if it is there; false if there was no room for it.
    fn take(
        &mut self,
        key: SubscriberKey,
        connection: &Arc<dyn Connection>,
        limit: usize,
        counts: impl Fn(&dyn Connection) -> bool,
    ) -> bool {
        let Some(peer) = connection.peer().filter(|_| counts(&**connection)) else { return true };
        if self.members.len() == limit {
            self.next = self.members.last().map(|last| last.key);
            return false;
        }
        let details = connection.details();
        self.members.push(Present {
            key,
            principal: peer.principal,
            client_id: details.client_id,
            protocol: peer.protocol,
            transport: peer.transport,
            remote: details.remote,
            since_ms: peer.since_ms,
        });
        true
    }
}

//! What is done to the clients of this node, for whoever may: rights were looked at before.

use std::sync::Arc;
use std::time::Duration;

use broker_core::{
    Broker, Channel, CloseCause, Connection, ContentType, Filter, Peer, Publish, SubscriberKey,
};
use bytes::Bytes;
use http_edge::parse_connection_id;

use super::Forced;
use crate::error::Error;
use crate::nodes::Page;
use crate::shown::Shown;
use crate::stats::Counters;

/// Connections looked at before other tasks get their turn.
const TURN: usize = 1_000;

/// Which connections are looked for.
pub(crate) struct Sought<'a> {
    pub(crate) user: Option<&'a str>,
    pub(crate) channel: Option<&'a Channel>,
    pub(crate) after: Option<SubscriberKey>,
}

/// The attached client with this id.
///
/// # Errors
/// [`Error::Gone`] if it has left, and also if the text is not an id at all.
pub(super) fn find(broker: &Broker, id: &str) -> Result<(SubscriberKey, Arc<dyn Connection>, Peer), Error> {
    let key = parse_connection_id(id).ok_or(Error::Gone)?;
    let connection = broker.connection(key).ok_or(Error::Gone)?;
    let peer = connection.peer().ok_or(Error::Gone)?;
    Ok((key, connection, peer))
}

/// Up to `limit` of them in an order that lasts as long as they stay, made smaller by `fit`, which says for how many bytes
/// each counts: `max_bytes` are the most, for one at least.
pub(crate) async fn page(
    broker: &Broker,
    sought: &Sought<'_>,
    limit: usize,
    max_bytes: usize,
    fit: impl Fn(&mut Shown) -> usize,
) -> Page<Shown> {
    let mut page = Vec::new();
    let mut bytes = 0_usize;
    let mut walk = Walk::new(broker, sought.channel, sought.after);
    loop {
        let some = walk.next(broker);
        if some.is_empty() {
            return (page, false);
        }
        for (key, connection) in some {
            let Some(peer) = connection.peer() else { continue };
            if sought.user.is_some() && peer.principal.user() != sought.user {
                continue;
            }
            if page.len() == limit {
                return (page, true);
            }
            let mut shown = Shown::new(key, &peer, &*connection);
            bytes += fit(&mut shown);
            if bytes > max_bytes && !page.is_empty() {
                return (page, true);
            }
            page.push((key, shown));
        }
        tokio::task::yield_now().await;
    }
}

/// All connections of a user.
pub(crate) async fn of_user(broker: &Broker, user: &str) -> Vec<Arc<dyn Connection>> {
    let mut walk = Walk::new(broker, None, None);
    let mut found = Vec::new();
    loop {
        let some = walk.next(broker);
        if some.is_empty() {
            return found;
        }
        let is_theirs = |connection: &Arc<dyn Connection>| {
            connection.peer().is_some_and(|peer| peer.principal.user() == Some(user))
        };
        found.extend(some.into_iter().map(|(_, connection)| connection).filter(is_theirs));
        tokio::task::yield_now().await;
    }
}

/// Goes over all connections, or over those on one channel, a turn at a time.
enum Walk {
    All { after: Option<SubscriberKey>, done: bool },
    Channel(std::vec::IntoIter<SubscriberKey>),
}

impl Walk {
    fn new(broker: &Broker, channel: Option<&Channel>, after: Option<SubscriberKey>) -> Self {
        let Some(channel) = channel else { return Walk::All { after, done: false } };
        let mut keys = broker.subscribers_of(channel);
        keys.retain(|key| after.is_none_or(|after| *key > after));
        Walk::Channel(keys.into_iter())
    }

    /// Empty at the end only.
    fn next(&mut self, broker: &Broker) -> Vec<(SubscriberKey, Arc<dyn Connection>)> {
        match self {
            Walk::All { done: true, .. } => Vec::new(),
            Walk::All { after, done } => {
                let page = broker.connections(*after, TURN);
                *done = page.len() < TURN;
                *after = page.last().map(|(key, _)| *key);
                page
            }
            Walk::Channel(keys) => {
                let known = |key| broker.connection(key).map(|connection| (key, connection));
                keys.filter_map(known).take(TURN).collect()
            }
        }
    }
}

/// One of them.
pub(crate) fn show(broker: &Broker, id: &str) -> Result<Shown, Error> {
    let (key, connection, peer) = find(broker, id)?;
    Ok(Shown::new(key, &peer, &*connection))
}

/// A message for one client alone.
pub(crate) struct Direct<'a> {
    pub(crate) channel: Channel,
    pub(crate) content_type: Option<ContentType>,
    pub(crate) event: Option<&'a str>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) body: Bytes,
}

/// Sends it; what waits there now, in bytes.
pub(crate) async fn send(
    broker: &Broker,
    counters: &Counters,
    id: &str,
    direct: Direct<'_>,
) -> Result<u64, Error> {
    let key = parse_connection_id(id).ok_or(Error::Gone)?;
    let mut publish = Publish::new(direct.channel, direct.body);
    if let Some(content_type) = direct.content_type {
        publish = publish.content_type(content_type);
    }
    if let Some(event) = direct.event {
        publish = publish.event(event);
    }
    if let Some(ttl) = direct.ttl {
        publish = publish.ttl(ttl);
    }
    let queued = broker.send_to(key, publish).await?;
    Counters::add(&counters.direct_messages);
    Ok(queued.bytes as u64)
}

/// Closes one in its protocol's terms.
pub(crate) fn close(
    broker: &Broker,
    counters: &Counters,
    id: &str,
    reason: Option<String>,
) -> Result<(), Error> {
    let (_, connection, _) = find(broker, id)?;
    connection.close(&CloseCause::Administrative(reason));
    Counters::add(&counters.closed_connections);
    Ok(())
}

/// Subscribes one, or takes a subscription away.
pub(crate) fn change_subscription(
    broker: &Broker,
    counters: &Counters,
    id: &str,
    filter: &Filter,
    change: Forced,
) -> Result<(), Error> {
    let (_, connection, _) = find(broker, id)?;
    match change {
        Forced::Subscribe => _ = connection.subscribe(filter)?,
        Forced::Unsubscribe if connection.unsubscribe(filter) => {}
        Forced::Unsubscribe => return Err(Error::NotSubscribed(filter.to_string())),
    }
    Counters::add(&counters.forced_subscriptions);
    Ok(())
}

//! `/v1/connections`: the clients that are attached now, to list, to send to, to close, and to subscribe by force.

use std::sync::Arc;

use broker_core::{
    Action, Broker, Channel, CloseCause, Connection, Details, Filter, Peer, Principal, Publish, SubscriberKey,
};
use bytes::Bytes;
use envelope::{timestamp, write_string};
use http::request::Parts;
use http_edge::{Fields, Response, connection_id, parse_connection_id};

use crate::answer::no_content;
use crate::error::Error;
use crate::json::{write_optional, write_strings};
use crate::publish::{Options, content_type};
use crate::query::{invalid, limit, parameters, read_cursor};
use crate::stats::Counters;

/// The channel of a direct message whose sender names none.
const DEFAULT_CHANNEL: &str = "direct";

/// A longer `?reason=` is cut, in bytes: a WebSocket's close frame takes 123.
const MAX_REASON_BYTES: usize = 120;

/// Connections looked at before other tasks get their turn.
const TURN: usize = 1_000;

/// Who may look at and close connections whatever they are subscribed to: who may manage every channel, with none
/// denied.
pub(crate) fn may_manage_all(principal: &Principal) -> Result<(), Error> {
    let all = intake::filter("**")?;
    if principal.allows_all_of(Action::Manage, &all) {
        return Ok(());
    }
    Err(Error::forbidden(principal, "manage connections on", all))
}

/// The attached client with this id.
///
/// # Errors
/// [`Error::Gone`] if it has left, and also if the text is not an id at all.
fn find(broker: &Broker, id: &str) -> Result<(SubscriberKey, Arc<dyn Connection>, Peer), Error> {
    let key = parse_connection_id(id).ok_or(Error::Gone)?;
    let connection = broker.connection(key).ok_or(Error::Gone)?;
    let peer = connection.peer().ok_or(Error::Gone)?;
    Ok((key, connection, peer))
}

/// A page of at most `max_page` connections in an order that lasts as long as they stay.
pub(crate) async fn list(
    broker: &Broker,
    max_page: usize,
    principal: &Principal,
    query: Option<&str>,
) -> Result<Vec<u8>, Error> {
    let (mut user, mut channel, mut cursor) = (None, None, None);
    let mut page = 100.min(max_page);
    for parameter in parameters(query) {
        let (name, value) = parameter?;
        match &*name {
            "user" => user = Some(value.into_owned()),
            "channel" => channel = Some(intake::channel(&value)?),
            "cursor" => cursor = Some(read_cursor(&value)?),
            "limit" => page = limit(&value, max_page)?,
            other => return Err(invalid(other, "unknown; known are user, channel, cursor, limit")),
        }
    }
    match &channel {
        Some(channel) if principal.allows(Action::Manage, channel) => {}
        Some(channel) => {
            return Err(Error::forbidden(principal, "manage connections on", channel));
        }
        None => may_manage_all(principal)?,
    }

    let mut out = b"{\"connections\":[".to_vec();
    let (mut shown, mut last, mut more) = (0, None, false);
    let mut walk = Walk::new(broker, channel.as_ref(), cursor);
    'pages: loop {
        let some = walk.next(broker);
        if some.is_empty() {
            break;
        }
        for (key, connection) in some {
            let Some(peer) = connection.peer() else { continue };
            if user.is_some() && peer.principal.user() != user.as_deref() {
                continue;
            }
            if shown == page {
                more = true;
                break 'pages;
            }
            if shown > 0 {
                out.push(b',');
            }
            write(key, &peer, &*connection, principal, &mut out);
            shown += 1;
            last = Some(key);
        }
        tokio::task::yield_now().await;
    }
    out.extend_from_slice(b"],\"next\":");
    write_optional(last.filter(|_| more).map(connection_id).as_deref(), &mut out);
    out.push(b'}');
    Ok(out)
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

/// One connection; 410 if it is gone.
pub(crate) fn one(broker: &Broker, principal: &Principal, id: &str) -> Result<Vec<u8>, Error> {
    may_manage_all(principal)?;
    let (key, connection, peer) = find(broker, id)?;
    let mut out = Vec::with_capacity(512);
    write(key, &peer, &*connection, principal, &mut out);
    Ok(out)
}

/// Of its subscriptions only those are shown that the asker may manage: a list of one channel's clients is not to tell
/// what else they hear.
fn write(key: SubscriberKey, peer: &Peer, connection: &dyn Connection, asker: &Principal, out: &mut Vec<u8>) {
    let mut details = connection.details();
    if may_manage_all(asker).is_err() {
        details.subscriptions.retain(|text| may_manage(asker, text));
    }
    let queued = connection.queued();
    let strings: [(&str, Option<&str>); 6] = [
        ("{\"id\":", Some(&connection_id(key))),
        (",\"user\":", peer.principal.user()),
        (",\"protocol\":", Some(peer.protocol)),
        (",\"transport\":", Some(peer.transport)),
        (",\"connected_at\":", Some(&timestamp(peer.since_ms))),
        (",\"last_active_at\":", Some(&timestamp(details.last_active_ms))),
    ];
    for (member, value) in strings {
        out.extend_from_slice(member.as_bytes());
        write_optional(value, out);
    }
    if let Some(client_id) = &details.client_id {
        out.extend_from_slice(b",\"client_id\":");
        write_string(client_id, out);
    }
    out.extend_from_slice(b",\"remote\":{\"ip\":");
    write_optional(details.remote.map(|ip| ip.to_string()).as_deref(), out);
    out.extend_from_slice(b",\"user_agent\":");
    write_optional(details.user_agent.as_deref(), out);
    out.extend_from_slice(b"},\"subscriptions\":");
    write_strings(&details.subscriptions, out);
    let rest = format!(
        ",\"queue\":{{\"messages\":{},\"bytes\":{}}},\"dropped\":{}}}",
        queued.messages, queued.bytes, details.dropped
    );
    out.extend_from_slice(rest.as_bytes());
}

/// Whether a subscription, as [`Details`](broker_core::Details) write it, is one that `asker` may manage.
fn may_manage(asker: &Principal, subscription: &str) -> bool {
    Details::filter_of(subscription).is_some_and(|filter| asker.allows_filter(Action::Manage, &filter))
}

/// Sends `body` to one client, on the channel that `?channel=` names. Answered once it has its place in the client's
/// queue; never waits for the client.
pub(crate) async fn send(
    broker: &Broker,
    counters: &Counters,
    principal: &Principal,
    id: &str,
    parts: &Parts,
    body: Bytes,
) -> Result<Vec<u8>, Error> {
    let (options, channel) = Options::read_with_channel(parts.uri.query(), &Fields::from(&parts.headers))?;
    for (name, is_given) in [
        ("retain", options.retain.is_some()),
        ("exclude", options.exclude.is_some()),
        ("Idempotency-Key", options.key.is_some()),
    ] {
        if is_given {
            return Err(invalid(name, "means nothing for a direct message"));
        }
    }
    let channel = intake::target(channel.as_deref().unwrap_or(DEFAULT_CHANNEL))?;
    broker.check_levels(&channel.clone().into())?;
    if !principal.allows(Action::Manage, &channel) {
        return Err(Error::forbidden(principal, "send to connections on", &channel));
    }
    let key = parse_connection_id(id).ok_or(Error::Gone)?;
    let mut publish = Publish::new(channel, body);
    if let Some(content_type) = content_type(&Fields::from(&parts.headers))? {
        publish = publish.content_type(content_type);
    }
    if let Some(event) = &options.event {
        publish = publish.event(event);
    }
    if let Some(ttl) = options.ttl {
        publish = publish.ttl(ttl);
    }
    let queued = broker.send_to(key, publish).await?;
    Counters::add(&counters.direct_messages);
    Ok(format!("{{\"queued_bytes\":{}}}", queued.bytes).into_bytes())
}

/// Closes a connection in its protocol's terms.
pub(crate) fn close(
    broker: &Broker,
    counters: &Counters,
    principal: &Principal,
    id: &str,
    query: Option<&str>,
) -> Result<Response, Error> {
    let mut reason = None;
    for parameter in parameters(query) {
        let (name, value) = parameter?;
        match &*name {
            "reason" if value.chars().any(char::is_control) => {
                return Err(invalid("reason", "holds a control character"));
            }
            "reason" => {
                reason = Some(cut(&value, MAX_REASON_BYTES).to_owned()).filter(|reason| !reason.is_empty())
            }
            other => return Err(invalid(other, "unknown; known is reason")),
        }
    }
    may_manage_all(principal)?;
    let (_, connection, _) = find(broker, id)?;
    connection.close(&CloseCause::Administrative(reason));
    Counters::add(&counters.closed_connections);
    Ok(no_content())
}

/// The longest start of a text that has at most so many bytes.
fn cut(text: &str, max_bytes: usize) -> &str {
    let end = (0..=max_bytes).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or(text)
}

/// How an operator changes a client's subscriptions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Forced {
    Subscribe,
    Unsubscribe,
}

/// Subscribes a client that has not asked for it, or takes a subscription away.
pub(crate) fn change_subscription(
    broker: &Broker,
    counters: &Counters,
    principal: &Principal,
    id: &str,
    filter: &str,
    change: Forced,
) -> Result<Response, Error> {
    let filter: Filter = intake::filter(filter)?;
    if !principal.allows_all_of(Action::Manage, &filter) {
        return Err(Error::forbidden(principal, "manage subscriptions to", &filter));
    }
    let (_, connection, _) = find(broker, id)?;
    match change {
        Forced::Subscribe => _ = connection.subscribe(&filter)?,
        Forced::Unsubscribe if connection.unsubscribe(&filter) => {}
        Forced::Unsubscribe => return Err(Error::NotSubscribed(filter.to_string())),
    }
    Counters::add(&counters.forced_subscriptions);
    Ok(no_content())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        for (text, max, expected) in
            [("", 3, ""), ("abc", 3, "abc"), ("abcd", 3, "abc"), ("a€", 3, "a"), ("€", 2, "")]
        {
            assert_eq!(cut(text, max), expected, "{text}");
        }
    }
}

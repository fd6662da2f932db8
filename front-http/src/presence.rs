//! `GET /v1/presence/{channel…}`: who is subscribed to a channel, by its name, a wildcard or in a group.

use std::collections::HashSet;

use broker_core::{Action, Broker, Peer, Principal, SubscriberKey};
use envelope::{timestamp, write_string};
use http_edge::connection_id;

use crate::error::Error;
use crate::json::write_optional;
use crate::query::{flag, invalid, limit, parameters, read_cursor};

/// Subscribers looked at before other tasks get their turn.
const TURN: usize = 1_000;

/// Numbers of all, and the members of one page of at most `max_page`, in an order that lasts as long as they stay.
pub(crate) async fn answer(
    broker: &Broker,
    max_page: usize,
    principal: &Principal,
    channel: &str,
    query: Option<&str>,
) -> Result<Vec<u8>, Error> {
    let (mut only_stats, mut cursor, mut page) = (false, None, max_page);
    for parameter in parameters(query) {
        let (name, value) = parameter?;
        match &*name {
            "stats" => only_stats = flag("stats", &value)?,
            "cursor" => cursor = Some(read_cursor(&value)?),
            "limit" => page = limit(&value, max_page)?,
            other => return Err(invalid(other, "unknown; known are stats, cursor, limit")),
        }
    }
    let channel = intake::channel(channel)?;
    broker.check_levels(&channel.clone().into())?;
    if !principal.allows(Action::Presence, &channel) {
        return Err(Error::forbidden(principal, "see who is on", &channel));
    }

    let (mut connections, mut users) = (0_u64, HashSet::<String>::new());
    let (mut members, mut shown, mut last, mut more) = (Vec::new(), 0, None, false);
    for (number, key) in broker.subscribers_of(&channel).into_iter().enumerate() {
        if number % TURN == TURN - 1 {
            tokio::task::yield_now().await;
        }
        // In-process subscribers are no connections, and nobody is there where a session waits for its client.
        let Some(peer) = broker.connection(key).and_then(|connection| connection.peer()) else {
            continue;
        };
        connections += 1;
        if let Some(user) = peer.principal.user()
            && !users.contains(user)
        {
            users.insert(user.to_owned());
        }
        if only_stats || cursor.is_some_and(|cursor| key <= cursor) {
            continue;
        }
        if shown == page {
            more = true;
            continue;
        }
        if shown > 0 {
            members.push(b',');
        }
        write_member(key, &peer, &mut members);
        shown += 1;
        last = Some(key);
    }

    let mut out = format!("{{\"connections\":{connections},\"users\":{}", users.len()).into_bytes();
    if !only_stats {
        out.extend_from_slice(b",\"members\":[");
        out.extend_from_slice(&members);
        out.extend_from_slice(b"],\"next\":");
        write_optional(last.filter(|_| more).map(connection_id).as_deref(), &mut out);
    }
    out.push(b'}');
    Ok(out)
}

fn write_member(key: SubscriberKey, peer: &Peer, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"connection\":");
    write_string(&connection_id(key), out);
    out.extend_from_slice(b",\"user\":");
    write_optional(peer.principal.user(), out);
    out.extend_from_slice(b",\"protocol\":");
    write_string(peer.protocol, out);
    out.extend_from_slice(b",\"since\":");
    write_string(&timestamp(peer.since_ms), out);
    out.push(b'}');
}

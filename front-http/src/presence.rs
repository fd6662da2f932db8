//! `GET /v1/presence/{channel…}`: who is subscribed to a channel, by its name, a wildcard or in a group; in a cluster on
//! any node.

use std::collections::HashSet;

use broker_core::{Action, Broker, Channel, Principal, SubscriberKey};
use http_edge::connection_id;
use serde::Serialize;

use crate::error::Error;
use crate::nodes::{Elsewhere, Page, Question, Replies, Reply, merged};
use crate::query::{Scope, flag, invalid, limit, parameters, read_cursor};
use crate::shown::Member;

/// Subscribers looked at before other tasks get their turn.
const TURN: usize = 1_000;

/// Who is on a channel here: numbers of all, and one page of members.
#[derive(Default)]
pub(crate) struct Present {
    pub(crate) connections: u64,
    pub(crate) users: HashSet<String>,
    pub(crate) page: Page<Member>,
}

/// Which of them are told: up to `limit` after `after`, with so many bytes.
#[derive(Clone, Copy)]
pub(crate) struct Told {
    pub(crate) after: Option<SubscriberKey>,
    pub(crate) limit: usize,
    pub(crate) max_bytes: usize,
}

/// Who is there on this node.
pub(crate) async fn here(broker: &Broker, channel: &Channel, told: Told) -> Present {
    let mut present = Present::default();
    let mut bytes = 0_usize;
    for (number, key) in broker.subscribers_of(channel).into_iter().enumerate() {
        if number % TURN == TURN - 1 {
            tokio::task::yield_now().await;
        }
        // In-process subscribers are no connections, and nobody is there where a session waits for its client.
        let Some(peer) = broker.connection(key).and_then(|connection| connection.peer()) else {
            continue;
        };
        present.connections += 1;
        if let Some(user) = peer.principal.user()
            && !present.users.contains(user)
        {
            present.users.insert(user.to_owned());
        }
        let (page, more) = &mut present.page;
        if *more || told.after.is_some_and(|after| key <= after) {
            continue;
        }
        let member = Member::new(key, &peer);
        bytes += member.weight();
        if page.len() == told.limit || (bytes > told.max_bytes && !page.is_empty()) {
            *more = true;
            continue;
        }
        page.push((key, member));
    }
    present
}

#[derive(Serialize)]
struct Answer {
    connections: u64,
    users: u64,
    #[serde(flatten)]
    members: Option<Members>,
    /// Only said where it is so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

#[derive(Serialize)]
struct Members {
    members: Vec<Member>,
    next: Option<String>,
}

/// Numbers of all, and the members of one page of at most `max_page`, in an order that lasts as long as they stay.
pub(crate) async fn answer(
    broker: &Broker,
    elsewhere: &Elsewhere,
    max_page: usize,
    principal: &Principal,
    channel: &str,
    query: Option<&str>,
) -> Result<Vec<u8>, Error> {
    let (mut only_stats, mut after, mut max, mut scope) = (false, None, max_page, Scope::Cluster);
    for parameter in parameters(query) {
        let (name, value) = parameter?;
        match &*name {
            "stats" => only_stats = flag("stats", &value)?,
            "cursor" => after = Some(read_cursor(&value)?),
            "limit" => max = limit(&value, max_page)?,
            "scope" => scope = Scope::read(&value)?,
            other => return Err(invalid(other, "unknown; known are stats, cursor, limit, scope")),
        }
    }
    let channel = intake::channel(channel)?;
    broker.check_levels(&channel.clone().into())?;
    if !principal.allows(Action::Presence, &channel) {
        return Err(Error::forbidden(principal, "see who is on", &channel));
    }

    let limit = if only_stats { 0 } else { max };
    let own = here(broker, &channel, Told { after, limit, max_bytes: usize::MAX }).await;
    let Present { mut connections, mut users, page } = own;
    let (mut pages, mut partial, mut more_users) = (vec![page], false, 0);
    if scope == Scope::Cluster
        && let Some(own_name) = elsewhere.own_name()
    {
        for (_, member) in pages.iter_mut().flat_map(|(page, _)| page) {
            member.node = Some(own_name.to_owned());
        }
        let question =
            Question::Presence { channel: channel.as_str().into(), after: after.map(connection_id), limit };
        if let Some(Replies { replies, is_whole }) = elsewhere.ask(&question).await? {
            partial = !is_whole;
            for (node, reply) in replies {
                let Reply::Present { connections: number, users: named, more_users: unnamed, members, more } =
                    reply
                else {
                    partial = true;
                    continue;
                };
                connections += number;
                users.extend(named);
                more_users += unnamed;
                let named = |mut member: Member| {
                    member.node = Some(node.clone());
                    Some((member.key()?, member))
                };
                pages.push((members.into_iter().filter_map(named).collect(), more));
            }
        }
    }
    let members = (!only_stats).then(|| {
        let (found, more) = merged(pages, limit);
        let next = found.last().filter(|_| more).map(|(key, _)| connection_id(*key));
        Members { members: found.into_iter().map(|(_, member)| member).collect(), next }
    });
    let users = users.len() as u64 + more_users;
    Ok(serde_json::to_vec(&Answer { connections, users, members, partial }).unwrap_or_default())
}

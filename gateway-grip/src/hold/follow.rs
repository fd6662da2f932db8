//! A stream that goes on at its next link: it is paused, asks, sends what comes, and begins anew behind what it has.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use broker_core::{Filter, HistoryQuery, LeaveReason, MessageId, Order, Replay};
use bytes::Bytes;
use grip::instruct::Hold;
use http::StatusCode;
use websocket_over_http::id_of;

use super::form::chunk;
use super::held::{Held, Linking};
use super::links::resolve;
use super::position::{Begin, begin, filters};
use super::stream::work_off;
use super::told::{self, Initial, Told};

/// How far back the id of what a client has last is looked for.
const LOOKED_THROUGH: usize = 16;

/// Asks the next link of a stream, and those that follow at once. `None`: there is none, or the stream is over.
pub(super) async fn follow(held: &Arc<Held>) -> Option<Vec<Replay>> {
    let linking = held.linking.as_deref()?;
    match followed(held, linking).await {
        Ok(replays) => replays,
        Err(why) => {
            tracing::warn!(
                target: "fanwire::gateway", route = %held.from.backend.route().id, error = why,
                "a stream ends, as it cannot go on"
            );
            held.end(LeaveReason::Closed);
            None
        }
    }
}

async fn followed(held: &Arc<Held>, linking: &Linking) -> Result<Option<Vec<Replay>>, String> {
    let (route, broker) = (held.from.backend.route(), &held.holds.broker);
    let last_of = |channel: &str| held.holds.desk.last_of(channel);
    // Before it is paused: what is published from here on it gets at the latest when it begins anew.
    let since = broker.position();
    let mut was_live: Vec<Filter> = Vec::new();
    loop {
        let (path, next, live) = {
            let mut way = linking.way.lock();
            // It stays until it is answered: a gap that is found meanwhile is filled by it.
            let Some(next) = way.next.clone() else { return Ok(None) };
            (way.path.clone(), next, std::mem::take(&mut way.filters))
        };
        held.pause(&live).await;
        was_live.extend(live);
        work_off(held).await;
        linking.has_gap.store(false, Relaxed);
        if held.is_over() {
            return Ok(None);
        }
        let uri = resolve(&path, &next.uri, &linking.hosts)?;
        let last = last_ids(held).await;
        let answer =
            held.holds.links.ask(&route.id, &held.from.backend, &uri, &linking.headers, last).await?;
        let now = broker.position();
        let status = StatusCode::from_u16(answer.status).unwrap_or_default();
        let body = Initial::Whole(answer.body.clone());
        let Told { instruction, body, .. } =
            told::of(route, &linking.headers, status, answer.headers.clone(), body)?;
        if instruction.hold == Some(Hold::Response) {
            return Err("its link is answered with a response that waits".to_owned());
        }
        let body = body.collect(route.timeout).await?;
        held.channels.lock().renew(&instruction);
        {
            let mut way = linking.way.lock();
            way.go_on(uri, instruction.next.clone());
            way.keep_alive = instruction.keep_alive.clone().map(Box::new).or(way.keep_alive.take());
        }
        send(held, body).await?;
        match instruction.hold {
            Some(_) => {}
            None if instruction.next.is_some() => continue,
            None => {
                held.end(LeaveReason::Closed);
                return Ok(None);
            }
        }
        let filters = filters(&route.channel_prefix, &instruction)?;
        // Asked just now, an origin that names what was never published here has told the client all up to there.
        let (Begin::After { mut positions, .. } | Begin::Lost { mut positions }) =
            begin(broker, &instruction, &filters, since, &last_of).await;
        for ((filter, channel), position) in filters.iter().zip(&instruction.channels).zip(&mut positions) {
            if was_live.contains(filter) {
                // It has that already, whatever its origin knows of.
                *position = held.inbox.reached().map_or(*position, |reached| reached.later(*position));
            } else if channel.prev_id.is_none() {
                *position = now;
            }
        }
        held.inbox.filter(held.channels.lock().has_filters());
        let replays = held.subscribe(&filters, &positions).await?;
        linking.way.lock().filters = filters;
        return Ok(Some(replays));
    }
}

async fn send(held: &Held, body: Bytes) -> Result<(), String> {
    const PIECE: usize = 64 << 10;
    let building = held.channels.lock().build_id().transpose()?;
    let mut body = building.map_or(Ok(body.clone()), |building| building.whole(&body))?;
    while !body.is_empty() {
        held.outbox.drained().await;
        held.send(chunk(&body.split_to(PIECE.min(body.len()))));
    }
    Ok(())
}

/// What the client has last of each channel, for `Grip-Last`.
pub(super) async fn last_ids(held: &Held) -> Vec<String> {
    let known = held.channels.lock().names();
    let mut last = Vec::new();
    for (name, mut id) in known {
        let full = format!("{}{name}", held.from.backend.route().channel_prefix);
        if let (Ok(channel), Some(reached)) = (broker_core::Channel::parse(&full), held.inbox.reached()) {
            let mut query = HistoryQuery::default();
            (query.limit, query.order) = (LOOKED_THROUGH, Order::Newest);
            let history = held.holds.broker.read_history(&Filter::literal(channel), query).await;
            let messages = history.map(|history| history.messages).unwrap_or_default();
            let has = |at: Option<MessageId>| at.is_some_and(|at| reached.has(at));
            let newest = messages.iter().filter(|message| has(message.id())).find_map(|one| id_of(one));
            id = newest.map(str::to_owned).or(id);
        }
        last.extend(id.map(|id| grip::link::last(&name, &id)));
    }
    last
}

/// Where the channels of a stream stand; those that have not moved had no traffic.
pub(super) fn heads(held: &Held) -> Vec<Option<MessageId>> {
    let Some(linking) = &held.linking else { return Vec::new() };
    let filters = linking.way.lock().filters.clone();
    let mut query = HistoryQuery::default();
    (query.limit, query.order) = (1, Order::Newest);
    let head = |filter: &Filter| held.holds.broker.history(filter, query).messages.first()?.id();
    filters.iter().map(head).collect()
}

/// Whether every channel had traffic between the two.
pub(super) fn all_moved(before: &[Option<MessageId>], now: &[Option<MessageId>]) -> bool {
    !now.is_empty() && before.len() == now.len() && before.iter().zip(now).all(|(before, now)| before != now)
}

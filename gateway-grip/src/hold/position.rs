//! Where a hold begins: behind what its origin says that the client has.

use std::time::Duration;

use broker_core::{Broker, Channel, Filter, HistoryQuery, MessageId, Order, Position};
use grip::instruct::Instruction;
use websocket_over_http::{id_of, is_after};

/// How far back an id is looked for, in messages of its channel: a few at first, as it is usually the last.
const LOOKED_THROUGH: [usize; 2] = [16, 10_000];

/// How long an id is waited for that nobody has published yet: an origin may answer with what it is just publishing.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// Where a hold begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Behind these positions, one for each channel. `is_behind`: something lay behind one of them already.
    After { positions: Vec<Position>, is_behind: bool },
    /// What the client lacks on some channel is not there any more; these are the positions of the others, and `since` in
    /// its place.
    Lost { positions: Vec<Position> },
}

/// The channels of an instruction as filters, behind the prefix of the route.
///
/// # Errors
/// A name that no channel can have.
pub(crate) fn filters(prefix: &str, told: &Instruction) -> Result<Vec<Filter>, String> {
    let filter = |name: &str| {
        let channel = Channel::parse(&format!("{prefix}{name}")).map_err(|error| error.to_string())?;
        match channel.is_reserved() {
            true => Err(format!("channel {name:?} is the broker's own")),
            false => Ok(Filter::literal(channel)),
        }
    };
    told.channels.iter().map(|channel| filter(&channel.name)).collect()
}

/// Where a hold on these begins: behind `since`, or what the origin names.
pub(crate) async fn begin(
    broker: &Broker,
    told: &Instruction,
    filters: &[Filter],
    since: Position,
    last_of: &(dyn Fn(&str) -> Option<String> + Sync),
) -> Begin {
    let mut positions = Vec::with_capacity(filters.len());
    let (mut is_behind, mut is_lost) = (false, false);
    for (channel, filter) in told.channels.iter().zip(filters) {
        let Some(wanted) = &channel.prev_id else {
            positions.push(since);
            continue;
        };
        let mut tries = 0;
        let found = loop {
            match find(broker, filter, wanted, since, last_of).await {
                Found::Unknown if tries < TRIES => tries += 1,
                found => break found,
            }
            tokio::time::sleep(PAUSE).await;
        };
        match found {
            Found::At(position, more) => {
                is_behind |= more;
                positions.push(position);
            }
            Found::Live => positions.push(since),
            Found::Unknown => {
                is_lost = true;
                positions.push(since);
            }
        }
    }
    if is_lost { Begin::Lost { positions } } else { Begin::After { positions, is_behind } }
}

enum Found {
    /// Here, or missing right before what is here; and whether something lies behind it.
    At(Position, bool),
    /// It is the last that is known, or nothing is known.
    Live,
    /// Others are known, and not this one.
    Unknown,
}

async fn find(
    broker: &Broker,
    filter: &Filter,
    wanted: &str,
    since: Position,
    last_of: &(dyn Fn(&str) -> Option<String> + Sync),
) -> Found {
    let (mut newest, mut next) = (None, None);
    for limit in LOOKED_THROUGH {
        let mut query = HistoryQuery::default();
        (query.limit, query.order) = (limit, Order::Newest);
        let Ok(history) = broker.read_history(filter, query).await else { return Found::Unknown };
        let is_all = history.messages.len() < limit;
        for message in &history.messages {
            if is_after(message, wanted) {
                next = message.id();
            }
            let Some(id) = id_of(message) else { continue };
            if id == wanted
                && let Some(at) = message.id()
            {
                return Found::At(since.with(at), newest.is_some());
            }
            newest.get_or_insert_with(|| id.to_owned());
        }
        if is_all {
            break;
        }
    }
    if let Some(next) = next {
        // It was never published here, and what comes after it was: nothing of that may be left out.
        let before = MessageId::new(next.epoch(), next.offset().saturating_sub(1));
        return Found::At(since.with(before), true);
    }
    let name = filter.as_literal().map(Channel::as_str).unwrap_or_default();
    match last_of(name).or(newest) {
        Some(last) if last != wanted => Found::Unknown,
        _ => Found::Live,
    }
}

//! The replay extension in Salesforce's form: where a subscription starts.
//!
//! The handshake asks for it with `ext.replay: true`; a subscribe then names a position per channel,
//! `ext.replay: {"/ch": -1 | -2 | id}`: only new events, all that are kept, or those after an id. An id
//! is the event's `data.event.replayId` or `ext.replay`. Both say of which life of the log they are: the past of
//! another one is gone, and a position in it is refused.

use broker_core::{After, Broker, Filter, HistoryQuery, MessageId, Position, SubscribeError};
use serde_json::value::RawValue;

use crate::codec::message::string;
use crate::codec::replay_id;
use crate::error::Fault;

/// Where a subscription to `filter` starts; `None` means live.
pub(super) async fn position(
    broker: &Broker,
    asked: &RawValue,
    filter: &Filter,
) -> Result<Option<After>, Fault> {
    let text = string(asked).unwrap_or_else(|| asked.get().into());
    let invalid = || Fault::ReplayInvalid(text.chars().take(64).filter(|c| !c.is_control()).collect());
    let stand = broker.position_of([filter]);
    let id = match (text.parse::<i64>(), text.parse::<Position>()) {
        (Ok(-1), _) => return Ok(None),
        (Ok(-2), _) => return Ok(Some(After::Earliest)),
        (Ok(integer), _) => u64::try_from(integer).ok().and_then(|integer| {
            // Over two logs one integer is no position.
            stand.only().and_then(|head| replay_id::parse(integer, head)).map(Position::from)
        }),
        (Err(_), id) => id.ok(),
    };
    let id = id.ok_or_else(invalid)?;
    let mut query = HistoryQuery::default();
    query.after = Some(id);
    query.limit = 1;
    let is_given = |head: MessageId| id.in_epoch(head.epoch()).is_some_and(|offset| offset <= head.offset());
    if !stand.ids().all(is_given) {
        return Err(invalid());
    }
    if broker.read_history(filter, query).await.map_err(SubscribeError::from)?.gap {
        return Err(invalid());
    }
    Ok(Some(After::Position(id)))
}

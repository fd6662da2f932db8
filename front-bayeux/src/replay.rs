//! The replay extension in Salesforce's form: a subscription that starts in the past.
//!
//! The handshake asks for it with `ext.replay: true`; a subscribe then names a position per channel,
//! `ext.replay: {"/ch": -1 | -2 | id}`: only new events, all that are kept, or those after an id. An id
//! is the event's `data.event.replayId` or `ext.replay`. Both say of which life of the log they are: the past of
//! another one is gone, and a position in it is refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::{Action, After, Broker, Filter, HistoryQuery, MessageId};
use serde_json::value::RawValue;

use crate::codec::message::{field, string};
use crate::codec::replay_id;
use crate::error::Fault;
use crate::front::Shared;
use crate::registry::Member;

/// Messages read from the log at a time.
const PAGE_MESSAGES: usize = 256;

/// How often a replay looks whether its slow reader has made room.
const PACE: Duration = Duration::from_millis(20);

impl Shared {
    /// Where a subscription to `name` starts; `None` means live.
    pub(crate) fn replay_from(
        &self,
        ext: Option<&RawValue>,
        name: &str,
        filter: &Filter,
    ) -> Result<Option<After>, Fault> {
        let Some(asked) = ext.and_then(|ext| field(ext, "replay")).and_then(|replay| field(replay, name))
        else {
            return Ok(None);
        };
        let text = string(asked).unwrap_or_else(|| asked.get().into());
        let invalid = || Fault::ReplayInvalid(text.chars().take(64).filter(|c| !c.is_control()).collect());
        let head = self.broker.head();
        let id = match (text.parse::<i64>(), text.parse::<MessageId>()) {
            (Ok(-1), _) => return Ok(None),
            (Ok(-2), _) => return Ok(Some(After::Earliest)),
            (Ok(integer), _) => {
                u64::try_from(integer).ok().and_then(|integer| replay_id::parse(integer, head))
            }
            (Err(_), id) => id.ok(),
        };
        let id = id.ok_or_else(invalid)?;
        let query = HistoryQuery { after: Some(id), limit: 1, ..HistoryQuery::default() };
        if id.epoch != head.epoch || id.offset > head.offset || self.broker.history(filter, query).gap {
            return Err(invalid());
        }
        Ok(Some(After::Id(id)))
    }

    /// Starts a replay for a subscription that is noted already.
    pub(crate) fn replay(&self, member: &Arc<Member>, filter: &Filter, tag: u32, after: After) {
        let filters = member.filters();
        member.mailbox.with(|state| state.begin_replay(filters));
        let (broker, member, filter) = (self.broker.clone(), Arc::clone(member), filter.clone());
        tokio::spawn(async move {
            run(&broker, &member, &filter, tag, after).await;
            // What was on its way when the replay ended may still be a message that it brought.
            broker.drained().await;
            member.mailbox.with(|state| state.end_replay());
        });
    }
}

/// Pages through the log as fast as the session takes it, and leaves the last stretch to the core,
/// which goes live without a gap.
async fn run(broker: &Broker, member: &Member, filter: &Filter, tag: u32, mut after: After) {
    let is_wanted = || member.holds(filter, tag) && member.mailbox.end().is_none();
    loop {
        let position = match after {
            After::Id(id) => Some(id),
            After::Earliest => None,
        };
        let query = HistoryQuery { after: position, limit: PAGE_MESSAGES, ..HistoryQuery::default() };
        let page = broker.history(filter, query).messages;
        // The core reads its pages without asking the session's queue for room: they must be few.
        if page.len() < PAGE_MESSAGES {
            break;
        }
        while !member.mailbox.has_room() {
            if !is_wanted() {
                return;
            }
            tokio::time::sleep(PACE).await;
        }
        for message in page {
            if !is_wanted() {
                return;
            }
            if let Some(id) = message.id() {
                after = After::Id(id);
            }
            if member.principal.allows(Action::Subscribe, message.channel()) {
                member.mailbox.deliver_replayed(Instant::now(), &message);
            }
        }
        tokio::task::yield_now().await;
    }
    if !is_wanted() {
        return;
    }
    let Ok(replay) = member.subscriber.subscribe_after(&[(filter.clone(), tag)], after) else { return };
    replay.run(|_| {}).await;
    if !is_wanted() {
        member.subscriber.unsubscribe(filter, tag);
    }
}

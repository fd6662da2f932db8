//! What other nodes ask of this one: they have looked at the rights of whoever wants it.

use std::time::Duration;

use broker_core::{Broker, ContentType, SendError};
use bytes::Bytes;
use http_edge::parse_connection_id;

use crate::connections::{self, Direct, Forced, Sought};
use crate::error::Error;
use crate::nodes::{Elsewhere, Question, Reply};
use crate::presence::{self, Present, Told};
use crate::revocations::revoke_here;
use crate::shown::Shown;
use crate::stats::Counters;

/// About how long an answer may become: 512 KiB go from node to node.
const MAX_REPLY_BYTES: usize = 384 * 1024;

/// Of one client's subscriptions, so many bytes at most are told.
const MAX_SUBSCRIPTION_BYTES: usize = 16 * 1024;

/// Of the users on a channel, so many bytes of names at most; the others are counted.
const MAX_USER_BYTES: usize = 64 * 1024;

/// The answer to a question; `None` for one that this version does not know.
pub(crate) async fn answer(
    broker: &Broker,
    counters: &Counters,
    elsewhere: &Elsewhere,
    max_page: usize,
    question: &Bytes,
) -> Option<Vec<u8>> {
    let (question, body) = Question::read(question)?;
    if question == Question::Report {
        return elsewhere.own().map(|own| Reply::Report(Box::new(own)).write());
    }
    let reply = match reply(broker, counters, max_page, question, body).await {
        Ok(reply) => reply,
        Err(Error::Gone | Error::Send(SendError::Gone)) => Reply::Gone,
        Err(error) => Reply::refused(error),
    };
    Some(reply.write())
}

async fn reply(
    broker: &Broker,
    counters: &Counters,
    max_page: usize,
    question: Question<'_>,
    body: Bytes,
) -> Result<Reply, Error> {
    let read_key = |id: Option<String>| id.and_then(|id| parse_connection_id(&id));
    Ok(match question {
        Question::List { user, channel, after, limit } => {
            let channel = channel.map(|channel| intake::channel(&channel)).transpose()?;
            let sought = Sought { user: user.as_deref(), channel: channel.as_ref(), after: read_key(after) };
            let fit = |shown: &mut Shown| {
                shown.cut_subscriptions(MAX_SUBSCRIPTION_BYTES);
                serde_json::to_vec(shown).map_or(0, |shown| shown.len())
            };
            let limit = limit.clamp(1, max_page.max(1));
            let (page, more) = connections::page(broker, &sought, limit, MAX_REPLY_BYTES, fit).await;
            Reply::Page { connections: page.into_iter().map(|(_, shown)| shown).collect(), more }
        }
        Question::Show { id } => {
            let mut shown = connections::show(broker, &id)?;
            shown.cut_subscriptions(MAX_USER_BYTES);
            Reply::Shown(Box::new(shown))
        }
        Question::Close { id, reason } => {
            connections::close(broker, counters, &id, reason.map(Into::into))?;
            Reply::Done
        }
        Question::Send { id, channel, content_type, event, ttl_ms } => {
            let direct = Direct {
                channel: intake::target(&channel)?,
                content_type: content_type.as_deref().map(ContentType::new),
                event: event.as_deref(),
                ttl: ttl_ms.map(Duration::from_millis),
                body,
            };
            Reply::Queued { bytes: connections::send(broker, counters, &id, direct).await? }
        }
        Question::Subscribe { id, filter } => {
            let filter = intake::filter(&filter)?;
            connections::change_subscription(broker, counters, &id, &filter, Forced::Subscribe)?;
            Reply::Done
        }
        Question::Unsubscribe { id, filter } => {
            let filter = intake::filter(&filter)?;
            connections::change_subscription(broker, counters, &id, &filter, Forced::Unsubscribe)?;
            Reply::Done
        }
        Question::Revoke { user } => Reply::Closed(revoke_here(broker, counters, &user).await),
        Question::Presence { channel, after, limit } => {
            let channel = intake::channel(&channel)?;
            let told =
                Told { after: read_key(after), limit: limit.min(max_page), max_bytes: MAX_REPLY_BYTES / 2 };
            let Present { connections, users, page: (page, more) } =
                presence::here(broker, &channel, told).await;
            let mut bytes = 0;
            let (named, unnamed): (Vec<_>, Vec<_>) = users.into_iter().partition(|user| {
                bytes += user.len();
                bytes <= MAX_USER_BYTES
            });
            Reply::Present {
                connections,
                users: named,
                more_users: unnamed.len() as u64,
                members: page.into_iter().map(|(_, member)| member).collect(),
                more,
            }
        }
        // Answered before: it is not of the broker.
        Question::Report => Reply::Gone,
    })
}

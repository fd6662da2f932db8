//! `/meta/subscribe` and `/meta/unsubscribe`.

use std::borrow::Cow;
use std::sync::Arc;

use broker_core::{After, Client, Filter, Start, SubscribeError};
use serde_json::value::RawValue;

use super::creation::allow_creation;
use super::outcome::Outcome;
use super::position::position;
use super::turn::Turn;
use crate::codec::channel::{self, Pattern};
use crate::codec::message::{self, Message, NoStrings};
use crate::config::Config;
use crate::error::{Denial, Fault};
use crate::hooks::policy::Policy;
use crate::sessions::Sessions;
use crate::sessions::member::Member;
use crate::sessions::replay::subscribe_after;

/// What a look into the log costs beside a message that is handled.
const LOOK_INTO_LOG: usize = 16;

/// A filter with the name that the client gave it.
type Named<'a> = (Cow<'a, str>, Filter);

/// Subscribes a session to all that the message names, or to nothing.
pub(super) async fn subscribe(
    sessions: &Sessions,
    policy: &dyn Policy,
    message: &Message<'_>,
    member: &Arc<Member>,
    outcome: &mut Outcome,
    turn: &mut Turn,
) -> Result<(), Fault> {
    let raw = message.subscription.ok_or(Fault::SubscriptionMissing)?;
    let named = filters(raw, sessions.config(), turn).await?;
    for (_, filter) in &named {
        turn.spend(1).await;
        sessions.broker.check_levels(filter)?;
        policy.can_subscribe(&member.principal, filter).map_err(Fault::SubscribeDenied)?;
        if let Some(channel) = filter.as_literal() {
            allow_creation(sessions, policy, &member.principal, &member.new_channels, channel)
                .map_err(Fault::CreateDenied)?;
        }
    }
    if member.subscription_count().saturating_add(named.len()) > sessions.config().max_subscriptions {
        return Err(Fault::TooManySubscriptions);
    }
    if let Some(policy) = sessions.broker.policy() {
        for (_, filter) in &named {
            let mut client = Client::new(&member.principal, "bayeux");
            client.key = Some(member.subscriber.key());
            client.remote = member.address;
            policy.subscribe(&client, filter).await.map_err(SubscribeError::from)?;
        }
    }
    let asked_at = member.replay.then(|| turn.asked_at(&sessions.broker));
    // All positions are judged before the first subscription is made.
    let wanted = positions(sessions, message, member, &named, turn).await?;
    let start = if sessions.config().retained { Start::Retained } else { Start::Live };
    let mut added = Vec::new();
    let mut failed = None;
    for (filter, from) in wanted {
        turn.spend(1).await;
        let subscribed = match from {
            Some(from) => {
                let asked_at = asked_at.unwrap_or_else(|| sessions.broker.position());
                subscribe_after(&sessions.broker, member, filter, from, asked_at)
            }
            None => member.subscribe_live(filter, start),
        };
        let settled = match subscribed {
            Ok(true) => {
                added.push(filter);
                sessions.broker.settled(filter).await
            }
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = settled {
            failed = Some(Fault::from(error));
            break;
        }
    }
    // All or none; and the session may have ended after its subscriptions were taken out.
    if failed.is_some() || member.mailbox.end().is_some() {
        for filter in added {
            member.unsubscribe(filter);
        }
        return Err(failed.unwrap_or(Fault::SubscribeFailed));
    }
    outcome.succeed(message, &sessions.shared, |object| {
        object.raw("subscription", raw.get());
    });
    Ok(())
}

pub(super) async fn unsubscribe(
    sessions: &Sessions,
    message: &Message<'_>,
    member: &Arc<Member>,
    outcome: &mut Outcome,
    turn: &mut Turn,
) -> Result<(), Fault> {
    let raw = message.subscription.ok_or(Fault::SubscriptionMissing)?;
    let named = filters(raw, sessions.config(), turn).await?;
    // A channel that nobody knows is a mistake; one that only this session does not know is fine.
    if let [(_, filter)] = &named[..]
        && let Some(channel) = filter.as_literal()
        && sessions.broker.channel(channel).is_none()
    {
        return Err(Fault::ChannelMissing);
    }
    for (_, filter) in &named {
        turn.spend(1).await;
        member.unsubscribe(filter);
    }
    outcome.succeed(message, &sessions.shared, |object| {
        object.raw("subscription", raw.get());
    });
    Ok(())
}

/// The filters of a subscription with their names; those of `/service/...` are dropped, as nothing is recorded for
/// them.
async fn filters<'a>(raw: &'a RawValue, config: &Config, turn: &mut Turn) -> Result<Vec<Named<'a>>, Fault> {
    if raw.get() == "null" {
        return Err(Fault::SubscriptionMissing);
    }
    let names = message::strings(raw, config.max_subscriptions).map_err(|why| match why {
        NoStrings::WrongType => Fault::SubscriptionInvalid,
        NoStrings::TooMany => Fault::TooManySubscriptions,
    })?;
    if names.is_empty() {
        return Err(Fault::SubscriptionMissing);
    }
    let mut filters = Vec::with_capacity(names.len());
    for name in names {
        turn.spend(1).await;
        match channel::parse_pattern(&name, config.grammar).map_err(|_| Fault::SubscriptionInvalid)? {
            Pattern::Meta => return Err(Fault::SubscribeDenied(Denial::Policy)),
            Pattern::Service => {}
            Pattern::Broadcast(filter) => filters.push((name, filter)),
        }
    }
    Ok(filters)
}

/// The filters with the positions that the message's `ext.replay` names for them; `None` means live.
async fn positions<'n>(
    sessions: &Sessions,
    message: &Message<'_>,
    member: &Member,
    named: &'n [Named<'_>],
    turn: &mut Turn,
) -> Result<Vec<(&'n Filter, Option<After>)>, Fault> {
    let max = sessions.config().max_subscriptions;
    let asked = message.ext.filter(|_| member.replay).and_then(|ext| message::field(ext, "replay"));
    let positions = asked.map(|asked| message::fields(asked, max)).unwrap_or_default();
    let mut wanted = Vec::with_capacity(named.len());
    for (name, filter) in named {
        let from = match positions.get(name) {
            Some(asked) => {
                turn.spend(LOOK_INTO_LOG).await;
                position(&sessions.broker, asked, filter).await?
            }
            None => None,
        };
        wanted.push((filter, from));
    }
    Ok(wanted)
}

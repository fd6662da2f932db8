//! `/meta/subscribe` and `/meta/unsubscribe`.

use std::borrow::Cow;
use std::sync::Arc;

use broker_core::{Filter, Start};
use serde_json::value::RawValue;

use super::{Outcome, Turn};
use crate::codec::channel::{self, Pattern};
use crate::codec::message::{self, Message, NoStrings};
use crate::error::{Denial, Fault};
use crate::front::Shared;
use crate::sessions::registry::Member;

/// What a look into the log costs beside a message that is handled.
const LOOK_INTO_LOG: usize = 16;

impl Shared {
    pub(super) async fn subscribe(
        &self,
        message: &Message<'_>,
        member: &Arc<Member>,
        outcome: &mut Outcome,
        turn: &mut Turn,
    ) -> Result<(), Fault> {
        let raw = message.subscription.ok_or(Fault::SubscriptionMissing)?;
        let named = self.filters(raw, turn).await?;
        for (_, filter) in &named {
            turn.spend(1).await;
            self.broker.check_levels(filter)?;
            self.policy.can_subscribe(&member.principal, filter).map_err(Fault::SubscribeDenied)?;
            if let Some(channel) = filter.as_literal() {
                self.allow_creation(&member.principal, &member.new_channels, channel)
                    .map_err(Fault::CreateDenied)?;
            }
        }
        if member.subscription_count().saturating_add(named.len()) > self.config().max_subscriptions {
            return Err(Fault::TooManySubscriptions);
        }
        let asked_at = if member.replay { turn.asked_at(&self.broker) } else { 0 };
        // All positions are judged before the first subscription is made.
        let asked = message.ext.filter(|_| member.replay).and_then(|ext| message::field(ext, "replay"));
        let positions =
            asked.map(|asked| message::fields(asked, self.config().max_subscriptions)).unwrap_or_default();
        let mut wanted = Vec::with_capacity(named.len());
        for (name, filter) in &named {
            let from = match positions.get(name) {
                Some(asked) => {
                    turn.spend(LOOK_INTO_LOG).await;
                    self.replay_from(asked, filter)?
                }
                None => None,
            };
            wanted.push((filter, from));
        }
        let start = if self.config().retained { Start::Retained } else { Start::Live };
        let mut added = Vec::new();
        let mut failed = None;
        for (filter, from) in wanted {
            turn.spend(1).await;
            let subscribed = match from {
                Some(from) => self.subscribe_after(member, filter, from, asked_at),
                None => member.subscribe_live(filter, start).map_err(Fault::from),
            };
            match subscribed {
                Ok(true) => added.push(filter),
                Ok(false) => {}
                Err(fault) => {
                    failed = Some(fault);
                    break;
                }
            }
        }
        // All or none; and the session may have ended after its subscriptions were taken out.
        if failed.is_some() || member.mailbox.end().is_some() {
            for filter in added {
                member.unsubscribe(filter);
            }
            return Err(failed.unwrap_or(Fault::SubscribeFailed));
        }
        for filter in added {
            self.tell(|listener| listener.subscribed(&member.id, filter));
        }
        self.succeed(message, outcome, |object| {
            object.raw("subscription", raw.get());
        });
        Ok(())
    }

    pub(super) async fn unsubscribe(
        &self,
        message: &Message<'_>,
        member: &Arc<Member>,
        outcome: &mut Outcome,
        turn: &mut Turn,
    ) -> Result<(), Fault> {
        let raw = message.subscription.ok_or(Fault::SubscriptionMissing)?;
        let named = self.filters(raw, turn).await?;
        // A channel that nobody knows is a mistake; one that only this session does not know is fine.
        if let [(_, filter)] = &named[..]
            && let Some(channel) = filter.as_literal()
            && self.broker.channel(channel).is_none()
        {
            return Err(Fault::ChannelMissing);
        }
        for (_, filter) in &named {
            turn.spend(1).await;
            if member.unsubscribe(filter) {
                self.tell(|listener| listener.unsubscribed(&member.id, filter));
            }
        }
        self.succeed(message, outcome, |object| {
            object.raw("subscription", raw.get());
        });
        Ok(())
    }

    /// The filters of a subscription with their names; those of `/service/...` are dropped, as nothing is recorded for
    /// them.
    async fn filters<'a>(
        &self,
        raw: &'a RawValue,
        turn: &mut Turn,
    ) -> Result<Vec<(Cow<'a, str>, Filter)>, Fault> {
        if raw.get() == "null" {
            return Err(Fault::SubscriptionMissing);
        }
        let names = message::strings(raw, self.config().max_subscriptions).map_err(|why| match why {
            NoStrings::WrongType => Fault::SubscriptionInvalid,
            NoStrings::TooMany => Fault::TooManySubscriptions,
        })?;
        if names.is_empty() {
            return Err(Fault::SubscriptionMissing);
        }
        let mut filters = Vec::with_capacity(names.len());
        for name in names {
            turn.spend(1).await;
            match channel::parse_pattern(&name, self.config().grammar)
                .map_err(|_| Fault::SubscriptionInvalid)?
            {
                Pattern::Meta => return Err(Fault::SubscribeDenied(Denial::Policy)),
                Pattern::Service => {}
                Pattern::Broadcast(filter) => filters.push((name, filter)),
            }
        }
        Ok(filters)
    }
}

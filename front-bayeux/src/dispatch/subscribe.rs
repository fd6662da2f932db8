//! `/meta/subscribe` and `/meta/unsubscribe`.

use std::borrow::Cow;
use std::sync::Arc;

use broker_core::{Filter, Start};
use serde_json::value::RawValue;

use super::Outcome;
use crate::codec::channel::{self, Pattern};
use crate::codec::message::{self, Message};
use crate::error::{Denial, Fault};
use crate::front::Shared;
use crate::registry::Member;

impl Shared {
    pub(super) fn subscribe(
        &self,
        message: &Message<'_>,
        member: &Arc<Member>,
        outcome: &mut Outcome,
    ) -> Result<(), Fault> {
        let raw = message.subscription.ok_or(Fault::SubscriptionMissing)?;
        let filters = self.filters(raw)?;
        for filter in &filters {
            self.policy.can_subscribe(&member.principal, filter).map_err(Fault::SubscribeDenied)?;
            if let Some(channel) = filter.as_literal() {
                self.allow_creation(&member.principal, &member.new_channels, channel)
                    .map_err(Fault::CreateDenied)?;
            }
        }
        if member.subscription_count().saturating_add(filters.len()) > self.config().max_subscriptions {
            return Err(Fault::TooManySubscriptions);
        }
        // All positions are judged before the first subscription is made.
        let mut wanted = Vec::with_capacity(filters.len());
        for (filter, name) in filters.iter().zip(self.broadcast_names(raw)) {
            let from = if member.replay { self.replay_from(message.ext, &name, filter)? } else { None };
            wanted.push((filter, from));
        }
        let start = if self.config().retained { Start::Retained } else { Start::Live };
        let mut added = Vec::new();
        let mut failed = false;
        for (filter, from) in wanted {
            let Some(from) = from else {
                match member.subscribe_live(filter, start) {
                    Ok(true) => added.push(filter),
                    Ok(false) => {}
                    Err(_) => {
                        failed = true;
                        break;
                    }
                }
                continue;
            };
            let tag = member.replay_tag();
            if member.note(filter, tag) {
                self.replay(member, filter, tag, from);
                added.push(filter);
            }
        }
        // All or none; and the session may have ended after its subscriptions were taken out.
        if failed || member.mailbox.end().is_some() {
            for filter in added {
                member.unsubscribe(filter);
            }
            return Err(Fault::SubscribeFailed);
        }
        for filter in added {
            self.tell(|listener| listener.subscribed(&member.id, filter));
        }
        self.succeed(message, outcome, |object| {
            object.raw("subscription", raw.get());
        });
        Ok(())
    }

    pub(super) fn unsubscribe(
        &self,
        message: &Message<'_>,
        member: &Arc<Member>,
        outcome: &mut Outcome,
    ) -> Result<(), Fault> {
        let raw = message.subscription.ok_or(Fault::SubscriptionMissing)?;
        let filters = self.filters(raw)?;
        // A channel that nobody knows is a mistake; one that only this session does not know is fine.
        if let [filter] = &filters[..]
            && let Some(channel) = filter.as_literal()
            && self.broker.channel(channel).is_none()
        {
            return Err(Fault::ChannelMissing);
        }
        for filter in &filters {
            if member.is_subscribed(filter) {
                member.unsubscribe(filter);
                self.tell(|listener| listener.unsubscribed(&member.id, filter));
            }
        }
        self.succeed(message, outcome, |object| {
            object.raw("subscription", raw.get());
        });
        Ok(())
    }

    /// The names that [`filters`](Self::filters) made filters of, in the same order.
    fn broadcast_names<'a>(&self, raw: &'a RawValue) -> Vec<Cow<'a, str>> {
        let names = message::strings(raw).unwrap_or_default();
        let is_broadcast = |name: &str| {
            matches!(channel::parse_pattern(name, self.config().grammar), Ok(Pattern::Broadcast(_)))
        };
        names.into_iter().filter(|name| is_broadcast(name)).collect()
    }

    /// The filters of a subscription; those of `/service/...` are dropped, as nothing is recorded for
    /// them.
    fn filters(&self, raw: &RawValue) -> Result<Vec<Filter>, Fault> {
        if raw.get() == "null" {
            return Err(Fault::SubscriptionMissing);
        }
        let names = message::strings(raw).ok_or(Fault::SubscriptionInvalid)?;
        if names.is_empty() {
            return Err(Fault::SubscriptionMissing);
        }
        let mut filters = Vec::with_capacity(names.len());
        for name in &names {
            match channel::parse_pattern(name, self.config().grammar)
                .map_err(|_| Fault::SubscriptionInvalid)?
            {
                Pattern::Meta => return Err(Fault::SubscribeDenied(Denial::Policy)),
                Pattern::Service => {}
                Pattern::Broadcast(filter) => filters.push(filter),
            }
        }
        Ok(filters)
    }
}

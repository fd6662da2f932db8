//! SUBSCRIBE and UNSUBSCRIBE (MQTT 5.0 §3.8 to §3.11).

use std::collections::HashMap;

use broker_core::{Filter, Message, Principal, Qos, Start, SubscribeError};
use bytes::Bytes;

use super::connecting::grant;
use super::connection::{Connection, Output, Why};
use super::rights::may_subscribe;
use super::session::State;
use super::subscriptions::{Placed, Subscription};
use super::wire::Wire;
use crate::codec::{
    self, DecodeError, FilterOptions, Reason, RetainHandling, Subscribe, Unsubscribe, channel_filter,
    split_share,
};
use crate::config::DeniedSubscribe;
use crate::error::subscribe_reason;

/// A SUBSCRIBE on its way into the broker.
#[derive(Debug)]
pub(crate) struct Subscribing {
    packet_id: u16,
    reasons: Vec<Reason>,
    /// Those that the front takes, each subscription once.
    pub(crate) accepted: Vec<Accepted>,
    /// How many of them the broker has been told.
    pub(crate) done: usize,
    /// Where in there a subscription is.
    by_tag: HashMap<u32, usize>,
}

/// One filter the broker has to know.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Its place in the packet; the first, if it is there more than once.
    index: usize,
    /// Its further places.
    repeats: Vec<usize>,
    /// As the client wrote it.
    pub(crate) name: Box<str>,
    pub(crate) target: Target,
    pub(crate) tag: u32,
    pub(crate) start: Start,
    /// The session had no such subscription.
    pub(crate) new: bool,
    /// Set by the transport if the broker refuses.
    pub(crate) failed: Option<SubscribeError>,
}

/// What the broker is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) group: Option<Box<str>>,
    pub(crate) filter: Filter,
}

/// An UNSUBSCRIBE on its way into the broker.
#[derive(Debug)]
pub(crate) struct Unsubscribing {
    /// What was held, and its tag.
    pub(crate) gone: Vec<(Target, u32)>,
    /// How much of it the broker has been told.
    pub(crate) done: usize,
    /// UNSUBACK, to be sent afterwards.
    pub(crate) reply: Bytes,
}

/// A topic filter in the core's terms.
pub(crate) fn target(name: &str) -> Result<Target, &'static str> {
    let share = split_share(name)?;
    let filter = channel_filter(share.map_or(name, |share| share.filter))?;
    Ok(Target { group: share.map(|share| share.group.into()), filter })
}

/// What a session calls a subscription to the core's filter: as a client would write it. A filter that MQTT
/// cannot write has a name no client can use, because U+0000 is in it.
pub(crate) fn forced_name(filter: &Filter) -> String {
    if let Some(channel) = filter.as_literal() {
        let name = channel.as_str();
        let same = target(name).is_ok_and(|target| target.group.is_none() && target.filter == *filter);
        return if same { name.to_owned() } else { format!("\0{filter}") };
    }
    let text = filter.to_string();
    let name: Vec<&str> = text.split('/').map(|level| if level == "*" { "+" } else { level }).collect();
    let name = name.join("/");
    let same = target(&name).is_ok_and(|target| target.group.is_none() && target.filter == *filter);
    if same { name } else { format!("\0{text}") }
}

/// The target of a subscription by the session's name for it.
pub(crate) fn target_of(name: &str) -> Option<Target> {
    match name.strip_prefix('\0') {
        Some(text) => Some(Target { group: None, filter: Filter::parse(text).ok()? }),
        None => target(name).ok(),
    }
}

impl Subscribing {
    /// A filter that a packet repeats is one subscription, as its last place says, whose retained messages come once.
    fn accept(&mut self, accepted: Accepted) {
        let known = self.by_tag.get(&accepted.tag).and_then(|at| self.accepted.get_mut(*at));
        let Some(known) = known else {
            self.by_tag.insert(accepted.tag, self.accepted.len());
            return self.accepted.push(accepted);
        };
        known.repeats.push(accepted.index);
        if accepted.start == Start::Retained {
            known.start = Start::Retained;
        }
    }
}

impl Connection {
    pub(super) fn handle_subscribe(&mut self, packet: &Subscribe<'_>) -> Result<(), DecodeError> {
        let mut subscribing = Subscribing {
            packet_id: packet.packet_id,
            reasons: Vec::new(),
            accepted: Vec::new(),
            done: 0,
            by_tag: HashMap::new(),
        };
        self.session.park(self.number);
        let max = self.session.config().max_subscriptions;
        for (index, (name, options)) in packet.filters().enumerate() {
            if index >= max {
                // More than the session may hold, whatever they are: a packet has room for a hundred times as many.
                subscribing.reasons.push(Reason::QuotaExceeded);
                continue;
            }
            let reason = match self.place(index, name, options, packet.subscription_id.unwrap_or(0))? {
                Ok((accepted, granted)) => {
                    subscribing.accept(accepted);
                    granted
                }
                Err(refused) => refused,
            };
            subscribing.reasons.push(reason);
        }
        self.outputs.push_back(Output::Subscribe(subscribing));
        Ok(())
    }

    fn place(
        &mut self,
        index: usize,
        name: &str,
        mut options: FilterOptions,
        id: u32,
    ) -> Result<Result<(Accepted, Reason), Reason>, DecodeError> {
        let Ok(target) = target(name) else { return Ok(Err(Reason::TopicFilterInvalid)) };
        let shared = target.group.is_some();
        if shared && options.no_local && self.dialect.version.is_v5() {
            return Err(DecodeError::protocol("no local on a shared subscription"));
        }
        if self.is_bridge {
            // What the level's bit means: version 3 has no options of its own to say it with.
            options.no_local |= !shared;
            options.retain_as_published = true;
        }
        if !may_subscribe(&self.principal, &target.filter) {
            self.session.count_refused(&self.principal, name);
            return Ok(Err(self.denied()));
        }
        let config = self.session.config();
        options.qos = grant(options.qos, config);
        let placed = self.session.lock_as(self.number).and_then(|mut state| {
            state.subscriptions.place(name, &options, id, shared, config.max_subscriptions)
        });
        let (tag, new) = match placed {
            Some(Placed::New(tag)) => (tag, true),
            Some(Placed::Replaced(tag)) => (tag, false),
            None => return Ok(Err(Reason::QuotaExceeded)),
        };
        let wanted = match options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => new,
            RetainHandling::DoNotSend => false,
        };
        let start = if wanted && !shared { Start::Retained } else { Start::Live };
        let granted = match options.qos {
            Qos::AtMostOnce => Reason::Success,
            Qos::AtLeastOnce => Reason::GrantedQos1,
            Qos::ExactlyOnce => Reason::GrantedQos2,
        };
        Ok(Ok((
            Accepted { index, repeats: Vec::new(), name: name.into(), target, tag, start, new, failed: None },
            granted,
        )))
    }

    /// What a subscription without the right is answered with.
    fn denied(&self) -> Reason {
        match self.session.config().denied_subscribe {
            DeniedSubscribe::NotAuthorized => Reason::NotAuthorized,
            DeniedSubscribe::Unspecified => Reason::UnspecifiedError,
        }
    }

    /// The broker knows the subscriptions, those aside that it refused.
    pub(crate) fn handle_subscribed(
        &mut self,
        now_ms: u64,
        mut subscribing: Subscribing,
        wire: &mut impl Wire,
    ) {
        let mut decided = None;
        for accepted in subscribing.accepted {
            let Some(error) = accepted.failed else { continue };
            // There is one reason string for all filters: the first that says more than its code.
            if matches!(
                error,
                SubscribeError::Forbidden(_) | SubscribeError::Unavailable { what: "policy", .. }
            ) {
                decided.get_or_insert_with(|| error.to_string());
            }
            if accepted.new
                && let Some(mut state) = self.session.lock_as(self.number)
            {
                state.unsubscribe(&accepted.name);
            }
            for index in accepted.repeats.iter().chain([&accepted.index]) {
                if let Some(reason) = subscribing.reasons.get_mut(*index) {
                    *reason = match subscribe_reason(&error) {
                        Reason::NotAuthorized => self.denied(),
                        reason => reason,
                    };
                }
            }
        }
        let why = decided.as_deref().and_then(|why| self.told(Why::Decided(why)));
        let suback = self.within_maximum(why, |why| {
            codec::suback(self.dialect, subscribing.packet_id, &subscribing.reasons, why)
        });
        if suback.len() > self.max_packet_bytes() {
            let why = "SUBACK would be larger than the client's maximum packet size";
            return self.close(Reason::PacketTooLarge, Some(why));
        }
        self.session.unpark(self.number, now_ms, &suback, wire);
    }

    pub(super) fn handle_unsubscribe(&mut self, packet: &Unsubscribe<'_>) {
        let max = self.session.config().max_subscriptions;
        let mut reasons = Vec::new();
        let mut gone = Vec::new();
        for name in packet.filters() {
            let held = self.session.lock_as(self.number).and_then(|mut state| state.unsubscribe(name));
            reasons.push(match held {
                Some(held) => {
                    gone.extend(target(name).ok().map(|target| (target, held.tag)));
                    Reason::Success
                }
                // Not looked at beyond what could be held.
                None if reasons.len() < max && target(name).is_err() => Reason::TopicFilterInvalid,
                None => Reason::NoSubscriptionExisted,
            });
        }
        let reply = codec::unsuback(self.dialect, packet.packet_id, &reasons);
        self.outputs.push_back(Output::Unsubscribe(Unsubscribing { gone, done: 0, reply }));
    }
}

impl State {
    /// Ends a subscription as far as the session is concerned.
    fn unsubscribe(&mut self, name: &str) -> Option<Subscription> {
        let held = self.subscriptions.remove(name)?;
        if let Some(kept) = self.kept_mut() {
            kept.end(held.tag);
        }
        self.leave_group(held.tag);
        Some(held)
    }

    /// The client has other rights than before: what it may no longer hear ends, also what waits for it. What
    /// was sent on this connection is not taken back.
    pub(crate) fn revoke(&mut self, principal: &Principal) -> Vec<(Target, u32)> {
        let held: Vec<Box<str>> = self.subscriptions.iter().map(|held| held.filter.clone()).collect();
        let mut gone = Vec::new();
        for name in held {
            let Some(target) = target_of(&name) else { continue };
            if may_subscribe(principal, &target.filter) {
                continue;
            }
            if let Some(subscription) = self.unsubscribe(&name) {
                gone.push((target, subscription.tag));
            }
        }
        // The lane judged these by the rights of then, and nothing of it will pass there again.
        let is_allowed = |message: &Message| principal.may_see(message.channel());
        if let Some(outbound) = &mut self.outbound {
            self.dropped += outbound.withdraw(is_allowed);
        }
        if let Some(backlog) = &mut self.backlog {
            self.dropped += backlog.retain(is_allowed);
        }
        gone
    }
}

//! Hears of clients from the broker.

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Instant;

use broker_core::{
    Account, Connection, Filter, Interest, LeaveReason, Left, Lifecycle, SubscriberKey, unix_ms,
};
use serde_json::{Map, Value};

use super::clients::{Clients, Gone, Known};
use super::events::Events;
use super::requests::{Requests, Told};

/// What the broker tells. It is held by the broker and holds none: what it tells on is the front's.
pub(crate) struct Listener {
    pub(crate) clients: Weak<Clients>,
    pub(crate) events: Weak<Events>,
    /// Those that clients have made and that are not answered yet.
    pub(crate) requests: Requests,
}

impl Lifecycle for Listener {
    fn joined(&self, client: SubscriberKey, connection: &Arc<dyn Connection>) {
        let Some(clients) = self.clients.upgrade() else { return };
        let Some(peer) = connection.peer().filter(|peer| peer.protocol == "mqtt") else { return };
        let details = connection.details();
        let Some(id) = details.client_id else { return };
        let user = peer.principal.user();
        let known = clients.join(&id, client, (fastrand::u64(..), user), unix_ms());
        let Some(events) = self.events.upgrade() else { return };
        let mut event = event("connected", &id, known.session, user, details.remote);
        event.insert("versionNumber".to_owned(), known.version.into());
        events.tell("presence/connected", &id, event);
    }

    fn left(&self, client: SubscriberKey, how: Left, account: &Account<'_>) {
        let Some(clients) = self.clients.upgrade() else { return };
        // What its last request came to is told before its end is.
        self.requests.end(client, |told| self.tell(told));
        let gone = Gone { at_ms: unix_ms(), reason: reason(how.why, account.was_silent) };
        let left = clients.leave(client, gone, how.stays, Instant::now());
        if !how.stays {
            // One that began since then is for nobody.
            self.requests.forget(client);
        }
        let Some((id, known)) = left else { return };
        let Some(events) = self.events.upgrade().filter(|_| account.was_here) else { return };
        let user = account.principal.and_then(|principal| principal.user());
        let mut event = event("disconnected", &id, known.session, user, account.remote);
        event.insert("versionNumber".to_owned(), known.version.into());
        event.insert("clientInitiatedDisconnect".to_owned(), (how.why == LeaveReason::Client).into());
        event.insert("disconnectReason".to_owned(), gone.reason.into());
        events.tell("presence/disconnected", &id, event);
    }

    fn subscribed(&self, client: SubscriberKey, subscription: Interest<'_>) {
        self.tell_subscription("subscribed", client, subscription);
    }

    fn unsubscribed(&self, client: SubscriberKey, subscription: Interest<'_>) {
        self.tell_subscription("unsubscribed", client, subscription);
    }

    fn request_began(&self, client: SubscriberKey) {
        let Some(clients) = self.clients.upgrade().filter(|_| self.events.strong_count() > 0) else { return };
        if let Some((id, known)) = clients.at(client) {
            self.requests.begin(client, id, known);
        }
        // It may have left since it was found, and then nothing would end it.
        if clients.at(client).is_none() {
            self.requests.forget(client);
        }
    }

    fn request_ended(&self, client: SubscriberKey) {
        self.requests.end(client, |told| self.tell(told));
    }
}

impl Listener {
    fn tell_subscription(&self, kind: &'static str, client: SubscriberKey, subscription: Interest<'_>) {
        let Some(clients) = self.clients.upgrade().filter(|_| self.events.strong_count() > 0) else { return };
        let filter = topic_filter(subscription.filter);
        let topic = match subscription.group {
            Some(group) => format!("$share/{group}/{filter}"),
            None => filter,
        };
        let Some(topic) = self.requests.add(client, kind, topic, |told| self.tell(told)) else { return };
        // No request of the client's: an operator's, or a session's that is brought back.
        if let Some((id, known)) = clients.at(client) {
            self.tell(Told { id: &id, known: &known, kind, topics: vec![topic] });
        }
    }

    fn tell(&self, told: Told<'_>) {
        let Some(events) = self.events.upgrade() else { return };
        let Told { id, known: Known { version, session, user, .. }, kind, topics } = told;
        let mut event = event(kind, id, *session, user.as_deref(), None);
        event.insert("versionNumber".to_owned(), (*version).into());
        event.insert("topics".to_owned(), topics.into());
        events.tell(&format!("subscriptions/{kind}"), id, event);
    }
}

/// What all events have in common. Without a user the client's own identifier stands for it.
fn event(
    kind: &str,
    client: &str,
    session: u64,
    user: Option<&str>,
    remote: Option<IpAddr>,
) -> Map<String, Value> {
    let mut event = Map::new();
    event.insert("clientId".to_owned(), client.into());
    event.insert("timestamp".to_owned(), unix_ms().into());
    event.insert("eventType".to_owned(), kind.into());
    event.insert("sessionIdentifier".to_owned(), format!("{session:016x}").into());
    event.insert("principalIdentifier".to_owned(), user.unwrap_or(client).into());
    if let Some(remote) = remote {
        event.insert("ipAddress".to_owned(), remote.to_string().into());
    }
    event
}

/// Why a client left, in AWS' words.
fn reason(why: LeaveReason, was_silent: bool) -> &'static str {
    match why {
        LeaveReason::Client => "CLIENT_INITIATED_DISCONNECT",
        LeaveReason::Lost if was_silent => "MQTT_KEEP_ALIVE_TIMEOUT",
        LeaveReason::Lost => "CONNECTION_LOST",
        LeaveReason::TakenOver => "DUPLICATE_CLIENTID",
        LeaveReason::Closed => "API_INITIATED_DISCONNECT",
        LeaveReason::NotAllowed => "AUTH_ERROR",
        LeaveReason::Protocol => "CLIENT_ERROR",
        // Expired, TooSlow, Shutdown.
        _ => "SERVER_INITIATED_DISCONNECT",
    }
}

/// A filter as MQTT writes it.
fn topic_filter(filter: &Filter) -> String {
    if let Some(channel) = filter.as_literal() {
        return channel.as_str().to_owned();
    }
    let text = filter.to_string();
    let levels: Vec<&str> = text.split('/').map(|level| if level == "*" { "+" } else { level }).collect();
    levels.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_told_as_mqtt_writes_them() {
        for (filter, expected) in [("a/b", "a/b"), ("*/a/#", "+/a/#"), ("#", "#"), ("$aws/*", "$aws/+")] {
            assert_eq!(topic_filter(&Filter::parse(filter).unwrap()), expected);
        }
    }

    #[test]
    fn every_reason_to_leave_has_a_word() {
        let words: std::collections::BTreeSet<_> =
            LeaveReason::ALL.into_iter().flat_map(|why| [reason(why, false), reason(why, true)]).collect();
        assert_eq!(words.len(), 8, "{words:?}");
    }
}

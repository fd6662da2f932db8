//! `/v1/connections`: the clients that are attached now, to list, to send to, to close, and to subscribe by force. Those of
//! this node first, then, in a cluster, those of others.

mod local;

use std::borrow::Cow;

use broker_core::{Action, Broker, Details, Filter, Principal};
use bytes::Bytes;
use http::request::Parts;
use http_edge::{Fields, Response, connection_id};
use serde::Serialize;

use crate::answer::no_content;
use crate::error::Error;
use crate::nodes::{Elsewhere, Question, Replies, Reply, merged};
use crate::publish::{Options, content_type};
use crate::query::{Scope, invalid, limit, parameters, read_cursor};
use crate::shown::Shown;
use crate::stats::Counters;

pub(crate) use self::local::{Direct, Sought, change_subscription, close, of_user, page, send, show};

/// The channel of a direct message whose sender names none.
const DEFAULT_CHANNEL: &str = "direct";

/// A longer `?reason=` is cut, in bytes: a WebSocket's close frame takes 123.
const MAX_REASON_BYTES: usize = 120;

/// Who may look at and close connections whatever they are subscribed to: who may manage every channel, with none
/// denied.
pub(crate) fn may_manage_all(principal: &Principal) -> Result<(), Error> {
    let all = intake::filter("**")?;
    if principal.allows_all_of(Action::Manage, &all) {
        return Ok(());
    }
    Err(Error::forbidden(principal, "manage connections on", all))
}

/// Where connections are looked for.
#[derive(Clone, Copy)]
pub(crate) struct Desk<'a> {
    pub(crate) broker: &'a Broker,
    pub(crate) counters: &'a Counters,
    pub(crate) elsewhere: &'a Elsewhere,
    pub(crate) max_page: usize,
}

#[derive(Serialize)]
struct List {
    connections: Vec<Shown>,
    next: Option<String>,
    /// Only said where it is so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

impl Desk<'_> {
    /// A page of connections in an order that lasts as long as they stay.
    pub(crate) async fn list(self, principal: &Principal, query: Option<&str>) -> Result<Vec<u8>, Error> {
        let (mut user, mut channel, mut after, mut scope) = (None, None, None, Scope::Node);
        let mut max = 100.min(self.max_page);
        for parameter in parameters(query) {
            let (name, value) = parameter?;
            match &*name {
                "user" => user = Some(value.into_owned()),
                "channel" => channel = Some(intake::channel(&value)?),
                "cursor" => after = Some(read_cursor(&value)?),
                "limit" => max = limit(&value, self.max_page)?,
                "scope" => scope = Scope::read(&value)?,
                other => {
                    return Err(invalid(other, "unknown; known are user, channel, cursor, limit, scope"));
                }
            }
        }
        match &channel {
            Some(channel) if principal.allows(Action::Manage, channel) => {}
            Some(channel) => {
                return Err(Error::forbidden(principal, "manage connections on", channel));
            }
            None => may_manage_all(principal)?,
        }

        let sought = Sought { user: user.as_deref(), channel: channel.as_ref(), after };
        let own = page(self.broker, &sought, max, usize::MAX, |_| 0).await;
        let mut pages = vec![own];
        let mut partial = false;
        if scope == Scope::Cluster
            && let Some(own_name) = self.elsewhere.own_name()
        {
            for (_, shown) in pages.iter_mut().flat_map(|(page, _)| page) {
                shown.node = Some(own_name.to_owned());
            }
            let question = Question::List {
                user: user.as_deref().map(Cow::from),
                channel: channel.as_ref().map(|channel| channel.as_str().into()),
                after: after.map(connection_id),
                limit: max,
            };
            if let Some(Replies { replies, is_whole }) = self.elsewhere.ask(&question).await? {
                partial = !is_whole;
                for (node, reply) in replies {
                    let Reply::Page { connections, more } = reply else {
                        partial = true;
                        continue;
                    };
                    let named = |mut shown: Shown| {
                        shown.node = Some(node.clone());
                        Some((shown.key()?, shown))
                    };
                    pages.push((connections.into_iter().filter_map(named).collect(), more));
                }
            }
        }
        let (found, more) = merged(pages, max);
        let next = found.last().filter(|_| more).map(|(key, _)| connection_id(*key));
        let connections = found.into_iter().map(|(_, shown)| as_seen_by(principal, shown)).collect();
        Ok(written(&List { connections, next, partial }))
    }

    /// One connection; 410 if it is gone.
    pub(crate) async fn one(self, principal: &Principal, id: &str) -> Result<Vec<u8>, Error> {
        may_manage_all(principal)?;
        let mut shown = match show(self.broker, id) {
            Err(Error::Gone) => {
                match self.elsewhere.ask_whoever_has_it(&Question::Show { id: id.into() }, &[]).await? {
                    (node, Reply::Shown(mut shown)) => {
                        shown.node = Some(node);
                        *shown
                    }
                    _ => return Err(Error::NodeSilent),
                }
            }
            shown => shown?,
        };
        if shown.node.is_none() {
            shown.node = self.elsewhere.own_name().map(str::to_owned);
        }
        Ok(written(&shown))
    }

    /// Sends `body` to one client, on the channel that `?channel=` names. Answered once it has its place in the client's
    /// queue; never waits for the client.
    pub(crate) async fn send(
        self,
        principal: &Principal,
        id: &str,
        parts: &Parts,
        body: Bytes,
    ) -> Result<Vec<u8>, Error> {
        let (options, channel) =
            Options::read_with_channel(parts.uri.query(), &Fields::from(&parts.headers))?;
        for (name, is_given) in [
            ("retain", options.retain.is_some()),
            ("exclude", options.exclude.is_some()),
            ("Idempotency-Key", options.key.is_some()),
        ] {
            if is_given {
                return Err(invalid(name, "means nothing for a direct message"));
            }
        }
        let channel = intake::target(channel.as_deref().unwrap_or(DEFAULT_CHANNEL))?;
        self.broker.check_levels(&channel.clone().into())?;
        if !principal.allows(Action::Manage, &channel) {
            return Err(Error::forbidden(principal, "send to connections on", &channel));
        }
        let content_type = content_type(&Fields::from(&parts.headers))?;
        let direct = Direct {
            channel: channel.clone(),
            content_type: content_type.clone(),
            event: options.event.as_deref(),
            ttl: options.ttl,
            body: body.clone(),
        };
        let bytes = match send(self.broker, self.counters, id, direct).await {
            Err(Error::Send(broker_core::SendError::Gone) | Error::Gone) => {
                let question = Question::Send {
                    id: id.into(),
                    channel: channel.as_str().into(),
                    content_type: content_type.as_ref().map(|content_type| content_type.as_str().into()),
                    event: options.event.as_deref().map(Cow::from),
                    ttl_ms: options.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
                };
                match self.elsewhere.ask_whoever_has_it(&question, &body).await? {
                    (_, Reply::Queued { bytes }) => bytes,
                    _ => return Err(Error::NodeSilent),
                }
            }
            bytes => bytes?,
        };
        Ok(format!("{{\"queued_bytes\":{bytes}}}").into_bytes())
    }

    /// Closes a connection in its protocol's terms.
    pub(crate) async fn close(
        self,
        principal: &Principal,
        id: &str,
        query: Option<&str>,
    ) -> Result<Response, Error> {
        let mut reason = None;
        for parameter in parameters(query) {
            let (name, value) = parameter?;
            match &*name {
                "reason" if value.chars().any(char::is_control) => {
                    return Err(invalid("reason", "holds a control character"));
                }
                "reason" => {
                    reason =
                        Some(cut(&value, MAX_REASON_BYTES).to_owned()).filter(|reason| !reason.is_empty());
                }
                other => return Err(invalid(other, "unknown; known is reason")),
            }
        }
        may_manage_all(principal)?;
        let done = close(self.broker, self.counters, id, reason.clone());
        let question = Question::Close { id: id.into(), reason: reason.map(Cow::from) };
        self.here_or_elsewhere(done, &question).await
    }

    /// Subscribes a client that has not asked for it, or takes a subscription away.
    pub(crate) async fn change_subscription(
        self,
        principal: &Principal,
        id: &str,
        filter: &str,
        change: Forced,
    ) -> Result<Response, Error> {
        let filter: Filter = intake::filter(filter)?;
        if !principal.allows_all_of(Action::Manage, &filter) {
            return Err(Error::forbidden(principal, "manage subscriptions to", &filter));
        }
        let done = change_subscription(self.broker, self.counters, id, &filter, change);
        let (id, filter) = (id.into(), filter.to_string().into());
        let question = match change {
            Forced::Subscribe => Question::Subscribe { id, filter },
            Forced::Unsubscribe => Question::Unsubscribe { id, filter },
        };
        self.here_or_elsewhere(done, &question).await
    }

    async fn here_or_elsewhere(
        self,
        here: Result<(), Error>,
        question: &Question<'_>,
    ) -> Result<Response, Error> {
        match here {
            Err(Error::Gone) => match self.elsewhere.ask_whoever_has_it(question, &[]).await? {
                (_, Reply::Done) => Ok(no_content()),
                _ => Err(Error::NodeSilent),
            },
            done => done.map(|()| no_content()),
        }
    }
}

fn written(answer: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(answer).unwrap_or_default()
}

/// Of its subscriptions only those are shown that the asker may manage: a list of one channel's clients is not to tell
/// what else they hear.
fn as_seen_by(asker: &Principal, mut shown: Shown) -> Shown {
    if may_manage_all(asker).is_err() {
        shown.subscriptions.retain(|text| may_manage(asker, text));
    }
    shown
}

/// Whether a subscription, as [`Details`] write it, is one that `asker` may manage.
fn may_manage(asker: &Principal, subscription: &str) -> bool {
    Details::filter_of(subscription).is_some_and(|filter| asker.allows_filter(Action::Manage, &filter))
}

/// The longest start of a text that has at most so many bytes.
fn cut(text: &str, max_bytes: usize) -> &str {
    let end = (0..=max_bytes).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or(text)
}

/// How an operator changes a client's subscriptions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Forced {
    Subscribe,
    Unsubscribe,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        for (text, max, expected) in
            [("", 3, ""), ("abc", 3, "abc"), ("abcd", 3, "abc"), ("a€", 3, "a"), ("€", 2, "")]
        {
            assert_eq!(cut(text, max), expected, "{text}");
        }
    }
}

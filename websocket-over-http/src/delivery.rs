//! A message on its way to one client, through the filters of the subscription that it comes by. Pure.

use std::collections::HashMap;

use broker_core::{GRANTED_TAG, Message};
use bytes::Bytes;
use grip::Meta;
use grip::filter::{Call, Context, Dropped, Filter, Run, Step};
use grip::publish::{WsKind, WsMessage};

use crate::backlog::NO_TAG;
use crate::frames::{id_of, item_of, plain};

/// What one client is subscribed to, and what is known of it.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    pub(crate) meta: Meta,
    by_tag: HashMap<u32, Subscription>,
    next: u32,
}

#[derive(Debug)]
struct Subscription {
    channel: String,
    filters: Vec<Filter>,
    last_id: Option<String>,
}

/// What becomes of a message.
#[derive(Debug)]
pub(crate) enum Outcome {
    Send(WsKind, Bytes),
    Close(Option<u16>, String),
    Refresh,
    /// A filter has kept it back.
    Filtered,
    /// Somebody is asked first.
    Ask(Box<Asked>, Call),
    Nothing,
}

/// A message about which somebody is asked.
#[derive(Debug)]
pub(crate) struct Asked {
    run: Run,
    kind: WsKind,
    item: Meta,
}

impl Channels {
    /// A new subscription, or the same with other filters; the tag to subscribe with.
    pub(crate) fn add(&mut self, channel: &str, filters: Vec<Filter>) -> u32 {
        let known = self.by_tag.iter_mut().find(|(_, known)| known.channel == channel);
        if let Some((tag, known)) = known {
            known.filters = filters;
            return *tag;
        }
        // Rights do not reach what the origin has decided.
        let tag = GRANTED_TAG | self.next;
        self.next = (self.next + 1) % GRANTED_TAG;
        self.by_tag.insert(tag, Subscription { channel: channel.to_owned(), filters, last_id: None });
        tag
    }

    pub(crate) fn remove(&mut self, channel: &str) {
        self.by_tag.retain(|_, known| known.channel != channel);
    }

    /// The subscription whose message it is. What was sent to the client alone came by none, and goes through the filters
    /// of the one to its channel.
    pub(crate) fn tag_of(&self, message: &Message, tag: u32, prefix: &str) -> u32 {
        if tag != NO_TAG {
            return tag;
        }
        let name = message.channel().as_str().strip_prefix(prefix);
        let found = self.by_tag.iter().find(|(_, known)| Some(&*known.channel) == name);
        found.map_or(tag, |(tag, _)| *tag)
    }

    /// What becomes of a message that came by a subscription.
    pub(crate) fn deliver(&mut self, message: &Message, tag: u32) -> Outcome {
        let (kind, content, meta) = match item_of(message) {
            None => {
                if let (Some(id), Some(known)) = (id_of(message), self.by_tag.get_mut(&tag)) {
                    known.last_id = Some(id.to_owned());
                }
                let (kind, content) = plain(message);
                (kind, content.clone(), Meta::default())
            }
            Some(item) => {
                let filters = match self.by_tag.get_mut(&tag) {
                    Some(known) => {
                        known.last_id = item.id;
                        &known.filters[..]
                    }
                    None => &[],
                };
                match item.message {
                    None => return Outcome::Nothing,
                    Some(WsMessage::Close { code, reason }) => return Outcome::Close(code, reason),
                    Some(WsMessage::Refresh) => return Outcome::Refresh,
                    Some(WsMessage::Send { filters: wanted, .. })
                        if !Filter::fit(filters, wanted.as_deref()) =>
                    {
                        return Outcome::Filtered;
                    }
                    Some(WsMessage::Send { kind, content, .. }) => (kind, content, item.meta),
                }
            }
        };
        let filters = self.by_tag.get(&tag).map_or(&[][..], |known| &known.filters);
        let run = Run::new(filters, content);
        self.step(Asked { run, kind, item: meta })
    }

    /// Goes on with one about which somebody was asked.
    pub(crate) fn answered(
        &self,
        mut asked: Asked,
        status: u16,
        action: Option<&str>,
        body: Bytes,
    ) -> Outcome {
        match asked.run.answered(status, action, body) {
            Ok(()) => self.step(asked),
            Err(dropped) => filtered(&dropped),
        }
    }

    fn step(&self, mut asked: Asked) -> Outcome {
        let ids: Vec<(&str, &str)> = self
            .by_tag
            .values()
            .filter_map(|known| Some((known.channel.as_str(), known.last_id.as_deref()?)))
            .collect();
        let is_subscribed = |channel: &str| self.by_tag.values().any(|known| known.channel == channel);
        let context = Context::new(&self.meta, &asked.item).with_ids(&ids).subscribed(&is_subscribed);
        match asked.run.step(&context) {
            Step::Send(content) => match asked.kind {
                WsKind::Text if std::str::from_utf8(&content).is_err() => {
                    Outcome::Send(WsKind::Binary, content)
                }
                kind => Outcome::Send(kind, content),
            },
            Step::Drop(dropped) => filtered(&dropped),
            Step::Ask(call) => Outcome::Ask(Box::new(asked), call),
        }
    }
}

fn filtered(dropped: &Dropped) -> Outcome {
    if let Dropped::Failed(filter, why) = dropped {
        tracing::debug!(target: "fanwire::gateway", filter = filter.name(), error = %why, "a filter has failed");
    }
    Outcome::Filtered
}

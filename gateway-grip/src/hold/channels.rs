//! What one client is held on, and how a message comes through its filters. Pure.

use broker_core::{GRANTED_TAG, Message};
use bytes::Bytes;
use grip::Meta;
use grip::filter::{BuildId, Context, Filter, Run, Step};
use grip::instruct::Instruction;
use websocket_over_http::{NO_TAG, id_of};

/// Channels of one hold. Their places are the tags of their subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    meta: Meta,
    all: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    name: String,
    filters: Vec<Filter>,
    last_id: Option<String>,
}

/// A content on its way.
#[derive(Debug)]
pub(crate) struct Passing {
    pub(crate) run: Run,
    item: Meta,
}

impl Passing {
    pub(crate) fn new(filters: &[Filter], content: Bytes, item: Meta) -> Self {
        Self { run: Run::new(filters, content), item }
    }
}

impl Channels {
    pub(crate) fn of(told: &Instruction) -> Self {
        let known = told.channels.iter().map(|channel| Known {
            name: channel.name.clone(),
            filters: channel.filters.clone(),
            last_id: channel.prev_id.clone(),
        });
        Self { meta: told.meta.iter().cloned().collect(), all: known.collect() }
    }

    /// Others from now on, if the answer of a link has any; what is known of the client grows.
    pub(crate) fn renew(&mut self, told: &Instruction) {
        for (name, value) in &told.meta {
            self.meta.set(name.clone(), value.clone());
        }
        if told.hold.is_some() {
            self.all = Self::of(told).all;
        }
    }

    /// Each channel, and the id that is known of it.
    pub(crate) fn names(&self) -> Vec<(String, Option<String>)> {
        self.all.iter().map(|known| (known.name.clone(), known.last_id.clone())).collect()
    }

    pub(crate) fn tag(place: usize) -> u32 {
        // Rights do not reach what the origin has decided.
        GRANTED_TAG | u32::try_from(place).unwrap_or_default()
    }

    fn known(&self, tag: u32) -> Option<&Known> {
        self.all.get((tag & !GRANTED_TAG) as usize)
    }

    /// The subscription whose message it is. What was sent to the client alone came by none, and goes through the filters
    /// of the one to its channel.
    pub(crate) fn tag_of(&self, message: &Message, tag: u32, prefix: &str) -> u32 {
        if tag != NO_TAG {
            return tag;
        }
        let name = message.channel().as_str().strip_prefix(prefix);
        self.all.iter().position(|known| Some(&*known.name) == name).map_or(tag, Self::tag)
    }

    /// Whether any channel has filters.
    pub(crate) fn has_filters(&self) -> bool {
        self.all.iter().any(|known| !known.filters.is_empty())
    }

    /// Notes that the client gets this message.
    pub(crate) fn note(&mut self, message: &Message, tag: u32) {
        if let (Some(id), Some(known)) = (id_of(message), self.all.get_mut((tag & !GRANTED_TAG) as usize)) {
            known.last_id = Some(id.to_owned());
        }
    }

    pub(crate) fn filters(&self, tag: u32) -> &[Filter] {
        self.known(tag).map_or(&[], |known| &known.filters)
    }

    fn ids(&self) -> Vec<(&str, &str)> {
        self.all.iter().filter_map(|known| Some((&*known.name, known.last_id.as_deref()?))).collect()
    }

    /// As far as a content comes without anybody being asked.
    pub(crate) fn step(&self, passing: &mut Passing) -> Step {
        let ids = self.ids();
        let is_subscribed = |channel: &str| self.all.iter().any(|known| known.name == channel);
        let context = Context::new(&self.meta, &passing.item).with_ids(&ids).subscribed(&is_subscribed);
        passing.run.step(&context)
    }

    /// What fills ids into what the origin sends itself, if a channel says so.
    pub(crate) fn build_id(&self) -> Option<Result<BuildId, String>> {
        let is_wanted = self.all.iter().any(|known| known.filters.contains(&Filter::BuildId));
        is_wanted.then(|| BuildId::new(&self.meta, self.ids()))
    }
}

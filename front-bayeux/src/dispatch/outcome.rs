//! What a request comes to: replies, events, and perhaps a connect that is to be held.

use std::sync::Arc;

use bytes::Bytes;
use front::RefusedLine;
use serde_json::value::RawValue;

use crate::codec::message::Message;
use crate::codec::object::Object;
use crate::codec::reply::{Advice, Common, put_reply};
use crate::error::Fault;
use crate::protocol::{ConnectAnswer, End};
use crate::sessions::connect_reply::connect_reply;
use crate::sessions::mailbox::UnwrittenReply;
use crate::sessions::member::Member;
use crate::sessions::own_messages;
use crate::sessions::shared::Shared;
use crate::sessions::timestamp::timestamp;

/// Longest `id`, in bytes of JSON text.
pub(super) const MAX_ID_BYTES: usize = 1024;

/// See the module.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Reply objects with commas between them.
    replies: Vec<u8>,
    count: usize,
    /// Events that go before the replies.
    pub(super) events: Vec<Bytes>,
    /// Events that go after them (a handshake's).
    pub(super) late_events: Vec<Bytes>,
    /// A connect that is to be held.
    pub(crate) held: Option<HeldConnect>,
    /// The replies to connects among it.
    pub(crate) unwritten: Vec<UnwrittenReply>,
    /// A session was made, so the browser needs its cookie.
    pub(crate) shook_hands: bool,
}

/// A connect that waits.
pub(crate) struct HeldConnect {
    pub(crate) member: Arc<Member>,
    pub(crate) token: u64,
}

impl Outcome {
    /// All that is to be written, in order. The replies stand as one, commas included.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let replies = (self.count > 0).then_some(&self.replies[..]);
        let events = self.events.iter().map(|event| &event[..]);
        events.chain(replies).chain(self.late_events.iter().map(|event| &event[..]))
    }

    /// Whether there is something to be written at once.
    pub(crate) fn has_objects(&self) -> bool {
        self.count > 0 || !self.events.is_empty()
    }

    pub(super) fn reply(&mut self, common: &Common<'_>, fill: impl FnOnce(&mut Object<'_>)) {
        self.begin_reply();
        put_reply(&mut self.replies, common, fill);
    }

    fn raw_reply(&mut self, object: &[u8]) {
        self.begin_reply();
        self.replies.extend_from_slice(object);
    }

    fn begin_reply(&mut self) {
        if self.count > 0 {
            self.replies.push(b',');
        }
        self.count += 1;
    }

    /// A connect is answered, with the events that wait for it.
    pub(crate) fn answer_connect(&mut self, answer: ConnectAnswer, member: &Member, shared: &Shared) {
        if answer.end == Some(End::Kicked) {
            self.raw_reply(&own_messages::goodbye(member.reason(), &shared.config));
        }
        self.raw_reply(&connect_reply(&answer, &shared.config));
        self.events.extend(answer.events);
    }

    /// A message is done.
    pub(super) fn succeed(
        &mut self,
        message: &Message<'_>,
        shared: &Shared,
        fill: impl FnOnce(&mut Object<'_>),
    ) {
        let timestamp = timestamp(&shared.config, message.stamped.into());
        self.reply(&Common { timestamp: timestamp.as_deref(), ..common(message) }, fill);
    }

    /// A message failed. `line` says who sent it, as far as that is known.
    pub(super) fn fail(
        &mut self,
        message: &Message<'_>,
        fault: &Fault,
        shared: &Shared,
        line: RefusedLine<'_>,
    ) {
        let is_connect = message.channel.is_some_and(|channel| channel.get() == "\"/meta/connect\"");
        let advice = if is_connect { Advice::failed_connect(fault) } else { Advice::failed(fault) };
        if message.channel.is_some_and(|channel| channel.get() != "\"/meta/handshake\"")
            && fault.refuses_its_sender()
        {
            log(message, fault, line);
        }
        self.put_failure(message, fault, advice, shared);
    }

    /// A handshake failed.
    pub(super) fn refuse_handshake(
        &mut self,
        message: &Message<'_>,
        fault: &Fault,
        shared: &Shared,
        line: RefusedLine<'_>,
    ) {
        shared.counters.refused_handshake();
        log(message, fault, line);
        self.put_failure(message, fault, Some(Advice::failed_handshake(fault)), shared);
    }

    fn put_failure(&mut self, message: &Message<'_>, fault: &Fault, advice: Option<Advice>, shared: &Shared) {
        shared.counters.failed();
        if fault.is_denial() {
            shared.counters.refused_right();
        }
        if matches!(fault, Fault::RateLimited { .. }) {
            shared.counters.limited();
        }
        let (error, timestamp) = (fault.wire(), timestamp(&shared.config, message.stamped.into()));
        let common =
            Common { error: Some(&error), advice, timestamp: timestamp.as_deref(), ..common(message) };
        self.reply(&common, |object| {
            if let Some(subscription) = message.subscription.filter(|_| names_subscription(message)) {
                object.raw("subscription", subscription.get());
            }
        });
    }
}

/// Of the error only what stands behind its arguments is written: an argument may be a session's id, which is a secret.
fn log(message: &Message<'_>, fault: &Fault, line: RefusedLine<'_>) {
    let error = fault.wire();
    let what = message.subscription.or(message.channel).map(RawValue::get);
    // It holds what is of here, for as long as that is there.
    let mut line = line;
    line.protocol = "bayeux";
    line.reason = error.splitn(3, ':').nth(2).unwrap_or_default();
    line.what = what.map(|name| name.trim_matches('"'));
    line.log();
}

/// The fields that each reply takes from its request.
fn common<'a>(message: &Message<'a>) -> Common<'a> {
    let is_text = |raw: &&RawValue| raw.get().starts_with('"');
    let echoes = |id: &&RawValue| id.get().len() <= MAX_ID_BYTES && !id.get().starts_with(['{', '[', 'n']);
    Common {
        channel: message
            .channel
            .filter(is_text)
            .filter(|_| !is_repeated(message, "channel"))
            .map(RawValue::get),
        id: message.id.filter(echoes).map(RawValue::get),
        ..Common::default()
    }
}

/// Of a field that came twice neither is echoed.
fn is_repeated(message: &Message<'_>, field: &str) -> bool {
    message.repeated == Some(field)
}

fn names_subscription(message: &Message<'_>) -> bool {
    message
        .channel
        .is_some_and(|channel| matches!(channel.get(), "\"/meta/subscribe\"" | "\"/meta/unsubscribe\""))
        && !is_repeated(message, "subscription")
}

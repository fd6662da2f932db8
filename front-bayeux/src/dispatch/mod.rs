//! One request's messages, in order, against the sessions and the broker; a file for each kind of
//! message.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use broker_core::{Broker, Credentials};
use bytes::Bytes;
use http::{HeaderMap, header};
use serde_json::value::RawValue;

use crate::codec::channel::{self, Grammar, Meta, Target};
use crate::codec::id::ClientId;
use crate::codec::message::{self, Message};
use crate::codec::object::Object;
use crate::codec::reply::{Advice, Common, put_reply};
use crate::config::Transport;
use crate::error::{Denial, Fault};
use crate::front::Shared;
use crate::hooks::listener::Incoming;
use crate::protocol::End;
use crate::sessions::mailbox::Mailbox;
use crate::sessions::registry::Member;
use crate::sessions::socket::Socket;
use crate::sessions::timestamp::timestamp;
use crate::sessions::unwritten::UnwrittenReply;

mod connect;
mod handshake;
mod publish;
mod subscribe;

pub(crate) use handshake::outbox_config;

/// What a request may do before other tasks get their turn: so many messages, or names in subscriptions.
const BEFORE_YIELD: usize = 64;

/// How much a request has done since others had their turn.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    spent: usize,
    /// The log's head at the request's first subscribe that may ask for the past.
    asked_at: Option<u64>,
}

impl Turn {
    /// Counts what is about to be done, and lets others go first when it has become much.
    pub(crate) async fn spend(&mut self, cost: usize) {
        self.spent += cost;
        if self.spent >= BEFORE_YIELD {
            self.spent = 0;
            tokio::task::yield_now().await;
        }
    }

    /// The log's head when this request began to subscribe: what came before has been sent by then, and a replay of it is
    /// asked for again.
    fn asked_at(&mut self, broker: &Broker) -> u64 {
        *self.asked_at.get_or_insert_with(|| broker.head().offset())
    }
}

/// Longest `id`, in bytes of JSON text.
const MAX_ID_BYTES: usize = 1024;

/// The client's name for itself. It is looked for when it is asked for: by a handshake, and most requests are none.
#[derive(Clone, Copy)]
pub(crate) enum UserAgent<'a> {
    In(&'a HeaderMap),
    Known(Option<&'a str>),
}

impl<'a> UserAgent<'a> {
    /// The name, if it is text.
    pub(crate) fn text(self) -> Option<&'a str> {
        match self {
            Self::In(headers) => headers.get(header::USER_AGENT)?.to_str().ok(),
            Self::Known(text) => text,
        }
    }
}

/// Who sent a request, and how.
pub(crate) struct Caller<'a> {
    pub(crate) transport: Transport,
    /// The browser's cookie, over HTTP.
    pub(crate) browser: Option<&'a str>,
    /// More cookies of that name: one may be of the session that another path's server made.
    pub(crate) more_browsers: &'a [&'a str],
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) user_agent: UserAgent<'a>,
    /// What HTTP's headers presented.
    pub(crate) credentials: Credentials<'a>,
    /// Tokens that are tried if that of `credentials` is none that is known.
    pub(crate) more_tokens: &'a [Box<str>],
    /// The socket, over WebSocket.
    pub(crate) socket: Option<&'a mut SocketCaller>,
}

/// What a WebSocket knows of its sessions.
pub(crate) struct SocketCaller {
    /// Made with the socket, until a handshake turns it into a session.
    pub(crate) unborn: Option<(Arc<Mailbox>, Arc<broker_core::Subscriber>)>,
    pub(crate) socket: Socket,
    /// The session that shook hands here, or that the first message named.
    pub(crate) member: Option<Arc<Member>>,
    /// When the held connect's time is over.
    pub(crate) held_until: Option<Instant>,
}

/// What a request comes to.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Reply objects with commas between them.
    pub(crate) replies: Vec<u8>,
    pub(crate) count: usize,
    /// Events that go before the replies.
    pub(crate) events: Vec<Bytes>,
    /// Events that go after them (a handshake's).
    pub(crate) late_events: Vec<Bytes>,
    /// A connect that is to be held.
    pub(crate) held: Option<HeldConnect>,
    /// The replies to connects among it.
    pub(crate) unwritten: Vec<UnwrittenReply>,
    /// A session was made, so the browser needs its cookie.
    pub(crate) shook_hands: bool,
}

/// The sessions that a request has messages of. Their held connects are not woken while it is in progress, also if it ends
/// by its connection's end.
#[derive(Default)]
struct Touched(Vec<Arc<Member>>);

impl Drop for Touched {
    fn drop(&mut self) {
        let now = Instant::now();
        for member in self.0.drain(..) {
            member.mailbox.with(|state| state.session.end_request(now));
            member.mailbox.write(now);
        }
    }
}

/// A connect that waits.
pub(crate) struct HeldConnect {
    pub(crate) member: Arc<Member>,
    pub(crate) token: u64,
}

impl Outcome {
    fn reply(&mut self, common: &Common<'_>, fill: impl FnOnce(&mut Object<'_>)) {
        if self.count > 0 {
            self.replies.push(b',');
        }
        self.count += 1;
        put_reply(&mut self.replies, common, fill);
    }

    /// All that is to be written, in order. The replies stand as one, commas included.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let replies = (self.count > 0).then_some(&self.replies[..]);
        let events = self.events.iter().map(|event| &event[..]);
        events.chain(replies).chain(self.late_events.iter().map(|event| &event[..]))
    }

    pub(crate) fn raw_reply(&mut self, object: &[u8]) {
        if self.count > 0 {
            self.replies.push(b',');
        }
        self.count += 1;
        self.replies.extend_from_slice(object);
    }
}

impl Shared {
    /// Handles a batch. `source` holds the text that the messages borrow from.
    pub(crate) async fn handle_batch(
        &self,
        source: &Bytes,
        messages: &[Message<'_>],
        caller: &mut Caller<'_>,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        // A handshake is alone in its request: what came with it is not applied.
        let shake = messages.iter().find(|message| is_handshake(message));
        let messages = shake.map_or(messages, std::slice::from_ref);
        let mut touched = Touched::default();
        let mut turn = Turn::default();
        for message in messages {
            turn.spend(1).await;
            let now = Instant::now();
            let result = match self.address(message) {
                Ok(Target::Meta(Meta::Handshake)) => match self.incoming(message, None) {
                    Ok(()) => self.handshake(message, caller, &mut outcome).await,
                    Err(fault) => {
                        self.refuse_handshake(message, &fault, &mut outcome);
                        Ok(())
                    }
                },
                Ok(target) => {
                    self.with_session(
                        now,
                        source,
                        message,
                        target,
                        messages.len() == 1,
                        caller,
                        &mut touched,
                        &mut outcome,
                        &mut turn,
                    )
                    .await
                }
                Err(fault) => Err(fault),
            };
            if let Err(fault) = result {
                self.fail(message, &fault, &mut outcome);
            }
        }
        let now = Instant::now();
        for member in std::mem::take(&mut touched.0) {
            let (events, due) = member.mailbox.with(|state| {
                state.session.end_request(now);
                let carries = caller.transport == Transport::LongPolling && state.socket.is_none();
                let events = if carries { state.session.poll_events(now) } else { Vec::new() };
                (events, state.session.is_due(now))
            });
            outcome.events.extend(events);
            if due {
                member.mailbox.write(now);
            }
        }
        outcome
    }

    /// Where a message goes, once its common fields are checked.
    fn address(&self, message: &Message<'_>) -> Result<Target, Fault> {
        if let Some(name) = message.repeated {
            return Err(Fault::FieldRepeated(name));
        }
        let name = message.channel.ok_or(Fault::ChannelMissing)?;
        let name = message::string(name).ok_or(Fault::ChannelInvalid)?;
        let target = channel::parse(&name, self.config().grammar).map_err(|_| Fault::ChannelInvalid)?;
        if message.id.is_some_and(|id| !is_legal_id(id, self.config().grammar)) {
            return Err(Fault::MessageIdInvalid);
        }
        Ok(target)
    }

    #[allow(clippy::too_many_arguments, reason = "the one place where a request's parts meet")]
    async fn with_session(
        &self,
        now: Instant,
        source: &Bytes,
        message: &Message<'_>,
        target: Target,
        alone: bool,
        caller: &mut Caller<'_>,
        touched: &mut Touched,
        outcome: &mut Outcome,
        turn: &mut Turn,
    ) -> Result<(), Fault> {
        let member = match self.identify(message, caller) {
            Ok(member) => member,
            Err(Fault::SessionUnknown) if self.config().publish_without_session => match target {
                Target::Broadcast(channel) => {
                    self.incoming(message, None)?;
                    let principal = self.anonymous(caller).await?;
                    self.publish(source, message, channel, &principal, None)?;
                    self.succeed(message, outcome, |_| {});
                    return Ok(());
                }
                _ => return Err(Fault::SessionUnknown),
            },
            Err(fault) => return Err(fault),
        };
        self.incoming(message, Some(&member.id))?;
        if target == Target::Meta(Meta::Connect) {
            return self.connect(now, message, alone, member, caller, outcome);
        }
        if !touched.0.iter().any(|known| known.id == member.id) {
            member.mailbox.with(|state| state.session.begin_request(now));
            touched.0.push(Arc::clone(&member));
        }
        match target {
            Target::Meta(Meta::Subscribe) => self.subscribe(message, &member, outcome, turn).await,
            Target::Meta(Meta::Unsubscribe) => self.unsubscribe(message, &member, outcome, turn).await,
            Target::Meta(Meta::Disconnect) => {
                self.succeed(message, outcome, |_| {});
                self.end(&member, End::Disconnected);
                Ok(())
            }
            Target::Meta(Meta::Handshake | Meta::Connect) | Target::UnknownMeta => {
                Err(Fault::ChannelCreateDenied(Denial::Policy))
            }
            Target::Service => self.serve(source, message, &member, outcome).await,
            Target::Broadcast(channel) => {
                self.publish(source, message, channel, &member.principal, Some(&member))?;
                self.succeed(message, outcome, |_| {});
                Ok(())
            }
        }
    }

    /// Asks the listener whether the message may go on.
    fn incoming(&self, message: &Message<'_>, client: Option<&ClientId>) -> Result<(), Fault> {
        let Some(listener) = self.listener() else { return Ok(()) };
        let channel = message.channel.and_then(message::string).unwrap_or_default();
        let incoming = Incoming {
            client,
            channel: &channel,
            subscription: message.subscription.map(RawValue::get),
            data: message.data.map(RawValue::get),
            ext: message.ext.map(RawValue::get),
        };
        listener.incoming(&incoming).map_err(Fault::Refused)
    }

    /// The session that a message names, if the caller may use it.
    fn identify(&self, message: &Message<'_>, caller: &mut Caller<'_>) -> Result<Arc<Member>, Fault> {
        let id = message.client_id.and_then(message::string).ok_or(Fault::SessionUnknown)?;
        let id = ClientId::parse(&id).ok_or(Fault::SessionUnknown)?;
        let config = self.config();
        let member = match &mut caller.socket {
            Some(socket) => match &socket.member {
                Some(member) if member.id == id => Arc::clone(member),
                // A session that is over leaves the socket to the next one.
                Some(member) if member.mailbox.end().is_none() => return Err(Fault::SessionUnknown),
                None | Some(_) if config.websocket.require_handshake_per_connection => {
                    return Err(Fault::SessionUnknown);
                }
                None | Some(_) => {
                    let member = self.registry.find(&id).ok_or(Fault::SessionUnknown)?;
                    socket.member = Some(Arc::clone(&member));
                    member
                }
            },
            None => {
                let member = self.registry.find(&id).ok_or(Fault::SessionUnknown)?;
                let known = caller.browser.into_iter().chain(caller.more_browsers.iter().copied());
                let owned = member
                    .browser
                    .as_deref()
                    .is_some_and(|own| known.into_iter().any(|browser| browser == own));
                if !owned && !config.trust_client_session {
                    return Err(Fault::SessionUnknown);
                }
                member
            }
        };
        member.note_alive();
        match member.mailbox.end() {
            None => Ok(member),
            // Its next connect is still told that it shall stay away.
            Some(End::Kicked) if message.channel.is_some_and(|c| c.get() == "\"/meta/connect\"") => {
                self.forget(&member, End::Kicked);
                Ok(member)
            }
            Some(end @ (End::QueueFull | End::ReplayLost)) => {
                self.forget(&member, end);
                Err(Fault::SessionLost(if end == End::QueueFull { "queue_full" } else { "replay_lost" }))
            }
            Some(_) => Err(Fault::SessionUnknown),
        }
    }

    fn succeed(&self, message: &Message<'_>, outcome: &mut Outcome, fill: impl FnOnce(&mut Object<'_>)) {
        let timestamp = timestamp(self.config(), message.stamped.into());
        outcome.reply(&Common { timestamp: timestamp.as_deref(), ..common(message) }, fill);
    }

    fn fail(&self, message: &Message<'_>, fault: &Fault, outcome: &mut Outcome) {
        self.counters().failed();
        let is_connect = message.channel.is_some_and(|channel| channel.get() == "\"/meta/connect\"");
        let advice = if is_connect { Advice::failed_connect(fault) } else { Advice::failed(fault) };
        self.put_failure(message, fault, advice, outcome);
    }

    fn refuse_handshake(&self, message: &Message<'_>, fault: &Fault, outcome: &mut Outcome) {
        self.counters().refused_handshake();
        self.counters().failed();
        self.put_failure(message, fault, Some(Advice::failed_handshake(fault)), outcome);
    }

    fn put_failure(
        &self,
        message: &Message<'_>,
        fault: &Fault,
        advice: Option<Advice>,
        outcome: &mut Outcome,
    ) {
        if fault.is_denial() {
            self.counters().refused_right();
        }
        if matches!(fault, Fault::RateLimited { .. }) {
            self.counters().limited();
        }
        let (error, timestamp) = (fault.wire(), timestamp(self.config(), message.stamped.into()));
        let common =
            Common { error: Some(&error), advice, timestamp: timestamp.as_deref(), ..common(message) };
        outcome.reply(&common, |object| {
            if let Some(subscription) = message.subscription.filter(|_| names_subscription(message)) {
                object.raw("subscription", subscription.get());
            }
        });
    }
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

fn is_handshake(message: &Message<'_>) -> bool {
    message.repeated.is_none()
        && message.channel.and_then(message::string).is_some_and(|name| name == "/meta/handshake")
}

/// Letters and digits, as CometD Java wants them, or a number; `null` counts as absent.
fn is_legal_id(id: &RawValue, grammar: Grammar) -> bool {
    let text = id.get();
    if text.len() > MAX_ID_BYTES {
        return false;
    }
    match text.as_bytes().first() {
        Some(b'"') => {
            grammar == Grammar::Lenient
                || message::string(id).is_some_and(|id| id.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        }
        Some(b'-' | b'0'..=b'9') => true,
        Some(b'n') => true,
        _ => false,
    }
}

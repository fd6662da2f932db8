//! What a message means: one request's messages, in order, against the sessions and the broker. There is a file for
//! each kind of message, and each gets what its kind needs.

use std::sync::Arc;
use std::time::Instant;

use broker_core::Principal;
use bytes::Bytes;
use serde_json::value::RawValue;

use self::caller::Caller;
use self::connect::connect;
use self::handshake::Handshake;
use self::outcome::{MAX_ID_BYTES, Outcome};
use self::publish::{Publisher, publish};
use self::subscribe::{subscribe, unsubscribe};
use self::turn::Turn;
use crate::codec::channel::{self, Grammar, Meta, Target};
use crate::codec::id::ClientId;
use crate::codec::message::{self, Message};
use crate::config::Transport;
use crate::error::{Denial, Fault};
use crate::hooks::listener::Incoming;
use crate::hooks::policy::Policy;
use crate::hooks::service::Services;
use crate::protocol::End;
use crate::sessions::Sessions;
use crate::sessions::member::Member;
use crate::sessions::rate::RateLimit;

pub(crate) mod caller;
mod connect;
mod creation;
mod handshake;
pub(crate) mod outcome;
mod position;
mod publish;
mod service;
mod subscribe;
pub(crate) mod turn;

/// What messages are handled with.
pub(crate) struct Dispatch {
    sessions: Arc<Sessions>,
    policy: Arc<dyn Policy>,
    pub(crate) services: Services,
    /// Channels that publishers without a session bring into being.
    anonymous_channels: RateLimit,
    /// JSON text of the transports in order of liking.
    connection_types: String,
}

/// The sessions that a request has messages of. Their held connects are not woken while it is in progress, also if it
/// ends by its connection's end.
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

/// What is under way of one request.
struct Request<'a, 'c> {
    /// The text that its messages borrow from.
    source: &'a Bytes,
    caller: &'a mut Caller<'c>,
    touched: Touched,
    turn: Turn,
    outcome: Outcome,
    /// Its bytes are in the account of a session.
    is_counted: bool,
}

impl Dispatch {
    pub(crate) fn new(sessions: Arc<Sessions>, policy: Arc<dyn Policy>) -> Self {
        let transports = &sessions.config().transports;
        let names: Vec<String> =
            transports.iter().map(|transport| format!("\"{}\"", transport.name())).collect();
        Self {
            connection_types: format!("[{}]", names.join(",")),
            sessions,
            policy,
            services: Services::default(),
            anonymous_channels: RateLimit::default(),
        }
    }

    /// Handles a batch. `source` holds the text that the messages borrow from.
    pub(crate) async fn handle_batch(
        &self,
        source: &Bytes,
        messages: &[Message<'_>],
        caller: &mut Caller<'_>,
    ) -> Outcome {
        // A handshake is alone in its request: what came with it is not applied.
        let shake = messages.iter().find(|message| is_handshake(message));
        let messages = shake.map_or(messages, std::slice::from_ref);
        let mut request = Request {
            source,
            caller,
            touched: Touched::default(),
            turn: Turn::default(),
            outcome: Outcome::default(),
            is_counted: false,
        };
        for message in messages {
            request.turn.spend(1).await;
            let now = Instant::now();
            let result = match self.address(message) {
                Ok(Target::Meta(Meta::Handshake)) => {
                    self.shake_hands(now, message, &mut request).await;
                    Ok(())
                }
                Ok(target) => {
                    self.with_session(now, message, target, messages.len() == 1, &mut request).await
                }
                Err(fault) => Err(fault),
            };
            if let Err(fault) = result {
                // Once more: only what is refused pays for it.
                let known =
                    fault.refuses_its_sender().then(|| request.caller.identify(message, &self.sessions));
                let member = known.and_then(Result::ok);
                let line = request.caller.refused(member.as_deref());
                request.outcome.fail(message, &fault, &self.sessions.shared, line);
            }
        }
        request.finish()
    }

    /// Where a message goes, once its common fields are checked.
    fn address(&self, message: &Message<'_>) -> Result<Target, Fault> {
        let grammar = self.sessions.config().grammar;
        if let Some(name) = message.repeated {
            return Err(Fault::FieldRepeated(name));
        }
        let name = message.channel.ok_or(Fault::ChannelMissing)?;
        let name = message::string(name).ok_or(Fault::ChannelInvalid)?;
        let target = channel::parse(&name, grammar).map_err(|_| Fault::ChannelInvalid)?;
        if message.id.is_some_and(|id| !is_legal_id(id, grammar)) {
            return Err(Fault::MessageIdInvalid);
        }
        Ok(target)
    }

    async fn shake_hands(&self, now: Instant, message: &Message<'_>, request: &mut Request<'_, '_>) {
        let handshake = Handshake {
            sessions: &self.sessions,
            policy: &*self.policy,
            connection_types: &self.connection_types,
            message,
            bytes: request.source.len(),
            now,
        };
        let result = match self.incoming(message, None) {
            Ok(()) => handshake.run(request.caller, &mut request.outcome).await,
            Err(fault) => Err(fault),
        };
        if let Err(fault) = result {
            let line = request.caller.refused(None);
            request.outcome.refuse_handshake(message, &fault, &self.sessions.shared, line);
        }
    }

    /// Handles a message that names its session, or publishes without one where that is allowed.
    async fn with_session(
        &self,
        now: Instant,
        message: &Message<'_>,
        target: Target,
        alone: bool,
        request: &mut Request<'_, '_>,
    ) -> Result<(), Fault> {
        let sessions = &self.sessions;
        let shared = &sessions.shared;
        let member = match request.caller.identify(message, sessions) {
            Ok(member) => member,
            Err(Fault::SessionUnknown) if shared.config.publish_without_session => {
                let Target::Broadcast(channel) = target else { return Err(Fault::SessionUnknown) };
                self.incoming(message, None)?;
                let publisher = Publisher {
                    principal: &self.anonymous(request.caller).await?,
                    member: None,
                    new_channels: &self.anonymous_channels,
                    remote: request.caller.remote.map(|remote| remote.ip()),
                };
                publish(sessions, &*self.policy, request.source, message, channel, &publisher).await?;
                request.outcome.succeed(message, shared, |_| {});
                return Ok(());
            }
            Err(fault) => return Err(fault),
        };
        if !std::mem::replace(&mut request.is_counted, true) {
            member.mailbox.note_received(request.source.len());
        }
        self.incoming(message, Some(&member.id))?;
        if target == Target::Meta(Meta::Connect) {
            connect(shared, now, message, alone, member, request.caller, &mut request.outcome);
            return Ok(());
        }
        request.touched.begin(now, &member);
        let Request { source, outcome, turn, .. } = request;
        match target {
            Target::Meta(Meta::Subscribe) => {
                subscribe(sessions, &*self.policy, message, &member, outcome, turn).await
            }
            Target::Meta(Meta::Unsubscribe) => unsubscribe(sessions, message, &member, outcome, turn).await,
            Target::Meta(Meta::Disconnect) => {
                outcome.succeed(message, shared, |_| {});
                sessions.end(&member, End::Disconnected);
                Ok(())
            }
            Target::Meta(Meta::Handshake | Meta::Connect) | Target::UnknownMeta => {
                Err(Fault::ChannelCreateDenied(Denial::Policy))
            }
            Target::Service => service::call(&self.services, shared, source, message, &member, outcome).await,
            Target::Broadcast(channel) => {
                let publisher = Publisher {
                    principal: &member.principal,
                    member: Some(&member),
                    new_channels: &member.new_channels,
                    remote: member.address,
                };
                publish(sessions, &*self.policy, source, message, channel, &publisher).await?;
                outcome.succeed(message, shared, |_| {});
                Ok(())
            }
        }
    }

    /// Asks the listener whether the message may go on.
    fn incoming(&self, message: &Message<'_>, client: Option<&ClientId>) -> Result<(), Fault> {
        let Some(listener) = self.sessions.shared.listener() else { return Ok(()) };
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

    /// As whom a caller publishes that has no session.
    async fn anonymous(&self, caller: &Caller<'_>) -> Result<Principal, Fault> {
        let denied = |_| Fault::PublishDenied(Denial::Policy);
        if caller.lacks_request {
            return Err(Fault::PublishDenied(Denial::Policy));
        }
        self.policy.can_handshake(caller.credentials, None).await.map_err(denied)
    }
}

impl Touched {
    /// A message of this session is about to be handled.
    fn begin(&mut self, now: Instant, member: &Arc<Member>) {
        if !self.0.iter().any(|known| known.id == member.id) {
            member.mailbox.with(|state| state.session.begin_request(now));
            self.0.push(Arc::clone(member));
        }
    }
}

impl Request<'_, '_> {
    /// All messages are handled: the replies carry what their sessions got meanwhile.
    fn finish(mut self) -> Outcome {
        let now = Instant::now();
        for member in std::mem::take(&mut self.touched.0) {
            let (events, due) = member.mailbox.with(|state| {
                state.session.end_request(now);
                let carries = self.caller.transport == Transport::LongPolling && state.socket.is_none();
                let events = if carries { state.session.poll_events(now) } else { Vec::new() };
                (events, state.session.is_due(now))
            });
            self.outcome.events.extend(events);
            if due {
                member.mailbox.write(now);
            }
        }
        self.outcome
    }
}

/// Whether a batch is one that makes a session.
pub(crate) fn shakes_hands(messages: &[Message<'_>]) -> bool {
    messages.iter().any(is_handshake)
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

//! One request's messages, in order, against the sessions and the broker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::{
    Channel, Credentials, Echo, Filter, OutboxConfig, Policy as OutboxPolicy, Principal, Properties, Publish,
    PublishError, Rights, Start, unix_ms,
};
use bytes::Bytes;
use serde_json::value::RawValue;

use crate::codec::channel::{self, Grammar, Meta, Pattern, Target};
use crate::codec::id::ClientId;
use crate::codec::message::{self, Message};
use crate::codec::object::Object;
use crate::codec::reply::{Advice, Common, Reconnect, put_reply};
use crate::config::{Config, Transport};
use crate::error::Fault;
use crate::front::Shared;
use crate::listener::Listener;
use crate::mailbox::{Mailbox, Socket};
use crate::policy::HandshakeDenial;
use crate::protocol::queue::QueueLimits;
use crate::protocol::timesync::Timesync;
use crate::protocol::{ConnectRequest, ConnectStep, End, Options, Session, handshake};
use crate::registry::{Capacity, Member, TAG};
use crate::replies;
use crate::service::{ServiceReply, ServiceRequest};

/// Payloads below this are copied out of the request, so that a small message does not keep a large
/// body alive.
const COPY_BELOW_BYTES: usize = 2048;

/// Longest `id`, in bytes of JSON text.
const MAX_ID_BYTES: usize = 1024;

/// Who sent a request, and how.
pub(crate) struct Caller<'a> {
    pub(crate) transport: Transport,
    /// The browser's cookie, over HTTP.
    pub(crate) browser: Option<&'a str>,
    pub(crate) remote: Option<SocketAddr>,
    /// What HTTP's headers presented.
    pub(crate) credentials: Credentials<'a>,
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
    /// A session was made, so the browser needs its cookie.
    pub(crate) shook_hands: bool,
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
        let mut touched: Vec<Arc<Member>> = Vec::new();
        for message in messages {
            let now = Instant::now();
            let result = match self.address(message) {
                Ok(Target::Meta(Meta::Handshake)) => self.handshake(message, caller, &mut outcome).await,
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
        for member in touched {
            let (events, due) = member.mailbox.with(|state| {
                state.session.end_request();
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
        touched: &mut Vec<Arc<Member>>,
        outcome: &mut Outcome,
    ) -> Result<(), Fault> {
        let member = match self.identify(message, caller) {
            Ok(member) => member,
            Err(Fault::SessionUnknown) if self.config().publish_without_session => match target {
                Target::Broadcast(channel) => {
                    let principal = self.anonymous(caller).await?;
                    self.publish(source, message, channel, &principal, None)?;
                    self.succeed(message, outcome, |_| {});
                    return Ok(());
                }
                _ => return Err(Fault::SessionUnknown),
            },
            Err(fault) => return Err(fault),
        };
        if target == Target::Meta(Meta::Connect) {
            return self.connect(now, message, alone, member, caller, outcome);
        }
        if !touched.iter().any(|known| known.id == member.id) {
            member.mailbox.with(|state| state.session.begin_request(now));
            touched.push(Arc::clone(&member));
        }
        match target {
            Target::Meta(Meta::Subscribe) => self.subscribe(message, &member, outcome).await,
            Target::Meta(Meta::Unsubscribe) => self.unsubscribe(message, &member, outcome),
            Target::Meta(Meta::Disconnect) => {
                self.succeed(message, outcome, |_| {});
                self.end(&member, End::Disconnected);
                Ok(())
            }
            Target::Meta(Meta::Handshake | Meta::Connect) | Target::UnknownMeta => {
                Err(Fault::ChannelCreateDenied(crate::error::Denial::Policy))
            }
            Target::Service => self.serve(source, message, &member, outcome).await,
            Target::Broadcast(channel) => {
                self.publish(source, message, channel, &member.principal, Some(&member))?;
                self.succeed(message, outcome, |_| {});
                Ok(())
            }
        }
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
                let owned = member.browser.is_some() && member.browser.as_deref() == caller.browser;
                if !owned && !config.trust_client_session {
                    return Err(Fault::SessionUnknown);
                }
                member
            }
        };
        match member.mailbox.end() {
            None => Ok(member),
            // Its next connect is still told that it shall stay away.
            Some(End::Kicked) if message.channel.is_some_and(|c| c.get() == "\"/meta/connect\"") => {
                self.forget(&member, End::Kicked);
                Ok(member)
            }
            Some(End::QueueFull) => {
                self.forget(&member, End::QueueFull);
                Err(Fault::SessionLost("queue_full"))
            }
            Some(_) => Err(Fault::SessionUnknown),
        }
    }

    async fn handshake(
        &self,
        message: &Message<'_>,
        caller: &mut Caller<'_>,
        outcome: &mut Outcome,
    ) -> Result<(), Fault> {
        let now = Instant::now();
        let config = self.config();
        let refuse = |fault: Fault, advice: Advice, outcome: &mut Outcome| {
            self.counters().refused_handshake();
            self.refuse(message, &fault, advice, outcome);
            Ok(())
        };
        let negotiated = match handshake::negotiate(message, &config.transports, &config.extensions) {
            Ok(negotiated) => negotiated,
            Err(fault) => return refuse(fault, Advice::NONE, outcome),
        };
        if self.is_closing() {
            let advice = Advice { interval_ms: Some(1000), ..Advice::new(Reconnect::Handshake) };
            return refuse(Fault::Closed, advice, outcome);
        }
        let (token, user) = (handshake::token(message), handshake::user(message));
        let mut credentials = caller.credentials;
        if let Some(token) = &token {
            credentials = Credentials { token: Some(token), user: None, password: None, ..credentials };
        } else if let Some((user, password)) = &user {
            credentials = Credentials {
                user: Some(user),
                password: Some(password.as_bytes()),
                token: None,
                ..credentials
            };
        }
        let principal = match self.policy.can_handshake(credentials, message.ext.map(RawValue::get)).await {
            Ok(principal) => principal,
            Err(denial) => {
                let reconnect = match denial {
                    HandshakeDenial::Refused => Reconnect::None,
                    HandshakeDenial::TryAgain | HandshakeDenial::Unavailable => Reconnect::Handshake,
                };
                let interval_ms = (denial == HandshakeDenial::Unavailable).then_some(1000);
                let advice = Advice { interval_ms, ..Advice::new(reconnect) };
                return refuse(Fault::HandshakeDenied, advice, outcome);
            }
        };
        let address = caller.remote.map(|remote| remote.ip());
        let capacity =
            Capacity { max_sessions: config.max_sessions, max_per_address: config.max_sessions_per_address };
        let Ok(id) = ClientId::random() else {
            return refuse(Fault::Busy, Advice::new(Reconnect::Handshake), outcome);
        };
        if self.registry.reserve(address, capacity).is_err() {
            let advice = Advice { interval_ms: Some(5000), ..Advice::new(Reconnect::Handshake) };
            return refuse(Fault::TooManySessions, advice, outcome);
        }

        let timing = config.timing_for(caller.transport);
        let mut session =
            Session::new(now, session_options(config, &principal, now), timing, caller.transport);
        if negotiated.ack {
            session.enable_ack();
        }
        let unborn = caller.socket.as_mut().and_then(|socket| socket.unborn.take());
        let (mailbox, subscriber, own) = match unborn {
            Some((mailbox, subscriber)) => {
                mailbox.begin(session, Some(principal.clone()), negotiated.replay);
                (mailbox, subscriber, true)
            }
            None => {
                let mailbox = Arc::new(Mailbox::new(Arc::clone(&self.common), session));
                mailbox.with(|state| state.set_replay_in_ext(negotiated.replay));
                let subscriber =
                    self.broker.attach_as(Arc::clone(&mailbox) as _, outbox_config(config), &principal);
                (mailbox, Arc::new(subscriber), false)
            }
        };
        let browser = caller.browser.map(Box::from);
        let member =
            Arc::new(Member::new(id, mailbox, subscriber, principal, browser, address, negotiated.replay));
        self.registry.insert(Arc::clone(&member));
        self.counters().shook_hands();
        outcome.shook_hands = true;

        let timesync = message
            .ext
            .filter(|_| config.extensions.timesync)
            .and_then(|ext| Timesync::read(ext, now, unix_ms()))
            .and_then(|timesync| timesync.answer(Instant::now()));
        let (late, batch) = if config.deliver_during_handshake {
            member.mailbox.with(|state| state.session.poll_handshake_events())
        } else {
            (Vec::new(), None)
        };
        let batch = batch.and_then(|batch| i64::try_from(batch).ok());
        let advice = Advice::retry(timing, config.handshake_reconnect);
        let timestamp = replies::timestamp(config);
        let common = Common {
            channel: message.channel.map(RawValue::get),
            id: message.id.map(RawValue::get),
            error: None,
            advice: Some(advice),
            timestamp: timestamp.as_deref(),
        };
        outcome.reply(&common, |object| {
            object.text("version", "1.0").text("minimumVersion", "1.0");
            object.raw("supportedConnectionTypes", &self.connection_types);
            object.text("clientId", &id.to_string());
            if !late.is_empty() {
                object.number("x-messages", i64::try_from(late.len()).unwrap_or(i64::MAX));
            }
            if negotiated.ack || negotiated.replay || timesync.is_some() {
                object.object("ext", |ext| {
                    match batch {
                        Some(batch) if negotiated.ack => {
                            ext.object("ack", |ack| {
                                ack.flag("enabled", true).number("batch", batch);
                            });
                        }
                        _ if negotiated.ack => _ = ext.flag("ack", true),
                        _ => {}
                    }
                    if negotiated.replay {
                        ext.flag("replay", true);
                    }
                    if let Some(fields) = timesync {
                        ext.object("timesync", |timesync| replies::put_timesync(timesync, fields));
                    }
                });
            }
        });
        outcome.late_events = late;
        if let Some(socket) = &mut caller.socket {
            if let Some(previous) = socket.member.replace(Arc::clone(&member)) {
                previous.mailbox.leave_socket(now);
            }
            socket.held_until = None;
            socket.socket.own = own;
            member.mailbox.bind(now, socket.socket.clone());
        }
        Ok(())
    }

    fn connect(
        &self,
        now: Instant,
        message: &Message<'_>,
        alone: bool,
        member: Arc<Member>,
        caller: &mut Caller<'_>,
        outcome: &mut Outcome,
    ) -> Result<(), Fault> {
        let config = self.config();
        // What the client names as its transport is not asked: it is the one that the message came by.
        let millis = |raw: &RawValue| {
            message::integer(raw).and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis)
        };
        let advice = |name| message.advice.and_then(|advice| message::field(advice, name)).and_then(millis);
        let ext = message.ext;
        let request = ConnectRequest {
            id: message.id.map(|id| id.get().into()),
            transport: caller.transport,
            timing: config.timing_for(caller.transport),
            timeout: advice("timeout"),
            interval: advice("interval"),
            has_advice: message.advice.is_some(),
            ack: ext
                .and_then(|ext| message::field(ext, "ack"))
                .and_then(message::integer)
                .and_then(|ack| u64::try_from(ack).ok()),
            timesync: ext
                .filter(|_| config.extensions.timesync)
                .and_then(|ext| Timesync::read(ext, now, unix_ms())),
            alone,
        };
        match &caller.socket {
            Some(socket) => {
                let bound = member.mailbox.with(|state| state.is_bound_to(socket.socket.number));
                if !bound {
                    let own = Arc::ptr_eq(&member.subscriber.outbox(), &socket.socket.outbox);
                    // Before its reply may come what waited for it.
                    member.mailbox.bind(now, Socket { own, ..socket.socket.clone() });
                }
            }
            None => member.mailbox.leave_socket(now),
        }
        let step = member.mailbox.with(|state| state.session.handle_connect(now, request));
        // Whoever holds an older connect finds out.
        member.mailbox.woken().notify_waiters();
        match step {
            ConnectStep::Answer(mut answer) => {
                outcome.events.append(&mut answer.events);
                outcome.raw_reply(&replies::connect(&answer, config));
                if let Some(socket) = &mut caller.socket {
                    socket.held_until = None;
                }
            }
            ConnectStep::Hold { token, until } => match &mut caller.socket {
                Some(socket) => socket.held_until = Some(until),
                None => outcome.held = Some(HeldConnect { member, token }),
            },
        }
        Ok(())
    }

    async fn subscribe(
        &self,
        message: &Message<'_>,
        member: &Arc<Member>,
        outcome: &mut Outcome,
    ) -> Result<(), Fault> {
        let raw = message.subscription.ok_or(Fault::SubscriptionMissing)?;
        let filters = self.filters(raw)?;
        for filter in &filters {
            self.policy.can_subscribe(&member.principal, filter).map_err(Fault::SubscribeDenied)?;
            if let Some(channel) = filter.as_literal()
                && self.broker.channel(channel).is_none()
            {
                self.policy.can_create(&member.principal, channel).map_err(Fault::CreateDenied)?;
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
            // Asked first, because a repeated subscription would bring the retained messages again.
            if member.is_subscribed(filter) {
                continue;
            }
            match from {
                Some(from) => self.replay(member, filter, from),
                None if member.subscriber.subscribe(filter, TAG, start).is_ok() => {
                    member.note(filter.clone(), TAG);
                }
                None => {
                    failed = true;
                    break;
                }
            }
            added.push(filter);
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

    fn unsubscribe(
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
    fn broadcast_names<'a>(&self, raw: &'a RawValue) -> Vec<std::borrow::Cow<'a, str>> {
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
                Pattern::Meta => return Err(Fault::SubscribeDenied(crate::error::Denial::Policy)),
                Pattern::Service => {}
                Pattern::Broadcast(filter) => filters.push(filter),
            }
        }
        Ok(filters)
    }

    fn publish(
        &self,
        source: &Bytes,
        message: &Message<'_>,
        channel: Channel,
        principal: &Principal,
        member: Option<&Arc<Member>>,
    ) -> Result<(), Fault> {
        let data = message.data.ok_or(Fault::DataMissing)?;
        let passed = |listener: &dyn Listener| {
            listener.publishing(member.map(|member| &member.id), &channel, data.get())
        };
        if self.listener().is_some_and(|listener| !passed(&*listener)) {
            return Err(Fault::MessageDeleted);
        }
        self.policy.can_publish(principal, &channel).map_err(Fault::PublishDenied)?;
        if self.broker.channel(&channel).is_none() {
            self.policy.can_create(principal, &channel).map_err(Fault::ChannelCreateDenied)?;
        }
        let mut publish = Publish::new(channel, slice(source, data.get())).json();
        if let Some(ext) = message.ext
            && message::is_object(ext)
        {
            publish = publish
                .properties(Properties { ext: Some(slice(source, ext.get())), ..Properties::default() });
        }
        if let Some(member) = member {
            let echo = if self.config().broadcast_to_publisher { Echo::Deliver } else { Echo::Skip };
            publish = publish.from(member.subscriber.key(), echo);
        }
        match self.broker.publish(publish) {
            Ok(_) => {
                self.counters().published();
                Ok(())
            }
            Err(PublishError::TooLarge { max, .. }) => Err(Fault::MessageTooLarge { max }),
            Err(PublishError::Busy { .. }) => Err(Fault::Busy),
            Err(PublishError::Closed) => Err(Fault::Closed),
            Err(_) => Err(Fault::ChannelCreateDenied(crate::error::Denial::Policy)),
        }
    }

    async fn serve(
        &self,
        source: &Bytes,
        message: &Message<'_>,
        member: &Arc<Member>,
        outcome: &mut Outcome,
    ) -> Result<(), Fault> {
        let name = message.channel.and_then(message::string).unwrap_or_default();
        let Some(handler) = self.services.find(&name) else {
            self.counters().unhandled_service();
            if self.config().refuse_unhandled_services {
                return Err(Fault::ServiceUnhandled);
            }
            self.succeed(message, outcome, |_| {});
            return Ok(());
        };
        let request = ServiceRequest {
            channel: name.clone().into_owned(),
            data: message.data.map(|data| slice(source, data.get())).unwrap_or_default(),
            ext: message.ext.map(|ext| slice(source, ext.get())),
            client: Some(member.id),
            principal: member.principal.clone(),
        };
        let mut handling = handler(request);
        let ready = std::future::poll_fn(|cx| std::task::Poll::Ready(handling.as_mut().poll(cx))).await;
        let id = message.id.map(|id| Box::<str>::from(id.get()));
        match ready {
            std::task::Poll::Ready(reply) => {
                if let ServiceReply::Refused(error) = reply {
                    return Err(Fault::ServiceFailed(error));
                }
                deliver_service_reply(member, &name, id.as_deref(), &reply);
            }
            // A handler that takes its time answers on its own; the batch goes on.
            std::task::Poll::Pending => {
                let (member, name) = (Arc::clone(member), name.into_owned());
                tokio::spawn(async move {
                    let reply = handling.await;
                    deliver_service_reply(&member, &name, id.as_deref(), &reply);
                });
            }
        }
        self.succeed(message, outcome, |_| {});
        Ok(())
    }

    async fn anonymous(&self, caller: &Caller<'_>) -> Result<Principal, Fault> {
        let denied = |_| Fault::PublishDenied(crate::error::Denial::Policy);
        self.policy.can_handshake(caller.credentials, None).await.map_err(denied)
    }

    fn succeed(&self, message: &Message<'_>, outcome: &mut Outcome, fill: impl FnOnce(&mut Object<'_>)) {
        let timestamp = replies::timestamp(self.config());
        outcome.reply(&Common { timestamp: timestamp.as_deref(), ..common(message) }, fill);
    }

    fn fail(&self, message: &Message<'_>, fault: &Fault, outcome: &mut Outcome) {
        self.counters().failed();
        let is_connect = message.channel.is_some_and(|channel| channel.get() == "\"/meta/connect\"");
        // Only a connect (or handshake) is told how to go on; others just learn that it is over.
        let advice = match fault {
            Fault::SessionUnknown | Fault::SessionLost(_) if is_connect => Some(Advice::HANDSHAKE),
            _ => None,
        };
        self.put_failure(message, fault, advice, outcome);
    }

    fn refuse(&self, message: &Message<'_>, fault: &Fault, advice: Advice, outcome: &mut Outcome) {
        self.counters().failed();
        self.put_failure(message, fault, Some(advice), outcome);
    }

    fn put_failure(
        &self,
        message: &Message<'_>,
        fault: &Fault,
        advice: Option<Advice>,
        outcome: &mut Outcome,
    ) {
        let (error, timestamp) = (fault.wire(), replies::timestamp(self.config()));
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
        channel: message.channel.filter(is_text).map(RawValue::get),
        id: message.id.filter(echoes).map(RawValue::get),
        ..Common::default()
    }
}

fn names_subscription(message: &Message<'_>) -> bool {
    message
        .channel
        .is_some_and(|channel| matches!(channel.get(), "\"/meta/subscribe\"" | "\"/meta/unsubscribe\""))
}

fn is_handshake(message: &Message<'_>) -> bool {
    message.channel.and_then(message::string).is_some_and(|name| name == "/meta/handshake")
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

/// The bytes of a part of `source`, shared if that pays.
fn slice(source: &Bytes, part: &str) -> Bytes {
    if part.len() < COPY_BELOW_BYTES {
        Bytes::copy_from_slice(part.as_bytes())
    } else {
        source.slice_ref(part.as_bytes())
    }
}

fn deliver_service_reply(member: &Member, channel: &str, id: Option<&str>, reply: &ServiceReply) {
    let (data, successful) = match reply {
        ServiceReply::Data(data) => (data, true),
        ServiceReply::Failed(data) => (data, false),
        ServiceReply::Accepted | ServiceReply::Refused(_) => return,
    };
    let mut out = Vec::with_capacity(64 + channel.len() + data.len());
    let mut object = Object::new(&mut out);
    object.text("channel", channel);
    if let Some(id) = id {
        object.raw("id", id);
    }
    crate::front::put_data(&mut object, data);
    object.flag("successful", successful);
    object.finish();
    member.mailbox.deliver_direct(Instant::now(), out.into());
}

/// The bounds that a session and the outbox of its socket share.
pub(crate) fn outbox_config(config: &Config) -> OutboxConfig {
    OutboxConfig {
        max_messages: config.max_queue_messages,
        max_bytes: config.max_queue_bytes,
        policy: OutboxPolicy::Disconnect,
    }
}

/// The state machine's part of the configuration.
pub(crate) fn session_options(config: &Config, principal: &Principal, now: Instant) -> Options {
    let credentials_end = principal
        .expires_at_ms()
        .map(|at| now + Duration::from_millis(at.saturating_sub(unix_ms()).min(10 * 365 * 86_400_000)));
    Options {
        limits: QueueLimits { max_messages: config.max_queue_messages, max_bytes: config.max_queue_bytes },
        deliver_only: config.meta_connect_deliver_only,
        max_processing: config.max_processing,
        max_client_timeout: config.max_client_timeout,
        activity: config.extensions.activity,
        tells_max_interval: config.handshake_reconnect,
        credentials_end,
        return_after: Duration::from_millis(1000 + unix_ms() % 1000),
    }
}

/// A session that nobody has shaken hands for yet; its socket's mailbox needs something to hold.
pub(crate) fn unborn_session(config: &Config, now: Instant) -> Session {
    let nobody = Principal::anonymous(Rights::none());
    let transport = Transport::WebSocket;
    Session::new(now, session_options(config, &nobody, now), config.timing_for(transport), transport)
}

//! `/meta/handshake`: from credentials to a session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::{Connection as _, Principal, Reserved, SubscriberKey, unix_ms};
use serde_json::value::RawValue;

use super::caller::Caller;
use super::outcome::Outcome;
use crate::codec::event::Replay;
use crate::codec::id::ClientId;
use crate::codec::message::Message;
use crate::codec::object::Object;
use crate::codec::reply::{Advice, Common};
use crate::error::{Fault, HandshakeDenial};
use crate::hooks::policy::Policy;
use crate::protocol::timesync::Timesync;
use crate::protocol::{Session, handshake};
use crate::sessions::Sessions;
use crate::sessions::connect_reply::put_timesync;
use crate::sessions::member::{Member, Origin};
use crate::sessions::registry::Capacity;
use crate::sessions::timestamp::timestamp;

/// One handshake, and what it is decided with.
pub(super) struct Handshake<'a> {
    pub(super) sessions: &'a Arc<Sessions>,
    pub(super) policy: &'a dyn Policy,
    /// JSON text of the transports in order of liking.
    pub(super) connection_types: &'a str,
    pub(super) message: &'a Message<'a>,
    /// Of its request.
    pub(super) bytes: usize,
    pub(super) now: Instant,
}

/// What the session may do.
#[derive(Clone, Copy)]
struct Granted {
    ack: bool,
    /// Its subscriptions may name a position in the log.
    replay: bool,
    /// Its client asked for that, so its events say where they stand.
    events: Replay,
}

impl Handshake<'_> {
    /// Makes a session of the caller, or says why not.
    pub(super) async fn run(&self, caller: &mut Caller<'_>, outcome: &mut Outcome) -> Result<(), Fault> {
        let granted = self.negotiate()?;
        if self.sessions.is_closing() {
            return Err(Fault::Closed);
        }
        // Who decides about connections is told by which name it will know this one.
        let unborn = caller.socket.as_ref().and_then(|socket| socket.unborn.as_ref());
        let known = unborn.map(|unborn| unborn.subscriber.key());
        let place = (known.is_none() && self.sessions.broker.policy().is_some())
            .then(|| self.sessions.broker.reserve());
        let principal = self.authenticate(caller, known.or(place.as_ref().map(Reserved::key))).await?;
        let id = self.reserve(caller)?;
        let member = self.begin(id, granted, principal, place, caller);
        if let Some(welcome) = member.principal.welcome() {
            for filter in &welcome.subscribe {
                // One that cannot be is one that an operator could not have either.
                let _ = member.subscribe(filter);
            }
        }
        member.mailbox.note_received(self.bytes);
        self.reply(&member, granted, caller, outcome);
        self.bind(member, caller);
        outcome.shook_hands = true;
        Ok(())
    }

    fn negotiate(&self) -> Result<Granted, Fault> {
        let config = self.sessions.config();
        let agreed = handshake::negotiate(self.message, &config.transports, &config.extensions)?;
        // Salesforce's clients do not ask: they look whether the server offers it.
        let offers_replay = config.extensions.replay && !config.events.replay_in_data.is_empty();
        Ok(Granted {
            ack: agreed.ack,
            replay: agreed.replay || offers_replay,
            events: if agreed.replay { Replay::InExt } else { Replay::Plain },
        })
    }

    /// As whom the client comes: what the message itself presents goes before what HTTP's headers do.
    async fn authenticate(
        &self,
        caller: &Caller<'_>,
        key: Option<SubscriberKey>,
    ) -> Result<Principal, Fault> {
        let (token, user) = (handshake::token(self.message), handshake::user(self.message));
        let mut credentials = caller.credentials;
        (credentials.transport, credentials.key) = (caller.transport.name(), key);
        if let Some(token) = &token {
            let mut chosen = credentials;
            chosen.token = Some(token);
            chosen.user = None;
            chosen.password = None;
            credentials = chosen;
        } else if let Some((user, password)) = &user {
            let mut set = credentials;
            set.user = Some(user);
            set.password = Some(password.as_bytes());
            set.token = None;
            credentials = set;
        }
        let ext = self.message.ext.map(RawValue::get);
        let mut decided = self.policy.can_handshake(credentials, ext).await;
        if credentials.token.is_some() {
            for token in caller.more_tokens {
                let Err(HandshakeDenial::Refused) = decided else { break };
                let mut given = credentials;
                given.token = Some(token);
                decided = self.policy.can_handshake(given, ext).await;
            }
        }
        decided.map_err(Fault::HandshakeDenied)
    }

    /// An id, and a place for its session.
    fn reserve(&self, caller: &Caller<'_>) -> Result<ClientId, Fault> {
        let config = self.sessions.config();
        let capacity =
            Capacity { max_sessions: config.max_sessions, max_per_address: config.max_sessions_per_address };
        let id = ClientId::random().map_err(|_| Fault::Busy)?;
        let address = caller.remote.map(|remote| remote.ip());
        self.sessions.registry.reserve(address, capacity).map_err(|_| Fault::TooManySessions)?;
        Ok(id)
    }

    fn begin(
        &self,
        id: ClientId,
        granted: Granted,
        principal: Principal,
        place: Option<Reserved>,
        caller: &mut Caller<'_>,
    ) -> Arc<Member> {
        let options = Arc::clone(&self.sessions.shared.options);
        let mut session = Session::new(self.now, options, caller.transport);
        if let Some(end) = credentials_end(&principal, self.now) {
            session.limit_to(end);
        }
        if granted.ack {
            session.enable_ack();
        }
        let origin = Origin {
            principal,
            browser: caller.browser,
            address: caller.remote.map(|remote| remote.ip()),
            encryption: caller.encryption,
            user_agent: caller.user_agent.text(),
            replay: granted.replay,
        };
        let unborn = caller.socket.as_mut().and_then(|socket| socket.unborn.take());
        self.sessions.begin(self.now, id, session, granted.events, origin, unborn.ok_or(place))
    }

    fn reply(&self, member: &Member, granted: Granted, caller: &Caller<'_>, outcome: &mut Outcome) {
        let (message, config) = (self.message, self.sessions.config());
        let timesync = message
            .ext
            .filter(|_| config.extensions.timesync)
            .and_then(|ext| Timesync::read(ext, self.now, unix_ms()))
            .and_then(|timesync| timesync.answer(Instant::now()));
        let (late, batch) = if config.deliver_during_handshake {
            member.mailbox.with(|state| state.session.poll_handshake_events(self.now))
        } else {
            (Vec::new(), None)
        };
        let batch = batch.and_then(|batch| i64::try_from(batch).ok());
        let timestamp = timestamp(config, message.stamped.into());
        let common = Common {
            channel: message.channel.map(RawValue::get),
            id: message.id.map(RawValue::get),
            error: None,
            advice: Some(Advice::retry(config.timing_for(caller.transport), config.handshake_reconnect)),
            timestamp: timestamp.as_deref(),
        };
        outcome.reply(&common, |object| {
            object.text("version", "1.0").text("minimumVersion", "1.0");
            object.raw("supportedConnectionTypes", self.connection_types);
            object.text("clientId", &member.id.to_string());
            if !late.is_empty() {
                object.number("x-messages", i64::try_from(late.len()).unwrap_or(i64::MAX));
            }
            let hook = member.principal.welcome().and_then(|welcome| welcome.reply.as_deref());
            let hook = hook.and_then(|hook| std::str::from_utf8(hook).ok());
            if granted.ack || granted.replay || timesync.is_some() || hook.is_some() {
                object.object("ext", |ext| {
                    put_ext(ext, granted, batch, timesync);
                    if let Some(hook) = hook {
                        ext.raw("hook", hook);
                    }
                });
            }
        });
        outcome.late_events = late;
    }

    /// Over WebSocket the session is its socket's from now on.
    fn bind(&self, member: Arc<Member>, caller: &mut Caller<'_>) {
        let Some(socket) = &mut caller.socket else { return };
        if let Some(previous) = socket.member.replace(Arc::clone(&member)) {
            previous.mailbox.leave_socket(self.now);
        }
        socket.held_until = None;
        member.bind(self.now, &socket.socket);
    }
}

/// What was granted; `batch` is the number of the reply if events go with it.
fn put_ext(
    ext: &mut Object<'_>,
    granted: Granted,
    batch: Option<i64>,
    timesync: Option<[(&'static str, i64); 4]>,
) {
    match batch {
        Some(batch) if granted.ack => {
            ext.object("ack", |ack| {
                ack.flag("enabled", true).number("batch", batch);
            });
        }
        _ if granted.ack => _ = ext.flag("ack", true),
        _ => {}
    }
    if granted.replay {
        ext.flag("replay", true);
    }
    if let Some(fields) = timesync {
        ext.object("timesync", |timesync| put_timesync(timesync, fields));
    }
}

/// When a principal's credentials run out, on the clock of sessions.
fn credentials_end(principal: &Principal, now: Instant) -> Option<Instant> {
    let left = principal.expires_at_ms()?.saturating_sub(unix_ms());
    now.checked_add(Duration::from_millis(left))
}

//! `/meta/handshake`: from credentials to a session.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use broker_core::{Credentials, OutboxConfig, Policy as OutboxPolicy, Principal, unix_ms};
use serde_json::value::RawValue;

use super::{Caller, Outcome};
use crate::codec::event::Replay;
use crate::codec::id::ClientId;
use crate::codec::message::Message;
use crate::codec::reply::{Advice, Common};
use crate::config::{Config, QueueFull};
use crate::error::{Fault, HandshakeDenial};
use crate::front::Shared;
use crate::protocol::timesync::Timesync;
use crate::protocol::{Session, handshake};
use crate::sessions::connect_reply::put_timesync;
use crate::sessions::mailbox::Mailbox;
use crate::sessions::registry::{Capacity, Member, Origin};
use crate::sessions::timestamp::timestamp;

impl Shared {
    pub(super) async fn handshake(
        &self,
        message: &Message<'_>,
        caller: &mut Caller<'_>,
        outcome: &mut Outcome,
    ) -> Result<(), Fault> {
        let now = Instant::now();
        let config = self.config();
        let refuse = |fault: Fault, outcome: &mut Outcome| {
            self.refuse_handshake(message, &fault, outcome);
            Ok(())
        };
        let negotiated = match handshake::negotiate(message, &config.transports, &config.extensions) {
            Ok(negotiated) => negotiated,
            Err(fault) => return refuse(fault, outcome),
        };
        // Salesforce's clients do not ask: they look whether the server offers it.
        let offers_replay = config.extensions.replay && !config.events.replay_in_data.is_empty();
        let replay = negotiated.replay || offers_replay;
        if self.is_closing() {
            return refuse(Fault::Closed, outcome);
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
        let ext = message.ext.map(RawValue::get);
        let mut decided = self.policy.can_handshake(credentials, ext).await;
        if credentials.token.is_some() {
            for token in caller.more_tokens {
                let Err(HandshakeDenial::Refused) = decided else { break };
                decided =
                    self.policy.can_handshake(Credentials { token: Some(token), ..credentials }, ext).await;
            }
        }
        let principal = match decided {
            Ok(principal) => principal,
            Err(denial) => return refuse(Fault::HandshakeDenied(denial), outcome),
        };
        let address = caller.remote.map(|remote| remote.ip());
        let capacity =
            Capacity { max_sessions: config.max_sessions, max_per_address: config.max_sessions_per_address };
        let Ok(id) = ClientId::random() else {
            return refuse(Fault::Busy, outcome);
        };
        if self.registry.reserve(address, capacity).is_err() {
            return refuse(Fault::TooManySessions, outcome);
        }

        let timing = config.timing_for(caller.transport);
        let mut session = Session::new(now, Arc::clone(&self.common.options), caller.transport);
        if let Some(end) = credentials_end(&principal, now) {
            session.limit_to(end);
        }
        if negotiated.ack {
            session.enable_ack();
        }
        let events = if negotiated.replay { Replay::InExt } else { Replay::Plain };
        let unborn = caller.socket.as_mut().and_then(|socket| socket.unborn.take());
        let (mailbox, subscriber, own) = match unborn {
            Some((mailbox, subscriber)) => {
                mailbox.begin(id, session, Some(principal.clone()), events);
                (mailbox, subscriber, true)
            }
            None => {
                let mailbox = Mailbox::new(Arc::clone(&self.common), now);
                // The core watches over its rights.
                mailbox.begin(id, session, None, events);
                let subscriber =
                    self.broker.attach_as(Arc::clone(&mailbox) as _, outbox_config(config), &principal);
                (mailbox, Arc::new(subscriber), false)
            }
        };
        let origin = Origin {
            principal,
            browser: caller.browser,
            address,
            user_agent: caller.user_agent.text(),
            replay,
        };
        let member = Arc::new(Member::new(Weak::clone(&self.myself), id, mailbox, subscriber, origin));
        member.echo.store(config.broadcast_to_publisher, Ordering::Relaxed);
        self.registry.insert(Arc::clone(&member));
        member.subscriber.register_connection(&member);
        self.tell(|listener| listener.opened(&member.id, &member.principal));
        self.counters().shook_hands();
        outcome.shook_hands = true;

        let timesync = message
            .ext
            .filter(|_| config.extensions.timesync)
            .and_then(|ext| Timesync::read(ext, now, unix_ms()))
            .and_then(|timesync| timesync.answer(Instant::now()));
        let (late, batch) = if config.deliver_during_handshake {
            member.mailbox.with(|state| state.session.poll_handshake_events(now))
        } else {
            (Vec::new(), None)
        };
        let batch = batch.and_then(|batch| i64::try_from(batch).ok());
        let advice = Advice::retry(timing, config.handshake_reconnect);
        let timestamp = timestamp(config, message.stamped.into());
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
            if negotiated.ack || replay || timesync.is_some() {
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
                    if replay {
                        ext.flag("replay", true);
                    }
                    if let Some(fields) = timesync {
                        ext.object("timesync", |timesync| put_timesync(timesync, fields));
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
}

/// The bounds that a session and the outbox of its socket share.
pub(crate) fn outbox_config(config: &Config) -> OutboxConfig {
    OutboxConfig {
        max_messages: config.max_queue_messages,
        max_bytes: config.max_queue_bytes,
        policy: match config.queue_full {
            QueueFull::Disconnect => OutboxPolicy::Disconnect,
            QueueFull::DropNewest => OutboxPolicy::DropNewest,
            QueueFull::DropOldest | QueueFull::Clear => OutboxPolicy::DropOldest,
        },
    }
}

/// When a principal's credentials run out, on the clock of sessions.
fn credentials_end(principal: &Principal, now: Instant) -> Option<Instant> {
    let left = principal.expires_at_ms()?.saturating_sub(unix_ms());
    now.checked_add(Duration::from_millis(left))
}

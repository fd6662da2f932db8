//! `/meta/connect`: answered or held.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::unix_ms;
use serde_json::value::RawValue;

use super::caller::Caller;
use super::outcome::{HeldConnect, Outcome};
use crate::codec::message::{self, Message};
use crate::config::{Config, Transport};
use crate::protocol::timesync::Timesync;
use crate::protocol::{ConnectRequest, ConnectStep};
use crate::sessions::member::Member;
use crate::sessions::shared::Shared;

/// Handles a connect of this session; `alone` if nothing else came with it.
pub(super) fn connect(
    shared: &Shared,
    now: Instant,
    message: &Message<'_>,
    alone: bool,
    member: Arc<Member>,
    caller: &mut Caller<'_>,
    outcome: &mut Outcome,
) {
    let request = read(message, now, caller.transport, alone, &shared.config);
    follow(&member, now, caller);
    let (step, acknowledged) = member.mailbox.with(|state| {
        state.count_drops();
        let step = state.session.handle_connect(now, request);
        if matches!(step, ConnectStep::Answer(_)) {
            outcome.unwritten.push(member.mailbox.begin_reply(state));
        }
        (step, state.session.take_acknowledged())
    });
    if acknowledged > 0 {
        shared.tell(|listener| listener.acknowledged(&member.id, acknowledged));
    }
    // Whoever holds an older connect finds out.
    member.mailbox.woken().notify_waiters();
    match step {
        ConnectStep::Answer(answer) => {
            outcome.answer_connect(*answer, &member, shared);
            if let Some(socket) = &mut caller.socket {
                socket.held_until = None;
            }
        }
        ConnectStep::Hold { token, until } => match &mut caller.socket {
            Some(socket) => socket.held_until = Some(until),
            None => outcome.held = Some(HeldConnect { member, token }),
        },
    }
}

/// What a connect says. What its client names as its transport is not asked: it is the one that the message came by.
fn read(
    message: &Message<'_>,
    now: Instant,
    transport: Transport,
    alone: bool,
    config: &Config,
) -> ConnectRequest {
    let number = |raw: &RawValue| message::integer(raw).and_then(|number| u64::try_from(number).ok());
    let advice = |name| message.advice.and_then(|advice| message::field(advice, name)).and_then(number);
    let ext = message.ext;
    ConnectRequest {
        id: message.id.map(|id| id.get().into()),
        transport,
        timeout: advice("timeout").map(Duration::from_millis),
        interval: advice("interval").map(Duration::from_millis),
        has_advice: message.advice.is_some_and(message::is_object),
        ack: ext.and_then(|ext| message::field(ext, "ack")).and_then(number),
        timesync: ext
            .filter(|_| config.extensions.timesync)
            .and_then(|ext| Timesync::read(ext, now, unix_ms())),
        alone,
        stamped: message.stamped,
    }
}

/// A session goes where its connects come from: to another socket, or away from its socket.
fn follow(member: &Member, now: Instant, caller: &Caller<'_>) {
    match &caller.socket {
        Some(socket) => {
            let bound = member.mailbox.with(|state| state.is_bound_to(socket.socket.number));
            if !bound {
                // Before its reply may come what waited for it.
                member.bind(now, &socket.socket);
            }
        }
        None => member.mailbox.leave_socket(now),
    }
}

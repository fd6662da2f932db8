//! `/meta/connect`: answered or held.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::unix_ms;
use serde_json::value::RawValue;

use super::{Caller, HeldConnect, Outcome};
use crate::codec::message::{self, Message};
use crate::error::Fault;
use crate::front::Shared;
use crate::protocol::timesync::Timesync;
use crate::protocol::{ConnectRequest, ConnectStep, End};
use crate::sessions::connect_reply::connect_reply;
use crate::sessions::own_messages;
use crate::sessions::registry::Member;

impl Shared {
    pub(super) fn connect(
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
            timeout: advice("timeout"),
            interval: advice("interval"),
            has_advice: message.advice.is_some_and(message::is_object),
            ack: ext
                .and_then(|ext| message::field(ext, "ack"))
                .and_then(message::integer)
                .and_then(|ack| u64::try_from(ack).ok()),
            timesync: ext
                .filter(|_| config.extensions.timesync)
                .and_then(|ext| Timesync::read(ext, now, unix_ms())),
            alone,
            stamped: message.stamped,
        };
        match &caller.socket {
            Some(socket) => {
                let bound = member.mailbox.with(|state| state.is_bound_to(socket.socket.number));
                if !bound {
                    let own = Arc::ptr_eq(&member.subscriber.outbox(), &socket.socket.outbox);
                    // Before its reply may come what waited for it.
                    let mut socket = socket.socket.clone();
                    socket.own = own;
                    member.mailbox.bind(now, socket);
                }
            }
            None => member.mailbox.leave_socket(now),
        }
        let (step, acknowledged) = member.mailbox.with(|state| {
            state.count_drops();
            let step = state.session.handle_connect(now, request);
            if matches!(step, ConnectStep::Answer(_)) {
                outcome.unwritten.push(member.mailbox.begin_reply(state));
            }
            (step, state.session.take_acknowledged())
        });
        if acknowledged > 0 {
            self.tell(|listener| listener.acknowledged(&member.id, acknowledged));
        }
        // Whoever holds an older connect finds out.
        member.mailbox.woken().notify_waiters();
        match step {
            ConnectStep::Answer(mut answer) => {
                if answer.end == Some(End::Kicked) {
                    outcome.raw_reply(&own_messages::goodbye(member.reason(), config));
                }
                outcome.events.append(&mut answer.events);
                outcome.raw_reply(&connect_reply(&answer, config));
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
}

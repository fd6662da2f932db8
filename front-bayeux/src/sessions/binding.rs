//! A session and its socket: bound, written to, let go of.

use std::time::Instant;

use broker_core::{Class, Sink};
use bytes::Bytes;

use super::connect_reply::connect_reply;
use super::mailbox::Mailbox;
use super::socket::{Lost, Socket};
use super::state::State;
use super::unwritten::carrying;
use crate::codec::reply;
use crate::codec::unsent::unsent_events;
use crate::protocol::{End, Held, Push};

impl Mailbox {
    /// Binds the session to a socket; the one before, if any, carries nothing more.
    pub(crate) fn bind(&self, now: Instant, socket: Socket) {
        self.with(|state| {
            state.socket = Some(socket);
            state.session.set_push(Push::On);
            self.write_socket(state, now, None);
        });
    }

    /// The connection `number` is gone, if it is still the session's.
    pub(crate) fn unbind(&self, now: Instant, number: u64, lost: Lost) {
        self.with(|state| {
            if !state.is_bound_to(number) {
                return;
            }
            let Some(socket) = state.socket.take() else { return };
            if lost == Lost::Socket {
                // Lanes deliver under this mutex: nothing is added to the outbox any more.
                let frames = socket.outbox.take(usize::MAX);
                state.session.take_back(unsent_events(&frames, self.shared.config.max_queue_bytes));
            }
            state.session.drop_socket(now);
            if lost == Lost::Session {
                state.session.finish(now, End::QueueFull);
            }
        });
    }

    /// A connect over HTTP takes the session off its socket.
    pub(crate) fn leave_socket(&self, now: Instant) {
        self.with(|state| {
            if state.socket.take().is_some() {
                state.session.drop_socket(now);
            }
        });
    }

    /// Writes what is due, during a delivery through its lane's `sink`.
    pub(super) fn write_socket(&self, state: &mut State, now: Instant, mut sink: Option<&mut Sink<'_>>) {
        let Some(socket) = state.socket.clone() else { return };
        // The events of a dead socket's session wait for the next one.
        if !socket.is_open() {
            return;
        }
        let mut send = |frame: Bytes, class: Class| match &mut sink {
            Some(sink) if socket.own => sink.send(&frame, class),
            _ => _ = socket.outbox.send(frame, class),
        };
        state.count_drops();
        let held = state.session.held().map(|token| state.session.poll_connect(now, token));
        if let Some(Held::Answer(answer)) = held {
            let last = connect_reply(&answer, &self.shared.config);
            let objects = answer.events.iter().map(|event| &event[..]).chain([&last[..]]);
            let frame = reply::text_frame(objects);
            send(carrying(frame, vec![self.begin_reply(state)]), Class::Control);
        }
        let events = state.session.poll_push(now);
        let per_frame = match self.shared.config.websocket.messages_per_frame {
            0 => events.len().max(1),
            number => number,
        };
        for some in events.chunks(per_frame) {
            send(reply::text_frame(some.iter().map(|event| &event[..])), Class::Droppable);
        }
    }
}

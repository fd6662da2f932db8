//! The end of a connection: its origin hears what the client said before, and then how it ended. A client that closes gets
//! the code that its origin answers with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use broker_core::LeaveReason;
use bytes::Bytes;
use grip::events::{Close, Event};
use grip::exchange::End;
use http_edge::websocket::{Ending, LINGER, WebSocket};
use websocket::CloseCode;

use super::{Conversation, done};
use crate::origin::{Answer, Failed};

impl Conversation {
    /// The socket is over: the origin hears what the client said before, and then how it ended.
    pub(super) async fn end(mut self: Box<Self>, ending: Ending, socket: WebSocket) {
        let why = match &ending {
            Ending::Left { .. } => LeaveReason::Client,
            Ending::Overflow => LeaveReason::TooSlow,
            Ending::Closed(_) => LeaveReason::Closed,
            Ending::Gone | Ending::Idle => LeaveReason::Lost,
            Ending::Fault(_) | Ending::Slow | Ending::Shed => LeaveReason::Protocol,
        };
        let mut leaving = None;
        match &ending {
            // Where it was told to close it answers that, and is not answered.
            Ending::Left { code, .. } if !self.is_dropped && !self.member.is_closing() => {
                let until = Instant::now() + self.rules.close_timeout;
                leaving = Some(Leaving { socket, own: *code, until });
            }
            ending if ending.is_told() && !self.is_dropped => drop(tokio::spawn(socket.finish(LINGER))),
            _ => drop(socket),
        }
        self.leave(why, leaving.is_some());
        let close = match &ending {
            Ending::Left { code, reason } => {
                let code = code.map(u16::from);
                Some(code.map(|code| Close::new(code, reason.clone())))
            }
            Ending::Fault(violation) => {
                let code = u16::from(violation.close_code);
                Some(Some(Close::new(code, violation.reason)))
            }
            _ => self
                .member
                .closing()
                .map(|close| close.code.map(|code| Close::new(code, close.reason.clone()))),
        };
        match close {
            Some(close) => self.exchange.push(Event::Close(close)),
            None => self.exchange.vanish(),
        }
        self.tell(leaving).await;
    }

    /// Nothing is sent any more, but for the answer to a close if the client `waits` for it.
    fn leave(&mut self, why: LeaveReason, waits: bool) {
        self.hub.members.remove(&self.member.subscriber.key());
        self.member.leave(why);
        self.filtering = None;
        if !waits && self.member.outbox.closed().is_none() && self.member.closing().is_none() {
            self.member.outbox.send_last(Bytes::new());
        }
    }

    /// The client has left before it had its 101: the origin hears of that.
    pub(crate) async fn abandon(mut self: Box<Self>) {
        self.leave(LeaveReason::Lost, false);
        self.exchange.vanish();
        self.tell(None).await;
    }

    /// Asks until the last word is out. Whoever waits for the answer to its close has it once there is one, or nobody can
    /// say it any more.
    async fn tell(mut self: Box<Self>, mut leaving: Option<Leaving>) {
        let hub = Arc::clone(&self.hub);
        hub.telling.fetch_add(1, Relaxed);
        let _telling = Telling(&hub.telling);
        loop {
            self.begin();
            let due = self.exchange.poll_timeout();
            let is_over = self.exchange.is_over() || (self.in_flight.is_none() && due.is_none());
            if let Some(leaving) = leaving.take_if(|leaving| is_over || leaving.until <= Instant::now()) {
                leaving.answer(None);
            }
            let until = leaving.as_ref().map(|leaving| leaving.until);
            if self.in_flight.is_some() {
                let Some(answered) = by(until, done(&mut self.in_flight)).await else { continue };
                self.in_flight = None;
                if self.exchange.is_over() {
                    // Nobody waits for what it says.
                    continue;
                }
                let end = self.heard_last(answered);
                if end.is_some()
                    && let Some(leaving) = leaving.take()
                {
                    leaving.answer(end);
                }
            } else if let Some(due) = due {
                by(until, tokio::time::sleep_until(due.into())).await;
            } else {
                return;
            }
        }
    }

    /// How the WebSocket ends, if the answer says so.
    fn heard_last(&mut self, answered: Result<Answer, Failed>) -> Option<End> {
        let (now, counted) = (Instant::now(), &self.hub.counted);
        let mut end = None;
        let counter = match answered {
            Ok(answer) => {
                match self.exchange.handle_answer(now, answer.status, &answer.headers, &answer.body) {
                    Ok(told) => {
                        end = told.end;
                        &counted.answered
                    }
                    Err(_) => &counted.failed,
                }
            }
            Err(failed) => {
                let jitter = Duration::from_millis(fastrand::u64(..1_000));
                match self.exchange.handle_failure(now, failed.was_unread, jitter) {
                    true => &counted.failed,
                    false => &counted.retried,
                }
            }
        };
        counter.fetch_add(1, Relaxed);
        end
    }
}

/// What comes of something, if it does in time.
async fn by<T>(until: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match until {
        Some(until) => tokio::time::timeout_at(until.into(), future).await.ok(),
        None => Some(future.await),
    }
}

/// A client that has closed and is not answered yet.
struct Leaving {
    socket: WebSocket,
    /// The code that it gave.
    own: Option<CloseCode>,
    /// It is not kept waiting any longer.
    until: Instant,
}

impl Leaving {
    /// Answers with the origin's code, or with its own where that has none that may be sent: `close()` of all libraries
    /// writes 0. An origin may want it gone without a word.
    fn answer(self, end: Option<End>) {
        let close = match end {
            Some(End::Drop) => return,
            Some(End::Close(close)) => close,
            _ => None,
        };
        match close.and_then(|close| Some((close.sendable()?, close.reason))) {
            Some((code, reason)) => self.socket.close(code.into(), &reason),
            None => self.socket.close(self.own.unwrap_or(CloseCode::Status), ""),
        };
        tokio::spawn(self.socket.finish(LINGER));
    }
}

struct Telling<'a>(&'a AtomicU64);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

//! The end of a connection: its origin hears what the client said before, and then how it ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use broker_core::LeaveReason;
use bytes::Bytes;
use grip::events::{Close, Event};
use http_edge::websocket::Ending;

use super::{Conversation, done};
use crate::origin::{Answer, Failed};

impl Conversation {
    /// The socket is over: the origin hears what the client said before, and then how it ended.
    pub(super) async fn end(mut self: Box<Self>, ending: Ending) {
        let why = match &ending {
            Ending::Left { .. } => LeaveReason::Client,
            Ending::Overflow => LeaveReason::TooSlow,
            Ending::Closed(_) => LeaveReason::Closed,
            Ending::Gone | Ending::Idle => LeaveReason::Lost,
            Ending::Fault(_) | Ending::Slow | Ending::Shed => LeaveReason::Protocol,
        };
        self.leave(why);
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
        self.tell().await;
    }

    /// Nothing is sent any more.
    fn leave(&mut self, why: LeaveReason) {
        self.hub.members.remove(&self.member.subscriber.key());
        self.member.leave(why);
        self.filtering = None;
        if self.member.outbox.closed().is_none() && self.member.closing().is_none() {
            self.member.outbox.send_last(Bytes::new());
        }
    }

    /// The client has left before it had its 101: the origin hears of that.
    pub(crate) async fn abandon(mut self: Box<Self>) {
        self.leave(LeaveReason::Lost);
        self.exchange.vanish();
        self.tell().await;
    }

    /// Asks until the last word is out.
    async fn tell(mut self: Box<Self>) {
        let hub = Arc::clone(&self.hub);
        hub.telling.fetch_add(1, Relaxed);
        let _telling = Telling(&hub.telling);
        loop {
            self.begin();
            if self.in_flight.is_some() {
                let answered = done(&mut self.in_flight).await;
                self.in_flight = None;
                if self.exchange.is_over() {
                    // Nobody waits for what it says.
                    continue;
                }
                self.heard_last(answered);
            } else if let Some(due) = self.exchange.poll_timeout() {
                tokio::time::sleep_until(due.into()).await;
            } else {
                return;
            }
        }
    }

    fn heard_last(&mut self, answered: Result<Answer, Failed>) {
        let (now, counted) = (Instant::now(), &self.hub.counted);
        let counter = match answered {
            Ok(answer) => {
                match self.exchange.handle_answer(now, answer.status, &answer.headers, &answer.body) {
                    Ok(_) => &counted.answered,
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
    }
}

struct Telling<'a>(&'a AtomicU64);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

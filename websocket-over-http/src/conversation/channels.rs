//! What was published to a client's channels and needs more than to be written.

use std::sync::atomic::Ordering::Relaxed;

use broker_core::LeaveReason;
use grip::filter::{MAX_ANSWER_BYTES, TIMEOUT};
use http::StatusCode;

use super::Conversation;
use crate::delivery::Outcome;
use crate::member::Close;
use crate::origin::{Answer, Failed, headers_of};

impl Conversation {
    /// What was published and needs more than to be written.
    pub(super) fn deliver(&mut self) {
        if self.member.frames.backlog.has_overflowed() && !self.member.is_closing() {
            let reason = "too much waits to be sent";
            self.member.close_with(Close::new(Some(1008), reason, LeaveReason::TooSlow));
        }
        while self.filtering.is_none() {
            let Some((message, tag)) = self.member.frames.backlog.take() else { return };
            let tag = self.channels.tag_of(&message, tag, &self.rules.channel_prefix);
            let outcome = self.channels.deliver(&message, tag);
            self.come(outcome);
        }
    }

    /// Does what came of a message.
    fn come(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Send(kind, content) => self.send(kind, &content),
            Outcome::Close(code, reason) => {
                let code = code.and_then(|code| grip::events::Close::new(code, "").sendable());
                self.member.close_with(Close::new(code, &reason, LeaveReason::Closed));
            }
            Outcome::Refresh => self.exchange.refresh(),
            Outcome::Filtered => _ = self.hub.counted.filtered.fetch_add(1, Relaxed),
            Outcome::Nothing => {}
            Outcome::Ask(asked, call) => {
                let asking = self.origin.call(&call.url, headers_of(&call), call.body, MAX_ANSWER_BYTES);
                let limited = async move {
                    let answer = tokio::time::timeout(TIMEOUT, asking).await;
                    let late = Failed::new(StatusCode::GATEWAY_TIMEOUT, false, "no answer in time");
                    answer.unwrap_or(Err(late))
                };
                self.filtering = Some((asked, Box::pin(limited)));
            }
        }
    }

    pub(super) fn filtered(&mut self, answered: Result<Answer, Failed>) {
        let Some((asked, _)) = self.filtering.take() else { return };
        let outcome = match answered {
            Err(_) => Outcome::Filtered,
            Ok(answer) => {
                let action = answer.headers.get("action").and_then(|action| action.to_str().ok());
                self.channels.answered(*asked, answer.status, action, answer.body)
            }
        };
        self.come(outcome);
    }
}

//! What was published to a client's channels and needs more than to be written.

use std::sync::atomic::Ordering::Relaxed;

use broker_core::LeaveReason;
use grip::filter::{MAX_ANSWER_BYTES, TIMEOUT};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::Conversation;
use crate::delivery::Outcome;
use crate::member::Close;
use crate::origin::{Answer, Failed};

impl Conversation {
    /// What was published and needs more than to be written.
    pub(super) fn deliver(&mut self) {
        if self.member.frames.has_overflowed() && !self.member.is_closing() {
            let reason = "too much waits to be sent";
            self.member.close_with(Close::new(Some(1008), reason, LeaveReason::TooSlow));
        }
        while self.filtering.is_none() {
            let Some((message, tag)) = self.member.frames.take() else {
                self.member.frames.rest();
                return;
            };
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
                let mut headers = HeaderMap::new();
                let pairs = [("sub-meta", &call.sub_meta), ("pub-meta", &call.pub_meta)];
                let pairs = pairs.into_iter().chain(call.last.iter().map(|last| ("grip-last", last)));
                for (name, value) in pairs {
                    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                        headers.append(name, value);
                    }
                }
                let asking = self.origin.call(&call.url, headers, call.body, MAX_ANSWER_BYTES);
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

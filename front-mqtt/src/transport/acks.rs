//! Publishes that whoever keeps their channels accepts later. A client has several of them under way at a time, as many as
//! it may have unacknowledged, and they are answered in the order in which they came (MQTT 5.0 §4.6). What would be answered
//! or delivered at once waits for what came before.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use broker_core::{Answer, Qos, Receipt, Refused, Taken};
use bytes::Bytes;

use super::driver::Driver;
use super::waiting::Left;
use crate::protocol::Output;

/// Never empty, so that who has none pays for a pointer.
pub(super) type Acks = Option<Box<VecDeque<Ack>>>;

type Outcome = Answer<'static, Result<Receipt, Refused>>;

/// What a client is told in its turn.
pub(super) enum Ack {
    /// What becomes of a publish.
    Accept { outcome: Outcome, packet_id: u16, qos: Qos },
    /// The same, at QoS 2 of a session that is kept.
    Take { outcome: Outcome, taken: Taken },
    /// What is ready.
    Reply(Bytes),
}

impl Ack {
    /// The connection ends. A QoS 2 publish was taken when it came: its repeat would be answered and not published.
    pub(super) fn left(self) -> Option<Left> {
        match self {
            Self::Take { outcome, .. } => {
                Some(Left { packet_id: None, outcome: outcome.map(|outcome| outcome.is_ok()) })
            }
            Self::Accept { outcome, packet_id, qos: Qos::ExactlyOnce } => {
                Some(Left { packet_id: Some(packet_id), outcome: outcome.map(|outcome| outcome.is_ok()) })
            }
            _ => None,
        }
    }
}

/// Whether a packet of this type need not wait until all publishes before it are answered: those of the exchange of
/// messages, and PINGREQ. Others, as SUBSCRIBE and DISCONNECT, find done what the client did before.
fn overtakes(first_byte: u8) -> bool {
    matches!(first_byte >> 4, 3..=7 | 12)
}

impl Driver {
    /// Answers in its turn.
    pub(super) fn answer_later(&mut self, ack: Ack) {
        self.acks.get_or_insert_default().push_back(ack);
    }

    /// Sends a reply, after those that are to come before.
    pub(super) fn reply(&mut self, packet: Bytes) {
        match &mut self.acks {
            Some(acks) => acks.push_back(Ack::Reply(packet)),
            None => self.reply_now(&packet),
        }
    }

    fn reply_now(&mut self, packet: &[u8]) {
        self.answers += 1;
        self.replies.extend_from_slice(packet);
    }

    /// Whether nothing is handled or read before something is answered: the client has as many under way as it may, or
    /// what is next must find them done.
    pub(super) fn is_held(&self) -> bool {
        let Some(acks) = &self.acks else { return false };
        acks.len() >= usize::from(self.inner.shared.config.receive_maximum.max(1))
            || self.has_ended
            || self.connection.has_output()
            || self.input.last().is_some()
            || self.input.first_byte().is_some_and(|first| !overtakes(first))
    }

    /// Answers what is accepted by now; false if nothing was.
    pub(super) fn poll_acks(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_answered = false;
        while let Some(mut acks) = self.acks.take() {
            let answered = match acks.front_mut() {
                Some(Ack::Accept { outcome, .. } | Ack::Take { outcome, .. }) => {
                    Pin::new(outcome).poll(cx).map(Some)
                }
                Some(Ack::Reply(_)) | None => Poll::Ready(None),
            };
            let Poll::Ready(outcome) = answered else {
                self.acks = Some(acks);
                break;
            };
            match (acks.pop_front(), outcome) {
                (Some(Ack::Accept { packet_id, qos, .. }), Some(outcome)) => {
                    self.handle_accepted(packet_id, qos, outcome);
                }
                (Some(Ack::Take { taken, .. }), Some(outcome)) => self.handle_taken(taken, outcome),
                (Some(Ack::Reply(packet)), _) => self.reply_now(&packet),
                _ => {}
            }
            self.send_before_others();
            self.acks = Some(acks).filter(|acks| !acks.is_empty());
            has_answered = true;
        }
        if has_answered && self.is_paused() {
            self.note_pause(Instant::now());
        }
        if has_answered && self.acks.is_none() && self.waiting.is_some() {
            self.go_on();
        }
        has_answered
    }

    /// What the protocol has just answered leaves before all that waits, a close included.
    fn send_before_others(&mut self) {
        let mut others = Vec::new();
        while let Some(output) = self.connection.poll_output() {
            match output {
                Output::Reply(packet) => self.reply_now(&packet),
                other => others.push(other),
            }
        }
        others.into_iter().rev().for_each(|output| self.connection.put_back(output));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_session_waits_for_publishes_before_it() {
        let overtaking: Vec<u8> = (0..16).filter(|kind| overtakes(kind << 4 | 0b0010)).collect();
        // PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, PINGREQ.
        assert_eq!(overtaking, [3, 4, 5, 6, 7, 12]);
    }
}

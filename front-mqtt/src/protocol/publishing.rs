//! PUBLISH from the client into the broker (MQTT 5.0 §3.3, §4.3).

use broker_core::{Action, Channel, MessageId, PublishError, Qos, Receipt};
use bytes::Bytes;

use super::alias::IncomingAliases;
use super::connection::{Connection, Output, Publishing, Why};
use super::convert;
use super::session::{Session, State};
use crate::codec::{Ack, AckKind, DecodeError, Publish, Reason};
use crate::config::Denied;
use crate::error::{Answer, publish_answer};

/// `$SYS/broker/connection/NAME/state`: where a bridge of mosquitto says whether it is connected, as it does to any
/// broker. To refuse it would keep the bridge out, so it is answered as if taken, and dropped.
pub(crate) fn is_bridge_state(topic: &str) -> bool {
    let name = topic.strip_prefix("$SYS/broker/connection/").and_then(|rest| rest.strip_suffix("/state"));
    name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

impl Connection {
    pub(super) fn handle_publish(
        &mut self,
        packet: &Publish<'_>,
        buffer: Option<&Bytes>,
    ) -> Result<(), DecodeError> {
        let session = self.session.clone();
        session.note_received();
        let config = session.config();
        if packet.qos > config.maximum_qos {
            return Err(DecodeError::new(Reason::QosNotSupported, "QoS is above the announced maximum"));
        }
        if packet.retain && !config.retain_available {
            return Err(DecodeError::new(Reason::RetainNotSupported, "retained messages are not taken here"));
        }
        let channel = self.topic(packet, config.topic_alias_maximum)?;
        if packet.qos == Qos::ExactlyOnce && !self.take(packet.packet_id)? {
            return Ok(());
        }
        if is_bridge_state(channel.as_str()) {
            self.answer(packet.packet_id, packet.qos, Reason::Success, None);
            return Ok(());
        }
        let rights = self.principal.rights();
        if !rights.allows(Action::Publish, &channel) && !rights.allows_asking(&channel) {
            session.count_refused(&self.principal, channel.as_str());
            if config.denied_publish == Denied::Disconnect {
                return Err(DecodeError::new(Reason::NotAuthorized, "no right to publish to this topic"));
            }
            let why = Why::Explained("no right to publish to this topic");
            self.answer(packet.packet_id, packet.qos, Reason::NotAuthorized, Some(why));
            return Ok(());
        }
        if let Err(wait) = self.principal.admit(1) {
            session.count_limited(&self.principal, channel.as_str());
            if packet.qos == Qos::AtMostOnce || !self.dialect.version.is_v5() {
                // There is no packet that could refuse it; the client finds its way back after the close.
                return Err(DecodeError::new(
                    Reason::MessageRateTooHigh,
                    "more messages than the rate of these credentials allows",
                ));
            }
            let why = format!("rate limit, try again in {} ms", wait.as_millis().max(1));
            self.answer(packet.packet_id, packet.qos, Reason::QuotaExceeded, Some(Why::Explained(&why)));
            return Ok(());
        }
        let publish = convert::publish(channel, packet.payload, buffer, &packet.properties)
            .qos(packet.qos)
            .retain(packet.retain);
        self.outputs.push_back(Output::Publish(Publishing {
            publish,
            packet_id: packet.packet_id,
            qos: packet.qos,
        }));
        Ok(())
    }

    /// Notes a QoS 2 publish as taken, before it is published: a repeat on the client's next connection must
    /// not overtake it. False if it is a repeat itself, or if another connection has the session.
    fn take(&mut self, packet_id: u16) -> Result<bool, DecodeError> {
        let session = self.session.clone();
        let Some(mut state) = session.lock_as(self.number) else { return Ok(false) };
        if state.has_begun(packet_id) {
            return Ok(false);
        }
        if state.has_taken(packet_id) {
            drop(state);
            self.reply(AckKind::PubRec, packet_id, Reason::Success, None);
            return Ok(false);
        }
        let config = session.config();
        // The maximum that was announced is a promise of the client's; there are clients that send on all the same.
        let max = config.receive_maximum.max(config.max_unreleased_publishes);
        if self.dialect.version.is_v5() && state.taken_count() >= usize::from(max) {
            return Err(DecodeError::new(
                Reason::ReceiveMaximumExceeded,
                "too many more unfinished publishes than the receive maximum",
            ));
        }
        state.take(packet_id);
        Ok(true)
    }

    fn topic(&mut self, packet: &Publish<'_>, alias_maximum: u16) -> Result<Channel, DecodeError> {
        let Some(alias) = packet.properties.topic_alias else { return parse(packet.topic) };
        if packet.topic.is_empty() {
            return match self.aliases() {
                Some(aliases) => aliases.resolve(alias, alias_maximum),
                None => IncomingAliases::default().resolve(alias, alias_maximum),
            };
        }
        let channel = parse(packet.topic)?;
        self.rare_mut().aliases.set(alias, alias_maximum, &channel)?;
        Ok(channel)
    }

    /// The broker has answered a publish. `Busy` never comes here: the transport tries again first.
    pub(crate) fn handle_published(
        &mut self,
        packet_id: u16,
        qos: Qos,
        result: &Result<Receipt, PublishError>,
    ) {
        if qos == Qos::ExactlyOnce && result.is_ok() {
            self.session.note_taken(self.number, packet_id);
        }
        match result {
            // Who is away reads it later.
            Ok(Receipt { receivers: 0, id, .. }) if id.is_none_or(|id| !self.session.keeps(id)) => {
                self.answer(packet_id, qos, Reason::NoMatchingSubscribers, None);
            }
            Ok(_) => self.answer(packet_id, qos, Reason::Success, None),
            Err(error) => {
                let why = error.to_string();
                self.refuse(packet_id, qos, publish_answer(error), Why::Explained(&why));
            }
        }
    }

    /// A policy has refused a publish. In version 3, whose acknowledgement means that the message was taken, the connection
    /// ends: the client would never know.
    pub(crate) fn handle_denied(&mut self, packet_id: u16, qos: Qos, error: &PublishError) {
        let answer = match publish_answer(error) {
            Answer::Acknowledge(reason) if !self.dialect.version.is_v5() => Answer::Disconnect(reason),
            answer => answer,
        };
        self.refuse(packet_id, qos, answer, Why::Decided(&error.to_string()));
    }

    fn refuse(&mut self, packet_id: u16, qos: Qos, answer: Answer, why: Why<'_>) {
        let closes_on_denial = self.session.config().denied_publish == Denied::Disconnect;
        let reason = match answer {
            Answer::Acknowledge(Reason::NotAuthorized) if closes_on_denial => Reason::NotAuthorized,
            Answer::Acknowledge(reason) => return self.answer(packet_id, qos, reason, Some(why)),
            Answer::Withhold(reason) if self.dialect.version.is_v5() || qos == Qos::AtMostOnce => {
                return self.answer(packet_id, qos, reason, Some(why));
            }
            Answer::Withhold(reason) | Answer::Disconnect(reason) => reason,
        };
        // It was not taken: when the client is back and repeats it, it is to be published and not only answered.
        if qos == Qos::ExactlyOnce {
            self.release(packet_id);
        }
        let (Why::Explained(why) | Why::Decided(why)) = why;
        self.close(reason, Some(why));
    }

    /// Takes or refuses responsibility for a publish.
    fn answer(&mut self, packet_id: u16, qos: Qos, reason: Reason, why: Option<Why<'_>>) {
        match qos {
            Qos::AtMostOnce => {}
            Qos::AtLeastOnce => self.reply(AckKind::PubAck, packet_id, reason, why),
            Qos::ExactlyOnce => {
                // A refused exchange ends with PUBREC in version 5; version 3 cannot refuse and goes on to
                // PUBCOMP.
                if reason.is_error() && self.dialect.version.is_v5() {
                    self.release(packet_id);
                } else {
                    self.session.take_in_memory(self.number, packet_id);
                }
                self.reply(AckKind::PubRec, packet_id, reason, why);
            }
        }
    }

    /// Frees the identifier of a QoS 2 publish; false if it was not in use.
    fn release(&mut self, packet_id: u16) -> bool {
        self.session.lock_as(self.number).is_some_and(|mut state| state.release(packet_id))
    }

    /// PUBREL: the identifier is free again.
    pub(super) fn handle_pubrel(&mut self, ack: Ack) {
        let known = self.release(ack.packet_id);
        if !known && self.session.name_taken(self.number, ack.packet_id).is_some() {
            return self.outputs.push_back(Output::Free(ack.packet_id));
        }
        let reason = if known { Reason::Success } else { Reason::PacketIdentifierNotFound };
        self.reply(AckKind::PubComp, ack.packet_id, reason, None);
    }
}

impl Connection {
    /// Whoever keeps a publish that the client has released has let go of its identifier too.
    pub(crate) fn handle_freed(&mut self, packet_id: u16) {
        self.session.note_freed(self.number, packet_id);
        self.reply(AckKind::PubComp, packet_id, Reason::Success, None);
    }
}

fn parse(topic: &str) -> Result<Channel, DecodeError> {
    Channel::parse(topic)
        .map_err(|_| DecodeError::new(Reason::TopicNameInvalid, "topic is not a valid topic name"))
}

impl Session {
    fn keeps(&self, id: MessageId) -> bool {
        self.shared().kept_epoch == Some(id.epoch())
    }

    /// A QoS 2 publish of a connection that is over will not be published: its repeat is.
    pub(crate) fn forget_taken(&self, packet_id: u16) {
        self.lock().release(packet_id);
    }
}

impl State {
    fn release(&mut self, packet_id: u16) -> bool {
        let Some(taken) = &mut self.taken else { return self.give_up(packet_id) };
        let was_taken = taken.remove(packet_id);
        if taken.is_empty() {
            self.taken = None;
        }
        was_taken || self.give_up(packet_id)
    }
}

//! Topic aliases (MQTT 5.0 §3.3.2.3.4): one table for each direction, both die with the connection.

use std::collections::HashMap;

use broker_core::Channel;

use crate::codec::{DecodeError, Reason};

/// What the client's aliases stand for.
#[derive(Debug, Default)]
pub(crate) struct IncomingAliases(Vec<Option<Channel>>);

impl IncomingAliases {
    /// The topic an alias stands for.
    pub(crate) fn resolve(&self, alias: u16, maximum: u16) -> Result<Channel, DecodeError> {
        check(alias, maximum)?;
        self.0
            .get(usize::from(alias) - 1)
            .and_then(Clone::clone)
            .ok_or(DecodeError::protocol("topic alias stands for no topic yet"))
    }

    /// Lets an alias stand for `topic` from now on.
    pub(crate) fn set(&mut self, alias: u16, maximum: u16, topic: &Channel) -> Result<(), DecodeError> {
        check(alias, maximum)?;
        let index = usize::from(alias) - 1;
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        if let Some(place) = self.0.get_mut(index) {
            *place = Some(topic.clone());
        }
        Ok(())
    }
}

fn check(alias: u16, maximum: u16) -> Result<(), DecodeError> {
    if alias == 0 || alias > maximum {
        return Err(DecodeError::new(
            Reason::TopicAliasInvalid,
            "topic alias is 0 or above the announced maximum",
        ));
    }
    Ok(())
}

/// The aliases set toward the client, by topic: subscriptions have nothing to do with them. The first
/// topics get them; once all are given, later topics go without.
#[derive(Debug)]
pub(crate) struct OutgoingAliases {
    by_topic: HashMap<Channel, u16>,
    maximum: u16,
}

/// How a topic is written in the next packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AliasUse {
    /// In full, without an alias.
    None,
    /// In full, and the alias stands for it from then on.
    Introduce(u16),
    /// By the alias alone.
    Known(u16),
}

impl OutgoingAliases {
    pub(crate) fn new(maximum: u16) -> Self {
        Self { by_topic: HashMap::new(), maximum }
    }

    pub(crate) fn look_up(&self, topic: &Channel) -> AliasUse {
        if let Some(&alias) = self.by_topic.get(topic) {
            return AliasUse::Known(alias);
        }
        match u16::try_from(self.by_topic.len()) {
            Ok(used) if used < self.maximum => AliasUse::Introduce(used + 1),
            _ => AliasUse::None,
        }
    }

    /// Called once the packet that introduces the alias is certain to be sent.
    pub(crate) fn commit(&mut self, topic: &Channel, alias: u16) {
        self.by_topic.insert(topic.clone(), alias);
    }
}

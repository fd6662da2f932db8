//! Why bytes are not a packet, and what MQTT 5.0 calls it.

use super::Reason;

/// A packet that cannot be accepted: the reason code to answer with and what was wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{detail} (reason {:#04x})", *.reason as u8)]
pub struct DecodeError {
    /// The code MQTT 5.0 §4.13 asks for; CONNACK or DISCONNECT carries it.
    pub reason: Reason,
    /// What was wrong, for the log and for the reason string.
    pub detail: &'static str,
}

impl DecodeError {
    /// The bytes are not a packet at all (MQTT 5.0 §1.2, "Malformed Packet").
    pub fn malformed(detail: &'static str) -> Self {
        Self { reason: Reason::MalformedPacket, detail }
    }

    /// Well-formed, but not allowed here (MQTT 5.0 §1.2, "Protocol Error").
    pub fn protocol(detail: &'static str) -> Self {
        Self { reason: Reason::ProtocolError, detail }
    }

    pub(crate) fn new(reason: Reason, detail: &'static str) -> Self {
        Self { reason, detail }
    }
}

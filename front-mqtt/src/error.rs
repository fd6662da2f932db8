//! Errors into what a client is told: the one place where the core's refusals become reason codes.

use broker_core::{AuthError, PublishError, SubscribeError};

use crate::codec::Reason;

/// How a refused publish is answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    /// In PUBACK or PUBREC; QoS 0 and version 3 hear nothing.
    Acknowledge(Reason),
    /// The same in version 5. In version 3, whose acknowledgement means that the message was taken, the connection ends
    /// instead, so that the client sends it again.
    Withhold(Reason),
    /// The connection ends.
    Disconnect(Reason),
}

pub(crate) fn publish_answer(error: &PublishError) -> Answer {
    match error {
        PublishError::TooLarge { .. } => Answer::Disconnect(Reason::PacketTooLarge),
        PublishError::ChannelTooLong { .. }
        | PublishError::TooManyLevels { .. }
        | PublishError::ChannelCharacter { .. } => Answer::Acknowledge(Reason::TopicNameInvalid),
        PublishError::TooManyChannels { .. }
        | PublishError::RetainedFull { .. }
        | PublishError::Busy { .. } => Answer::Acknowledge(Reason::QuotaExceeded),
        PublishError::Forbidden(_) => Answer::Acknowledge(Reason::NotAuthorized),
        PublishError::Durable | PublishError::Unknown => Answer::Disconnect(Reason::ImplementationSpecific),
        PublishError::Fenced => Answer::Disconnect(Reason::SessionTakenOver),
        PublishError::Closed => Answer::Disconnect(Reason::ServerShuttingDown),
        // `Unavailable`, and what is not known here.
        _ => Answer::Withhold(Reason::ImplementationSpecific),
    }
}

pub(crate) fn subscribe_reason(error: &SubscribeError) -> Reason {
    match error {
        SubscribeError::TooManyLevels { .. } => Reason::TopicFilterInvalid,
        SubscribeError::TooManyChannels { .. }
        | SubscribeError::FiltersFull { .. }
        | SubscribeError::TooManyGroups { .. } => Reason::QuotaExceeded,
        SubscribeError::Forbidden(_) => Reason::NotAuthorized,
        SubscribeError::Unavailable { .. } => Reason::ImplementationSpecific,
        // `Closed`, and what is not known here.
        _ => Reason::UnspecifiedError,
    }
}

pub(crate) fn auth_reason(error: &AuthError) -> Reason {
    match error {
        AuthError::Required => Reason::NotAuthorized,
        AuthError::Invalid(_) => Reason::BadUserNameOrPassword,
        AuthError::Origin(_) => Reason::NotAuthorized,
        AuthError::Unavailable(_) => Reason::ServerUnavailable,
        AuthError::Undecided { .. } => Reason::ServerUnavailable,
        AuthError::Busy { .. } => Reason::ServerBusy,
        _ => Reason::NotAuthorized,
    }
}

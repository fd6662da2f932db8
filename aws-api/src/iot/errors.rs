//! What goes wrong in the broker, in AWS' words: the one place.

use std::time::Duration;

use broker_core::{ChannelError, PublishError, SendError, SubscribeError, Unavailable};

use crate::error::AwsError;

/// When a client for whose message there was no room is worth another try.
const FULL_RETRY: Duration = Duration::from_secs(1);

impl From<intake::Error> for AwsError {
    fn from(error: intake::Error) -> Self {
        use intake::Error as E;
        let text = error.to_string();
        match error {
            E::Forbidden { .. } | E::Unidentified { .. } | E::Reserved(_) => Self::forbidden(text),
            E::RateLimited(wait) => Self::throttled(text).after(wait),
            E::Expired | E::RightsChanged => Self::unauthorized(text),
            E::Publish(error) => error.into(),
            _ => Self::invalid(text),
        }
    }
}

impl From<PublishError> for AwsError {
    fn from(error: PublishError) -> Self {
        use PublishError as E;
        let text = error.to_string();
        match error {
            E::TooLarge { .. } => Self::too_large(text),
            E::ChannelTooLong { .. } | E::ChannelCharacter { .. } | E::TooManyLevels { .. } => {
                Self::invalid(text)
            }
            E::Busy { retry_after } => Self::throttled(text).after(retry_after),
            E::Forbidden(_) => Self::forbidden(text),
            E::Unavailable { retry_after, .. } => Self::unavailable(text).after(retry_after),
            E::TooManyChannels { .. } | E::RetainedFull { .. } | E::Closed => Self::unavailable(text),
            _ => Self::internal(text),
        }
    }
}

impl From<SendError> for AwsError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Gone => Self::not_found("the client is not connected"),
            SendError::Full => Self::throttled(error.to_string()).after(FULL_RETRY),
            SendError::TooLarge { .. } => Self::too_large(error.to_string()),
            error => Self::invalid(error.to_string()),
        }
    }
}

impl From<Unavailable> for AwsError {
    fn from(error: Unavailable) -> Self {
        Self::unavailable(error.to_string()).after(error.retry_after)
    }
}

impl From<SubscribeError> for AwsError {
    fn from(error: SubscribeError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<ChannelError> for AwsError {
    fn from(error: ChannelError) -> Self {
        Self::invalid(error.to_string())
    }
}

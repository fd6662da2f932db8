//! The time that messages of the server may carry.

use crate::config::Config;

/// Whether a request carried a `timestamp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamped {
    Yes,
    No,
}

impl From<bool> for Stamped {
    fn from(stamped: bool) -> Self {
        if stamped { Self::Yes } else { Self::No }
    }
}

/// The current time for a message: if all carry one, or if it answers one that did (CometD, "Timestamp Extension").
pub(crate) fn timestamp(config: &Config, request: Stamped) -> Option<String> {
    (config.events.timestamp || request == Stamped::Yes).then(|| envelope::timestamp(broker_core::unix_ms()))
}

//! The protocol's extensions: those that a handshake negotiates, and activity, which is the server's alone.

use std::time::Duration;

/// Which traffic keeps a session active (the activity extension).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activity {
    /// Only messages from the client, connects aside.
    Client,
    /// Those and events to it.
    ClientAndServer,
}

/// The extensions that a handshake may negotiate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extensions {
    /// Acknowledged delivery; default true.
    pub ack: bool,
    /// Clock comparison; default true.
    pub timesync: bool,
    /// Replay from the log in Salesforce's form; default true.
    pub replay: bool,
    /// Ends sessions that only connect for so long; default none.
    pub activity: Option<(Activity, Duration)>,
}

impl Default for Extensions {
    fn default() -> Self {
        Self { ack: true, timesync: true, replay: true, activity: None }
    }
}

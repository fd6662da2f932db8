//! Why a session is over.

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The client disconnected.
    Disconnected,
    /// The server ended it.
    Kicked,
    /// Nothing came for too long, or its credentials ran out.
    Expired,
    /// Its queue was full.
    QueueFull,
    /// What it was to be replayed left the log before it could be sent.
    ReplayLost,
    /// The server goes away; another one may be there soon. Not all clients shall come back at once.
    Shutdown { return_after_ms: u32 },
}

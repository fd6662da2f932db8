//! What goes wrong with bodies.

use std::time::Duration;

/// Any error that a body or an upgrade can end with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a request body was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The body is longer than the caller accepts; nothing past the limit was kept.
    #[error("the body is larger than {max} bytes")]
    TooLarge {
        /// The limit, in bytes.
        max: usize,
    },
    /// No byte came for this long.
    #[error("the body stalled for {} s", .0.as_secs())]
    Stalled(Duration),
    /// It came more slowly than [`IntakeConfig`](link::IntakeConfig) allows.
    #[error("the body came too slowly: {received} bytes in {} s", .after.as_secs())]
    TooSlow {
        /// What had come of it, in bytes.
        received: usize,
        /// Since the server waits for it.
        after: Duration,
    },
    /// All that is unfinished together was too much, and this made the least progress.
    #[error("no room for unfinished bodies, and this one made the least progress")]
    Shed,
    /// The connection failed inside the body.
    #[error("the body ended early")]
    Io(#[source] BoxError),
}

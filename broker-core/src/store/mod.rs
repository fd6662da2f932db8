//! What is kept: the log of recent messages, one retained message per channel, and what keyed publishes were answered
//! with.

pub(crate) mod history;
pub(crate) mod idempotency;
pub(crate) mod log;
pub(crate) mod retained;

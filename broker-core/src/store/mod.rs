//! What is kept: the log of recent messages, and one retained message per channel.

pub(crate) mod history;
pub(crate) mod log;
pub(crate) mod retained;

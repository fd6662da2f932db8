//! Bytes ↔ values, pure: messages in, replies and events out, channel names, ids.

pub(crate) mod batch;
pub(crate) mod channel;
pub(crate) mod event;
pub(crate) mod id;
pub(crate) mod message;
pub(crate) mod object;
pub(crate) mod replay_id;
pub(crate) mod reply;
pub(crate) mod unsent;
pub(crate) mod z85;

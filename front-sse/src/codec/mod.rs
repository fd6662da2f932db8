//! Bytes and values: requests in, events out. Pure.

pub(crate) mod event;
pub(crate) mod request;

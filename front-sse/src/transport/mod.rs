//! Streams over sockets and response bodies, and all of them at shutdown.

mod attached;
mod connection;
mod registry;

pub(crate) use attached::{Attached, Origin};
pub(crate) use connection::{Opened, catch_up, keep};
pub(crate) use registry::{Open, Registry, retry_within};

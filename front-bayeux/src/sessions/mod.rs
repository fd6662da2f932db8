//! What a session is while the server runs: where the broker's lanes, requests and operators find it.

pub(crate) mod attached;
pub(crate) mod connect_reply;
pub(crate) mod mailbox;
pub(crate) mod rate;
pub(crate) mod registry;
pub(crate) mod replay;
pub(crate) mod subscriptions;
pub(crate) mod sweep;
pub(crate) mod unwritten;

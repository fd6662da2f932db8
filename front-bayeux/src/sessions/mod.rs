//! What a session is while the server runs: where the broker's lanes, requests and operators find it.
//!
//! Lanes call its [`Mailbox`](mailbox::Mailbox) (`deliver.rs`), requests find it as a [`Member`](registry::Member) in the
//! registry, operators see the same (`attached.rs`), and the sweep looks whether its time is over. What all sessions work
//! with is in `shared.rs`.

pub(crate) mod attached;
mod binding;
mod clock;
pub(crate) mod connect_reply;
mod deliver;
mod encodings;
pub(crate) mod mailbox;
mod overflow;
pub(crate) mod own_messages;
pub(crate) mod rate;
pub(crate) mod registry;
pub(crate) mod replay;
pub(crate) mod shared;
pub(crate) mod socket;
mod state;
pub(crate) mod subscriptions;
pub(crate) mod sweep;
pub(crate) mod timestamp;
pub(crate) mod unwritten;

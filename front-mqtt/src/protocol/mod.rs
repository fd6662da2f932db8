//! The state machine: no sockets, no clock, no tasks.
//!
//! ```text
//! packets ─▶ Connection::handle_packet ──▶ poll_output: publish, subscribe, reply, close
//!                │ locks                                      │ done by transport/, answered with
//!                ▼                                            ▼ handle_published, handle_subscribed
//! lane ────▶ Session::handle_delivery ──▶ Wire (the outbox)
//! ```
//!
//! A [`Connection`] is one transport's life and belongs to its task. A [`Session`] is what may outlive it:
//! subscriptions, queue, exchanges in flight. It sits behind a small mutex because the lane delivers into it.
//! Frames leave while that mutex is held, so that their order is the order of the state's changes; broker calls
//! never do.

mod absent;
mod alias;
mod confirming;
mod connecting;
mod connection;
mod convert;
mod delivering;
mod end;
mod exact;
mod group;
mod kept;
mod kept_will;
mod ledger;
mod outbound;
mod publishing;
mod queue;
mod record;
mod rights;
mod scope;
mod session;
mod subscribing;
mod subscriptions;
mod taken;
mod ticket;
mod wire;

pub(crate) use absent::{Absent, Holder};
pub(crate) use connecting::{Caller, Negotiated, negotiate};
pub(crate) use connection::{Authenticating, Connection, Output, Publishing, Verdict};
pub(crate) use delivering::Backlog;
pub(crate) use end::{Detached, End, PendingWill, Remains, Will};
pub(crate) use group::{Credit, Group};
pub(crate) use kept::{Kept, News};
pub(crate) use kept_will::KeptWill;
pub(crate) use ledger::{Ledger, Standings};
pub(crate) use record::{Held, Record};
pub(crate) use scope::{is_another, owner, session_key};
pub(crate) use session::{Encodings, Incoming, Online, Session, Shared, State, TimerKey};
pub(crate) use subscribing::{Accepted, Subscribing, Target, Unsubscribing, forced_name, target_of};
pub(crate) use ticket::Ticket;
#[cfg(any(test, fuzzing))]
pub(crate) use wire::Wire;

#[cfg(test)]
mod tests;

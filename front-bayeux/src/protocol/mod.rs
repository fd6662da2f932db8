//! The session's state machine: no sockets, no clock, no tasks.
//!
//! What happened goes in with the time it happened: [`Session::handle_connect`],
//! [`Session::handle_delivery`], [`Session::handle_timeout`]. What shall be written comes out of
//! [`Session::poll_connect`] and [`Session::poll_events`]; [`Session::poll_timeout`] says when to call
//! back.

pub(crate) mod advice;
pub(crate) mod duplicates;
pub(crate) mod end;
pub(crate) mod handshake;
pub(crate) mod queue;
pub(crate) mod session;
pub(crate) mod timesync;

pub(crate) use end::End;
pub use session::SessionTiming;
pub(crate) use session::{
    ConnectAnswer, ConnectRequest, ConnectStep, Delivered, Held, Options, Push, Session,
};

//! Tokio around the protocol: sockets, tasks, clocks.
//!
//! TCP and WebSocket differ in [`input`] alone, where frames are taken apart, and in the framing that the
//! codec writes. Everything else is one code path: bytes in, packets, [`Connection`], outbox.
//!
//! [`Connection`]: crate::protocol::Connection

mod acks;
mod attached;
mod driver;
mod elsewhere;
mod gap;
mod goodbye;
mod group_work;
pub(crate) mod groups;
mod handshake;
mod idle;
mod input;
mod keeping;
mod kept_groups;
mod lane;
mod left_wills;
mod load;
mod sessions;
mod sys;
mod timers;
mod traffic;
mod waiting;
mod websocket;

pub(crate) use attached::Farewell;
pub(crate) use elsewhere::Elsewhere;
pub use elsewhere::{Claim, Nodes};
pub(crate) use group_work::Working;
pub(crate) use handshake::{Arrival, accept};
pub(crate) use idle::IdleLooks;
#[cfg(any(test, fuzzing))]
pub(crate) use input::{Control, Input};
pub(crate) use keeping::keep_recording;
pub(crate) use kept_groups::KeptGroups;
pub(crate) use left_wills::{LeftWills, publish_in_time};
pub(crate) use sessions::{Aftermath, Hosted, Sessions};
pub(crate) use sys::keep_reporting;
pub(crate) use timers::{Due, Timers, What, keep_time};
pub(crate) use traffic::Traffic;
pub(crate) use websocket::upgrade;

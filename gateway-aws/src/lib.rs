//! WebSocket APIs as AWS API Gateway has them, on a broker.
//!
//! ```text
//! client ── upgrade ─▶ opening ─▶ authorizer ─▶ $connect ─▶ 101
//!        ── message ─▶ connection: a mailbox, one at a time ─▶ selection ─▶ event ─▶ client ─▶ function
//!        ◀─ frames ─── outbox ◀─ body of the answer ◀─ fanwire: subscribe, publish ◀─ answer ──┘
//! backend ─ POST ────▶ @connections ─▶ outbox
//! the end ───────────▶ $disconnect, once and at least once, after every message
//! ```
//!
//! What decides knows no clock and no socket: [`config`], [`selection`], [`event`], [`answer`], [`policy`].
//! It leaves to others: sockets (the server), HTTP to functions, whether one that fails is
//! called, and what nobody could be told (`gateway`), what is published and who
//! receives it (`broker-core`), whose signature a request bears ([`Verify`]) and whose our own bear ([`Sign`]).

pub mod answer;
mod api;
mod client;
pub mod config;
mod connection;
mod connections;
mod ending;
pub mod event;
mod front;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod member;
mod opening;
mod operators;
mod pace;
pub mod policy;
pub mod selection;
mod served;
mod session;
#[cfg(feature = "settings")]
pub mod settings;
mod state;
mod verify;

pub use config::Config;
pub use front::Front;
pub use gateway::resource::Door;
pub use operators::Operators;
pub use verify::{Exception, Sign, Verify};

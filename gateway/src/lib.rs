//! Functions are called: what happens to clients and channels is told to backends that live for milliseconds.
//!
//! ```text
//! what happened ─▶ delivery: a queue for each receiver ─▶ sign ─▶ POST
//!                     ▲     order, retries, batches      │
//!                     └────────── what came of it ◀──────┘─▶ dead letters
//! ```
//!
//! What decides has no clock and no socket: [`delivery`], [`sign`], [`address`], and a dialect's events and answers.
//! [`client`] calls, and [`courier`] is the task around a queue; neither knows what it carries.

pub mod address;
pub mod client;
pub mod courier;
pub mod dead;
pub mod delivery;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod kept;
pub mod metrics;
pub mod register;
pub mod resource;
pub mod rules;
pub mod sign;
pub mod webhook;
pub mod written;

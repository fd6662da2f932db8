//! Functions are called: what happens to clients and channels is told to backends that live for milliseconds.
//!
//! ```text
//! what happened ─▶ delivery: a queue for each receiver ─▶ sign ─▶ POST
//!                     ▲     order, retries, batches      │
//!                     └────────── what came of it ◀──────┘─▶ dead letters
//! ```
//!
//! What decides has no clock and no socket. It leaves to its users to send, and to say how that went.

pub mod address;
pub mod delivery;
pub mod sign;

//! Delivery of notifications: at least once, in order for each connection or channel, with patience that has bounds.
//!
//! Nothing here reads a clock, waits or sends. Whoever drives a [`Queue`] gives it events ([`Queue::push`]), asks what to
//! send ([`Queue::poll`]), sends it, says what came of it ([`Queue::handle`]), and comes back when
//! [`Queue::poll_timeout`] says. What ends otherwise than delivered comes out as a [`Dead`] letter.

mod breaker;
mod line;
mod queue;
mod retry;

pub use breaker::{Breaker, BreakerState, Call, Trip};
pub use queue::{Attempt, Bounds, Cause, Dead, Event, Failure, Outcome, Queue};
pub use retry::{MAX_RETRY_AFTER, SCHEDULE};

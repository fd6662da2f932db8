//! Event streams of a whole server.

#[path = "../support/mod.rs"]
mod support;

mod resume;
mod slow;
mod streams;

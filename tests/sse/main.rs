//! Event streams of a whole server.

#[path = "../support/mod.rs"]
mod support;

mod connections;
mod resume;
mod slow;
mod streams;

//! Bayeux clients of a whole server.

#[path = "../support/mod.rs"]
mod support;

mod hostile;
mod polling;
mod sessions;
mod websocket;

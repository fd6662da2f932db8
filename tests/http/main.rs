//! What backends and operators ask over HTTP, of a whole server.

#[path = "../support/mod.rs"]
mod support;

mod codings;
mod hostile;
mod one_shot;
mod operations;
mod pages;
mod paths;
mod publish;

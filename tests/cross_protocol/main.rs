//! One channel space: what goes in at one edge comes out at every other.

#[path = "../support/mod.rs"]
mod support;

mod engine;
mod expiry;
mod expressible;
mod host_metrics;
mod levels;
mod lifecycle;
mod one_publish;
mod order;
mod packets;
mod policy;
mod rights;
mod unfinished;

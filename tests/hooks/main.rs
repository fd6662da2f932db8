//! Webhooks: what a backend hears of clients of every protocol, and what it decides about them.

#[path = "../support/mod.rs"]
mod support;

mod backend;
mod calamities;
mod decisions;
mod durable;
mod notices;
mod operators;
mod reload;
mod rules;

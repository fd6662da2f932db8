//! Rights on every front: the same credentials, accepted and refused alike.

#[path = "../support/mod.rs"]
mod support;

mod attempts;
mod command_line;
mod documentation;
mod expiry;
mod key_sets;
mod leaks;
mod limits;
mod metrics;
mod minted;
mod origins;
mod passwords;
mod reload;
mod schemes;
mod sets;
mod sources;
mod tokens;
mod wills;

//! Sources and single requests, with upstreams of the tests' own.

mod polls;
mod requests;
mod resources;
mod storm;
mod streams;
mod support;

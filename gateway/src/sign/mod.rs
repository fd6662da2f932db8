//! Signatures: how a backend knows that a request is the broker's.

mod standard;

pub use standard::{Secret, SecretError, Secrets};

//! AWS Signature Version 4: whether a request is what the holder of an access key signed.
//!
//! A request names an access key, a day, a region and a service, and the header fields that it signed. The server writes
//! the same request in its canonical form ([`canonical_request`]), signs that with the key's secret, and compares. Both
//! SDKs encode a path once more than it is on the wire, and drop empty segments and dots from it. A [`Signer`] does what they
//! do, for requests of our own.

mod authorization;
mod canonical;
mod sign;
mod time;
mod verify;

pub use authorization::Authorization;
pub use canonical::{canonical_path, canonical_query, canonical_request, normalized_path};
pub use sign::Signer;
pub use verify::{AccessKey, Verifier};

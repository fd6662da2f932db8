//! Device shadows as AWS IoT has them, without IO: documents in, answers and messages out.
//!
//! A shadow is a document with two sections, `desired` and `reported`. An update is merged into them; where they differ
//! afterwards there is a delta. Each update is a new version, and whoever says which version it was made for is told if
//! there is a newer one.
//!
//! ```text
//! topic ──▶ Request::of ──▶ (Name, Action)
//! payload ─▶ Shadows::{update, get, delete, list} ──▶ Updated { accepted, documents, delta } | Rejection
//! ```
//!
//! ```
//! use shadow::{Name, Shadows};
//!
//! let mut shadows = Shadows::default();
//! let lamp = Name::new("lamp", None).unwrap();
//! let updated = shadows.update(&lamp, br#"{"state":{"desired":{"on":true}}}"#, 1_700_000_000).unwrap();
//! assert!(updated.delta.is_some(), "the lamp has reported nothing");
//! let document = shadows.get(&lamp, b"", 1_700_000_000).unwrap();
//! assert!(document.contains(r#""desired":{"on":true}"#));
//! ```
//!
//! It leaves to others: the time (seconds since 1970 are an argument), topics and rights, and keeping it all beyond the
//! process. Numbers stay as they were written.

mod document;
mod node;
mod rejection;
mod request;
mod store;
mod text;

pub use rejection::Rejection;
pub use request::{Action, Name, Request};
pub use store::{Limits, Listed, Shadows, Updated};

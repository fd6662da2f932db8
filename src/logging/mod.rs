//! What the server writes about itself and its clients. `docs/logging.md` lists every line.
//!
//! The events are there for every subscriber of `tracing`; [`start`] is the binary's.

mod clients;
#[cfg(feature = "cli")]
mod start;
#[cfg(feature = "cli")]
mod writer;

pub(crate) use self::clients::ClientLines;
#[cfg(feature = "cli")]
pub use self::start::start;

/// Lines that were lost because nobody read them; none where an embedding service writes its own.
pub(crate) fn lost_lines() -> u64 {
    #[cfg(feature = "cli")]
    return writer::lost_lines();
    #[cfg(not(feature = "cli"))]
    0
}

//! The authenticators that the configuration can name.

mod built_in;

pub use built_in::BuiltIn;

//! Listeners: who is let in, what one address may take, and what those are told who are not let in.

mod accept;
mod addresses;
mod descriptors;
mod refusals;

pub(crate) use self::accept::{Gate, accept, close, listen};
pub use self::addresses::AddressLimits;
pub(crate) use self::addresses::Place;
pub use self::descriptors::raise_limit as raise_descriptor_limit;
pub(crate) use self::descriptors::{open as open_descriptors, soft_limit as descriptor_limit};
pub(crate) use self::refusals::{Counted, Refusals};

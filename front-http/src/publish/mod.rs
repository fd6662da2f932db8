//! Publishing: a raw body, JSON items, or a stream of them.

mod items;
mod lines;
mod options;
mod raw;
mod results;

pub(crate) use items::{Desk, publish_items};
pub(crate) use lines::publish_lines;
pub(crate) use options::{Options, key_of};
pub(crate) use raw::{Retain, content_type, publish_raw};
pub(crate) use results::{Batch, write_published};

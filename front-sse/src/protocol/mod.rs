//! What a stream sends and when. No sockets, no clock, no tasks.

mod events;
mod stream;

pub(crate) use events::{Events, OverBoth, Overlapping};
pub(crate) use stream::{Output, Stream};

//! What a stream sends and when. No sockets, no clock, no tasks.

mod events;
mod stream;

pub(crate) use events::{Events, Overlapping};
pub(crate) use stream::{Output, Stream};

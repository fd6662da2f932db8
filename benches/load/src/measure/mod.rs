//! What is known about every delivery: who sent it, whether it came once and in order, how long it took.

pub(crate) mod completion;
pub(crate) mod sequence;
pub(crate) mod stamp;
pub(crate) mod tally;

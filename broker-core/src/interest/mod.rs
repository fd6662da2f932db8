//! Who wants a message: channels and filters, each with the subscribers listed there.

mod group;
mod lists;
mod registry;
pub(crate) mod trie;
mod wildcards;

pub use self::group::{Group, GroupMember, Room};
pub(crate) use self::lists::{Hits, LaneList, Lists};
pub(crate) use self::registry::{ChannelEntry, Place, Registry};
pub(crate) use self::wildcards::Wildcards;

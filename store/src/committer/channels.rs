//! What the committer has to know of a message's channel, for those that were published to lately.

use ahash::AHashMap;
use broker_core::Channel;
use fjall::OwnedWriteBatch;

use crate::disk::Disk;
use crate::settings::{Durability, Retention, Settings};

/// Channels that are remembered. Beyond them all are forgotten, and found out again.
const MAX_CHANNELS: usize = 65_536;

/// Of one channel.
#[derive(Clone, Copy)]
pub(super) struct About {
    /// What its messages are found by.
    pub(super) hash: [u8; 8],
    /// The group of buckets that they lie in, and its bounds.
    pub(super) group: u32,
    pub(super) bounds: Retention,
    /// Whether an acknowledgement means that a message is on the disk.
    pub(super) is_urgent: bool,
}

#[derive(Default)]
pub(super) struct Channels(AHashMap<Channel, About>);

impl Channels {
    /// What is known of a channel. A group that is new is made in `batch`.
    pub(super) fn about(
        &mut self,
        channel: &Channel,
        disk: &Disk,
        settings: &Settings,
        batch: &mut OwnedWriteBatch,
    ) -> About {
        if let Some(about) = self.0.get(channel) {
            return *about;
        }
        let name = settings.group_of(channel.namespace());
        let about = About {
            hash: disk.secret.channel(channel.as_str()),
            group: disk.group_in(name, batch),
            bounds: settings.retention_of(name),
            is_urgent: settings.durability_of(channel.namespace()) == Durability::Always,
        };
        if self.0.len() >= MAX_CHANNELS {
            self.0.clear();
        }
        self.0.insert(channel.clone(), about);
        about
    }
}

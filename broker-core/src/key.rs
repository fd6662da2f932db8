//! Names of subscribers and of their subscriptions.

/// Names a subscriber: a slot in a lane and the slot's generation, so that a stale key hits nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberKey {
    pub(crate) lane: u16,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl SubscriberKey {
    pub(crate) fn of(lane: u16, entry: Entry) -> Self {
        Self { lane, slot: entry.slot, generation: entry.generation }
    }

    pub(crate) fn entry(self, tag: u32) -> Entry {
        Entry { slot: self.slot, generation: self.generation, tag }
    }

    /// The key as one number, for a front that shows it as a connection id.
    pub fn to_u128(self) -> u128 {
        u128::from(self.lane) << 64 | u128::from(self.slot) << 32 | u128::from(self.generation)
    }

    /// The key of [`SubscriberKey::to_u128`].
    pub fn from_u128(number: u128) -> Self {
        let part = |shift: u32| u32::try_from(number >> shift & u128::from(u32::MAX)).unwrap_or(0);
        Self { lane: (part(64) & 0xffff) as u16, slot: part(32), generation: part(0) }
    }
}

/// Tags from here on, in the upper half, are of subscriptions that somebody grants a client beside its rights: an
/// operator who subscribes it, a front's own policy. It sees what they match without having the right to it, but for
/// what its rights deny.
pub const GRANTED_TAG: u32 = 1 << 31;

/// Whether it is of a subscription that somebody grants.
pub(crate) fn is_granted_tag(tag: u32) -> bool {
    tag >= GRANTED_TAG
}

/// What a new subscription gets first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// Messages published from now on.
    #[default]
    Live,
    /// The retained messages that match, then those published from now on: none lost between, none twice.
    Retained,
    /// The same, but what is published meanwhile does not wait for the retained messages that are still to come: for who
    /// takes all that is recorded in its order, whatever it matched. A retained message never follows a later one of its
    /// channel.
    RetainedBeside,
}

/// What came of a subscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscribed {
    /// False if the same filter and tag were there already.
    pub new: bool,
}

impl Subscribed {
    /// The subscription is a new one.
    pub const ADDED: Self = Self { new: true };
    /// It was there already.
    pub const THERE: Self = Self { new: false };
}

/// One subscription in a lane's list. It names a slot, not an object: copying a list is a plain memory copy, and a list
/// never keeps a dead subscriber alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) slot: u32,
    /// Moves when the slot is freed, so that a stale entry hits nobody else.
    pub(crate) generation: u32,
    pub(crate) tag: u32,
}

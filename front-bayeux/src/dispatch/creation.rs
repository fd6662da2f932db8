//! Channels that do not exist yet.

use broker_core::{Channel, Principal};

use crate::error::Denial;
use crate::hooks::policy::Policy;
use crate::sessions::Sessions;
use crate::sessions::rate::RateLimit;

/// Whether a channel may be used that may not exist yet.
pub(super) fn allow_creation(
    sessions: &Sessions,
    policy: &dyn Policy,
    principal: &Principal,
    limit: &RateLimit,
    channel: &Channel,
) -> Result<(), Denial> {
    let per_second = sessions.config().max_new_channels_per_second;
    let guards = policy.guards_creation();
    if (!guards && per_second == 0) || sessions.broker.channel(channel).is_some() {
        return Ok(());
    }
    if guards {
        policy.can_create(principal, channel)?;
    }
    if per_second != 0 && !limit.take(sessions.shared.age(), per_second) {
        return Err(Denial::Because("too_many_new_channels".into()));
    }
    Ok(())
}

//! The outbox in the section of a front.

use broker_core::{OutboxConfig, OutboxPolicy};
use settings::Size;

settings::section!(
    /// `outbox` in the section of a front: what may wait for one slow client, and what happens then.
    pub Outbox: OutboxConfig { max_messages: usize, max_bytes: Size, policy: Full }
);

settings::choice!(
    /// What a full outbox does.
    Full: non_exhaustive OutboxPolicy {
        DropOldest = "drop_oldest",
        DropNewest = "drop_newest",
        Disconnect = "disconnect",
        Conflate = "conflate",
    }
);

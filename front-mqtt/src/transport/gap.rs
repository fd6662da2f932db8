//! What retention has taken of a session's messages while its client was away, before the client is told that it has
//! one.

use broker_core::{Filter, Gap, MessageId, Qos};

use crate::front::Inner;
use crate::protocol::{Held, Record, target_of};

/// Whether messages behind a session's position are gone that would have come to it. Of what is lost nothing is known
/// but where it lay, so it may be more than the client misses, and never less.
pub(super) async fn behind(inner: &Inner, record: &Record, after: MessageId) -> Option<Gap> {
    let keeps_qos0 = inner.shared.config.queue_qos0_offline;
    let of_own = |held: &&Held| !held.shared && (keeps_qos0 || held.qos > Qos::AtMostOnce);
    let held = || record.subscriptions.iter().filter(of_own);
    let filters: Vec<Filter> = held()
        .filter_map(|held| target_of(&held.filter).map(|target| target.filter))
        .filter(|filter| inner.broker.reach_of(filter).kept)
        .collect();
    if !filters.is_empty()
        && let Some(gap) = inner.broker.gap_behind(&filters, after).await
        // A subscription that began behind it misses nothing.
        && held().any(|held| held.since < gap.first.offset())
    {
        return Some(gap);
    }
    // Of its groups only those where nobody is.
    for held in record.subscriptions.iter().filter(|held| held.shared) {
        let Some(target) = target_of(&held.filter) else { continue };
        let group = target.group.as_deref().unwrap_or_default();
        if let Some(after) = inner.kept_groups.begins_behind((group, &target.filter))
            && let Some(gap) = inner.broker.gap_behind(&[target.filter], after).await
        {
            return Some(gap);
        }
    }
    None
}

//! Who came, who left and why, and who was too slow: the same lines for every protocol.

use std::sync::Arc;
use std::time::Duration;

use broker_core::{Account, Connection, LeaveReason, Left, Lifecycle, SubscriberKey};
use front::shortened;
use http_edge::connection_id;
use tracing::field::display;

/// Writes what [`Broker::hear`](broker_core::Broker::hear) tells it. The lines are `info,fanwire::clients=off` away
/// from silence; then a client costs a look at the filter.
pub(crate) struct ClientLines;

const TARGET: &str = "fanwire::clients";

impl Lifecycle for ClientLines {
    fn joined(&self, client: SubscriberKey, connection: &Arc<dyn Connection>) {
        if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
            return;
        }
        let Some(peer) = connection.peer() else { return };
        let details = connection.details();
        tracing::info!(
            target: TARGET,
            connection = connection_id(client),
            protocol = peer.protocol,
            transport = peer.transport,
            user = peer.principal.user(),
            client_id = details.client_id.as_deref().map(shortened),
            remote = details.remote.map(display),
            user_agent = details.user_agent,
            "connected"
        );
    }

    fn left(&self, client: SubscriberKey, how: Left, account: &Account<'_>) {
        if !account.was_here {
            tracing::info!(
                target: TARGET,
                connection = connection_id(client),
                protocol = account.protocol,
                reason = how.why.name(),
                user = account.principal.and_then(|principal| principal.user()),
                client_id = account.client_id.map(shortened),
                "session ended"
            );
            return;
        }
        let user = account.principal.and_then(|principal| principal.user());
        let (client_id, remote) = (account.client_id.map(shortened), account.remote.map(display));
        let seconds = account.lasted.map(seconds);
        if how.why == LeaveReason::TooSlow {
            tracing::warn!(
                target: TARGET,
                connection = connection_id(client),
                protocol = account.protocol,
                user,
                client_id,
                remote,
                seconds,
                dropped = account.dropped,
                "slow reader closed"
            );
        }
        tracing::info!(
            target: TARGET,
            connection = connection_id(client),
            protocol = account.protocol,
            reason = how.why.name(),
            session_stays = how.stays,
            user,
            client_id,
            remote,
            seconds,
            sent_messages = account.sent_messages,
            sent_bytes = account.sent_bytes,
            received_messages = account.received_messages,
            received_bytes = account.received_bytes,
            dropped = account.dropped,
            "disconnected"
        );
    }

    fn dropped(&self, client: SubscriberKey, messages: u64, connection: &Arc<dyn Connection>) {
        if !tracing::enabled!(target: TARGET, tracing::Level::WARN) {
            return;
        }
        let details = connection.details();
        let Some(peer) = connection.peer() else {
            // What is lost when it is closed for that is told with its end. A session stays.
            if let Some(client_id) = &details.client_id {
                tracing::warn!(
                    target: TARGET,
                    connection = connection_id(client),
                    client_id = shortened(client_id),
                    messages,
                    total = details.dropped,
                    "messages dropped for a session whose client is away"
                );
            }
            return;
        };
        tracing::warn!(
            target: TARGET,
            connection = connection_id(client),
            protocol = peer.protocol,
            user = peer.principal.user(),
            client_id = details.client_id.as_deref().map(shortened),
            remote = details.remote.map(display),
            messages,
            total = details.dropped,
            "messages dropped for a slow reader"
        );
    }
}

/// In seconds with milliseconds.
fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1e3
}

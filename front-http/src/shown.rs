//! Clients as answers show them, here and between nodes.

use broker_core::{Connection, Encryption, Peer, SubscriberKey};
use envelope::timestamp;
use http_edge::{connection_id, parse_connection_id};
use serde::{Deserialize, Serialize};

/// An attached client.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Shown {
    id: String,
    user: Option<String>,
    protocol: String,
    transport: String,
    connected_at: String,
    last_active_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    remote: Remote,
    pub(crate) subscriptions: Vec<String>,
    /// Whether it has more of them: between nodes a long list is cut.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    more_subscriptions: bool,
    queue: Queue,
    dropped: u64,
    /// Where it is, in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Remote {
    ip: Option<String>,
    user_agent: Option<String>,
    /// How it is encrypted, where this server has ended TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls: Option<Tls>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Tls {
    version: String,
    cipher: String,
}

impl Tls {
    fn of(encryption: Encryption) -> Self {
        Self { version: encryption.version().to_owned(), cipher: encryption.cipher().into_owned() }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Queue {
    messages: u64,
    bytes: u64,
}

impl Shown {
    pub(crate) fn new(key: SubscriberKey, peer: &Peer, connection: &dyn Connection) -> Self {
        let details = connection.details();
        let queued = connection.queued();
        Self {
            id: connection_id(key),
            user: peer.principal.user().map(str::to_owned),
            protocol: peer.protocol.to_owned(),
            transport: peer.transport.to_owned(),
            connected_at: timestamp(peer.since_ms),
            last_active_at: timestamp(details.last_active_ms),
            client_id: details.client_id,
            remote: Remote {
                ip: details.remote.map(|ip| ip.to_string()),
                user_agent: details.user_agent,
                tls: details.encryption.map(Tls::of),
            },
            subscriptions: details.subscriptions,
            more_subscriptions: false,
            queue: Queue { messages: queued.messages as u64, bytes: queued.bytes as u64 },
            dropped: details.dropped,
            node: None,
        }
    }

    pub(crate) fn key(&self) -> Option<SubscriberKey> {
        parse_connection_id(&self.id)
    }

    /// Leaves out the subscriptions behind the first `max_bytes`.
    pub(crate) fn cut_subscriptions(&mut self, max_bytes: usize) {
        let mut bytes = 0;
        let fit = self.subscriptions.iter().take_while(|filter| {
            bytes += filter.len();
            bytes <= max_bytes
        });
        let fit = fit.count();
        self.more_subscriptions |= fit < self.subscriptions.len();
        self.subscriptions.truncate(fit);
    }
}

/// Somebody who is on a channel.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    connection: String,
    user: Option<String>,
    protocol: String,
    since: String,
    /// Where it is, in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
}

impl Member {
    pub(crate) fn new(key: SubscriberKey, peer: &Peer) -> Self {
        Self {
            connection: connection_id(key),
            user: peer.principal.user().map(str::to_owned),
            protocol: peer.protocol.to_owned(),
            since: timestamp(peer.since_ms),
            node: None,
        }
    }

    pub(crate) fn key(&self) -> Option<SubscriberKey> {
        parse_connection_id(&self.connection)
    }

    /// About how long it is, written down.
    pub(crate) fn weight(&self) -> usize {
        // A character of a user's name is written with six at most.
        128 + self.user.as_ref().map_or(0, |user| 6 * user.len())
    }
}

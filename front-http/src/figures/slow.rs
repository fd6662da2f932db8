//! Which clients have most waiting for them.
//!
//! Asking every client every second would cost a server with a million of them dearly, so each second the next
//! [`LOOKED_AT`] are asked, in turn, and those that are known to have something waiting are asked again.

use std::time::Instant;

use broker_core::{Broker, Queued, SubscriberKey};
use envelope::write_string;
use http_edge::connection_id;

use crate::json::write_optional;

/// Clients asked in one second, beside those that are known.
const LOOKED_AT: usize = 5_000;
/// Of these, between two turns of other tasks.
const TURN: usize = 1_000;
/// Clients that are named.
const SHOWN: usize = 20;

#[derive(Default)]
pub(super) struct Slow {
    /// The last client that was asked in its turn; `None` at the beginning of a round.
    after: Option<SubscriberKey>,
    /// Those for whom most waits, the most first.
    known: Vec<Reader>,
}

struct Reader {
    key: SubscriberKey,
    queued: Queued,
    /// Since when something waits, as far as it was looked at.
    since: Instant,
}

impl Slow {
    pub(super) async fn look(&mut self, broker: &Broker, now: Instant) {
        let mut found: Vec<Reader> = Vec::new();
        for reader in std::mem::take(&mut self.known) {
            let queued = broker.connection(reader.key).map(|connection| connection.queued());
            if let Some(queued) = queued.filter(waits) {
                found.push(Reader { queued, ..reader });
            }
        }
        for _ in 0..LOOKED_AT / TURN {
            let some = broker.connections(self.after, TURN);
            let last = some.last().map(|(key, _)| *key);
            self.after = last.filter(|_| some.len() == TURN);
            let known: Vec<_> = found.iter().map(|reader| reader.key).collect();
            for (key, connection) in some {
                let queued = connection.queued();
                // A session whose client is away has no reader that could be slow.
                if waits(&queued) && !known.contains(&key) && connection.peer().is_some() {
                    found.push(Reader { key, queued, since: now });
                }
            }
            // In between, so that a crowd of them never takes much memory.
            keep_slowest(&mut found);
            if self.after.is_none() {
                break;
            }
            tokio::task::yield_now().await;
        }
        self.known = found;
    }

    /// `[{"id","user","protocol","transport","queue":{"messages","bytes"},"dropped","seconds"}]`, the most first.
    pub(super) fn write(&self, broker: &Broker, now: Instant, out: &mut Vec<u8>) {
        out.push(b'[');
        let mut first = true;
        for reader in &self.known {
            let Some(connection) = broker.connection(reader.key) else { continue };
            let Some(peer) = connection.peer() else { continue };
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"id\":");
            write_string(&connection_id(reader.key), out);
            out.extend_from_slice(b",\"user\":");
            write_optional(peer.principal.user(), out);
            out.extend_from_slice(b",\"protocol\":");
            write_string(peer.protocol, out);
            out.extend_from_slice(b",\"transport\":");
            write_string(peer.transport, out);
            let Queued { messages, bytes, .. } = reader.queued;
            let dropped = connection.details().dropped;
            let seconds = now.saturating_duration_since(reader.since).as_secs();
            let rest = format!(
                ",\"queue\":{{\"messages\":{messages},\"bytes\":{bytes}}},\"dropped\":{dropped},\"seconds\":{seconds}}}"
            );
            out.extend_from_slice(rest.as_bytes());
        }
        out.push(b']');
    }
}

fn waits(queued: &Queued) -> bool {
    queued.messages > 0 || queued.bytes > 0
}

fn keep_slowest(found: &mut Vec<Reader>) {
    found.sort_by_key(|reader| std::cmp::Reverse((reader.queued.bytes, reader.queued.messages)));
    found.truncate(SHOWN);
}

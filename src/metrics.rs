//! What the server counts beside its fronts, under the names that `/metrics` shows.

mod clients;
mod process;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use front::{Metric, MetricSource};

use crate::Fronts;

pub(crate) use self::clients::Clients;
pub(crate) use self::process::of_process;

/// Requests that were for another host.
pub(crate) fn of_hosts(refused: Arc<AtomicU64>) -> Arc<dyn MetricSource> {
    Arc::new(move |out: &mut Vec<Metric>| {
        let help = "HTTP requests refused because they were for a host that is not this server";
        out.push(Metric::counter("refused_hosts", help, refused.load(Relaxed)));
    })
}

/// What waits for clients of HTTP/2 that do not read.
pub(crate) fn of_stalled(stalled: http_edge::Stalled) -> Arc<dyn MetricSource> {
    Arc::new(move |out: &mut Vec<Metric>| {
        let waiting = "Bytes that wait for HTTP/2 clients, of responses that did not go at once";
        let reset = "HTTP/2 streams reset because their clients did not take what waited for them";
        let refused = "HTTP/2 answers replaced by 503 because too much waited for clients already";
        out.extend([
            Metric::gauge("http2_waiting_bytes", waiting, stalled.bytes() as u64),
            Metric::counter("http2_streams_reset", reset, stalled.reset()),
            Metric::counter("http2_answers_refused", refused, stalled.refused()),
        ]);
    })
}

/// What this node counts of its cluster.
#[cfg(feature = "cluster")]
pub(crate) fn of_cluster(cluster: Arc<cluster::Cluster>) -> Arc<dyn MetricSource> {
    Arc::new(move |out: &mut Vec<Metric>| {
        let stats = cluster.stats();
        let unsent = "Messages that did not go to other nodes: NATS was away, too much waited, or the server takes none so large";
        let round_trip = "How long the NATS server took for its newest answer";
        let overruns =
            "Times at which more came from other nodes than this one read, each a message lost or more";
        let unsettled =
            "Subscribers that were answered before it was known that messages of other nodes reach them";
        let durable_refused = "Publishes to durable channels, or frames of them, that were not stored: NATS was away, or had no answer";
        let durable_holes =
            "Times at which something was missing of what came, or might be, and was read from the stream";
        out.extend([
            Metric::gauge("cluster_connected", "1 while NATS answers, else 0", u64::from(stats.connected)),
            Metric::gauge(
                "cluster_nodes",
                "Nodes that were heard of lately, this one among them",
                stats.nodes,
            ),
            Metric::counter("cluster_disconnects", "Connections to NATS that were lost", stats.disconnects),
            Metric::seconds("cluster_round_trip_seconds", round_trip, stats.round_trip.as_secs_f64()),
            Metric::gauge("cluster_filters", "Filters that NATS is asked for", stats.filters),
            Metric::gauge(
                "cluster_takes_all",
                "1 while this node takes all messages, as it has too many filters",
                u64::from(stats.takes_all),
            ),
            Metric::counter("cluster_sent", "Messages that were given to NATS", stats.sent),
            Metric::counter("cluster_sent_bytes", "Bytes of those, as they are sent", stats.sent_bytes),
            Metric::gauge("cluster_waiting", "Messages that wait to be given to NATS", stats.waiting),
            Metric::gauge("cluster_waiting_bytes", "Bytes of those", stats.waiting_bytes),
            Metric::counter("cluster_unsent", unsent, stats.unsent_away).with("reason", "away"),
            Metric::counter("cluster_unsent", unsent, stats.unsent_full).with("reason", "full"),
            Metric::counter("cluster_unsent", unsent, stats.unsent_large).with("reason", "large"),
            Metric::counter(
                "cluster_received",
                "Messages of other nodes that were published here",
                stats.received,
            ),
            Metric::counter("cluster_received_bytes", "Bytes of their payloads", stats.received_bytes),
            Metric::counter(
                "cluster_repeats",
                "Copies that had come already, by another filter",
                stats.repeats,
            ),
            Metric::counter(
                "cluster_refused",
                "Messages of other nodes that did not fit the bounds of this one",
                stats.refused,
            ),
            Metric::counter("cluster_overruns", overruns, stats.overruns),
            Metric::counter("cluster_unreadable", "What no node of this version sends", stats.unreadable),
            Metric::counter("cluster_unsettled", unsettled, stats.unsettled),
            Metric::counter(
                "cluster_shared",
                "Messages of other nodes for groups that a member here got",
                stats.shared,
            ),
            Metric::counter(
                "cluster_questions",
                "Questions of other nodes: who is connected, who is on a channel",
                stats.questions,
            ),
            Metric::counter(
                "cluster_silent",
                "Answers of other nodes that did not come in time",
                stats.silent,
            ),
            Metric::gauge(
                "cluster_durable_waiting",
                "Publishes to durable channels that are not answered yet",
                stats.kept_waiting,
            ),
            Metric::gauge("cluster_durable_waiting_bytes", "Bytes of those", stats.kept_waiting_bytes),
            Metric::counter(
                "cluster_durable_sent",
                "Frames, of one durable message or several of its channel, that this node had stored",
                stats.kept_sent,
            ),
            Metric::counter(
                "cluster_durable_retries",
                "Times at which one was sent again, or waited for NATS",
                stats.kept_retries,
            ),
            Metric::counter("cluster_durable_refused", durable_refused, stats.kept_refused),
            Metric::counter(
                "cluster_durable_received",
                "Durable messages that came, of all nodes",
                stats.kept_received,
            ),
            Metric::counter(
                "cluster_durable_received_bytes",
                "Bytes of their payloads",
                stats.kept_received_bytes,
            ),
            Metric::counter("cluster_durable_repeats", "Frames that had come already", stats.kept_repeats),
            Metric::counter("cluster_durable_holes", durable_holes, stats.kept_holes),
            Metric::counter("cluster_durable_filled", "Frames that were read so", stats.kept_filled),
            Metric::counter(
                "cluster_takeovers_unrecorded",
                "Sessions taken from nodes that did not say in time that they had recorded them",
                stats.takeovers_unrecorded,
            ),
            Metric::gauge("cluster_groups", "Groups here that share durable messages", stats.groups),
            Metric::counter(
                "cluster_groups_refused",
                "Times at which there was no place for one more of those",
                stats.groups_refused,
            ),
            Metric::counter(
                "cluster_group_messages",
                "Durable messages that this node was given for groups",
                stats.group_messages,
            ),
            Metric::counter(
                "cluster_groups_returned",
                "Frames of those that it gave back to other nodes",
                stats.groups_returned,
            ),
        ]);
        let lost = "1 once a stream of durable channels is gone or another one than it was, else 0";
        let (messages, retained) = stats.streams.unwrap_or_default();
        let sessions = stats.sessions.unwrap_or_default();
        for (stream, standing) in [("messages", messages), ("retained", retained), ("sessions", sessions)] {
            let is_lost = u64::from(standing == cluster::Standing::Lost);
            out.push(Metric::gauge("cluster_durable_lost", lost, is_lost).with("stream", stream));
        }
    })
}

/// What the store counts.
#[cfg(feature = "store")]
pub(crate) fn of_store(store: Arc<store::Store>) -> Arc<dyn MetricSource> {
    Arc::new(move |out: &mut Vec<Metric>| {
        let stats = store.stats();
        let (ops, bytes) = stats.waiting;
        let state = u64::from(stats.state == store::State::Ready);
        let recovery = "How long opening the store took";
        out.extend([
            Metric::gauge("store_state", "1 while the store takes messages, else 0", state),
            Metric::histogram(
                "store_commit_seconds",
                "How long the store's disk took for a batch",
                stats.commit_times,
            ),
            Metric::gauge("store_batch_messages", "Messages in the newest batch", stats.last_batch),
            Metric::counter(
                "store_written_messages",
                "Messages in batches that were committed",
                stats.messages,
            ),
            Metric::counter(
                "store_written_bytes",
                "Bytes of these, before they are compressed",
                stats.written_bytes,
            ),
            Metric::counter("store_refused", "Operations that the store did not take", stats.refused),
            Metric::gauge("store_waiting", "Operations that wait for the store's disk", ops as u64),
            Metric::gauge("store_waiting_bytes", "Bytes of the messages that wait for it", bytes as u64),
            Metric::gauge("store_free_bytes", "Room on the store's disk", stats.free_bytes),
            Metric::seconds("store_recovery_seconds", recovery, stats.recovery.as_secs_f64()),
            Metric::gauge("store_head", "The newest offset that was committed", stats.head),
            Metric::gauge("store_disk_bytes", "What the store's files take", stats.disk_bytes),
            Metric::seconds(
                "store_last_commit_seconds",
                "How long the store's disk took for the newest batch",
                stats.last_commit.as_secs_f64(),
            ),
        ]);
        let of = |kept: &store::Kept, metric: Metric| {
            metric.with("namespace", kept.namespace.clone().unwrap_or_else(|| "*".to_owned()))
        };
        let help = "Messages that are kept, by namespaces with bounds of their own; `*`: all others";
        let messages = |kept: &store::Kept| of(kept, Metric::gauge("store_messages", help, kept.messages));
        out.extend(stats.kept.iter().map(messages));
        let help = "Bytes of these, before they are compressed";
        out.extend(stats.kept.iter().map(|kept| of(kept, Metric::gauge("store_bytes", help, kept.bytes))));
        let help = "When the oldest of these was published; 0 if there is none";
        let oldest = |kept: &store::Kept| {
            let seconds = kept.oldest_ms.unwrap_or(0) as f64 / 1_000.0;
            of(kept, Metric::seconds("store_oldest_timestamp", help, seconds))
        };
        out.extend(stats.kept.iter().map(oldest));
    })
}

/// What was not written into the log.
pub(crate) fn of_log() -> Arc<dyn MetricSource> {
    Arc::new(|out: &mut Vec<Metric>| {
        let suppressed = "Log lines not written because one of their kind had just been";
        let lost = "Log lines lost because nobody read standard error";
        out.extend([
            Metric::counter("suppressed_log_lines", suppressed, front::suppressed_lines()),
            Metric::counter("lost_log_lines", lost, crate::logging::lost_lines()),
        ]);
    })
}

/// Which program this is, and which protocols it speaks.
pub(crate) fn of_build(fronts: &Fronts) -> Arc<dyn MetricSource> {
    let mut fronts: Vec<_> = fronts.list().iter().map(|front| front.name()).collect();
    fronts.sort_unstable();
    let fronts = fronts.join(",");
    Arc::new(move |out: &mut Vec<Metric>| {
        let help = "Version, commit if it is known, and protocols of this program";
        let commit = env!("BUILT_COMMIT");
        let build = Metric::info("build", help).with("version", env!("CARGO_PKG_VERSION"));
        out.push(build.with("commit", commit).with("protocols", fronts.clone()));
    })
}

/// Connections on which HTTP is spoken.
pub(crate) fn of_connections(open: Arc<AtomicU64>) -> Arc<dyn MetricSource> {
    Arc::new(move |out: &mut Vec<Metric>| {
        let help =
            "Connections that HTTP is spoken on now; event streams over HTTP/1.1 and WebSockets have left it";
        out.push(Metric::gauge("http_connections", help, open.load(Relaxed)));
    })
}

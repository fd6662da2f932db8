//! What the fronts count, under the names that `/metrics` shows. Each reads a snapshot when it is scraped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use front_http::{Metric, MetricSource, Value};

pub(crate) fn counter(name: &'static str, help: &'static str, value: u64) -> Metric {
    Metric { name, help, value: Value::Counter(value) }
}

pub(crate) fn gauge(name: &'static str, help: &'static str, value: u64) -> Metric {
    Metric { name, help, value: Value::Gauge(value) }
}

/// Requests that were for another host.
pub(crate) fn of_hosts(refused: Arc<AtomicU64>) -> Arc<dyn MetricSource> {
    Arc::new(move |out: &mut Vec<Metric>| {
        let help = "HTTP requests refused because they were for a host that is not this server";
        out.push(counter("refused_hosts", help, refused.load(Relaxed)));
    })
}

/// What waits for clients of HTTP/2 that do not read.
pub(crate) fn of_stalled(stalled: http_edge::Stalled) -> Arc<dyn MetricSource> {
    Arc::new(move |out: &mut Vec<Metric>| {
        let waiting = "Bytes that wait for HTTP/2 clients, of responses that did not go at once";
        let reset = "HTTP/2 streams reset because their clients did not take what waited for them";
        let refused = "HTTP/2 answers replaced by 503 because too much waited for clients already";
        out.extend([
            gauge("http2_waiting_bytes", waiting, stalled.bytes() as u64),
            counter("http2_streams_reset", reset, stalled.reset()),
            counter("http2_answers_refused", refused, stalled.refused()),
        ]);
    })
}

#[cfg(feature = "bayeux")]
pub(crate) fn of_bayeux(front: &front_bayeux::Front) -> Arc<dyn MetricSource> {
    let front = front.clone();
    Arc::new(move |out: &mut Vec<Metric>| {
        let stats = front.stats();
        out.extend([
            gauge("bayeux_sessions", "Bayeux sessions that live now", stats.sessions),
            gauge("bayeux_websockets", "Bayeux WebSockets open now", stats.websockets),
            gauge("bayeux_held_polls", "Bayeux connects held over HTTP now", stats.held_polls),
            counter("bayeux_handshakes", "Bayeux handshakes that succeeded", stats.handshakes),
            counter("bayeux_handshakes_refused", "Bayeux handshakes that failed", stats.handshakes_refused),
            counter("bayeux_published", "Messages published over Bayeux", stats.published),
            counter(
                "bayeux_refused_rights",
                "Bayeux messages refused for lack of rights",
                stats.refused_rights,
            ),
            counter("bayeux_rate_limited", "Bayeux messages beyond their sender's rate", stats.rate_limited),
            counter("bayeux_failed", "Bayeux messages answered as not successful", stats.failed),
            counter("bayeux_malformed", "Requests and frames that were no Bayeux messages", stats.malformed),
            counter("bayeux_expired", "Bayeux sessions that expired", stats.expired),
            counter(
                "bayeux_overflowed",
                "Bayeux sessions ended because their queue was full",
                stats.overflowed,
            ),
            counter(
                "bayeux_dropped",
                "Bayeux events dropped because a session's queue was full (bayeux.queue_full)",
                stats.dropped,
            ),
            counter(
                "bayeux_replays_lost",
                "Bayeux sessions ended because the log lost what they were to be replayed",
                stats.replays_lost,
            ),
            counter(
                "bayeux_handshake_timeouts",
                "Bayeux WebSockets closed because no session came to them in time",
                stats.handshake_timeouts,
            ),
            counter(
                "bayeux_inexpressible",
                "Deliveries of channels that Bayeux has no name for",
                stats.inexpressible,
            ),
            counter(
                "bayeux_unhandled_services",
                "Messages to services that no handler took",
                stats.unhandled_services,
            ),
            counter("bayeux_late_services", "Handlers of services that took too long", stats.late_services),
            gauge(
                "bayeux_last_sweep_microseconds",
                "How long the last look for expired Bayeux sessions took",
                stats.last_sweep_us,
            ),
            gauge("bayeux_longest_sweep_microseconds", "The longest of these looks", stats.longest_sweep_us),
        ]);
    })
}

#[cfg(feature = "mqtt")]
pub(crate) fn of_mqtt(front: &front_mqtt::Front) -> Arc<dyn MetricSource> {
    let front = front.clone();
    Arc::new(move |out: &mut Vec<Metric>| {
        let stats = front.stats();
        out.extend([
            gauge("mqtt_connections", "MQTT connections open now", stats.connections as u64),
            gauge("mqtt_sessions", "MQTT sessions, connected or not", stats.sessions as u64),
            counter("mqtt_connects", "MQTT connections let in", stats.connects),
            counter("mqtt_handshakes_failed", "MQTT connections not let in", stats.handshakes_failed),
            counter(
                "mqtt_sessions_refused",
                "MQTT connections whose session had no place: too many, or another user's",
                stats.sessions_refused,
            ),
            counter(
                "mqtt_refused_rights",
                "MQTT publishes and subscriptions refused for lack of rights",
                stats.refused_rights,
            ),
            counter("mqtt_rate_limited", "MQTT publishes beyond their sender's rate", stats.rate_limited),
            counter("mqtt_bytes_received", "Bytes from MQTT clients", stats.bytes_received),
            counter("mqtt_bytes_sent", "Bytes to MQTT clients", stats.bytes_sent),
            counter("mqtt_sessions_expired", "MQTT sessions that expired", stats.sessions_expired),
            counter("mqtt_messages_received", "Publishes from MQTT clients", stats.messages_received),
            counter("mqtt_messages_sent", "Publishes to MQTT clients", stats.messages_sent),
            counter(
                "mqtt_messages_dropped",
                "Messages kept from MQTT clients by a limit",
                stats.messages_dropped,
            ),
            counter(
                "mqtt_closed_slow",
                "MQTT connections closed because too much waited for their clients",
                stats.closed_slow,
            ),
            gauge(
                "mqtt_group_queued",
                "Messages that wait for a member of an MQTT shared subscription to have room",
                stats.group_queued as u64,
            ),
            gauge("mqtt_group_queued_bytes", "Bytes of those messages", stats.group_queued_bytes as u64),
            counter(
                "mqtt_group_dropped",
                "Messages of MQTT shared subscriptions that no member had room for or was left for",
                stats.group_dropped,
            ),
        ]);
    })
}

#[cfg(feature = "sse")]
pub(crate) fn of_sse(front: &front_sse::Front) -> Arc<dyn MetricSource> {
    let front = front.clone();
    Arc::new(move |out: &mut Vec<Metric>| {
        let stats = front.stats();
        out.extend([
            gauge("sse_streams", "Event streams open now", stats.streams),
            counter("sse_opened", "Event streams opened", stats.opened),
            counter("sse_resumed", "Event streams that resumed from an id", stats.resumed),
            counter("sse_gaps", "Gaps told to streams that resumed", stats.gaps),
            counter("sse_closed_slow", "Event streams closed for a slow reader", stats.closed_slow),
            counter("sse_refused_rights", "Event streams refused for lack of rights", stats.refused_rights),
            counter("sse_refused", "Event streams refused for any other reason", stats.refused),
            counter("sse_unexpressible", "Messages that an event stream cannot express", stats.unexpressible),
        ]);
    })
}
